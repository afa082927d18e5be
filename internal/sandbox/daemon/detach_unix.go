//go:build unix

package daemon

import (
	"os/exec"
	"syscall"
)

// detach gives the process a session of its own: Ctrl-C does not reach it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
