package discover_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/sandbox"
)

// cloud starts a sandbox with the bucket "state" and gives its URL.
func cloud(t *testing.T) string {
	t.Helper()
	server, err := sandbox.Open(filepath.Join(t.TempDir(), "sandbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := sandbox.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	url := "http://" + ln.Addr().String()
	for _, bucket := range []string{"state", "other"} {
		if got := request(t, http.MethodPut, url+"/"+bucket); got != http.StatusOK {
			t.Fatalf("create bucket %s: %d", bucket, got)
		}
	}
	return url
}

// request gives the status of a request to S3.
func request(t *testing.T, method, url string) int {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+sandbox.AccessKey+"/20260101/"+sandbox.Region+"/s3/aws4_request")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
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

// What Discover reads is what terraform itself resolves at init.
func TestTerraformResolvesTheSame(t *testing.T) {
	url := cloud(t)
	const basic = "terraform {\n  backend \"s3\" {\n    bucket = \"state\"\n    key = \"k\"\n    region = \"us-east-1\"\n    use_path_style = true\n  }\n}\n"
	const elsewhere = "terraform {\n  backend \"s3\" {\n    bucket = \"other\"\n    key = \"o\"\n    region = \"us-east-1\"\n    use_path_style = true\n  }\n}\n"
	for _, test := range []struct {
		name     string
		files    map[string]string
		config   []string
		fallback map[string]any
		env      []string
		bucket   string
	}{
		{name: "a block", files: map[string]string{"main.tf": basic}, bucket: "state"},
		{name: "override files", files: map[string]string{"main.tf": basic, "z_override.tf": elsewhere, "a_override.tf": basic}, bucket: "other"},
		{name: "files that look like overrides", files: map[string]string{"backend-override.tf": basic, ".x_override.tf": elsewhere, "y_override.tf~": elsewhere}, bucket: "state"},
		{
			name:  "JSON",
			files: map[string]string{"main.tf.json": `{"terraform":{"backend":{"s3":{"bucket":"state","key":"k","region":"us-east-1","use_path_style":"true","allowed_account_ids":["` + sandbox.AccountID + `"]}}}}`}, bucket: "state",
		},
		{
			name: "types that are converted", bucket: "state",
			files: map[string]string{"main.tf": strings.Replace(basic, `key = "k"`, "key = 12\n encrypt = \"true\"\n max_retries = \"2\"\n use_lockfile = \"true\"\n kms_key_id = null\n acl = \"private\"\n workspace_key_prefix = \"ws\"\n", 1)},
		},
		{
			name: "a partial block, pairs and files in order", bucket: "state",
			files:  map[string]string{"main.tf": "terraform {\n  backend \"s3\" {\n    key = \"k\"\n    dynamodb_table = \"t\"\n encrypt = true\n }\n}\n", "b.hcl": "bucket = \"state\"\nregion = \"us-west-1\"\nuse_path_style = true\ndynamodb_table = null\n"},
			config: []string{"bucket=other", "region=eu-west-1", "b.hcl", "region=us-east-1", `endpoints={s3="` + url + `"}`, "encrypt=0"},
		},
		{
			name: "a file of JSON and one of --backend-config with an object", bucket: "state",
			files:  map[string]string{"main.tf": basic, "b.json": `{"endpoints": {"s3": "` + url + `", "sts": "` + url + `"}, "key": "j", "shared_config_files": ["b", "a"]}`},
			config: []string{"b.json"},
		},
		{
			name: "the region of the environment", bucket: "state", env: []string{"AWS_REGION=us-east-1"},
			files: map[string]string{"main.tf": strings.Replace(basic, `region = "us-east-1"`, "", 1)},
		},
		{
			name: "the generated override where there is no block", bucket: "state",
			files:    map[string]string{"main.tf": "resource \"terraform_data\" \"x\" {}\n"},
			fallback: map[string]any{"bucket": "state", "key": "k", "region": "us-east-1", "use_path_style": true, "endpoints": map[string]any{"s3": url}, "use_lockfile": true},
		},
		{
			name: "the prefix that is empty", bucket: "state",
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
	url := cloud(t)
	for _, prefix := range []string{"", "workspace_key_prefix=", "workspace_key_prefix=a/b"} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"main.tf": "terraform {\n  backend \"s3\" {\n    bucket = \"state\"\n    key = \"" + "dir/k" + prefix + "\"\n    region = \"us-east-1\"\n    use_path_style = true\n  }\n}\noutput \"x\" {\n  value = 1\n}\n"})
		var config, args []string
		if prefix != "" {
			config, args = []string{prefix}, []string{"-backend-config=" + prefix}
		}
		found, err := discover.Discover(discover.Source{Dir: dir, BackendConfig: config})
		if err != nil {
			t.Fatal(err)
		}
		env := environment(t, url)
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
		if got := request(t, http.MethodGet, url+"/"+addr.Bucket+"/"+addr.Key); got != http.StatusOK {
			t.Errorf("with %q: no state at %s: %d", prefix, addr, got)
		}
	}
}

// After a killed init terraform itself cannot go on; Mend makes it work.
func TestMendLetsTerraformGoOn(t *testing.T) {
	url := cloud(t)
	dir := t.TempDir()
	data := filepath.Join(dir, ".terraform")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"main.tf":                      "terraform {\n  backend \"s3\" {\n    bucket = \"state\"\n    key = \"k\"\n    region = \"us-east-1\"\n    use_path_style = true\n  }\n}\n",
		".terraform/terraform.tfstate": "{\n  \"version\": 3,\n  \"backe",
	})
	env := environment(t, url)
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
