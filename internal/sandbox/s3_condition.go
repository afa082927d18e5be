package sandbox

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// etagMatches compares an ETag of a condition, quoted or not, or a list of
// them, or *.
func etagMatches(condition, etag string) bool {
	for _, c := range strings.Split(condition, ",") {
		c = strings.TrimPrefix(strings.TrimSpace(c), "W/")
		if c == "*" || strings.Trim(c, `"`) == etag {
			return true
		}
	}
	return false
}

// writable checks the conditions of a write against what is there. A delete
// marker is nothing.
//
// S3 can also answer 409 ConditionalRequestConflict, when two writes overlap;
// here they never do.
func writable(h http.Header, objs *bolt.Bucket, key string) error {
	match, none := h.Get("If-Match"), h.Get("If-None-Match")
	if match == "" && none == "" {
		return nil
	}
	if none != "" && none != "*" || match == "*" || match != "" && none != "" {
		return s3Error("NotImplemented", "A header you provided implies functionality that is not implemented").element("Header", "If-None-Match")
	}
	cur, err := current(objs, key)
	switch {
	case err != nil:
		return err
	case none != "" && cur != nil:
		return preconditionFailed("If-None-Match")
	case match != "" && cur == nil:
		return noSuchKey(key)
	case match != "" && !etagMatches(match, cur.ETag):
		return preconditionFailed("If-Match")
	}
	return nil
}

// readable checks the conditions of a read. prefix is "" or
// "x-amz-copy-source-", for which "not modified" is a failure like the others.
func (v *version) readable(h http.Header, prefix string) error {
	notModified := func() error {
		if prefix != "" {
			return preconditionFailed(prefix + "If-None-Match")
		}
		return &s3Err{code: "NotModified", status: http.StatusNotModified}
	}
	date := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(h.Get(prefix + name))
		return t, err == nil
	}
	if c := h.Get(prefix + "If-Match"); c != "" {
		if !etagMatches(c, v.ETag) {
			return preconditionFailed(prefix + "If-Match")
		}
	} else if t, ok := date("If-Unmodified-Since"); ok && v.Modified.After(t) {
		return preconditionFailed(prefix + "If-Unmodified-Since")
	}
	if c := h.Get(prefix + "If-None-Match"); c != "" {
		if etagMatches(c, v.ETag) {
			return notModified()
		}
	} else if t, ok := date("If-Modified-Since"); ok && !v.Modified.After(t) {
		return notModified()
	}
	return nil
}

// extent is the status and the stretch of bytes that a read asks for.
func (q *s3Req) extent(v *version) (status int, off, n int64, err error) {
	rng := q.Header.Get("Range")
	if p := q.query.Get("partNumber"); p != "" {
		i, err := strconv.Atoi(p)
		if err != nil || i < 1 || i > 10000 || rng != "" {
			return 0, 0, 0, s3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
		}
		parts := []segment{{Size: v.Size}}
		if v.Parts {
			parts = v.Segments
			q.w.Header().Set("x-amz-mp-parts-count", strconv.Itoa(len(parts)))
		}
		if i > len(parts) {
			return 0, 0, 0, s3Error("InvalidPartNumber", "The requested partnumber is not satisfiable")
		}
		for _, seg := range parts[:i-1] {
			off += seg.Size
		}
		if v.Size == 0 {
			return http.StatusOK, 0, 0, nil
		}
		return http.StatusPartialContent, off, parts[i-1].Size, nil
	}
	off, n, ok := parseRange(rng, v.Size)
	switch {
	case !ok:
		return http.StatusOK, 0, v.Size, nil
	case n <= 0:
		return 0, 0, 0, s3Error("InvalidRange", "The requested range is not satisfiable").
			with("Content-Range", fmt.Sprintf("bytes */%d", v.Size)).element("RangeRequested", rng)
	}
	return http.StatusPartialContent, off, n, nil
}

// parseRange reads a Range header of one range. ok is false for what is to be
// ignored; n is 0 for a range outside the object.
func parseRange(rng string, size int64) (off, n int64, ok bool) {
	spec, found := strings.CutPrefix(rng, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !found || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	number := func(s string) (int64, bool) {
		v, err := strconv.ParseInt(s, 10, 64)
		return v, err == nil && v >= 0 && s[0] != '+'
	}
	if from == "" {
		last, ok := number(to)
		if !ok {
			return 0, 0, false
		}
		last = min(last, size)
		return size - last, last, true
	}
	first, ok := number(from)
	if !ok {
		return 0, 0, false
	}
	last := size - 1
	if to != "" {
		l, ok := number(to)
		if !ok || l < first {
			return 0, 0, false
		}
		last = min(last, l)
	}
	if first >= size {
		return 0, 0, true
	}
	return first, last - first + 1, true
}
