package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// Errored is a copy in the bucket of a state that terraform could not write and
// left in errored.tfstate.
type Errored struct {
	state.Head        // Exists is false where it is no state
	Run        string // whose terraform it was
	Key        string
}

// ErrNotNext is wrapped where an errored state does not continue the state that
// is there: pushing it would lose what somebody else wrote.
var ErrNotNext = errors.New("it does not continue the state")

// aside is the folder below an ErroredPrefix of those that nobody wants pushed.
const aside = "aside/"

// KeepErrored copies an errored state into the bucket, private and encrypted as
// the state is, and gives the key. Once kept it is not written again.
func (s *Store) KeepErrored(ctx context.Context, run string, c *Content) (key string, err error) {
	if !lock.UsableID(run) {
		return "", fmt.Errorf("keep errored state: %q is no run's id", run)
	}
	cur, err := s.look(ctx, s.state, s.addr.Key, "") // for its key of KMS
	if err != nil {
		return "", fmt.Errorf("keep errored state: %w", err)
	}
	key = s.addr.ErroredPrefix() + run + suffix
	_, err = s.put(ctx, key, nil, aws.String("*"), s.crypt.like(cur), c)
	if err == nil {
		return key, nil
	}
	// A refusal may come from the first try of this write, or of one before.
	there, lookErr := s.look(ctx, s.state, key, "")
	if lookErr == nil && there.Size == c.size {
		if sum, hashErr := s.hash(ctx, s.state, key, there); hashErr == nil && sum == c.sha256 {
			return key, nil
		}
	}
	return "", fmt.Errorf("keep errored state: %w", awsclient.Explain(err, s.state.name(key)))
}

// ErroredCopies lists what KeepErrored kept and nobody pushed or set aside,
// oldest first.
func (s *Store) ErroredCopies(ctx context.Context) ([]Errored, error) {
	var all []Errored
	err := s.walk(ctx, s.state, s.addr.ErroredPrefix(), func(key string, _ int64, _ string, _ time.Time) {
		if run, ok := strings.CutSuffix(strings.TrimPrefix(key, s.addr.ErroredPrefix()), suffix); ok && lock.UsableID(run) {
			all = append(all, Errored{Run: run, Key: key})
		}
	})
	for i := range all {
		var obj object
		if obj, err = s.look(ctx, s.state, all[i].Key, ""); err != nil {
			break
		}
		all[i].Head = obj.Head
	}
	if err != nil {
		return nil, fmt.Errorf("list errored states: %w", err)
	}
	return all, nil
}

// ReadErrored gives the content of a copy. The caller closes it.
func (s *Store) ReadErrored(ctx context.Context, e Errored) (*Content, error) {
	obj, err := s.look(ctx, s.state, e.Key, "")
	if err != nil {
		return nil, err
	}
	if !obj.present {
		return nil, fmt.Errorf("read %s: %w", s.state.name(e.Key), state.ErrChanged)
	}
	return s.contentOf(ctx, s.state, e.Key, obj)
}

// DropErrored removes a copy whose content is safe elsewhere: it is the state,
// or set aside.
func (s *Store) DropErrored(ctx context.Context, key string) error {
	if !strings.HasPrefix(key, s.addr.ErroredPrefix()) {
		return fmt.Errorf("remove errored state: %q is none", key)
	}
	_, err := s.state.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(s.state.bucket), Key: aws.String(key)})
	if err != nil {
		return fmt.Errorf("remove errored state: %w", awsclient.Explain(err, s.state.name(key)))
	}
	return nil
}

// SetAside moves a copy where ErroredCopies does not look, and gives its key.
func (s *Store) SetAside(ctx context.Context, e Errored) (key string, err error) {
	obj, err := s.look(ctx, s.state, e.Key, "")
	if err != nil || !obj.present {
		return "", errors.Join(err, fmt.Errorf("set errored state aside: %s is not there", s.state.name(e.Key)))
	}
	key = s.addr.ErroredPrefix() + aside + strings.TrimPrefix(e.Key, s.addr.ErroredPrefix())
	enc := s.crypt.like(obj)
	_, err = s.state.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: aws.String(s.state.bucket), Key: aws.String(key),
		CopySource: aws.String(copySource(s.state.bucket, e.Key, "")), CopySourceIfMatch: opt(obj.ETag),
		ChecksumAlgorithm: enc.checksum, TaggingDirective: types.TaggingDirectiveReplace,
		ServerSideEncryption: enc.sse, SSEKMSKeyId: enc.kmsKey, ACL: enc.acl,
		SSECustomerAlgorithm: enc.algorithm, SSECustomerKey: enc.key, SSECustomerKeyMD5: enc.keyMD5,
		CopySourceSSECustomerAlgorithm: enc.algorithm, CopySourceSSECustomerKey: enc.key, CopySourceSSECustomerKeyMD5: enc.keyMD5,
	})
	if err != nil {
		return "", fmt.Errorf("set errored state aside: %w", awsclient.Explain(err, s.state.name(key)))
	}
	return key, s.DropErrored(ctx, e.Key)
}

// Found is the state that a Push meets, and the store's clock when it was read.
type Found struct {
	state.Head
	Now time.Time // zero where the store has no clock
}

// Push makes an errored state the state, under its lock: byte for byte, unless
// its serial was used already. continues decides, under the lock, whether it
// continues what is there; its error is returned and nothing is written. Where
// it is the state already, only the digest is repaired.
//
// Its errors are those of Restore.
func (s *Store) Push(ctx context.Context, c *Content, continues func(Found) error, o RestoreOptions) (Result, error) {
	r := &restore{Store: s, o: o.withDefaults(), asIs: true, left: LeftOld}
	r.accept = func(cur object) error {
		if cur.notState != nil {
			return fmt.Errorf("%w: what is there is no state: %w", ErrNotNext, cur.notState)
		}
		if same, err := s.same(ctx, cur, c); err != nil || same {
			return err
		}
		return continues(Found{cur.Head, cur.now})
	}
	res, err := r.run(ctx, func(context.Context, *Result) (*Content, error) {
		if c.notState != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, c.notState)
		}
		return c.shared(), nil
	})
	return res, r.failed(ctx, res, err)
}

// same reports whether the object has exactly this content.
func (s *Store) same(ctx context.Context, cur object, c *Content) (bool, error) {
	if !cur.Exists || cur.Size != c.size || cur.Serial != c.doc.serial {
		return false, nil
	}
	sum, err := s.hash(ctx, s.state, s.addr.Key, cur)
	return err == nil && sum == c.sha256, err
}

// shared is the same content for somebody who closes it.
func (c *Content) shared() *Content {
	other := *c
	other.borrowed = true
	return &other
}
