package http

import (
	"errors"
	"fmt"
	"mime"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// kind is how a body holds records.
type kind byte

const (
	kindJSON  kind = iota + 1 // a value, or an array of them
	kindLines                 // a JSON value a line
	kindRaw                   // one record, as it is
	kindEvent                 // CloudEvents: one in JSON
	kindBatch                 // an array of those
	kindHeads                 // one whose attributes are headers
)

// kinds are the content types that are taken (application/jsonl is another
// name of application/x-ndjson).
var kinds = []struct {
	name string
	kind kind
}{
	{"application/json", kindJSON}, {"application/x-ndjson", kindLines}, {"application/jsonl", kindLines},
	{"application/cloudevents+json", kindEvent}, {"application/cloudevents-batch+json", kindBatch},
	{"text/plain", kindRaw}, {"application/octet-stream", kindRaw},
}

// kindOf says what the body is. A CloudEvent in binary mode may be of any
// content type, or none (HTTP binding 1.0.2, section 3.1.1).
func kindOf(h nethttp.Header) (kind, *problem) {
	text := h.Get("Content-Type")
	name, parameters, err := mime.ParseMediaType(text)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		name = ""
	}
	if !strings.HasPrefix(name, "application/cloudevents") && isEvent(h) {
		return kindHeads, nil
	}
	for _, k := range kinds {
		if k.name != name {
			continue
		}
		if charset := strings.ToLower(parameters["charset"]); k.kind != kindRaw && !slices.Contains([]string{"", "utf-8", "us-ascii"}, charset) {
			return 0, refuse(Unsupported, "charset %.40q is not utf-8, which JSON is in", charset)
		}
		return k.kind, nil
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return 0, refuse(Unsupported, "content type %.80q is not one of %s; or send an event in binary mode, with ce- headers", text, strings.Join(names, ", "))
}

// form is what is needed to make records of a body.
type form struct {
	kind     kind
	key      string   // the request's partition key; "": none
	template template // else
}

// intake collects the records of one request.
type intake struct {
	form
	grow    func(n int) error // takes memory
	client  string
	common  []buffer.Attribute // of every record
	arrival time.Time
	records []buffer.Record
	paid    int // records whose memory was taken
}

// records makes records of the body.
func (e *exchange) records(body []byte) ([]buffer.Record, *problem) {
	in := &intake{
		form: e.form, client: e.client.name, common: e.attributes(), arrival: time.Now(),
		grow: func(n int) error { return e.lease.grow(e.r.Context(), n) },
	}
	err := in.take(body, e.r.Header)
	if err == nil {
		return in.records, nil
	}
	var p *problem
	if !errors.As(err, &p) {
		p = e.noRoom(err)
	}
	return nil, p
}

// take reads a body. The error is a *problem, or that of grow.
func (in *intake) take(body []byte, h nethttp.Header) error {
	switch in.kind {
	case kindRaw:
		if len(body) == 0 {
			return refuse(BadRequest, "the body is empty; a record is expected in it")
		}
		return in.add(record{data: body})
	case kindHeads:
		ev, err := headerEvent(h)
		if err != nil {
			return refuse(BadRequest, "%v", err).at(0)
		}
		return in.add(record{data: body, event: ev})
	case kindLines:
		return in.takeLines(body)
	case kindJSON, kindEvent, kindBatch:
	}
	if err := checkJSON(body); err != nil {
		return refuse(BadRequest, "the body is %v", err)
	}
	body = trim(body)
	switch array := body[0] == '['; {
	case in.kind == kindBatch && !array:
		return refuse(BadRequest, "the body is not an array of events, as application/cloudevents-batch+json has it")
	case in.kind == kindEvent && array:
		return refuse(BadRequest, "the body is an array; send it as application/cloudevents-batch+json")
	case !array:
		return in.addJSON("", body)
	}
	i := 0
	for element := range elements(body) {
		if err := in.addJSON("["+strconv.Itoa(i)+"]", element); err != nil {
			return err
		}
		i++
	}
	return nil
}

func (in *intake) takeLines(body []byte) error {
	for number, line := range lines(body) {
		place := "line " + strconv.Itoa(number)
		if err := checkJSON(line); err != nil {
			return refuse(BadRequest, "%s: %v", place, err).at(len(in.records))
		}
		if err := in.addJSON(place, line); err != nil {
			return err
		}
	}
	if len(in.records) == 0 {
		return refuse(BadRequest, "the body is empty; a line of JSON for each record is expected in it")
	}
	return nil
}

// addJSON adds a record that is JSON, or the event in it.
func (in *intake) addJSON(place string, text []byte) error {
	if in.kind != kindEvent && in.kind != kindBatch {
		return in.add(record{place: place, data: text, json: true})
	}
	// Its strings become memory of their own.
	if err := in.grow(len(text) + eventOverhead); err != nil {
		return err
	}
	ev, data, err := jsonEvent(text)
	if err != nil {
		return in.bad(BadRequest, place, err)
	}
	return in.add(record{place: place, data: data, event: ev})
}

// record is what add makes one of.
type record struct {
	place string // in the body, to be told; "" if there is only one
	data  []byte
	json  bool   // data is known to be JSON
	event *event // or nil
}

// add makes a record, and checks what the log would refuse without naming its
// place.
func (in *intake) add(r record) error {
	if len(in.records) >= buffer.MaxAppendRecords {
		return refuse(TooLarge, "over %d records are in one request; send them in several", buffer.MaxAppendRecords)
	}
	if len(in.records) == in.paid {
		step := min(max(1, in.paid), 1024)
		if err := in.grow(step * recordOverhead); err != nil {
			return err
		}
		in.paid += step
	}
	key, err := in.keyOf(r)
	if err != nil {
		return in.bad(BadRequest, r.place, err)
	}
	attributes := in.common
	if r.event != nil {
		attributes = append(r.event.attributes, in.common...)
	}
	if err := checkAttributes(attributes); err != nil {
		return in.bad(TooLarge, r.place, err)
	}
	in.records = append(in.records, buffer.Record{PartitionKey: key, Data: r.data, Attributes: attributes, Arrival: in.arrival})
	return nil
}

func (in *intake) bad(reason Reason, place string, err error) *problem {
	if place != "" {
		err = fmt.Errorf("%s: %w", place, err)
	}
	return refuse(reason, "%v", err).at(len(in.records))
}

func (in *intake) keyOf(r record) (string, error) {
	if in.key != "" {
		return in.key, nil // checked
	}
	key := ""
	switch {
	case r.event != nil && r.event.key != "":
		key = r.event.key
	case len(in.template) == 0:
		if r.event != nil {
			return "", fmt.Errorf("%w, or the extension partitionkey", errNoKey)
		}
		return "", errNoKey
	default:
		var err error
		if key, err = in.template.expand(in.client, r.data, r.json); err != nil {
			return "", err
		}
	}
	return key, checkKey(key)
}

func checkAttributes(list []buffer.Attribute) error {
	if len(list) > buffer.MaxAttributes {
		return fmt.Errorf("%d attributes are over the limit of %d", len(list), buffer.MaxAttributes)
	}
	size := 0
	for _, a := range list {
		size += len(a.Key) + len(a.Value)
	}
	if size > buffer.MaxAttributeBytes {
		return fmt.Errorf("attributes of %d bytes are over the limit of %d", size, buffer.MaxAttributeBytes)
	}
	return nil
}
