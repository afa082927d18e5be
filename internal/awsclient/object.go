package awsclient

import (
	"crypto/md5"
	"encoding/base64"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/backend"
)

// Object has what the settings say of every object of the backend: encryption,
// ACL and checksum. Terraform writes state and lock with the same
// (terraform internal/backend/remote-state/s3/client.go). The zero value asks
// for nothing but the checksum.
type Object struct {
	encrypt        bool
	kmsKeyID       string
	customerKey    string // base64; secret
	customerKeyMD5 string
	acl            string
	skipChecksum   bool
}

// ObjectOf reads the settings. [New] has refused a customer key that is none.
func ObjectOf(s backend.Settings) Object {
	skip, _ := s.Attrs["skip_s3_checksum"].(bool)
	o := Object{encrypt: s.Encrypt, kmsKeyID: s.KMSKeyID, acl: s.ACL, customerKey: s.SSECustomerKey, skipChecksum: skip}
	if key, err := base64.StdEncoding.DecodeString(o.customerKey); err == nil {
		sum := md5.Sum(key)
		o.customerKeyMD5 = base64.StdEncoding.EncodeToString(sum[:])
	}
	return o
}

// checkCustomerKey refuses what terraform refuses; it never repeats the key.
func checkCustomerKey(s backend.Settings) error {
	if s.SSECustomerKey == "" {
		return nil
	}
	if s.KMSKeyID != "" {
		return errors.New("the backend has both kms_key_id and a customer key (sse_customer_key or AWS_SSE_CUSTOMER_KEY), only one can be used")
	}
	if key, err := base64.StdEncoding.DecodeString(s.SSECustomerKey); err != nil || len(key) != 32 {
		return errors.New("the backend's customer key (sse_customer_key or AWS_SSE_CUSTOMER_KEY) is not 32 bytes in base64")
	}
	return nil
}

// algorithm, key and sum of a customer key; nil where none is used.
func (o Object) customer() (algorithm, key, sum *string) {
	if !o.encrypt || o.customerKey == "" {
		return nil, nil, nil
	}
	return aws.String("AES256"), aws.String(o.customerKey), aws.String(o.customerKeyMD5)
}

// Put sets encryption, ACL and checksum of an upload.
func (o Object) Put(in *s3.PutObjectInput) *s3.PutObjectInput {
	if !o.skipChecksum {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	}
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = o.customer()
	switch {
	case !o.encrypt || in.SSECustomerKey != nil:
	case o.kmsKeyID != "":
		in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, aws.String(o.kmsKeyID)
	default:
		in.ServerSideEncryption = types.ServerSideEncryptionAes256
	}
	if o.acl != "" {
		in.ACL = types.ObjectCannedACL(o.acl)
	}
	return in
}

// Get sets the customer key of a download.
func (o Object) Get(in *s3.GetObjectInput) *s3.GetObjectInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = o.customer()
	return in
}

// Head sets the customer key of a look at an object's metadata.
func (o Object) Head(in *s3.HeadObjectInput) *s3.HeadObjectInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = o.customer()
	return in
}
