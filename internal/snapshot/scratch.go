package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
)

// scratchFolder is in the key of every scratch state. Nothing else is erased.
const scratchFolder = "/drill/"

// Erase removes a scratch state, in whose key is "/drill/", with every object
// whose key begins with its own, all versions of them; where that is denied,
// what is listed as an object.
func (s *Store) Erase(ctx context.Context) error { return s.erase(ctx, s.addr.Key, time.Time{}) }

// EraseOld removes the scratch states in the same folder that were written
// before a time.
func (s *Store) EraseOld(ctx context.Context, before time.Time) error {
	i := strings.LastIndex(s.addr.Key, scratchFolder)
	if i < 0 {
		return fmt.Errorf("erase %s: it is no scratch state", s.addr)
	}
	return s.erase(ctx, s.addr.Key[:i]+scratchFolder, before)
}

// erase removes what begins with prefix and was written before a time, which is
// no limit where it is zero.
func (s *Store) erase(ctx context.Context, prefix string, before time.Time) error {
	if !strings.Contains(prefix, scratchFolder) {
		return fmt.Errorf("erase %s: it is no scratch state", s.state.name(prefix))
	}
	due := func(at *time.Time) bool { return before.IsZero() || aws.ToTime(at).Before(before) }
	var versions, plain []s3.DeleteObjectInput
	add := func(key, id *string, at *time.Time) {
		if due(at) {
			versions = append(versions, s3.DeleteObjectInput{Bucket: aws.String(s.state.bucket), Key: key, VersionId: id})
		}
	}
	pages := s.versionPages(prefix)
	for n := 0; pages.HasMorePages(); n++ {
		if n > maxObjects {
			return fmt.Errorf("list versions of %s: there is no end to them", s.state.name(prefix))
		}
		out, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list versions: %w", awsclient.Explain(err, awsclient.BucketName(s.state.bucket)))
		}
		for _, v := range out.Versions {
			add(v.Key, v.VersionId, v.LastModified)
			if due(v.LastModified) && aws.ToBool(v.IsLatest) {
				plain = append(plain, s3.DeleteObjectInput{Bucket: aws.String(s.state.bucket), Key: v.Key})
			}
		}
		for _, m := range out.DeleteMarkers {
			add(m.Key, m.VersionId, m.LastModified)
		}
	}
	err := s.deleteAll(ctx, versions)
	if hasCode(err, "AccessDenied") { // s3:DeleteObjectVersion, which terraform does not need
		err = s.deleteAll(ctx, plain)
	}
	return err
}

func (s *Store) deleteAll(ctx context.Context, all []s3.DeleteObjectInput) error {
	var errs []error
	for _, in := range all {
		if _, err := s.state.client.DeleteObject(ctx, &in); err != nil {
			errs = append(errs, fmt.Errorf("remove scratch state: %w", awsclient.Explain(err, s.state.name(aws.ToString(in.Key)))))
		}
	}
	return errors.Join(errs...)
}
