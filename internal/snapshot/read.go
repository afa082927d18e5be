package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/state"
)

// Read gives a snapshot with its content, which is verified as for a restore.
// The caller closes it.
func (s *Store) Read(ctx context.Context, id string) (Snapshot, *Content, error) {
	sn, err := s.Find(ctx, id)
	if err != nil {
		return Snapshot{}, nil, err
	}
	c, err := s.fetch(ctx, sn)
	return sn, c, err
}

// ReadState gives the state as it is now, nil where there is none. Its Err says
// where it is no state. The caller closes it.
func (s *Store) ReadState(ctx context.Context) (*Content, error) {
	cur, err := s.look(ctx, s.state, s.addr.Key, "")
	if err != nil || cur.Size == 0 {
		return nil, err
	}
	return s.contentOf(ctx, s.state, s.addr.Key, cur)
}

// contentOf reads exactly the object obj.
func (s *Store) contentOf(ctx context.Context, p place, key string, obj object) (*Content, error) {
	c, err := s.newContent(func(w io.Writer) error {
		body, err := s.open(ctx, p, key, obj.Head)
		if err != nil {
			return err
		}
		defer body.Close()
		n, err := io.Copy(w, io.LimitReader(body, obj.Size+1))
		if err == nil && n != obj.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.parsed()
}

// ReadFile gives a state file of this machine, such as errored.tfstate. Its Err
// says where it is no state. The caller closes it.
func (s *Store) ReadFile(path string) (*Content, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("it is not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := s.newContent(func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.parsed()
}

// parsed reads what the content says of itself; that it is no state is kept in it.
func (c *Content) parsed() (*Content, error) {
	doc, err := readDocument(c.Reader())
	if err != nil && !errors.Is(err, state.ErrNotState) {
		c.Close()
		return nil, fmt.Errorf("read private file: %w", err)
	}
	c.doc, c.notState = doc, err
	return c, nil
}

// Err is why the content is no state; nil where it is one.
func (c *Content) Err() error { return c.notState }
