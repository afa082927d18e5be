package awsclient

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
)

// expirationVar says when credentials in the environment end: `aws configure
// export-credentials --format env` sets it, and a workflow may, from the output
// aws-expiration of aws-actions/configure-aws-credentials.
const expirationVar = "AWS_CREDENTIAL_EXPIRATION"

// Ends is when the credentials end and nothing renews them for certain: those of
// a session in the environment, of a process and of a login. A role is assumed
// again, and a machine or a container is given new ones: they do not end. ok is
// false there, and where no end is known.
func (c *Clients) Ends(ctx context.Context) (at time.Time, ok bool) {
	if c.cfg.Credentials == nil {
		return at, false
	}
	creds, err := c.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return at, false // the next request says why
	}
	renewed := []string{stscreds.ProviderName, stscreds.WebIdentityProviderName, ec2rolecreds.ProviderName, endpointcreds.ProviderName}
	switch {
	case creds.CanExpire:
		return creds.Expires, !slices.Contains(renewed, creds.Source)
	case creds.SessionToken != "" && creds.SessionToken == c.getenv("AWS_SESSION_TOKEN"):
		at, err := time.Parse(time.RFC3339, c.getenv(expirationVar))
		return at, err == nil
	}
	return at, false
}
