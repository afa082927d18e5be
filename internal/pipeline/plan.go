package pipeline

import (
	"context"
	"fmt"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/state"
)

func (p *Pipeline) plan(ctx context.Context, free Free) (Planned, string, error) {
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
		// A plan that cannot be shown is still the plan: only its text is missing.
		if text, err := p.Planner.Show(ctx, file); err == nil {
			p.Sink.Emit(event.Output{Source: string(Plan), Text: text})
		}
	}
	return Planned{Free: free, file: file, plan: plan, from: from}, planNote(plan), nil
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
