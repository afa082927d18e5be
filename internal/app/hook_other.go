//go:build !unix

package app

import (
	"os"
	"os/exec"
)

// ownGroup interrupts the hook alone: there are no process groups here.
func ownGroup(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
}

// endGroup does nothing.
func endGroup(*exec.Cmd) {}
