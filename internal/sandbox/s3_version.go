package sandbox

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// version is the record of one version of an object, or of a delete marker.
// Its key in the file is the object's key, a NUL, and the complement of Seq, so
// that keys come in order and the newest version of each first.
type version struct {
	Key      string            `json:"-"`
	Seq      uint64            `json:"seq"`
	ID       string            `json:"id"` // "null" where it was not made by versioning
	Marker   bool              `json:"marker,omitempty"`
	ETag     string            `json:"etag,omitempty"` // without quotes
	Size     int64             `json:"size,omitempty"`
	Modified time.Time         `json:"modified"`
	Segments []segment         `json:"segments,omitempty"`
	Header   map[string]string `json:"header,omitempty"` // as put, names in lower case
	Sum      sum               `json:"sum"`
	Enc      encryption        `json:"enc"`
	Customer string            `json:"customer,omitempty"` // SSE-C: base64 MD5 of the key
	Tags     []tag             `json:"tags,omitempty"`
	Lock     retention         `json:"lock"`
	Hold     bool              `json:"hold,omitempty"`
	Parts    bool              `json:"parts,omitempty"` // made by a multipart upload
}

// retention is an Object Lock mode, "" for none, and its end.
type retention struct {
	Mode  string    `json:"mode,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

var idCoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// versionID makes an ID of which seq can be read again, and which cannot be
// guessed.
func versionID(seq uint64) string {
	var b [20]byte
	_, _ = rand.Read(b[:12]) // never fails
	binary.BigEndian.PutUint64(b[12:], seq)
	return idCoding.EncodeToString(b[:])
}

func versionSeq(id string) (uint64, bool) {
	b, err := idCoding.DecodeString(id)
	if err != nil || len(b) != 20 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[12:]), true
}

func versionKey(key string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(key), 0), ^seq)
}

// decodeVersion reads a record with the object's key from the file's key.
func decodeVersion(k, v []byte) (*version, error) {
	var o version
	if err := json.Unmarshal(v, &o); err != nil || len(k) < 9 {
		return nil, fmt.Errorf("read version record %q: %w", k, err)
	}
	o.Key = string(k[:len(k)-9])
	return &o, nil
}

// latest is the newest version of the key, a delete marker too, or nil.
func latest(objs *bolt.Bucket, key string) (*version, error) {
	prefix := append([]byte(key), 0)
	k, v := objs.Cursor().Seek(prefix)
	if k == nil || !hasPrefix(k, prefix) || len(k) != len(prefix)+8 {
		return nil, nil
	}
	return decodeVersion(k, v)
}

// current is what a GET of the key without a version sees, or nil.
func current(objs *bolt.Bucket, key string) (*version, error) {
	v, err := latest(objs, key)
	if v != nil && v.Marker {
		return nil, err
	}
	return v, err
}

// byID is the version with the ID, or nil.
func byID(objs *bolt.Bucket, key, id string) (*version, error) {
	if id == "null" {
		prefix := append([]byte(key), 0)
		c := objs.Cursor()
		for k, v := c.Seek(prefix); k != nil && hasPrefix(k, prefix); k, v = c.Next() {
			o, err := decodeVersion(k, v)
			if err != nil || o.ID == "null" {
				return o, err
			}
		}
		return nil, nil
	}
	seq, ok := versionSeq(id)
	if !ok {
		return nil, s3Error("InvalidArgument", "Invalid version id specified").element("ArgumentName", "versionId").element("ArgumentValue", id)
	}
	k := versionKey(key, seq)
	data := objs.Get(k)
	if data == nil {
		return nil, nil
	}
	o, err := decodeVersion(k, data)
	if err != nil || o.ID != id {
		return nil, err
	}
	return o, nil
}

// wantVersion is the request's version ID, "" for the current version.
func (q *s3Req) wantVersion() (string, error) {
	id := q.query.Get("versionId")
	if id == "" && q.query.Has("versionId") {
		return "", s3Error("InvalidArgument", "Version id cannot be the empty string").element("ArgumentName", "versionId")
	}
	return id, nil
}

// find is the version that the request names; a delete marker or nothing is
// the error that GET gives.
func (q *s3Req) find(t *tx) (*bucketConfig, *version, error) {
	id, err := q.wantVersion()
	if err != nil {
		return nil, nil, err
	}
	return find(t, q.bucket, q.key, id)
}

func find(t *tx, bucket, key, id string) (*bucketConfig, *version, error) {
	c, objs, err := conf(t, bucket)
	if err != nil {
		return nil, nil, err
	}
	if id == "" {
		v, err := latest(objs, key)
		switch {
		case err != nil:
			return nil, nil, err
		case v == nil:
			return nil, nil, noSuchKey(key)
		case v.Marker:
			return nil, nil, noSuchKey(key).with("x-amz-delete-marker", "true").with("x-amz-version-id", v.ID)
		}
		return c, v, nil
	}
	v, err := byID(objs, key, id)
	switch {
	case err != nil:
		return nil, nil, err
	case v == nil:
		return nil, nil, s3Error("NoSuchVersion", "The specified version does not exist.").element("Key", key).element("VersionId", id)
	case v.Marker:
		return nil, nil, s3Error("MethodNotAllowed", "The specified method is not allowed against this resource.").
			with("x-amz-delete-marker", "true").with("x-amz-version-id", v.ID).with("Allow", "DELETE").with("Last-Modified", httpTime(v.Modified))
	}
	return c, v, nil
}

// save records a new version. In a bucket that is not versioned, or no longer,
// it takes the place of the null version.
func (t *tx) save(c *bucketConfig, objs *bolt.Bucket, v *version) error {
	seq, err := t.nextID(rootObjects)
	if err != nil {
		return err
	}
	v.Seq, v.ID = seq, "null"
	if c.Versioning == "Enabled" {
		v.ID = versionID(seq)
	} else {
		old, err := byID(objs, v.Key, "null")
		if err != nil {
			return err
		}
		if old != nil {
			if err := t.remove(objs, old); err != nil {
				return err
			}
		}
	}
	// The ETag of what KMS or the client's key encrypts is not the MD5 of the
	// content, in S3: nobody may rely on it.
	if !v.Marker && !v.Parts && (v.Customer != "" || v.Enc.Algorithm != "AES256") {
		h := md5.Sum(fmt.Appendf(nil, "%s %d", v.ETag, seq))
		v.ETag = hex.EncodeToString(h[:])
	}
	return t.putJSON(objs, versionKey(v.Key, seq), v)
}

// remove deletes a version for good.
func (t *tx) remove(objs *bolt.Bucket, v *version) error {
	if err := t.release(v.Segments); err != nil {
		return err
	}
	return t.delIn(objs, versionKey(v.Key, v.Seq))
}
