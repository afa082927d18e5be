package sandbox

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

const (
	// maxObject is the size in bytes above which one PUT or one part is refused,
	// as S3 does.
	maxObject = 5 << 30

	// maxChunkLine bounds a chunk header or trailer line of an aws-chunked body,
	// maxTrailers their number.
	maxChunkLine = 4 << 10
	maxTrailers  = 16
)

// checksums are the algorithms of S3 by their name in XML and in
// x-amz-checksum-algorithm; in headers the name is lower case.
var checksums = map[string]func() hash.Hash{
	"CRC32":     func() hash.Hash { return crc32.NewIEEE() },
	"CRC32C":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	"CRC64NVME": func() hash.Hash { return crc64.New(nvmeTable) },
	"SHA1":      sha1.New,
	"SHA256":    sha256.New,
}

// nvmeTable is the polynomial 0xAD93D23594C93659, bit-reversed.
var nvmeTable = crc64.MakeTable(0x9A6C9329AC4BC9B5)

// sum is one S3 checksum: an algorithm of checksums and base64 of the digest,
// for a multipart object perhaps with -N for N parts.
type sum struct {
	Algorithm string `json:"a,omitempty"`
	Value     string `json:"v,omitempty"`
	Composite bool   `json:"c,omitempty"`
}

func (c sum) header() string { return "x-amz-checksum-" + strings.ToLower(c.Algorithm) }

func (c sum) kind() string {
	if c.Composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// spooled is a request's body, whole, decoded and checked, in memory or in a
// temporary file.
type spooled struct {
	mem  []byte
	file *os.File
	size int64
	md5  []byte
	sum  sum
}

// close removes the temporary file.
func (b *spooled) close() {
	if b.file != nil {
		b.file.Close()
		os.Remove(b.file.Name())
	}
}

// stageIn puts a large body into the store; a small one stays in memory for
// the transaction that records it.
func (b *spooled) stageIn(s *store) (*staged, error) {
	st := &staged{store: s, mem: b.mem}
	if b.file == nil {
		return st, nil
	}
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	seg, err := s.stage(bufio.NewReaderSize(b.file, 64<<10), b.size)
	st.seg, st.large = seg, true
	return st, err
}

// staged is a body on its way into a record.
type staged struct {
	store *store
	mem   []byte
	seg   segment
	large bool
}

// record makes the body part of the transaction and returns what to note in
// the record. It may be called again when the transaction is tried again.
func (st *staged) record(t *tx) (segment, error) {
	if !st.large {
		return t.inline(st.mem)
	}
	return st.seg, t.adopt(st.seg)
}

// drop frees what no record took. It is always safe to call.
func (st *staged) drop() {
	if st.large {
		st.store.unstage(st.seg)
	}
}

// spooler collects a body and hashes it on the way.
type spooler struct {
	b    spooled
	dir  string
	md5  hash.Hash
	more map[string]hash.Hash
}

func newSpooler(dir string) *spooler {
	return &spooler{dir: dir, md5: md5.New(), more: make(map[string]hash.Hash)}
}

// want adds a checksum of the algorithm to those computed.
func (s *spooler) want(algorithm string) {
	if s.more[algorithm] == nil {
		s.more[algorithm] = checksums[algorithm]()
	}
}

func (s *spooler) Write(p []byte) (int, error) {
	if s.b.size+int64(len(p)) > maxObject {
		return 0, s3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	}
	s.md5.Write(p)
	for _, h := range s.more {
		h.Write(p)
	}
	s.b.size += int64(len(p))
	if s.b.file == nil && s.b.size > chunkSize {
		f, err := os.CreateTemp(s.dir, "tfguard-sandbox-*")
		if err != nil {
			return 0, fmt.Errorf("spool body: %w", err)
		}
		// Without a name, a killed process leaves no file behind. Where an open
		// file keeps its name (Windows), close removes it.
		os.Remove(f.Name())
		s.b.file = f
		if _, err := f.Write(s.b.mem); err != nil {
			return 0, fmt.Errorf("spool body: %w", err)
		}
		s.b.mem = nil
	}
	if s.b.file == nil {
		s.b.mem = append(s.b.mem, p...)
		return len(p), nil
	}
	n, err := s.b.file.Write(p)
	if err != nil {
		err = fmt.Errorf("spool body: %w", err)
	}
	return n, err
}

func (s *spooler) digest(algorithm string) string {
	return base64.StdEncoding.EncodeToString(s.more[algorithm].Sum(nil))
}

// spool reads the request's body to its end, undoes aws-chunked, and checks it
// against every length, digest and checksum that the request states. The
// signature of the request and of its chunks is not checked.
//
// algorithm, if not empty, is a checksum to compute where the client sent none.
func spool(r *http.Request, dir, algorithm string) (*spooled, error) {
	h := r.Header
	s := newSpooler(dir)
	ok := false
	defer func() {
		if !ok {
			s.b.close()
		}
	}()

	payload := h.Get("x-amz-content-sha256")
	chunked := strings.HasPrefix(payload, "STREAMING-") || hasToken(h.Get("Content-Encoding"), "aws-chunked")
	want := r.ContentLength
	if chunked {
		n, err := strconv.ParseInt(h.Get("x-amz-decoded-content-length"), 10, 64)
		if err != nil || n < 0 {
			return nil, s3Error("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
		}
		want = n
	} else if want < 0 {
		return nil, s3Error("MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	if want > maxObject {
		return nil, s3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	}

	stated, err := statedSum(h)
	if err != nil {
		return nil, err
	}
	trailer := "" // the algorithm whose checksum comes in the trailer
	for _, name := range strings.Split(strings.ToLower(h.Get("x-amz-trailer")), ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		a := strings.ToUpper(strings.TrimPrefix(name, "x-amz-checksum-"))
		if checksums[a] == nil || !strings.HasPrefix(name, "x-amz-checksum-") || trailer != "" || !chunked {
			return nil, s3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
		}
		trailer = a
	}
	if trailer != "" && stated.Algorithm != "" {
		return nil, s3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	}
	switch {
	case stated.Algorithm != "":
		algorithm = stated.Algorithm
	case trailer != "":
		algorithm = trailer
	}
	if algorithm != "" {
		s.want(algorithm)
	}
	checkSHA := len(payload) == 64
	if checkSHA {
		s.want("SHA256")
	}

	if chunked {
		trailers, err := decodeChunked(s, r.Body)
		if err != nil {
			return nil, bodyError(err)
		}
		if trailer != "" {
			v, ok := trailers["x-amz-checksum-"+strings.ToLower(trailer)]
			if !ok {
				return nil, s3Error("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
			}
			stated = sum{Algorithm: trailer, Value: v}
		}
	} else if _, err := io.CopyBuffer(s, r.Body, make([]byte, 64<<10)); err != nil {
		return nil, bodyError(err)
	}
	if s.b.size != want {
		return nil, s3Error("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header.")
	}

	s.b.md5 = s.md5.Sum(nil)
	if v := h.Get("Content-Md5"); v != "" {
		d, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(d) != md5.Size {
			return nil, s3Error("InvalidDigest", "The Content-MD5 you specified is not valid.")
		}
		if !bytes.Equal(d, s.b.md5) {
			return nil, s3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if checkSHA && !strings.EqualFold(payload, hex.EncodeToString(s.more["SHA256"].Sum(nil))) {
		return nil, s3Error("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	if algorithm != "" {
		s.b.sum = sum{Algorithm: algorithm, Value: s.digest(algorithm)}
	}
	if stated.Algorithm != "" && stated.Value != s.b.sum.Value {
		if d, err := base64.StdEncoding.DecodeString(stated.Value); err != nil || len(d) != checksums[stated.Algorithm]().Size() {
			return nil, s3Error("InvalidRequest", "Value for "+stated.header()+" header is invalid.")
		}
		return nil, s3Error("BadDigest", "The "+stated.Algorithm+" you specified did not match the calculated checksum.")
	}
	ok = true
	return &s.b, nil
}

// statedSum is the checksum in the headers; more than one is an error.
func statedSum(h http.Header) (sum, error) {
	var found sum
	for a := range checksums {
		if v := h.Get("x-amz-checksum-" + a); v != "" {
			if found.Algorithm != "" {
				return sum{}, s3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
			}
			found = sum{Algorithm: a, Value: v}
		}
	}
	return found, nil
}

// bodyError turns what goes wrong while a client sends into S3's answer.
func bodyError(err error) error {
	var mine *s3Err
	switch {
	case errors.As(err, &mine):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return s3Error("IncompleteBody", "The request body terminated unexpectedly")
	}
	return fmt.Errorf("read body: %w", err)
}

// decodeChunked copies an aws-chunked body to w and returns its trailers, names
// in lower case. Chunk signatures are read over.
func decodeChunked(w io.Writer, r io.Reader) (map[string]string, error) {
	malformed := s3Error("InvalidRequest", "The aws-chunked body is not well-formed.")
	br := bufio.NewReaderSize(r, maxChunkLine)
	line := func() (string, error) {
		b, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", malformed
		}
		if err != nil {
			return "", err
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	buf := make([]byte, 64<<10)
	for {
		l, err := line()
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(l, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
		if err != nil || n < 0 {
			return nil, malformed
		}
		if n == 0 {
			break
		}
		if m, err := io.CopyBuffer(w, io.LimitReader(br, n), buf); err != nil {
			return nil, err
		} else if m < n {
			return nil, io.ErrUnexpectedEOF
		}
		if l, err := line(); err != nil {
			return nil, err
		} else if l != "" {
			return nil, malformed
		}
	}
	trailers := make(map[string]string)
	for {
		l, err := line()
		// Some clients end after the last trailer, without the empty line.
		if errors.Is(err, io.EOF) {
			return trailers, nil
		}
		if err != nil {
			return nil, err
		}
		if l == "" {
			// Signed trailers have an empty line before them in some clients.
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || len(trailers) == maxTrailers {
			return nil, malformed
		}
		trailers[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
}

// hasToken says whether a comma-separated header value holds the token.
func hasToken(value, token string) bool {
	for _, v := range strings.Split(value, ",") {
		if strings.EqualFold(strings.TrimSpace(v), token) {
			return true
		}
	}
	return false
}

// withoutToken is the header value less the token.
func withoutToken(value, token string) string {
	var kept []string
	for _, v := range strings.Split(value, ",") {
		if v = strings.TrimSpace(v); v != "" && !strings.EqualFold(v, token) {
			kept = append(kept, v)
		}
	}
	return strings.Join(kept, ",")
}
