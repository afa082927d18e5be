//go:build !linux

package holder

import (
	"os"

	"github.com/tfguard/tfguard/internal/lock"
)

// Here fills in where this process runs, as far as it is known here.
func Here() (host lock.Host, pid int, began string) {
	host.Name, _ = os.Hostname()
	return host, os.Getpid(), ""
}

// Process says nothing here: terraform does not surely die with its caller.
func Process(lock.Record) lock.Life { return lock.NotKnown }
