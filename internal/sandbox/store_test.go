package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// childFile, in the environment, makes the test binary a sandbox on that file,
// which the parent can kill.
const childFile = "TFGUARD_SANDBOX_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		go func() { // the parent is gone, however it ended
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		err := func() error {
			s, err := Open(path)
			if err != nil {
				return err
			}
			ln, err := Listen("")
			if err != nil {
				return err
			}
			fmt.Println("http://" + ln.Addr().String())
			return s.Serve(context.Background(), ln)
		}()
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Whatever was answered with success is there after a SIGKILL at that moment,
// while others are being written.
func TestNoSuccessBeforeCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandbox.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childFile+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, path: path}
	b.clients(strings.TrimSpace(url))
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	b.lockTable("locks")

	// Writers go on until the process is gone, and note what was answered.
	const enough = 300
	var mu sync.Mutex
	answered := make(map[string]string) // key → version
	items := make(map[string]bool)
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill() })
	note := func(fn func()) {
		mu.Lock()
		defer mu.Unlock()
		fn()
		if len(answered)+len(items) >= enough {
			kill()
		}
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d", w, i)
				if w%4 == 0 {
					if _, err := b.ddb.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("locks"), Item: map[string]ddbtypes.AttributeValue{"LockID": &ddbtypes.AttributeValueMemberS{Value: key}}}); err != nil {
						return
					}
					note(func() { items[key] = true })
					continue
				}
				size := 10
				if w%4 == 1 {
					size = 3 * chunkSize // one that is staged
				}
				res, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(key + strings.Repeat(" ", size))})
				if err != nil {
					return
				}
				note(func() { answered[key] = *res.VersionId })
			}
		})
	}
	wg.Wait()
	if err := cmd.Wait(); err == nil {
		t.Error("the sandbox ended by itself")
	}
	if len(answered)+len(items) < enough {
		t.Fatalf("only %d answered", len(answered)+len(items))
	}

	b.open()
	t.Cleanup(func() {
		b.http.Close()
		b.srv.Close()
	})
	for key, version := range answered {
		if got := b.get(bucket, key, version); strings.TrimSpace(got) != key {
			t.Errorf("%s: %.20q", key, got)
		}
	}
	for key := range items {
		res, err := b.ddb.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("locks"), Key: map[string]ddbtypes.AttributeValue{"LockID": &ddbtypes.AttributeValueMemberS{Value: key}}})
		if err != nil || res.Item == nil {
			t.Errorf("item %s: %v %v", key, res, err)
		}
	}
	if n := b.count(rootStaged); n > 0 {
		t.Errorf("%d bodies of the dead process are still staged", n)
	}
}

// A body that was being written when the process died is freed when the file is
// next used.
func TestStagedBodyOfADeadProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandbox.db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.stage(zeros{}, 3*chunkSize); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(path); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.update(func(*tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.view(func(t *tx) error {
		for _, root := range [][]byte{rootStaged, rootLoose, rootChunks} {
			if n := t.Bucket(root).Stats().KeyN; n != 0 {
				return fmt.Errorf("%d keys left in %s", n, root)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestPersistence(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	b.lockTable("locks")
	big := random(5*chunkSize + 1)
	out, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: bytes.NewReader(big)})
	if err != nil {
		t.Fatal(err)
	}
	second := b.put(bucket, "k", "two")
	b.remove(bucket, "k")
	before, _ := b.versions(bucket, "", "", 1000, nil)
	b.reopen()
	if after, _ := b.versions(bucket, "", "", 1000, nil); fmt.Sprint(after) != fmt.Sprint(before) || len(after) != 3 {
		t.Errorf("versions before %v, after %v", before, after)
	}
	if b.get(bucket, "k", *out.VersionId) != string(big) || b.get(bucket, "k", second) != "two" {
		t.Error("the versions are not what they were")
	}
	if third := b.put(bucket, "k", "three"); third == second {
		t.Error("a version ID came twice")
	}
	if res, err := b.ddb.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("locks")}); err != nil || res.Table.TableStatus != "ACTIVE" {
		t.Errorf("table: %v %v", res, err)
	}
}

func TestOpenTwice(t *testing.T) {
	b := newBox(t)
	if _, err := Open(b.path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("second Open: %v", err)
	}
	if info, err := os.Stat(b.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v %v", info, err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing", "sandbox.db")); err == nil {
		t.Error("Open in a missing directory succeeded")
	}
	if err := b.srv.Close(); err != nil {
		t.Error(err)
	}
	if err := b.srv.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if res, body := b.do("GET", "/", nil); res.StatusCode != 500 || xmlCode(t, body) != "InternalError" {
		t.Errorf("after Close: %s %s", res.Status, body)
	}
	if res, body := b.do("PUT", "/bucket", nil); res.StatusCode != 500 || xmlCode(t, body) != "InternalError" {
		t.Errorf("after Close: %s %s", res.Status, body)
	}
}

// txID is the number of the last commit.
func (s *store) txID(t *testing.T) (id int) {
	t.Helper()
	if err := s.view(func(t *tx) error {
		id = t.ID()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

// What waits while a commit is under way shares the next one.
func TestChangesShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := openStore(filepath.Join(t.TempDir(), "sandbox.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		before := s.txID(t)
		gate := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = s.update(func(*tx) error {
				<-gate
				return nil
			})
		})
		synctest.Wait()
		errs := make([]error, 50)
		for i := range errs {
			wg.Go(func() {
				errs[i] = s.update(func(t *tx) error {
					switch i {
					case 7:
						return errors.New("refused before it wrote")
					case 8:
						_ = t.put(rootTables, []byte("half"), mark)
						return errors.New("failed half way")
					case 9:
						panic("in a change")
					}
					return t.put(rootTables, fmt.Append(nil, i), mark)
				})
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		// One for the first, one for all others; the two half-done ones are
		// rolled back, which uses no number up.
		if n := s.txID(t) - before; n != 2 {
			t.Errorf("%d commits for 51 changes, want 2", n)
		}
		if err := s.view(func(tx *tx) error {
			for i, e := range errs {
				bad := i >= 7 && i <= 9
				if (e != nil) != bad || (tx.Bucket(rootTables).Get(fmt.Append(nil, i)) != nil) == bad {
					t.Errorf("change %d: %v", i, e)
				}
			}
			if tx.Bucket(rootTables).Get([]byte("half")) != nil {
				t.Error("half a change was committed")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// A client that goes away in the middle of its body, or sends a wrong digest
// with a large one, leaves nothing.
func TestBrokenUploadLeavesNothing(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.http.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT /states/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: %d\r\n\r\n", 10*chunkSize)
	if _, err := conn.Write(random(3 * chunkSize)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "IncompleteBody") {
		t.Errorf("answer %q %v", answer, err)
	}
	conn.Close()
	b.do("PUT", "/states/k", bytes.NewReader(random(3*chunkSize)), "Content-Md5", "AAAAAAAAAAAAAAAAAAAAAA==")
	if n := b.count(rootChunks) + b.count(rootStaged) + b.count(rootRefs); n != 0 {
		t.Errorf("%d records left", n)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(b.path), "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("files left: %v %v", files, err)
	}
	// A refused condition on a large body frees what was staged for it.
	b.put("states", "k", "x")
	b.do("PUT", "/states/k", bytes.NewReader(random(3*chunkSize)), "If-None-Match", "*")
	b.put("states", "other", "sweeps")
	if n := b.count(rootChunks); n != 2 {
		t.Errorf("%d chunks, want 2", n)
	}
}

// Bodies cost memory by the chunk, not by the object.
func BenchmarkLargeObject(b *testing.B) {
	srv, err := Open(filepath.Join(b.TempDir(), "sandbox.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer srv.Close()
	do := func(method, target string, body io.Reader, n int64) {
		r := httptest.NewRequest(method, "http://localhost"+target, body)
		r.ContentLength = n
		r.Header.Set("Authorization", "x")
		w := &discard{ResponseRecorder: httptest.NewRecorder()}
		srv.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
	do("PUT", "/states", nil, 0)
	const size = 100 << 20
	b.ReportAllocs()
	b.SetBytes(2 * size)
	for b.Loop() {
		do("PUT", "/states/k", io.LimitReader(zeros{}, size), size)
		do("GET", "/states/k", nil, 0)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// discard is a recorder that keeps no body.
type discard struct{ *httptest.ResponseRecorder }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
