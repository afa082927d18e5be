package snapshot

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/quote"
)

// Reasons of a snapshot that tfguard gives. Others may be given: 1 to 32 lower
// case letters, digits and hyphens, beginning with a letter.
const (
	PreApply   = "pre-apply"
	PreDestroy = "pre-destroy"
	PreRestore = "pre-restore"
	Manual     = "manual"
)

const (
	idTime = "20060102T150405.000Z"
	suffix = ".tfstate"
)

var (
	reasonForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	idForm     = regexp.MustCompile(`^(\d{8}T\d{6}\.\d{3}Z)-([a-z][a-z0-9-]{0,31})-(\d{1,20})$`)
	prefixForm = regexp.MustCompile(`^[A-Za-z0-9._+=@,-]+$`)
)

// isPrefix reports whether an ID may begin so.
func isPrefix(s string) bool { return len(s) <= 200 && prefixForm.MatchString(s) }

// newID names a snapshot: sorted as text, the IDs are in the order of time.
func newID(at time.Time, reason string, serial uint64) string {
	return fmt.Sprintf("%s-%s-%d", at.UTC().Format(idTime), reason, serial)
}

func parseID(id string) (at time.Time, reason string, serial uint64, ok bool) {
	m := idForm.FindStringSubmatch(id)
	if m == nil {
		return time.Time{}, "", 0, false
	}
	at, err := time.Parse(idTime, m[1])
	if err != nil {
		return time.Time{}, "", 0, false
	}
	if serial, err = strconv.ParseUint(m[3], 10, 64); err != nil {
		return time.Time{}, "", 0, false
	}
	return at, m[2], serial, true
}

// Names of a snapshot's metadata; S3 puts x-amz-meta- before them.
const (
	metaLineage   = "tfguard-lineage"
	metaSerial    = "tfguard-serial"
	metaReason    = "tfguard-reason"
	metaRun       = "tfguard-run"
	metaCommit    = "tfguard-commit"
	metaTerraform = "tfguard-terraform-version"
	metaResources = "tfguard-resources"
	metaSize      = "tfguard-size"
	metaSHA256    = "tfguard-sha256" // only where the content was read; else S3 keeps it as the object's checksum
	metaVersion   = "tfguard-source-version"
	metaETag      = "tfguard-source-etag"
)

// metadata is name to value, made fit for a header: S3 takes 2 KB of ASCII in all.
type metadata map[string]string

func (m metadata) set(name, value string) {
	if value != "" {
		m[name] = url.PathEscape(quote.Line(value, 256))
	}
}

func (m metadata) get(name string) string {
	v, err := url.PathUnescape(m[name])
	if err != nil {
		return ""
	}
	return quote.Line(v, 256)
}

// copySource is the header of a server-side copy: the source's name, escaped
// (a plus sign would be read as a space), with its version.
func copySource(bucket, key, version string) string {
	parts := strings.Split(bucket+"/"+key, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.QueryEscape(p), "+", "%20")
	}
	src := strings.Join(parts, "/")
	if version != "" {
		src += "?versionId=" + url.QueryEscape(version)
	}
	return src
}
