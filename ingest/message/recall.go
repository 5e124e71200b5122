package message

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest"
)

// Log is what Recall reads. See buffer.Reader and buffer.Catalog.
type Log interface {
	Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error)
	Stream(name string) (buffer.StreamInfo, error)
}

// Recalled is a QoS 1 or 2 message that the log holds.
type Recalled struct {
	ClientID string
	ID       uint16
	Hash     uint64
	QoS      byte
	Arrival  time.Time
	sequence buffer.Sequence
}

// Seen is what a Window notes of it: a message of before this process.
func (m Recalled) Seen() Seen { return Seen{Hash: m.Hash, Exact: m.QoS == 2} }

// recallBytes of each shard are read back at most: 2 KiB a message.
const recallBytes = 64 << 20

// Recall returns the newest WindowSize messages that source appended to
// streams, in the order of their arrival.
func Recall(ctx context.Context, log Log, source string, streams []string) ([]Recalled, error) {
	var list []Recalled
	for _, stream := range streams {
		info, err := log.Stream(stream)
		if errors.Is(err, buffer.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, shard := range info.Shards {
			err := tail(ctx, log, stream, shard, func(e *buffer.Entry) {
				if m, ok := recalled(e); ok && e.Attribute(ingest.AttrSource) == source {
					list = append(list, m)
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Recalled) int {
		return cmp.Or(a.Arrival.Compare(b.Arrival), cmp.Compare(a.sequence, b.sequence))
	})
	return list[max(0, len(list)-WindowSize):], nil
}

// recalled reads what a record says of its message; false for QoS 0.
func recalled(e *buffer.Entry) (Recalled, bool) {
	id, err := strconv.ParseUint(e.Attribute(AttrPacketID), 10, 16)
	if err != nil {
		return Recalled{}, false
	}
	m := Recalled{
		ClientID: e.Attribute(AttrClientID), ID: uint16(id), QoS: 1, Arrival: e.Arrival, sequence: e.Sequence,
	}
	if e.Attribute(AttrQoS) == "2" {
		m.QoS = 2
	}
	if text := e.Attribute(attrHash); text != "" {
		m.Hash, _ = strconv.ParseUint(text, 16, 64) // what we wrote; a wrong one recognises nothing
	} else {
		m.Hash = Fingerprint(e.Attribute(AttrTopic), e.Data)
	}
	return m, true
}

// tail calls fn for the newest entries of a shard, as many as a window has.
func tail(ctx context.Context, log Log, stream string, shard buffer.ShardInfo, fn func(*buffer.Entry)) error {
	at := buffer.Position{Shard: shard.ID, Sequence: shard.First}
	records := int64(shard.Next - shard.First)
	if records == 0 {
		return nil
	}
	count := min(records, WindowSize, recallBytes/max(shard.Bytes/records, 1)+1)
	at.Sequence = shard.Next - buffer.Sequence(count)
	for {
		page, err := log.Read(ctx, stream, at, buffer.Limit{})
		if err != nil {
			return err
		}
		for i := range page.Entries {
			fn(&page.Entries[i])
		}
		if at.Sequence = page.Next; page.AtEnd || at.Sequence >= shard.Next {
			return nil
		}
	}
}
