package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The top-level buckets of the file. A nested bucket per S3 bucket or per
// table lies below those marked "nested".
var (
	rootBuckets = []byte("s3-buckets") // bucket name → bucketConfig
	rootObjects = []byte("s3-objects") // nested: key NUL ^sequence → version
	rootUploads = []byte("s3-uploads") // nested: key NUL upload ID → upload
	rootParts   = []byte("s3-parts")   // upload ID NUL part number → part
	rootChunks  = []byte("s3-chunks")  // body ID, chunk number → up to chunkSize bytes
	rootRefs    = []byte("s3-refs")    // body ID → how many records hold it
	rootStaged  = []byte("s3-staged")  // body ID: being written, no record holds it yet
	rootLoose   = []byte("s3-loose")   // body ID: no record holds it any more
	rootTables  = []byte("ddb-tables") // table name → table
	rootItems   = []byte("ddb-items")  // nested: encoded key → item

	roots = [][]byte{
		rootBuckets, rootObjects, rootUploads, rootParts, rootChunks, rootRefs,
		rootStaged, rootLoose, rootTables, rootItems,
	}

	// mark is the value where only the key matters.
	mark = []byte{1}
)

const (
	// chunkSize is the size in bytes of one stored piece of an object. It bounds
	// what one reader or writer holds in memory.
	chunkSize = 256 << 10

	// stageChunks is how many chunks go into one transaction while a large body
	// is written: 8 MiB, so that small writes get their turn in between.
	stageChunks = 32

	// sweepChunks bounds the clean-up that one transaction does on the side.
	sweepChunks = 128

	// maxGroup is how many changes share one commit at most.
	maxGroup = 256
)

var (
	errClosed = errors.New("sandbox: closed")
	errReset  = errors.New("sandbox: the body is gone, after a reset")
)

// store is the bbolt file, written by one goroutine.
//
// Promises: update returns nil only after the commit, with fsync, that holds
// its change; a change is seen whole or not at all; changes waiting at the same
// time share one commit. Not promised: fairness between writers.
type store struct {
	db      *bolt.DB
	changes chan *change
	closing chan struct{}
	closed  sync.Once
	writer  sync.WaitGroup

	// streaming is read-locked by whoever reads a body in more than one
	// transaction. The sweeper frees loose bodies only when it finds nobody
	// there: a reader that comes later sees the present records, and those do
	// not name loose bodies.
	streaming sync.RWMutex
}

// change is one update waiting for its commit.
type change struct {
	fn   func(*tx) error
	done chan error
}

// tx is a transaction that knows whether it was written to, so that a change
// which refuses before it writes can share a commit with others.
// All writes go through put, del and the methods built on them.
type tx struct {
	*bolt.Tx
	written int
}

func openStore(path string) (*store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      time.Second,
		FreelistType: bolt.FreelistMapType,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open sandbox store %s: another process has it open: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open sandbox store %s: %w", path, err)
	}
	s := &store{db: db, changes: make(chan *change), closing: make(chan struct{})}
	if err := db.Update(func(b *bolt.Tx) error {
		t := &tx{Tx: b}
		for _, r := range roots {
			if _, err := t.CreateBucketIfNotExists(r); err != nil {
				return err
			}
		}
		// What was staged when the last process died is nobody's.
		return t.each(rootStaged, nil, func(id, _ []byte) error {
			if err := t.put(rootLoose, id, mark); err != nil {
				return err
			}
			return t.del(rootStaged, id)
		})
	}); err != nil {
		db.Close()
		return nil, fmt.Errorf("prepare sandbox store %s: %w", path, err)
	}
	s.writer.Go(s.write)
	return s, nil
}

// close waits for the commit under way and closes the file. Changes that were
// not yet begun get errClosed.
func (s *store) close() error {
	var err error
	s.closed.Do(func() {
		close(s.closing)
		s.writer.Wait()
		err = s.db.Close()
	})
	return err
}

// view runs fn on a consistent snapshot. fn must not send to a client and must
// not call update: a long read blocks the growth of the file, and with it
// every writer.
func (s *store) view(fn func(*tx) error) error {
	err := s.db.View(func(b *bolt.Tx) error { return fn(&tx{Tx: b}) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return err
}

// update runs fn in a transaction and returns once that is on disk, or with
// the error of fn or of the commit. fn runs on another goroutine, perhaps more
// than once, and must keep its results to itself until update has returned nil.
func (s *store) update(fn func(*tx) error) error {
	c := &change{fn: fn, done: make(chan error, 1)}
	select {
	case s.changes <- c:
		return <-c.done
	case <-s.closing:
		return errClosed
	}
}

// write takes whatever changes are waiting, commits them together, and answers
// them. While it syncs, the next group gathers.
func (s *store) write() {
	for {
		var group []*change
		select {
		case c := <-s.changes:
			group = append(group, c)
		case <-s.closing:
			return
		}
	gather:
		for len(group) < maxGroup {
			select {
			case c := <-s.changes:
				group = append(group, c)
			default:
				break gather
			}
		}
		s.commit(group)
	}
}

func (s *store) commit(group []*change) {
	for len(group) > 0 {
		refused := make(map[*change]error)
		var broken *change
		var cause error
		err := s.db.Update(func(b *bolt.Tx) error {
			t := &tx{Tx: b}
			if err := s.sweep(t); err != nil {
				return err
			}
			for _, c := range group {
				before := t.written
				err := runChange(c, t)
				if err == nil {
					continue
				}
				if t.written != before {
					broken, cause = c, err // half done: everything is rolled back
					return err
				}
				refused[c] = err
			}
			return nil
		})
		if broken != nil {
			// The others did nothing wrong: once more without the broken one.
			rest := group[:0]
			for _, c := range group {
				if c != broken {
					rest = append(rest, c)
				}
			}
			group = rest
			broken.done <- cause
			continue
		}
		for _, c := range group {
			switch {
			case refused[c] != nil && err == nil:
				c.done <- refused[c]
			default:
				c.done <- err
			}
		}
		return
	}
}

// runChange keeps a panic in one request's change from ending the process.
func runChange(c *change, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.written++
			err = fmt.Errorf("sandbox: panic in a change: %v\n%s", p, debug.Stack())
		}
	}()
	return c.fn(t)
}

// put stores a value in a top-level bucket, putIn in any. The value must not
// change until the commit.
func (t *tx) put(root, k, v []byte) error { return t.putIn(t.Bucket(root), k, v) }

func (t *tx) putIn(b *bolt.Bucket, k, v []byte) error {
	t.written++
	return b.Put(k, v)
}

func (t *tx) del(root, k []byte) error { return t.delIn(t.Bucket(root), k) }

func (t *tx) delIn(b *bolt.Bucket, k []byte) error {
	t.written++
	return b.Delete(k)
}

func (t *tx) putJSON(b *bolt.Bucket, k []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.putIn(b, k, data)
}

// getJSON reads the value under k into v and says whether there is one.
func getJSON(b *bolt.Bucket, k []byte, v any) (bool, error) {
	if b == nil {
		return false, nil
	}
	data := b.Get(k)
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("read record %q: %w", k, err)
	}
	return true, nil
}

// nested makes the bucket name below root.
func (t *tx) nested(root []byte, name string) error {
	t.written++
	_, err := t.Bucket(root).CreateBucketIfNotExists([]byte(name))
	return err
}

func (t *tx) dropNested(root []byte, name string) error {
	t.written++
	return t.Bucket(root).DeleteBucket([]byte(name))
}

// sub is the bucket name below root, nil if there is none.
func (t *tx) sub(root []byte, name string) *bolt.Bucket {
	return t.Bucket(root).Bucket([]byte(name))
}

// nextID counts up for the life of the file.
func (t *tx) nextID(root []byte) (uint64, error) {
	t.written++
	return t.Bucket(root).NextSequence()
}

// each calls fn for every key that begins with prefix. The keys are collected
// first, so fn may change the bucket; for small sets only.
func (t *tx) each(root, prefix []byte, fn func(k, v []byte) error) error {
	b := t.Bucket(root)
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && hasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, append([]byte(nil), k...))
	}
	for _, k := range keys {
		if err := fn(k, b.Get(k)); err != nil {
			return err
		}
	}
	return nil
}

// reset empties everything.
func (t *tx) reset() error {
	t.written++
	for _, r := range roots {
		// The counters live on: an ID handed out before must not come back.
		seq := t.Bucket(r).Sequence()
		if err := t.DeleteBucket(r); err != nil {
			return err
		}
		b, err := t.CreateBucket(r)
		if err != nil {
			return err
		}
		if err := b.SetSequence(seq); err != nil {
			return err
		}
	}
	return nil
}

// segment is a stretch of an object: one body, whole. A multipart object has
// one for each part.
type segment struct {
	Body uint64 `json:"b"`
	Size int64  `json:"n"`
}

func bodyKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func chunkKey(id uint64, n int64) []byte {
	return binary.BigEndian.AppendUint32(bodyKey(id), uint32(n))
}

// stage writes a body that does not fit in one chunk, in several transactions
// and under an ID that no record names yet. A body staged and not adopted is
// freed by unstage, or when the file is next opened.
func (s *store) stage(r io.Reader, size int64) (segment, error) {
	seg := segment{Size: size}
	if err := s.update(func(t *tx) error {
		id, err := t.nextID(rootChunks)
		if err != nil {
			return err
		}
		if err := t.put(rootStaged, bodyKey(id), mark); err != nil {
			return err
		}
		seg.Body = id
		return nil
	}); err != nil {
		return segment{}, err
	}
	var chunks int64
	for done := int64(0); done < size; {
		var batch [][]byte
		for len(batch) < stageChunks && done < size {
			buf := make([]byte, min(chunkSize, size-done))
			if _, err := io.ReadFull(r, buf); err != nil {
				s.unstage(seg)
				return segment{}, fmt.Errorf("read spooled body: %w", err)
			}
			batch = append(batch, buf)
			done += int64(len(buf))
		}
		if err := s.update(func(t *tx) error {
			for i, buf := range batch {
				if err := t.put(rootChunks, chunkKey(seg.Body, chunks+int64(i)), buf); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			s.unstage(seg)
			return segment{}, err
		}
		chunks += int64(len(batch))
	}
	return seg, nil
}

// unstage gives up a staged body. It does nothing for one that was adopted.
func (s *store) unstage(seg segment) {
	// An error leaves the body to the next opening of the file.
	_ = s.update(func(t *tx) error {
		if t.Bucket(rootStaged).Get(bodyKey(seg.Body)) == nil {
			return nil
		}
		if err := t.del(rootStaged, bodyKey(seg.Body)); err != nil {
			return err
		}
		return t.put(rootLoose, bodyKey(seg.Body), mark)
	})
}

// adopt makes the calling transaction's record the first holder of a staged
// body.
func (t *tx) adopt(seg segment) error {
	k := bodyKey(seg.Body)
	if t.Bucket(rootStaged).Get(k) == nil {
		return errReset
	}
	if err := t.del(rootStaged, k); err != nil {
		return err
	}
	return t.addRef(k, 1)
}

// inline stores a body of at most one chunk together with its record.
func (t *tx) inline(data []byte) (segment, error) {
	id, err := t.nextID(rootChunks)
	if err != nil {
		return segment{}, err
	}
	if len(data) > 0 {
		if err := t.put(rootChunks, chunkKey(id, 0), data); err != nil {
			return segment{}, err
		}
	}
	return segment{Body: id, Size: int64(len(data))}, t.addRef(bodyKey(id), 1)
}

// hold adds a holder to each body; the caller reads them under
// s.streaming.RLock, so that even one that became loose meanwhile is whole.
func (t *tx) hold(segs []segment) error {
	for _, seg := range segs {
		k := bodyKey(seg.Body)
		if t.Bucket(rootRefs).Get(k) == nil && t.Bucket(rootLoose).Get(k) == nil {
			return errReset
		}
	}
	for _, seg := range segs {
		k := bodyKey(seg.Body)
		if err := t.del(rootLoose, k); err != nil {
			return err
		}
		if err := t.addRef(k, 1); err != nil {
			return err
		}
	}
	return nil
}

// release takes a holder away from each body. A body without one is loose and
// freed later.
func (t *tx) release(segs []segment) error {
	for _, seg := range segs {
		if err := t.addRef(bodyKey(seg.Body), -1); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) addRef(k []byte, by int64) error {
	var n int64
	if v := t.Bucket(rootRefs).Get(k); len(v) == 8 {
		n = int64(binary.BigEndian.Uint64(v))
	}
	n += by
	if n > 0 {
		return t.put(rootRefs, k, binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	if err := t.del(rootRefs, k); err != nil {
		return err
	}
	return t.put(rootLoose, k, mark)
}

// sweep frees some loose bodies, if nobody is streaming. It runs at the start
// of a transaction, before anything can become loose in that same one.
func (s *store) sweep(t *tx) error {
	if k, _ := t.Bucket(rootLoose).Cursor().First(); k == nil {
		return nil
	}
	if !s.streaming.TryLock() {
		return nil
	}
	s.streaming.Unlock()
	freed := 0
	for freed < sweepChunks {
		id, _ := t.Bucket(rootLoose).Cursor().First()
		if id == nil {
			return nil
		}
		id = append([]byte(nil), id...)
		c := t.Bucket(rootChunks).Cursor()
		for k, _ := c.Seek(id); k != nil && hasPrefix(k, id); k, _ = c.Seek(id) {
			if freed == sweepChunks {
				return nil
			}
			if err := t.del(rootChunks, append([]byte(nil), k...)); err != nil {
				return err
			}
			freed++
		}
		if err := t.del(rootLoose, id); err != nil {
			return err
		}
	}
	return nil
}

// readBodies writes the bytes from off, n of them, of the segments to w, chunk
// by chunk, each from a transaction of its own. The caller holds
// s.streaming.RLock since before it read the record that names the segments.
func (s *store) readBodies(w io.Writer, segs []segment, off, n int64) error {
	var buf []byte
	for _, seg := range segs {
		if n == 0 {
			return nil
		}
		if off >= seg.Size {
			off -= seg.Size
			continue
		}
		for off < seg.Size && n > 0 {
			buf = buf[:0]
			if err := s.view(func(t *tx) error {
				v := t.Bucket(rootChunks).Get(chunkKey(seg.Body, off/chunkSize))
				if from := off % chunkSize; from < int64(len(v)) {
					buf = append(buf, v[from:min(int64(len(v)), from+n)]...)
				}
				return nil
			}); err != nil {
				return err
			}
			if len(buf) == 0 {
				return fmt.Errorf("body %d has no byte %d", seg.Body, off)
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
			off += int64(len(buf))
			n -= int64(len(buf))
		}
		off = 0
	}
	if n > 0 {
		return fmt.Errorf("body ends %d bytes early", n)
	}
	return nil
}

func hasPrefix(k, prefix []byte) bool {
	return len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix)
}
