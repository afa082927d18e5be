package sandbox

import (
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Object Lock, legal holds and tags: what can be changed on a version after it
// was written.

// lockHeaders reads the Object Lock headers of a write.
func (q *s3Req) lockHeaders() (retention, bool, error) {
	mode, until, hold := q.Header.Get("x-amz-object-lock-mode"), q.Header.Get("x-amz-object-lock-retain-until-date"), q.Header.Get("x-amz-object-lock-legal-hold")
	if hold != "" && hold != "ON" && hold != "OFF" {
		return retention{}, false, s3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'")
	}
	if (mode == "") != (until == "") {
		return retention{}, false, s3Error("InvalidArgument", "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
	}
	if mode == "" {
		return retention{}, hold == "ON", nil
	}
	r, err := parseRetention(mode, until, q.now)
	return r, hold == "ON", err
}

func parseRetention(mode, until string, now time.Time) (retention, error) {
	if mode != "GOVERNANCE" && mode != "COMPLIANCE" {
		return retention{}, s3Error("InvalidArgument", "Unknown wormMode directive.")
	}
	t, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return retention{}, s3Error("InvalidArgument", "The retain until date must be provided in ISO 8601 format")
	}
	if !t.After(now) {
		return retention{}, s3Error("InvalidArgument", "The retain until date must be in the future!")
	}
	return retention{mode, t.UTC()}, nil
}

func (q *s3Req) bypass() bool {
	return strings.EqualFold(q.Header.Get("x-amz-bypass-governance-retention"), "true")
}

// deletable refuses to delete a version under a hold or a retention.
func (v *version) deletable(q *s3Req) error {
	governed := v.Lock.Mode == "GOVERNANCE" && q.bypass()
	if v.Hold || v.Lock.Mode != "" && v.Lock.Until.After(q.now) && !governed {
		return s3Error("AccessDenied", "Access Denied because object protected by object lock.")
	}
	return nil
}

type lockRule struct {
	Default struct {
		Mode  string
		Days  int `xml:",omitempty"`
		Years int `xml:",omitempty"`
	} `xml:"DefaultRetention"`
}

type lockConfiguration struct {
	XMLName           xml.Name `xml:"ObjectLockConfiguration"`
	NS                string   `xml:"xmlns,attr"`
	ObjectLockEnabled string
	Rule              *lockRule `xml:",omitempty"`
}

func (q *s3Req) getLockConfig() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	if c.Lock == nil {
		return s3Error("ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket").element("BucketName", q.bucket)
	}
	out := lockConfiguration{NS: s3NS, ObjectLockEnabled: "Enabled"}
	if c.Lock.Mode != "" {
		out.Rule = &lockRule{}
		out.Rule.Default.Mode, out.Rule.Default.Days, out.Rule.Default.Years = c.Lock.Mode, c.Lock.Days, c.Lock.Years
	}
	return q.xml(out)
}

func (q *s3Req) putLockConfig() error {
	var in lockConfiguration
	if err := q.parse(&in); err != nil {
		return err
	}
	if in.ObjectLockEnabled != "Enabled" {
		return parseXML(nil, &in)
	}
	lock := &lockConfig{}
	if in.Rule != nil {
		d := in.Rule.Default
		if d.Mode != "GOVERNANCE" && d.Mode != "COMPLIANCE" || d.Days < 0 || d.Years < 0 || (d.Days == 0) == (d.Years == 0) || d.Days > 36500 || d.Years > 100 {
			return parseXML(nil, &in)
		}
		*lock = lockConfig{d.Mode, d.Days, d.Years}
	}
	return q.ok(q.edit(func(c *bucketConfig) error {
		if c.Versioning != "Enabled" {
			return s3Error("InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
		}
		c.Lock = lock
		return nil
	}))
}

// change edits the version that the request names, in place.
func (q *s3Req) change(fn func(*bucketConfig, *version) error) error {
	var id string
	err := q.s.store.update(func(t *tx) error {
		c, v, err := q.find(t)
		if err != nil {
			return err
		}
		if err := fn(c, v); err != nil {
			return err
		}
		if id = ""; c.Versioning != "" {
			id = v.ID
		}
		return t.putJSON(t.sub(rootObjects, q.bucket), versionKey(v.Key, v.Seq), v)
	})
	if err == nil && id != "" {
		q.w.Header().Set("x-amz-version-id", id)
	}
	return err
}

// look reads the version that the request names.
func (q *s3Req) look(fn func(*bucketConfig, *version) error) error {
	return q.s.store.view(func(t *tx) error {
		c, v, err := q.find(t)
		if err != nil {
			return err
		}
		if c.Versioning != "" {
			q.w.Header().Set("x-amz-version-id", v.ID)
		}
		return fn(c, v)
	})
}

func needLock(c *bucketConfig) error {
	if c.Lock == nil {
		return s3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
	}
	return nil
}

type retentionDocument struct {
	XMLName         xml.Name `xml:"Retention"`
	NS              string   `xml:"xmlns,attr"`
	Mode            string   `xml:",omitempty"`
	RetainUntilDate string   `xml:",omitempty"`
}

func (q *s3Req) getRetention() error {
	out := retentionDocument{NS: s3NS}
	if err := q.look(func(c *bucketConfig, v *version) error {
		if v.Lock.Mode == "" {
			if err := needLock(c); err != nil {
				return err
			}
			return s3Error("NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration")
		}
		out.Mode, out.RetainUntilDate = v.Lock.Mode, v.Lock.Until.Format(time.RFC3339)
		return nil
	}); err != nil {
		return err
	}
	return q.xml(out)
}

func (q *s3Req) putRetention() error {
	var in retentionDocument
	if err := q.parse(&in); err != nil {
		return err
	}
	var r retention
	if in.Mode != "" || in.RetainUntilDate != "" {
		var err error
		if r, err = parseRetention(in.Mode, in.RetainUntilDate, q.now); err != nil {
			return err
		}
	}
	return q.ok(q.change(func(c *bucketConfig, v *version) error {
		if err := needLock(c); err != nil {
			return err
		}
		// What is in force may be made longer or stricter, and governance be
		// bypassed.
		old := v.Lock
		weaker := r.Until.Before(old.Until) || old.Mode == "COMPLIANCE" && r.Mode != "COMPLIANCE" || r.Mode == ""
		if old.Mode != "" && old.Until.After(q.now) && weaker && (old.Mode == "COMPLIANCE" || !q.bypass()) {
			return s3Error("AccessDenied", "Access Denied because object protected by object lock.")
		}
		v.Lock = r
		return nil
	}))
}

type legalHold struct {
	XMLName xml.Name `xml:"LegalHold"`
	NS      string   `xml:"xmlns,attr"`
	Status  string
}

func (q *s3Req) getLegalHold() error {
	out := legalHold{NS: s3NS, Status: "OFF"}
	if err := q.look(func(c *bucketConfig, v *version) error {
		if v.Hold {
			out.Status = "ON"
		}
		return needLock(c)
	}); err != nil {
		return err
	}
	return q.xml(out)
}

func (q *s3Req) putLegalHold() error {
	var in legalHold
	if err := q.parse(&in); err != nil {
		return err
	}
	if in.Status != "ON" && in.Status != "OFF" {
		return parseXML(nil, &in)
	}
	return q.ok(q.change(func(c *bucketConfig, v *version) error {
		v.Hold = in.Status == "ON"
		return needLock(c)
	}))
}

// tag is one tag of a bucket or an object.
type tag struct {
	Key   string
	Value string
}

type tagging struct {
	XMLName xml.Name `xml:"Tagging"`
	NS      string   `xml:"xmlns,attr"`
	Tags    []tag    `xml:"TagSet>Tag"`
}

func tagDocument(tags []tag) []byte {
	// TagSet is there even when it is empty.
	type set struct{ Tag []tag }
	return document(struct {
		XMLName xml.Name `xml:"Tagging"`
		NS      string   `xml:"xmlns,attr"`
		TagSet  set
	}{NS: s3NS, TagSet: set{tags}})
}

func parseTags(data []byte, most int) ([]tag, error) {
	var in tagging
	if err := parseXML(data, &in); err != nil {
		return nil, err
	}
	return in.Tags, checkTags(in.Tags, most)
}

func checkTags(tags []tag, most int) error {
	if len(tags) > most {
		return s3Error("BadRequest", fmt.Sprintf("The number of tags cannot be greater than %d", most))
	}
	var seen []string
	for _, t := range tags {
		switch {
		case t.Key == "" || utf8.RuneCountInString(t.Key) > 128:
			return s3Error("InvalidTag", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(t.Value) > 256:
			return s3Error("InvalidTag", "The TagValue you have provided is invalid")
		case strings.HasPrefix(t.Key, "aws:"):
			return s3Error("InvalidTag", "System tags cannot be added/updated by requester")
		case slices.Contains(seen, t.Key):
			return s3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
		}
		seen = append(seen, t.Key)
	}
	return nil
}

// headerTags reads an x-amz-tagging header.
func headerTags(h string) ([]tag, error) {
	if h == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(h)
	if err != nil {
		return nil, s3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	var tags []tag
	for k, vs := range values {
		for _, v := range vs {
			tags = append(tags, tag{k, v})
		}
	}
	slices.SortFunc(tags, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return tags, checkTags(tags, 10)
}

func (q *s3Req) getTagging() error {
	var doc []byte
	if err := q.look(func(_ *bucketConfig, v *version) error {
		doc = tagDocument(v.Tags)
		return nil
	}); err != nil {
		return err
	}
	q.document(doc)
	return nil
}

func (q *s3Req) putTagging() error {
	data, err := q.small()
	if err != nil {
		return err
	}
	tags, err := parseTags(data, 10)
	if err != nil {
		return err
	}
	return q.ok(q.change(func(_ *bucketConfig, v *version) error {
		v.Tags = tags
		return nil
	}))
}

func (q *s3Req) deleteTagging() error {
	if err := q.change(func(_ *bucketConfig, v *version) error {
		v.Tags = nil
		return nil
	}); err != nil {
		return err
	}
	return q.noContent()
}
