package uplinktest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
)

// Harness joins the suite to one kind of sink. Each test of the suite makes its
// own with the function given to Suite, over a destination that is empty.
type Harness struct {
	// Open makes a sink for the destination of this harness; it may be called
	// again after the sink before was closed.
	Open func(t *testing.T) uplink.Sink
	// Stored returns everything the destination holds, each shard's in the order
	// in which it would be read.
	Stored func(t *testing.T) []Stored
	// Break breaks the connection, if the sink has one; nil: it has none.
	Break func(t *testing.T)
}

// Suite tests the contract of uplink.Sink, and of uplink.Resumer if the sink
// is one.
func Suite(t *testing.T, harness func(t *testing.T) Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"stores in order, unchanged":     storesInOrder,
		"keeps nothing of the batch":     keepsNothing,
		"streams side by side":           sideBySide,
		"stops with its context":         stopsWithContext,
		"refuses after close":            refusesAfterClose,
		"tells its tail":                 tellsTail,
		"tail after a break":             tailAfterBreak,
		"headers survive strange values": strangeValues,
	} {
		t.Run(name, func(t *testing.T) { test(t, harness(t)) })
	}
}

const suiteNode = "gw-17"

// entries makes n entries of one shard, numbered from first.
func entries(stream string, shard buffer.ShardID, first, n int) []buffer.Entry {
	var out []buffer.Entry
	for i := first; i < first+n; i++ {
		out = append(out, buffer.Entry{
			Stream: stream, Shard: shard, Sequence: buffer.Sequence(i), ClockSynced: true,
			Record: buffer.Record{
				PartitionKey: fmt.Sprintf("key-%d", i%3), Data: fmt.Appendf(nil, "\x00record %d of %s\xff", i, stream),
				Arrival: time.UnixMilli(1_700_000_000_000 + int64(i)),
			},
		})
	}
	return out
}

func open(t *testing.T, h Harness) uplink.Sink {
	t.Helper()
	sink := h.Open(t)
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	return sink
}

// readBack calls Tail if there is one, until it answers.
func readBack(t *testing.T, sink uplink.Sink, stream string, behind uplink.Mark) uplink.Tail {
	t.Helper()
	resumer, ok := sink.(uplink.Resumer)
	if !ok {
		return uplink.Tail{}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		tail, err := resumer.Tail(t.Context(), suiteNode, stream, behind)
		if err == nil {
			return tail
		}
		if time.Now().After(deadline) {
			t.Fatalf("tail of %s: %v", stream, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func send(t *testing.T, sink uplink.Sink, list []buffer.Entry) {
	t.Helper()
	if err := sink.Send(t.Context(), uplink.Batch{Node: suiteNode, Entries: list}); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// want compares what is stored of one stream and shard with entries.
func want(t *testing.T, h Harness, list []buffer.Entry) {
	t.Helper()
	var expected, got []Stored
	prefix := ""
	for i := range list {
		e := &list[i]
		prefix = suiteNode + "/" + e.Stream + "/" + e.Shard.String() + "/"
		expected = append(expected, Stored{uplink.RecordID(suiteNode, e), e.PartitionKey, string(e.Data)})
	}
	for _, s := range h.Stored(t) {
		if len(s.ID) > len(prefix) && s.ID[:len(prefix)] == prefix {
			got = append(got, s)
		}
	}
	if !slices.Equal(got, expected) {
		t.Errorf("stored of %s:\n%q\nwant:\n%q", prefix, got, expected)
	}
}

func storesInOrder(t *testing.T, h Harness) {
	sink := open(t, h)
	readBack(t, sink, "telemetry", "")
	readBack(t, sink, "alerts", "")
	a, b, c := entries("telemetry", 0, 1, 700), entries("telemetry", 1, 1, 40), entries("alerts", 0, 1, 3)
	send(t, sink, a[:300])
	send(t, sink, b[:1])
	send(t, sink, c)
	send(t, sink, a[300:])
	send(t, sink, b[1:])
	want(t, h, a)
	want(t, h, b)
	want(t, h, c)
}

func keepsNothing(t *testing.T, h Harness) {
	sink := open(t, h)
	readBack(t, sink, "telemetry", "")
	list, original := entries("telemetry", 0, 1, 10), entries("telemetry", 0, 1, 10)
	send(t, sink, list)
	for i := range list {
		clear(list[i].Data)
		list[i].PartitionKey = "changed"
	}
	send(t, sink, entries("telemetry", 0, 11, 1))
	want(t, h, append(original, entries("telemetry", 0, 11, 1)...))
}

func sideBySide(t *testing.T, h Harness) {
	sink := open(t, h)
	var all sync.WaitGroup
	for i := range 4 {
		stream := fmt.Sprintf("stream-%d", i)
		readBack(t, sink, stream, "")
		all.Go(func() {
			for first := 1; first <= 200; first += 20 {
				if err := sink.Send(t.Context(), uplink.Batch{Node: suiteNode, Entries: entries(stream, 0, first, 20)}); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range 4 {
		want(t, h, entries(fmt.Sprintf("stream-%d", i), 0, 1, 200))
	}
}

func stopsWithContext(t *testing.T, h Harness) {
	sink := open(t, h)
	readBack(t, sink, "telemetry", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	returned := make(chan error, 1)
	go func() {
		returned <- sink.Send(ctx, uplink.Batch{Node: suiteNode, Entries: entries("telemetry", 0, 1, 100)})
	}()
	select {
	case err := <-returned:
		// What was stored all the same is a beginning, and the tail says which.
		tail := readBack(t, sink, "telemetry", "")
		if _, ok := sink.(uplink.Resumer); ok && err != nil {
			want(t, h, entries("telemetry", 0, 1, int(tail.Last[0].Sequence)))
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Send goes on although its context is done")
	}
}

func refusesAfterClose(t *testing.T, h Harness) {
	sink := h.Open(t)
	readBack(t, sink, "telemetry", "")
	send(t, sink, entries("telemetry", 0, 1, 1))
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Send(t.Context(), uplink.Batch{Node: suiteNode, Entries: entries("telemetry", 0, 2, 1)}); err == nil {
		t.Error("Send after Close succeeds")
	}
	want(t, h, entries("telemetry", 0, 1, 1))
}

func tellsTail(t *testing.T, h Harness) {
	sink := h.Open(t)
	resumer, ok := sink.(uplink.Resumer)
	if !ok {
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		return // it promises nothing more
	}
	if tail := readBack(t, sink, "telemetry", ""); len(tail.Last) != 0 {
		t.Errorf("tail of an empty destination: %v", tail)
	}
	send(t, sink, entries("telemetry", 0, 1, 50))
	send(t, sink, entries("telemetry", 2, 1, 5))
	half := resumer.Mark(suiteNode, "telemetry")
	send(t, sink, entries("telemetry", 0, 51, 7))
	full := resumer.Mark(suiteNode, "telemetry")
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		behind uplink.Mark
		last   map[buffer.ShardID]buffer.Sequence
	}{
		{"", map[buffer.ShardID]buffer.Sequence{0: 57, 2: 5}},
		{half, map[buffer.ShardID]buffer.Sequence{0: 57}},
		{full, nil},
	} {
		sink := h.Open(t)
		tail := readBack(t, sink, "telemetry", test.behind)
		if len(tail.Last) != len(test.last) {
			t.Errorf("tail behind %q: %v, want %v", test.behind, tail.Last, test.last)
		}
		for shard, sequence := range test.last {
			got := tail.Last[shard]
			arrival := time.UnixMilli(1_700_000_000_000 + int64(sequence))
			if got.Sequence != sequence || !got.Arrival.IsZero() && !got.Arrival.Equal(arrival) {
				t.Errorf("tail behind %q of shard %d: %v, want %d at %v", test.behind, shard, got, sequence, arrival)
			}
		}
		if again := readBack(t, sink, "telemetry", tail.Mark); test.behind == full && again.Mark == "" {
			t.Error("a tail without a mark")
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func tailAfterBreak(t *testing.T, h Harness) {
	sink := open(t, h)
	if _, ok := sink.(uplink.Resumer); !ok || h.Break == nil {
		return
	}
	readBack(t, sink, "telemetry", "")
	next := 1
	for range 20 {
		broken := make(chan struct{})
		go func() {
			h.Break(t)
			close(broken)
		}()
		err := sink.Send(t.Context(), uplink.Batch{Node: suiteNode, Entries: entries("telemetry", 0, next, 200)})
		<-broken
		held := int(readBack(t, sink, "telemetry", "").Last[0].Sequence)
		if err == nil && held != next+199 {
			t.Fatalf("acknowledged up to %d, held up to %d", next+199, held)
		}
		next = held + 1
	}
	want(t, h, entries("telemetry", 0, 1, next-1))
}

func strangeValues(t *testing.T, h Harness) {
	sink := open(t, h)
	readBack(t, sink, "telemetry", "")
	list := entries("telemetry", 0, 1, 4)
	list[0].PartitionKey = "line\r\nNats-Msg-Id: forged"
	list[1].PartitionKey = "ключ 100% \"quoted\" \x7f"
	list[2].Data = nil
	list[3].Attributes = []buffer.Attribute{{Key: "mqtt.topic", Value: "a/b\r\n\r\nc"}, {Key: "ID", Value: "x"}, {Key: "\n", Value: "y"}}
	send(t, sink, list)
	want(t, h, list)
}
