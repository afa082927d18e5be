package sandbox

import (
	"encoding/xml"
	"strings"
)

func (q *s3Req) deleteObject() error {
	id, err := q.wantVersion()
	if err != nil {
		return err
	}
	var gone deleted
	if err := q.s.store.update(func(t *tx) (err error) {
		gone, err = q.delete(t, q.key, id, q.Header.Get("If-Match"))
		return err
	}); err != nil {
		return err
	}
	if gone.Marker {
		q.w.Header().Set("x-amz-delete-marker", "true")
	}
	if gone.ID != "" {
		q.w.Header().Set("x-amz-version-id", gone.ID)
	}
	return q.noContent()
}

// deleted is what a delete did: the version it removed, or the marker it made.
type deleted struct {
	ID     string
	Marker bool // the version removed or made is a delete marker
	Made   bool
}

// delete removes the version with the ID or, without one, does what deleting
// means in this bucket. match is the condition on the current version.
//
// A condition on a missing object gives NoSuchKey, as with PUT. What S3 says
// over a delete marker is not documented for every case: here it is the same,
// but PreconditionFailed for *. A client had better treat the two alike.
func (q *s3Req) delete(t *tx, key, id, match string) (deleted, error) {
	c, objs, err := q.conf(t)
	if err != nil {
		return deleted{}, err
	}
	if match != "" {
		cur, err := latest(objs, key)
		switch {
		case err != nil:
			return deleted{}, err
		case cur == nil || cur.Marker && match != "*":
			return deleted{}, noSuchKey(key)
		case cur.Marker || !etagMatches(match, cur.ETag):
			return deleted{}, preconditionFailed("If-Match")
		}
	}
	if id != "" {
		v, err := byID(objs, key, id)
		if err != nil {
			return deleted{}, err
		}
		if v == nil {
			return deleted{ID: id}, nil // deleting what is not there succeeds
		}
		if err := v.deletable(q); err != nil {
			return deleted{}, err
		}
		return deleted{ID: v.ID, Marker: v.Marker}, t.remove(objs, v)
	}
	if c.Versioning == "" {
		v, err := byID(objs, key, "null")
		if err != nil || v == nil {
			return deleted{}, err
		}
		return deleted{}, t.remove(objs, v)
	}
	m := &version{Key: key, Marker: true, Modified: q.now}
	if err := t.save(c, objs, m); err != nil {
		return deleted{}, err
	}
	return deleted{ID: m.ID, Marker: true, Made: true}, nil
}

func (q *s3Req) deleteObjects() error {
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Object  []struct {
			Key              string
			VersionId        string
			ETag             string
			LastModifiedTime string
			Size             string
		}
	}
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.Object) == 0 || len(in.Object) > 1000 {
		return parseXML(nil, &in)
	}
	type gone struct {
		Key                   string
		VersionId             string `xml:",omitempty"`
		DeleteMarker          bool   `xml:",omitempty"`
		DeleteMarkerVersionId string `xml:",omitempty"`
	}
	type failed struct {
		Key       string
		VersionId string `xml:",omitempty"`
		Code      string
		Message   string
	}
	type result struct {
		XMLName xml.Name `xml:"DeleteResult"`
		NS      string   `xml:"xmlns,attr"`
		Deleted []gone
		Error   []failed
	}
	var out result
	// S3 deletes one by one; here all go in one transaction, those refused aside.
	if err := q.s.store.update(func(t *tx) error {
		out = result{NS: s3NS}
		if _, _, err := q.conf(t); err != nil {
			return err
		}
		for _, o := range in.Object {
			var d deleted
			var err error
			switch {
			case o.Key == "" || len(o.Key) > maxKey || strings.ContainsRune(o.Key, 0):
				err = s3Error("KeyTooLongError", "Your key is empty or too long")
			case o.LastModifiedTime != "" || o.Size != "":
				err = s3Error("NotImplemented", "The sandbox knows no conditions but ETag here.")
			default:
				d, err = q.delete(t, o.Key, o.VersionId, o.ETag)
			}
			if e, ok := err.(*s3Err); ok {
				out.Error = append(out.Error, failed{o.Key, o.VersionId, e.code, e.message})
				continue
			}
			if err != nil {
				return err
			}
			g := gone{Key: o.Key, VersionId: o.VersionId, DeleteMarker: d.Marker}
			if d.Marker {
				g.DeleteMarkerVersionId = d.ID
			}
			if !in.Quiet {
				out.Deleted = append(out.Deleted, g)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return q.xml(out)
}
