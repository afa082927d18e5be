package setup

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestWithTLS(t *testing.T) {
	const (
		theirs = `{"Sid":"theirs","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:root"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::demo/*"}`
		tls    = `{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::demo","arn:aws:s3:::demo/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}`
	)
	for _, row := range []struct {
		name       string
		doc        string
		changed    bool
		statements int
	}{
		{"no policy", "", true, 1},
		{"another statement stays", `{"Version":"2012-10-17","Id":"x","Statement":[` + theirs + `]}`, true, 2},
		{"one statement without a list", `{"Version":"2012-10-17","Statement":` + theirs + `}`, true, 2},
		{"no statements", `{"Version":"2012-10-17"}`, true, 1},
		{"one that does it is enough", `{"Statement":[` + theirs + `,` + tls + `]}`, false, 2},
		{"a principal in a list", `{"Statement":[` + strings.Replace(tls, `"*"`, `{"AWS":["*"]}`, 1) + `]}`, false, 1},
		{"a bool without quotes", `{"Statement":[` + strings.Replace(tls, `"false"`, `false`, 1) + `]}`, false, 1},
		{"only for one action", `{"Statement":[` + strings.Replace(tls, `s3:*`, `s3:GetObject`, 1) + `]}`, true, 2},
		{"only for objects", `{"Statement":[` + strings.Replace(tls, `"arn:aws:s3:::demo",`, ``, 1) + `]}`, true, 2},
		{"only under a further condition", `{"Statement":[` + strings.Replace(tls, `}}`, `},"StringEquals":{"aws:x":"y"}}`, 1) + `]}`, true, 2},
		{"another bucket's", `{"Statement":[` + strings.ReplaceAll(tls, `demo`, `other`) + `]}`, true, 2},
		{"allows instead", `{"Statement":[` + strings.Replace(tls, `Deny`, `Allow`, 1) + `]}`, true, 2},
		{"ours that somebody weakened is put right", `{"Statement":[{"Sid":"` + tlsSid + `","Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"*"}]}`, true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, changed, err := withTLS(row.doc, "demo", "us-east-1")
			if err != nil || changed != row.changed {
				t.Fatalf("(%t, %v), want changed %t", changed, err, row.changed)
			}
			if !changed && got != row.doc {
				t.Errorf("an unchanged policy became %s", got)
			}
			var p struct{ Statement []json.RawMessage }
			if err := json.Unmarshal([]byte(got), &p); err != nil || len(p.Statement) != row.statements {
				t.Fatalf("%s: %v, want %d statements", got, err, row.statements)
			}
			if strings.Contains(row.doc, theirs) && string(p.Statement[0]) != theirs {
				t.Errorf("their statement became %s", p.Statement[0])
			}
			if strings.Contains(row.doc, `"Id"`) && !strings.Contains(got, `"Id":"x"`) {
				t.Errorf("the policy's Id is gone: %s", got)
			}
			if _, again, err := withTLS(got, "demo", "us-east-1"); again || err != nil {
				t.Errorf("a second time it changes again (%v): %s", err, got)
			}
		})
	}
	for _, doc := range []string{"{", "[]", `"x"`, `{"Statement":[`} {
		if _, _, err := withTLS(doc, "demo", "us-east-1"); err == nil {
			t.Errorf("%q was replaced", doc)
		}
	}
	if p, _, err := withTLS("", "demo", "cn-north-1"); err != nil || !strings.Contains(p, "arn:aws-cn:s3:::demo") {
		t.Errorf("in China: %s, %v", p, err)
	}
}

func TestExpires(t *testing.T) {
	rule := func(change func(*types.LifecycleRule)) []types.LifecycleRule {
		r := withExpiry(nil)[0]
		change(&r)
		return []types.LifecycleRule{r}
	}
	for _, row := range []struct {
		name  string
		rules []types.LifecycleRule
		want  bool
	}{
		{"none", nil, false},
		{"ours", rule(func(*types.LifecycleRule) {}), true},
		{"one for the whole bucket", rule(func(r *types.LifecycleRule) { r.Filter = &types.LifecycleRuleFilter{} }), true},
		{"one in the old form", rule(func(r *types.LifecycleRule) { r.Filter = nil }), true},
		{"one for another prefix", rule(func(r *types.LifecycleRule) { r.Filter.Prefix = aws.String("logs/") }), false},
		{"one for a part of them", rule(func(r *types.LifecycleRule) { r.Filter.Prefix = aws.String(".tfguard/a/") }), false},
		{"one for large objects", rule(func(r *types.LifecycleRule) { r.Filter.ObjectSizeGreaterThan = aws.Int64(1) }), false},
		{"one that is off", rule(func(r *types.LifecycleRule) { r.Status = types.ExpirationStatusDisabled }), false},
		{"one for current versions", rule(func(r *types.LifecycleRule) { r.NoncurrentVersionExpiration = nil }), false},
	} {
		if got := expires(row.rules); got != row.want {
			t.Errorf("%s: %t, want %t", row.name, got, row.want)
		}
		if !expires(withExpiry(row.rules)) {
			t.Errorf("%s: with our rule added they still stay", row.name)
		}
	}
}
