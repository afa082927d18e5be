package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/state"
)

func rewritten(in string, serial uint64) (string, document, error) {
	doc, err := readDocument(strings.NewReader(in))
	if err != nil {
		return "", doc, err
	}
	var out bytes.Buffer
	err = rewrite(&out, strings.NewReader(in), doc, serial)
	return out.String(), doc, err
}

func TestRewriteSerial(t *testing.T) {
	for _, test := range []struct {
		name, in string
		serial   uint64
		want     string
	}{
		{"only the number changes", `{"version":4,"serial":7,"lineage":"l"}`, 8, `{"version":4,"serial":8,"lineage":"l"}`},
		{"it may get longer", `{"version":4,"serial":9,"lineage":"l"}`, 10, `{"version":4,"serial":10,"lineage":"l"}`},
		{"it may get shorter", `{"version":4,"serial":100,"lineage":"l"}`, 1, `{"version":4,"serial":1,"lineage":"l"}`},
		{"the largest there is", `{"version":4,"serial":18446744073709551615,"lineage":"l"}`, math.MaxUint64, `{"version":4,"serial":18446744073709551615,"lineage":"l"}`},
		{"spaces and line breaks stay", "{ \"version\" : 4 ,\r\n\t\"serial\" \n:\t7 , \"lineage\":\"l\" }\n\n", 8, "{ \"version\" : 4 ,\r\n\t\"serial\" \n:\t8 , \"lineage\":\"l\" }\n\n"},
		{"a serial further down is another", `{"outputs":{"serial":{"value":7}},"version":4,"lineage":"l","serial":7,"resources":[{"serial":7}]}`, 8,
			`{"outputs":{"serial":{"value":7}},"version":4,"lineage":"l","serial":8,"resources":[{"serial":7}]}`},
		{"so is one in a string", `{"version":4,"lineage":"\"serial\":7","serial":7}`, 8, `{"version":4,"lineage":"\"serial\":7","serial":8}`},
		{"text beyond ASCII before it", `{"x":"äöü€😀","version":4,"serial":7,"lineage":"l"}`, 8, `{"x":"äöü€😀","version":4,"serial":8,"lineage":"l"}`},
		{"an escaped name", `{"version":4,"\u0073erial":7,"lineage":"l"}`, 8, `{"version":4,"\u0073erial":8,"lineage":"l"}`},
		{"numbers that no float holds stay", `{"version":4,"serial":7,"lineage":"l","n":123456789012345678901234567890.10}`, 8, `{"version":4,"serial":8,"lineage":"l","n":123456789012345678901234567890.10}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := rewritten(test.in, test.serial)
			if err != nil || got != test.want {
				t.Errorf("got %s, %v\nwant %s", got, err, test.want)
			}
		})
	}
}

func TestReadDocumentRefuses(t *testing.T) {
	for _, test := range []struct{ name, in string }{
		{"nothing", ``},
		{"no object", `[4]`},
		{"a state that is cut off in the middle", `{"version":4,"serial":7,"lineage":"l","resources":[{"a"`},
		{"a state without its last brace", `{"version":4,"serial":7,"lineage":"l"`},
		{"two states", `{"version":4,"serial":7,"lineage":"l"}{}`},
		{"text after it", `{"version":4,"serial":7,"lineage":"l"} x`},
		{"two serials", `{"version":4,"serial":7,"serial":9,"lineage":"l"}`},
		{"a second serial in capitals, which terraform reads too", `{"version":4,"serial":7,"SERIAL":9,"lineage":"l"}`},
		{"two lineages", `{"version":4,"serial":7,"lineage":"l","lineage":"m"}`},
		{"no lineage", `{"version":4,"serial":7}`},
		{"a lineage that is a number", `{"version":4,"serial":7,"lineage":7}`},
		{"no serial", `{"version":4,"lineage":"l"}`},
		{"a serial in quotes", `{"version":4,"serial":"7","lineage":"l"}`},
		{"a negative serial", `{"version":4,"serial":-7,"lineage":"l"}`},
		{"a serial with a fraction", `{"version":4,"serial":7.0,"lineage":"l"}`},
		{"a serial with an exponent", `{"version":4,"serial":1e3,"lineage":"l"}`},
		{"a serial that is too large", `{"version":4,"serial":18446744073709551616,"lineage":"l"}`},
		{"a serial that is an object", `{"version":4,"serial":{},"lineage":"l"}`},
		{"a format that is not 4", `{"version":3,"serial":7,"lineage":"l"}`},
		{"a comma too many", `{"version":4,"serial":7,"lineage":"l",}`},
		{"a comma too few", `{"version":4,"serial":7,"lineage":"l","a":[1 2]}`},
		{"a bracket for a brace", `{"version":4,"serial":7,"lineage":"l"]`},
		{"a byte order mark", "\ufeff" + `{"version":4,"serial":7,"lineage":"l"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, doc, err := rewritten(test.in, 8); !errors.Is(err, state.ErrNotState) {
				t.Errorf("taken: %+v, %s, %v", doc, got, err)
			}
		})
	}
	t.Run("a reading that fails is no bad state", func(t *testing.T) {
		failed := errors.New("disk")
		in := errReader{strings.NewReader(`{"version":4,`), failed}
		if _, err := readDocument(in); !errors.Is(err, failed) || errors.Is(err, state.ErrNotState) {
			t.Errorf("readDocument: %v", err)
		}
	})
}

type errReader struct {
	r   *strings.Reader
	err error
}

func (e errReader) Read(p []byte) (int, error) {
	if e.r.Len() == 0 {
		return 0, e.err
	}
	return e.r.Read(p)
}

// Whatever readDocument takes is JSON, and only its serial changes.
func FuzzRewriteSerial(f *testing.F) {
	f.Add(stateJSON(7, lineage, "x"), uint64(8))
	f.Add(`{"version":4,"serial":7,"lineage":"l"}`, uint64(math.MaxUint64))
	f.Add("{\"\\ud800\":[1,{\"serial\":2}],\"lineage\":\"\xff\",\"version\":4,\"serial\":0}\r\n", uint64(0))
	f.Fuzz(func(t *testing.T, in string, serial uint64) {
		out, doc, err := rewritten(in, serial)
		if err != nil {
			if out != "" {
				t.Fatalf("wrote %q and failed: %v", out, err)
			}
			return
		}
		if !json.Valid([]byte(in)) || !json.Valid([]byte(out)) {
			t.Fatalf("%q became %q", in, out)
		}
		head, err := state.Parse(strings.NewReader(out))
		if err != nil && len(doc.lineage) <= 256 && !strings.Contains(in, "terraform_version") {
			t.Fatalf("cannot be read again: %v", err)
		}
		if err == nil && (head.Serial != serial || head.Lineage != doc.lineage) {
			t.Fatalf("reads as %v, want serial %d of %s", head, serial, doc.lineage)
		}
		back, _, err := rewritten(out, doc.serial)
		was := strconv.FormatUint(doc.serial, 10)
		if err != nil || back != in[:doc.at]+was+in[doc.at+doc.n:] {
			t.Fatalf("%v: back is %q, was %q", err, back, in)
		}
		// terraform reads the same numbers from it (statefile/version4.go).
		var v4 struct {
			Serial  uint64 `json:"serial"`
			Lineage string `json:"lineage"`
		}
		if err := json.Unmarshal([]byte(out), &v4); err == nil && (v4.Serial != serial || v4.Lineage != doc.lineage) {
			t.Fatalf("terraform reads %+v", v4)
		}
		var a, b map[string]any
		if json.Unmarshal([]byte(in), &a) == nil && json.Unmarshal([]byte(out), &b) == nil {
			a["serial"], b["serial"] = 0, 0
			if d := cmp.Diff(a, b); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// The file of a restore is private and gone from the directory while it is in use.
func TestContentIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := &Store{o: Options{TempDir: dir}}
	c, err := s.newContent(func(w io.Writer) error {
		_, err := w.Write([]byte("secret"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("in the directory: %v", left)
	}
}

// A state of any size is checked and renumbered in a few megabytes.
func TestRestoreMemoryIsConstant(t *testing.T) {
	const size, limit = 48 << 20, 16 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // on a busy machine garbage stays long
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	base, most, reads := stats.HeapInuse, uint64(0), 0
	sample := func() {
		if reads++; reads%64 == 0 {
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapInuse)
		}
	}
	s := &Store{o: Options{TempDir: t.TempDir()}}
	old, err := s.newContent(func(w io.Writer) error {
		resource := strings.Repeat(`{"type":"terraform_data","values":["`+strings.Repeat("x", 4000)+`",1,null]},`, 16)
		if _, err := io.WriteString(w, `{"version":4,"serial":7,"lineage":"l","resources":[`); err != nil {
			return err
		}
		for range size / len(resource) {
			sample()
			if _, err := io.WriteString(w, resource); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, `0]}`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	old.doc, err = readDocument(readFunc(func(r io.Reader, p []byte) (int, error) { sample(); return r.Read(p) }, old.Reader()))
	if err != nil || old.size < size/2 {
		t.Fatal(old.size, err)
	}
	next, err := s.renumber(old, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	sample()
	if most > base+limit {
		t.Errorf("%d MiB for a state of %d MiB", (most-base)>>20, old.size>>20)
	}
}

type reader struct {
	read func(io.Reader, []byte) (int, error)
	r    io.Reader
}

func readFunc(read func(io.Reader, []byte) (int, error), r io.Reader) io.Reader {
	return reader{read, r}
}
func (r reader) Read(p []byte) (int, error) { return r.read(r.r, p) }
