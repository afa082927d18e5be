package backend

import "strings"

// IAM is an identity policy as AWS reads it
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html).
type IAM struct {
	Version   string
	Statement []IAMStatement
}

// IAMStatement is one statement of a policy.
type IAMStatement struct {
	Sid      string
	Effect   string
	Action   []string
	Resource []string
}

// Partition is "aws", "aws-cn" or "aws-us-gov", by the region's name.
func Partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// LeastPolicy is what a role needs for terraform and tfguard on this state:
// plan, apply, locks, unlock, snapshots and restore. account may be empty: then
// the table is named in any account. kmsKey is an ARN, or empty. copies is the
// bucket of the snapshots, or empty where they are beside the state.
func (a Address) LeastPolicy(region, account, kmsKey, copies string) IAM {
	if account == "" {
		account = "*"
	}
	partition := Partition(region)
	bucket := "arn:" + partition + ":s3:::" + a.Bucket
	object := func(key string) string { return bucket + "/" + key }
	buckets, kept := []string{bucket}, object(a.SnapshotPrefix()+"*")
	if copies != "" && copies != a.Bucket {
		other := "arn:" + partition + ":s3:::" + copies
		buckets, kept = append(buckets, other), other+"/"+a.SnapshotPrefix()+"*"
	}
	p := IAM{Version: "2012-10-17", Statement: []IAMStatement{
		{"Bucket", "Allow", []string{"s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning", "s3:GetBucketLocation"}, buckets},
		{"State", "Allow", []string{"s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"}, []string{object(a.Key)}},
		{"HolderAndAudit", "Allow", []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}, []string{object(".tfguard/" + a.Key + "/*")}},
		{"Snapshots", "Allow", []string{"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion"}, []string{kept}},
	}}
	if a.Lockfile {
		p.Statement = append(p.Statement, IAMStatement{"LockObject", "Allow", []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}, []string{object(a.LockKey())}})
	}
	if a.Table != "" {
		p.Statement = append(p.Statement, IAMStatement{"LockTable", "Allow", []string{"dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"},
			[]string{"arn:" + partition + ":dynamodb:" + region + ":" + account + ":table/" + a.Table}})
	}
	if kmsKey != "" {
		p.Statement = append(p.Statement, IAMStatement{"Key", "Allow", []string{"kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"}, []string{kmsKey}})
	}
	return p
}
