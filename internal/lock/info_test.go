package lock

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is a file of testdata/lock: what one terraform wrote in one mode.
type golden struct {
	Item *struct {
		LockID struct{ S string }
		Info   struct{ S string }
	} `json:"dynamodb_item"`
	Object *struct{ Key, Body string } `json:"s3_object"`
}

// TestGoldenRecords reads what real terraform and OpenTofu versions wrote.
func TestGoldenRecords(t *testing.T) {
	files, err := filepath.Glob("../../testdata/lock/*.json")
	if err != nil || len(files) < 19 {
		t.Fatalf("golden records: %d files, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var g golden
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
			var raws []string
			if g.Item != nil {
				raws = append(raws, g.Item.Info.S)
			}
			if g.Object != nil {
				raws = append(raws, g.Object.Body)
			}
			if len(raws) == 0 {
				t.Fatal("no record in the file")
			}
			version := strings.Split(filepath.Base(f), "-")[1]
			for _, raw := range raws {
				info, err := ParseInfo([]byte(raw))
				if err != nil {
					t.Fatal(err)
				}
				if info.Version != version || info.ID == "" || info.Operation != "OperationTypeApply" || !strings.HasPrefix(info.Path, "lab-state/") || info.Who == "" {
					t.Errorf("%+v", info)
				}
				if g.Item != nil && g.Item.LockID.S != info.Path {
					t.Errorf("path %q is not the item's LockID %q", info.Path, g.Item.LockID.S)
				}
			}
		})
	}
}

func TestParseInfoRefuses(t *testing.T) {
	const created = `"Created":"2026-11-22T05:57:20.517737234Z"`
	for _, c := range []struct{ sentence, raw, want string }{
		{"the scripts' own manual test has no Created", `{"ID":"test123","Who":"manual-test"}`, "no Created"},
		{"nothing at all", ``, "not JSON"},
		{"an array", `[]`, "not JSON"},
		{"a null", `null`, "no ID"},
		{"a record cut off", `{"ID":"a",` + created, "not JSON"},
		{"something behind the record", `{"ID":"a",` + created + `}{}`, "follows"},
		{"a number as ID", `{"ID":1,` + created + `}`, "not JSON"},
		{"no ID", `{` + created + `}`, "no ID"},
		{"an ID with a space could approve another", `{"ID":"a b",` + created + `}`, "characters"},
		{"an ID with a line break could set an output", `{"ID":"a\nb=c",` + created + `}`, "characters"},
		{"an ID with an escape could move the cursor", `{"ID":"a\u001b[2J",` + created + `}`, "characters"},
		{"an ID of 129 characters", `{"ID":"` + strings.Repeat("a", 129) + `",` + created + `}`, "characters"},
		{"an empty Created", `{"ID":"a","Created":""}`, "no Created"},
		{"a Created in words", `{"ID":"a","Created":"yesterday"}`, "not a usable time"},
		{"a Created without a zone", `{"ID":"a","Created":"2026-11-22T05:57:20"}`, "not a usable time"},
		{"Go's zero time", `{"ID":"a","Created":"0001-01-01T00:00:00Z"}`, "not a usable time"},
		{"a field of 2 KiB", `{"ID":"a","Who":"` + strings.Repeat("x", 2048) + `",` + created + `}`, "longer than"},
		{"64 KiB of JSON", `{"ID":"a",` + created + `,"x":"` + strings.Repeat("x", MaxRecord) + `"}`, "longer than"},
		{"no UTF-8", "{\"ID\":\"\xff\"," + created + "}", "UTF-8"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if info, err := ParseInfo([]byte(c.raw)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v; want an error with %q", info, err, c.want)
			}
		})
	}
}

func FuzzParseInfo(f *testing.F) {
	files, _ := filepath.Glob("../../testdata/lock/*.json")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"ID":"a","Created":"2026-11-22T05:57:20Z"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := ParseInfo(raw)
		if info.ID != "" && !UsableID(info.ID) {
			t.Errorf("ID %q is not usable", info.ID)
		}
		if err == nil && (info.ID == "" || info.Created.IsZero()) {
			t.Errorf("accepted without ID or Created: %+v", info)
		}
	})
}
