package terraform

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
)

// lockLine is what the S3 backend logs when it asks for its lock (terraform
// internal/backend/remote-state/s3/client.go, logKeyBackendLockId). Other
// versions may not: then the ID is not known.
var lockLine = regexp.MustCompile(`backend-s3: Attempting to lock remote state[^\n]*? tf_backend\.lock\.id=([0-9A-Za-z-]+) `)

// digestLine is what the S3 backend logs, and nothing more, where it has
// written the state and could not write its digest (the same file, putMD5).
var digestLine = []byte("[WARN]  failed to record state serial in dynamodb")

// lockLog bounds: how often the log is read, and how much of it.
const (
	lockLogEvery = 20 * time.Millisecond // a death in between leaves a lock that the holder record does not name
	lockLogMost  = 1 << 20               // bytes; terraform locks within the first few KiB
	digestMost   = 64 << 20              // bytes of the log that are searched for digestLine at the end
)

// LoggedLock reads the ID of the lock that a command asked for in the log that it
// left; empty where there is none.
func LoggedLock(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	log, _ := io.ReadAll(io.LimitReader(f, lockLogMost))
	if m := lockLine.FindSubmatch(log); m != nil {
		return string(m[1])
	}
	return ""
}

// watchLock makes terraform log to Options.LockLog, and tells Options.Locked the
// lock ID that this process takes as soon as it is there. The function that it
// returns ends the watching and gives the ID, empty where it is not known; it
// tells Options.Undigested where the digest was not written.
func (t *Terraform) watchLock(tf *tfexec.Terraform) (func() string, error) {
	if t.o.LockLog == "" {
		return func() string { return "" }, nil
	}
	// Made here, since terraform would make it readable for everybody.
	f, err := os.OpenFile(t.o.LockLog, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make terraform's log: %w", err)
	}
	if err := tf.SetLogCore("INFO"); err != nil {
		f.Close()
		return nil, fmt.Errorf("set terraform's log level: %w", err)
	}
	if err := tf.SetLogPath(t.o.LockLog); err != nil {
		f.Close()
		return nil, fmt.Errorf("set terraform's log: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	found := make(chan string, 1)
	go func() {
		defer f.Close()
		tick := time.NewTicker(lockLogEvery)
		defer tick.Stop()
		var log []byte
		for last := false; ; {
			more, _ := io.ReadAll(io.LimitReader(f, int64(lockLogMost-len(log))))
			log = append(log, more...)
			if m := lockLine.FindSubmatch(log); m != nil {
				id := string(m[1])
				if t.o.Locked != nil {
					t.o.Locked(id)
				}
				found <- id
				return
			}
			if last {
				found <- ""
				return
			}
			select {
			case <-ctx.Done():
				last = true // once more: the last lines may have come since
			case <-tick.C:
			}
		}
	}()
	return func() string {
		stop()
		id := <-found
		if t.o.Undigested != nil && undigested(t.o.LockLog) {
			t.o.Undigested()
		}
		return id
	}, nil
}

// undigested reports whether the log says that a digest was not written. One
// that was written later all the same is for the caller to find.
func undigested(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	in := bufio.NewReaderSize(io.LimitReader(f, digestMost), 64<<10)
	for whole := true; ; {
		line, err := in.ReadSlice('\n')
		if whole && bytes.Contains(line[:min(len(line), 256)], digestLine) {
			return true
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return false
		}
		whole = err == nil
	}
}
