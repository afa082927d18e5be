package discover_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/sandbox"
	"github.com/tfguard/tfguard/internal/testkit"
)

// bucket makes a bucket of the test's own and gives its name.
func bucket(t *testing.T, c *testkit.Cloud) string {
	t.Helper()
	_, addr := c.State(t, testkit.Lockfile)
	return addr.Bucket
}

// environment has what terraform needs to reach the cloud at url, and nothing else.
func environment(t *testing.T, url string, more ...string) []string {
	none := filepath.Join(t.TempDir(), "none")
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1",
		"AWS_ACCESS_KEY_ID=" + sandbox.AccessKey, "AWS_SECRET_ACCESS_KEY=" + sandbox.SecretKey,
		"AWS_CONFIG_FILE=" + none, "AWS_SHARED_CREDENTIALS_FILE=" + none, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_S3=" + url, "AWS_ENDPOINT_URL_DYNAMODB=" + url, "AWS_ENDPOINT_URL_STS=" + url, "AWS_ENDPOINT_URL_IAM=" + url,
	}, more...)
}

func terraform(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command("terraform", args...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// block is a file with a backend block.
func block(bucket, key string) string {
	return fmt.Sprintf("terraform {\n  backend \"s3\" {\n    bucket = %q\n    key = %q\n    region = %q\n    use_path_style = true\n  }\n}\n", bucket, key, sandbox.Region)
}

// What Discover reads is what terraform itself resolves at init.
func TestTerraformResolvesTheSame(t *testing.T) {
	cloud := testkit.Start(t)
	url, state, other := cloud.URL, bucket(t, cloud), bucket(t, cloud)
	basic, elsewhere := block(state, "k"), block(other, "o")
	for _, test := range []struct {
		name     string
		files    map[string]string
		config   []string
		fallback map[string]any
		env      []string
		bucket   string
	}{
		{name: "a block", files: map[string]string{"main.tf": basic}, bucket: state},
		{name: "override files", files: map[string]string{"main.tf": basic, "z_override.tf": elsewhere, "a_override.tf": basic}, bucket: other},
		{name: "files that look like overrides", files: map[string]string{"backend-override.tf": basic, ".x_override.tf": elsewhere, "y_override.tf~": elsewhere}, bucket: state},
		{
			name:  "JSON",
			files: map[string]string{"main.tf.json": `{"terraform":{"backend":{"s3":{"bucket":"` + state + `","key":"k","region":"us-east-1","use_path_style":"true","forbidden_account_ids":["111111111111","222222222222"]}}}}`}, bucket: state,
		},
		{
			name: "types that are converted", bucket: state,
			files: map[string]string{"main.tf": strings.Replace(basic, `key = "k"`, "key = 12\n encrypt = \"true\"\n max_retries = \"2\"\n use_lockfile = \"true\"\n kms_key_id = null\n acl = \"private\"\n workspace_key_prefix = \"ws\"\n", 1)},
		},
		{
			name: "a partial block, pairs and files in order", bucket: state,
			files:  map[string]string{"main.tf": "terraform {\n  backend \"s3\" {\n    key = \"k\"\n    dynamodb_table = \"t\"\n encrypt = true\n }\n}\n", "b.hcl": "bucket = \"" + state + "\"\nregion = \"us-west-1\"\nuse_path_style = true\ndynamodb_table = null\n"},
			config: []string{"bucket=" + other, "region=eu-west-1", "b.hcl", "region=us-east-1", `endpoints={s3="` + url + `"}`, "encrypt=0"},
		},
		{
			name: "a file of JSON and one of --backend-config with an object", bucket: state,
			files:  map[string]string{"main.tf": basic, "b.json": `{"endpoints": {"s3": "` + url + `", "sts": "` + url + `"}, "key": "j", "shared_config_files": ["b", "a"]}`},
			config: []string{"b.json"},
		},
		{
			name: "the region of the environment", bucket: state, env: []string{"AWS_REGION=us-east-1"},
			files: map[string]string{"main.tf": strings.Replace(basic, `region = "us-east-1"`, "", 1)},
		},
		{
			name: "the generated override where there is no block", bucket: state,
			files:    map[string]string{"main.tf": "resource \"terraform_data\" \"x\" {}\n"},
			fallback: map[string]any{"bucket": state, "key": "k", "region": "us-east-1", "use_path_style": true, "endpoints": map[string]any{"s3": url}, "use_lockfile": true},
		},
		{
			name: "the prefix that is empty", bucket: state,
			files: map[string]string{"main.tf": basic}, config: []string{"workspace_key_prefix="},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, test.files)
			env := environment(t, url, test.env...)
			config := discover.Absolute(test.config, dir)
			found, err := discover.Discover(discover.Source{
				Dir: dir, BackendConfig: config, Fallback: test.fallback,
				Env: func(name string) string {
					for _, e := range slices.Backward(env) {
						if k, v, _ := strings.Cut(e, "="); k == name {
							return v
						}
					}
					return ""
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if !found.Declared {
				if _, err := discover.WriteOverride(dir, test.fallback); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"init", "-input=false", "-no-color"}
			for _, c := range config {
				args = append(args, "-backend-config="+c)
			}
			if out, err := terraform(dir, env, args...); err != nil {
				t.Fatalf("terraform init: %v\n%s", err, out)
			}
			resolved, err := discover.Resolved(filepath.Join(dir, ".terraform"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := discover.Compare(found.Settings, resolved); len(diff) > 0 {
				t.Errorf("they differ:\n%s", strings.Join(diff, "\n"))
			}
			if found.Settings.Bucket != test.bucket || resolved.Bucket != test.bucket {
				t.Errorf("bucket %q, terraform says %q, want %q", found.Settings.Bucket, resolved.Bucket, test.bucket)
			}
			if found.Settings.Region != "us-east-1" {
				t.Errorf("region %q", found.Settings.Region)
			}
		})
	}
}

// The address of a workspace's state is where terraform puts it.
func TestTerraformPutsTheStateThere(t *testing.T) {
	cloud := testkit.Start(t)
	state := bucket(t, cloud)
	for _, prefix := range []string{"", "workspace_key_prefix=", "workspace_key_prefix=a/b"} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"main.tf": block(state, "dir/k"+prefix) + "output \"x\" {\n  value = 1\n}\n"})
		var config, args []string
		if prefix != "" {
			config, args = []string{prefix}, []string{"-backend-config=" + prefix}
		}
		found, err := discover.Discover(discover.Source{Dir: dir, BackendConfig: config})
		if err != nil {
			t.Fatal(err)
		}
		env := environment(t, cloud.URL)
		for _, step := range [][]string{append([]string{"init", "-input=false"}, args...), {"workspace", "new", "staging"}, {"apply", "-auto-approve", "-input=false"}} {
			if out, err := terraform(dir, env, step...); err != nil {
				t.Fatalf("terraform %s: %v\n%s", step, err, out)
			}
		}
		workspace, err := discover.Workspace(filepath.Join(dir, ".terraform"), "", func(string) string { return "" })
		if err != nil || workspace != "staging" {
			t.Fatalf("workspace %q, %v", workspace, err)
		}
		addr, err := found.Settings.Address(workspace)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cloud.Clients.S3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &addr.Bucket, Key: &addr.Key}); err != nil {
			t.Errorf("with %q: no state at %s: %v", prefix, addr, err)
		}
	}
}

// After a killed init terraform itself cannot go on; Mend makes it work.
func TestMendLetsTerraformGoOn(t *testing.T) {
	cloud := testkit.Start(t)
	dir := t.TempDir()
	data := filepath.Join(dir, ".terraform")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"main.tf":                      block(bucket(t, cloud), "k"),
		".terraform/terraform.tfstate": "{\n  \"version\": 3,\n  \"backe",
	})
	env := environment(t, cloud.URL)
	if out, err := terraform(dir, env, "init", "-input=false"); err == nil {
		t.Fatalf("terraform init copes by itself:\n%s", out)
	}
	if mended, err := discover.Mend(data); !mended || err != nil {
		t.Fatalf("mended %v, %v", mended, err)
	}
	if out, err := terraform(dir, env, "init", "-input=false"); err != nil {
		t.Fatalf("terraform init: %v\n%s", err, out)
	}
}
