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

// Names of the attributes that sources put on records.
const (
	AttrReason = "weir.reason" // why a record was set aside
	AttrSize   = "weir.size"   // bytes of the whole payload, when it was cut
	AttrStream = "weir.stream" // where a record that was set aside should have gone
	AttrSource = "weir.source" // the name of the source
)

// SetAside makes the record for the stream Aside. data is kept up to
// MaxAsideBytes; size is the length of the whole payload.
func SetAside(source, stream, reason string, size int, data []byte, attributes ...buffer.Attribute) buffer.Record {
	if len(data) > MaxAsideBytes {
		data = data[:MaxAsideBytes]
	}
	if len(reason) > 512 {
		reason = reason[:512]
	}
	list := []buffer.Attribute{{Key: AttrReason, Value: reason}, {Key: AttrSource, Value: source}}
	if stream != "" {
		list = append(list, buffer.Attribute{Key: AttrStream, Value: stream})
	}
	if size > len(data) {
		list = append(list, buffer.Attribute{Key: AttrSize, Value: strconv.Itoa(size)})
	}
	return buffer.Record{PartitionKey: source, Data: data, Attributes: append(list, attributes...)}
}
