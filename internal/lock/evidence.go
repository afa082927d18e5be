package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Record is tfguard's holder record: what a run writes beside the state while
// it goes on, since terraform's Who (user@host) names no CI run.
type Record struct {
	Version  int       `json:"version"` // 1
	RunID    string    `json:"run_id"`
	Command  string    `json:"command"` // apply, destroy, plan, restore
	CI       *CIRun    `json:"ci,omitempty"`
	Commit   string    `json:"commit,omitempty"`
	Who      string    `json:"who"`  // user@host, as terraform writes it into its lock
	Host     Host      `json:"host"` // where the process is
	PID      int       `json:"pid"`
	Began    string    `json:"process_start"` // of the process, in the kernel's own unit
	LockID   string    `json:"lock_id"`       // terraform's, empty until it is known
	Stage    string    `json:"stage"`
	InFlight []string  `json:"in_flight"` // addresses of resources being changed now
	Started  time.Time `json:"started"`   // by the holder's clock
	Beat     time.Time `json:"beat"`      // of this writing, by the holder's clock
}

// Host identifies where a process number means something: two containers on
// one machine share the boot, and neither sees the other's processes.
type Host struct {
	Name string `json:"name"`
	Boot string `json:"boot_id"`       // changes with each start of the machine; empty: not known
	PIDs string `json:"pid_namespace"` // empty: not known
}

// CIRun names a run of a CI system.
type CIRun struct {
	System     string `json:"system"` // "github", "gitlab"
	Server     string `json:"server"` // such as https://github.com; data, never asked
	Repository string `json:"repository"`
	ID         string `json:"run_id"`
	Attempt    int    `json:"attempt"`
	Job        string `json:"job"`
	URL        string `json:"url"`
}

// Life is what is known of a process or a CI run.
type Life string

// What can be known. A failed question is NotKnown, never Over.
const (
	NotKnown Life = ""
	Alive    Life = "alive"
	Over     Life = "over"
)

// RunSeen is a CI run as its system reported it.
type RunSeen struct {
	Run
	Life    Life
	Started time.Time // of the attempt
	Ended   time.Time // zero while it goes on
}

// holds reports whether the run can have taken a lock at a time: it went on
// then. A lock is taken some time after a run has started, never before.
func (r RunSeen) holds(at time.Time) bool {
	return !at.Before(r.Started) && (r.Ended.IsZero() || !at.After(r.Ended))
}

// ofRunner reports whether who (user@host) looks like a machine of a CI system,
// so that a CI run can have taken the lock at all: a hosted runner of GitHub
// ("runner@fv-az712-500", on Windows "HOST\\runneradmin@HOST"), a machine that
// GitLab names ("root@runner-x-project-7-concurrent-0"), or a container, whose
// name is its ID ("root@3f2b8c91d04e"). A person's machine does not; a runner of
// one's own need not.
func ofRunner(who string) bool {
	i := strings.LastIndex(who, "@")
	if i < 0 {
		return false
	}
	user, host := who[:i], who[i+1:]
	user = user[strings.LastIndex(user, `\`)+1:]
	container := len(host) == 12 && strings.Trim(host, "0123456789abcdef") == ""
	return user == "runner" || user == "runneradmin" || strings.HasPrefix(host, "runner-") || container
}

// HolderSeen is the holder record as it was read, with what is known of its
// holder.
type HolderSeen struct {
	Record  Record
	Raw     []byte        // byte for byte
	Match   string        // its ETag, for conditional writes
	Age     time.Duration // since its last writing, by the server's clock alone
	Problem string        // why the record cannot be used; then Record is empty
	CI      RunSeen       // of Record.CI; Life is NotKnown where nobody could be asked
	Unasked string        // why nothing is known of Record.CI, in words; empty: nobody had to ask
	Process Life          // of Record.PID; NotKnown on another host
}

// Evidence is what is known beside the lock records.
type Evidence struct {
	Holder *HolderSeen // nil: there is no record, or it is this run's own
	// Runs are the CI runs that could have taken a lock, this run left out; nil
	// where they are not known.
	Runs []RunSeen
	// Unasked says in words why Runs are not known; empty where nobody had to ask.
	Unasked string
}

// maxInFlight bounds how many addresses a record names.
const maxInFlight = 200

// Encode gives the record's bytes, which [ParseRecord] can read: text that is
// too long for that is cut off, addresses that are too many are left out.
func (r Record) Encode() ([]byte, error) {
	r.Version = 1
	r.InFlight = append([]string{}, r.InFlight[:min(len(r.InFlight), maxInFlight)]...)
	if r.CI != nil {
		run := *r.CI
		r.CI = &run
	}
	for _, f := range r.text() {
		*f = cut(*f)
	}
	for {
		b, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode holder record: %w", err)
		}
		if len(b) < MaxRecord || len(r.InFlight) == 0 {
			return b, nil
		}
		r.InFlight = r.InFlight[:len(r.InFlight)/2]
	}
}

// cut bounds a field in bytes, at the end of a character.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD") // as JSON will have it
	n := min(len(s), maxField)
	for n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// text are the record's fields that may be of any length.
func (r *Record) text() []*string {
	all := []*string{&r.Command, &r.Commit, &r.Who, &r.Host.Name, &r.Host.Boot, &r.Host.PIDs, &r.Began, &r.Stage}
	if c := r.CI; c != nil {
		all = append(all, &c.System, &c.Server, &c.Repository, &c.ID, &c.Job, &c.URL)
	}
	for i := range r.InFlight {
		all = append(all, &r.InFlight[i])
	}
	return all
}

// ParseRecord reads a holder record. Its error says in words for people why it
// cannot be used. What the strings say is data of whoever may write the bucket.
func ParseRecord(raw []byte) (Record, error) {
	var r Record
	if len(raw) >= MaxRecord {
		return r, fmt.Errorf("the holder record is longer than %d bytes", MaxRecord)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, errors.New("the holder record is not JSON of one")
	}
	switch {
	case r.Version < 1:
		return Record{}, errors.New("the holder record has no version")
	case r.Version > 1:
		return Record{}, fmt.Errorf("the holder record is of version %d, which a newer tfguard wrote", r.Version)
	case !UsableID(r.RunID):
		return Record{}, errors.New("the holder record has no usable run id")
	case r.LockID != "" && !UsableID(r.LockID):
		return Record{}, errors.New("the holder record's lock ID has characters that no lock ID has")
	case r.Started.IsZero() || r.Beat.Before(r.Started):
		return Record{}, errors.New("the holder record's times are not usable")
	case len(r.InFlight) > maxInFlight:
		return Record{}, fmt.Errorf("the holder record names more than %d resources", maxInFlight)
	}
	for _, f := range r.text() {
		if len(*f) > maxField {
			return Record{}, fmt.Errorf("a field of the holder record is longer than %d bytes", maxField)
		}
	}
	return r, nil
}
