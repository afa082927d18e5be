package app

import (
	"slices"
	"sync"
	"testing"

	"github.com/tfguard/tfguard/internal/event"
)

// texts remembers the texts that it was given.
type texts struct {
	mu  sync.Mutex
	all []string
}

func (t *texts) Emit(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o, ok := e.(event.Output); ok {
		t.all = append(t.all, o.Text)
	} else {
		t.all = append(t.all, e.Type())
	}
}

// What apply says comes after the plan's text, and neither apply nor anybody
// else who emits waits for that text; the end of the run does.
func TestInOrder(t *testing.T) {
	var got texts
	o := &inOrder{next: &got}
	say := func(s string) { o.Emit(event.Output{Text: s}) }
	ready := make(chan struct{})
	say("before")
	o.Emit(event.Later{Make: func() event.Event { <-ready; return event.Output{Text: "the plan"} }})
	for _, s := range []string{"apply begins", "apply ends"} {
		say(s) // returns, although the plan is not there
	}
	o.Emit(event.Later{Make: func() event.Event { return nil }}) // nothing came of it
	say("after")
	got.mu.Lock()
	if !slices.Equal(got.all, []string{"before"}) {
		t.Errorf("too early: %q", got.all)
	}
	got.mu.Unlock()
	close(ready)
	o.Emit(event.RunFinished{})
	want := []string{"before", "the plan", "apply begins", "apply ends", "after", "run_finished"}
	if !slices.Equal(got.all, want) {
		t.Errorf("got %q, want %q", got.all, want)
	}
}

// A flood of text does not wait in memory: its beginning does, and that there was
// more is told once. What is no text is never left out, and what comes after the
// plan's text is told as ever.
func TestInOrderIsBounded(t *testing.T) {
	var got texts
	o := &inOrder{next: &got}
	ready := make(chan struct{})
	o.Emit(event.Later{Make: func() event.Event { <-ready; return event.Output{Text: "the plan"} }})
	for range 3 * maxWaiting / 128 {
		o.Emit(event.Output{Text: "x"})
	}
	o.Emit(event.Resource{})
	o.mu.Lock()
	if n := len(o.queue); n > maxWaiting/128+2 {
		t.Errorf("%d events wait", n)
	}
	o.mu.Unlock()
	close(ready)
	o.mu.Lock()
	empty := o.empty
	o.mu.Unlock()
	if empty != nil {
		<-empty
	}
	o.Emit(event.Output{Text: "after"})
	got.mu.Lock()
	defer got.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(got.all), func(s string) bool { return s == "x" })
	want := []string{"the plan", "… there is more than can wait for the plan's text; the run's terraform.log has it", "resource", "after"}
	if !slices.Equal(rest, want) {
		t.Errorf("got %q, want %q", rest, want)
	}
	if n := len(got.all) - len(rest); n < maxWaiting/256 {
		t.Errorf("%d of the beginning are told", n)
	}
}
