package sandbox

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"

	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// minPart is the least size in bytes of a part that is not the last.
	minPart = 5 << 20

	maxParts = 10000
)

// upload is the record of a multipart upload under way.
type upload struct {
	ID        string    `json:"id"`
	Key       string    `json:"key"`
	Started   time.Time `json:"started"`
	Object    *version  `json:"object"` // what its headers said of the object to be
	Algorithm string    `json:"algorithm,omitempty"`
	Full      bool      `json:"full,omitempty"` // the checksum is of the whole, not of the parts
}

// part is the record of one part of an upload.
type part struct {
	Number   int       `json:"n"`
	ETag     string    `json:"etag"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Segments []segment `json:"segments"`
	Sum      sum       `json:"sum"`
}

func uploadKey(key, id string) []byte { return []byte(key + "\x00" + id) }

func partKey(id string, n int) []byte {
	return binary.BigEndian.AppendUint16([]byte(id+"\x00"), uint16(n))
}

func noSuchUpload(id string) *s3Err {
	return s3Error("NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.").element("UploadId", id)
}

// upload reads the upload that the request names.
func (q *s3Req) upload(t *tx) (*bucketConfig, *upload, error) {
	c, _, err := q.conf(t)
	if err != nil {
		return nil, nil, err
	}
	id := q.query.Get("uploadId")
	var u upload
	if strings.ContainsRune(id, 0) {
		return nil, nil, noSuchUpload(id)
	}
	ok, err := getJSON(t.sub(rootUploads, q.bucket), uploadKey(q.key, id), &u)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, noSuchUpload(id)
	}
	return c, &u, nil
}

// parts reads an upload's parts, by number.
func (t *tx) parts(id string) ([]part, error) {
	var parts []part
	prefix := []byte(id + "\x00")
	c := t.Bucket(rootParts).Cursor()
	for k, v := c.Seek(prefix); k != nil && hasPrefix(k, prefix); k, v = c.Next() {
		var p part
		if err := json.Unmarshal(v, &p); err != nil {
			return nil, fmt.Errorf("read part %q: %w", k, err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// dropUpload removes an upload and releases its parts.
func (t *tx) dropUpload(ups *bolt.Bucket, u *upload) error {
	parts, err := t.parts(u.ID)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := t.release(p.Segments); err != nil {
			return err
		}
		if err := t.del(rootParts, partKey(u.ID, p.Number)); err != nil {
			return err
		}
	}
	return t.delIn(ups, uploadKey(u.Key, u.ID))
}

func (q *s3Req) createUpload() error {
	tmpl, err := q.template()
	if err != nil {
		return err
	}
	u := upload{Key: q.key, Started: q.now, Algorithm: strings.ToUpper(q.Header.Get("x-amz-checksum-algorithm"))}
	kind := q.Header.Get("x-amz-checksum-type")
	switch {
	case u.Algorithm == "" && kind != "":
		return s3Error("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case u.Algorithm == "":
	case checksums[u.Algorithm] == nil:
		return s3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
	case kind != "" && kind != "COMPOSITE" && kind != "FULL_OBJECT",
		kind == "FULL_OBJECT" && strings.HasPrefix(u.Algorithm, "SHA"),
		kind == "COMPOSITE" && u.Algorithm == "CRC64NVME":
		return s3Error("InvalidRequest", "The "+kind+" checksum type cannot be used with the "+u.Algorithm+" checksum algorithm.")
	default:
		u.Full = kind == "FULL_OBJECT" || u.Algorithm == "CRC64NVME"
	}
	var c *bucketConfig
	err = q.s.store.update(func(t *tx) error {
		var err error
		if c, _, err = q.conf(t); err != nil {
			return err
		}
		v := *tmpl
		if err := v.applyDefaults(c, q.Header, q.now); err != nil {
			return err
		}
		seq, err := t.nextID(rootUploads)
		if err != nil {
			return err
		}
		u.ID, u.Object = versionID(seq), &v
		return t.putJSON(t.sub(rootUploads, q.bucket), uploadKey(u.Key, u.ID), u)
	})
	if err != nil {
		return err
	}
	h := q.w.Header()
	u.Object.encHeaders(h)
	if u.Algorithm != "" {
		h.Set("x-amz-checksum-algorithm", u.Algorithm)
		h.Set("x-amz-checksum-type", u.sum("").kind())
	}
	return q.xml(struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		NS       string   `xml:"xmlns,attr"`
		Bucket   string
		Key      string
		UploadId string
	}{NS: s3NS, Bucket: q.bucket, Key: q.key, UploadId: u.ID})
}

func (u *upload) sum(value string) sum {
	return sum{Algorithm: u.Algorithm, Value: value, Composite: u.Algorithm != "" && !u.Full}
}

func (q *s3Req) partNumber() (int, error) {
	n, err := strconv.Atoi(q.query.Get("partNumber"))
	if err != nil || n < 1 || n > maxParts {
		return 0, s3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive").element("ArgumentName", "partNumber")
	}
	return n, nil
}

// addPart stores a body as a part, in place of an earlier one of its number.
func (q *s3Req) addPart(number int, b *spooled) (*upload, error) {
	st, err := b.stageIn(q.s.store)
	if err != nil {
		return nil, err
	}
	defer st.drop()
	var u *upload
	err = q.s.store.update(func(t *tx) error {
		var err error
		if _, u, err = q.upload(t); err != nil {
			return err
		}
		k := partKey(u.ID, number)
		var old part
		had, err := getJSON(t.Bucket(rootParts), k, &old)
		if err != nil {
			return err
		}
		seg, err := st.record(t)
		if err != nil {
			return err
		}
		if had {
			if err := t.release(old.Segments); err != nil {
				return err
			}
		}
		return t.putJSON(t.Bucket(rootParts), k, part{Number: number, ETag: hex.EncodeToString(b.md5), Size: b.size, Modified: q.now, Segments: []segment{seg}, Sum: b.sum})
	})
	return u, err
}

// forPart reads the upload and checks what a part's request says against it.
func (q *s3Req) forPart() (u *upload, err error) {
	if err := q.s.store.view(func(t *tx) (err error) {
		_, u, err = q.upload(t)
		return err
	}); err != nil {
		return nil, err
	}
	key, err := customerKey(q.Header, "")
	if err != nil {
		return nil, err
	}
	if key != u.Object.Customer {
		return nil, s3Error("InvalidRequest", "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters.")
	}
	return u, nil
}

func (q *s3Req) uploadPart() error {
	n, err := q.partNumber()
	if err != nil {
		return err
	}
	u, err := q.forPart()
	if err != nil {
		return err
	}
	b, err := spool(q.Request, q.s.spoolDir, u.Algorithm)
	if err != nil {
		return err
	}
	defer b.close()
	if u.Algorithm != "" && b.sum.Algorithm != u.Algorithm {
		return s3Error("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: "+strings.ToLower(u.Algorithm)+", actual checksum Type: "+strings.ToLower(b.sum.Algorithm))
	}
	if _, err := q.addPart(n, b); err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("ETag", `"`+hex.EncodeToString(b.md5)+`"`)
	if b.sum.Algorithm != "" {
		h.Set(b.sum.header(), b.sum.Value)
	}
	u.Object.encHeaders(h)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *s3Req) uploadPartCopy() error {
	n, err := q.partNumber()
	if err != nil {
		return err
	}
	from, err := q.copySource()
	if err != nil {
		return err
	}
	u, err := q.forPart()
	if err != nil {
		return err
	}
	q.s.store.streaming.RLock()
	defer q.s.store.streaming.RUnlock()
	var c *bucketConfig
	var src *version
	if err := q.s.store.view(func(t *tx) (err error) {
		c, src, err = q.source(t, from)
		return err
	}); err != nil {
		return err
	}
	off, size := int64(0), src.Size
	if rng := q.Header.Get("x-amz-copy-source-range"); rng != "" {
		var ok bool
		if off, size, ok = parseRange(rng, src.Size); !ok || size <= 0 {
			return s3Error("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
		}
	}
	if size > maxObject {
		return s3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120")
	}
	sp := newSpooler(q.s.spoolDir)
	defer sp.b.close()
	if u.Algorithm != "" {
		sp.want(u.Algorithm)
	}
	if err := q.s.store.readBodies(sp, src.Segments, off, size); err != nil {
		return err
	}
	sp.b.md5 = sp.md5.Sum(nil)
	if u.Algorithm != "" {
		sp.b.sum = sum{Algorithm: u.Algorithm, Value: sp.digest(u.Algorithm)}
	}
	if _, err := q.addPart(n, &sp.b); err != nil {
		return err
	}
	u.Object.encHeaders(q.w.Header())
	if c.Versioning != "" {
		q.w.Header().Set("x-amz-copy-source-version-id", src.ID)
	}
	e := sp.b.sum.elements()
	e.ChecksumType = "" // it is the upload's
	return q.xml(struct {
		XMLName      xml.Name `xml:"CopyPartResult"`
		NS           string   `xml:"xmlns,attr"`
		LastModified string
		ETag         string
		sumElements
	}{NS: s3NS, LastModified: xmlTime(q.now), ETag: `"` + hex.EncodeToString(sp.b.md5) + `"`, sumElements: e})
}

// completedPart is a part as CompleteMultipartUpload names it.
type completedPart struct {
	PartNumber int
	ETag       string
	sumElements
}

// of is the value for the algorithm.
func (e sumElements) of(algorithm string) string {
	return map[string]string{"CRC32": e.ChecksumCRC32, "CRC32C": e.ChecksumCRC32C, "CRC64NVME": e.ChecksumCRC64NVME,
		"SHA1": e.ChecksumSHA1, "SHA256": e.ChecksumSHA256}[algorithm]
}

// choose checks the list of a CompleteMultipartUpload against the parts there
// are, and returns those it names.
func choose(have []part, want []completedPart) ([]part, error) {
	byNumber := make(map[int]part)
	for _, p := range have {
		byNumber[p.Number] = p
	}
	for i := range want[1:] {
		if want[i+1].PartNumber <= want[i].PartNumber {
			return nil, s3Error("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.")
		}
	}
	var chosen []part
	for i, w := range want {
		p, ok := byNumber[w.PartNumber]
		if !ok || strings.Trim(w.ETag, `"`) != p.ETag || p.Sum.Algorithm != "" && w.of(p.Sum.Algorithm) != "" && w.of(p.Sum.Algorithm) != p.Sum.Value {
			return nil, s3Error("InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.").
				element("PartNumber", strconv.Itoa(w.PartNumber))
		}
		if i < len(want)-1 && p.Size < minPart {
			return nil, s3Error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size").
				element("PartNumber", strconv.Itoa(p.Number)).element("ProposedSize", strconv.FormatInt(p.Size, 10)).element("MinSizeAllowed", strconv.Itoa(minPart))
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// assemble makes the object of the chosen parts, but for a checksum over the
// whole of it.
func (u *upload) assemble(parts []part, now time.Time) *version {
	v := *u.Object
	v.Key, v.Modified, v.Parts = u.Key, now, true
	whole := md5.New()
	composite := new(bytes.Buffer)
	for _, p := range parts {
		raw, _ := hex.DecodeString(p.ETag) // our own
		whole.Write(raw)
		raw, _ = base64.StdEncoding.DecodeString(p.Sum.Value)
		composite.Write(raw)
		v.Size += p.Size
		v.Segments = append(v.Segments, p.Segments...)
	}
	v.ETag = fmt.Sprintf("%x-%d", whole.Sum(nil), len(parts))
	if u.Algorithm != "" && !u.Full {
		h := checksums[u.Algorithm]()
		h.Write(composite.Bytes())
		v.Sum = u.sum(fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts)))
	}
	return &v
}

func (q *s3Req) completeUpload() error {
	var in struct {
		XMLName xml.Name        `xml:"CompleteMultipartUpload"`
		Part    []completedPart `xml:"Part"`
	}
	// The checksums in the header are of the object, not of this document.
	stated, err := statedSum(q.Header)
	if err != nil {
		return err
	}
	if stated.Algorithm != "" {
		q.Header.Del(stated.header())
	}
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.Part) == 0 || len(in.Part) > maxParts {
		return s3Error("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
	}

	// A checksum over the whole is computed first, outside the transaction.
	q.s.store.streaming.RLock()
	defer q.s.store.streaming.RUnlock()
	var before []part
	var ready *version
	if err := q.s.store.view(func(t *tx) error {
		_, u, err := q.upload(t)
		if err != nil {
			return err
		}
		have, err := t.parts(u.ID)
		if err != nil {
			return err
		}
		if before, err = choose(have, in.Part); err != nil {
			return err
		}
		ready = u.assemble(before, q.now)
		ready.Sum.Algorithm, ready.Sum.Composite = u.Algorithm, u.Algorithm != "" && !u.Full
		return nil
	}); err != nil {
		return err
	}
	if ready.Sum.Algorithm != "" && !ready.Sum.Composite {
		if _, ready.Sum.Value, err = q.s.store.hash(ready.Segments, ready.Size, ready.Sum.Algorithm); err != nil {
			return err
		}
	}
	// A composite checksum may be stated with or without its number of parts.
	if value, _, _ := strings.Cut(ready.Sum.Value, "-"); stated.Algorithm != "" && stated.Algorithm == ready.Sum.Algorithm && stated.Value != ready.Sum.Value && stated.Value != value {
		return s3Error("BadDigest", "The "+stated.Algorithm+" you specified did not match the calculated checksum.")
	}
	if size := q.Header.Get("x-amz-mp-object-size"); size != "" && size != strconv.FormatInt(ready.Size, 10) {
		return s3Error("InvalidRequest", "The provided 'x-amz-mp-object-size' header value does not match what was computed.")
	}

	var c *bucketConfig
	var v version
	err = q.s.store.update(func(t *tx) error {
		var u *upload
		var err error
		if c, u, err = q.upload(t); err != nil {
			return err
		}
		have, err := t.parts(u.ID)
		if err != nil {
			return err
		}
		parts, err := choose(have, in.Part)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(parts, before, func(a, b part) bool { return slices.Equal(a.Segments, b.Segments) }) {
			return s3Error("ConditionalRequestConflict", "A part was replaced while the upload was completed. Please try again.")
		}
		objs := t.sub(rootObjects, q.bucket)
		if err := writable(q.Header, objs, q.key); err != nil {
			return err
		}
		v = *ready
		// The object takes the parts over before the upload lets go of them.
		if err := t.hold(v.Segments); err != nil {
			return err
		}
		if err := t.dropUpload(t.sub(rootUploads, q.bucket), u); err != nil {
			return err
		}
		return t.save(c, objs, &v)
	})
	if err != nil {
		return err
	}
	v.writeHeaders(q.w.Header(), c)
	q.w.Header().Del("ETag") // it is in the document
	return q.xml(struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		NS       string   `xml:"xmlns,attr"`
		Location string
		Bucket   string
		Key      string
		ETag     string
		sumElements
	}{NS: s3NS, Location: "http://" + q.Host + q.URL.EscapedPath(), Bucket: q.bucket, Key: q.key, ETag: `"` + v.ETag + `"`, sumElements: v.Sum.elements()})
}

func (q *s3Req) abortUpload() error {
	if err := q.s.store.update(func(t *tx) error {
		_, u, err := q.upload(t)
		if err != nil {
			return err
		}
		return t.dropUpload(t.sub(rootUploads, q.bucket), u)
	}); err != nil {
		return err
	}
	return q.noContent()
}

func (q *s3Req) listParts() error {
	limit, err := q.limit("max-parts", 1000)
	if err != nil {
		return err
	}
	after := 0
	if m := q.query.Get("part-number-marker"); m != "" {
		if after, err = strconv.Atoi(m); err != nil || after < 0 {
			return s3Error("InvalidArgument", "Provided part-number-marker not an integer or within integer range")
		}
	}
	type entry struct {
		PartNumber   int
		LastModified string
		ETag         string
		Size         int64
		sumElements
	}
	out := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		NS                   string   `xml:"xmlns,attr"`
		Bucket               string
		Key                  string
		UploadId             string
		PartNumberMarker     int
		NextPartNumberMarker int `xml:",omitempty"`
		MaxParts             int
		IsTruncated          bool
		Part                 []entry
		Initiator            owner
		Owner                owner
		StorageClass         string
		ChecksumAlgorithm    string `xml:",omitempty"`
		ChecksumType         string `xml:",omitempty"`
	}{NS: s3NS, Bucket: q.bucket, Key: q.key, UploadId: q.query.Get("uploadId"), PartNumberMarker: after, MaxParts: limit, Initiator: sandboxOwner, Owner: sandboxOwner}
	if err := q.s.store.view(func(t *tx) error {
		_, u, err := q.upload(t)
		if err != nil {
			return err
		}
		out.StorageClass = storageClass(u.Object)
		if u.Algorithm != "" {
			out.ChecksumAlgorithm, out.ChecksumType = u.Algorithm, u.sum("").kind()
		}
		parts, err := t.parts(u.ID)
		if err != nil {
			return err
		}
		for _, p := range parts {
			if p.Number <= after {
				continue
			}
			if len(out.Part) == limit {
				out.IsTruncated = true
				break
			}
			e := p.Sum.elements()
			e.ChecksumType = ""
			out.Part = append(out.Part, entry{p.Number, xmlTime(p.Modified), `"` + p.ETag + `"`, p.Size, e})
			out.NextPartNumberMarker = p.Number
		}
		return nil
	}); err != nil {
		return err
	}
	return q.xml(out)
}

func (q *s3Req) listUploads() error {
	encode, err := q.encoder()
	if err != nil {
		return err
	}
	limit, err := q.limit("max-uploads", 1000)
	if err != nil {
		return err
	}
	w := walk{q.query.Get("prefix"), q.query.Get("delimiter")}
	keyMarker, idMarker := q.query.Get("key-marker"), q.query.Get("upload-id-marker")
	type entry struct {
		Key          string
		UploadId     string
		Initiator    owner
		Owner        owner
		StorageClass string
		Initiated    string
	}
	out := struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		NS                 string   `xml:"xmlns,attr"`
		Bucket             string
		KeyMarker          string
		UploadIdMarker     string
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIdMarker string `xml:",omitempty"`
		Prefix             string
		Delimiter          string `xml:",omitempty"`
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Upload             []entry
		CommonPrefixes     []commonPrefix
	}{NS: s3NS, Bucket: q.bucket, KeyMarker: encode(keyMarker), UploadIdMarker: idMarker, Prefix: encode(w.prefix),
		Delimiter: encode(w.delimiter), EncodingType: q.query.Get("encoding-type"), MaxUploads: limit}
	if err := q.s.store.view(func(t *tx) error {
		if _, _, err := q.conf(t); err != nil {
			return err
		}
		from := w.start(keyMarker)
		if idMarker != "" && keyMarker >= w.prefix && w.fold(keyMarker) != keyMarker {
			from = append(uploadKey(keyMarker, idMarker), 0)
		}
		c := t.sub(rootUploads, q.bucket).Cursor()
		for k, v := c.Seek(from); limit > 0 && k != nil && hasPrefix(k, []byte(w.prefix)); {
			var u upload
			if err := json.Unmarshal(v, &u); err != nil {
				return fmt.Errorf("read upload %q: %w", k, err)
			}
			if len(out.Upload)+len(out.CommonPrefixes) == limit {
				out.IsTruncated = true
				return nil
			}
			if f := w.fold(u.Key); f != "" {
				out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{encode(f)})
				out.NextKeyMarker, out.NextUploadIdMarker = encode(f), ""
				k, v = c.Seek(behind(f))
				continue
			}
			out.Upload = append(out.Upload, entry{encode(u.Key), u.ID, sandboxOwner, sandboxOwner, storageClass(u.Object), xmlTime(u.Started)})
			out.NextKeyMarker, out.NextUploadIdMarker = encode(u.Key), u.ID
			k, v = c.Next()
		}
		return nil
	}); err != nil {
		return err
	}
	if !out.IsTruncated {
		out.NextKeyMarker, out.NextUploadIdMarker = "", ""
	}
	return q.xml(out)
}
