package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tfguard/tfguard/internal/state"
)

// document is what a whole state says of itself, and where its serial stands:
// n bytes from offset at.
type document struct {
	lineage string
	serial  uint64
	at, n   int64
}

// readDocument reads a whole state and checks that it is one: JSON from the
// first byte to the last, format version 4, with one lineage and one serial. It
// holds no more in memory than the longest string of the state. Every error but
// one of reading wraps [state.ErrNotState].
func readDocument(r io.Reader) (document, error) {
	from := &readError{r: r}
	doc, err := parseDocument(from)
	switch {
	case from.err != nil:
		return document{}, from.err
	case err != nil:
		return document{}, fmt.Errorf("%w: %w", state.ErrNotState, err)
	}
	return doc, nil
}

func parseDocument(r io.Reader) (document, error) {
	dec := json.NewDecoder(r)
	dec.UseNumber()
	var doc document
	seen := map[string]bool{}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return doc, errors.New("it does not begin with a JSON object")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return doc, cutOff(err)
		}
		name, _ := t.(string)
		value, err := skip(dec)
		if err != nil {
			return doc, cutOff(err)
		}
		// terraform takes "Serial" for "serial", and the last of two.
		field := strings.ToLower(name)
		if field != "version" && field != "serial" && field != "lineage" {
			continue
		}
		if seen[field] || name != field {
			return doc, fmt.Errorf("it has %.20q besides %q", name, field)
		}
		seen[field] = true
		switch field {
		case "version":
			if value != json.Number("4") {
				return doc, fmt.Errorf("format version %.10v, tfguard reads 4", value)
			}
		case "lineage":
			doc.lineage, _ = value.(string)
		case "serial":
			n, _ := value.(json.Number)
			if doc.serial, err = strconv.ParseUint(n.String(), 10, 64); err != nil {
				return doc, errors.New("it has no usable serial")
			}
			doc.n = int64(len(n))
			doc.at = dec.InputOffset() - doc.n
		}
	}
	if _, err := dec.Token(); err != nil {
		return doc, cutOff(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return doc, errors.New("something follows the state")
	}
	if !seen["version"] || !seen["serial"] || doc.lineage == "" {
		return doc, errors.New("it lacks its format version, serial or lineage")
	}
	return doc, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut off")
	}
	return err
}

// skip reads one value and gives it where it is no object or array.
func skip(dec *json.Decoder) (json.Token, error) {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return t, nil
		}
	}
}

// rewrite copies a state that readDocument gave doc for, with another serial;
// every other byte stays.
func rewrite(w io.Writer, r io.Reader, doc document, serial uint64) error {
	if _, err := io.CopyN(w, r, doc.at); err != nil {
		return err
	}
	if _, err := io.WriteString(w, strconv.FormatUint(serial, 10)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, doc.n); err != nil {
		return err
	}
	_, err := io.Copy(w, r)
	return err
}
