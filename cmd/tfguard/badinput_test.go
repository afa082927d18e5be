//go:build linux

package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// badRows are all rows, by what is bad.
func badRows() []badRow {
	var all []badRow
	for _, some := range [][]badRow{
		badUsage(), badSettings(), badConfigurations(), badBackends(), badPermissions(), badNetworks(),
		badLocks(), badStates(), badPlans(), badSnapshots(), badMachines(),
	} {
		all = append(all, some...)
	}
	return all
}

// badApply is the whole sequence without a person.
func badApply(more ...string) []string { return append([]string{"apply", "--auto-approve"}, more...) }

// badUsage is what is typed wrong: 3, before anything is touched.
func badUsage() []badRow {
	return []badRow{
		{sentence: "a command that there is not", args: []string{"deploy"}, code: 3,
			stderr: []string{`no such command: "deploy"`}, hint: "tfguard --help"},
		{sentence: "a command with terminal escapes in its name", args: []string{"\x1b]0;owned\a\x1b[2Jplan"}, code: 3,
			stderr: []string{"no such command"}, hint: "tfguard --help"},
		{sentence: "a flag that there is not", args: []string{"plan", "--frobnicate"}, code: 3,
			stderr: []string{"frobnicate"}, hint: "tfguard plan --help"},
		{sentence: "a flag with terminal escapes and a workflow command in its name", args: []string{"apply", "--\x1b[2J\n::set-output name=a::b"}, code: 3,
			hint: "tfguard apply --help"},
		{sentence: "a flag without its value", args: []string{"apply", "--wait"}, code: 3,
			stderr: []string{"--wait"}, hint: "--help"},
		{sentence: "a wait that is no duration", args: []string{"apply", "--auto-approve", "--wait", "soon"}, code: 3,
			stderr: []string{"soon", "wait"}, hint: "tfguard apply --help"},
		{sentence: "a wait in the environment that is no duration", args: badApply(), code: 3,
			given:  func(w *badWorld) { w.env["TFGUARD_WAIT"] = "nonsense" },
			stderr: []string{"TFGUARD_WAIT", "nonsense"}, hint: "tfguard apply --help"},
		{sentence: "an approval in the environment that is neither yes nor no", args: []string{"apply"}, code: 3,
			given:  func(w *badWorld) { w.env["TFGUARD_AUTO_APPROVE"] = "yes please" },
			stderr: []string{"TFGUARD_AUTO_APPROVE", "yes please"}, hint: "tfguard apply --help"},
		{sentence: "a negative wait", args: []string{"apply", "--auto-approve", "--wait", "-5m"}, code: 3,
			stderr: []string{"--wait"}, hint: "tfguard apply --help"},
		{sentence: "a negative budget of deletions", args: []string{"apply", "--auto-approve", "--max-deletes", "-1"}, code: 3,
			stderr: []string{"--max-deletes -1"}, hint: "tfguard apply --help"},
		{sentence: "a negative parallelism", args: []string{"plan", "--parallelism", "-3"}, code: 3,
			stderr: []string{"--parallelism"}, hint: "tfguard plan --help"},
		{sentence: "an unknown way to treat stale locks", args: []string{"apply", "--auto-approve", "--unlock-stale", "always"}, code: 3,
			stderr: []string{"--unlock-stale", "never, approved or proven"}, hint: "tfguard apply --help"},
		{sentence: "an argument where none is taken", args: []string{"plan", "production"}, code: 3,
			stderr: []string{`"production"`}, hint: "tfguard plan --help"},
		{sentence: "two plan files", args: []string{"apply", "a.tfplan", "b.tfplan"}, code: 3,
			stderr: []string{"one plan file"}, hint: "tfguard apply --help"},
		{sentence: "an apply that nobody can approve", args: []string{"apply"}, code: 3,
			stderr: []string{"no terminal"}, hint: "--auto-approve"},
		{sentence: "a destroy that nobody can approve", args: []string{"destroy"}, code: 3,
			stderr: []string{"no terminal"}, hint: "--auto-approve"},
		{sentence: "a restore that nobody can approve", args: []string{"snapshot", "restore", "20260101T000000.000Z-manual-1"}, code: 3,
			stderr: []string{"no terminal"}, hint: "--auto-approve"},
		{sentence: "a restore without an ID", args: []string{"snapshot", "restore", "--auto-approve"}, code: 3,
			stderr: []string{"ID"}, hint: "tfguard snapshot list"},
		{sentence: "a forced unlock without an ID", args: []string{"unlock", "--force"}, code: 3,
			stderr: []string{"--id"}, hint: "tfguard locks"},
		{sentence: "a directory that is not there", args: []string{"plan", "-C", "nowhere"}, code: 3,
			stderr: []string{"nowhere", "no such directory"}, hint: "-C"},
		{sentence: "a file in place of the directory", args: []string{"plan", "-C", "main.tf"}, code: 3,
			stderr: []string{"main.tf", "not a directory"}, hint: "-C"},
		{sentence: "a directory's name with terminal escapes", args: []string{"plan", "-C", "\x1b[31mred\x1b[0m"}, code: 3,
			stderr: []string{"no such directory"}, hint: "-C"},
		{sentence: "a directory's name that no system takes", args: []string{"plan", "-C", strings.Repeat("x", 100_000)}, code: 3,
			stderr: []string{"--chdir"}, hint: "-C"},
		{sentence: "a target that is not UTF-8", args: []string{"plan", "--target", "\xff\xfe[\x1b[2J\""}, code: 1,
			stderr: []string{"Invalid target"}},
		{sentence: "a workspace that a file names and nobody can mean", args: []string{"plan"}, code: 3,
			given:  func(w *badWorld) { w.file(".terraform/environment", "../\x1b[2J::set-output name=a::b") },
			stderr: []string{".terraform/environment"}, hint: "tfguard plan --help"},
		{sentence: "a workspace with a slash in TF_WORKSPACE", args: []string{"plan"}, code: 3,
			given:  func(w *badWorld) { w.env["TF_WORKSPACE"] = "../prod" },
			stderr: []string{"TF_WORKSPACE", `"../prod"`}, hint: "tfguard plan --help"},
		{sentence: "a workspace that leads out of its prefix", args: []string{"plan", "--workspace", ".."}, code: 3,
			stderr: []string{"--workspace", `".."`}, hint: "tfguard plan --help"},
		{sentence: "locking switched off behind tfguard's back", args: badApply(), code: 3,
			given:  func(w *badWorld) { w.env["TF_CLI_ARGS"] = "-lock=false" }, // G1
			stderr: []string{"TF_CLI_ARGS", "-lock=false"}, hint: "unset"},
		{sentence: "a backend setting without a name", args: []string{"plan", "--backend-config", "=x"}, code: 3,
			stderr: []string{"--backend-config"}, hint: "tfguard plan --help"},
		{sentence: "a file of backend settings that is not there", args: []string{"plan", "--backend-config", "prod.hcl"}, code: 3,
			stderr: []string{"prod.hcl", "--backend-config"}, hint: "tfguard plan --help"},
		{sentence: "a terraform version that is none", args: []string{"plan", "--terraform-version", "latest & greatest"}, code: 3,
			stderr: []string{`"latest & greatest"`}, hint: "tfguard plan --help"},
	}
}

// badSettings is a .tfguard.hcl that cannot be used: 3, with file, line and column.
func badSettings() []badRow {
	row := func(sentence, text string, code int, stderr ...string) badRow {
		return badRow{sentence: sentence, args: []string{"plan"}, code: code, stderr: stderr,
			given: func(w *badWorld) { w.file(".tfguard.hcl", text) }}
	}
	return []badRow{
		row("settings with an unknown name", "locks {\n  stale_afer = \"1h\"\n}\n", 3, ".tfguard.hcl:2:3", "stale_afer"),
		row("settings with an unknown block", "lock {\n}\n", 3, ".tfguard.hcl:1:1", `"lock"`),
		row("settings of a wrong type", "guard {\n  max_deletes = \"three\"\n}\n", 3, ".tfguard.hcl:2:17", "max_deletes"),
		row("settings with a bad duration", "locks {\n  wait = \"soon\"\n}\n", 3, ".tfguard.hcl:2:10", "wait", "soon"),
		row("settings that call a function", "terraform {\n  bin = file(\"/etc/passwd\")\n}\n", 3, ".tfguard.hcl:2:9", "bin"),
		row("settings that are not finished", "locks {\n  wait = \"1m\"\n", 3, ".tfguard.hcl:"),
		row("settings that are binary", "\x7fELF\x00\x01\x02\x1b[2J\xff\xfe\x00", 3, ".tfguard.hcl:1:"),
		row("settings of 2 MiB", strings.Repeat("# nothing but a comment\n", 2<<20/24), 3, ".tfguard.hcl", "larger than"),
		row("settings that nest without end", "locks {\n  wait = "+strings.Repeat("[", 200_000)+"\n}\n", 3, ".tfguard.hcl:2:", "too deep"),
		row("settings with a number that nothing can hold", "guard {\n  max_deletes = 1e99999999\n}\n", 3, ".tfguard.hcl:2:17"),
		{sentence: "settings that are a directory", args: []string{"plan"}, code: 3,
			given:  func(w *badWorld) { w.must(nil, os.Mkdir(w.path(".tfguard.hcl"), 0o700)) },
			stderr: []string{".tfguard.hcl"}},
		{sentence: "settings that are a pipe which nobody writes to", args: []string{"plan"}, code: 3,
			given:  func(w *badWorld) { w.must(nil, syscall.Mkfifo(w.path(".tfguard.hcl"), 0o600)) },
			stderr: []string{".tfguard.hcl"}},
		{sentence: "a settings file that is named and not there", args: []string{"plan", "--config", "nowhere.hcl"}, code: 3,
			stderr: []string{"nowhere.hcl"}},
		{sentence: "a hook whose program is not there", args: []string{"plan"}, code: 1,
			given: func(w *badWorld) {
				w.file(".tfguard.hcl", "hook \"build\" {\n  before  = \"check\"\n  command = [\"./no-such-build.sh\"]\n}\n")
			},
			stderr: []string{"hook build", "no-such-build.sh"}},
	}
}

// badConfigurations are terraform code without a backend that tfguard can
// guard: 1, with the place and the next command.
func badConfigurations() []badRow {
	row := func(sentence, hint, text string, stderr ...string) badRow {
		return badRow{sentence: sentence, args: []string{"plan"}, code: 1, stderr: stderr, hint: hint,
			given: func(w *badWorld) { w.file("main.tf", text) }}
	}
	return []badRow{
		{sentence: "an empty directory", args: []string{"plan"}, code: 1,
			given:  func(w *badWorld) { w.must(nil, os.Remove(w.path("main.tf"))) },
			stderr: []string{"no terraform files"}, hint: "-C"},
		row("a configuration without a backend", `backend "s3"`, badConfiguration, "no backend block"),
		row("a backend of another type", `backend "s3"`, "terraform {\n  backend \"gcs\" {\n    bucket = \"b\"\n  }\n}\n", "main.tf:2", `"gcs"`),
		row("a cloud block", `backend "s3"`, "terraform {\n  cloud {\n    organization = \"acme\"\n  }\n}\n", "main.tf:2", "HCP Terraform"),
		{sentence: "two backend blocks", args: []string{"plan"}, code: 1,
			given:  func(w *badWorld) { w.file("second.tf", w.backend(nil)) },
			stderr: []string{"main.tf:2", "second.tf:2", "duplicate backend"}, hint: "remove"},
		{sentence: "a backend with a variable", args: []string{"plan"}, code: 1,
			given:  func(w *badWorld) { w.file("main.tf", w.backend(map[string]string{"key": "var.state"})) },
			stderr: []string{"main.tf:", `"key"`, "var.state", "--backend-config"}},
		{sentence: "a backend that asks for another type", args: []string{"plan"}, code: 1,
			given: func(w *badWorld) {
				w.file("main.tf", w.backend(map[string]string{"use_lockfile": `"sometimes"`}))
			},
			stderr: []string{"main.tf:", `"use_lockfile"`, "true or false"}},
		row("code that is not finished", "", "terraform {\n  backend \"s3\" {\n", "main.tf:"),
		row("code that is binary", "", "terraform \x00\x01\x02\x1b[2J\xff\xfe\x00backend", "main.tf:1"),
		row("code that nests without end", "", "terraform {\n  x = "+strings.Repeat("(", 500_000)+"\n}\n", "main.tf:2", "too deep"),
		{sentence: "code in a pipe which nobody writes to", args: []string{"plan"}, code: 1,
			given: func(w *badWorld) {
				w.must(nil, os.Remove(w.path("main.tf")))
				w.must(nil, syscall.Mkfifo(w.path("main.tf"), 0o600))
			},
			stderr: []string{"main.tf", "not a regular file"}},
		{sentence: "an invalid file beside a good backend", args: []string{"plan"}, code: 1,
			given:  func(w *badWorld) { w.file("more.tf", "resource \"terraform_data\" {\n}\n") },
			stderr: []string{"more.tf", "check"}},
		{sentence: "a file that is not formatted", args: []string{"check"}, code: 1,
			given:  func(w *badWorld) { w.file("more.tf", "locals {\na=1\n}\n") },
			stderr: []string{"more.tf", "not formatted"}, hint: "terraform fmt"},
		{sentence: "an override that tfguard did not write", args: []string{"plan"}, code: 1,
			given: func(w *badWorld) {
				w.file("main.tf", badConfiguration)
				w.file("tfguard_override.tf", "locals {}\n")
				w.file(".tfguard.hcl", "backend {\n  bucket = \""+w.addr.Bucket+"\"\n  key    = \"k\"\n  region = \"us-east-1\"\n}\n")
			},
			stderr: []string{"tfguard_override.tf", "was not written by tfguard"}, hint: "rename"},
		{sentence: "a message of the code's own with escapes and workflow commands", args: []string{"plan"}, code: 1,
			given: func(w *badWorld) {
				w.gitHub()
				w.file("more.tf", "variable \"size\" {\n  default = 1\n  validation {\n    condition     = var.size > 1\n    error_message = \"No \\u001b[2J\\n::set-output name=lock_ids::gone\\n##[error]x.\"\n  }\n}\n")
			},
			stdout: []string{"more.tf"}, then: badNoCommand, changes: badGitHubFiles()},
		{sentence: "resources and outputs whose names and values have escapes and workflow commands", args: badApply(), code: 0,
			given: func(w *badWorld) {
				w.gitHub()
				w.file("more.tf", "resource \"terraform_data\" \"each\" {\n  for_each = toset([\"\\u001b[2J\\n::set-output name=lock_ids::gone\\n##[error]x\"])\n  input    = \"${each.key}\\r::add-mask::1\"\n}\n\noutput \"all\" {\n  value = \"\\n::set-output name=lock_ids::gone\\u001b]0;x\\u0007\\n${terraform_data.each[\"\\u001b[2J\\n::set-output name=lock_ids::gone\\n##[error]x\"].output}\"\n}\n")
			},
			then: badNoCommand, changes: append(badGitHubFiles(), badWritten()...)},
		{sentence: "a hook that prints escapes", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) {
				w.file(".tfguard.hcl", "hook \"build\" {\n  before  = \"check\"\n  command = [\"sh\", \"-c\", \"printf 'x\\\\033[2J\\\\033]0;x\\\\a ##[error]y\\\\r::set-output name=a::b'; cat /dev/zero | head -c 300000\"]\n}\n")
			}},
		{sentence: "secrets on the command line", args: []string{"plan", "--verbose", "--var", "password=" + badSecretVariable, "--backend-config", "secret_key=" + badSecretKey}, code: 0},
		{sentence: "secrets in the backend that is shown", args: []string{"backend", "show"}, code: 0,
			stdout: []string{"(hidden)"}},
		{sentence: "a variables file that is not there", args: []string{"plan", "--var-file", "prod.tfvars"}, code: 1,
			stderr: []string{"prod.tfvars"}},
	}
}

// badBackends are backends that are missing or cannot be used.
func badBackends() []badRow {
	block := func(sentence string, attrs map[string]string, code int, hint string, stderr ...string) badRow {
		return badRow{sentence: sentence, args: badApply(), code: code, hint: hint, stderr: stderr,
			given: func(w *badWorld) { w.file("main.tf", w.backend(attrs)+badConfiguration) }}
	}
	return []badRow{
		block("a backend without a bucket", map[string]string{"bucket": ""}, 1, "--backend-config bucket=", "no bucket"),
		block("a backend without a key", map[string]string{"key": ""}, 1, "--backend-config key=", "no key"),
		block("a key that begins with a slash", map[string]string{"key": `"/prod.tfstate"`}, 1, "", `"/prod.tfstate"`, "slash"),
		block("no region anywhere", map[string]string{"region": ""}, 1, "", "no AWS region", "AWS_REGION"),
		block("a region that there is not", map[string]string{"region": `"mars-north-1"`, "skip_region_validation": "false"}, 1, "", "mars-north-1"),
		block("a customer key that is none", map[string]string{"encrypt": "true", "sse_customer_key": `"` + badSecretKey + `"`}, 1, "", "customer key"),
		block("a bucket's name that leads elsewhere", map[string]string{"bucket": `"../../etc"`}, 15, "tfguard backend"),
		block("a bucket's name with terminal escapes and a workflow command", map[string]string{"bucket": `"\u001b[2J\n::set-output name=a::b##[error]x"`}, 15, "tfguard backend"),
		block("a bucket's name with spaces and markup", map[string]string{"bucket": `"my bucket <script>"`}, 15, "tfguard backend"),
		block("a table's name that AWS refuses", map[string]string{"dynamodb_table": `"my table/../x"`}, 15, "tfguard backend", "my table/../x"),
		block("an endpoint that is no address", map[string]string{"endpoints": `{ s3 = "not a url at all", dynamodb = "http://[::1" }`}, 15, "tfguard backend verify"),
		{sentence: "a bucket that is not there", args: badApply(), bare: true, code: 15,
			stderr: []string{"does not exist", "bucket tfguard-test-"}, hint: "tfguard backend setup"},
		{sentence: "a table that is not there", args: badApply(), code: 15,
			given: func(w *badWorld) {
				w.file("main.tf", w.backend(map[string]string{"dynamodb_table": `"no-such-table"`})+badConfiguration)
			},
			stderr: []string{"table no-such-table", "does not exist"}, hint: "tfguard backend setup"},
		{sentence: "a table whose key is not the locks'", args: badApply(), code: 15,
			given: func(w *badWorld) {
				other := w.addr.Table + "-other"
				w.must(w.cloud.Clients.DynamoDB.CreateTable(w.Context(), &dynamodb.CreateTableInput{TableName: &other, BillingMode: dynamotypes.BillingModePayPerRequest,
					AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("Id"), AttributeType: dynamotypes.ScalarAttributeTypeS}},
					KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: aws.String("Id"), KeyType: dynamotypes.KeyTypeHash}}}))
				w.file("main.tf", w.backend(map[string]string{"dynamodb_table": fmt.Sprintf("%q", other)})+badConfiguration)
			},
			stderr: []string{"-locks-other", `"Id"`, "LockID"}, hint: "tfguard backend"},
		{sentence: "a bucket of somebody else", args: badApply(), code: 15,
			given:  func(w *badWorld) { w.refuse(w.s3(), testkit.S3Error(403, "AccessDenied", "Access Denied")) },
			stderr: []string{"bucket tfguard-test-", "another AWS account"}, hint: "bucket"},
		{sentence: "a bucket in another region", args: badApply(), code: 15,
			given: func(w *badWorld) {
				moved := testkit.S3Error(301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.")(nil)
				moved.Header["X-Amz-Bucket-Region"] = "eu-west-3"
				w.refuse(w.s3(), func(*http.Request) *testkit.Response { return moved })
			},
			stderr: []string{"another region", "eu-west-3"}, hint: "eu-west-3"},
		{sentence: "a bucket that is not there, to its locks", args: []string{"locks"}, mode: testkit.Lockfile, bare: true, code: 15,
			stderr: []string{"does not exist"}, hint: "tfguard backend setup"},
		{sentence: "a table that is not there, to its locks", args: []string{"locks"}, bare: true, code: 15,
			stderr: []string{"does not exist"}, hint: "tfguard backend setup"},
		{sentence: "a bucket that is not there, to its snapshots", args: []string{"snapshot", "list"}, bare: true, code: 15,
			stderr: []string{"does not exist"}, hint: "tfguard backend setup"},
		{sentence: "a workspace that is not there", args: []string{"plan", "--workspace", "staging"}, code: 1,
			stderr: []string{"staging"}, hint: "--setup-backend"},
	}
}

// s3 matches every request to S3.
func (w *badWorld) s3() func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Header.Get("X-Amz-Target") == "" && strings.HasPrefix(r.URL.Path, "/"+w.addr.Bucket)
	}
}

// on matches S3 requests for one key, by one of the methods, or any.
func (w *badWorld) on(key string, methods ...string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.URL.Path == "/"+w.addr.Bucket+"/"+key && (len(methods) == 0 || strings.Contains(strings.Join(methods, " "), r.Method))
	}
}

// refuse answers in place of the cloud, for good.
func (w *badWorld) refuse(match func(*http.Request) bool, answer func(*http.Request) *testkit.Response) *testkit.Fault {
	return w.proxy.Add(testkit.Fault{Match: match, Answer: answer})
}

// badDenied is AWS's own wording where the identity lacks a permission.
func badDenied(action, resource string) string {
	return "User: arn:aws:sts::111122223333:assumed-role/ci/run is not authorized to perform: " + action +
		" on resource: " + resource + " because no identity-based policy allows the " + action + " action"
}

// badPermissions are permissions and credentials that are missing.
func badPermissions() []badRow {
	s3Denied := func(action, resource string) func(*http.Request) *testkit.Response {
		return testkit.S3Error(403, "AccessDenied", badDenied(action, strings.ReplaceAll(resource, `"`, "")))
	}
	dynamoDenied := func(w *badWorld, action string) func(*http.Request) *testkit.Response {
		return testkit.DynamoDBError(400, "AccessDeniedException", badDenied(action, "arn:aws:dynamodb:us-east-1:111122223333:table/"+w.addr.Table))
	}
	everything := func(w *badWorld, code string, status int) {
		w.refuse(func(r *http.Request) bool { return r.Header.Get("X-Amz-Target") == "" }, testkit.S3Error(status, code, "refused"))
		dynamo := map[string]string{"ExpiredToken": "ExpiredTokenException", "InvalidAccessKeyId": "UnrecognizedClientException"}[code]
		w.refuse(nil, testkit.DynamoDBError(400, dynamo, "refused"))
	}
	return []badRow{
		{sentence: "a state that may not be read", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				w.refuse(w.on(w.addr.Key), s3Denied("s3:GetObject", "arn:aws:s3:::"+w.addr.String()))
			},
			stderr: []string{"s3:GetObject", "env/prod/terraform.tfstate"}, hint: "allow s3:GetObject on"},
		{sentence: "a lock object that may not be read", args: badApply(), mode: testkit.Lockfile, code: 1,
			given: func(w *badWorld) {
				w.refuse(w.on(w.addr.LockKey()), s3Denied("s3:GetObject", "arn:aws:s3:::"+w.addr.Bucket+"/"+w.addr.LockKey()))
			},
			stderr: []string{"permission denied: s3:GetObject on s3://", ".tflock"}, hint: "allow s3:GetObject on"},
		{sentence: "a lock object that may not be read, to its locks", args: []string{"locks"}, mode: testkit.Lockfile, code: 1,
			given: func(w *badWorld) {
				w.refuse(w.on(w.addr.LockKey()), testkit.S3Error(403, "AccessDenied", "Access Denied"))
			},
			stderr: []string{"permission denied: s3:GetObject on s3://", ".tflock"}, hint: "allow s3:GetObject on"},
		{sentence: "a lock object that may not be written", args: badApply(), mode: testkit.Lockfile, code: 1,
			given: func(w *badWorld) {
				w.refuse(w.on(w.addr.LockKey(), "PUT"), s3Denied("s3:PutObject", "arn:aws:s3:::"+w.addr.Bucket+"/"+w.addr.LockKey()))
			},
			stderr: []string{"s3:PutObject", ".tflock"}, hint: "allow s3:PutObject on"},
		{sentence: "a lock item that may not be read", args: badApply(), code: 1,
			given:  func(w *badWorld) { w.refuse(testkit.DynamoDBOp("GetItem"), dynamoDenied(w, "dynamodb:GetItem")) },
			stderr: []string{"permission denied: dynamodb:GetItem on", "-locks"}, hint: "allow dynamodb:GetItem on"},
		{sentence: "a lock item that may not be written", args: badApply(), code: 1,
			given:  func(w *badWorld) { w.refuse(testkit.DynamoDBOp("PutItem"), dynamoDenied(w, "dynamodb:PutItem")) },
			stderr: []string{"dynamodb:PutItem", "-locks"}, hint: "allow dynamodb:PutItem on"},
		{sentence: "a table that may not be described is no obstacle", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) {
				w.refuse(testkit.DynamoDBOp("DescribeTable"), dynamoDenied(w, "dynamodb:DescribeTable"))
			},
			stderr: []string{"dynamodb:DescribeTable", "-locks"}},
		{sentence: "a backup that may not be written", args: badApply(), code: 16, // G4
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				w.refuse(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/backups/") && r.Method == "PUT" },
					s3Denied("s3:PutObject", "arn:aws:s3:::"+w.addr.Bucket+"/backups/x"))
			},
			stderr: []string{"s3:PutObject", "s3://", "/backups/"}, hint: "allow s3:PutObject on"},
		{sentence: "a bucket that may not be listed is no obstacle in the default workspace", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) {
				w.refuse(func(r *http.Request) bool { return w.s3()(r) && r.URL.Query().Has("list-type") }, s3Denied("s3:ListBucket", "arn:aws:s3:::"+w.addr.Bucket))
			}},
		{sentence: "a key of KMS that may not be used", args: badApply(), code: 16,
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				w.refuse(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/backups/") && r.Method == "PUT" },
					s3Denied("kms:GenerateDataKey", "arn:aws:kms:us-east-1:111122223333:key/0000"))
			},
			stderr: []string{"kms:GenerateDataKey", "key/0000"}, hint: "allow kms:GenerateDataKey on"},
		{sentence: "credentials that have expired", args: badApply(), code: 1,
			given:  func(w *badWorld) { everything(w, "ExpiredToken", 400) },
			stderr: []string{"tfguard-test-", "Expired"}, hint: "renew the credentials"},
		{sentence: "an access key that there is not", args: badApply(), code: 1,
			given:  func(w *badWorld) { everything(w, "InvalidAccessKeyId", 403) },
			stderr: []string{"tfguard-test-"}, hint: "credentials"},
		{sentence: "a clock that is wrong", args: []string{"locks"}, mode: testkit.Lockfile, code: 1, within: badRetries,
			given: func(w *badWorld) {
				w.refuse(nil, testkit.S3Error(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."))
			},
			stderr: []string{"RequestTimeTooSkewed", "s3:GetObject on s3://tfguard-test-"}, hint: "clock"},
		{sentence: "no credentials at all", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.file("main.tf", w.backend(map[string]string{"access_key": "", "secret_key": ""})+badConfiguration)
			},
			stderr: []string{"no AWS credentials"}, hint: "AWS_PROFILE"},
		{sentence: "a metadata service that refuses", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.file("main.tf", w.backend(map[string]string{"access_key": "", "secret_key": "", "skip_metadata_api_check": ""})+badConfiguration)
				delete(w.env, "AWS_EC2_METADATA_DISABLED")
				w.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = w.proxy.URL
				w.refuse(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/latest/") }, testkit.S3Error(403, "AccessDenied", "no"))
			},
			stderr: []string{"no AWS credentials"}, hint: "AWS_PROFILE"},
		{sentence: "a profile that there is not", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.file("main.tf", w.backend(map[string]string{"access_key": "", "secret_key": "", "profile": `"nobody"`})+badConfiguration)
			},
			stderr: []string{"profile", "nobody"}},
	}
}

// badNetworks are endpoints that do not answer, or not as AWS does.
func badNetworks() []badRow {
	html := func(status int) func(*http.Request) *testkit.Response {
		return func(*http.Request) *testkit.Response {
			return &testkit.Response{Status: status, Header: map[string]string{"Content-Type": "text/html"},
				Body: "<!doctype html><title>Log in</title><h1>Captive \x1b[31mportal\x1b[0m</h1>\n::set-output name=a::b\n##[error]x"}
		}
	}
	interrupt := func(hang func(w *badWorld) func(*http.Request) bool) func(w *badWorld, p *os.Process) {
		return func(w *badWorld, p *os.Process) {
			w.proxy.Add(testkit.Fault{Match: hang(w), Hang: true}).Wait(w)
			w.must(nil, p.Signal(os.Interrupt))
		}
	}
	passing := func(match func(w *badWorld) func(*http.Request) bool, fault testkit.Fault) func(w *badWorld) {
		return func(w *badWorld) {
			fault.Match = match(w)
			w.fault = w.proxy.Add(fault)
		}
	}
	all := func(w *badWorld, _ badResult) { // the fault was not got round
		if n := w.proxy.Hits(w.fault); n != w.fault.Times {
			w.Errorf("%d requests failed, not %d", n, w.fault.Times)
		}
	}
	table := func(*badWorld) func(*http.Request) bool { return testkit.DynamoDBOp("GetItem") }
	bucket := func(w *badWorld) func(*http.Request) bool {
		return func(r *http.Request) bool { return w.s3()(r) && r.URL.Query().Has("versioning") }
	}
	return []badRow{
		{sentence: "an endpoint that refuses connections", args: badApply(), code: 1, within: badRetries,
			given: func(w *badWorld) {
				w.file("main.tf", strings.ReplaceAll(w.backend(nil), w.proxy.URL, "http://127.0.0.1:1")+badConfiguration)
			},
			stderr: []string{"127.0.0.1:1", "refused"}, hint: "check the network"},
		{sentence: "an endpoint that breaks every connection", args: []string{"locks"}, code: 1, within: badRetries,
			given:  func(w *badWorld) { w.proxy.Add(testkit.Fault{Refuse: true}) },
			stderr: []string{"tfguard-test-", "after 5 attempts"}, hint: "check the network"},
		{sentence: "a cancel while S3 hangs", args: badApply(), code: 130,
			during: interrupt(func(w *badWorld) func(*http.Request) bool { return w.s3() }), stderr: []string{"interrupt"}},
		{sentence: "a cancel while DynamoDB hangs", args: badApply(), code: 130,
			during: interrupt(table), stderr: []string{"interrupt"}},
		{sentence: "a cancel while everything hangs", args: []string{"plan"}, code: 130,
			during: interrupt(func(*badWorld) func(*http.Request) bool { return nil }), stderr: []string{"interrupt"}},
		{sentence: "a cancel while the lock is read", args: []string{"locks"}, code: 130,
			during: interrupt(table), stderr: []string{"interrupt"}},
		{sentence: "a cancel while the plan reads a state that does not come", args: []string{"plan"}, code: 130,
			// Terraform gets its second interrupt after 10 s, waits 5 s for what hangs
			// (internal/command/meta.go, RunOperation) and leaves its lock, which is then removed.
			within: 20 * time.Second, changes: []string{"object .tfguard/env/prod/terraform.tfstate/audit/", "version .tfguard/env/prod/terraform.tfstate/audit/"},
			during: func(w *badWorld, p *os.Process) {
				var locked atomic.Bool
				w.proxy.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Done: func(*http.Request) { locked.Store(true) }})
				w.proxy.Add(testkit.Fault{Match: func(r *http.Request) bool { return locked.Load() && w.on(w.addr.Key)(r) }, Hang: true}).Wait(w)
				w.must(nil, p.Signal(os.Interrupt))
			},
			stderr: []string{"interrupt"}},
		{sentence: "a cancel while the holder record is written and comes through late", args: badApply(), code: 130, // G3
			during: func(w *badWorld, p *os.Process) {
				came := make(chan struct{})
				w.proxy.Add(testkit.Fault{Match: w.on(w.addr.HolderKey(), "PUT"), Times: 1, Before: func(r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(body))
					close(came)
					select {
					case <-time.After(time.Second): // it waits for the answer, as it should
					case <-r.Context().Done():
						key := w.addr.HolderKey()
						_, _ = w.cloud.Clients.S3.PutObject(w.Context(), &s3.PutObjectInput{Bucket: &w.addr.Bucket, Key: &key, Body: bytes.NewReader(body)})
					}
				}})
				select {
				case <-came:
					w.must(nil, p.Signal(os.Interrupt))
				case <-time.After(30 * time.Second):
					w.Error("no holder record was written")
				}
			},
			stderr: []string{"interrupt"}},
		{sentence: "a portal that sends every request elsewhere", args: badApply(), code: 1, within: badRetries,
			given: func(w *badWorld) {
				w.refuse(nil, func(*http.Request) *testkit.Response {
					return &testkit.Response{Status: 302, Header: map[string]string{"Location": w.proxy.URL + "/login"}}
				})
			},
			stderr: []string{"tfguard-test-"}, hint: "endpoint"},
		{sentence: "a lock whose answer breaks off", args: []string{"locks"}, mode: testkit.Lockfile, code: 1, within: badRetries,
			given: func(w *badWorld) {
				w.refuse(w.on(w.addr.LockKey()), func(*http.Request) *testkit.Response {
					return &testkit.Response{Status: 200, Header: map[string]string{"Content-Length": "500"}, Body: `{"ID":"`}
				})
			},
			stderr: []string{".tflock"}, hint: "check the network"},
		{sentence: "an endpoint that answers with a web page", args: badApply(), code: 1,
			given: func(w *badWorld) { w.refuse(nil, html(200)) }, stderr: []string{"tfguard-test-"}, hint: "endpoint"},
		{sentence: "a gateway that answers with a web page", args: badApply(), code: 1, within: badRetries,
			given: func(w *badWorld) { w.refuse(nil, html(502)) }, stderr: []string{"tfguard-test-"}, hint: "endpoint"},
		{sentence: "a proxy's page in place of the lock is not \"no lock\"", args: []string{"locks"}, mode: testkit.Lockfile, code: 1,
			given: func(w *badWorld) { w.refuse(w.on(w.addr.LockKey()), html(404)) }, stderr: []string{".tflock"}, hint: "endpoint"},
		{sentence: "three failures of S3 in a row pass", args: []string{"plan"}, code: 0,
			given: passing(bucket, testkit.Fault{Times: 3, Answer: testkit.S3Error(500, "InternalError", "We encountered an internal error.")}), then: all},
		{sentence: "three requests to slow down pass", args: []string{"plan"}, code: 0,
			given: passing(bucket, testkit.Fault{Times: 3, Answer: testkit.S3Error(503, "SlowDown", "Please reduce your request rate.")}), then: all},
		{sentence: "four failures of DynamoDB in a row pass", args: []string{"locks"}, code: 0, within: badRetries,
			given: passing(table, testkit.Fault{Times: 4, Answer: testkit.DynamoDBError(500, "InternalServerError", "later")}), then: all},
		{sentence: "four throttled reads of the lock pass", args: []string{"locks"}, code: 0, within: badRetries,
			given: passing(table, testkit.Fault{Times: 4, Answer: testkit.DynamoDBError(400, "ProvisionedThroughputExceededException", "slow")}), then: all},
		{sentence: "answers that get lost on their way pass", args: []string{"locks"}, code: 0,
			given: passing(table, testkit.Fault{Times: 3, Drop: true}), then: all},
	}
}

// badLocks are locks that cannot be judged, or that would do something to
// whoever looks at them (G6, G7).
func badLocks() []badRow {
	hostile := map[string]any{
		"Who":       "eve@\x1b[2J\x1b]0;owned\a\r\n::set-output name=lock_ids::gone\n##[error]x",
		"Operation": "| **a** | <img src=x onerror=y> | ::error::x",
		"Info":      "\u202egnp.exe [x](javascript:y) @everyone",
		"Version":   "1.11.4\n::add-mask::1",
	}
	object := func(body func(w *badWorld) string) func(w *badWorld) {
		return func(w *badWorld) { w.object(w.addr.LockKey(), body(w)) }
	}
	item := func(value func(w *badWorld) dynamotypes.AttributeValue) func(w *badWorld) {
		return func(w *badWorld) { w.item(w.addr.LockID(), "Info", value(w)) }
	}
	text := func(body func(w *badWorld) string) func(w *badWorld) {
		return item(func(w *badWorld) dynamotypes.AttributeValue { return badText(body(w)) })
	}
	always := func(s string) func(*badWorld) string { return func(*badWorld) string { return s } }
	gitHub := func(given func(w *badWorld)) func(w *badWorld) {
		return func(w *badWorld) {
			given(w)
			w.gitHub()
		}
	}
	unclear := func(sentence, mode string, given func(w *badWorld)) badRow {
		return badRow{sentence: sentence, args: badApply(), mode: mode, code: 12, given: given,
			stderr: []string{"cannot be judged"}, hint: "tfguard unlock --force --id"}
	}
	return []badRow{
		unclear("a lock item that is cut off", testkit.DynamoDB, text(func(w *badWorld) string { return w.lock(time.Hour, nil)[:80] })),
		unclear("a lock item of 380 KiB", testkit.DynamoDB, text(func(w *badWorld) string {
			return w.lock(time.Hour, map[string]any{"Who": strings.Repeat("a", 380<<10)})
		})),
		unclear("a lock item whose Info is a number", testkit.DynamoDB, item(func(*badWorld) dynamotypes.AttributeValue {
			return &dynamotypes.AttributeValueMemberN{Value: "7"}
		})),
		unclear("a lock item whose Info is binary", testkit.DynamoDB, item(func(*badWorld) dynamotypes.AttributeValue {
			return &dynamotypes.AttributeValueMemberB{Value: []byte("\x00\x1b[2J\xff")}
		})),
		unclear("a lock item without Info", testkit.DynamoDB, item(func(*badWorld) dynamotypes.AttributeValue { return nil })),
		unclear("a lock item whose Info is empty", testkit.DynamoDB, text(always(""))),
		unclear("a lock item that is a list", testkit.DynamoDB, text(always("[]"))),
		unclear("a lock without Created", testkit.DynamoDB, text(always(`{"ID":"test123","Who":"manual-test"}`))),
		unclear("a lock from the far future", testkit.DynamoDB, text(func(w *badWorld) string { return w.lock(-8000*24*time.Hour, nil) })),
		unclear("a lock whose ID would approve others", testkit.DynamoDB, text(func(w *badWorld) string {
			return w.lock(time.Hour, map[string]any{"ID": "a b\n--force"})
		})),
		unclear("a lock object that is empty", testkit.Lockfile, object(always(""))),
		unclear("a lock object that is cut off", testkit.Lockfile, object(func(w *badWorld) string { return w.lock(time.Hour, nil)[:80] })),
		unclear("a lock object of 1 MiB", testkit.Lockfile, object(func(w *badWorld) string { return w.lock(time.Hour, nil) + strings.Repeat(" ", 1<<20) })),
		unclear("a lock object that nests without end", testkit.Lockfile, object(always(strings.Repeat("[", 60_000)))),
		unclear("two locks of which one is cut off", testkit.Both, func(w *badWorld) {
			w.object(w.addr.LockKey(), w.lock(time.Hour, nil))
			w.item(w.addr.LockID(), "Info", badText(w.lock(time.Hour, nil)[:40]))
		}),
		{sentence: "a lock object of somebody who is at work", args: badApply(), mode: testkit.Lockfile, code: 10, // G1
			given:  object(func(w *badWorld) string { return w.lock(time.Minute, nil) }),
			stderr: []string{badLockID, "alice@build-7"}, hint: "--wait"},
		{sentence: "a hostile lock", args: badApply(), code: 10,
			given:  text(func(w *badWorld) string { return w.lock(time.Minute, hostile) }),
			stderr: []string{badLockID, "eve@"}, hint: "--wait"},
		{sentence: "a hostile lock, to its locks", args: []string{"locks"}, code: 10,
			given:  text(func(w *badWorld) string { return w.lock(time.Minute, hostile) }),
			stdout: []string{badLockID, "eve@"}},
		{sentence: "a hostile lock, to a GitHub runner", args: badApply(), code: 10,
			given: gitHub(text(func(w *badWorld) string { return w.lock(time.Minute, hostile) })), then: badNoCommand,
			changes: badGitHubFiles()},
		{sentence: "a hostile lock, to a GitHub runner and its locks", args: []string{"locks", "--json"}, code: 10,
			given: gitHub(text(func(w *badWorld) string { return w.lock(time.Minute, hostile) })), then: badNoCommand,
			changes: badGitHubFiles()},
		{sentence: "a hostile stale lock, to a GitHub runner", args: badApply(), code: 11,
			given: gitHub(text(func(w *badWorld) string { return w.lock(time.Hour, hostile) })), then: badNoCommand,
			changes: badGitHubFiles(), hint: "tfguard unlock --id " + badLockID},
		{sentence: "the approval of another lock", args: badApply("--approve-lock", "someone-elses"), code: 13, // G2
			given:  text(func(w *badWorld) string { return w.lock(time.Hour, nil) }),
			stderr: []string{"someone-elses", "nothing was removed"}, hint: "tfguard locks"},
		{sentence: "an unlock of another lock", args: []string{"unlock", "--id", "someone-elses"}, code: 13,
			given:  text(func(w *badWorld) string { return w.lock(time.Hour, nil) }),
			stderr: []string{"someone-elses", "nothing was removed"}, hint: "tfguard locks"},
		{sentence: "an unlock of a lock whose holder is at work", args: []string{"unlock", "--id", badLockID}, code: 10,
			given:  text(func(w *badWorld) string { return w.lock(time.Minute, nil) }),
			stderr: []string{badLockID}, hint: "--wait"},
		{sentence: "an unlock of a lock that cannot be judged", args: []string{"unlock", "--id", "test123"}, code: 13,
			given:  text(always(`{"ID":"test123","Who":"manual-test"}`)),
			stderr: []string{"nothing was removed"}, hint: "tfguard locks"},
		{sentence: "an unlock of a lock that cannot be judged, by its fingerprint", args: []string{"unlock", "--force"}, code: 0,
			given: func(w *badWorld) {
				w.item(w.addr.LockID(), "Info", &dynamotypes.AttributeValueMemberB{Value: []byte("\x00\x1b[2J\xff")})
				w.args = append(w.args, "--id", w.fingerprint())
			},
			changes: []string{"item ", "object .tfguard/", "version .tfguard/"}, then: func(w *badWorld, _ badResult) {
				if got := w.picture()["item "+w.addr.LockID()]; got != "" {
					w.Errorf("the lock is still there: %q", got)
				}
			}},
		{sentence: "an unlock by LOCK_IDS that would run something", args: []string{"unlock"}, code: 13,
			given: func(w *badWorld) {
				w.item(w.addr.LockID(), "Info", badText(w.lock(time.Hour, nil)))
				w.env["LOCK_IDS"] = "$(touch gone) ; --force\n\x1b[2J `touch gone`"
			},
			stderr: []string{"nothing was removed"}, hint: "tfguard locks"},
		{sentence: "an apply does not remove what cannot be judged, whatever is approved", args: badApply(), code: 12,
			given: func(w *badWorld) {
				w.item(w.addr.LockID(), "Info", badText(`{"ID":"test123","Who":"manual-test"}`))
				w.args = append(w.args, "--unlock-stale", "proven", "--approve-lock", "test123", "--approve-lock", w.fingerprint())
			},
			stderr: []string{"cannot be judged"}, hint: "tfguard unlock --force --id"},
		{sentence: "LOCK_IDS approves nothing for an apply", args: badApply(), code: 11,
			given: func(w *badWorld) {
				w.item(w.addr.LockID(), "Info", badText(w.lock(time.Hour, nil)))
				w.env["LOCK_IDS"] = badLockID
			},
			stderr: []string{"waits for approval"}, hint: "tfguard unlock --id " + badLockID},
		{sentence: "a lock that is swapped between look and removal", args: badApply("--approve-lock", badLockID), code: 13, // G2
			given: func(w *badWorld) {
				w.item(w.addr.LockID(), "Info", badText(w.lock(time.Hour, nil)))
				w.proxy.Add(testkit.Fault{Match: testkit.DynamoDBOp("DeleteItem"), Times: 1, Before: func(*http.Request) {
					w.item(w.addr.LockID(), "Info", badText(w.lock(0, map[string]any{"ID": "c0ffee00-0000-4000-8000-000000000000"})))
				}})
			},
			stderr: []string{"nothing was removed"}, hint: "tfguard locks",
			changes: []string{"item "}, then: func(w *badWorld, _ badResult) {
				if got := w.picture()["item "+w.addr.LockID()]; !strings.Contains(got, "c0ffee00") {
					w.Errorf("the other's lock is gone: %q", got)
				}
			}},
	}
}

// badNoCommand looks for a workflow command that the program did not mean.
func badNoCommand(w *badWorld, r badResult) {
	for line := range strings.Lines(strings.ReplaceAll(r.stdout+r.stderr, "\r", "\n")) {
		for _, command := range []string{"::set-output", "::error::x", "::add-mask"} {
			if strings.HasPrefix(strings.TrimSpace(line), command) {
				w.Errorf("a runner would take this for a command: %q", line)
			}
		}
	}
	for _, name := range []string{"output", "env"} {
		src, err := os.ReadFile(filepath.Join(w.root, "home", name))
		w.must(nil, err)
		for line := range strings.Lines(string(src)) {
			if strings.HasPrefix(line, "::") || strings.HasPrefix(line, "lock_ids=") {
				w.Errorf("%s has the line %q", name, line)
			}
		}
	}
}

// fingerprint is that of the one lock that there is.
func (w *badWorld) fingerprint() string {
	w.Helper()
	out, err := w.command(w.Context(), []string{"locks", "--json"}).Output()
	var seen lock.Report
	if json.Unmarshal(out, &seen) != nil || len(seen.Locks) != 1 {
		w.Fatalf("locks --json: %v: %s", err, out)
	}
	return seen.Locks[0].Fingerprint
}

// badGitHubFiles are the files of a step.
func badGitHubFiles() []string {
	return []string{"file home/output", "file home/env", "file home/summary"}
}

// gitHub makes this a step of GitHub Actions.
func (w *badWorld) gitHub() {
	w.env["GITHUB_ACTIONS"], w.env["GITHUB_WORKSPACE"] = "true", w.dir
	for _, name := range []string{"output", "env", "summary"} {
		path := filepath.Join(w.root, "home", name)
		w.must(nil, os.WriteFile(path, nil, 0o600))
		w.env[map[string]string{"output": "GITHUB_OUTPUT", "env": "GITHUB_ENV", "summary": "GITHUB_STEP_SUMMARY"}[name]] = path
	}
}

// badStates are states that terraform or tfguard cannot take.
func badStates() []badRow {
	holding := func(body string) func(w *badWorld) {
		return func(w *badWorld) { w.object(w.addr.Key, body) }
	}
	broken := func(sentence, body string) badRow {
		return badRow{sentence: sentence, args: badApply(), code: 1, given: holding(body),
			stderr: []string{"env/prod/terraform.tfstate"}, hint: "tfguard snapshot list"}
	}
	return []badRow{
		broken("a state that is not JSON", "this is \x1b[2J not a state"),
		broken("a state that is cut off", badState(badLineage, 3)[:60]),
		broken("a state that a newer terraform wrote", `{"version":5,"terraform_version":"9.9.9","serial":1,"lineage":"x"}`),
		{sentence: "a state object that is empty is no state", args: []string{"plan"}, code: 0, given: holding("")},
		{sentence: "a state in the format of terraform 0.11", args: badApply(), code: 16, // what cannot be read cannot be kept
			given:  holding(`{"version":3,"serial":1,"lineage":"x","modules":[]}`),
			stderr: []string{"env/prod/terraform.tfstate", "format version"}, hint: "tfguard snapshot list"},
		{sentence: "a snapshot of a state that is not JSON", args: []string{"snapshot", "create"}, code: 16, given: holding("not a state"),
			stderr: []string{"not a terraform state", "env/prod/terraform.tfstate"}, hint: "tfguard snapshot list"},
		{sentence: "a state whose lineage has escapes", args: []string{"snapshot", "create"}, code: 0,
			given:   holding(strings.ReplaceAll(badState("LINEAGE", 3), "LINEAGE", `\u001b[2J\n::set-output name=a::b##[error]`)),
			changes: []string{"object backups/", "version backups/"}},
		{sentence: "a digest that does not match", args: badApply(), code: 1, within: badRetries, // terraform looks again for 10 s
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				w.item(w.addr.DigestID(), "Digest", badText("00000000000000000000000000000000"))
			},
			stderr: []string{"checksum", "env/prod/terraform.tfstate"}, hint: "tfguard state repair"},
		{sentence: "a digest that is no digest is tolerated, as terraform does", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				w.item(w.addr.DigestID(), "Digest", &dynamotypes.AttributeValueMemberN{Value: "12"})
			}},
		{sentence: "an errored.tfstate of an earlier run", args: badApply(), code: 1, // G4
			given:  func(w *badWorld) { w.file("errored.tfstate", badState(badLineage, 9)) },
			stderr: []string{"errored.tfstate"}, hint: "tfguard state repair"},
		{sentence: "a state of the other format's version beside no lock", args: []string{"locks"}, code: 0, given: holding("not a state")},
	}
}

// badPlans are plan files that must not be applied (G5).
func badPlans() []badRow {
	saved := func(w *badWorld) {
		w.tfguard("plan", "--out", "saved.tfplan")
		w.proxy.Reset()
	}
	noApply := func(w *badWorld, _ badResult) {
		for _, r := range w.proxy.Requests() {
			if strings.HasPrefix(r, "PUT") && !strings.Contains(r, "/holder.json") || r == "dynamodb:PutItem" {
				w.Errorf("something was written: %s", r)
			}
		}
	}
	file := func(content func() string) func(w *badWorld) {
		return func(w *badWorld) { w.file("saved.tfplan", content()) }
	}
	use := []string{"apply", "saved.tfplan"}
	none := func(sentence string, given func(w *badWorld), stderr ...string) badRow {
		return badRow{sentence: sentence, args: use, code: 3, given: given, then: noApply,
			stderr: append(stderr, "saved.tfplan"), hint: "tfguard plan --out"}
	}
	stale := func(sentence string, given func(w *badWorld), stderr ...string) badRow {
		return badRow{sentence: sentence, args: use, code: 13, then: noApply, stderr: stderr, hint: "tfguard plan",
			given: func(w *badWorld) {
				w.object(w.addr.Key, badState(badLineage, 3))
				saved(w)
				given(w)
			}}
	}
	out := func(sentence, path string, given func(w *badWorld)) badRow {
		return badRow{sentence: sentence, args: []string{"plan", "--out", path}, code: 3, given: given,
			stderr: []string{"--out", path}, hint: "tfguard plan --help", then: noApply}
	}
	return []badRow{
		{sentence: "a plan file that is not there", args: use, code: 1, then: noApply,
			stderr: []string{"saved.tfplan", "no such file"}, hint: "tfguard plan --out"},
		{sentence: "a plan file that is a link to nowhere", args: use, code: 1, then: noApply,
			given:  func(w *badWorld) { w.must(nil, os.Symlink("nowhere", w.path("saved.tfplan"))) },
			stderr: []string{"saved.tfplan", "no such file"}, hint: "tfguard plan --out"},
		none("a plan file that is a directory", func(w *badWorld) { w.must(nil, os.Mkdir(w.path("saved.tfplan"), 0o700)) }),
		none("a plan file that is a pipe which nobody writes to", func(w *badWorld) { w.must(nil, syscall.Mkfifo(w.path("saved.tfplan"), 0o600)) }),
		none("a plan file that is empty", file(func() string { return "" }), "not a saved plan"),
		none("a plan file that is text", file(func() string { return "{\"a\":1}\x1b[2J" }), "not a saved plan"),
		none("a plan file that is another zip", file(func() string { return badZip("readme") }), "not a saved plan"),
		none("a plan file that is a zip bomb", file(func() string { return badZip("tfplan", "tfstate", "tfguard.json") }), "not a saved plan"),
		none("a plan file that is cut off", func(w *badWorld) {
			saved(w)
			src, err := os.ReadFile(w.path("saved.tfplan"))
			w.must(nil, err)
			w.file("saved.tfplan", string(src[:len(src)/2]))
		}, "not a saved plan"),
		none("a plan that terraform itself saved", func(w *badWorld) {
			w.terraform("init")
			w.terraform("plan", "-out=saved.tfplan")
			w.proxy.Reset()
		}, "not saved by tfguard"),
		stale("a plan for another state", func(w *badWorld) {
			w.file("main.tf", w.backend(map[string]string{"key": `"env/stage/terraform.tfstate"`})+badConfiguration)
			w.must(nil, os.RemoveAll(w.path(".terraform")))
		}, "env/prod/terraform.tfstate", "env/stage/terraform.tfstate"),
		stale("a plan for another lineage", func(w *badWorld) {
			w.object(w.addr.Key, badState("ffffffff-0000-4000-8000-000000000000", 3))
		}, "the state has changed"),
		stale("a plan for another serial", func(w *badWorld) { w.object(w.addr.Key, badState(badLineage, 4)) }, "the state has changed"),
		stale("a plan for a state that is gone", func(w *badWorld) { w.object(w.addr.Key, "") }, "the state has changed"),
		stale("a plan for another configuration", func(w *badWorld) { w.file("more.tf", "locals {\n  more = true\n}\n") }, "configuration has changed"),
		stale("a plan for another workspace", func(w *badWorld) {
			w.object("env:/stage/"+w.settings.Key, badState(badLineage, 3))
			w.env["TF_WORKSPACE"] = "stage"
		}, "workspace"),
		{sentence: "a plan that is older than a day", args: use, code: 13, then: noApply, hint: "tfguard plan",
			given: func(w *badWorld) {
				saved(w)
				w.file(".tfguard.hcl", "terraform {\n  plan_max_age = \"1ns\"\n}\n")
			}, stderr: []string{"old"}},
		out("a plan that would be kept in a directory that is not there", "nowhere/saved.tfplan", nil),
		out("a plan that would be kept in place of a directory", "plans", func(w *badWorld) { w.must(nil, os.Mkdir(w.path("plans"), 0o700)) }),
		out("a plan that would be kept below a file", "main.tf/saved.tfplan", nil),
	}
}

// badZip has these entries, of 4 GiB of zeros each; but tfstate is that of a
// state, so that what comes after it is read as well.
func badZip(names ...string) string {
	var file, zeros bytes.Buffer
	z := zip.NewWriter(&file)
	deflate, _ := flate.NewWriter(&zeros, flate.BestCompression) // never fails for a known level
	chunk := func() []byte {
		zeros.Reset()
		_, _ = deflate.Write(make([]byte, 1<<20))
		_ = deflate.Flush()
		return bytes.Clone(zeros.Bytes())
	}
	first, next := chunk(), chunk() // a chunk after zeros may follow itself
	for _, name := range names {
		if name == "tfstate" {
			e, _ := z.Create(name)
			_, _ = io.WriteString(e, badState(badLineage, 3))
			continue
		}
		body := append(bytes.Clone(first), bytes.Repeat(next, 4095)...)
		e, _ := z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Deflate, UncompressedSize64: 4 << 30, CompressedSize64: uint64(len(body))})
		_, _ = e.Write(body)
	}
	_ = z.Close() // nothing fails on a buffer
	return file.String()
}

// badSnapshots are copies that must not be restored (G4).
func badSnapshots() []badRow {
	restore := []string{"snapshot", "restore", "--auto-approve"}
	// copied makes a snapshot of a state by an earlier run, and names it.
	copied := func(w *badWorld, change func(body string) string) {
		w.object(w.addr.Key, badState(badLineage, 3))
		w.tfguard("snapshot", "create")
		w.proxy.Reset()
		prefix := "object " + w.addr.SnapshotPrefix()
		for name := range w.picture() {
			if id, ok := strings.CutPrefix(name, prefix); ok {
				w.args = append(w.args, strings.TrimSuffix(id, ".tfstate"))
				w.rewrite(w.addr.SnapshotPrefix()+id, change)
			}
		}
	}
	return []badRow{
		{sentence: "a snapshot that there is not", args: append(restore, "20260101T000000.000Z-manual-1"), code: 1,
			given:  func(w *badWorld) { w.object(w.addr.Key, badState(badLineage, 3)) },
			stderr: []string{"no such snapshot", "20260101T000000.000Z-manual-1"}, hint: "tfguard snapshot list"},
		{sentence: "a snapshot's ID that is none", args: append(restore, "../../\x1b[2Jprod"), code: 1,
			given:  func(w *badWorld) { w.object(w.addr.Key, badState(badLineage, 3)) },
			stderr: []string{"no such snapshot"}, hint: "tfguard snapshot list"},
		{sentence: "copies whose names and metadata have escapes", args: []string{"snapshot", "list"}, code: 0,
			given: func(w *badWorld) {
				w.object(w.addr.SnapshotPrefix()+"20260101T000000.000Z-manual-1.tfstate", badState(badLineage, 1))
				w.object(w.addr.SnapshotPrefix()+"20260101T000000.000Z-man\x1b[2Jual-1.tfstate", badState(badLineage, 1))
				w.object("backups/pre-apply-terraform.tfstate.20260101\n::set-output name=a::b", "not a state")
				hostile := url.PathEscape("\x1b[2J\n::set-output name=a::b##[error]x")
				key := w.addr.SnapshotPrefix() + "20260102T000000.000Z-manual-2.tfstate"
				w.must(w.cloud.Clients.S3.PutObject(w.Context(), &s3.PutObjectInput{Bucket: &w.addr.Bucket, Key: &key, Body: strings.NewReader("x"),
					Metadata: map[string]string{"tfguard-run": hostile, "tfguard-commit": hostile, "tfguard-lineage": hostile, "tfguard-serial": "-1"}}))
			},
			stdout: []string{"20260101T000000.000Z-manual-1", "20260102T000000.000Z-manual-2"}},
		{sentence: "a snapshot that is cut off", args: restore, code: 16,
			given:  func(w *badWorld) { copied(w, func(body string) string { return body[:70] }) },
			stderr: []string{"cannot be restored"}, hint: "tfguard snapshot list"},
		{sentence: "a snapshot that is not JSON", args: restore, code: 16,
			given: func(w *badWorld) {
				copied(w, func(string) string { return "not \x1b[2J a state" })
			},
			stderr: []string{"cannot be restored"}, hint: "tfguard snapshot list"},
		{sentence: "a snapshot of another state", args: restore, code: 16,
			given: func(w *badWorld) {
				copied(w, func(string) string { return badState("ffffffff-0000-4000-8000-000000000000", 3) })
			},
			stderr: []string{"cannot be restored"}, hint: "tfguard snapshot list"},
		{sentence: "a good snapshot of a state with another lineage", args: restore, code: 16,
			given: func(w *badWorld) {
				copied(w, func(body string) string { return body })
				w.object(w.addr.Key, badState("ffffffff-0000-4000-8000-000000000000", 3))
			},
			stderr: []string{"cannot be restored", "lineage"}, hint: "tfguard snapshot list", changes: []string{"object backups/", "version backups/"}},
		{sentence: "a restore while somebody is at work", args: restore, code: 10, // G1
			given: func(w *badWorld) {
				copied(w, func(body string) string { return body })
				w.item(w.addr.LockID(), "Info", badText(w.lock(time.Minute, nil)))
			},
			stderr: []string{badLockID}, hint: "--wait"},
		{sentence: "a restore whose own snapshot may not be written", args: restore, code: 16,
			given: func(w *badWorld) {
				copied(w, func(body string) string { return body })
				w.refuse(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/backups/") && r.Method == "PUT" },
					testkit.S3Error(403, "AccessDenied", badDenied("s3:PutObject", "arn:aws:s3:::x")))
			},
			stderr: []string{"s3:PutObject", "the state is as it was"}, hint: "allow s3:PutObject on"},
	}
}

// badWritten is what an apply writes.
func badWritten() []string {
	return []string{"object env/prod/terraform.tfstate", "version env/prod/terraform.tfstate", "item "}
}

// badCache is where an installed terraform would be.
func badCache() []string {
	return []string{"file home/.cache/", "file home/.cache/tfguard/", "file home/.cache/tfguard/terraform/"}
}

// badMachines are programs, folders and streams that are not as they should be.
func badMachines() []badRow {
	isFile := func(name string) func(w *badWorld) { return func(w *badWorld) { w.file(name, "a file\n") } }
	script := func(lines string, mode os.FileMode) func(w *badWorld) {
		return func(w *badWorld) {
			path := filepath.Join(w.root, "home", "terraform")
			w.must(nil, os.WriteFile(path, []byte("#!/bin/sh\n"+lines), mode))
			w.args = append(w.args, "--terraform-bin", path)
		}
	}
	applied := func(w *badWorld, _ badResult) {
		if got := w.picture()["object "+w.addr.Key]; got == "" {
			w.Error("the state was not saved")
		}
	}
	return []badRow{
		{sentence: "a terraform that is not there", args: []string{"plan", "--terraform-bin", "./no-such-terraform"}, code: 1,
			stderr: []string{"no-such-terraform"}, hint: "--terraform-bin"},
		{sentence: "a terraform that may not be run", args: []string{"plan"}, code: 1, given: script("exit 0\n", 0o600),
			stderr: []string{"permission denied"}, hint: "--terraform-bin"},
		{sentence: "a terraform that tells no version", args: []string{"plan"}, code: 1, given: script("printf '\\033[2J::set-output name=a::b\\n##[error]x\\n'\n", 0o700),
			stderr: []string{"version"}, hint: "--terraform-bin"},
		{sentence: "a terraform that is no program", args: []string{"plan"}, code: 1, given: func(w *badWorld) {
			path := filepath.Join(w.root, "home", "terraform")
			w.must(nil, os.WriteFile(path, []byte("\x7fELF nothing"), 0o700))
			w.args = append(w.args, "--terraform-bin", path)
		}, stderr: []string{"terraform"}, hint: "--terraform-bin"},
		{sentence: "no terraform and no network", args: []string{"plan"}, code: 1, within: 40 * time.Second, // hc-install tries for 15 s
			given: func(w *badWorld) {
				w.env["PATH"] = filepath.Join(w.root, "home")
				w.env["HTTPS_PROXY"] = "http://127.0.0.1:1"
			},
			stderr: []string{"install"}, hint: "--terraform-bin", changes: badCache()},
		{sentence: "a version that cannot be installed offline", args: []string{"plan", "--terraform-version", "99.98.97"}, code: 1, within: 40 * time.Second,
			given:  func(w *badWorld) { w.env["HTTPS_PROXY"] = "http://127.0.0.1:1" },
			stderr: []string{"install", "99.98.97"}, hint: "--terraform-bin", changes: badCache()},
		{sentence: "a terraform that prints nonsense in place of a plan", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.standIn("plan", "printf '\\033[2J::set-output name=a::b\\n{\"type\":7}\\nnull\\n'; exit 2")
			},
			stderr: []string{"plan"}},
		{sentence: "a terraform that floods its output", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.standIn("plan", "head -c 30000000 /dev/zero; yes error | head -c 1000000 >&2; exit 1")
			},
			stderr: []string{"plan"}},
		{sentence: "a terraform that dies of a signal while it plans", args: badApply(), code: 1,
			given: func(w *badWorld) { w.standIn("plan", "kill -SEGV $$") }, stderr: []string{"plan"}},
		{sentence: "a terraform that says it has planned and writes no file", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.standIn("plan", `echo '{"type":"change_summary","changes":{"add":1,"change":0,"remove":0}}'; exit 2`)
			},
			stderr: []string{"plan"}},
		{sentence: "a terraform that dies while it applies", args: badApply(), code: 1,
			given: func(w *badWorld) { w.standIn("apply", "kill -KILL $$") }, stderr: []string{"apply"}},
		{sentence: "a folder of tfguard that is a file", args: badApply(), code: 1, given: isFile(".tfguard"),
			stderr: []string{".tfguard"}},
		{sentence: "a folder of terraform that is a file", args: badApply(), code: 1, given: isFile(".terraform"),
			stderr: []string{".terraform"}},
		{sentence: "a data directory that is a file", args: badApply(), code: 1,
			given:  func(w *badWorld) { w.file("data", "a file\n"); w.env["TF_DATA_DIR"] = "data" },
			stderr: []string{"data"}},
		{sentence: "a killed init's broken terraform.tfstate", args: []string{"plan"}, code: 0, given: isFile(".terraform/terraform.tfstate")},
		{sentence: "a data directory of another backend", args: badApply(), code: 1,
			given: func(w *badWorld) {
				w.file(".terraform/terraform.tfstate", `{"version":3,"terraform_version":"1.11.4","backend":{"type":"s3","config":{"bucket":"another","key":"k","region":"us-east-1"},"hash":1}}`)
			},
			stderr: []string{"Backend"}, hint: "terraform init -reconfigure"},
		{sentence: "no home", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) { delete(w.env, "HOME") }},
		{sentence: "no directory for temporary files", args: []string{"plan"}, code: 0,
			given: func(w *badWorld) { w.env["TMPDIR"] = filepath.Join(w.root, "nowhere") }},
		{sentence: "a reader of stdout that goes away while it applies", args: badApply(), code: 0, oneLine: true, // G4
			then: applied, changes: badWritten()},
		{sentence: "a stdout and a stderr that are closed", args: badApply(), code: 0, shell: `exec "$0" "$@" >&- 2>&-`,
			then: applied, changes: badWritten()},
		{sentence: "a stdout on a disk that is full", args: badApply(), code: 0, shell: `exec "$0" "$@" >/dev/full`,
			then: applied, changes: badWritten()},
		{sentence: "a working directory that is gone", args: []string{"plan"}, code: 3, shell: `mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"`,
			stderr: []string{"getwd", "no such file or directory"}},
		{sentence: "a full disk under the files of a GitHub step", args: badApply(), code: 0,
			given: func(w *badWorld) {
				w.gitHub()
				w.env["GITHUB_OUTPUT"], w.env["GITHUB_STEP_SUMMARY"] = "/dev/full", "/dev/full"
			},
			stderr: []string{"tfguard: warning: write GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"},
			then:   applied, changes: append(badGitHubFiles(), badWritten()...)},
		{sentence: "files of a GitHub step that are not there", args: badApply(), code: 0,
			given: func(w *badWorld) {
				w.gitHub()
				w.env["GITHUB_OUTPUT"], w.env["GITHUB_ENV"], w.env["GITHUB_STEP_SUMMARY"] = filepath.Join(w.root, "a"), "", w.root
			},
			stderr: []string{"tfguard: warning: open GITHUB_OUTPUT"},
			then:   applied, changes: badWritten()},
	}
}
