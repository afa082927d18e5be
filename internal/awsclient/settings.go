package awsclient

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	awsbase "github.com/hashicorp/aws-sdk-go-base/v2"
	"github.com/hashicorp/aws-sdk-go-base/v2/validation"

	"github.com/tfguard/tfguard/internal/backend"
)

// resolved is what settings and environment ask for.
type resolved struct {
	base           *awsbase.Config
	s3Endpoint     string // empty: AWS's own
	dynamoEndpoint string
	pathStyle      bool
	plainChecksums bool // leave out the checksums that only the SDK wants
}

// resolve reads the settings without I/O. Names, precedence and defaults are
// those of terraform's backend, the arguments of its 1.5 included.
func resolve(s backend.Settings, o Options) (resolved, error) {
	a := &attrs{values: s.Attrs}
	top := a.object("")
	endpoints := a.object("endpoints")

	region := s.Region
	if region == "" {
		region = top.text("region")
	}
	name, version, _ := strings.Cut(o.UserAgent, "/")
	c := &awsbase.Config{
		AccessKey:               top.text("access_key"),
		SecretKey:               top.text("secret_key"),
		Token:                   top.text("token"),
		Profile:                 top.text("profile"),
		Region:                  region,
		CallerName:              "S3 backend",
		CallerDocumentationURL:  "https://developer.hashicorp.com/terraform/language/backend/s3",
		MaxRetries:              max(top.number("max_retries"), o.MaxAttempts),
		MaxBackoff:              o.MaxBackoff,
		HTTPProxyMode:           awsbase.HTTPProxyModeLegacy,
		NoProxy:                 top.text("no_proxy"),
		Insecure:                top.flag("insecure"),
		SkipCredsValidation:     top.flag("skip_credentials_validation"),
		SkipRequestingAccountId: top.flag("skip_requesting_account_id"),
		SuppressDebugLog:        true,
		StsRegion:               top.text("sts_region"),
		CustomCABundle:          first(top.text("custom_ca_bundle"), o.Getenv("AWS_CA_BUNDLE")),
		RetryMode:               aws.RetryMode(first(top.text("retry_mode"), o.Getenv("AWS_RETRY_MODE"))),
		SharedConfigFiles:       top.list("shared_config_files"),
		SharedCredentialsFiles:  top.list("shared_credentials_files"),
		AllowedAccountIds:       top.list("allowed_account_ids"),
		ForbiddenAccountIds:     top.list("forbidden_account_ids"),
		UseFIPSEndpoint:         top.flagOr("use_fips_endpoint", o.Getenv("AWS_USE_FIPS_ENDPOINT") != ""),
		UseDualStackEndpoint:    top.flagOr("use_dualstack_endpoint", o.Getenv("AWS_USE_DUALSTACK_ENDPOINT") != ""),
		EC2MetadataServiceEndpoint: first(top.text("ec2_metadata_service_endpoint"),
			o.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), o.Getenv("AWS_METADATA_URL")),
		EC2MetadataServiceEndpointMode: first(top.text("ec2_metadata_service_endpoint_mode"),
			o.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")),
		IamEndpoint: first(endpoints.text("iam"), top.text("iam_endpoint"),
			o.Getenv("AWS_ENDPOINT_URL_IAM"), o.Getenv("AWS_IAM_ENDPOINT")),
		SsoEndpoint: first(endpoints.text("sso"), o.Getenv("AWS_ENDPOINT_URL_SSO")),
		StsEndpoint: first(endpoints.text("sts"), top.text("sts_endpoint"),
			o.Getenv("AWS_ENDPOINT_URL_STS"), o.Getenv("AWS_STS_ENDPOINT")),
		AssumeRole:                assumeRole(a),
		AssumeRoleWithWebIdentity: webIdentity(a),
	}
	if name != "" {
		c.UserAgent = awsbase.UserAgentProducts{{Name: name, Version: version}}
	}
	if len(c.SharedCredentialsFiles) == 0 {
		c.SharedCredentialsFiles = some(first(top.text("shared_credentials_file"), o.Getenv("AWS_SHARED_CREDENTIALS_FILE")))
	}
	if len(c.SharedConfigFiles) == 0 {
		c.SharedConfigFiles = some(first(top.text("shared_config_file"), o.Getenv("AWS_SHARED_CONFIG_FILE")))
	}
	for attr, to := range map[string]**string{"http_proxy": &c.HTTPProxy, "https_proxy": &c.HTTPSProxy} {
		if top.has(attr) {
			*to = aws.String(top.text(attr))
		}
	}
	if top.has("skip_metadata_api_check") {
		c.EC2MetadataServiceEnableState = imds.ClientEnabled
		if top.flag("skip_metadata_api_check") {
			c.EC2MetadataServiceEnableState = imds.ClientDisabled
		}
	}
	r := resolved{
		base: c,
		s3Endpoint: first(endpoints.text("s3"), top.text("endpoint"),
			o.Getenv("AWS_ENDPOINT_URL_S3"), o.Getenv("AWS_S3_ENDPOINT")),
		dynamoEndpoint: first(endpoints.text("dynamodb"), top.text("dynamodb_endpoint"),
			o.Getenv("AWS_ENDPOINT_URL_DYNAMODB"), o.Getenv("AWS_DYNAMODB_ENDPOINT")),
		pathStyle: top.flagOr("use_path_style", top.flag("force_path_style")),
	}
	r.plainChecksums = top.flag("skip_s3_checksum") || r.s3Endpoint != "" || o.Getenv("AWS_ENDPOINT_URL") != ""
	for _, e := range []*string{&r.s3Endpoint, &r.dynamoEndpoint, &c.IamEndpoint, &c.StsEndpoint, &c.SsoEndpoint} {
		if *e != "" && !strings.Contains(*e, "://") {
			*e = "https://" + *e
		}
	}
	if a.err != nil {
		return resolved{}, a.err
	}
	if region != "" && !top.flag("skip_region_validation") {
		if err := validation.SupportedRegion(region); err != nil {
			return resolved{}, fmt.Errorf("backend attribute region: %w", err)
		}
	}
	return r, a.err
}

// assumeRole reads the assume_role object, or the arguments in its place until
// terraform 1.9.
func assumeRole(a *attrs) []awsbase.AssumeRole {
	if o := a.object("assume_role"); o.exists {
		return []awsbase.AssumeRole{{
			RoleARN:           o.text("role_arn"),
			Duration:          o.duration("duration"),
			ExternalID:        o.text("external_id"),
			Policy:            strings.TrimSpace(o.text("policy")),
			PolicyARNs:        o.list("policy_arns"),
			SessionName:       o.text("session_name"),
			SourceIdentity:    o.text("source_identity"),
			Tags:              o.tags("tags"),
			TransitiveTagKeys: o.list("transitive_tag_keys"),
		}}
	}
	top := a.object("")
	if top.text("role_arn") == "" {
		return nil
	}
	return []awsbase.AssumeRole{{
		RoleARN:           top.text("role_arn"),
		Duration:          time.Duration(top.number("assume_role_duration_seconds")) * time.Second,
		ExternalID:        top.text("external_id"),
		Policy:            strings.TrimSpace(top.text("assume_role_policy")),
		PolicyARNs:        top.list("assume_role_policy_arns"),
		SessionName:       top.text("session_name"),
		Tags:              top.tags("assume_role_tags"),
		TransitiveTagKeys: top.list("assume_role_transitive_tag_keys"),
	}}
}

func webIdentity(a *attrs) *awsbase.AssumeRoleWithWebIdentity {
	o := a.object("assume_role_with_web_identity")
	if !o.exists {
		return nil
	}
	return &awsbase.AssumeRoleWithWebIdentity{
		RoleARN:              o.text("role_arn"),
		Duration:             o.duration("duration"),
		Policy:               strings.TrimSpace(o.text("policy")),
		PolicyARNs:           o.list("policy_arns"),
		SessionName:          o.text("session_name"),
		WebIdentityToken:     o.text("web_identity_token"),
		WebIdentityTokenFile: o.text("web_identity_token_file"),
	}
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func some(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// attrs reads loosely typed attributes and keeps the first error. Strings that
// look like numbers or bools are taken for them, as terraform does with the
// values of -backend-config.
type attrs struct {
	values map[string]any
	err    error
}

// object is one level of attributes: the top, or a nested one.
type object struct {
	parent *attrs
	prefix string
	values map[string]any
	exists bool
}

func (a *attrs) object(name string) object {
	if name == "" {
		return object{parent: a, values: a.values, exists: true}
	}
	v, ok := a.values[name]
	if !ok || v == nil {
		return object{parent: a}
	}
	m, ok := v.(map[string]any)
	if !ok {
		a.fail(name, "an object", v)
	}
	return object{parent: a, prefix: name + ".", values: m, exists: ok}
}

func (a *attrs) fail(name, want string, v any) {
	if a.err == nil {
		a.err = fmt.Errorf("backend attribute %s must be %s, it is %s", name, want, kind(v))
	}
}

// kind names a value's type; the value itself may be a secret.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "a bool"
	case float64, int64, int:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

func (o object) has(name string) bool { return o.values[name] != nil }

func (o object) text(name string) string {
	switch v := o.values[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		o.parent.fail(o.prefix+name, "a string", v)
		return ""
	}
}

func (o object) flag(name string) bool { return o.flagOr(name, false) }

func (o object) flagOr(name string, unset bool) bool {
	switch v := o.values[name].(type) {
	case nil:
		return unset
	case bool:
		return v
	case string:
		switch v {
		case "true", "1":
			return true
		case "false", "0":
			return false
		}
	}
	o.parent.fail(o.prefix+name, "true or false", o.values[name])
	return false
}

func (o object) number(name string) int {
	switch v := o.values[name].(type) {
	case nil:
		return 0
	case int64:
		if v >= 0 && v <= math.MaxInt32 {
			return int(v)
		}
	case int:
		if v >= 0 && v <= math.MaxInt32 {
			return v
		}
	case float64:
		if v >= 0 && v <= math.MaxInt32 && v == math.Trunc(v) {
			return int(v)
		}
	case string:
		if n, err := strconv.ParseUint(v, 10, 31); err == nil {
			return int(n)
		}
	}
	o.parent.fail(o.prefix+name, "a whole number of 0 or more", o.values[name])
	return 0
}

func (o object) duration(name string) time.Duration {
	s := o.text(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		o.parent.fail(o.prefix+name, `a duration such as "1h"`, s)
	}
	return d
}

func (o object) list(name string) []string {
	switch v := o.values[name].(type) {
	case nil:
		return nil
	case []string:
		return v
	case []any:
		var out []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				o.parent.fail(o.prefix+name, "a list of strings", v)
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	o.parent.fail(o.prefix+name, "a list of strings", o.values[name])
	return nil
}

func (o object) tags(name string) map[string]string {
	switch v := o.values[name].(type) {
	case nil:
		return nil
	case map[string]string:
		return v
	case map[string]any:
		out := map[string]string{}
		for k, e := range v {
			s, ok := e.(string)
			if !ok {
				o.parent.fail(o.prefix+name, "a map of strings", v)
				return nil
			}
			out[k] = s
		}
		return out
	}
	o.parent.fail(o.prefix+name, "a map of strings", o.values[name])
	return nil
}
