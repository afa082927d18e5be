// Package lock is the model of terraform's state locks: what a lock record
// says, what was observed, and the verdict on it. It does no I/O and has no
// clock of its own; the stores that keep locks are in the packages below it.
package lock

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Store is where a lock was found.
type Store string

// The stores. A state may be locked in several at once.
const (
	DynamoDB Store = "dynamodb" // the item of the lock table
	S3       Store = "s3"       // the <key>.tflock object
	Holder   Store = "holder"   // tfguard's own record of a run that goes on
)

// Info is the lock record that terraform writes
// (terraform internal/states/statemgr/locker.go, LockInfo).
type Info struct {
	ID        string    `json:"ID"`
	Operation string    `json:"Operation"`
	Info      string    `json:"Info"`
	Who       string    `json:"Who"` // user@host
	Version   string    `json:"Version"`
	Created   time.Time `json:"Created"`
	Path      string    `json:"Path"` // BUCKET/KEY
}

// MaxRecord bounds a lock record, in bytes. Terraform's own has under 600; a
// longer one is cut off by the stores and cannot be parsed, so it is unclear.
const MaxRecord = 64 << 10

// maxField bounds every field of a record that can be judged, in bytes.
const maxField = 1024

// Errors of taking and removing a lock. A store wraps one of them where it applies.
var (
	// ErrHeld: the lock could not be taken since there is one.
	ErrHeld = errors.New("the state is locked")
	// ErrNotReleased: terraform did its work and could not remove its lock.
	ErrNotReleased = errors.New("the state lock was not released")
	// ErrChanged: the lock is no longer the one that was observed; nothing was removed.
	ErrChanged = errors.New("the lock has changed")
	// ErrGone: there is no lock any more; nothing was removed.
	ErrGone = errors.New("the lock is already gone")
)

// Observation is one lock as one store held it at one moment.
type Observation struct {
	Store Store
	// Raw is the record, byte for byte. A removal matches on it, or on Match.
	Raw []byte
	// Match is what the store needs to remove exactly this lock: the ETag in S3,
	// nothing in DynamoDB, where Raw itself is compared.
	Match string
	// ServerNow is the service's clock at the time of reading (its Date header).
	ServerNow time.Time
	// Written is the service's clock at the time of writing (Last-Modified);
	// zero where the service keeps none, as DynamoDB does.
	Written time.Time
}

// Fingerprint names these exact bytes in this store; a lock that cannot be
// parsed is approved by it. 16 hexadecimal digits of a SHA-256.
func (o Observation) Fingerprint() string {
	sum := sha256.Sum256(append([]byte(string(o.Store)+"\n"), o.Raw...))
	return hex.EncodeToString(sum[:8])
}

// ParseInfo reads a lock record. Its error says in words for people why the
// record cannot be judged; the fields that could be read are returned with it.
func ParseInfo(raw []byte) (Info, error) {
	var loose struct {
		ID, Operation, Info, Who, Version, Created, Path string
	}
	if len(raw) >= MaxRecord {
		return Info{}, fmt.Errorf("the record is longer than %d bytes", MaxRecord)
	}
	if !utf8.Valid(raw) {
		return Info{}, errors.New("the record is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&loose); err != nil {
		return Info{}, errors.New("the record is not JSON of a lock")
	}
	if _, err := dec.Token(); err != io.EOF {
		return Info{}, errors.New("something follows the record")
	}
	info := Info{
		ID: loose.ID, Operation: loose.Operation, Info: loose.Info, Who: loose.Who,
		Version: loose.Version, Path: loose.Path,
	}
	for _, f := range []string{loose.ID, loose.Operation, loose.Info, loose.Who, loose.Version, loose.Created, loose.Path} {
		if len(f) > maxField {
			return Info{}, fmt.Errorf("a field of the record is longer than %d bytes", maxField)
		}
	}
	if info.ID == "" {
		return info, errors.New("the record has no ID")
	}
	if !UsableID(info.ID) {
		info.ID = ""
		return info, errors.New("the record's ID has characters that no lock ID has")
	}
	created, err := time.Parse(time.RFC3339Nano, loose.Created)
	if loose.Created == "" {
		return info, errors.New("the record has no Created")
	}
	if err != nil || created.Year() < 2014 { // terraform's first release
		return info, errors.New("the record's Created is not a usable time")
	}
	info.Created = created.UTC()
	return info, nil
}

// UsableID reports whether id can be a lock ID that a person or a CI variable
// names: 1 to 128 letters, digits and "._:-". Terraform's are UUIDs; a space
// or a line break in one could approve or inject something else.
func UsableID(id string) bool {
	return id != "" && len(id) <= 128 && strings.IndexFunc(id, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("._:-", r))
	}) < 0
}
