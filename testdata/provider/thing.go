package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// thing is the resource storm_thing. Each of its operations takes `seconds`, and
// goes on as `mode` says when terraform asks it to stop:
//
//	ignore     to its end, as if nothing had been said
//	slow-stop  2 s longer, and then it is done
//	honour     not at all: it fails, and nothing has been done
//
// What it does outside of the state it appends to `file`, a line each time:
// "begin create NAME", then "create NAME ID" when the thing exists or "abort
// create NAME" when it does not; the same for update and delete.
type thing struct{}

type model struct {
	ID      types.String  `tfsdk:"id"`
	Name    types.String  `tfsdk:"name"`
	Seconds types.Float64 `tfsdk:"seconds"`
	Mode    types.String  `tfsdk:"mode"`
	File    types.String  `tfsdk:"file"`
	Value   types.String  `tfsdk:"value"`
}

// slowStop is how long an operation in mode slow-stop takes from the request on.
const slowStop = 2 * time.Second

func (thing) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "storm_thing"
}

func (thing) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"id":      schema.StringAttribute{Computed: true, PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}},
		"name":    schema.StringAttribute{Required: true},
		"seconds": schema.Float64Attribute{Required: true},
		"mode":    schema.StringAttribute{Required: true},
		"file":    schema.StringAttribute{Required: true},
		"value":   schema.StringAttribute{Optional: true, Description: "a change of it is an update"},
	}}
}

func (thing) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m model
	if resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...); resp.Diagnostics.HasError() {
		return
	}
	id := m.Name.ValueString() + "-" + rand.Text()
	if err := m.carryOut(ctx, "create", id); err != nil {
		resp.Diagnostics.AddError("Create was stopped", err.Error())
		return
	}
	m.ID = types.StringValue(id)
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (thing) Read(context.Context, resource.ReadRequest, *resource.ReadResponse) {}

func (thing) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m model
	if resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...); resp.Diagnostics.HasError() {
		return
	}
	if err := m.carryOut(ctx, "update", m.ID.ValueString()); err != nil {
		resp.Diagnostics.AddError("Update was stopped", err.Error())
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (thing) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m model
	if resp.Diagnostics.Append(req.State.Get(ctx, &m)...); resp.Diagnostics.HasError() {
		return
	}
	if err := m.carryOut(ctx, "delete", m.ID.ValueString()); err != nil {
		resp.Diagnostics.AddError("Delete was stopped", err.Error())
	}
}

// carryOut takes its time and writes down what it did. ctx ends when terraform
// asks the provider to stop.
func (m model) carryOut(ctx context.Context, what, id string) error {
	name := m.Name.ValueString()
	if err := m.note("begin " + what + " " + name); err != nil {
		return err
	}
	done := time.After(time.Duration(m.Seconds.ValueFloat64() * float64(time.Second)))
	stop := ctx.Done()
	if m.Mode.ValueString() == "ignore" {
		stop = nil
	}
	select {
	case <-done:
	case <-stop:
		if m.Mode.ValueString() != "slow-stop" {
			return m.abort(what, name)
		}
		<-time.After(slowStop)
	}
	return m.note(what + " " + name + " " + id)
}

func (m model) abort(what, name string) error {
	if err := m.note("abort " + what + " " + name); err != nil {
		return err
	}
	return fmt.Errorf("%s of %s was asked to stop, and nothing was done", what, name)
}

// note appends one line in one write, so that lines of several processes do not
// mix.
func (m model) note(line string) error {
	f, err := os.OpenFile(m.File.ValueString(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
