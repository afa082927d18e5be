package sandbox

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	s3NS = "http://s3.amazonaws.com/doc/2006-03-01/"

	// maxXML bounds in bytes the XML and JSON documents that S3 requests carry:
	// the largest is a CompleteMultipartUpload of 10,000 parts.
	maxXML = 4 << 20

	maxKey = 1024 // bytes
)

// s3Err is an answer in S3's XML error format.
type s3Err struct {
	code, message string
	status        int
	header        http.Header
	extra         [][2]string // further elements
}

func (e *s3Err) Error() string { return e.code + ": " + e.message }

func (e *s3Err) with(name, value string) *s3Err {
	if e.header == nil {
		e.header = make(http.Header)
	}
	e.header.Set(name, value)
	return e
}

func (e *s3Err) element(name, value string) *s3Err {
	e.extra = append(e.extra, [2]string{name, value})
	return e
}

// s3Status is the HTTP status of each code that is not 400.
var s3Status = map[string]int{
	"AccessDenied":                         403,
	"BucketAlreadyOwnedByYou":              409,
	"BucketNotEmpty":                       409,
	"ConditionalRequestConflict":           409,
	"InternalError":                        500,
	"InvalidBucketState":                   409,
	"InvalidPartNumber":                    416,
	"InvalidRange":                         416,
	"MethodNotAllowed":                     405,
	"MissingContentLength":                 411,
	"NoSuchBucket":                         404,
	"NoSuchBucketPolicy":                   404,
	"NoSuchKey":                            404,
	"NoSuchLifecycleConfiguration":         404,
	"NoSuchObjectLockConfiguration":        404,
	"NoSuchPublicAccessBlockConfiguration": 404,
	"NoSuchTagSet":                         404,
	"NoSuchUpload":                         404,
	"NoSuchVersion":                        404,
	"NotImplemented":                       501,
	"ObjectLockConfigurationNotFoundError": 404,
	"OwnershipControlsNotFoundError":       404,
	"PreconditionFailed":                   412,
}

func s3Error(code, message string) *s3Err {
	status := s3Status[code]
	if status == 0 {
		status = http.StatusBadRequest
	}
	return &s3Err{code: code, message: message, status: status}
}

func preconditionFailed(condition string) *s3Err {
	return s3Error("PreconditionFailed", "At least one of the pre-conditions you specified did not hold").element("Condition", condition)
}

func noSuchBucket(name string) *s3Err {
	return s3Error("NoSuchBucket", "The specified bucket does not exist").element("BucketName", name)
}

func noSuchKey(key string) *s3Err {
	return s3Error("NoSuchKey", "The specified key does not exist.").element("Key", key)
}

// s3Req is one S3 request on its way through.
type s3Req struct {
	*http.Request
	s      *Server
	w      http.ResponseWriter
	id     string
	bucket string
	key    string
	query  url.Values
	now    time.Time // whole seconds, UTC
}

// s3Op is what one method, level and subresource mean.
type s3Op struct {
	name   string
	params []string // the query parameters it knows, beside the subresource
	run    func(*s3Req) error
}

// s3Ops is keyed by "METHOD level[?subresource]". A request whose query has a
// parameter that its operation does not know is refused: read over, "?cors" on
// a DELETE would delete the bucket.
var s3Ops = map[string]s3Op{
	"GET service": {"ListBuckets", []string{"prefix", "max-buckets", "continuation-token", "bucket-region"}, (*s3Req).listBuckets},

	"PUT bucket":    {"CreateBucket", nil, (*s3Req).createBucket},
	"HEAD bucket":   {"HeadBucket", nil, (*s3Req).headBucket},
	"DELETE bucket": {"DeleteBucket", nil, (*s3Req).deleteBucket},
	"GET bucket":    {"ListObjects", []string{"prefix", "delimiter", "marker", "max-keys", "encoding-type"}, (*s3Req).listObjects},
	"GET bucket?list-type": {"ListObjectsV2", []string{"prefix", "delimiter", "max-keys", "encoding-type",
		"continuation-token", "start-after", "fetch-owner"}, (*s3Req).listObjectsV2},
	"GET bucket?versions": {"ListObjectVersions", []string{"prefix", "delimiter", "max-keys", "encoding-type",
		"key-marker", "version-id-marker"}, (*s3Req).listVersions},
	"GET bucket?uploads": {"ListMultipartUploads", []string{"prefix", "delimiter", "max-uploads", "encoding-type",
		"key-marker", "upload-id-marker"}, (*s3Req).listUploads},
	"POST bucket?delete": {"DeleteObjects", nil, (*s3Req).deleteObjects},

	"GET bucket?location":             {"GetBucketLocation", nil, (*s3Req).getLocation},
	"GET bucket?versioning":           {"GetBucketVersioning", nil, (*s3Req).getVersioning},
	"PUT bucket?versioning":           {"PutBucketVersioning", nil, (*s3Req).putVersioning},
	"GET bucket?encryption":           {"GetBucketEncryption", nil, (*s3Req).getEncryption},
	"PUT bucket?encryption":           {"PutBucketEncryption", nil, (*s3Req).putEncryption},
	"DELETE bucket?encryption":        {"DeleteBucketEncryption", nil, (*s3Req).deleteEncryption},
	"GET bucket?publicAccessBlock":    {"GetPublicAccessBlock", nil, (*s3Req).getDocument},
	"PUT bucket?publicAccessBlock":    {"PutPublicAccessBlock", nil, (*s3Req).putDocument},
	"DELETE bucket?publicAccessBlock": {"DeletePublicAccessBlock", nil, (*s3Req).deleteDocument},
	"GET bucket?policy":               {"GetBucketPolicy", nil, (*s3Req).getPolicy},
	"PUT bucket?policy":               {"PutBucketPolicy", nil, (*s3Req).putPolicy},
	"DELETE bucket?policy":            {"DeleteBucketPolicy", nil, (*s3Req).deletePolicy},
	"GET bucket?policyStatus":         {"GetBucketPolicyStatus", nil, (*s3Req).getPolicyStatus},
	"GET bucket?lifecycle":            {"GetBucketLifecycleConfiguration", nil, (*s3Req).getDocument},
	"PUT bucket?lifecycle":            {"PutBucketLifecycleConfiguration", nil, (*s3Req).putDocument},
	"DELETE bucket?lifecycle":         {"DeleteBucketLifecycle", nil, (*s3Req).deleteDocument},
	"GET bucket?tagging":              {"GetBucketTagging", nil, (*s3Req).getDocument},
	"PUT bucket?tagging":              {"PutBucketTagging", nil, (*s3Req).putDocument},
	"DELETE bucket?tagging":           {"DeleteBucketTagging", nil, (*s3Req).deleteDocument},
	"GET bucket?ownershipControls":    {"GetBucketOwnershipControls", nil, (*s3Req).getDocument},
	"PUT bucket?ownershipControls":    {"PutBucketOwnershipControls", nil, (*s3Req).putDocument},
	"DELETE bucket?ownershipControls": {"DeleteBucketOwnershipControls", nil, (*s3Req).deleteDocument},
	"GET bucket?object-lock":          {"GetObjectLockConfiguration", nil, (*s3Req).getLockConfig},
	"PUT bucket?object-lock":          {"PutObjectLockConfiguration", nil, (*s3Req).putLockConfig},
	"GET bucket?acl":                  {"GetBucketAcl", nil, (*s3Req).getACL},
	"PUT bucket?acl":                  {"PutBucketAcl", nil, (*s3Req).putACL},

	"PUT object": {"PutObject", nil, (*s3Req).putObject},
	"GET object": {"GetObject", []string{"versionId", "partNumber", "response-content-type", "response-content-language",
		"response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding"}, (*s3Req).getObject},
	"HEAD object": {"HeadObject", []string{"versionId", "partNumber", "response-content-type", "response-content-language",
		"response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding"}, (*s3Req).getObject},
	"DELETE object":            {"DeleteObject", []string{"versionId"}, (*s3Req).deleteObject},
	"GET object?attributes":    {"GetObjectAttributes", []string{"versionId"}, (*s3Req).getAttributes},
	"GET object?tagging":       {"GetObjectTagging", []string{"versionId"}, (*s3Req).getTagging},
	"PUT object?tagging":       {"PutObjectTagging", []string{"versionId"}, (*s3Req).putTagging},
	"DELETE object?tagging":    {"DeleteObjectTagging", []string{"versionId"}, (*s3Req).deleteTagging},
	"GET object?retention":     {"GetObjectRetention", []string{"versionId"}, (*s3Req).getRetention},
	"PUT object?retention":     {"PutObjectRetention", []string{"versionId"}, (*s3Req).putRetention},
	"GET object?legal-hold":    {"GetObjectLegalHold", []string{"versionId"}, (*s3Req).getLegalHold},
	"PUT object?legal-hold":    {"PutObjectLegalHold", []string{"versionId"}, (*s3Req).putLegalHold},
	"GET object?acl":           {"GetObjectAcl", []string{"versionId"}, (*s3Req).getACL},
	"POST object?uploads":      {"CreateMultipartUpload", nil, (*s3Req).createUpload},
	"PUT object?uploadId":      {"UploadPart", []string{"partNumber"}, (*s3Req).uploadPart},
	"POST object?uploadId":     {"CompleteMultipartUpload", nil, (*s3Req).completeUpload},
	"DELETE object?uploadId":   {"AbortMultipartUpload", nil, (*s3Req).abortUpload},
	"GET object?uploadId":      {"ListParts", []string{"part-number-marker", "max-parts"}, (*s3Req).listParts},
	"PUT object+copy":          {"CopyObject", nil, (*s3Req).copyObject},
	"PUT object?uploadId+copy": {"UploadPartCopy", []string{"partNumber"}, (*s3Req).uploadPartCopy},
}

// s3Subresources are the query parameters that choose an operation.
var s3Subresources = func() map[string]bool {
	m := make(map[string]bool)
	for k := range s3Ops {
		if _, sub, ok := strings.Cut(k, "?"); ok {
			sub, _, _ = strings.Cut(sub, "+")
			m[sub] = true
		}
	}
	return m
}()

// serveS3 answers one S3 request.
func (s *Server) serveS3(w http.ResponseWriter, r *http.Request, id string) {
	w.Header().Set("x-amz-id-2", id)
	q := &s3Req{Request: r, s: s, w: w, id: id, now: s.now().UTC().Truncate(time.Second)}
	op, err := q.route()
	if op.name == "" {
		op.name = "Unknown"
	}
	s.count(r, "s3:"+op.name)
	if err == nil {
		err = op.run(q)
	}
	if err != nil {
		q.fail(err)
	}
}

// route finds the operation, and what is wrong with the request as far as that
// can be told without the store.
func (q *s3Req) route() (s3Op, error) {
	var err error
	if q.bucket, q.key, err = s3Path(q.Request); err != nil {
		return s3Op{}, err
	}
	if q.query, err = url.ParseQuery(q.URL.RawQuery); err != nil {
		return s3Op{}, s3Error("InvalidURI", "Couldn't parse the specified URI.")
	}
	level := "service"
	switch {
	case q.key != "":
		level = "object"
	case q.bucket != "":
		level = "bucket"
	}
	want := q.Method + " " + level
	sub := ""
	for p := range q.query {
		if !s3Subresources[p] {
			continue
		}
		if sub != "" {
			return s3Op{}, s3Error("InvalidRequest", "The request names more than one subresource.")
		}
		sub = p
		want += "?" + p
	}
	if q.Method == http.MethodPut && level == "object" && q.Header.Get("x-amz-copy-source") != "" && (sub == "" || sub == "uploadId") {
		want += "+copy"
	}
	op, ok := s3Ops[want]
	if !ok {
		return s3Op{}, s3Error("NotImplemented", "A header you provided implies functionality that is not implemented: the sandbox has no "+want)
	}
	for p := range q.query {
		// x-id names the operation; X-Amz-* are of a presigned URL.
		if p == sub || p == "x-id" || slices.Contains(op.params, p) || strings.HasPrefix(p, "X-Amz-") {
			continue
		}
		return op, s3Error("NotImplemented", "A parameter you provided implies functionality that is not implemented: "+op.name+" with "+p)
	}
	switch {
	case q.Header.Get("Authorization") == "" && !q.query.Has("X-Amz-Credential"):
		return op, s3Error("AccessDenied", "Access Denied")
	case len(q.key) > maxKey:
		return op, s3Error("KeyTooLongError", "Your key is too long")
	case !utf8.ValidString(q.key) || strings.ContainsRune(q.key, 0):
		return op, s3Error("InvalidURI", "Couldn't parse the specified URI.")
	}
	if o := q.Header.Get("x-amz-expected-bucket-owner"); o != "" && o != AccountID {
		return op, s3Error("AccessDenied", "Access Denied")
	}
	return op, nil
}

// s3Path splits a request into bucket and key, path-style or, for a host below
// localhost, with the bucket in the host. The path is taken as it was sent:
// neither cleaned nor, for the key, split any further.
func s3Path(r *http.Request) (bucket, key string, err error) {
	p := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	bucket, inHost := hostBucket(r)
	if !inHost {
		bucket, p, _ = strings.Cut(p, "/")
		if bucket, err = url.PathUnescape(bucket); err != nil {
			return "", "", s3Error("InvalidURI", "Couldn't parse the specified URI.")
		}
		if bucket == "" && p != "" {
			return "", "", s3Error("InvalidBucketName", "The specified bucket is not valid.")
		}
	}
	if key, err = url.PathUnescape(p); err != nil {
		return "", "", s3Error("InvalidURI", "Couldn't parse the specified URI.")
	}
	return bucket, key, nil
}

// hostBucket is the bucket in the request's host, below localhost.
func hostBucket(r *http.Request) (string, bool) {
	bucket, ok := strings.CutSuffix(strings.ToLower(hostname(r.Host)), ".localhost")
	return bucket, ok && bucket != "" && bucket != "s3"
}

// fail writes an error. Nothing has been written before: operations that
// stream report what goes wrong later by closing the connection.
func (q *s3Req) fail(err error) {
	var e *s3Err
	if !errors.As(err, &e) {
		e = s3Error("InternalError", "We encountered an internal error. Please try again: "+err.Error())
	}
	for k, v := range e.header {
		q.w.Header()[k] = v
	}
	if q.Method == http.MethodHead || e.status == http.StatusNotModified {
		q.w.WriteHeader(e.status)
		return
	}
	var b bytes.Buffer
	b.WriteString(xml.Header + "<Error>")
	for _, el := range append([][2]string{{"Code", e.code}, {"Message", e.message}}, append(e.extra,
		[2]string{"Resource", q.URL.EscapedPath()}, [2]string{"RequestId", q.id}, [2]string{"HostId", q.id})...) {
		b.WriteString("<" + el[0] + ">")
		_ = xml.EscapeText(&b, []byte(el[1])) // a bytes.Buffer takes everything
		b.WriteString("</" + el[0] + ">")
	}
	b.WriteString("</Error>")
	q.w.Header().Set("Content-Type", "application/xml")
	q.w.Header().Set("Content-Length", fmt.Sprint(b.Len()))
	q.w.WriteHeader(e.status)
	_, _ = q.w.Write(b.Bytes())
}

// xml answers 200 with a document.
func (q *s3Req) xml(v any) error {
	data, err := xml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	q.document(append([]byte(xml.Header), data...))
	return nil
}

func (q *s3Req) document(data []byte) {
	h := q.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/xml")
	}
	h.Set("Content-Length", fmt.Sprint(len(data)))
	q.w.WriteHeader(http.StatusOK)
	_, _ = q.w.Write(data)
}

func (q *s3Req) noContent() error {
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// small reads a request document of at most maxXML bytes, checked like any
// other body.
func (q *s3Req) small() ([]byte, error) {
	q.Body = http.MaxBytesReader(q.w, q.Body, maxXML)
	b, err := spool(q.Request, q.s.spoolDir, "")
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, s3Error("MaxMessageLengthExceeded", "Your request was too large.")
	}
	if err != nil {
		return nil, err
	}
	defer b.close()
	if b.file == nil {
		return b.mem, nil
	}
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(b.file)
}

// parse reads a request document into v.
func (q *s3Req) parse(v any) error {
	data, err := q.small()
	if err != nil {
		return err
	}
	return parseXML(data, v)
}

func parseXML(data []byte, v any) error {
	if err := xml.Unmarshal(data, v); err != nil {
		return s3Error("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
	}
	return nil
}

// xmlTime is how S3 writes a time in XML; it keeps whole seconds everywhere.
func xmlTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }
