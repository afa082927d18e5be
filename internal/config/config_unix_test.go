//go:build unix

package config

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A named pipe would keep the program waiting for a writer.
func TestLoadDoesNotWaitForAPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), Name)
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fifo); err == nil || err.Error() != fifo+": cannot be read: it is not a regular file" {
		t.Errorf("error %v", err)
	}
}
