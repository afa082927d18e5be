package sandbox

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

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
