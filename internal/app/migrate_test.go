package app

import "testing"

// Terraform knows use_lockfile from 1.10 on, its pre-releases too (issue 5).
func TestTooOld(t *testing.T) {
	for number, old := range map[string]bool{"1.9.8": true, "0.12.31": true, "1.10.0": false, "1.10.0-rc1": false, "1.11.4": false, "": false, "none": false} {
		if got := tooOld(number); got != old {
			t.Errorf("%q is too old: %v", number, got)
		}
	}
}
