package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/state"
)

// plan plans. run is the run's context, which ends later than the stage's.
func (p *Pipeline) plan(ctx, run context.Context, free Free) (Planned, string, error) {
	var (
		file string
		plan event.Plan
		from state.Head
	)
	err := p.pastOwnLock(ctx, func() (err error) {
		file, plan, from, err = p.Planner.Plan(ctx)
		return err
	})
	if err != nil {
		return Planned{}, "", p.explainLock(ctx, err)
	}
	p.Sink.Emit(plan)
	if p.ShowPlan && plan.Changed {
		p.show(run, file)
	}
	return Planned{Free: free, file: file, plan: plan, from: from}, planNote(plan), nil
}

// showLimit bounds how long the text of the plan is waited for.
const showLimit = time.Minute

// show emits terraform's text of the plan. A person who decides on the plan has
// it before they are asked; otherwise it is made while the run goes on, and what
// apply says is told after it. A plan that cannot be shown is still the plan:
// only its text is missing.
func (p *Pipeline) show(ctx context.Context, file string) {
	text := func() event.Event {
		bounded, stop := context.WithTimeout(ctx, showLimit)
		defer stop()
		out, err := p.Planner.Show(bounded, file)
		if err != nil {
			return nil
		}
		return event.Output{Source: string(Plan), Text: out}
	}
	if !p.Approved {
		if e := text(); e != nil {
			p.Sink.Emit(e)
		}
		return
	}
	made := make(chan event.Event, 1)
	p.showing.Go(func() { made <- text() })
	p.Sink.Emit(event.Later{Make: func() event.Event { return <-made }})
}

func planNote(plan event.Plan) string {
	if !plan.Changed {
		return "no changes"
	}
	note := fmt.Sprintf("%d to add, %d to change, %d to destroy", plan.Add, plan.Change, plan.Destroy)
	if plan.Replace > 0 {
		note += fmt.Sprintf(" (%d replaced)", plan.Replace)
	}
	return note
}

func (p *Pipeline) approve(ctx context.Context, planned Planned) error {
	if p.SavedPlan {
		return nil
	}
	return p.Person.ApprovePlan(ctx, planned.plan)
}
