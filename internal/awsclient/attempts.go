package awsclient

import (
	"context"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

// Attempts counts how often one request was sent. A conditional write that is
// refused at its second attempt may have been refused by what its own first
// attempt did; at its first attempt it cannot. The zero value is ready.
type Attempts struct{ n atomic.Int32 }

// Repeated reports whether the request was sent more than once.
func (a *Attempts) Repeated() bool { return a.n.Load() > 1 }

// S3 is an option of one call.
func (a *Attempts) S3(o *s3.Options) { o.APIOptions = append(o.APIOptions, a.count) }

// DynamoDB is an option of one call.
func (a *Attempts) DynamoDB(o *dynamodb.Options) { o.APIOptions = append(o.APIOptions, a.count) }

func (a *Attempts) count(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("tfguardAttempts",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			a.n.Add(1)
			return next.HandleFinalize(ctx, in)
		}), "Retry", middleware.After)
}
