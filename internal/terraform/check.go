package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

// UnformattedError names the files that `terraform fmt` would change, relative
// to the configuration's directory.
type UnformattedError struct{ Files []string }

func (e *UnformattedError) Error() string {
	if len(e.Files) == 1 {
		return "1 file is not formatted: " + e.Files[0]
	}
	shown := e.Files[:min(len(e.Files), 10)]
	more := ""
	if len(shown) < len(e.Files) {
		more = " …"
	}
	return fmt.Sprintf("%d files are not formatted: %s%s", len(e.Files), strings.Join(shown, ", "), more)
}

// Fmt checks the format of the files in the directory itself, changing none.
// Where one is not formatted the error is an *UnformattedError.
func (t *Terraform) Fmt(ctx context.Context) error {
	formatted, files := true, []string(nil)
	err := t.aside(ctx, func() command {
		return command{
			name: "fmt", killAfter: t.o.KillAfter,
			call: func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) (err error) {
				if err = tf.SetEnv(lean(os.Environ())); err != nil {
					return err
				}
				formatted, files, err = tf.FormatCheck(ctx)
				return err
			},
		}
	})
	if err != nil || formatted {
		return err
	}
	unformatted := &UnformattedError{}
	for _, f := range files {
		// warnings of the command line's configuration stand among the names
		if _, err := os.Lstat(filepath.Join(t.o.Dir, f)); err == nil && len(unformatted.Files) < maxFiles {
			unformatted.Files = append(unformatted.Files, quote.Line(filepath.ToSlash(f), maxAddress))
		}
	}
	return unformatted
}

// Init installs providers and modules and configures the backend. It never asks
// and never migrates a state. A cancel may kill it, which can leave a broken
// terraform.tfstate in the data directory.
func (t *Terraform) Init(ctx context.Context) error {
	o := []tfexec.InitOption{tfexec.Upgrade(t.o.Upgrade), tfexec.Reconfigure(t.o.Reconfigure)}
	for _, b := range t.o.BackendConfig {
		o = append(o, tfexec.BackendConfig(b))
	}
	err := t.text(ctx, "init", t.o.KillAfter != 0, func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
		return tf.Init(ctx, o...)
	})
	if _, none := os.Stat(t.dataDir()); err == nil && none != nil {
		_, err = t.Version(ctx) // what leaves nothing behind may be no terraform
	}
	return err
}

func (t *Terraform) dataDir() string {
	if t.o.DataDir != "" {
		return t.o.DataDir
	}
	return filepath.Join(t.o.Dir, ".terraform")
}

// text runs a command that prints text for people: each line becomes an Output,
// and what looks like a diagnostic one.
func (t *Terraform) text(ctx context.Context, name string, mayKill bool, call func(context.Context, *tfexec.Terraform, io.Writer) error) error {
	tf, err := t.value()
	if err != nil {
		return err
	}
	said := &tail{max: maxStderr}
	out := &lines{handle: func(line []byte, _ bool) {
		if len(bytes.TrimSpace(line)) > 0 {
			t.say("check", string(line), true)
		}
	}}
	c := command{name: name, stdout: fan{out, said}, call: call, effect: true}
	if mayKill {
		c.killAfter = t.o.KillAfter
	}
	err = t.run(ctx, tf, c)
	out.flush()
	for _, d := range parseText(said.text()) {
		t.emit(d)
	}
	return err
}

// SelectWorkspace makes name the current workspace of the data directory, which
// init must have prepared. Where it does not exist it is created if create is
// set, which takes the new state's lock. It starts nothing where name is
// selected already.
func (t *Terraform) SelectWorkspace(ctx context.Context, name string, create bool) error {
	if t.selected() == name {
		return nil
	}
	err := t.text(ctx, "workspace select", true, func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
		return tf.WorkspaceSelect(ctx, name)
	})
	var f *Failure
	if !create || !errors.As(err, &f) || f.Interrupted || !strings.Contains(ansi.ReplaceAllString(f.Stderr, ""), "doesn't exist") {
		return err
	}
	return t.text(ctx, "workspace new", false, func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
		return tf.WorkspaceNew(ctx, name, tfexec.LockTimeout(t.o.LockTimeout.String()))
	})
}

// selected reads the current workspace as terraform does
// (terraform internal/command/meta.go, WorkspaceOverridden and Workspace).
func (t *Terraform) selected() string {
	f, err := os.Open(filepath.Join(t.dataDir(), "environment"))
	if err != nil {
		return "default"
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	if name := strings.TrimSpace(string(b)); err == nil && name != "" {
		return name
	}
	return "default"
}

// Validate checks the configuration. It emits every diagnostic; where there is
// an error among them it returns a *Failure.
func (t *Terraform) Validate(ctx context.Context) error {
	diags := &diagnostics{emit: t.emit}
	out := &head{}
	err := t.aside(ctx, func() command {
		out = &head{max: maxJSON}
		return command{
			name: "validate", stdout: out, killAfter: t.o.KillAfter,
			call: func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
				_, err := tf.Validate(ctx)
				return err
			},
		}
	})
	valid, ok := validation(out.bytes(), diags.add)
	switch {
	case ok && valid:
		return nil
	case !ok && err != nil:
		return err
	}
	f := &Failure{Command: t.bin.Product + " validate", ExitCode: 1, cause: "its answer could not be read"}
	if ok {
		f.cause = "the configuration is not valid"
	}
	f.Diagnostics, f.marks = diags.list()
	return f
}

// validation reads the answer of `validate -json`. terraform-exec refuses it
// where a warning stands before it, and so loses the diagnostics.
func validation(out []byte, add func(event.Diagnostic)) (valid, ok bool) {
	var answer struct {
		Valid       *bool            `json:"valid"`
		Diagnostics []jsonDiagnostic `json:"diagnostics"`
	}
	if !bytes.HasPrefix(out, []byte("{")) {
		_, rest, _ := bytes.Cut(out, []byte("\n{\n"))
		out = append([]byte("{"), rest...)
	}
	if json.NewDecoder(bytes.NewReader(out)).Decode(&answer) != nil || answer.Valid == nil {
		return false, false
	}
	for _, d := range answer.Diagnostics {
		add(d.event())
	}
	return *answer.Valid, true
}

// Show gives a plan file as text for people, with sensitive values redacted and
// without colour, of at most 4 MiB.
func (t *Terraform) Show(ctx context.Context, file string) (string, error) {
	out := &head{}
	err := t.aside(ctx, func() command {
		out = &head{max: maxText}
		return command{
			name: "show", arg: file, stdout: out, killAfter: t.o.KillAfter,
			call: func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
				_, err := tf.ShowPlanFileRaw(ctx, file)
				return err
			},
		}
	})
	if err != nil {
		return "", err
	}
	text := quote.Text(string(out.bytes()), maxText)
	if out.over {
		text += fmt.Sprintf("\n(the plan is longer than %d MiB; the rest is not shown)\n", maxText>>20)
	}
	return text, nil
}
