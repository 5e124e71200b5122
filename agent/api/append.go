package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/weir-edge/weir/buffer"
)

// Appended is the answer to an append: where each record went, in the order
// they were sent.
type Appended struct {
	Appended int     `json:"appended"`
	Records  []Place `json:"records"`
}

// Place is where a record went.
type Place struct {
	Shard    string `json:"shard"`
	Sequence string `json:"sequence"`
}

// badRequest is a fault of the client's, told as it is.
type badRequest struct{ text string }

func (e *badRequest) Error() string { return e.text }

// appendRecords appends what the body holds, all or nothing, and answers when
// it is durable.
func (s *Server) appendRecords(w http.ResponseWriter, r *http.Request) {
	stream := r.PathValue("stream")
	if err := buffer.CheckName(stream); err != nil {
		writeLogError(w, err)
		return
	}
	if info, err := s.log.Stream(stream); err == nil && info.Config.Kind == buffer.Video {
		writeError(w, http.StatusConflict, fmt.Sprintf("stream %s belongs to a camera", stream), "append to another stream")
		return
	}
	size := r.ContentLength
	if size > maxBodyBytes {
		tooLarge(w)
		return
	}
	if size < 0 {
		size = maxBodyBytes // of unknown length
	}
	if !s.bodies.take(size) {
		s.counters.refused.WithLabelValues("busy").Inc()
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "too many bytes at once", "try again in a second")
		return
	}
	defer s.bodies.give(size)
	records, err := readBody(http.MaxBytesReader(w, r.Body, maxBodyBytes), r.Header.Get("Content-Type"), r.URL.Query())
	if err != nil {
		writeBodyError(w, err)
		return
	}
	places, err := s.log.Append(r.Context(), stream, records...)
	if err != nil {
		writeLogError(w, err)
		return
	}
	answer := Appended{Appended: len(places), Records: make([]Place, 0, len(places))}
	for _, p := range places {
		answer.Records = append(answer.Records, Place{Shard: p.Shard.String(), Sequence: p.Sequence.String()})
	}
	writeJSON(w, http.StatusOK, answer)
}

func tooLarge(w http.ResponseWriter) {
	writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is over %d MiB", maxBodyBytes>>20), "send it in several requests")
}

func writeBodyError(w http.ResponseWriter, err error) {
	var bad *badRequest
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &bad):
		writeError(w, http.StatusBadRequest, bad.text, "see /api/v1/openapi.yaml")
	case errors.As(err, &large):
		tooLarge(w)
	case errors.Is(err, buffer.ErrTooLarge):
		writeLogError(w, err)
	default:
		writeError(w, http.StatusBadRequest, "read the body: "+err.Error(), "")
	}
}

// readBody reads the records of a body in one of the three forms: a line of
// JSON each, one JSON array, or raw lines with the key in the query.
func readBody(body io.Reader, contentType string, query url.Values) ([]buffer.Record, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = contentType
	}
	switch kind {
	case "application/x-ndjson", "application/jsonl", "application/json":
		return readJSON(body)
	case "text/plain", "application/octet-stream":
		return readLines(body, query.Get("partition_key"))
	}
	return nil, &badRequest{fmt.Sprintf("content type %.60q is not one of application/json, application/x-ndjson, text/plain", contentType)}
}

// readJSON reads an array of records, or records one after another.
func readJSON(body io.Reader) ([]buffer.Record, error) {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	var records []buffer.Record
	for {
		var element json.RawMessage
		if err := decoder.Decode(&element); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, jsonFault(len(records), err)
		}
		more, err := readElement(element, len(records))
		if err != nil {
			return nil, err
		}
		if records = append(records, more...); len(records) > buffer.MaxAppendRecords {
			return nil, fmt.Errorf("%w: over %d records in one request", buffer.ErrTooLarge, buffer.MaxAppendRecords)
		}
	}
	if len(records) == 0 {
		return nil, &badRequest{"there is no record in the body"}
	}
	return records, nil
}

// readElement reads one record or an array of them; n were read before.
func readElement(element json.RawMessage, n int) ([]buffer.Record, error) {
	var list []Record
	decoder := json.NewDecoder(bytes.NewReader(element))
	decoder.DisallowUnknownFields()
	if element[0] == '[' {
		if err := decoder.Decode(&list); err != nil {
			return nil, jsonFault(n, err)
		}
	} else {
		var one Record
		if err := decoder.Decode(&one); err != nil {
			return nil, jsonFault(n, err)
		}
		list = []Record{one}
	}
	out := make([]buffer.Record, 0, len(list))
	for i := range list {
		record, err := list[i].toBuffer()
		if err != nil {
			return nil, &badRequest{fmt.Sprintf("record %d: %v", n+i+1, err)}
		}
		if record.PartitionKey == "" {
			return nil, &badRequest{fmt.Sprintf("record %d: partition_key is missing", n+i+1)}
		}
		out = append(out, record)
	}
	return out, nil
}

// jsonFault tells a fault of the JSON from one of reading it.
func jsonFault(n int, err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return &badRequest{fmt.Sprintf("record %d: %v", n+1, err)}
}

// readLines makes a record of each line, without its newline, also of an
// empty one.
func readLines(body io.Reader, key string) ([]buffer.Record, error) {
	if key == "" {
		return nil, &badRequest{"partition_key is missing; give it as ?partition_key="}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, &badRequest{"there is no record in the body"}
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	n := bytes.Count(text, []byte("\n")) + 1
	if n > buffer.MaxAppendRecords {
		return nil, fmt.Errorf("%w: over %d records in one request", buffer.ErrTooLarge, buffer.MaxAppendRecords)
	}
	records := make([]buffer.Record, 0, n)
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		records = append(records, buffer.Record{PartitionKey: key, Data: line})
	}
	return records, nil
}
