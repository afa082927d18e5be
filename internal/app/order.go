package app

import (
	"sync"

	"github.com/tfguard/tfguard/internal/event"
)

// inOrder passes events on in the order in which they were emitted, also where
// one is still being made ([event.Later]): what follows it waits here, and who
// emits does not. RunFinished returns when all have been passed on. Of text for
// people no more than maxWaiting waits: the rest is left out, and that is told.
type inOrder struct {
	next  event.Sink
	mu    sync.Mutex
	queue []event.Event // from the one that is being made
	empty chan struct{} // closed when all of queue are passed on; nil: nothing waits
	text  int           // size of the text in queue
	cut   bool          // there was more
}

// maxWaiting is in bytes of memory.
const maxWaiting = 1 << 20

// size is about the memory that a text takes, in bytes.
func size(o event.Output) int { return len(o.Text) + 128 }

// Emit implements event.Sink.
func (o *inOrder) Emit(e event.Event) {
	o.mu.Lock()
	_, later := e.(event.Later)
	if o.empty == nil && !later {
		o.next.Emit(e)
		o.mu.Unlock()
		return
	}
	if out, ok := e.(event.Output); ok {
		if o.cut {
			o.mu.Unlock()
			return
		}
		if o.cut = o.text+size(out) > maxWaiting; o.cut {
			out = event.Output{Source: out.Source, Text: "… there is more than can wait for the plan's text; the run's terraform.log has it"}
		}
		o.text += size(out)
		e = out
	}
	o.queue = append(o.queue, e)
	if o.empty == nil {
		o.empty = make(chan struct{})
		go o.drain(o.empty)
	}
	empty := o.empty
	o.mu.Unlock()
	if _, last := e.(event.RunFinished); last {
		<-empty
	}
}

func (o *inOrder) drain(empty chan<- struct{}) {
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			o.empty, o.cut = nil, false
			close(empty)
			o.mu.Unlock()
			return
		}
		e := o.queue[0]
		o.queue = o.queue[1:]
		if out, ok := e.(event.Output); ok {
			o.text -= size(out)
		}
		o.mu.Unlock()
		if l, ok := e.(event.Later); ok {
			e = l.Make()
		}
		if e != nil {
			o.next.Emit(e)
		}
	}
}
