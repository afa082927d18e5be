package snapshot

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/tfguard/tfguard/internal/state"
)

// Health is what was found out about a state and what is kept beside it.
type Health struct {
	Present  bool       // there is an object that is not empty
	Head     state.Head // of it; Exists is false where it is no state
	NotState error      // why it is none

	Table     bool // there is a lock table, which keeps a digest
	Digest    string
	HasDigest bool
	MD5       string // of the object; empty where there is none

	Highest   uint64 // serial of this lineage, of all snapshots and versions looked at
	HighestIn string // which one has it
	Newest    *Snapshot
	LastGood  *state.Head // where there is no state: the newest version that is one
	Errored   []Errored
}

// maxInspected bounds how many of the object's versions an inspection reads.
const maxInspected = 100

// Inspect reads what tells whether the state is sound: the whole object once,
// its digest, the snapshots and the newest 100 versions of the object. It
// changes nothing. digests is nil without a lock table.
func (s *Store) Inspect(ctx context.Context, digests Digests) (Health, error) {
	cur, err := s.look(ctx, s.state, s.addr.Key, "")
	if err != nil {
		return Health{}, err
	}
	h := Health{Present: cur.Size > 0, Head: cur.Head, NotState: cur.notState, Table: digests != nil}
	if h.Present {
		sum, doc, err := s.md5(ctx, cur)
		switch {
		case errors.Is(err, state.ErrNotState):
			h.NotState, h.Head.Exists = err, false
		case err != nil:
			return Health{}, err
		default:
			h.Head.Lineage, h.Head.Serial = doc.lineage, doc.serial
		}
		h.MD5 = sum
	}
	if digests != nil {
		if h.Digest, h.HasDigest, err = digests.Digest(ctx); err != nil {
			return Health{}, err
		}
	}
	if h.Errored, err = s.ErroredCopies(ctx); err != nil {
		return Health{}, err
	}
	if err := s.inspectSnapshots(ctx, &h); err != nil {
		return Health{}, err
	}
	return h, s.inspectVersions(ctx, &h, cur)
}

func (s *Store) inspectSnapshots(ctx context.Context, h *Health) error {
	names, err := s.names(ctx, "")
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	looked := 0
	for i := range names {
		n := &names[i]
		ahead := h.Head.Exists && n.Serial > max(h.Head.Serial, h.Highest) && looked < maxInspected
		if n.Script || h.Newest != nil && !ahead {
			continue
		}
		looked++
		switch err := s.lookUp(ctx, n); {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return err
		}
		if n.Lineage == "" { // a copy of what was no state
			continue
		}
		if h.Newest == nil {
			h.Newest = n
		}
		if n.Lineage == h.Head.Lineage && n.Serial > h.Highest {
			h.Highest, h.HighestIn = n.Serial, "snapshot "+n.ID
		}
	}
	return nil
}

func (s *Store) inspectVersions(ctx context.Context, h *Health, cur object) error {
	all, err := s.versionIDs(ctx)
	if err != nil {
		return err
	}
	var old []version
	for _, v := range all {
		if !v.deleted && v.size > 0 && v.id != cur.VersionID && len(old) < maxInspected {
			old = append(old, v)
		}
	}
	heads, err := s.headsOf(ctx, old)
	if err != nil {
		return err
	}
	for i, head := range heads {
		if !head.Exists {
			continue
		}
		head.VersionID, head.Modified, head.Size = old[i].id, old[i].modified, old[i].size
		if h.LastGood == nil && !h.Head.Exists {
			switch c, err := s.stateOf(ctx, object{Head: head}); {
			case errors.Is(err, ErrRefused): // only its beginning is that of a state
			case err != nil:
				return err
			default:
				c.Close()
				h.LastGood = &head
			}
		}
		if head.Lineage == h.Head.Lineage && head.Serial > h.Highest {
			h.Highest, h.HighestIn = head.Serial, "version "+head.VersionID
		}
	}
	return nil
}

// Finding is something about a state that is not as it should be.
type Finding struct {
	Check   string `json:"check"`            // one of the names below
	Summary string `json:"summary"`          // what is wrong
	Repair  string `json:"repair,omitempty"` // what `state repair` does about it; empty where it does nothing
	Hint    string `json:"hint,omitempty"`   // the command that helps
}

// Names of what is checked.
const (
	CheckState   = "state"   // the object is there and is a state
	CheckErrored = "errored" // no state that could not be written is left
	CheckSerial  = "serial"  // no snapshot and no version is ahead
	CheckLineage = "lineage" // the newest snapshot is of this lineage
	CheckDigest  = "digest"  // the digest is that of the object
	CheckHolder  = "holder"  // no holder record of a dead run is left
	CheckLock    = "lock"    // the lock is in each store or in none
)

var digestForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Findings are the differences in the order in which they are repaired: a
// digest is right only for a state that is.
func (h Health) Findings() []Finding {
	var all []Finding
	add := func(check, repair, hint, format string, args ...any) {
		all = append(all, Finding{Check: check, Summary: fmt.Sprintf(format, args...), Repair: repair, Hint: hint})
	}
	switch {
	case h.Head.Exists:
	case h.Present && h.LastGood != nil:
		add(CheckState, h.putBack(), "", "the object is no state: %v", h.NotState)
	case h.Present:
		add(CheckState, "", h.restoreHint(), "the object is no state, and no version before it is one: %v", h.NotState)
	case h.LastGood != nil:
		add(CheckState, h.putBack(), "", "the state was deleted; %s is among the object's versions", h.LastGood)
	case h.Newest != nil:
		add(CheckState, "", h.restoreHint(), "there is no state, but a snapshot of serial %d", h.Newest.Serial)
	}
	if h.Head.Exists && h.Highest > h.Head.Serial {
		add(CheckSerial, "give the state a serial above every known one", "",
			"serial %d runs backwards: %s has %d, so that an old plan could be applied", h.Head.Serial, h.HighestIn, h.Highest)
	}
	if h.Head.Exists && h.Newest != nil && h.Newest.Lineage != h.Head.Lineage {
		add(CheckLineage, "", "if it is meant to be another one: tfguard snapshot create; if not: tfguard snapshot restore --allow-lineage-change "+h.Newest.ID,
			"the state has lineage %.8s, the newest snapshot %s has %.8s: this is another history", h.Head.Lineage, h.Newest.ID, h.Newest.Lineage)
	}
	if f, wrong := h.digestFinding(); wrong {
		all = append(all, f)
	}
	return all
}

func (h Health) digestFinding() (Finding, bool) {
	f := Finding{Check: CheckDigest, Repair: "write the digest " + h.MD5}
	switch {
	case !h.Table || !h.HasDigest || h.Digest == h.MD5 || h.Present && !h.Head.Exists:
		return f, false
	case !h.Present:
		f.Summary, f.Repair = "there is a digest and no state: terraform fails on it", "remove the digest"
	case !digestForm.MatchString(h.Digest):
		f.Summary = fmt.Sprintf("the digest is %.40q, which is none", h.Digest)
	default:
		f.Summary = fmt.Sprintf("the digest is %s, the state's is %s: terraform fails on it", h.Digest, h.MD5)
	}
	return f, true
}

func (h Health) putBack() string {
	return fmt.Sprintf("put back the version of %s (%s)", h.LastGood.Modified.UTC().Format("2006-01-02 15:04:05Z"), h.LastGood)
}

func (h Health) restoreHint() string {
	if h.Newest == nil {
		return "tfguard snapshot list"
	}
	return "tfguard snapshot restore " + h.Newest.ID
}
