package sandbox

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// bucketConfig is the record of an S3 bucket.
type bucketConfig struct {
	Name       string            `json:"name"`
	Region     string            `json:"region"`
	Created    time.Time         `json:"created"`
	Versioning string            `json:"versioning,omitempty"` // "", Enabled, Suspended
	Encryption encryption        `json:"encryption"`
	Policy     []byte            `json:"policy,omitempty"`
	Lock       *lockConfig       `json:"lock,omitempty"` // nil: no Object Lock
	Documents  map[string][]byte `json:"documents"`      // by subresource, as they were put
}

// encryption is what a bucket gives its objects by default, and what an object
// says it has.
type encryption struct {
	Algorithm string `json:"a"`
	KeyID     string `json:"k,omitempty"`
	BucketKey bool   `json:"b,omitempty"`
}

// lockConfig is a bucket's Object Lock with its default retention, if any.
type lockConfig struct {
	Mode  string `json:"mode,omitempty"`
	Days  int    `json:"days,omitempty"`
	Years int    `json:"years,omitempty"`
}

var bucketName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`) })

// conf reads the request's bucket, and its objects' bucket in the file.
func (q *s3Req) conf(t *tx) (*bucketConfig, *bolt.Bucket, error) { return conf(t, q.bucket) }

func conf(t *tx, name string) (*bucketConfig, *bolt.Bucket, error) {
	var c bucketConfig
	ok, err := getJSON(t.Bucket(rootBuckets), []byte(name), &c)
	if err != nil {
		return nil, nil, err
	}
	if !ok || name == "" {
		return nil, nil, noSuchBucket(name)
	}
	return &c, t.sub(rootObjects, name), nil
}

// read returns the bucket's record.
func (q *s3Req) read() (*bucketConfig, error) {
	var c *bucketConfig
	err := q.s.store.view(func(t *tx) (err error) {
		c, _, err = q.conf(t)
		return err
	})
	return c, err
}

// edit changes the bucket's record. fn checks before it changes.
func (q *s3Req) edit(fn func(*bucketConfig) error) error {
	return q.s.store.update(func(t *tx) error {
		c, _, err := q.conf(t)
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		return t.putJSON(t.Bucket(rootBuckets), []byte(c.Name), c)
	})
}

// scopeRegion is the region a request was signed for.
func (q *s3Req) scopeRegion() string {
	_, cred, _ := strings.Cut(q.Header.Get("Authorization"), "Credential=")
	if cred == "" {
		cred = q.query.Get("X-Amz-Credential")
	}
	if f := strings.Split(cred, "/"); len(f) > 2 {
		return f[2]
	}
	return Region
}

func (q *s3Req) createBucket() error {
	ip, err := netip.ParseAddr(q.bucket)
	if !bucketName().MatchString(q.bucket) || strings.Contains(q.bucket, "..") || err == nil && ip.Is4() {
		return s3Error("InvalidBucketName", "The specified bucket is not valid.").element("BucketName", q.bucket)
	}
	data, err := q.small()
	if err != nil {
		return err
	}
	var in struct {
		XMLName            xml.Name `xml:"CreateBucketConfiguration"`
		LocationConstraint string
		Bucket             *struct{}
		Tags               *struct{ Tag []tag }
	}
	if len(data) > 0 {
		if err := parseXML(data, &in); err != nil {
			return err
		}
	}
	if in.Bucket != nil {
		return s3Error("NotImplemented", "The sandbox has no directory buckets.")
	}
	// A regional endpoint takes its own region alone; that of us-east-1 takes
	// any, and wants its own left out.
	scope, region := q.scopeRegion(), in.LocationConstraint
	switch {
	case region == Region:
		return s3Error("InvalidLocationConstraint", "The specified location-constraint is not valid").element("LocationConstraint", region)
	case region == "EU":
		region = "eu-west-1"
	case region == "" && scope == Region:
		region = Region
	case region == "":
		return s3Error("IllegalLocationConstraintException", "The unspecified location constraint is incompatible for the region specific endpoint this request was sent to.")
	}
	if scope != Region && scope != region {
		return s3Error("IllegalLocationConstraintException", "The "+region+" location constraint is incompatible for the region specific endpoint this request was sent to.")
	}
	c := &bucketConfig{
		Name: q.bucket, Region: region, Created: q.now, Encryption: encryption{Algorithm: "AES256"},
		// What S3 gives each new bucket since 2023.
		Documents: map[string][]byte{
			"publicAccessBlock": publicAccessBlock{BlockPublicAcls: true, IgnorePublicAcls: true, BlockPublicPolicy: true, RestrictPublicBuckets: true}.document(),
			"ownershipControls": ownership("BucketOwnerEnforced"),
		},
	}
	if o := q.Header.Get("x-amz-object-ownership"); o != "" {
		if !slices.Contains(ownerships, o) {
			return s3Error("InvalidArgument", "Invalid x-amz-object-ownership header: "+o)
		}
		c.Documents["ownershipControls"] = ownership(o)
	}
	if err := c.allowACL(q.Header); err != nil {
		return err
	}
	if in.Tags != nil {
		if err := checkTags(in.Tags.Tag, 50); err != nil {
			return err
		}
		c.Documents["tagging"] = tagDocument(in.Tags.Tag)
	}
	if strings.EqualFold(q.Header.Get("x-amz-bucket-object-lock-enabled"), "true") {
		c.Lock, c.Versioning = &lockConfig{}, "Enabled"
	}
	err = q.s.store.update(func(t *tx) error {
		if t.Bucket(rootBuckets).Get([]byte(q.bucket)) != nil {
			return s3Error("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.").element("BucketName", q.bucket)
		}
		if err := t.putJSON(t.Bucket(rootBuckets), []byte(q.bucket), c); err != nil {
			return err
		}
		if err := t.nested(rootObjects, q.bucket); err != nil {
			return err
		}
		return t.nested(rootUploads, q.bucket)
	})
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *s3Req) headBucket() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	q.w.Header().Set("x-amz-bucket-region", c.Region)
	q.w.Header().Set("Content-Type", "application/xml")
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *s3Req) deleteBucket() error {
	err := q.s.store.update(func(t *tx) error {
		_, objs, err := q.conf(t)
		if err != nil {
			return err
		}
		if k, _ := objs.Cursor().First(); k != nil {
			return s3Error("BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the bucket.").element("BucketName", q.bucket)
		}
		ups := t.sub(rootUploads, q.bucket)
		for k, v := ups.Cursor().First(); k != nil; k, v = ups.Cursor().First() {
			var u upload
			if err := json.Unmarshal(v, &u); err != nil {
				return err
			}
			if err := t.dropUpload(ups, &u); err != nil {
				return err
			}
		}
		if err := t.dropNested(rootObjects, q.bucket); err != nil {
			return err
		}
		if err := t.dropNested(rootUploads, q.bucket); err != nil {
			return err
		}
		return t.del(rootBuckets, []byte(q.bucket))
	})
	if err != nil {
		return err
	}
	return q.noContent()
}

func (q *s3Req) listBuckets() error {
	type entry struct{ Name, CreationDate, BucketRegion string }
	out := struct {
		XMLName           xml.Name `xml:"ListAllMyBucketsResult"`
		NS                string   `xml:"xmlns,attr"`
		Owner             owner
		Buckets           []entry `xml:"Buckets>Bucket"`
		Prefix            string  `xml:",omitempty"`
		ContinuationToken string  `xml:",omitempty"`
	}{NS: s3NS, Owner: sandboxOwner, Prefix: q.query.Get("prefix")}
	limit, err := q.limit("max-buckets", 10000)
	if err != nil {
		return err
	}
	after, err := parseToken(q.query.Get("continuation-token"))
	if err != nil {
		return err
	}
	err = q.s.store.view(func(t *tx) error {
		c := t.Bucket(rootBuckets).Cursor()
		for k, v := c.Seek([]byte(out.Prefix)); k != nil && hasPrefix(k, []byte(out.Prefix)); k, v = c.Next() {
			if after != "" && string(k) <= after {
				continue
			}
			var b bucketConfig
			if err := json.Unmarshal(v, &b); err != nil {
				return err
			}
			if r := q.query.Get("bucket-region"); r != "" && r != b.Region {
				continue
			}
			if len(out.Buckets) == limit {
				if limit > 0 {
					out.ContinuationToken = token(out.Buckets[limit-1].Name)
				}
				break
			}
			out.Buckets = append(out.Buckets, entry{b.Name, xmlTime(b.Created), b.Region})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return q.xml(out)
}

type owner struct {
	ID          string
	DisplayName string
}

var sandboxOwner = owner{ID: strings.Repeat("0", 52) + AccountID, DisplayName: "sandbox"}

func (q *s3Req) getLocation() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	out := struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		NS      string   `xml:"xmlns,attr"`
		Region  string   `xml:",chardata"`
	}{NS: s3NS, Region: c.Region}
	if c.Region == Region {
		out.Region = "" // the oldest region has no name here
	}
	return q.xml(out)
}

type versioningConfiguration struct {
	XMLName   xml.Name `xml:"VersioningConfiguration"`
	NS        string   `xml:"xmlns,attr"`
	Status    string   `xml:",omitempty"`
	MfaDelete string   `xml:",omitempty"`
}

func (q *s3Req) getVersioning() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	return q.xml(versioningConfiguration{NS: s3NS, Status: c.Versioning})
}

func (q *s3Req) putVersioning() error {
	var in versioningConfiguration
	if err := q.parse(&in); err != nil {
		return err
	}
	switch {
	case in.MfaDelete == "Enabled":
		return s3Error("NotImplemented", "The sandbox has no MFA delete.")
	case in.Status != "Enabled" && in.Status != "Suspended":
		return s3Error("IllegalVersioningConfigurationException", "The Versioning element must be specified")
	}
	return q.ok(q.edit(func(c *bucketConfig) error {
		if c.Lock != nil && in.Status != "Enabled" {
			return s3Error("InvalidBucketState", "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.")
		}
		c.Versioning = in.Status
		return nil
	}))
}

// ok answers 200 without a body, unless there is an error.
func (q *s3Req) ok(err error) error {
	if err == nil {
		q.w.WriteHeader(http.StatusOK)
	}
	return err
}

type encryptionRule struct {
	Default struct {
		SSEAlgorithm   string
		KMSMasterKeyID string `xml:",omitempty"`
	} `xml:"ApplyServerSideEncryptionByDefault"`
	BucketKeyEnabled bool
}

type encryptionConfiguration struct {
	XMLName xml.Name `xml:"ServerSideEncryptionConfiguration"`
	NS      string   `xml:"xmlns,attr"`
	Rule    []encryptionRule
}

func (q *s3Req) getEncryption() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	var r encryptionRule
	r.Default.SSEAlgorithm, r.Default.KMSMasterKeyID = c.Encryption.Algorithm, c.Encryption.KeyID
	r.BucketKeyEnabled = c.Encryption.BucketKey
	return q.xml(encryptionConfiguration{NS: s3NS, Rule: []encryptionRule{r}})
}

func (q *s3Req) putEncryption() error {
	var in encryptionConfiguration
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.Rule) != 1 {
		return s3Error("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
	}
	e := encryption{Algorithm: in.Rule[0].Default.SSEAlgorithm, KeyID: in.Rule[0].Default.KMSMasterKeyID, BucketKey: in.Rule[0].BucketKeyEnabled}
	if err := e.check(); err != nil {
		return err
	}
	return q.ok(q.edit(func(c *bucketConfig) error {
		c.Encryption = e
		return nil
	}))
}

func (e encryption) check() error {
	switch {
	case e.Algorithm == "aws:kms", e.Algorithm == "aws:kms:dsse":
		return nil
	case e.Algorithm != "AES256":
		return s3Error("InvalidEncryptionAlgorithmError", "The encryption request that you specified is not valid. The valid value is AES256.")
	case e.KeyID != "":
		return s3Error("InvalidArgument", "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
	}
	return nil
}

func (q *s3Req) deleteEncryption() error {
	if err := q.edit(func(c *bucketConfig) error {
		c.Encryption = encryption{Algorithm: "AES256"}
		return nil
	}); err != nil {
		return err
	}
	return q.noContent()
}

// documentErrors is what GET says of a document that is not there.
var documentErrors = map[string]*s3Err{
	"publicAccessBlock": s3Error("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"),
	"lifecycle":         s3Error("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
	"tagging":           s3Error("NoSuchTagSet", "The TagSet does not exist"),
	"ownershipControls": s3Error("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
}

// subresource is the request's one, of documentErrors.
func (q *s3Req) subresource() string {
	for name := range documentErrors {
		if q.query.Has(name) {
			return name
		}
	}
	return ""
}

func (q *s3Req) getDocument() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	name := q.subresource()
	doc, ok := c.Documents[name]
	if !ok {
		return documentErrors[name]
	}
	q.document(doc)
	return nil
}

func (q *s3Req) putDocument() error {
	name := q.subresource()
	data, err := q.small()
	if err != nil {
		return err
	}
	switch name {
	case "publicAccessBlock":
		var in publicAccessBlock
		if err := parseXML(data, &in); err != nil {
			return err
		}
		data = in.document()
	case "ownershipControls":
		var in ownershipControls
		if err := parseXML(data, &in); err != nil {
			return err
		}
		if len(in.Rule) != 1 || !slices.Contains(ownerships, in.Rule[0].ObjectOwnership) {
			return parseXML(nil, &in)
		}
	case "tagging":
		tags, err := parseTags(data, 50)
		if err != nil {
			return err
		}
		data = tagDocument(tags)
	case "lifecycle":
		if err := checkLifecycle(data); err != nil {
			return err
		}
	}
	if err := q.edit(func(c *bucketConfig) error {
		if c.Documents == nil {
			c.Documents = make(map[string][]byte)
		}
		c.Documents[name] = data
		return nil
	}); err != nil {
		return err
	}
	if name == "tagging" {
		return q.noContent()
	}
	return q.ok(nil)
}

func (q *s3Req) deleteDocument() error {
	if err := q.edit(func(c *bucketConfig) error {
		delete(c.Documents, q.subresource())
		return nil
	}); err != nil {
		return err
	}
	return q.noContent()
}

type publicAccessBlock struct {
	XMLName               xml.Name `xml:"PublicAccessBlockConfiguration"`
	NS                    string   `xml:"xmlns,attr"`
	BlockPublicAcls       bool
	IgnorePublicAcls      bool
	BlockPublicPolicy     bool
	RestrictPublicBuckets bool
}

func (p publicAccessBlock) document() []byte {
	p.NS = s3NS
	return document(p)
}

var ownerships = []string{"BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"}

type ownershipControls struct {
	XMLName xml.Name `xml:"OwnershipControls"`
	NS      string   `xml:"xmlns,attr"`
	Rule    []struct{ ObjectOwnership string }
}

func ownership(rule string) []byte {
	c := ownershipControls{NS: s3NS}
	c.Rule = append(c.Rule, struct{ ObjectOwnership string }{rule})
	return document(c)
}

// document encodes what the sandbox itself made, which always can be.
func document(v any) []byte {
	data, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append([]byte(xml.Header), data...)
}

// checkLifecycle refuses what S3 certainly would; it is no full schema.
func checkLifecycle(data []byte) error {
	var in struct {
		XMLName xml.Name `xml:"LifecycleConfiguration"`
		Rule    []struct {
			ID, Status string
			Filter     *struct{}
			Prefix     *string
			Inner      string `xml:",innerxml"`
		}
	}
	if err := parseXML(data, &in); err != nil {
		return err
	}
	if len(in.Rule) == 0 || len(in.Rule) > 1000 {
		return parseXML(nil, &in)
	}
	ids := make(map[string]bool)
	for _, r := range in.Rule {
		switch {
		case r.Status != "Enabled" && r.Status != "Disabled", r.Filter == nil && r.Prefix == nil:
			return parseXML(nil, &in)
		case r.ID != "" && ids[r.ID]:
			return s3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
		case !slices.ContainsFunc([]string{"<Expiration>", "<NoncurrentVersionExpiration>", "<Transition>",
			"<NoncurrentVersionTransition>", "<AbortIncompleteMultipartUpload>"}, func(a string) bool { return strings.Contains(r.Inner, a) }):
			return s3Error("InvalidRequest", "At least one action needs to be specified in a rule")
		}
		ids[r.ID] = true
	}
	return nil
}

// policyDocument is as much of a bucket policy as S3 checks when it is put.
type policyDocument struct {
	Statement []policyStatement
}

type policyStatement struct {
	Effect                                                            string
	Principal, NotPrincipal, Action, NotAction, Resource, NotResource any
	Condition                                                         map[string]any
}

func malformedPolicy(why string) *s3Err { return s3Error("MalformedPolicy", why) }

func parsePolicy(data []byte, bucket string) (*policyDocument, error) {
	if len(data) > 20<<10 {
		return nil, malformedPolicy("Policies must not be larger than 20 KB.")
	}
	var raw struct {
		Version   string
		Statement json.RawMessage
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, malformedPolicy("This policy contains invalid Json")
	}
	if raw.Version != "" && raw.Version != "2012-10-17" && raw.Version != "2008-10-17" {
		return nil, malformedPolicy("The policy must contain a valid version string")
	}
	var p policyDocument
	list := bytes.TrimSpace(raw.Statement)
	if bytes.HasPrefix(list, []byte("{")) {
		list = slices.Concat([]byte("["), list, []byte("]"))
	}
	if len(list) == 0 {
		return nil, malformedPolicy("Missing required field Statement")
	}
	if err := json.Unmarshal(list, &p.Statement); err != nil || len(p.Statement) == 0 {
		return nil, malformedPolicy("Statement is not valid")
	}
	for _, st := range p.Statement {
		switch {
		case st.Effect != "Allow" && st.Effect != "Deny":
			return nil, malformedPolicy("Invalid effect: " + st.Effect)
		case st.Principal == nil && st.NotPrincipal == nil:
			return nil, malformedPolicy("Missing required field Principal")
		case st.Action == nil && st.NotAction == nil:
			return nil, malformedPolicy("Missing required field Action")
		case st.Resource == nil && st.NotResource == nil:
			return nil, malformedPolicy("Missing required field Resource")
		}
		for _, r := range slices.Concat(stringsOf(st.Resource), stringsOf(st.NotResource)) {
			if r != "*" && r != "arn:aws:s3:::"+bucket && !strings.HasPrefix(r, "arn:aws:s3:::"+bucket+"/") {
				return nil, malformedPolicy("Policy has invalid resource")
			}
		}
	}
	return &p, nil
}

// stringsOf reads what a policy may give as one string or as a list.
func stringsOf(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				s = "?" // matches nothing
			}
			out = append(out, s)
		}
		return out
	case nil:
		return nil
	}
	return []string{"?"}
}

// public says whether the policy lets anybody in, without a condition.
func (p *policyDocument) public() bool {
	for _, st := range p.Statement {
		who := st.Principal
		if m, ok := who.(map[string]any); ok {
			who = m["AWS"]
		}
		if st.Effect == "Allow" && len(st.Condition) == 0 && (st.NotPrincipal != nil || slices.Contains(stringsOf(who), "*")) {
			return true
		}
	}
	return false
}

func (q *s3Req) getPolicy() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	if c.Policy == nil {
		return s3Error("NoSuchBucketPolicy", "The bucket policy does not exist").element("BucketName", q.bucket)
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.document(c.Policy)
	return nil
}

func (q *s3Req) putPolicy() error {
	data, err := q.small()
	if err != nil {
		return err
	}
	p, err := parsePolicy(data, q.bucket)
	if err != nil {
		return err
	}
	if err := q.edit(func(c *bucketConfig) error {
		var block publicAccessBlock
		if doc := c.Documents["publicAccessBlock"]; doc != nil {
			if err := parseXML(doc, &block); err != nil {
				return err
			}
		}
		if block.BlockPublicPolicy && p.public() {
			return s3Error("AccessDenied", "User is not authorized to perform: s3:PutBucketPolicy because public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.")
		}
		c.Policy = data
		return nil
	}); err != nil {
		return err
	}
	return q.noContent()
}

func (q *s3Req) deletePolicy() error {
	if err := q.edit(func(c *bucketConfig) error {
		c.Policy = nil
		return nil
	}); err != nil {
		return err
	}
	return q.noContent()
}

func (q *s3Req) getPolicyStatus() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	if c.Policy == nil {
		return s3Error("NoSuchBucketPolicy", "The bucket policy does not exist").element("BucketName", q.bucket)
	}
	p, err := parsePolicy(c.Policy, q.bucket)
	if err != nil {
		return err
	}
	return q.xml(struct {
		XMLName  xml.Name `xml:"PolicyStatus"`
		NS       string   `xml:"xmlns,attr"`
		IsPublic string
	}{NS: s3NS, IsPublic: strings.ToUpper(strconv.FormatBool(p.public()))})
}

// allowACL refuses the ACLs that the bucket's ownership controls refuse, and
// those that the sandbox cannot keep.
func (c *bucketConfig) allowACL(h http.Header) error {
	for name := range h {
		if strings.HasPrefix(strings.ToLower(name), "x-amz-grant-") {
			return s3Error("AccessControlListNotSupported", "The bucket does not allow ACLs")
		}
	}
	switch h.Get("x-amz-acl") {
	case "", "private", "bucket-owner-full-control":
		return nil
	}
	if bytes.Contains(c.Documents["ownershipControls"], []byte("BucketOwnerEnforced")) {
		return s3Error("AccessControlListNotSupported", "The bucket does not allow ACLs")
	}
	return s3Error("NotImplemented", "The sandbox has no ACLs beyond private.")
}

func (q *s3Req) getACL() error {
	if err := q.s.store.view(func(t *tx) error {
		if q.key == "" {
			_, _, err := q.conf(t)
			return err
		}
		_, _, err := q.find(t)
		return err
	}); err != nil {
		return err
	}
	type grantee struct {
		XSI         string `xml:"xmlns:xsi,attr"`
		Type        string `xml:"xsi:type,attr"`
		ID          string
		DisplayName string
	}
	type grant struct {
		Grantee    grantee
		Permission string
	}
	return q.xml(struct {
		XMLName xml.Name `xml:"AccessControlPolicy"`
		NS      string   `xml:"xmlns,attr"`
		Owner   owner
		Grants  []grant `xml:"AccessControlList>Grant"`
	}{NS: s3NS, Owner: sandboxOwner, Grants: []grant{{grantee{"http://www.w3.org/2001/XMLSchema-instance", "CanonicalUser", sandboxOwner.ID, sandboxOwner.DisplayName}, "FULL_CONTROL"}}})
}

func (q *s3Req) putACL() error {
	c, err := q.read()
	if err != nil {
		return err
	}
	if q.Header.Get("x-amz-acl") == "" {
		return s3Error("NotImplemented", "The sandbox has no ACLs beyond private.")
	}
	return q.ok(c.allowACL(q.Header))
}
