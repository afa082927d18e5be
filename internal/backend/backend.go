// Package backend is the model of terraform's S3 backend: its settings and the
// names of what it keeps. It does no I/O; discover finds the settings, setup
// creates and repairs what they name.
package backend

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// DefaultWorkspace is terraform's name for the workspace without a prefix.
const DefaultWorkspace = "default"

// DefaultPrefix is the default of workspace_key_prefix
// (terraform internal/backend/remote-state/s3/backend.go).
const DefaultPrefix = "env:"

// Settings are the attributes of a backend "s3" block that tfguard has a use
// for, named as terraform names them. Attrs has every attribute that was set,
// also those, as strings, numbers, bools, lists and maps of strings.
type Settings struct {
	Bucket             string
	Key                string
	Region             string
	WorkspaceKeyPrefix string
	DynamoDBTable      string
	UseLockfile        bool
	Encrypt            bool
	KMSKeyID           string
	SSECustomerKey     string // base64; secret: never printed
	ACL                string
	Attrs              map[string]any
}

// Address names one state and everything terraform keeps beside it.
type Address struct {
	Bucket    string
	Key       string // of the state object, the workspace's prefix included
	Region    string
	Table     string // DynamoDB table of the locks and digests; empty: none
	Lockfile  bool   // whether <Key>.tflock is used
	Workspace string
}

// Address resolves the state of a workspace. An empty workspace is the default.
func (s Settings) Address(workspace string) (Address, error) {
	if workspace == "" {
		workspace = DefaultWorkspace
	}
	var missing []string
	for _, a := range []struct{ name, value string }{{"bucket", s.Bucket}, {"key", s.Key}} {
		if a.value == "" {
			missing = append(missing, a.name)
		}
	}
	if len(missing) > 0 {
		return Address{}, &IncompleteError{Missing: missing}
	}
	if strings.HasPrefix(s.Key, "/") || strings.HasSuffix(s.Key, "/") {
		return Address{}, fmt.Errorf("backend key %q must not start or end with a slash", s.Key)
	}
	key := s.Key
	if workspace != DefaultWorkspace {
		prefix := s.WorkspaceKeyPrefix
		if _, set := s.Attrs["workspace_key_prefix"]; prefix == "" && !set { // "" itself is a prefix to terraform
			prefix = DefaultPrefix
		}
		key = path.Join(prefix, workspace, s.Key)
	}
	return Address{
		Bucket: s.Bucket, Key: key, Region: s.Region,
		Table: s.DynamoDBTable, Lockfile: s.UseLockfile, Workspace: workspace,
	}, nil
}

// IncompleteError is a backend whose required attributes are not all known.
type IncompleteError struct{ Missing []string }

func (e *IncompleteError) Error() string {
	return "the backend has no " + strings.Join(e.Missing, " and no ")
}

// String is the state's name everywhere: BUCKET/KEY, terraform's LockID.
func (a Address) String() string { return a.Bucket + "/" + a.Key }

// LockID is the DynamoDB key of the lock item.
func (a Address) LockID() string { return a.Bucket + "/" + a.Key }

// DigestID is the DynamoDB key of the digest item.
func (a Address) DigestID() string { return a.LockID() + DigestSuffix }

// LockKey is the object key of the lock object.
func (a Address) LockKey() string { return a.Key + LockSuffix }

// HolderKey is the object key of the holder record.
func (a Address) HolderKey() string { return ".tfguard/" + a.Key + "/holder.json" }

// AuditPrefix is the prefix of the records of removed locks.
func (a Address) AuditPrefix() string { return ".tfguard/" + a.Key + "/audit/" }

// ErroredPrefix is the prefix of the copies of states that terraform could not
// write.
func (a Address) ErroredPrefix() string { return ".tfguard/" + a.Key + "/errored/" }

// MigrationKey is the object key of the note of a migrate-lock under way.
func (a Address) MigrationKey() string { return ".tfguard/" + a.Key + "/migrate-lock.json" }

// SnapshotPrefix is the prefix of the state's snapshots.
func (a Address) SnapshotPrefix() string { return "backups/" + a.Key + "/" }

// Locked reports whether terraform takes any lock on this state.
func (a Address) Locked() bool { return a.Table != "" || a.Lockfile }

// Suffixes that terraform appends to a lock's name.
const (
	DigestSuffix = "-md5"
	LockSuffix   = ".tflock"
)

// Kind says what is wrong with something in AWS.
type Kind string

// Kinds of problems. Missing, Foreign and WrongRegion make a backend unusable.
const (
	Missing     Kind = "missing"      // bucket or table does not exist
	Foreign     Kind = "foreign"      // the bucket belongs to somebody else
	WrongRegion Kind = "wrong region" // the bucket is in another region
	Unusable    Kind = "unusable"     // a table with another key schema, a name AWS refuses
	Denied      Kind = "denied"       // a permission is missing
	Expired     Kind = "expired"      // credentials ended or are not valid
	NoCreds     Kind = "no credentials"
	Unreachable Kind = "unreachable" // network, time-out, service errors after all tries
	Changed     Kind = "changed"     // a condition did not hold: somebody wrote in between
	NotFound    Kind = "not found"   // an object or item is not there
)

// Problem is a failed request to AWS, told in the words a person can act on.
type Problem struct {
	Kind     Kind
	Action   string // IAM action, such as s3:GetObject
	Resource string // ARN or name of the object concerned
	Detail   string // what the service said, bounded and without control characters
	Err      error  // the SDK's error
}

func (p *Problem) Error() string {
	switch p.Kind {
	case Denied:
		return fmt.Sprintf("permission denied: %s on %s", p.Action, p.Resource)
	case Missing:
		return fmt.Sprintf("%s does not exist", p.Resource)
	case Foreign:
		return fmt.Sprintf("%s belongs to another AWS account, or may not be read", p.Resource)
	case WrongRegion:
		return fmt.Sprintf("%s is in another region: %s", p.Resource, p.Detail)
	case NoCreds:
		return fmt.Sprintf("no AWS credentials found for %s on %s", p.Action, p.Resource)
	}
	s := fmt.Sprintf("%s on %s: %s", p.Action, p.Resource, p.Kind)
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

func (p *Problem) Unwrap() error { return p.Err }

// Is reports whether err has a Problem of the kind in its chain.
func Is(err error, k Kind) bool {
	var p *Problem
	return errors.As(err, &p) && p.Kind == k
}
