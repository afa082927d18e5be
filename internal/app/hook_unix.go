//go:build unix

package app

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a hook into a process group of its own, so that a cancel reaches
// what it has started too: a shell does not pass an interrupt on.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}

// endGroup kills what is left of a cancelled hook.
func endGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // mostly nothing is
	}
}
