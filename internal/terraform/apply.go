package terraform

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

// Apply applies a saved plan. It emits the progress of each resource and what
// terraform says.
//
// A cancel interrupts it once; then it is waited for, however long it takes:
// a second interrupt of any kind, or a kill, loses the resource in flight and
// may leave the lock. Only Options.CancelAfter ends the waiting. The error of an
// apply that was interrupted and ended well all the same is nil.
func (t *Terraform) Apply(ctx context.Context, file string) error {
	tf, err := t.value()
	if err != nil {
		return err
	}
	lockID, err := t.watchLock(tf)
	if err != nil {
		return err
	}
	diags := &diagnostics{emit: t.emit}
	stdout := t.messages("apply", diags, t.applied)
	err = t.run(ctx, tf, command{
		name: "apply", arg: file, stdout: stdout, diags: diags, effect: true, killAfter: t.o.CancelAfter,
		call: func(ctx context.Context, tf *tfexec.Terraform, stdout io.Writer) error {
			return tf.ApplyJSON(ctx, stdout, t.applyOptions(file)...)
		},
	})
	stdout.flush()
	err = own(err, lockID())
	diags.told(err)
	return err
}

func (t *Terraform) applyOptions(file string) []tfexec.ApplyOption {
	return []tfexec.ApplyOption{
		tfexec.DirOrPlan(file), tfexec.Parallelism(t.o.Parallelism),
		tfexec.Lock(true), tfexec.LockTimeout(t.o.LockTimeout.String()),
	}
}

// applied turns a message of `apply -json` into events.
func (t *Terraform) applied(m message) {
	detail := true
	phase := ""
	switch m.Type {
	case "apply_start":
		detail, phase = false, "started"
	case "apply_complete":
		detail, phase = false, "done"
	case "apply_errored":
		detail, phase = false, "failed"
	case "apply_progress", "provision_start", "provision_progress", "provision_complete", "provision_errored", "change_summary":
		detail = false
	}
	if phase != "" && m.Hook != nil {
		r := event.Resource{Address: m.Hook.Resource.address(), Action: action(m.Hook.Action), Phase: phase}
		if phase != "started" {
			r.Seconds = max(m.Hook.Elapsed, 0)
		}
		t.sink.Emit(r)
	}
	t.say("apply", m.Message, detail)
	for i, name := range slices.Sorted(maps.Keys(m.Outputs)) {
		if i == maxOutputs {
			t.say("apply", fmt.Sprintf("… and %d more outputs", len(m.Outputs)-i), false)
			break
		}
		value := "(sensitive)"
		if o := m.Outputs[name]; !o.Sensitive {
			value = quote.Line(string(o.Value), maxAddress)
		}
		t.say("apply", quote.Line(name, maxAddress)+" = "+value, false)
	}
}
