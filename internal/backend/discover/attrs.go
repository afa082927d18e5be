package discover

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/tfguard/tfguard/internal/backend"
)

// attributes are those of terraform's S3 backend of any version with their
// types (internal/backend/remote-state/s3/backend.go, ConfigSchema; the last
// group was removed in 1.10).
func attributes() map[string]cty.Type {
	texts := cty.Set(cty.String)
	return map[string]cty.Type{
		"bucket": cty.String, "key": cty.String, "region": cty.String, "workspace_key_prefix": cty.String,
		"dynamodb_table": cty.String, "use_lockfile": cty.Bool,
		"encrypt": cty.Bool, "kms_key_id": cty.String, "sse_customer_key": cty.String, "acl": cty.String,

		"access_key": cty.String, "secret_key": cty.String, "token": cty.String, "profile": cty.String,
		"shared_config_files": texts, "shared_credentials_files": texts, "shared_credentials_file": cty.String,
		"assume_role": cty.DynamicPseudoType, "assume_role_with_web_identity": cty.DynamicPseudoType,
		"allowed_account_ids": texts, "forbidden_account_ids": texts,

		"endpoints": cty.DynamicPseudoType,
		"endpoint":  cty.String, "dynamodb_endpoint": cty.String, "iam_endpoint": cty.String, "sts_endpoint": cty.String,
		"sts_region": cty.String, "ec2_metadata_service_endpoint": cty.String, "ec2_metadata_service_endpoint_mode": cty.String,
		"use_path_style": cty.Bool, "force_path_style": cty.Bool, "use_fips_endpoint": cty.Bool, "use_dualstack_endpoint": cty.Bool,
		"custom_ca_bundle": cty.String, "http_proxy": cty.String, "https_proxy": cty.String, "no_proxy": cty.String,
		"insecure": cty.Bool, "max_retries": cty.Number, "retry_mode": cty.String,
		"skip_credentials_validation": cty.Bool, "skip_region_validation": cty.Bool, "skip_requesting_account_id": cty.Bool,
		"skip_metadata_api_check": cty.Bool, "skip_s3_checksum": cty.Bool,

		"role_arn": cty.String, "session_name": cty.String, "external_id": cty.String,
		"assume_role_duration_seconds": cty.Number, "assume_role_policy": cty.String, "assume_role_policy_arns": texts,
		"assume_role_tags": cty.Map(cty.String), "assume_role_transitive_tag_keys": texts,
	}
}

// nested are the attributes that are objects, with what is in each.
func nested() map[string]map[string]cty.Type {
	texts := cty.Set(cty.String)
	return map[string]map[string]cty.Type{
		"assume_role": {
			"role_arn": cty.String, "duration": cty.String, "external_id": cty.String, "policy": cty.String,
			"policy_arns": texts, "session_name": cty.String, "source_identity": cty.String,
			"tags": cty.Map(cty.String), "transitive_tag_keys": texts,
		},
		"assume_role_with_web_identity": {
			"role_arn": cty.String, "duration": cty.String, "policy": cty.String, "policy_arns": texts,
			"session_name": cty.String, "web_identity_token": cty.String, "web_identity_token_file": cty.String,
		},
		"endpoints": {
			"dynamodb": cty.String, "iam": cty.String, "s3": cty.String, "sso": cty.String, "sts": cty.String,
		},
	}
}

// Names are the attributes that terraform's S3 backend has had in any version, sorted.
func Names() []string { return slices.Sorted(maps.Keys(attributes())) }

// ObjectNames are those of [Names] that are objects, sorted.
func ObjectNames() []string { return slices.Sorted(maps.Keys(nested())) }

// secret reports whether an attribute, nested or not, must not be printed.
func secret(name string) bool {
	switch name {
	case "access_key", "secret_key", "token", "sse_customer_key", "web_identity_token":
		return true
	}
	return false
}

// Attributes evaluates the attributes of a backend block into the form of
// [backend.Settings].Attrs: string, bool, int64 or float64, []string, and
// map[string]any of the same for objects and maps. A null attribute is left
// out, as terraform takes it for unset. Names that are not known keep the type
// they are written with. path names the file in errors, which are of type
// [Error], joined; advice is what their text ends with.
func Attributes(path string, attrs hcl.Attributes, advice string) (map[string]any, error) {
	out := map[string]any{}
	var errs []error
	for _, a := range slices.SortedFunc(maps.Values(attrs), func(a, b *hcl.Attribute) int {
		return cmp.Compare(a.Range.Start.Byte, b.Range.Start.Byte)
	}) {
		v, err := literal(path, a.Name, a.Expr, advice)
		if err == nil {
			var value any
			if value, err = plain(a.Name, v); err == nil {
				if value != nil {
					out[a.Name] = value
				}
				continue
			}
			err = at(path, a.Expr.Range().Ptr(), err.Error())
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// plain converts an attribute's value to its type and to Go; nil is unset.
func plain(name string, v cty.Value) (any, error) {
	want, known := attributes()[name]
	if known && want != cty.DynamicPseudoType {
		got, err := convert.Convert(v, want)
		if err != nil {
			return nil, fmt.Errorf("%q is not usable: %s", name, reason(err, want))
		}
		out, err := value(got)
		if err != nil {
			return nil, fmt.Errorf("%q is not usable: %w", name, err)
		}
		return out, nil
	}
	if fields, ok := nested()[name]; ok && !v.IsNull() {
		if !v.Type().IsObjectType() && !v.Type().IsMapType() {
			return nil, fmt.Errorf("%q is an object: write %s = { … }", name, name)
		}
		out := map[string]any{}
		for it := v.ElementIterator(); it.Next(); {
			k, field := it.Element()
			key := k.AsString()
			want, known := fields[key]
			if !known {
				return nil, fmt.Errorf("%q has no attribute %q", name, key)
			}
			got, err := convert.Convert(field, want)
			if err != nil {
				return nil, fmt.Errorf("%q is not usable: %s", name+"."+key, reason(err, want))
			}
			goValue, err := value(got)
			if err != nil {
				return nil, fmt.Errorf("%q is not usable: %w", name+"."+key, err)
			}
			if goValue != nil {
				out[key] = goValue
			}
		}
		return out, nil
	}
	got, err := value(v)
	if err != nil {
		return nil, fmt.Errorf("%q is not usable: %w", name, err)
	}
	return got, nil
}

func reason(err error, want cty.Type) string {
	if want == cty.Bool {
		return "it is true or false"
	}
	return err.Error()
}

// value is v in Go.
func value(v cty.Value) (any, error) {
	t := v.Type()
	switch {
	case v.IsNull():
		return nil, nil
	case !v.IsWhollyKnown():
		return nil, errors.New("its value is not known")
	case t == cty.String:
		return v.AsString(), nil
	case t == cty.Bool:
		return v.True(), nil
	case t == cty.Number:
		if n, acc := v.AsBigFloat().Int64(); acc == big.Exact {
			return n, nil
		}
		f, _ := v.AsBigFloat().Float64()
		if math.IsInf(f, 0) {
			return nil, errors.New("the number is out of bounds")
		}
		return f, nil
	case t.IsListType(), t.IsSetType(), t.IsTupleType():
		list := []string{}
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			s, err := convert.Convert(e, cty.String)
			if err != nil || s.IsNull() {
				return nil, errors.New("it is a list of strings")
			}
			list = append(list, s.AsString())
		}
		return list, nil
	case t.IsObjectType(), t.IsMapType():
		m := map[string]any{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			inner, err := value(e)
			if err != nil {
				return nil, err
			}
			if inner != nil {
				m[k.AsString()] = inner
			}
		}
		return m, nil
	}
	return nil, fmt.Errorf("its type is %s", t.FriendlyName())
}

// toCty is the opposite of value.
func toCty(v any) cty.Value {
	switch v := v.(type) {
	case string:
		return cty.StringVal(v)
	case bool:
		return cty.BoolVal(v)
	case int:
		return cty.NumberIntVal(int64(v))
	case int64:
		return cty.NumberIntVal(v)
	case float64:
		return cty.NumberFloatVal(v)
	case []string:
		list := make([]cty.Value, len(v))
		for i, s := range v {
			list[i] = cty.StringVal(s)
		}
		return cty.TupleVal(list)
	case map[string]string:
		m := map[string]cty.Value{}
		for k, s := range v {
			m[k] = cty.StringVal(s)
		}
		return cty.ObjectVal(m)
	case map[string]any:
		m := map[string]cty.Value{}
		for k, e := range v {
			m[k] = toCty(e)
		}
		return cty.ObjectVal(m)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}

// fromFlag reads the K=V of a --backend-config: primitive types from the text
// as it stands, others as an HCL expression, as terraform does
// (internal/command/meta_config.go, configValueFromCLI).
func fromFlag(name, text string) (any, error) {
	flag := "--backend-config " + name
	want, known := attributes()[name]
	if !known || want.IsPrimitiveType() {
		v, err := plain(name, cty.StringVal(text))
		if err != nil {
			return nil, &Error{File: flag, Message: err.Error()}
		}
		return v, nil
	}
	if tooDeep([]byte(text)) > 0 {
		return nil, &Error{File: flag, Message: "the expression is nested too deep"}
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), flag, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, Diagnose(flag, diags)
	}
	v, err := literal(flag, name, expr, "")
	if err != nil {
		return nil, err
	}
	got, err := plain(name, v)
	if err != nil {
		return nil, at(flag, expr.Range().Ptr(), err.Error())
	}
	return got, nil
}

// settings gives attributes their fields.
func settings(attrs map[string]any) backend.Settings {
	text := func(name string) string { s, _ := attrs[name].(string); return s }
	flag := func(name string) bool { b, _ := attrs[name].(bool); return b }
	return backend.Settings{
		Bucket: text("bucket"), Key: text("key"), Region: text("region"), WorkspaceKeyPrefix: text("workspace_key_prefix"),
		DynamoDBTable: text("dynamodb_table"), UseLockfile: flag("use_lockfile"),
		Encrypt: flag("encrypt"), KMSKeyID: text("kms_key_id"), SSECustomerKey: text("sse_customer_key"), ACL: text("acl"),
		Attrs: attrs,
	}
}
