package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// Record is a record as the API and the command line write and read it: data
// is text when it is UTF-8, else base64.
type Record struct {
	Stream       string            `json:"stream,omitempty"`
	Shard        string            `json:"shard,omitempty"`
	Sequence     string            `json:"sequence,omitempty"`
	PartitionKey string            `json:"partition_key"`
	Arrival      string            `json:"arrival,omitempty"` // RFC 3339, milliseconds, UTC
	Attributes   map[string]string `json:"attributes"`
	Data         *string           `json:"data,omitempty"`
	DataBase64   []byte            `json:"data_base64,omitempty"`
}

// ArrivalLayout is how the time of arrival is written.
const ArrivalLayout = "2006-01-02T15:04:05.000Z07:00"

// NewRecord turns what the log holds into what the API answers. The result
// shares no memory with e but its data when that is not text.
func NewRecord(e *buffer.Entry) Record {
	r := Record{
		Stream: e.Stream, Shard: e.Shard.String(), Sequence: e.Sequence.String(),
		PartitionKey: e.PartitionKey, Arrival: e.Arrival.UTC().Format(ArrivalLayout),
		Attributes: make(map[string]string, len(e.Attributes)),
	}
	for _, a := range e.Attributes {
		r.Attributes[a.Key] = a.Value
	}
	if utf8.Valid(e.Data) {
		text := string(e.Data)
		r.Data = &text
	} else {
		r.DataBase64 = e.Data
	}
	return r
}

// Bytes returns the record's data.
func (r *Record) Bytes() []byte {
	if r.Data != nil {
		return []byte(*r.Data)
	}
	return r.DataBase64
}

// toBuffer checks what a client sent and turns it into what the log takes.
func (r *Record) toBuffer() (buffer.Record, error) {
	if r.Stream != "" || r.Shard != "" || r.Sequence != "" {
		return buffer.Record{}, errors.New("stream, shard and sequence are decided by the log")
	}
	if r.Data != nil && r.DataBase64 != nil {
		return buffer.Record{}, errors.New("data and data_base64 are both set")
	}
	if r.Data == nil && r.DataBase64 == nil {
		return buffer.Record{}, errors.New("data is missing")
	}
	out := buffer.Record{PartitionKey: r.PartitionKey, Data: r.Bytes()}
	for _, key := range slices.Sorted(maps.Keys(r.Attributes)) {
		out.Attributes = append(out.Attributes, buffer.Attribute{Key: key, Value: r.Attributes[key]})
	}
	if r.Arrival != "" {
		at, err := time.Parse(time.RFC3339Nano, r.Arrival)
		if err != nil {
			return buffer.Record{}, fmt.Errorf("arrival %q is not a time such as 2026-01-31T12:00:00.000Z", r.Arrival)
		}
		out.Arrival = at
	}
	return out, nil
}

// Start is the parsed form of `from`: where reading begins.
type Start struct {
	buffer.Start
	Shard *buffer.ShardID // only this one; nil: all
}

// ParseStart reads trim-horizon, latest, an RFC 3339 time, a duration (that
// long before now), or SHARD:SEQUENCE. A duration needs now.
func ParseStart(text string, now time.Time) (Start, error) {
	switch text {
	case "trim-horizon":
		return Start{Start: buffer.Start{Kind: buffer.TrimHorizon}}, nil
	case "latest":
		return Start{Start: buffer.Start{Kind: buffer.Latest}}, nil
	}
	if at, err := ParseTime(text, now); err == nil {
		return Start{Start: buffer.Start{Kind: buffer.AtTime, Time: at}}, nil
	}
	if shardText, sequenceText, ok := strings.Cut(text, ":"); ok {
		shard, shardErr := ParseShard(shardText)
		sequence, err := strconv.ParseUint(sequenceText, 10, 64)
		if shardErr == nil && err == nil {
			return Start{
				Start: buffer.Start{Kind: buffer.AtSequence, Sequence: buffer.Sequence(sequence)},
				Shard: &shard,
			}, nil
		}
	}
	return Start{}, fmt.Errorf("%.80q is not trim-horizon, latest, a time such as 2026-01-31T12:00:00Z or 15m, or SHARD:SEQUENCE", text)
}

// ParseTime reads an RFC 3339 time, or a duration as that long before now.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%.80q is not a time; write it as 2026-01-31T12:00:00Z, or as 15m for that long ago", text)
}

// ParseShard reads a shard's name in its long form, shardId-000000000000, or
// as a bare number.
func ParseShard(text string) (buffer.ShardID, error) {
	number := strings.TrimPrefix(text, "shardId-")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%.80q is not a shard; write it as shardId-000000000000 or 0", text)
	}
	return buffer.ShardID(n), nil
}
