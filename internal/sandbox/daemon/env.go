package daemon

import (
	"path/filepath"

	"github.com/tfguard/tfguard/internal/sandbox"
)

// Env is what the environment of tfguard and terraform must have to use the
// sandbox and nothing else, whatever it had before. An empty value means that
// the variable must not be set. legacy is for terraform before 1.6, which knows
// endpoints by other names; later ones warn about those.
func (d *Daemon) Env(e Endpoint, legacy bool) map[string]string {
	none := filepath.Join(d.Dir, "no-aws-config") // a file that does not exist
	env := map[string]string{
		"AWS_ACCESS_KEY_ID": sandbox.AccessKey, "AWS_SECRET_ACCESS_KEY": sandbox.SecretKey,
		"AWS_REGION": sandbox.Region, "AWS_DEFAULT_REGION": sandbox.Region,
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
		"AWS_EC2_METADATA_DISABLED": "true",
		// What init learns of the sandbox stays away from the real .terraform.
		"TF_DATA_DIR": filepath.Join(d.Dir, "terraform"),
	}
	for _, name := range []string{
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_SSO",
	} {
		env[name] = e.URL
	}
	for _, name := range []string{"AWS_S3_ENDPOINT", "AWS_DYNAMODB_ENDPOINT", "AWS_STS_ENDPOINT", "AWS_IAM_ENDPOINT"} {
		env[name] = ""
		if legacy {
			env[name] = e.URL
		}
	}
	for _, name := range []string{
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
		"AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_CA_BUNDLE",
	} {
		env[name] = ""
	}
	return env
}

// PathStyle is the backend attribute that keeps the bucket out of the host's
// name, which is an address here.
func PathStyle(legacy bool) string {
	if legacy {
		return "force_path_style"
	}
	return "use_path_style"
}

// Overrides are the backend attributes that would lead away from the sandbox:
// with it they are unset, but for region, which has to have a value.
func Overrides() []string {
	return []string{
		"access_key", "secret_key", "token", "profile", "shared_credentials_file", "shared_credentials_files", "shared_config_files",
		"assume_role", "assume_role_with_web_identity", "role_arn", "session_name", "external_id", "assume_role_policy",
		"assume_role_policy_arns", "assume_role_tags", "assume_role_transitive_tag_keys", "assume_role_duration_seconds",
		"endpoint", "endpoints", "dynamodb_endpoint", "sts_endpoint", "iam_endpoint", "sts_region",
		"http_proxy", "https_proxy", "no_proxy", "use_path_style", "force_path_style", "custom_ca_bundle", "use_fips_endpoint", "use_dualstack_endpoint",
		"allowed_account_ids", "forbidden_account_ids", "ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode",
	}
}
