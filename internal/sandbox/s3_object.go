package sandbox

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// keptHeaders are the headers of a PUT that a GET gives back.
var keptHeaders = []string{"content-type", "cache-control", "content-disposition", "content-encoding",
	"content-language", "expires", "x-amz-website-redirect-location", "x-amz-storage-class"}

var storageClasses = []string{"", "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "REDUCED_REDUNDANCY", "GLACIER_IR"}

// template makes a version of the headers of a PUT, a copy or the start of a
// multipart upload. Defaults of the bucket come later, from applyDefaults.
func (q *s3Req) template() (*version, error) {
	v := &version{Key: q.key, Modified: q.now, Header: make(map[string]string)}
	size := 0
	for name, values := range q.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-meta-") {
			v.Header[name] = strings.Join(values, ",")
			size += len(name) - len("x-amz-meta-") + len(v.Header[name])
		}
	}
	if size > 2<<10 {
		return nil, s3Error("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	}
	for _, name := range keptHeaders {
		if value := q.Header.Get(name); value != "" {
			v.Header[name] = value
		}
	}
	if e := withoutToken(v.Header["content-encoding"], "aws-chunked"); e != "" {
		v.Header["content-encoding"] = e
	} else {
		delete(v.Header, "content-encoding")
	}
	if v.Header["content-type"] == "" {
		v.Header["content-type"] = "binary/octet-stream"
	}
	class := v.Header["x-amz-storage-class"]
	if !slices.Contains(storageClasses, class) {
		return nil, s3Error("InvalidStorageClass", "The storage class you specified is not valid")
	}
	if class == "STANDARD" {
		delete(v.Header, "x-amz-storage-class")
	}
	if q.Header.Get("x-amz-write-offset-bytes") != "" {
		return nil, s3Error("NotImplemented", "The sandbox does not append to objects.")
	}

	v.Enc = encryption{Algorithm: q.Header.Get("x-amz-server-side-encryption"),
		KeyID:     q.Header.Get("x-amz-server-side-encryption-aws-kms-key-id"),
		BucketKey: strings.EqualFold(q.Header.Get("x-amz-server-side-encryption-bucket-key-enabled"), "true")}
	if v.Enc.Algorithm != "" {
		if err := v.Enc.check(); err != nil {
			return nil, err
		}
	} else if v.Enc.KeyID != "" {
		return nil, s3Error("InvalidArgument", "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	}
	var err error
	if v.Customer, err = customerKey(q.Header, ""); err != nil {
		return nil, err
	}
	if v.Customer != "" && v.Enc.Algorithm != "" {
		return nil, s3Error("InvalidArgument", "Server Side Encryption with Customer provided key is incompatible with the encryption method specified")
	}
	if v.Tags, err = headerTags(q.Header.Get("x-amz-tagging")); err != nil {
		return nil, err
	}
	if v.Lock, v.Hold, err = q.lockHeaders(); err != nil {
		return nil, err
	}
	return v, nil
}

// applyDefaults gives a new version what its bucket wants for it.
func (v *version) applyDefaults(c *bucketConfig, h http.Header, now time.Time) error {
	if err := c.allowACL(h); err != nil {
		return err
	}
	if v.Customer == "" && v.Enc.Algorithm == "" {
		v.Enc = c.Encryption
	}
	if c.Lock == nil {
		if v.Lock.Mode != "" || v.Hold {
			return s3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
		}
		return nil
	}
	if v.Lock.Mode == "" && c.Lock.Mode != "" {
		v.Lock = retention{c.Lock.Mode, now.AddDate(c.Lock.Years, 0, c.Lock.Days)}
	}
	return nil
}

// customerKey checks the SSE-C headers and returns the key's MD5, "" if there
// are none. prefix is "" or "copy-source-".
func customerKey(h http.Header, prefix string) (string, error) {
	p := "x-amz-" + prefix + "server-side-encryption-customer-"
	algorithm, key, sum := h.Get(p+"algorithm"), h.Get(p+"key"), h.Get(p+"key-md5")
	if algorithm == "" && key == "" && sum == "" {
		return "", nil
	}
	if algorithm != "AES256" {
		return "", s3Error("InvalidEncryptionAlgorithmError", "The encryption request that you specified is not valid. The valid value is AES256.")
	}
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		return "", s3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
	}
	if h := md5.Sum(raw); base64.StdEncoding.EncodeToString(h[:]) != sum {
		return "", s3Error("InvalidArgument", "The calculated MD5 hash of the key did not match the hash that was provided.")
	}
	return sum, nil
}

// unlocks checks the SSE-C headers of a read against the version.
func (v *version) unlocks(h http.Header, prefix string) error {
	given, err := customerKey(h, prefix)
	switch {
	case err != nil:
		return err
	case given == v.Customer:
		return nil
	case v.Customer == "":
		return s3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")
	case given == "":
		return s3Error("InvalidRequest", "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.")
	}
	return s3Error("AccessDenied", "Access Denied")
}

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

func (q *s3Req) putObject() error {
	tmpl, err := q.template()
	if err != nil {
		return err
	}
	if _, err := q.read(); err != nil {
		return err
	}
	if (tmpl.Lock.Mode != "" || tmpl.Hold) && q.Header.Get("Content-Md5") == "" && q.Header.Get("x-amz-trailer") == "" {
		if s, err := statedSum(q.Header); err != nil || s.Algorithm == "" {
			return s3Error("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters")
		}
	}
	body, err := spool(q.Request, q.s.spoolDir, "CRC64NVME")
	if err != nil {
		return err
	}
	defer body.close()
	st, err := body.stageIn(q.s.store)
	if err != nil {
		return err
	}
	defer st.drop()
	tmpl.Size, tmpl.Sum, tmpl.ETag = body.size, body.sum, hex.EncodeToString(body.md5)

	var c *bucketConfig
	var v version
	err = q.s.store.update(func(t *tx) error {
		v = *tmpl
		var objs *bolt.Bucket
		var err error
		if c, objs, err = q.conf(t); err != nil {
			return err
		}
		if err := v.applyDefaults(c, q.Header, q.now); err != nil {
			return err
		}
		if err := writable(q.Header, objs, q.key); err != nil {
			return err
		}
		seg, err := st.record(t)
		if err != nil {
			return err
		}
		v.Segments = []segment{seg}
		return t.save(c, objs, &v)
	})
	if err != nil {
		return err
	}
	v.writeHeaders(q.w.Header(), c)
	v.sumHeaders(q.w.Header())
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// writeHeaders are those that the answer to any write has.
func (v *version) writeHeaders(h http.Header, c *bucketConfig) {
	if !v.Marker {
		h.Set("ETag", `"`+v.ETag+`"`)
		v.encHeaders(h)
	}
	if c.Versioning != "" {
		h.Set("x-amz-version-id", v.ID)
	}
}

func (v *version) encHeaders(h http.Header) {
	if v.Customer != "" {
		h.Set("x-amz-server-side-encryption-customer-algorithm", "AES256")
		h.Set("x-amz-server-side-encryption-customer-key-md5", v.Customer)
		return
	}
	h.Set("x-amz-server-side-encryption", v.Enc.Algorithm)
	if v.Enc.Algorithm != "AES256" {
		key := v.Enc.KeyID
		if key == "" {
			key = "arn:aws:kms:" + Region + ":" + AccountID + ":key/aws/s3"
		}
		h.Set("x-amz-server-side-encryption-aws-kms-key-id", key)
		if v.Enc.BucketKey {
			h.Set("x-amz-server-side-encryption-bucket-key-enabled", "true")
		}
	}
}

func (v *version) sumHeaders(h http.Header) {
	if v.Sum.Algorithm != "" {
		h.Set(v.Sum.header(), v.Sum.Value)
		h.Set("x-amz-checksum-type", v.Sum.kind())
	}
}

// getObject is GET and HEAD.
func (q *s3Req) getObject() error {
	q.s.store.streaming.RLock()
	defer q.s.store.streaming.RUnlock()
	var c *bucketConfig
	var v *version
	if err := q.s.store.view(func(t *tx) (err error) {
		c, v, err = q.find(t)
		return err
	}); err != nil {
		return err
	}
	if err := v.unlocks(q.Header, ""); err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("ETag", `"`+v.ETag+`"`)
	h.Set("Last-Modified", httpTime(v.Modified))
	if c.Versioning != "" {
		h.Set("x-amz-version-id", v.ID)
	}
	if err := v.readable(q.Header, ""); err != nil {
		return err
	}
	status, off, n, err := q.extent(v)
	if err != nil {
		return err
	}
	for name, value := range v.Header {
		h.Set(name, value)
	}
	for _, name := range keptHeaders[:6] {
		if o := q.query.Get("response-" + name); o != "" {
			h.Set(name, o)
		}
	}
	v.encHeaders(h)
	if strings.EqualFold(q.Header.Get("x-amz-checksum-mode"), "ENABLED") && status == http.StatusOK {
		v.sumHeaders(h)
	}
	if len(v.Tags) > 0 {
		h.Set("x-amz-tagging-count", strconv.Itoa(len(v.Tags)))
	}
	if v.Lock.Mode != "" {
		h.Set("x-amz-object-lock-mode", v.Lock.Mode)
		h.Set("x-amz-object-lock-retain-until-date", v.Lock.Until.UTC().Format(time.RFC3339))
	}
	if v.Hold {
		h.Set("x-amz-object-lock-legal-hold", "ON")
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, v.Size))
	}
	q.w.WriteHeader(status)
	if q.Method == http.MethodHead {
		return nil
	}
	if err := q.s.store.readBodies(q.w, v.Segments, off, n); err != nil {
		// The status is sent: only a broken connection can still say it.
		panic(http.ErrAbortHandler)
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

func (q *s3Req) deleteObject() error {
	id, err := q.wantVersion()
	if err != nil {
		return err
	}
	var gone deleted
	if err := q.s.store.update(func(t *tx) (err error) {
		gone, err = q.delete(t, q.key, id, q.Header.Get("If-Match"))
		return err
	}); err != nil {
		return err
	}
	if gone.Marker {
		q.w.Header().Set("x-amz-delete-marker", "true")
	}
	if gone.ID != "" {
		q.w.Header().Set("x-amz-version-id", gone.ID)
	}
	return q.noContent()
}

// deleted is what a delete did: the version it removed, or the marker it made.
type deleted struct {
	ID     string
	Marker bool // the version removed or made is a delete marker
	Made   bool
}

// delete removes the version with the ID or, without one, does what deleting
// means in this bucket. match is the condition on the current version.
//
// S3's documentation does not say what a condition on a missing object gives;
// as with PUT it is NoSuchKey here, and PreconditionFailed for *.
func (q *s3Req) delete(t *tx, key, id, match string) (deleted, error) {
	c, objs, err := q.conf(t)
	if err != nil {
		return deleted{}, err
	}
	if match != "" {
		cur, err := current(objs, key)
		switch {
		case err != nil:
			return deleted{}, err
		case cur == nil && match != "*":
			return deleted{}, noSuchKey(key)
		case cur == nil || !etagMatches(match, cur.ETag):
			return deleted{}, preconditionFailed("If-Match")
		}
	}
	if id != "" {
		v, err := byID(objs, key, id)
		if err != nil {
			return deleted{}, err
		}
		if v == nil {
			return deleted{ID: id}, nil // deleting what is not there succeeds
		}
		if err := v.deletable(q); err != nil {
			return deleted{}, err
		}
		return deleted{ID: v.ID, Marker: v.Marker}, t.remove(objs, v)
	}
	if c.Versioning == "" {
		v, err := byID(objs, key, "null")
		if err != nil || v == nil {
			return deleted{}, err
		}
		return deleted{}, t.remove(objs, v)
	}
	m := &version{Key: key, Marker: true, Modified: q.now}
	if err := t.save(c, objs, m); err != nil {
		return deleted{}, err
	}
	return deleted{ID: m.ID, Marker: true, Made: true}, nil
}

func (q *s3Req) deleteObjects() error {
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Object  []struct {
			Key              string
			VersionId        string
			ETag             string
			LastModifiedTime string
			Size             string
		}
	}
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.Object) == 0 || len(in.Object) > 1000 {
		return parseXML(nil, &in)
	}
	type gone struct {
		Key                   string
		VersionId             string `xml:",omitempty"`
		DeleteMarker          bool   `xml:",omitempty"`
		DeleteMarkerVersionId string `xml:",omitempty"`
	}
	type failed struct {
		Key       string
		VersionId string `xml:",omitempty"`
		Code      string
		Message   string
	}
	type result struct {
		XMLName xml.Name `xml:"DeleteResult"`
		NS      string   `xml:"xmlns,attr"`
		Deleted []gone
		Error   []failed
	}
	var out result
	// S3 deletes one by one; here all go in one transaction, those refused aside.
	if err := q.s.store.update(func(t *tx) error {
		out = result{NS: s3NS}
		if _, _, err := q.conf(t); err != nil {
			return err
		}
		for _, o := range in.Object {
			var d deleted
			var err error
			switch {
			case o.Key == "" || len(o.Key) > maxKey || strings.ContainsRune(o.Key, 0):
				err = s3Error("KeyTooLongError", "Your key is empty or too long")
			case o.LastModifiedTime != "" || o.Size != "":
				err = s3Error("NotImplemented", "The sandbox knows no conditions but ETag here.")
			default:
				d, err = q.delete(t, o.Key, o.VersionId, o.ETag)
			}
			if e, ok := err.(*s3Err); ok {
				out.Error = append(out.Error, failed{o.Key, o.VersionId, e.code, e.message})
				continue
			}
			if err != nil {
				return err
			}
			g := gone{Key: o.Key, VersionId: o.VersionId, DeleteMarker: d.Marker}
			if d.Marker {
				g.DeleteMarkerVersionId = d.ID
			}
			if !in.Quiet {
				out.Deleted = append(out.Deleted, g)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return q.xml(out)
}

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

// sumElements is a checksum as XML results have it.
type sumElements struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

func (c sum) elements() sumElements {
	var e sumElements
	switch c.Algorithm {
	case "CRC32":
		e.ChecksumCRC32 = c.Value
	case "CRC32C":
		e.ChecksumCRC32C = c.Value
	case "CRC64NVME":
		e.ChecksumCRC64NVME = c.Value
	case "SHA1":
		e.ChecksumSHA1 = c.Value
	case "SHA256":
		e.ChecksumSHA256 = c.Value
	default:
		return e
	}
	e.ChecksumType = c.kind()
	return e
}

func (q *s3Req) getAttributes() error {
	var c *bucketConfig
	var v *version
	if err := q.s.store.view(func(t *tx) (err error) {
		c, v, err = q.find(t)
		return err
	}); err != nil {
		return err
	}
	if err := v.unlocks(q.Header, ""); err != nil {
		return err
	}
	type parts struct{ TotalPartsCount int }
	out := struct {
		XMLName      xml.Name     `xml:"GetObjectAttributesResponse"`
		NS           string       `xml:"xmlns,attr"`
		ETag         string       `xml:",omitempty"`
		Checksum     *sumElements `xml:",omitempty"`
		ObjectParts  *parts       `xml:",omitempty"`
		StorageClass string       `xml:",omitempty"`
		ObjectSize   *int64       `xml:",omitempty"`
	}{NS: s3NS}
	asked := strings.Join(q.Header.Values("x-amz-object-attributes"), ",")
	if asked == "" {
		return s3Error("InvalidArgument", "The x-amz-object-attributes header is required.")
	}
	for _, a := range strings.Split(asked, ",") {
		switch strings.TrimSpace(a) {
		case "ETag":
			out.ETag = v.ETag
		case "Checksum":
			if e := v.Sum.elements(); v.Sum.Algorithm != "" {
				out.Checksum = &e
			}
		case "ObjectParts":
			if v.Parts {
				out.ObjectParts = &parts{len(v.Segments)}
			}
		case "StorageClass":
			out.StorageClass = storageClass(v)
		case "ObjectSize":
			out.ObjectSize = &v.Size
		default:
			return s3Error("InvalidArgument", "Invalid attribute name specified.")
		}
	}
	q.w.Header().Set("Last-Modified", httpTime(v.Modified))
	if c.Versioning != "" {
		q.w.Header().Set("x-amz-version-id", v.ID)
	}
	return q.xml(out)
}

func storageClass(v *version) string {
	if c := v.Header["x-amz-storage-class"]; c != "" {
		return c
	}
	return "STANDARD"
}
