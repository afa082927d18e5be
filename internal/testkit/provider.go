package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// ProviderSource is how configurations name the provider of testdata/provider.
const ProviderSource = "storm.test/storm/storm"

// Provider builds that provider into a filesystem mirror, so that init needs no
// network, and gives terraform's own configuration file (TF_CLI_CONFIG_FILE) that
// names the mirror. It is called from a folder two below the repository's root.
func Provider(t testing.TB) (rc string) {
	t.Helper()
	const version = "1.0.0"
	dir := t.TempDir()
	mirror := filepath.Join(dir, "mirror")
	out := filepath.Join(mirror, filepath.FromSlash(ProviderSource), version, runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-storm_v"+version)
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Dir = filepath.Join("..", "..", "testdata", "provider")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, text)
	}
	rc = filepath.Join(dir, "terraform.rc")
	text := fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", mirror)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return rc
}
