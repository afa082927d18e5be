package sandbox

import (
	"encoding/hex"
	"encoding/xml"
	"net/url"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// copySource is what an x-amz-copy-source header names.
type copySource struct{ bucket, key, version string }

func (q *s3Req) copySource() (copySource, error) {
	bad := s3Error("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey").element("ArgumentName", "x-amz-copy-source")
	path, id, hasID := strings.Cut(q.Header.Get("x-amz-copy-source"), "?versionId=")
	bucket, key, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	bucket, err := url.PathUnescape(bucket)
	if !ok || err != nil {
		// Some clients escape the slash between the two as well.
		var whole string
		if whole, err = url.PathUnescape(strings.TrimPrefix(path, "/")); err != nil {
			return copySource{}, bad
		}
		bucket, key, ok = strings.Cut(strings.TrimPrefix(whole, "/"), "/")
	} else if key, err = url.PathUnescape(key); err != nil {
		return copySource{}, bad
	}
	if id, err = url.QueryUnescape(id); err != nil || !ok || key == "" || hasID && id == "" {
		return copySource{}, bad
	}
	if o := q.Header.Get("x-amz-source-expected-bucket-owner"); o != "" && o != AccountID {
		return copySource{}, s3Error("AccessDenied", "Access Denied")
	}
	return copySource{bucket, key, id}, nil
}

// source finds the version to copy and checks everything the request demands
// of it.
func (q *s3Req) source(t *tx, from copySource) (*bucketConfig, *version, error) {
	c, v, err := find(t, from.bucket, from.key, from.version)
	if e, ok := err.(*s3Err); ok && e.code == "MethodNotAllowed" {
		return nil, nil, s3Error("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.")
	} else if ok {
		e.header = nil // the marker is not what the request was about
		return nil, nil, e
	}
	if err != nil {
		return nil, nil, err
	}
	if err := v.unlocks(q.Header, "copy-source-"); err != nil {
		return nil, nil, err
	}
	if err := v.readable(q.Header, "x-amz-copy-source-"); err != nil {
		return nil, nil, err
	}
	return c, v, nil
}

func (q *s3Req) copyObject() error {
	from, err := q.copySource()
	if err != nil {
		return err
	}
	tmpl, err := q.template()
	if err != nil {
		return err
	}
	replace, err := q.directive("x-amz-metadata-directive")
	if err != nil {
		return err
	}
	retag, err := q.directive("x-amz-tagging-directive")
	if err != nil {
		return err
	}
	want := strings.ToUpper(q.Header.Get("x-amz-checksum-algorithm"))
	if want != "" && checksums[want] == nil {
		return s3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
	}
	if from.bucket == q.bucket && from.key == q.key && from.version == "" && !replace &&
		tmpl.Header["x-amz-storage-class"] == "" && tmpl.Enc.Algorithm == "" && tmpl.Customer == "" && tmpl.Header["x-amz-website-redirect-location"] == "" {
		return s3Error("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}

	// First what must be computed of the bytes, outside the transaction.
	q.s.store.streaming.RLock()
	defer q.s.store.streaming.RUnlock()
	var srcConf *bucketConfig
	var src *version
	if err := q.s.store.view(func(t *tx) (err error) {
		srcConf, src, err = q.source(t, from)
		return err
	}); err != nil {
		return err
	}
	if src.Size > maxObject {
		return s3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120")
	}
	if want == "" {
		want = src.Sum.Algorithm
	}
	if want == "" {
		want = "CRC64NVME"
	}
	md5sum, digest, err := q.s.store.hash(src.Segments, src.Size, want)
	if err != nil {
		return err
	}
	tmpl.Size, tmpl.ETag = src.Size, md5sum
	tmpl.Sum = sum{Algorithm: want, Value: digest}

	// The source may be replaced or deleted meanwhile: then this copy came first.
	// Its bytes are still there, as long as the read lock is held.
	var c *bucketConfig
	var v version
	err = q.s.store.update(func(t *tx) error {
		var objs *bolt.Bucket
		var err error
		if c, objs, err = q.conf(t); err != nil {
			return err
		}
		v = *tmpl
		if !replace {
			v.Header = make(map[string]string)
			for k, value := range src.Header {
				if k != "x-amz-storage-class" && k != "x-amz-website-redirect-location" {
					v.Header[k] = value
				}
			}
			for _, k := range []string{"x-amz-storage-class", "x-amz-website-redirect-location"} {
				if value := tmpl.Header[k]; value != "" {
					v.Header[k] = value
				}
			}
		}
		if !retag {
			v.Tags = src.Tags
		}
		if err := v.applyDefaults(c, q.Header, q.now); err != nil {
			return err
		}
		if err := writable(q.Header, objs, q.key); err != nil {
			return err
		}
		v.Segments = src.Segments
		if err := t.hold(v.Segments); err != nil {
			return err
		}
		return t.save(c, objs, &v)
	})
	if err != nil {
		return err
	}
	v.writeHeaders(q.w.Header(), c)
	if srcConf.Versioning != "" {
		q.w.Header().Set("x-amz-copy-source-version-id", src.ID)
	}
	return q.xml(struct {
		XMLName      xml.Name `xml:"CopyObjectResult"`
		NS           string   `xml:"xmlns,attr"`
		LastModified string
		ETag         string
		sumElements
	}{NS: s3NS, LastModified: xmlTime(v.Modified), ETag: `"` + v.ETag + `"`, sumElements: v.Sum.elements()})
}

// directive reads COPY (false, also if absent) or REPLACE (true).
func (q *s3Req) directive(name string) (bool, error) {
	switch v := q.Header.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, s3Error("InvalidArgument", "Unknown directive: "+v).element("ArgumentName", name)
	}
}

// hash reads a body and returns its MD5 in hex and a checksum. The caller holds
// s.streaming.RLock.
func (s *store) hash(segs []segment, size int64, algorithm string) (md5hex, digest string, err error) {
	sp := newSpooler("")
	sp.want(algorithm)
	err = s.readBodies(writerFunc(func(p []byte) (int, error) {
		sp.md5.Write(p)
		sp.more[algorithm].Write(p)
		return len(p), nil
	}), segs, 0, size)
	return hex.EncodeToString(sp.md5.Sum(nil)), sp.digest(algorithm), err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
