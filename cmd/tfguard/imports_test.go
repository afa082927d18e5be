package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tfguard/tfguard/"

// listed is what the rules need of `go list -json`.
type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// TestImports holds the import rules: pure parts take the standard library
// alone, adapters never see the pipeline nor each other, and the libraries that
// start terraform or speak AWS stay in the packages that are there for them.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "-deps", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]listed{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
	pure := []string{"internal/lock", "internal/backend", "internal/state", "internal/event", "internal/quote", "internal/planfile", "internal/pipeline"}
	shared := append(slices.Clone(pure[:6]), "internal/awsclient")
	// only names the packages that may import what stands left.
	only := map[string][]string{
		"github.com/hashicorp/terraform-exec":           {"internal/terraform"},
		"github.com/hashicorp/hc-install":               {"internal/terraform"},
		"github.com/urfave/cli":                         {"internal/app"},
		"github.com/google/go-github":                   {"internal/ci"},
		"go.etcd.io/bbolt":                              {"internal/sandbox"},
		"github.com/hashicorp/hcl":                      {"internal/config", "internal/backend/discover"},
		"github.com/hashicorp/aws-sdk-go-base":          {"internal/awsclient"},
		"github.com/aws/aws-sdk-go-v2/service/dynamodb": {"internal/awsclient", "internal/lock/dynamolock", "internal/backend/setup", "internal/testkit"},
		module + "internal/pipeline":                    {"internal/app"},
		module + "internal/app":                         {"cmd/tfguard"},
	}
	seen := 0
	for path, p := range pkgs {
		name, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		seen++
		for _, i := range p.Imports {
			if slices.Contains(pure, name) && !pkgs[i].Standard && !slices.Contains(pure, strings.TrimPrefix(i, module)) {
				t.Errorf("%s is pure and imports %s", name, i)
			}
			for lib, allowed := range only {
				if (i == lib || strings.HasPrefix(i, lib+"/")) && !slices.ContainsFunc(allowed, func(a string) bool { return name == a || strings.HasPrefix(name, a+"/") }) {
					t.Errorf("%s imports %s, which is for %s alone", name, i, strings.Join(allowed, ", "))
				}
			}
			other, oursToo := strings.CutPrefix(i, module)
			adapter := oursToo && !slices.Contains(shared, other) && !slices.Contains(pure, other)
			family := strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/")
			free := name == "internal/app" || name == "cmd/tfguard" || name == "internal/testkit" || name == "internal/lock/locktest"
			if adapter && !family && !free && !(name == "internal/config" && other == "internal/backend/discover") {
				t.Errorf("%s imports %s: adapters do not know each other", name, other)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages of the module were seen", seen)
	}
}
