// Package audit keeps a record of every removed lock, in the state's bucket:
// what it was, on which evidence, who approved it, when.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// Log writes the records of one state below Address.AuditPrefix.
type Log struct {
	client *s3.Client
	addr   backend.Address
	object awsclient.Object
}

// New gives the log of a state, encrypted as the state is.
func New(client *s3.Client, addr backend.Address, object awsclient.Object) *Log {
	return &Log{client, addr, object}
}

// Record is one removal, as it is kept.
type Record struct {
	Version    int              `json:"version"` // 1
	State      string           `json:"state"`
	Removed    time.Time        `json:"removed"`
	ApprovedBy string           `json:"approved_by"`
	Lock       lock.ReportEntry `json:"lock"`
	Raw        string           `json:"raw"` // the record itself, as the store held it
}

// Removed records that e was removed at a time, approved by somebody.
func (l *Log) Removed(ctx context.Context, e lock.Entry, approvedBy string, at time.Time) error {
	r := Record{Version: 1, State: l.addr.String(), Removed: at.UTC(), ApprovedBy: approvedBy,
		Lock: lock.Verdict{Locks: []lock.Entry{e}}.Report().Locks[0], Raw: string(e.Observation.Raw)}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode audit record: %w", err)
	}
	key := l.addr.AuditPrefix() + at.UTC().Format("20060102T150405.000Z") + "-" + string(e.Observation.Store) + "-" + e.Observation.Fingerprint() + ".json"
	in := &s3.PutObjectInput{
		Bucket: &l.addr.Bucket, Key: &key, Body: bytes.NewReader(body),
		ContentType: aws.String("application/json"), IfNoneMatch: aws.String("*"),
	}
	if _, err := l.client.PutObject(ctx, l.object.Put(in)); err != nil {
		return fmt.Errorf("write audit record: %w", awsclient.Explain(err, awsclient.ObjectName(l.addr.Bucket, key)))
	}
	return nil
}
