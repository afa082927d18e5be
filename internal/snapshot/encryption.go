package snapshot

import (
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

// encryption is what the backend's settings ask for each object, beside the ACL
// and the checksum. What is nil or empty is not sent.
type encryption struct {
	sse                    types.ServerSideEncryption
	kmsKey                 *string
	algorithm, key, keyMD5 *string // SSE-C
	acl                    types.ObjectCannedACL
	checksum               types.ChecksumAlgorithm // SHA-256, or empty for stores that choke on it
}

func encryptionOf(set backend.Settings) encryption {
	in := awsclient.ObjectOf(set).Put(new(s3.PutObjectInput))
	return encryption{
		sse: in.ServerSideEncryption, kmsKey: in.SSEKMSKeyId, acl: in.ACL, checksum: in.ChecksumAlgorithm,
		algorithm: in.SSECustomerAlgorithm, key: in.SSECustomerKey, keyMD5: in.SSECustomerKeyMD5,
	}
}

// like adds what the settings leave to the bucket: a copy of an object under a
// KMS key is put under the same key. Less than that is the bucket's default.
func (e encryption) like(obj object) encryption {
	if e.sse == "" && e.key == nil && obj.kms() {
		e.sse, e.kmsKey = obj.sse, opt(obj.kmsKey)
	}
	return e
}

func (o object) kms() bool {
	return o.sse == types.ServerSideEncryptionAwsKms || o.sse == types.ServerSideEncryptionAwsKmsDsse
}
