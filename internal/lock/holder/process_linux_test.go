package holder_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
)

// child starts a process that runs until the test ends or stop is called, which
// gives its number, and a record that names it as its own.
func child(t *testing.T) (r lock.Record, cmd *exec.Cmd) {
	t.Helper()
	cmd = exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // by then it may have been waited for
	})
	host, _, _ := holder.Here()
	r = lock.Record{RunID: "run", Host: host, PID: cmd.Process.Pid, Began: holder.StartTime(cmd.Process.Pid)}
	if r.Began == "" || host.Boot == "" || host.PIDs == "" {
		t.Fatalf("this host does not tell enough: %+v", r)
	}
	return r, cmd
}

// Rule 3: a process that ran on this host and is gone proves its lock stale. It
// is said only where the number means the same process as when it was written.
func TestProcess(t *testing.T) {
	host, pid, began := holder.Here()
	self := lock.Record{RunID: "run", Host: host, PID: pid, Began: began}
	if pid != os.Getpid() || began == "" {
		t.Fatalf("this process is %d, began %q", pid, began)
	}
	running, _ := child(t)
	ended, cmd := child(t)
	zombie, left := child(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if err := left.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child has ended and nobody has waited for it", func() bool { return holder.Process(zombie) == lock.Over })

	for _, row := range []struct {
		sentence string
		r        lock.Record
		change   func(*lock.Record)
		want     lock.Life
	}{
		{"this very process is alive", self, nil, lock.Alive},
		{"another one that runs is alive", running, nil, lock.Alive},
		{"one that has ended is over", ended, nil, lock.Over},
		{"one that has ended and still has its number is over", zombie, nil, lock.Over},
		{"a number that was given to another process since is over", running, func(r *lock.Record) { r.Began = "1" }, lock.Over},
		{"on another boot the number says nothing", ended, func(r *lock.Record) { r.Host.Boot = "another" }, lock.NotKnown},
		{"in another process namespace, such as a container's, it says nothing", ended, func(r *lock.Record) { r.Host.PIDs = "pid:[1]" }, lock.NotKnown},
		{"a record that knows no boot says nothing", ended, func(r *lock.Record) { r.Host.Boot = "" }, lock.NotKnown},
		{"a record that knows no namespace says nothing", ended, func(r *lock.Record) { r.Host.PIDs = "" }, lock.NotKnown},
		{"a record that knows no start says nothing", ended, func(r *lock.Record) { r.Began = "" }, lock.NotKnown},
		{"the host's name has no part in it: two hosts may share it, and one may change it", running, func(r *lock.Record) { r.Host.Name = "elsewhere" }, lock.Alive},
		{"process 0 would be our own group", ended, func(r *lock.Record) { r.PID = 0 }, lock.NotKnown},
		{"a negative number would be a group", ended, func(r *lock.Record) { r.PID = -r.PID }, lock.NotKnown},
		{"process 1 is nobody's run", ended, func(r *lock.Record) { r.PID = 1 }, lock.NotKnown},
		{"an empty record says nothing", lock.Record{}, nil, lock.NotKnown},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			r := row.r
			if row.change != nil {
				row.change(&r)
			}
			if got := holder.Process(r); got != row.want {
				t.Errorf("%q, want %q: %+v", got, row.want, r)
			}
		})
	}
}
