package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	dynamoTarget = "DynamoDB_20120810."

	// maxDynamo bounds a request's body in bytes, as DynamoDB does.
	maxDynamo = 16 << 20
)

// dynamoErr is an answer in DynamoDB's error format.
type dynamoErr struct {
	kind, message string
	status        int
	extra         map[string]any
}

func (e *dynamoErr) Error() string { return e.kind + ": " + e.message }

// dynamoErrorf makes an error of a kind of DynamoDB's own.
func dynamoErrorf(kind, format string, args ...any) *dynamoErr {
	return &dynamoErr{kind: "com.amazonaws.dynamodb.v20120810#" + kind, message: fmt.Sprintf(format, args...), status: http.StatusBadRequest}
}

func validation(message string) *dynamoErr {
	return &dynamoErr{kind: "com.amazon.coral.validate#ValidationException", message: message, status: http.StatusBadRequest}
}

func serialization(message string) *dynamoErr {
	return &dynamoErr{kind: "com.amazon.coral.service#SerializationException", message: message, status: http.StatusBadRequest}
}

func noTable(name string) *dynamoErr {
	return dynamoErrorf("ResourceNotFoundException", "Requested resource not found: Table: %s not found", name)
}

// dynamoOps are the operations; what is missing here is refused by name.
var dynamoOps = map[string]func(*Server, []byte) (any, error){
	"CreateTable":               operation((*Server).createTable),
	"DescribeTable":             operation((*Server).describeTable),
	"DeleteTable":               operation((*Server).deleteTable),
	"ListTables":                operation((*Server).listTables),
	"UpdateTable":               operation((*Server).updateTable),
	"DescribeContinuousBackups": operation((*Server).describeBackups),
	"UpdateContinuousBackups":   operation((*Server).updateBackups),
	"DescribeTimeToLive":        operation((*Server).describeTTL),
	"UpdateTimeToLive":          operation((*Server).updateTTL),
	"TagResource":               operation((*Server).tagResource),
	"UntagResource":             operation((*Server).untagResource),
	"ListTagsOfResource":        operation((*Server).listTags),
	"GetItem":                   operation((*Server).getItem),
	"PutItem":                   operation((*Server).putItem),
	"DeleteItem":                operation((*Server).deleteItem),
	"UpdateItem":                operation((*Server).updateItem),
	"Query":                     operation((*Server).query),
	"Scan":                      operation((*Server).scan),
	"BatchGetItem":              operation((*Server).batchGet),
	"BatchWriteItem":            operation((*Server).batchWrite),
	"TransactWriteItems":        operation((*Server).transactWrite),
}

// operation decodes the input of an operation. A member that the sandbox does
// not know is refused: read over, a legacy "Expected" would be a write without
// its condition.
func operation[In any](fn func(*Server, *In) (any, error)) func(*Server, []byte) (any, error) {
	return func(s *Server, body []byte) (any, error) {
		var in In
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		err := d.Decode(&in)
		var value errValue
		switch {
		case errors.As(err, &value):
			return nil, validation(string(value))
		case err != nil && strings.HasPrefix(err.Error(), "json: unknown field"):
			return nil, validation("The sandbox does not know the parameter " + strings.TrimPrefix(err.Error(), "json: unknown field "))
		case err != nil:
			return nil, serialization(err.Error())
		}
		return fn(s, &in)
	}
}

func (s *Server) serveDynamo(w http.ResponseWriter, r *http.Request, id string) {
	w.Header().Set("x-amzn-RequestId", id)
	target := r.Header.Get("X-Amz-Target")
	name, ours := strings.CutPrefix(target, dynamoTarget)
	op := dynamoOps[name]
	if op == nil || !ours {
		s.count(r, "dynamodb:Unknown")
	} else {
		s.count(r, "dynamodb:"+name)
	}
	out, err := func() (any, error) {
		switch {
		case op == nil || !ours:
			return nil, dynamoErrorf("UnknownOperationException", "The sandbox has no %s", target)
		case r.Method != http.MethodPost:
			return nil, dynamoErrorf("UnknownOperationException", "The sandbox has no %s by %s", target, r.Method)
		case r.Header.Get("Authorization") == "":
			return nil, &dynamoErr{kind: "com.amazon.coral.service#MissingAuthenticationTokenException", message: "Request is missing Authentication Token", status: http.StatusBadRequest}
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDynamo))
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, &dynamoErr{kind: "com.amazon.coral.service#RequestEntityTooLargeException", message: "Request size is larger than 16 MB", status: http.StatusRequestEntityTooLarge}
		}
		if err != nil {
			return nil, serialization("The request body cannot be read: " + err.Error())
		}
		if tooDeep(body) {
			return nil, validation("Nesting Levels have exceeded supported limits")
		}
		return op(s, body)
	}()
	status := http.StatusOK
	if err != nil {
		var e *dynamoErr
		if !errors.As(err, &e) {
			e = &dynamoErr{kind: "com.amazonaws.dynamodb.v20120810#InternalServerError", message: err.Error(), status: http.StatusInternalServerError}
		}
		answer := map[string]any{"__type": e.kind, "message": e.message}
		for k, v := range e.extra {
			answer[k] = v
		}
		out, status = answer, e.status
	}
	data, err := json.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-amz-json-1.0")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(data)), 10))
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// tooDeep says whether a document nests beyond what any request may. Decoding a
// value reads it once for each level.
func tooDeep(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			// An attribute's level is two brackets: its type and its content.
			if depth++; depth > 4*maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
