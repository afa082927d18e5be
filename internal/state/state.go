// Package state reads what identifies a Terraform state: lineage and serial.
// It knows nothing of where a state is kept.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Head identifies one version of a state and where it was read. The zero Head
// is a state that does not exist.
type Head struct {
	Exists           bool
	Lineage          string
	Serial           uint64
	TerraformVersion string
	VersionID        string // of the S3 object; empty in a bucket without versions
	ETag             string // as S3 gave it, quotes included
	Size             int64  // bytes
	Modified         time.Time
	Resources        *int // instances that it holds; nil where nobody has counted them
}

// Same reports whether both name the same state content as terraform sees it:
// both absent, or equal lineage and serial.
func (h Head) Same(o Head) bool {
	return h.Exists == o.Exists && h.Lineage == o.Lineage && h.Serial == o.Serial
}

// String is for messages: "serial 4 of lineage 1f2e…".
func (h Head) String() string {
	if !h.Exists {
		return "no state"
	}
	return fmt.Sprintf("serial %d of lineage %.8s", h.Serial, h.Lineage)
}

// HeadBytes is how much of a state is enough for Parse: terraform writes
// version, terraform_version, serial and lineage first (statefile/version4.go).
const HeadBytes = 16 << 10

// maxField bounds lineage and terraform_version: a UUID and a version number.
const maxField = 256

// ErrChanged is wrapped where a state is not the one that was expected: somebody
// wrote it since.
var ErrChanged = errors.New("the state has changed")

// ErrNotSaved is wrapped where terraform could not write the state and left it
// in errored.tfstate.
var ErrNotSaved = errors.New("the state was not saved")

// ErrNotState is wrapped by every error of Parse: what was read is no state.
var ErrNotState = errors.New("not a terraform state")

// Parse reads lineage and serial from the beginning of a state of format
// version 4. It stops as soon as it has them, so r may be cut off after
// HeadBytes; it never reads more than it needs to.
func Parse(r io.Reader) (Head, error) {
	dec := json.NewDecoder(r)
	dec.UseNumber()
	h := Head{Exists: true}
	var version, serial json.Number
	var haveLineage bool
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return Head{}, fmt.Errorf("%w: it does not begin with a JSON object", ErrNotState)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return Head{}, fmt.Errorf("%w: %v", ErrNotState, err)
		}
		var into any
		switch name {
		case "version":
			into = &version
		case "serial":
			into = &serial
		case "lineage":
			into, haveLineage = &h.Lineage, true
		case "terraform_version":
			into = &h.TerraformVersion
		default:
			if err := skip(dec); err != nil {
				return Head{}, fmt.Errorf("%w: %v", ErrNotState, err)
			}
			continue
		}
		if err := dec.Decode(into); err != nil {
			return Head{}, fmt.Errorf("%w: %q: %v", ErrNotState, name, err)
		}
		if version != "" && serial != "" && haveLineage && h.TerraformVersion != "" {
			break
		}
	}
	if version != "4" {
		return Head{}, fmt.Errorf("%w: format version %.10q, tfguard reads 4", ErrNotState, version.String())
	}
	n, err := parseSerial(serial)
	if err != nil {
		return Head{}, err
	}
	if h.Lineage == "" || len(h.Lineage) > maxField || len(h.TerraformVersion) > maxField {
		return Head{}, fmt.Errorf("%w: it has no usable lineage", ErrNotState)
	}
	h.Serial = n
	return h, nil
}

func parseSerial(n json.Number) (uint64, error) {
	var u uint64
	if err := json.Unmarshal([]byte(n), &u); err != nil || n == "" {
		return 0, fmt.Errorf("%w: it has no usable serial", ErrNotState)
	}
	return u, nil
}

// skip reads one JSON value token by token: its size does not matter.
func skip(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}
