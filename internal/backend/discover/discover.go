// Package discover finds the S3 backend of a configuration: in its files,
// before terraform runs, and in what terraform init resolved, afterwards. It
// reads files alone, never the network, and starts no terraform.
package discover

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/quote"
)

var (
	// ErrNoBackend: neither the configuration nor the fallback has a backend.
	ErrNoBackend = errors.New("the configuration has no backend block")
	// ErrNoConfiguration: the directory has no file that terraform would read.
	// With a generated override alone terraform would plan to destroy everything.
	ErrNoConfiguration = errors.New("there are no terraform files")
)

// NotS3Error is a backend of another type, whose state tfguard cannot guard.
type NotS3Error struct {
	Type string // "local", "gcs", …; "cloud" for a cloud block
	File string
	Line int // from 1; 0 is unknown
}

func (e *NotS3Error) Error() string {
	place := e.File
	if e.Line > 0 {
		place = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Type == "cloud" {
		return place + ": the state is in HCP Terraform (a cloud block), tfguard works with the S3 backend"
	}
	return fmt.Sprintf("%s: the backend is %q, tfguard works with %q", place, quote.Line(e.Type, 50), "s3")
}

// FlagError is a value of --backend-config that cannot be used.
type FlagError struct{ Err error }

func (e *FlagError) Error() string { return e.Err.Error() }
func (e *FlagError) Unwrap() error { return e.Err }

// DuplicateError is a configuration with two backend blocks.
type DuplicateError struct {
	First, Second hcl.Range
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s:%d: duplicate backend configuration: there is one at %s:%d already; only override.tf and *_override.tf replace a backend",
		e.Second.Filename, e.Second.Start.Line, e.First.Filename, e.First.Start.Line)
}

// Source is where the backend is looked for.
type Source struct {
	Dir string // the configuration's directory
	// BackendConfig has the values of --backend-config in order: K=V, or a FILE
	// relative to the working directory.
	BackendConfig []string
	// Fallback has the attributes of the backend block in .tfguard.hcl; used
	// only where the configuration has no backend block at all.
	Fallback map[string]any
	Tofu     bool                // read .tofu files too, as OpenTofu does
	Env      func(string) string // os.Getenv; nil is an empty environment
}

// Found is the backend of a configuration.
type Found struct {
	// Settings have what the block, --backend-config and the environment give.
	// Attrs has no values of the environment.
	Settings backend.Settings
	Declared bool   // a backend block is in the configuration
	File     string // of the block; empty where it is the fallback
	Line     int
	// Generated is the path of an override file that tfguard wrote before. It is
	// not taken for a declaration, but terraform reads it: write it again, or
	// remove it by [RemoveOverride], before terraform runs.
	Generated string
	Warnings  []string
}

// Discover reads the backend as terraform would resolve it at init: blocks of
// the root module, replaced whole by override files in the order of their
// names (terraform internal/configs/parser_config_dir.go and module.go), then
// --backend-config in order, then the region and the customer key from the
// environment. Files without the word terraform are not parsed; an error in
// them is terraform's to tell.
//
// Errors: [ErrNoConfiguration], [ErrNoBackend], [*NotS3Error],
// [*DuplicateError], and [*Error] for what cannot be parsed or evaluated; in a
// [*FlagError] where that is a value of --backend-config.
func Discover(src Source) (Found, error) {
	env := src.Env
	if env == nil {
		env = func(string) string { return "" }
	}
	files, err := list(src.Dir, src.Tofu)
	if err != nil {
		return Found{}, err
	}
	var found Found
	found.Generated = files.generated
	if len(files.primary)+len(files.override) == 0 {
		return found, fmt.Errorf("%s: %w", src.Dir, ErrNoConfiguration)
	}
	block, err := effective(files)
	if err != nil {
		return found, err
	}
	attrs := map[string]any{}
	switch {
	case block != nil:
		found.Declared, found.File, found.Line = true, block.DefRange.Filename, block.DefRange.Start.Line
		if t := block.Labels[0]; t != "s3" {
			return found, &NotS3Error{Type: t, File: found.File, Line: found.Line}
		}
		advice := "; give it with --backend-config instead"
		if src.Tofu {
			advice += ", also where OpenTofu could evaluate it"
		}
		var warnings []string
		if attrs, warnings, err = body(found.File, block.Body, advice); err != nil {
			return found, err
		}
		found.Warnings = append(found.Warnings, warnings...)
		if len(src.Fallback) > 0 {
			found.Warnings = append(found.Warnings, fmt.Sprintf("the settings of the backend block in .tfguard.hcl are not used: %s:%d declares a backend", found.File, found.Line))
		}
	case len(src.Fallback) > 0:
		maps.Copy(attrs, src.Fallback)
	default:
		return found, fmt.Errorf("%s: %w", src.Dir, ErrNoBackend)
	}

	warnings, err := merge(attrs, src.BackendConfig)
	if err != nil {
		return found, &FlagError{err}
	}
	found.Warnings = append(found.Warnings, warnings...)
	for _, name := range []string{"TF_CLI_ARGS", "TF_CLI_ARGS_init"} {
		if strings.Contains(env(name), "backend-config") {
			found.Warnings = append(found.Warnings, "the -backend-config in "+name+" is not read: give it to tfguard as --backend-config")
		}
	}

	found.Settings = settings(attrs)
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if found.Settings.Region == "" {
			found.Settings.Region = env(name)
		}
	}
	if _, set := attrs["sse_customer_key"]; !set {
		found.Settings.SSECustomerKey = env("AWS_SSE_CUSTOMER_KEY")
	}
	return found, nil
}

// configFiles are the files of a directory that make up its module.
type configFiles struct {
	primary, override []string // paths, sorted by name
	generated         string   // the override that tfguard wrote
}

func list(dir string, tofu bool) (configFiles, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return configFiles{}, fmt.Errorf("read the configuration: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = !e.IsDir()
	}
	var files configFiles
	for _, e := range entries {
		name := e.Name()
		base, ext := split(name, tofu)
		switch {
		case ext == "" || e.IsDir() || strings.HasPrefix(name, "."):
			continue // main.tf~ and #main.tf#, which terraform ignores too, have no such extension
		case tofu && strings.HasPrefix(ext, ".tf") && names[base+strings.Replace(ext, ".tf", ".tofu", 1)]:
			continue // OpenTofu prefers a.tofu over a.tf
		}
		path := filepath.Join(dir, name)
		switch {
		case name == OverrideName && generated(path):
			files.generated = path
		case base == "override" || strings.HasSuffix(base, "_override"):
			files.override = append(files.override, path)
		default:
			files.primary = append(files.primary, path)
		}
	}
	return files, nil
}

// split gives a file's name without its extension, and the extension where it
// is one of a configuration file.
func split(name string, tofu bool) (base, ext string) {
	known := []string{".tf", ".tf.json"}
	if tofu {
		known = append(known, ".tofu", ".tofu.json")
	}
	for _, ext := range known {
		if base, ok := strings.CutSuffix(name, ext); ok {
			return base, ext
		}
	}
	return name, ""
}

// effective gives the backend block that counts; nil where there is none. A
// cloud block that counts is a [*NotS3Error].
func effective(files configFiles) (*hcl.Block, error) {
	var block, cloud *hcl.Block
	for _, path := range files.primary {
		backends, clouds, err := blocks(path)
		if err != nil {
			return nil, err
		}
		for _, b := range backends {
			if block != nil {
				return nil, &DuplicateError{First: block.DefRange, Second: b.DefRange}
			}
			block = b
		}
		if len(clouds) > 0 {
			cloud = clouds[0]
		}
	}
	if block != nil && cloud != nil {
		return nil, at("", &block.DefRange, fmt.Sprintf("there is a cloud block at %s:%d too: only one of the two is possible", cloud.DefRange.Filename, cloud.DefRange.Start.Line))
	}
	for _, path := range files.override {
		backends, clouds, err := blocks(path)
		if err != nil {
			return nil, err
		}
		if len(backends) > 1 {
			return nil, &DuplicateError{First: backends[0].DefRange, Second: backends[1].DefRange}
		}
		if len(backends) == 1 {
			block, cloud = backends[0], nil
		}
		if len(clouds) > 0 {
			block, cloud = nil, clouds[0]
		}
	}
	if cloud != nil {
		return nil, &NotS3Error{Type: "cloud", File: cloud.DefRange.Filename, Line: cloud.DefRange.Start.Line}
	}
	return block, nil
}

// blocks gives the backend and cloud blocks of one file.
func blocks(path string) (backends, clouds []*hcl.Block, err error) {
	src, err := ReadFile(path, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	if !mayHold(path, src) {
		return nil, nil, nil
	}
	root, err := Parse(path, src)
	if err != nil {
		return nil, nil, err
	}
	top, _, diags := root.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "terraform"}}})
	if diags.HasErrors() {
		return nil, nil, Diagnose(path, diags)
	}
	for _, t := range top.Blocks {
		in, _, diags := t.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
			{Type: "backend", LabelNames: []string{"type"}}, {Type: "cloud"},
		}})
		if diags.HasErrors() {
			return nil, nil, Diagnose(path, diags)
		}
		backends = append(backends, in.Blocks.OfType("backend")...)
		clouds = append(clouds, in.Blocks.OfType("cloud")...)
	}
	return backends, clouds, nil
}

// body evaluates a backend block, or a file of --backend-config. Names that no
// version of the S3 backend has had are warnings: a newer one may have them.
func body(path string, b hcl.Body, advice string) (map[string]any, []string, error) {
	var schema hcl.BodySchema
	for _, name := range Names() {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name})
	}
	_, unknown := b.Content(&schema)
	list, diags := b.JustAttributes()
	if diags.HasErrors() {
		if unknown.HasErrors() {
			diags = unknown // says how to write a block as an attribute
		}
		return nil, nil, Diagnose(path, diags)
	}
	attrs, err := Attributes(path, list, advice)
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	for _, d := range unknown {
		if d.Severity == hcl.DiagError {
			warnings = append(warnings, at(path, d.Subject, words(d)).Error())
		}
	}
	return attrs, warnings, nil
}

// merge puts the values of --backend-config over attrs, the later over the earlier.
func merge(attrs map[string]any, config []string) (warnings []string, err error) {
	if len(config) == 1 && config[0] == "" {
		return nil, nil // terraform's way of saying none
	}
	set := func(name string, v any) {
		if v == nil {
			delete(attrs, name)
			return
		}
		attrs[name] = v
	}
	for _, item := range config {
		name, text, isPair := strings.Cut(item, "=")
		if isPair {
			if !hclsyntax.ValidIdentifier(name) {
				return nil, &Error{File: "--backend-config", Message: fmt.Sprintf("%q is no name of a setting", quote.Line(name, 60))}
			}
			v, err := fromFlag(name, text)
			if err != nil {
				return nil, err
			}
			if _, known := attributes()[name]; !known {
				warnings = append(warnings, fmt.Sprintf("--backend-config %s: terraform's S3 backend has no such setting that tfguard knows of", name))
			}
			set(name, v)
			continue
		}
		src, err := ReadFile(item, maxFile)
		if err != nil {
			return nil, fmt.Errorf("read the file of --backend-config: %w", err)
		}
		root, err := Parse(item, src)
		if err != nil {
			return nil, err
		}
		attrs, more, err := overlay(item, root)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			set(name, attrs[name])
		}
	}
	return warnings, nil
}

// overlay is [body], with the names that are null kept as nil: in a file of
// --backend-config they unset what the block says.
func overlay(path string, root hcl.Body) (map[string]any, []string, error) {
	attrs, warnings, err := body(path, root, "")
	if err != nil {
		return nil, nil, err
	}
	all, _ := root.JustAttributes()
	for name := range all {
		if _, set := attrs[name]; !set {
			attrs[name] = nil
		}
	}
	return attrs, warnings, nil
}

// Absolute gives the values of --backend-config with their files' paths made
// absolute, for a terraform that runs in another directory. dir is the
// directory they are relative to.
func Absolute(config []string, dir string) []string {
	out := slices.Clone(config)
	for i, item := range out {
		if item != "" && !strings.Contains(item, "=") && !filepath.IsAbs(item) {
			out[i] = filepath.Join(dir, item)
		}
	}
	return out
}
