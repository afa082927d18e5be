package sandbox

import (
	"encoding/base64"
	"encoding/xml"
	"net/url"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// limit reads a page size: max if absent or above it.
func (q *s3Req) limit(name string, most int) (int, error) {
	v := q.query.Get(name)
	if v == "" {
		return most, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, s3Error("InvalidArgument", "Provided "+name+" not an integer or within integer range").element("ArgumentName", name)
	}
	return min(n, most), nil
}

// A continuation token is opaque to clients; here it is the last name listed.
func token(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func parseToken(t string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(t)
	if err != nil {
		return "", s3Error("InvalidArgument", "The continuation token provided is incorrect").element("ArgumentName", "continuation-token")
	}
	return string(b), nil
}

// encoder is encoding-type=url or nothing. A space becomes %20, which every
// client reads as a space, whether or not it takes + for one.
func (q *s3Req) encoder() (func(string) string, error) {
	switch t := q.query.Get("encoding-type"); t {
	case "":
		return func(s string) string { return s }, nil
	case "url":
		return func(s string) string {
			return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s))
		}, nil
	default:
		return nil, s3Error("InvalidArgument", "Invalid Encoding Method specified in Request").element("ArgumentName", "encoding-type")
	}
}

type commonPrefix struct{ Prefix string }

// walk goes through a bucket's records in order, keys folded at the delimiter.
type walk struct {
	prefix, delimiter string
}

// fold is the common prefix that the key falls under, "" if none.
func (w walk) fold(key string) string {
	if w.delimiter == "" || !strings.HasPrefix(key, w.prefix) {
		return ""
	}
	i := strings.Index(key[len(w.prefix):], w.delimiter)
	if i < 0 {
		return ""
	}
	return key[:len(w.prefix)+i+len(w.delimiter)]
}

// start is where a walk goes on after the marker: behind all versions of that
// key or, if it is a common prefix, behind all keys under it.
func (w walk) start(marker string) []byte {
	switch {
	case marker == "" || marker < w.prefix:
		return []byte(w.prefix)
	case w.fold(marker) == marker:
		return behind(marker)
	}
	return []byte(marker + "\x01")
}

// behind is the first possible key after all that begin with the prefix.
func behind(prefix string) []byte {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return b[:i+1]
		}
	}
	return []byte{0xff, 0xff, 0xff, 0xff, 0xff}
}

// page is one page of current objects and common prefixes.
type page struct {
	objects  []*version
	prefixes []commonPrefix
	last     string // the last key or common prefix on the page
	more     bool
}

// objects lists the current objects after the marker.
func (w walk) objects(objs *bolt.Bucket, marker string, limit int) (*page, error) {
	p := &page{}
	if limit == 0 {
		return p, nil
	}
	c := objs.Cursor()
	k, v := c.Seek(w.start(marker))
	for k != nil && hasPrefix(k, []byte(w.prefix)) {
		o, err := decodeVersion(k, v)
		if err != nil {
			return nil, err
		}
		if o.Marker {
			k, v = c.Seek([]byte(o.Key + "\x01")) // none of its older versions is current
			continue
		}
		if len(p.objects)+len(p.prefixes) == limit {
			p.more = true
			return p, nil
		}
		if f := w.fold(o.Key); f != "" {
			p.prefixes = append(p.prefixes, commonPrefix{f})
			p.last = f
			k, v = c.Seek(behind(f))
			continue
		}
		p.objects = append(p.objects, o)
		p.last = o.Key
		k, v = c.Seek([]byte(o.Key + "\x01"))
	}
	return p, nil
}

type listEntry struct {
	Key               string
	LastModified      string
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	Owner             *owner `xml:",omitempty"`
	StorageClass      string
}

func (p *page) entries(encode func(string) string, withOwner bool) ([]listEntry, []commonPrefix) {
	var out []listEntry
	for _, o := range p.objects {
		e := listEntry{Key: encode(o.Key), LastModified: xmlTime(o.Modified), ETag: `"` + o.ETag + `"`, Size: o.Size, StorageClass: storageClass(o)}
		if o.Sum.Algorithm != "" {
			e.ChecksumAlgorithm, e.ChecksumType = o.Sum.Algorithm, o.Sum.kind()
		}
		if withOwner {
			e.Owner = &sandboxOwner
		}
		out = append(out, e)
	}
	for i := range p.prefixes {
		p.prefixes[i].Prefix = encode(p.prefixes[i].Prefix)
	}
	return out, p.prefixes
}

// page lists the request's bucket after the marker.
func (q *s3Req) page(marker string) (p *page, limit int, err error) {
	if limit, err = q.limit("max-keys", 1000); err != nil {
		return nil, 0, err
	}
	w := walk{q.query.Get("prefix"), q.query.Get("delimiter")}
	err = q.s.store.view(func(t *tx) error {
		_, objs, err := q.conf(t)
		if err != nil {
			return err
		}
		p, err = w.objects(objs, marker, limit)
		return err
	})
	return p, limit, err
}

func (q *s3Req) listObjects() error {
	encode, err := q.encoder()
	if err != nil {
		return err
	}
	p, limit, err := q.page(q.query.Get("marker"))
	if err != nil {
		return err
	}
	out := struct {
		XMLName        xml.Name `xml:"ListBucketResult"`
		NS             string   `xml:"xmlns,attr"`
		Name           string
		Prefix         string
		Marker         string
		NextMarker     string `xml:",omitempty"`
		MaxKeys        int
		Delimiter      string `xml:",omitempty"`
		EncodingType   string `xml:",omitempty"`
		IsTruncated    bool
		Contents       []listEntry
		CommonPrefixes []commonPrefix
	}{NS: s3NS, Name: q.bucket, Prefix: encode(q.query.Get("prefix")), Marker: encode(q.query.Get("marker")), MaxKeys: limit,
		Delimiter: encode(q.query.Get("delimiter")), EncodingType: q.query.Get("encoding-type"), IsTruncated: p.more}
	if p.more && out.Delimiter != "" {
		out.NextMarker = encode(p.last) // without a delimiter the last key is the marker
	}
	out.Contents, out.CommonPrefixes = p.entries(encode, true)
	return q.xml(out)
}

func (q *s3Req) listObjectsV2() error {
	if q.query.Get("list-type") != "2" {
		return s3Error("InvalidArgument", "Invalid List Type specified in Request").element("ArgumentName", "list-type")
	}
	encode, err := q.encoder()
	if err != nil {
		return err
	}
	marker := q.query.Get("start-after")
	given := q.query.Get("continuation-token")
	if q.query.Has("continuation-token") {
		if marker, err = parseToken(given); err != nil {
			return err
		}
		if marker == "" {
			return s3Error("InvalidArgument", "The continuation token provided is incorrect").element("ArgumentName", "continuation-token")
		}
	}
	p, limit, err := q.page(marker)
	if err != nil {
		return err
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		NS                    string   `xml:"xmlns,attr"`
		Name                  string
		Prefix                string
		StartAfter            string `xml:",omitempty"`
		ContinuationToken     string `xml:",omitempty"`
		NextContinuationToken string `xml:",omitempty"`
		KeyCount              int
		MaxKeys               int
		Delimiter             string `xml:",omitempty"`
		EncodingType          string `xml:",omitempty"`
		IsTruncated           bool
		Contents              []listEntry
		CommonPrefixes        []commonPrefix
	}{NS: s3NS, Name: q.bucket, Prefix: encode(q.query.Get("prefix")), StartAfter: encode(q.query.Get("start-after")),
		ContinuationToken: given, KeyCount: len(p.objects) + len(p.prefixes), MaxKeys: limit,
		Delimiter: encode(q.query.Get("delimiter")), EncodingType: q.query.Get("encoding-type"), IsTruncated: p.more}
	if p.more {
		out.NextContinuationToken = token(p.last)
	}
	out.Contents, out.CommonPrefixes = p.entries(encode, q.query.Get("fetch-owner") == "true")
	return q.xml(out)
}

// versionEntry is a Version or, by its XMLName, a DeleteMarker.
type versionEntry struct {
	XMLName           xml.Name
	ETag              string `xml:",omitempty"`
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              *int64 `xml:",omitempty"`
	StorageClass      string `xml:",omitempty"`
	Key               string
	VersionId         string
	IsLatest          bool
	LastModified      string
	Owner             owner
}

func (q *s3Req) listVersions() error {
	encode, err := q.encoder()
	if err != nil {
		return err
	}
	limit, err := q.limit("max-keys", 1000)
	if err != nil {
		return err
	}
	w := walk{q.query.Get("prefix"), q.query.Get("delimiter")}
	keyMarker, idMarker := q.query.Get("key-marker"), q.query.Get("version-id-marker")
	if idMarker != "" && keyMarker == "" {
		return s3Error("InvalidArgument", "A version-id marker cannot be specified without a key marker.").element("ArgumentName", "version-id-marker")
	}
	out := struct {
		XMLName             xml.Name `xml:"ListVersionsResult"`
		NS                  string   `xml:"xmlns,attr"`
		Name                string
		Prefix              string
		KeyMarker           string
		VersionIdMarker     string
		NextKeyMarker       string `xml:",omitempty"`
		NextVersionIdMarker string `xml:",omitempty"`
		MaxKeys             int
		Delimiter           string `xml:",omitempty"`
		EncodingType        string `xml:",omitempty"`
		IsTruncated         bool
		Versions            []versionEntry
		CommonPrefixes      []commonPrefix
	}{NS: s3NS, Name: q.bucket, Prefix: encode(w.prefix), KeyMarker: encode(keyMarker), VersionIdMarker: idMarker,
		MaxKeys: limit, Delimiter: encode(w.delimiter), EncodingType: q.query.Get("encoding-type")}
	err = q.s.store.view(func(t *tx) error {
		_, objs, err := q.conf(t)
		if err != nil || limit == 0 {
			return err
		}
		c := objs.Cursor()
		from := w.start(keyMarker)
		if idMarker != "" && w.fold(keyMarker) != keyMarker && keyMarker >= w.prefix {
			if from, err = behindVersion(objs, keyMarker, idMarker); err != nil {
				return err
			}
		}
		for k, v := c.Seek(from); k != nil && hasPrefix(k, []byte(w.prefix)); {
			o, err := decodeVersion(k, v)
			if err != nil {
				return err
			}
			if len(out.Versions)+len(out.CommonPrefixes) == limit {
				out.IsTruncated = true
				return nil
			}
			if f := w.fold(o.Key); f != "" {
				out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{encode(f)})
				out.NextKeyMarker, out.NextVersionIdMarker = encode(f), ""
				k, v = c.Seek(behind(f))
				continue
			}
			newest, _ := objs.Cursor().Seek(append([]byte(o.Key), 0))
			e := versionEntry{XMLName: xml.Name{Local: "Version"}, Key: encode(o.Key), VersionId: o.ID, IsLatest: string(newest) == string(k),
				LastModified: xmlTime(o.Modified), Owner: sandboxOwner}
			if o.Marker {
				e.XMLName.Local = "DeleteMarker"
			} else {
				e.ETag, e.Size, e.StorageClass = `"`+o.ETag+`"`, &o.Size, storageClass(o)
				if o.Sum.Algorithm != "" {
					e.ChecksumAlgorithm, e.ChecksumType = o.Sum.Algorithm, o.Sum.kind()
				}
			}
			out.Versions = append(out.Versions, e)
			out.NextKeyMarker, out.NextVersionIdMarker = encode(o.Key), o.ID
			k, v = c.Next()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !out.IsTruncated {
		out.NextKeyMarker, out.NextVersionIdMarker = "", ""
	}
	return q.xml(out)
}

// behindVersion is where a listing goes on after a version, also when that has
// been deleted since: who deletes page by page must miss nothing. Of a deleted
// null version the place is not known; then the key's versions come again.
func behindVersion(objs *bolt.Bucket, key, id string) ([]byte, error) {
	v, err := byID(objs, key, id)
	if err != nil {
		return nil, err
	}
	seq, ok := versionSeq(id)
	switch {
	case v != nil:
		seq = v.Seq
	case !ok:
		return append([]byte(key), 0), nil
	}
	return append(versionKey(key, seq), 0), nil
}
