//go:build !linux

package terraform

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// interruptChild sends one interrupt to the child process whose arguments
// match, if there is exactly one, as ps tells; without a ps it does nothing.
// Arguments with blanks in them are not found.
func interruptChild(match func(argv []string) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := exec.CommandContext(ctx, "ps", "-axww", "-o", "pid=,ppid=,args=").Output()
	if err != nil {
		return
	}
	var found []int
	for s := bufio.NewScanner(bytes.NewReader(list)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 3 || f[1] != strconv.Itoa(os.Getpid()) || !match(f[2:]) {
			continue
		}
		if pid, err := strconv.Atoi(f[0]); err == nil {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		return
	}
	if p, err := os.FindProcess(found[0]); err == nil {
		_ = p.Signal(os.Interrupt)
		_ = p.Release()
	}
}

// watchChild tells nothing here: where a process that terraform left behind
// keeps its output open, it is read until that one ends. Nor does a command aside
// give way.
func watchChild(*gate, command) <-chan exitStatus { return nil }
