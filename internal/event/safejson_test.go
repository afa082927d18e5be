package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// What SafeJSON rewrites is read back as it was, and has nothing in it that a
// runner or a terminal would act on.
func FuzzSafeJSON(f *testing.F) {
	for _, s := range []string{"##[group]", "###[a", "####[[", "\u202ea", "\u009b2J", "\x7f", "\u2028", `\u0023#[`, "plain", "\xff\x1b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		doc, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		var want, got map[string]string
		if err := json.Unmarshal(doc, &want); err != nil {
			t.Fatal(err)
		}
		safe := SafeJSON(bytes.Clone(doc))
		if err := json.Unmarshal(safe, &got); err != nil {
			t.Fatalf("%v in %q", err, safe)
		}
		for k, v := range want {
			if got[k] != v || len(got) != 1 {
				t.Fatalf("%q became %q", doc, safe)
			}
		}
		if strings.Contains(string(safe), "##[") {
			t.Fatalf("%q has a command", safe)
		}
		if i := bytes.IndexFunc(safe, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
		}); i >= 0 {
			t.Fatalf("%q has a control character at %d", safe, i)
		}
	})
}
