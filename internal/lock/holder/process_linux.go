package holder

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/tfguard/tfguard/internal/lock"
)

// Here fills in where this process runs. Boot and PIDs are known on Linux
// alone: elsewhere nothing can be said of a process later.
func Here() (host lock.Host, pid int, began string) {
	host.Name, _ = os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // proc(5)
	host.Boot = strings.TrimSpace(string(boot))
	host.PIDs, _ = os.Readlink("/proc/self/ns/pid")
	began, _ = startTime(os.Getpid())
	return host, os.Getpid(), began
}

// Process says whether the record's process is still there. It knows that only
// where the process number means the same as here, on the same boot in the same
// process namespace; terraform has died with it (Pdeathsig, Linux alone).
func Process(r lock.Record) lock.Life {
	here, _, began := Here()
	if began == "" || r.Began == "" || here.Boot == "" || here.PIDs == "" || here.Boot != r.Host.Boot || here.PIDs != r.Host.PIDs || r.PID <= 1 {
		return lock.NotKnown
	}
	// Signal 0 sees processes of other users, also where /proc hides them.
	if err := syscall.Kill(r.PID, 0); errors.Is(err, syscall.ESRCH) {
		return lock.Over
	}
	now, zombie := startTime(r.PID)
	switch {
	case now == "":
		return lock.NotKnown
	case now != r.Began || zombie:
		return lock.Over // the number was given to another process since
	}
	return lock.Alive
}

// startTime is when a process was started, in clock ticks since the boot, and
// whether it has ended and waits for its parent (proc_pid_stat(5), fields 22 and 3).
func startTime(pid int) (ticks string, zombie bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", false
	}
	// The second field is the name in parentheses and may hold anything.
	rest := string(b)[strings.LastIndexByte(string(b), ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", false
	}
	return fields[19], fields[0] == "Z"
}
