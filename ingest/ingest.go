// Package ingest is the contract of a source: what turns a device's payload
// into records of the shard log. Each protocol has a folder of its own
// (ingest/mqtt); they share the names of attributes and the way a payload that
// cannot become a record is set aside.
//
// A source acknowledges to the device only after Append returned, for then the
// data is durable. When the log is full it withholds the acknowledgement in the
// way of its protocol and tries again; it never drops what it accepted. What
// can never be appended (too large, no partition key) goes to the stream Aside
// with its reason, is counted and acknowledged, so that it does not block what
// comes behind it.
//
// The package opens no connections itself.
package ingest

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// Appender is what a source needs of the log. See buffer.Writer.
type Appender interface {
	Append(ctx context.Context, stream string, records ...buffer.Record) ([]buffer.Position, error)
}

// Aside is the stream that takes what cannot become a record.
const Aside = "aside"

// MaxAsideBytes of a payload are kept when it is set aside.
const MaxAsideBytes = 64 << 10

// MaxAsideText bytes of an attribute are kept when a payload is set aside, so
// that the attributes stay within what a record may have.
const MaxAsideText = 1 << 10

// Names of the attributes that sources put on records.
const (
	AttrReason = "weir.reason" // why a record was set aside
	AttrSize   = "weir.size"   // bytes of the whole payload, when it was cut
	AttrStream = "weir.stream" // where a record that was set aside should have gone
	AttrSource = "weir.source" // the name of the source
)

// Refused is a payload that cannot become a record of its stream.
type Refused struct {
	Source     string // the source's name
	Stream     string // where it should have gone; "" if that is not known
	Reason     string
	Size       int    // bytes of the whole payload
	Data       []byte // as much of it as there is
	Attributes []buffer.Attribute
}

// Record is what goes to the stream Aside: at most MaxAsideBytes of the data.
// The log must take it whatever a device sent, so texts are made UTF-8.
func (r Refused) Record() buffer.Record {
	data := r.Data[:min(len(r.Data), MaxAsideBytes)]
	list := []buffer.Attribute{{Key: AttrReason, Value: CutText(r.Reason, 512)}, {Key: AttrSource, Value: r.Source}}
	if r.Stream != "" {
		list = append(list, buffer.Attribute{Key: AttrStream, Value: r.Stream})
	}
	if r.Size > len(data) {
		list = append(list, buffer.Attribute{Key: AttrSize, Value: strconv.Itoa(r.Size)})
	}
	for _, a := range r.Attributes {
		list = append(list, buffer.Attribute{Key: a.Key, Value: CutText(a.Value, MaxAsideText)})
	}
	return buffer.Record{PartitionKey: r.Source, Data: data, Attributes: list}
}

// CutText returns at most limit bytes of text, never half a character, and
// with U+FFFD in place of what is not UTF-8.
func CutText(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
