package message

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
	"github.com/weir-edge/weir/ingest"
)

func router(t *testing.T) *Router {
	t.Helper()
	r, err := NewRouter(RouterConfig{Source: "plant", MaxBytes: 1 << 10, ClientID: "us", Routes: []Route{
		{Filter: "s/+/v", Stream: "telemetry", PartitionKey: "{topic[1]}"},
		{Filter: "d/#", Stream: "devices", PartitionKey: "{client_id}"},
		{Filter: "s/#", Stream: "rest", PartitionKey: "{topic}"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRouter(t *testing.T) {
	r := router(t)
	for _, c := range []struct {
		name    string
		message Message
		stream  string
		key     string
		refused string
	}{
		{"the first that matches", Message{Topic: "s/k/v"}, "telemetry", "k", ""},
		{"a later one", Message{Topic: "s/k"}, "rest", "s/k", ""},
		{"a device that is known", Message{Topic: "d/x", ClientID: "dev-1"}, "devices", "dev-1", ""},
		{"a device that is not", Message{Topic: "d/x"}, "devices", "us", ""},
		{"none", Message{Topic: "x"}, ingest.Aside, "plant", "no configured topic matches"},
		{"cut short", Message{Topic: "s/k/v", Payload: []byte("ab"), Size: 99}, ingest.Aside, "plant", "payload of 99 bytes is over the limit of 1KiB"},
		{"large", Message{Topic: "s/k/v", Payload: make([]byte, 1025)}, ingest.Aside, "plant", "payload of 1025 bytes is over the limit of 1KiB"},
		{"a long key", Message{Topic: "s/" + strings.Repeat("k", 257) + "/v"}, ingest.Aside, "plant", "partition key of 257 characters is over the limit of 256"},
		{"a long topic", Message{Topic: "d/" + strings.Repeat("k", 2047)}, ingest.Aside, "plant", "topic is longer than 2048 bytes"},
		{"not UTF-8", Message{Topic: "d/\xff"}, ingest.Aside, "plant", "topic is not UTF-8"},
	} {
		got := r.Record(&c.message)
		reason := ""
		if got.Refused != nil {
			reason = got.Refused.Error()
		}
		if got.Stream != c.stream || got.Record.PartitionKey != c.key || reason != c.refused {
			t.Errorf("%s: stream %s, key %.20q, refused %q", c.name, got.Stream, got.Record.PartitionKey, reason)
		}
		if got.Record.Attribute(ingest.AttrSource) != "plant" {
			t.Errorf("%s: it does not say where it came from: %v", c.name, got.Record.Attributes)
		}
	}
	if stream, ok := r.Match("s/a/b/c"); stream != "rest" || !ok {
		t.Errorf("match: %s %v", stream, ok)
	}
	if _, ok := r.Match("x"); ok {
		t.Error("a topic without a route matches")
	}
}

func TestRouteFaults(t *testing.T) {
	_, err := NewRouter(RouterConfig{Routes: []Route{{Filter: "a/#/b", Stream: "no name", PartitionKey: "{x}"}}})
	for _, want := range []string{"filter: ", "stream: ", "partition_key: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}

// TestRecall: what a router made records of is recognised after a restart,
// also what was set aside cut short.
func TestRecall(t *testing.T) {
	ctx, r, log := context.Background(), router(t), buffertest.NewLog(nil)
	var order Arrivals
	now := time.Now()
	put := func(m Message) {
		m.Hash = Fingerprint(m.Topic, m.Payload)
		if m.Size > 0 {
			m.Hash = 4711 // of all of it
		}
		routed := r.Record(&m)
		now = now.Add(time.Millisecond)
		routed.Record.Arrival = order.Next(now)
		if _, err := log.Append(ctx, routed.Stream, routed.Record); err != nil {
			t.Fatal(err)
		}
	}
	put(Message{Topic: "s/k/v", Payload: []byte("one"), QoS: 1, ID: 7, ClientID: "a"})
	put(Message{Topic: "d/x", Payload: []byte("two"), QoS: 2, ID: 8, ClientID: "b", Dup: true, Retained: true})
	put(Message{Topic: "d/x", Payload: []byte("nobody counts it"), ClientID: "b"})
	put(Message{Topic: "s/k/v", Payload: []byte("beginning"), Size: 5000, QoS: 1, ID: 9, ClientID: "a"})
	refused := r.SetAside("telemetry", buffer.Record{Data: []byte("x"), Arrival: now.Add(time.Second), Attributes: (&Message{Topic: "s/k/v", QoS: 1, ID: 10, ClientID: "a"}).attributes()}, errors.New("the log says no"))
	if _, err := log.Append(ctx, ingest.Aside, refused); err != nil {
		t.Fatal(err)
	}
	list, err := Recall(ctx, log, "plant", r.Streams())
	if err != nil {
		t.Fatal(err)
	}
	want := []Recalled{
		{ClientID: "a", ID: 7, QoS: 1, Hash: Fingerprint("s/k/v", []byte("one"))},
		{ClientID: "b", ID: 8, QoS: 2, Hash: Fingerprint("d/x", []byte("two"))},
		{ClientID: "a", ID: 9, QoS: 1, Hash: 4711},
		{ClientID: "a", ID: 10, QoS: 1, Hash: Fingerprint("s/k/v", []byte("x"))},
	}
	if len(list) != len(want) {
		t.Fatalf("%d messages: %+v", len(list), list)
	}
	for i, m := range list {
		m.Arrival, m.sequence = time.Time{}, 0
		if m != want[i] {
			t.Errorf("message %d is %+v, want %+v", i, m, want[i])
		}
	}
	if other, err := Recall(ctx, log, "elsewhere", r.Streams()); err != nil || len(other) != 0 {
		t.Errorf("another source's: %v, %v", other, err)
	}
}
