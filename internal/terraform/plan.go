package terraform

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/tfguard/tfguard/internal/event"
)

// Plan plans and writes the plan to out, an absolute path that does not begin
// with a dash, in a directory of the caller's that nobody else may read: the
// file holds secrets. It emits what terraform says, and returns what it planned,
// sorted by address: terraform tells changes in no order.
//
// A cancel interrupts it once, and again after Options.InterruptAgain.
func (t *Terraform) Plan(ctx context.Context, out string) (event.Plan, error) {
	tf, err := t.value()
	if err != nil {
		return event.Plan{}, err
	}
	lockID, err := t.watchLock(tf)
	if err != nil {
		return event.Plan{}, err
	}
	diags := &diagnostics{emit: t.emit}
	plan := planned{say: t.say, Plan: event.Plan{Addresses: []event.Change{}}}
	stdout := t.messages("plan", diags, plan.read)
	var changed bool
	err = t.run(ctx, tf, command{
		name: "plan", arg: "-out=" + out, stdout: stdout, diags: diags, again: t.o.InterruptAgain,
		call: func(ctx context.Context, tf *tfexec.Terraform, stdout io.Writer) error {
			var err error
			changed, err = tf.PlanJSON(ctx, stdout, t.planOptions(out)...)
			return err
		},
	})
	stdout.flush()
	err = own(err, lockID())
	diags.told(err)
	if err != nil {
		return event.Plan{}, err
	}
	// Exit code 2 is read as success whatever its reason, a crash or an
	// interrupt included: a plan has a summary and no error.
	if !plan.complete || diags.hasErrors() {
		f := &Failure{Command: t.bin.Product + " plan", ExitCode: 2, Interrupted: ctx.Err() != nil, cause: "it ended without a plan"}
		f.Diagnostics, f.marks = diags.list()
		return event.Plan{}, f
	}
	plan.Changed = changed
	slices.SortStableFunc(plan.Addresses, func(a, b event.Change) int { return strings.Compare(a.Address, b.Address) })
	return plan.Plan, nil
}

func (t *Terraform) planOptions(out string) []tfexec.PlanOption {
	o := []tfexec.PlanOption{
		tfexec.Out(out), tfexec.Parallelism(t.o.Parallelism), tfexec.Refresh(!t.o.NoRefresh),
		tfexec.Lock(!t.o.NoLock), tfexec.Destroy(t.o.Destroy), tfexec.LockTimeout(t.o.LockTimeout.String()),
	}
	for _, v := range t.o.VarFiles {
		o = append(o, tfexec.VarFile(v))
	}
	for _, v := range t.o.Vars {
		o = append(o, tfexec.Var(v))
	}
	for _, v := range t.o.Targets {
		o = append(o, tfexec.Target(v))
	}
	for _, v := range t.o.Replace {
		o = append(o, tfexec.Replace(v))
	}
	return o
}

// planned gathers a plan from the messages of `plan -json`.
type planned struct {
	event.Plan
	say      func(source, text string, detail bool)
	complete bool // the summary has come
}

func (p *planned) read(m message) {
	switch {
	case m.Type == "planned_change" && m.Change != nil:
		a := action(m.Change.Action)
		if a == "no-op" {
			break
		}
		if a == "replace" {
			p.Replace++
		}
		if len(p.Addresses) < maxAddresses {
			p.Addresses = append(p.Addresses, event.Change{Address: m.Change.Resource.address(), Action: a})
		}
	case m.Type == "change_summary" && m.Changes != nil:
		p.Add, p.Change, p.Destroy, p.complete = m.Changes.Add, m.Changes.Change, m.Changes.Remove, true
	}
	p.say("plan", m.Message, true)
}
