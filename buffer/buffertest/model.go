package buffertest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-edge/weir/buffer"
)

// CheckModel does random things to a log and to a Memory and compares what
// they say. The log is opened again now and then, where the harness can.
func CheckModel(t *testing.T, h Harness) {
	rapid.Check(t, func(r *rapid.T) {
		two := buffer.DefaultStreamConfig(buffer.Data)
		two.Shards = 2
		streams := map[string]buffer.StreamConfig{"two": two, "one": buffer.DefaultStreamConfig(buffer.Data)}
		m := &machine{rapid: r, test: t, harness: h, model: NewLog(streams), log: h.Open(t, streams), now: time.UnixMilli(1_700_000_000_000)}
		defer func() {
			if err := m.log.Close(); err != nil {
				r.Fatal(err)
			}
		}()
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			m.step()
		}
		m.compare()
	})
}

type machine struct {
	rapid   *rapid.T
	test    *testing.T
	harness Harness
	model   *Memory
	log     Log
	now     time.Time
}

func (m *machine) step() {
	r := m.rapid
	stream := rapid.SampledFrom([]string{"one", "two"}).Draw(r, "stream")
	switch rapid.IntRange(0, 9).Draw(r, "what") {
	default:
		m.append(stream)
	case 6:
		m.find(stream)
	case 7:
		m.commit(stream)
	case 8:
		if m.harness.Reopen != nil {
			m.log = m.harness.Reopen(m.test, m.log)
		}
	case 9:
		m.compare()
	}
}

func (m *machine) append(stream string) {
	r := m.rapid
	var records []buffer.Record
	for range rapid.IntRange(1, 5).Draw(r, "records") {
		m.now = m.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(r, "later")) * time.Millisecond)
		records = append(records, buffer.Record{
			PartitionKey: fmt.Sprint("k", rapid.IntRange(0, 9).Draw(r, "key")),
			Data:         bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(r, "byte"))}, rapid.SampledFrom([]int{0, 1, 100, 5000, 300_000}).Draw(r, "size")),
			Arrival:      m.now,
		})
	}
	want, err := m.model.Append(m.test.Context(), stream, records...)
	if err != nil {
		r.Fatal(err)
	}
	got, err := m.log.Append(m.test.Context(), stream, records...)
	if err != nil {
		r.Fatal(err)
	}
	for i := range want {
		if got[i] != want[i] {
			r.Fatalf("record %d went to %v, not %v", i, got[i], want[i])
		}
	}
}

func (m *machine) find(stream string) {
	r := m.rapid
	start := buffer.Start{
		Kind:     buffer.StartKind(rapid.IntRange(0, 4).Draw(r, "kind")),
		Sequence: buffer.Sequence(rapid.IntRange(0, 100).Draw(r, "sequence")),
		Time:     m.now.Add(-time.Duration(rapid.IntRange(-1000, 100_000).Draw(r, "ago")) * time.Millisecond),
	}
	want, err := m.model.Find(stream, 0, start)
	if err != nil {
		r.Fatal(err)
	}
	if got, err := m.log.Find(stream, 0, start); err != nil || got != want {
		r.Fatalf("%+v is %s, %v; want %s", start, got, err, want)
	}
}

func (m *machine) commit(stream string) {
	r := m.rapid
	c := buffer.Commit{Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{
		{Stream: stream}: buffer.Sequence(rapid.IntRange(1, 50).Draw(r, "position")),
	}}
	if rapid.Bool().Draw(r, "state") {
		c.State = []byte(rapid.StringN(0, 20, -1).Draw(r, "text"))
	}
	if err := errors.Join(m.model.Commit(m.test.Context(), c), m.log.Commit(m.test.Context(), c)); err != nil {
		r.Fatal(err)
	}
}

// compare reads everything from both.
func (m *machine) compare() {
	r := m.rapid
	for _, stream := range []string{"one", "two"} {
		for shard := range buffer.ShardID(map[string]uint32{"one": 1, "two": 2}[stream]) {
			limit := buffer.Limit{MaxRecords: rapid.IntRange(1, 50).Draw(r, "limit")}
			at := buffer.Position{Shard: shard, Sequence: buffer.Sequence(rapid.IntRange(1, 10).Draw(r, "from"))}
			want, got := m.readAll(m.model, stream, at, limit), m.readAll(m.log, stream, at, limit)
			if len(want) != len(got) {
				r.Fatalf("%d entries of %s %s from %s on, want %d", len(got), stream, shard, at.Sequence, len(want))
			}
			for i := range want {
				w, g := want[i], got[i]
				if w.Sequence != g.Sequence || w.PartitionKey != g.PartitionKey || !bytes.Equal(w.Data, g.Data) || !w.Arrival.Equal(g.Arrival) {
					r.Fatalf("entry %d of %s %s is %s %s, want %s %s", i, stream, shard, g.Sequence, g.PartitionKey, w.Sequence, w.PartitionKey)
				}
			}
		}
	}
	want, werr := m.model.Checkpoint("c")
	got, gerr := m.log.Checkpoint("c")
	if (werr == nil) != (gerr == nil) || !bytes.Equal(want.State, got.State) || len(want.Positions) != len(got.Positions) {
		r.Fatalf("the consumer is at %+v (%v), want %+v (%v)", got, gerr, want, werr)
	}
	for key, seq := range want.Positions {
		if got.Positions[key] != seq {
			r.Fatalf("the consumer is at %s of %v, want %s", got.Positions[key], key, seq)
		}
	}
}

func (m *machine) readAll(l buffer.Reader, stream string, at buffer.Position, limit buffer.Limit) []buffer.Entry {
	var list []buffer.Entry
	for {
		page, err := l.Read(m.test.Context(), stream, at, limit)
		if err != nil {
			m.rapid.Fatal(err)
		}
		list = append(list, page.Entries...)
		if at.Sequence = page.Next; page.AtEnd {
			return list
		}
	}
}
