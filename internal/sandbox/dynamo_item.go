package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxPage is how many bytes of items one Query or Scan reads.
	maxPage = 1 << 20

	maxBatchGet, maxBatchWrite, maxTransact = 100, 25, 100
)

// placeholders are the names and values of an input's expressions.
type placeholders struct {
	ExpressionAttributeNames  map[string]string
	ExpressionAttributeValues map[string]attr
}

func (p placeholders) parser() *parser {
	return newParser(p.ExpressionAttributeNames, p.ExpressionAttributeValues)
}

// metrics are members that ask for figures; the sandbox has none worth giving.
type metrics struct {
	ReturnConsumedCapacity      string
	ReturnItemCollectionMetrics string
}

// key is the encoded primary key of an item, or of a Key when exact.
func (tb *table) key(it item, exact bool) ([]byte, error) {
	mismatch := "The provided key element does not match the schema"
	defs := []keyDef{tb.Hash}
	if tb.Range != nil {
		defs = append(defs, *tb.Range)
	}
	if exact && len(it) != len(defs) {
		return nil, validation(mismatch)
	}
	values := make([]attr, len(defs))
	for i, d := range defs {
		v, ok := it[d.Name]
		switch {
		case !ok && exact:
			return nil, validation(mismatch)
		case !ok:
			return nil, validation("One or more parameter values were invalid: Missing the key " + d.Name + " in the item")
		case v.Type != d.Type && exact:
			return nil, validation(mismatch)
		case v.Type != d.Type:
			return nil, validation(fmt.Sprintf("One or more parameter values were invalid: Type mismatch for key %s expected: %s actual: %s", d.Name, d.Type, v.Type))
		case v.Str == "":
			return nil, validation("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: " + d.Name)
		case len(v.Str) > []int{2048, 1024}[i]:
			return nil, validation(fmt.Sprintf("One or more parameter values were invalid: Size of key %s has exceeded the maximum size limit of %d bytes", d.Name, []int{2048, 1024}[i]))
		}
		values[i] = v
	}
	if tb.Range == nil {
		return itemKey(values[0], nil), nil
	}
	return itemKey(values[0], &values[1]), nil
}

// keyOf is the Key of an item.
func (tb *table) keyOf(it item) item {
	k := item{tb.Hash.Name: it[tb.Hash.Name]}
	if tb.Range != nil {
		k[tb.Range.Name] = it[tb.Range.Name]
	}
	return k
}

// readItem is the item under an encoded key, nil if there is none.
func readItem(items *bolt.Bucket, k []byte) (item, error) {
	v := items.Get(k)
	if v == nil {
		return nil, nil
	}
	return decodeItem(v)
}

func decodeItem(v []byte) (item, error) {
	var it item
	if err := json.Unmarshal(v, &it); err != nil {
		return nil, fmt.Errorf("read item: %w", err)
	}
	return it, nil
}

// check refuses what no table takes.
func (it item) check() error {
	if it.size() > maxItem {
		return validation("Item size has exceeded the maximum allowed size")
	}
	if (attr{Map: it}).depth() > maxDepth+1 {
		return validation("Nesting Levels have exceeded supported limits")
	}
	for name := range it {
		if name == "" || len(name) > 64<<10 {
			return validation("One or more parameter values were invalid: Attribute name is empty or too large")
		}
	}
	return nil
}

// write is one write of an item: of PutItem, DeleteItem, UpdateItem, a batch or
// a transaction.
type write struct {
	table     tableName
	key       item // of delete, update and check
	put       item
	actions   []action
	condition *expr
	kind      string // put, delete, update, check
	onFailure string // ReturnValuesOnConditionCheckFailure
}

// prepared is a write whose condition held: what it found and what it will
// leave.
type prepared struct {
	items    *bolt.Bucket
	key      []byte
	old, new item
	kind     string
}

var errCondition = "The conditional request failed"

// prepare checks a write without writing.
func (w *write) prepare(t *tx) (*prepared, error) {
	tb, items, err := t.table(w.table)
	if err != nil {
		return nil, err
	}
	p := &prepared{items: items, kind: w.kind}
	if w.kind == "put" {
		p.key, err = tb.key(w.put, false)
	} else {
		p.key, err = tb.key(w.key, true)
	}
	if err != nil {
		return nil, err
	}
	if p.old, err = readItem(items, p.key); err != nil {
		return nil, err
	}
	if !w.condition.holds(p.old) {
		e := dynamoErrorf("ConditionalCheckFailedException", "%s", errCondition)
		if w.onFailure == "ALL_OLD" && p.old != nil {
			e.extra = map[string]any{"Item": p.old}
		}
		return nil, e
	}
	switch w.kind {
	case "put":
		p.new = w.put
	case "update":
		for _, a := range w.actions {
			if n := a.path[0].name; n == tb.Hash.Name || tb.Range != nil && n == tb.Range.Name {
				return nil, validation("One or more parameter values were invalid: Cannot update attribute " + n + ". This attribute is part of the key")
			}
		}
		base := p.old
		if base == nil {
			base = w.key
		}
		if p.new, err = apply(w.actions, base); err != nil {
			return nil, err
		}
	}
	if p.new != nil {
		return p, p.new.check()
	}
	return p, nil
}

// do writes what was prepared.
func (p *prepared) do(t *tx) error {
	switch {
	case p.new != nil:
		return t.putJSON(p.items, p.key, p.new)
	case p.kind == "delete" && p.old != nil:
		return t.delIn(p.items, p.key)
	}
	return nil
}

// apply prepares and does one write, and answers it.
func (s *Server) apply(w *write, returnValues string) (any, error) {
	var p *prepared
	if err := s.store.update(func(t *tx) (err error) {
		if p, err = w.prepare(t); err != nil {
			return err
		}
		return p.do(t)
	}); err != nil {
		return nil, err
	}
	out := make(map[string]any)
	var values item
	switch returnValues {
	case "ALL_OLD":
		values = p.old
	case "ALL_NEW":
		values = p.new
	case "UPDATED_OLD", "UPDATED_NEW":
		from := p.old
		if returnValues == "UPDATED_NEW" {
			from = p.new
		}
		root := &projection{}
		for _, a := range w.actions {
			at := root
			for _, st := range a.path {
				at = at.child(st)
			}
			at.whole = true
		}
		values = root.item(from)
	}
	if len(values) > 0 {
		out["Attributes"] = values
	}
	return out, nil
}

func returns(v string, allowed ...string) error {
	if v != "" && v != "NONE" && !slices.Contains(allowed, v) {
		return validation("Return values set to invalid value")
	}
	return nil
}

// conditions reads the condition of a write.
func (w *write) conditions(ps *parser, text string) error {
	if text == "" {
		return ps.unused()
	}
	if err := ps.parse("ConditionExpression", text, func() { w.condition = ps.condition() }); err != nil {
		return err
	}
	return ps.unused()
}

// oneWrite is what PutItem, DeleteItem and UpdateItem have in common.
type oneWrite struct {
	tableName
	placeholders
	metrics
	ConditionExpression                 string
	ReturnValues                        string
	ReturnValuesOnConditionCheckFailure string
}

type putItemInput struct {
	oneWrite
	Item item
}

func (in *putItemInput) write() (*write, error) {
	if in.Item == nil {
		return nil, validation("1 validation error detected: Value null at 'item' failed to satisfy constraint: Member must not be null")
	}
	w := &write{table: in.tableName, put: in.Item, kind: "put", onFailure: in.ReturnValuesOnConditionCheckFailure}
	return w, w.conditions(in.parser(), in.ConditionExpression)
}

func (s *Server) putItem(in *putItemInput) (any, error) {
	if err := returns(in.ReturnValues, "ALL_OLD"); err != nil {
		return nil, err
	}
	w, err := in.write()
	if err != nil {
		return nil, err
	}
	return s.apply(w, in.ReturnValues)
}

type deleteItemInput struct {
	oneWrite
	Key item
}

func (in *deleteItemInput) write(kind string) (*write, error) {
	w := &write{table: in.tableName, key: in.Key, kind: kind, onFailure: in.ReturnValuesOnConditionCheckFailure}
	return w, w.conditions(in.parser(), in.ConditionExpression)
}

func (s *Server) deleteItem(in *deleteItemInput) (any, error) {
	if err := returns(in.ReturnValues, "ALL_OLD"); err != nil {
		return nil, err
	}
	w, err := in.write("delete")
	if err != nil {
		return nil, err
	}
	return s.apply(w, in.ReturnValues)
}

type updateItemInput struct {
	deleteItemInput
	UpdateExpression string
}

func (in *updateItemInput) write() (*write, error) {
	w := &write{table: in.tableName, key: in.Key, kind: "update", onFailure: in.ReturnValuesOnConditionCheckFailure}
	ps := in.parser()
	if in.UpdateExpression != "" {
		var err error
		if w.actions, err = ps.update(in.UpdateExpression); err != nil {
			return nil, err
		}
	}
	return w, w.conditions(ps, in.ConditionExpression)
}

func (s *Server) updateItem(in *updateItemInput) (any, error) {
	if err := returns(in.ReturnValues, "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"); err != nil {
		return nil, err
	}
	w, err := in.write()
	if err != nil {
		return nil, err
	}
	return s.apply(w, in.ReturnValues)
}

// oneRead is what GetItem and each table of a BatchGetItem have in common.
// Every read is consistent.
type oneRead struct {
	ConsistentRead           bool
	ProjectionExpression     string
	ExpressionAttributeNames map[string]string
}

func (in oneRead) projection() (*projection, error) {
	ps := newParser(in.ExpressionAttributeNames, nil)
	if in.ProjectionExpression == "" {
		return nil, ps.unused()
	}
	pr, err := ps.projection(in.ProjectionExpression)
	if err != nil {
		return nil, err
	}
	return pr, ps.unused()
}

func (s *Server) getItem(in *struct {
	tableName
	oneRead
	metrics
	Key item
}) (any, error) {
	pr, err := in.projection()
	if err != nil {
		return nil, err
	}
	out := make(map[string]any)
	err = s.store.view(func(t *tx) error {
		tb, items, err := t.table(in.tableName)
		if err != nil {
			return err
		}
		k, err := tb.key(in.Key, true)
		if err != nil {
			return err
		}
		it, err := readItem(items, k)
		if it = pr.item(it); it != nil {
			out["Item"] = it
		}
		return err
	})
	return out, err
}

// pageInput is what Query and Scan have in common.
type pageInput struct {
	tableName
	placeholders
	metrics
	ConsistentRead       bool
	FilterExpression     string
	ProjectionExpression string
	Select               string
	Limit                *int
	ExclusiveStartKey    item
}

// pager collects a page of items.
type pager struct {
	in     *pageInput
	filter *expr
	fields *projection
	items  []item
	read   int // items read, before the filter
	bytes  int
	last   item
}

func (in *pageInput) pager(ps *parser) (*pager, error) {
	p := &pager{in: in, items: []item{}}
	if in.Limit != nil && *in.Limit < 1 {
		return nil, validation("1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
	}
	if !slices.Contains([]string{"", "ALL_ATTRIBUTES", "COUNT", "SPECIFIC_ATTRIBUTES"}, in.Select) {
		return nil, validation("The sandbox does not know Select " + in.Select)
	}
	if in.FilterExpression != "" {
		if err := ps.parse("FilterExpression", in.FilterExpression, func() { p.filter = ps.condition() }); err != nil {
			return nil, err
		}
	}
	if in.ProjectionExpression != "" {
		var err error
		if p.fields, err = ps.projection(in.ProjectionExpression); err != nil {
			return nil, err
		}
	}
	return p, ps.unused()
}

// take adds an item and says whether the page is full with it.
func (p *pager) take(tb *table, v []byte) (full bool, err error) {
	it, err := decodeItem(v)
	if err != nil {
		return false, err
	}
	p.read++
	p.bytes += it.size()
	p.last = tb.keyOf(it)
	if p.filter.holds(it) {
		p.items = append(p.items, p.fields.item(it))
	}
	return p.in.Limit != nil && p.read == *p.in.Limit || p.bytes >= maxPage, nil
}

func (p *pager) answer(full bool) any {
	out := map[string]any{"Count": len(p.items), "ScannedCount": p.read}
	if p.in.Select != "COUNT" {
		out["Items"] = p.items
	}
	if full {
		out["LastEvaluatedKey"] = p.last
	}
	return out
}

type scanInput struct {
	pageInput
	Segment       *int
	TotalSegments *int
}

func (s *Server) scan(in *scanInput) (any, error) {
	p, err := in.pager(in.parser())
	if err != nil {
		return nil, err
	}
	segment, total := 0, 1
	if (in.Segment == nil) != (in.TotalSegments == nil) {
		return nil, validation("The TotalSegments and Segment parameters must be given together")
	}
	if in.Segment != nil {
		segment, total = *in.Segment, *in.TotalSegments
		if total < 1 || total > 1_000_000 || segment < 0 || segment >= total {
			return nil, validation("The Segment parameter is zero-based and must be less than parameter TotalSegments")
		}
	}
	full := false
	err = s.store.view(func(t *tx) error {
		tb, items, err := t.table(in.tableName)
		if err != nil {
			return err
		}
		c := items.Cursor()
		k, v := c.First()
		if in.ExclusiveStartKey != nil {
			after, err := tb.key(in.ExclusiveStartKey, true)
			if err != nil {
				return validation("The provided starting key is invalid: " + err.(*dynamoErr).message)
			}
			if k, v = c.Seek(after); bytes.Equal(k, after) {
				k, v = c.Next()
			}
		}
		for ; k != nil && !full; k, v = c.Next() {
			if total > 1 && segmentOf(k, total) != segment {
				continue
			}
			if full, err = p.take(tb, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p.answer(full), nil
}

// segmentOf spreads hash keys over the segments of a parallel scan.
func segmentOf(k []byte, total int) int {
	n := 2 + (int(k[0])<<8 | int(k[1]))
	h := fnv.New32a()
	h.Write(k[:min(n, len(k))])
	return int(h.Sum32() % uint32(total))
}

type queryInput struct {
	pageInput
	KeyConditionExpression string
	ScanIndexForward       *bool
}

// keyCondition takes a key condition apart: the hash key, and the condition on
// the range key if there is one.
func (tb *table) keyCondition(e *expr) (hash attr, rng *expr, err error) {
	bad := func(why string) (attr, *expr, error) {
		return attr{}, nil, validation("Query key condition not supported: " + why)
	}
	parts := []*expr{e}
	if e.op == "AND" {
		parts = e.sub
	}
	for _, c := range parts {
		if len(c.args) == 0 || len(c.args[0].path) != 1 {
			return bad("it must compare key attributes with values")
		}
		for _, a := range c.args[1:] {
			if a.value == nil {
				return bad("it must compare key attributes with values")
			}
		}
		name := c.args[0].path[0].name
		want := tb.Hash.Type
		switch {
		case name == tb.Hash.Name && c.op == "=" && hash.Type == "":
			hash = *c.args[1].value
		case tb.Range != nil && name == tb.Range.Name && rng == nil && slices.Contains([]string{"=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"}, c.op):
			rng, want = c, tb.Range.Type
		default:
			return bad("only = on the hash key, and one comparison of the range key")
		}
		for _, a := range c.args[1:] {
			if a.value.Type != want {
				return attr{}, nil, validation("One or more parameter values were invalid: Condition parameter type does not match schema type")
			}
		}
	}
	if hash.Type == "" {
		return attr{}, nil, validation("Query condition missed key schema element: " + tb.Hash.Name)
	}
	return hash, rng, nil
}

func (s *Server) query(in *queryInput) (any, error) {
	ps := in.parser()
	var cond *expr
	if err := ps.parse("KeyConditionExpression", in.KeyConditionExpression, func() { cond = ps.condition() }); err != nil {
		return nil, err
	}
	p, err := in.pager(ps)
	if err != nil {
		return nil, err
	}
	full := false
	err = s.store.view(func(t *tx) error {
		tb, items, err := t.table(in.tableName)
		if err != nil {
			return err
		}
		hash, rng, err := tb.keyCondition(cond)
		if err != nil {
			return err
		}
		prefix := itemKey(hash, nil)
		c := items.Cursor()
		k, v := c.Seek(prefix)
		step := c.Next
		if in.ScanIndexForward != nil && !*in.ScanIndexForward {
			step = c.Prev
			if k, _ = c.Seek(behind(string(prefix))); k == nil {
				k, v = c.Last()
			} else {
				k, v = c.Prev()
			}
		}
		if in.ExclusiveStartKey != nil {
			after, err := tb.key(in.ExclusiveStartKey, true)
			if err != nil || !in.ExclusiveStartKey[tb.Hash.Name].equal(hash) {
				return validation("The provided starting key is invalid")
			}
			backwards := in.ScanIndexForward != nil && !*in.ScanIndexForward
			k, v = c.Seek(after)
			switch {
			case backwards && k == nil:
				k, v = c.Last()
			case backwards:
				k, v = c.Prev()
			case bytes.Equal(k, after):
				k, v = c.Next()
			}
		}
		for ; k != nil && hasPrefix(k, prefix) && !full; k, v = step() {
			if rng != nil {
				it, err := decodeItem(v)
				if err != nil {
					return err
				}
				if !rng.holds(it) {
					continue
				}
			}
			if full, err = p.take(tb, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p.answer(full), nil
}

func (s *Server) batchGet(in *struct {
	metrics
	RequestItems map[string]struct {
		oneRead
		Keys []item
	}
}) (any, error) {
	n := 0
	for _, r := range in.RequestItems {
		n += len(r.Keys)
	}
	if n < 1 || n > maxBatchGet {
		return nil, validation("Too many items requested for the BatchGetItem call")
	}
	responses := make(map[string][]item)
	err := s.store.view(func(t *tx) error {
		for name, r := range in.RequestItems {
			pr, err := r.projection()
			if err != nil {
				return err
			}
			tb, items, err := t.table(tableName{name})
			if err != nil {
				return err
			}
			seen := make(map[string]bool)
			responses[name] = []item{}
			for _, key := range r.Keys {
				k, err := tb.key(key, true)
				if err != nil {
					return err
				}
				if seen[string(k)] {
					return validation("Provided list of item keys contains duplicates")
				}
				seen[string(k)] = true
				it, err := readItem(items, k)
				if err != nil {
					return err
				}
				if it != nil {
					responses[name] = append(responses[name], pr.item(it))
				}
			}
		}
		return nil
	})
	return map[string]any{"Responses": responses, "UnprocessedKeys": struct{}{}}, err
}

// writeAll does all of the writes or none. refuse makes one error of what was
// wrong with each of them, nil where nothing was.
func (s *Server) writeAll(writes []*write, refuse func([]error) error) error {
	return s.store.update(func(t *tx) error {
		all := make([]*prepared, len(writes))
		errs := make([]error, len(writes))
		bad := false
		seen := make(map[string]bool)
		for i, w := range writes {
			if all[i], errs[i] = w.prepare(t); errs[i] != nil {
				bad = true
				continue
			}
			id := strings.TrimPrefix(w.table.TableName, tableARN("")) + "\x00" + string(all[i].key)
			if seen[id] {
				return validation("Provided list of item keys contains duplicates")
			}
			seen[id] = true
		}
		if bad {
			return refuse(errs)
		}
		for _, p := range all {
			if err := p.do(t); err != nil {
				return err
			}
		}
		return nil
	})
}

// cancelled is the error of a transaction of which some conditions did not
// hold; any other error comes through as it is.
func cancelled(errs []error) error {
	reasons := make([]map[string]any, len(errs))
	codes := make([]string, len(errs))
	for i, err := range errs {
		codes[i] = "None"
		reasons[i] = map[string]any{"Code": codes[i]}
		if err == nil {
			continue
		}
		e, ok := err.(*dynamoErr)
		if !ok || !strings.HasSuffix(e.kind, "#ConditionalCheckFailedException") {
			return err
		}
		codes[i] = "ConditionalCheckFailed"
		reasons[i] = map[string]any{"Code": codes[i], "Message": e.message}
		if v, ok := e.extra["Item"]; ok {
			reasons[i]["Item"] = v
		}
	}
	e := dynamoErrorf("TransactionCanceledException", "Transaction cancelled, please refer cancellation reasons for specific reasons [%s]", strings.Join(codes, ", "))
	e.extra = map[string]any{"CancellationReasons": reasons}
	return e
}

// batchWrite does all in one transaction; DynamoDB promises that for single
// items only, and may leave some unprocessed.
func (s *Server) batchWrite(in *struct {
	metrics
	RequestItems map[string][]struct {
		PutRequest    *struct{ Item item }
		DeleteRequest *struct{ Key item }
	}
}) (any, error) {
	var writes []*write
	for name, rs := range in.RequestItems {
		for _, r := range rs {
			switch {
			case (r.PutRequest == nil) == (r.DeleteRequest == nil):
				return nil, validation("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
			case r.PutRequest != nil:
				writes = append(writes, &write{table: tableName{name}, put: r.PutRequest.Item, kind: "put"})
			default:
				writes = append(writes, &write{table: tableName{name}, key: r.DeleteRequest.Key, kind: "delete"})
			}
		}
	}
	if len(writes) < 1 || len(writes) > maxBatchWrite {
		return nil, validation("Too many items requested for the BatchWriteItem call")
	}
	err := s.writeAll(writes, func(errs []error) error { return cmp.Or(errs...) })
	return map[string]any{"UnprocessedItems": struct{}{}}, err
}

func (s *Server) transactWrite(in *struct {
	metrics
	ClientRequestToken string
	TransactItems      []struct {
		Put            *putItemInput
		Delete         *deleteItemInput
		Update         *updateItemInput
		ConditionCheck *deleteItemInput
	}
}) (any, error) {
	if len(in.TransactItems) < 1 || len(in.TransactItems) > maxTransact {
		return nil, validation("Member must have length between 1 and 100")
	}
	var writes []*write
	for _, it := range in.TransactItems {
		var one []*write
		add := func(w *write, err error) error {
			one = append(one, w)
			return err
		}
		var err error
		if it.Put != nil {
			err = add(it.Put.write())
		}
		if it.Delete != nil && err == nil {
			err = add(it.Delete.write("delete"))
		}
		if it.Update != nil && err == nil {
			err = add(it.Update.write())
		}
		if it.ConditionCheck != nil && err == nil {
			err = add(it.ConditionCheck.write("check"))
		}
		if err != nil {
			return nil, err
		}
		if len(one) != 1 {
			return nil, validation("TransactItems can only contain one of Check, Put, Update or Delete")
		}
		writes = append(writes, one[0])
	}
	return struct{}{}, s.writeAll(writes, cancelled)
}
