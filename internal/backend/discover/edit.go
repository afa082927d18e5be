package discover

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Edit is a change of the file that a backend block is in.
type Edit struct {
	Path          string
	Before, After []byte
}

// NotEditableError is a backend whose settings are where tfguard does not write.
type NotEditableError struct {
	Where string // what has to be edited
	Do    string // how, such as: set use_lockfile = true there
}

func (e *NotEditableError) Error() string {
	return "the backend's settings are in " + e.Where + ", which tfguard does not edit"
}

// EditBackend plans a change of the attributes of the backend block that was
// found; nil removes one. Everything else in the file stays as it is, and a file
// in terraform's format stays in it.
//
// A [*NotEditableError] says what to edit instead: a .tf.json file, the settings
// of .tfguard.hcl, or what --backend-config gives.
func EditBackend(src Source, found Found, changes map[string]any) (Edit, error) {
	names := slices.Sorted(maps.Keys(changes))
	var do []string
	for _, name := range names {
		if changes[name] == nil {
			do = append(do, "remove "+name)
		} else {
			do = append(do, "set "+name+" = "+strings.TrimSpace(string(hclwrite.TokensForValue(toCty(changes[name])).Bytes())))
		}
	}
	how := strings.Join(do, ", ")
	given := map[string]any{}
	if _, err := merge(given, src.BackendConfig); err != nil {
		return Edit{}, err
	}
	for _, name := range names {
		if _, there := given[name]; there {
			return Edit{}, &NotEditableError{Where: "--backend-config", Do: how + " there"}
		}
	}
	switch {
	case !found.Declared:
		return Edit{}, &NotEditableError{Where: "the backend block of .tfguard.hcl", Do: how + " there"}
	case strings.HasSuffix(found.File, ".json"):
		return Edit{}, &NotEditableError{Where: found.File, Do: how + " there"}
	}
	before, err := ReadFile(found.File, maxFile)
	if err != nil {
		return Edit{}, fmt.Errorf("read the configuration: %w", err)
	}
	if line := tooDeep(before); line > 0 {
		return Edit{}, &Error{File: found.File, Line: line, Column: 1, Message: "blocks or expressions are nested too deep"}
	}
	f, diags := hclwrite.ParseConfig(before, found.File, hcl.InitialPos)
	if diags.HasErrors() {
		return Edit{}, Diagnose(found.File, diags)
	}
	block := backendBlock(f.Body())
	if block == nil {
		return Edit{}, fmt.Errorf("edit %s: its backend block was not found again", found.File)
	}
	openUp(block.Body())
	for _, name := range names {
		if changes[name] == nil {
			block.Body().RemoveAttribute(name)
		} else {
			block.Body().SetAttributeValue(name, toCty(changes[name]))
		}
	}
	after := f.BuildTokens(nil).Bytes() // f.Bytes would format it
	if bytes.Equal(hclwrite.Format(before), before) {
		after = hclwrite.Format(after)
	}
	if _, err := Parse(found.File, after); err != nil {
		return Edit{}, fmt.Errorf("edit %s: terraform could not read it afterwards: %w", found.File, err)
	}
	return Edit{Path: found.File, Before: before, After: after}, nil
}

// openUp gives a block that is written in one line, which may have one attribute
// at most, lines of its own.
func openUp(body *hclwrite.Body) {
	if tokens := body.BuildTokens(nil); len(tokens) > 0 && bytes.HasSuffix(tokens[0].Bytes, []byte("\n")) { // a comment may have it
		return
	}
	kept := map[string]hclwrite.Tokens{}
	for name, a := range body.Attributes() {
		kept[name] = a.Expr().BuildTokens(nil)
		body.RemoveAttribute(name) // Clear leaves it known
	}
	body.Clear()
	body.AppendNewline()
	for name, expr := range kept {
		body.SetAttributeRaw(name, expr)
	}
}

// backendBlock is the only one of the file; Discover has refused two.
func backendBlock(body *hclwrite.Body) *hclwrite.Block {
	for _, t := range body.Blocks() {
		if t.Type() != "terraform" {
			continue
		}
		for _, b := range t.Body().Blocks() {
			if b.Type() == "backend" && slices.Equal(b.Labels(), []string{"s3"}) {
				return b
			}
		}
	}
	return nil
}

// Diff is the change for people: the lines that go, those that come, and up to
// three lines around them.
func (e Edit) Diff() string {
	a, b := strings.SplitAfter(string(e.Before), "\n"), strings.SplitAfter(string(e.After), "\n")
	from := 0
	for from < len(a) && from < len(b) && a[from] == b[from] {
		from++
	}
	end := 0
	for end < len(a)-from && end < len(b)-from && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var out strings.Builder
	write := func(sign string, lines []string) {
		for _, l := range lines {
			if l != "" {
				out.WriteString(sign + strings.TrimRight(l, "\r\n") + "\n")
			}
		}
	}
	write("  ", a[max(0, from-3):from])
	write("- ", a[from:len(a)-end])
	write("+ ", b[from:len(b)-end])
	write("  ", a[len(a)-end:min(len(a), len(a)-end+3)])
	return out.String()
}

// Write carries the change out, in one rename: the file is the old or the new
// one, with the permissions that it had. It fails where the file has changed
// since it was read.
func (e Edit) Write() (err error) {
	path, err := filepath.EvalSymlinks(e.Path) // the link stays a link
	if err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	now, err := ReadFile(path, maxFile)
	if err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	if !bytes.Equal(now, e.Before) {
		return fmt.Errorf("write %s: %w", e.Path, errors.New("it was changed since it was read"))
	}
	if err := replace(path, e.After, info.Mode().Perm()); err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	return nil
}
