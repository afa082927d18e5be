package snapshot

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// upload is an object that is written in parts.
type upload struct {
	place                place
	key                  string
	size                 int64
	mime                 string
	meta                 metadata
	crypt                encryption
	ifMatch, ifNoneMatch *string
	// part writes the bytes from up to, but not including, to.
	part func(ctx context.Context, uploadID string, n int32, from, to int64) (types.CompletedPart, error)
}

// inParts writes the object; it appears with the last request, under its
// condition, or not at all. Errors are the SDK's.
func (s *Store) inParts(ctx context.Context, u upload) (version, etag string, err error) {
	bucket, key := aws.String(u.place.bucket), aws.String(u.key)
	created, err := u.place.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: bucket, Key: key, ContentType: opt(u.mime), Metadata: u.meta, ChecksumAlgorithm: u.crypt.checksum,
		ServerSideEncryption: u.crypt.sse, SSEKMSKeyId: u.crypt.kmsKey, ACL: u.crypt.acl,
		SSECustomerAlgorithm: u.crypt.algorithm, SSECustomerKey: u.crypt.key, SSECustomerKeyMD5: u.crypt.keyMD5,
	})
	if err != nil {
		return "", "", err
	}
	done := false
	defer func() {
		if done {
			return
		}
		ctx, cancel := s.cleanUp(ctx)
		defer cancel()
		// Parts that stay cost money and nothing else; the first error is the one that counts.
		_, _ = u.place.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: created.UploadId})
	}()
	var parts []types.CompletedPart
	for from, n := int64(0), int32(1); from < u.size; from, n = from+s.o.PartSize, n+1 {
		p, err := u.part(ctx, aws.ToString(created.UploadId), n, from, min(from+s.o.PartSize, u.size))
		if err != nil {
			return "", "", err
		}
		if p.ETag == nil {
			return "", "", fmt.Errorf("the store did not acknowledge part %d", n)
		}
		parts = append(parts, p)
	}
	out, err := u.place.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: key, UploadId: created.UploadId, IfMatch: u.ifMatch, IfNoneMatch: u.ifNoneMatch,
		MultipartUpload:      &types.CompletedMultipartUpload{Parts: parts},
		SSECustomerAlgorithm: u.crypt.algorithm, SSECustomerKey: u.crypt.key, SSECustomerKeyMD5: u.crypt.keyMD5,
	})
	if err != nil {
		return "", "", err
	}
	done = true
	return aws.ToString(out.VersionId), aws.ToString(out.ETag), nil
}
