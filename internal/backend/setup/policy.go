package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tlsSid names the statement that setup adds to a bucket's policy.
const tlsSid = "TfguardDenyInsecureTransport"

// statement is as much of a policy's statement as tells whether it denies all
// requests without TLS.
type statement struct {
	Sid       string
	Effect    string
	Principal json.RawMessage
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
}

// oneOrMore is a JSON string, bool, or a list of them.
type oneOrMore []string

func (l *oneOrMore) UnmarshalJSON(doc []byte) error {
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, v := range list {
		*l = append(*l, fmt.Sprint(v))
	}
	return nil
}

// withTLS gives the policy with a statement that denies every request to the
// bucket without TLS, and whether it had to be added. What else the policy says
// stays as it is, statement by statement. A policy that is not JSON is an error:
// nothing may be put in its place.
func withTLS(doc, bucket, region string) (policy string, changed bool, err error) {
	fields := map[string]json.RawMessage{"Version": json.RawMessage(`"2012-10-17"`)}
	if doc != "" {
		fields = map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(doc), &fields); err != nil {
			return "", false, errors.New("the bucket's policy is not JSON")
		}
	}
	var statements []json.RawMessage
	if s := bytes.TrimSpace(fields["Statement"]); len(s) > 0 {
		if s[0] != '[' {
			s = slices.Concat([]byte("["), s, []byte("]"))
		}
		if err := json.Unmarshal(s, &statements); err != nil {
			return "", false, errors.New("the bucket's policy has no list of statements")
		}
	}
	arn := "arn:" + partition(region) + ":s3:::" + bucket
	for i, raw := range statements {
		var s statement
		if json.Unmarshal(raw, &s) != nil {
			continue
		}
		if deniesPlain(s, arn) {
			return doc, false, nil
		}
		if s.Sid == tlsSid {
			// Ours, but no longer what it says.
			statements = slices.Delete(statements, i, i+1)
			break
		}
	}
	ours, err := json.Marshal(map[string]any{
		"Sid": tlsSid, "Effect": "Deny", "Principal": "*", "Action": "s3:*",
		"Resource":  []string{arn, arn + "/*"},
		"Condition": map[string]any{"Bool": map[string]string{"aws:SecureTransport": "false"}},
	})
	if err != nil {
		return "", false, fmt.Errorf("encode policy: %w", err)
	}
	if fields["Statement"], err = json.Marshal(append(statements, ours)); err != nil {
		return "", false, fmt.Errorf("encode policy: %w", err)
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return "", false, fmt.Errorf("encode policy: %w", err)
	}
	return string(out), true, nil
}

// deniesPlain reports whether the statement denies everybody everything on
// the bucket and its objects where the request came without TLS, on that
// condition alone.
func deniesPlain(s statement, arn string) bool {
	conditions := 0
	for _, keys := range s.Condition {
		conditions += len(keys)
	}
	plain := conditions == 1
	for operator, keys := range s.Condition {
		for key, values := range keys {
			plain = plain && (operator == "Bool" || operator == "BoolIfExists") &&
				strings.EqualFold(key, "aws:SecureTransport") && slices.Equal(values, oneOrMore{"false"})
		}
	}
	var everyone string
	var accounts struct{ AWS oneOrMore }
	if json.Unmarshal(s.Principal, &everyone) != nil && json.Unmarshal(s.Principal, &accounts) == nil && slices.Contains(accounts.AWS, "*") {
		everyone = "*"
	}
	covers := slices.Contains(s.Resource, "*") || slices.Contains(s.Resource, arn+"*") ||
		slices.Contains(s.Resource, arn) && slices.Contains(s.Resource, arn+"/*")
	return s.Effect == "Deny" && everyone == "*" && plain && covers &&
		(slices.Contains(s.Action, "s3:*") || slices.Contains(s.Action, "*"))
}

// partition is the part of AWS that a region is in.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	case strings.HasPrefix(region, "us-iso-"):
		return "aws-iso"
	case strings.HasPrefix(region, "us-isob-"):
		return "aws-iso-b"
	case strings.HasPrefix(region, "eu-isoe-"):
		return "aws-iso-e"
	case strings.HasPrefix(region, "us-isof-"):
		return "aws-iso-f"
	}
	return "aws"
}
