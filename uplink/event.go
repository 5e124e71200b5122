package uplink

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-edge/weir/buffer"
)

// RecordID is NODE/STREAM/SHARD/SEQUENCE: the same record has the same id at
// every destination and each time it is sent.
func RecordID(node string, e *buffer.Entry) string {
	return node + "/" + e.Stream + "/" + e.Shard.String() + "/" + e.Sequence.String()
}

// ParseRecordID is the inverse of RecordID. A node may itself contain slashes.
func ParseRecordID(id string) (node, stream string, at buffer.Position, err error) {
	bad := func() (string, string, buffer.Position, error) {
		return "", "", buffer.Position{}, fmt.Errorf("parse record id: %.200q is not NODE/STREAM/SHARD/SEQUENCE", id)
	}
	var parts [3]string
	rest := id
	for i := 2; i >= 0; i-- {
		cut := strings.LastIndexByte(rest, '/')
		if cut <= 0 {
			return bad()
		}
		rest, parts[i] = rest[:cut], rest[cut+1:]
	}
	number, ok := strings.CutPrefix(parts[1], "shardId-")
	shard, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil || len(number) < 12 || parts[0] == "" {
		return bad()
	}
	sequence, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return bad()
	}
	at = buffer.Position{Shard: buffer.ShardID(shard), Sequence: buffer.Sequence(sequence)}
	if at.Shard.String() != parts[1] || at.Sequence.String() != parts[2] {
		return bad()
	}
	return rest, parts[0], at, nil
}

// Header is a name and a value that is safe to be sent as it is.
type Header struct{ Name, Value string }

// TimeFormat is the form of ce-time: RFC 3339, UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// taken are the names of the context attributes of CloudEvents 1.0 and of its
// extensions that a record's attribute must not be mistaken for.
func taken(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "data", "database64",
		"partitionkey", "stream", "shard", "sequence", "sequencetype", "part", "clocksynced":
		return true
	}
	return false
}

// Headers are the CloudEvents 1.0 headers of a record in binary mode (HTTP
// binding 3.1.3, NATS binding 3.1.3): names beginning with "ce-", values
// percent-encoded. DELIVERY.md has the table. It is pure.
func Headers(node string, e *buffer.Entry) []Header {
	headers := make([]Header, 0, 11+len(e.Attributes))
	add := func(name, value string) { headers = append(headers, Header{"ce-" + name, encodeValue(value)}) }
	add("specversion", "1.0")
	add("id", RecordID(node, e))
	add("source", "weir://"+node+"/"+e.Stream)
	add("type", "weir.record")
	add("time", e.Arrival.UTC().Format(TimeFormat))
	add("partitionkey", e.PartitionKey)
	add("stream", e.Stream)
	add("shard", e.Shard.String())
	add("sequence", e.Sequence.String())
	switch e.Part {
	case buffer.Piece:
		add("part", "piece")
	case buffer.Closing:
		add("part", "closing")
	case buffer.Whole:
	}
	if !e.ClockSynced {
		add("clocksynced", "false")
	}
	own := len(headers)
	for _, attribute := range e.Attributes {
		add(extensionName(attribute.Key, headers[own:]), attribute.Value)
	}
	return headers
}

// extensionName makes the name of a CloudEvents extension from the key of an
// attribute: its letters and digits in lower case.
func extensionName(key string, before []Header) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, key)
	free := func(name string) bool {
		if name == "" || taken(name) {
			return false
		}
		for _, h := range before {
			if h.Name == "ce-"+name {
				return false
			}
		}
		return true
	}
	if free(name) {
		return name
	}
	name = "attr" + name
	for n, candidate := 2, name; ; n++ {
		if free(candidate) {
			return candidate
		}
		candidate = name + strconv.Itoa(n)
	}
}

// encodeValue percent-encodes what the CloudEvents bindings want encoded: all
// bytes outside '!' to '~', the double quote and the percent sign.
func encodeValue(value string) string {
	safe := func(b byte) bool { return b >= '!' && b <= '~' && b != '"' && b != '%' }
	i := 0
	for i < len(value) && safe(value[i]) {
		i++
	}
	if i == len(value) {
		return value
	}
	var out strings.Builder
	out.Grow(len(value) + 16)
	const hex = "0123456789ABCDEF"
	for i := range len(value) {
		b := value[i]
		if safe(b) {
			out.WriteByte(b)
			continue
		}
		out.Write([]byte{'%', hex[b>>4], hex[b&15]})
	}
	return out.String()
}
