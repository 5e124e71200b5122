package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a log with numbered records, and a pump that can be started again.
type node struct {
	t      *testing.T
	id     string
	log    *buffer.Log
	config uplink.Config
	nats   nats.Config
	sent   map[string]map[string]int // records by stream and key
	pump   *uplink.Pump
	stop   func()
	logger *slog.Logger
}

func newNode(t *testing.T, id, url string, streams ...string) *node {
	t.Helper()
	cfg := buffer.DefaultConfig()
	cfg.Dir = t.TempDir()
	cfg.Commit.MaxDelay = value.Duration(2 * time.Millisecond)
	policies := map[string]buffer.StreamConfig{}
	for _, stream := range streams {
		policy := buffer.DefaultStreamConfig(buffer.Data)
		policy.Shards = 3
		policies[stream] = policy
	}
	log, err := buffer.Open(t.Context(), cfg, buffer.Options{Logger: slog.New(slog.DiscardHandler), Streams: policies})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, id: id, log: log, config: uplink.DefaultConfig(), nats: nats.DefaultConfig(), sent: map[string]map[string]int{}}
	n.config.Name, n.config.Type, n.config.Streams = "central", "nats", streams
	n.config.Batch.MaxDelay = value.Duration(5 * time.Millisecond)
	n.config.Retry = value.Backoff{Min: value.Duration(20 * time.Millisecond), Max: value.Duration(200 * time.Millisecond)}
	n.nats.URL, n.nats.Create = url, "WEIR"
	t.Cleanup(func() {
		n.halt()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// append adds count numbered records over 20 keys to a stream.
func (n *node) append(stream string, count int) {
	n.t.Helper()
	keys := n.sent[stream]
	if keys == nil {
		keys = map[string]int{}
		n.sent[stream] = keys
	}
	var records []buffer.Record
	for i := range count {
		key := fmt.Sprintf("key-%02d", i%20)
		keys[key]++
		records = append(records, buffer.Record{PartitionKey: key, Data: []byte(key + " " + strconv.Itoa(keys[key]))})
		if len(records) == 500 || i == count-1 {
			if _, err := n.log.Append(n.t.Context(), stream, records...); err != nil {
				n.t.Fatal(err)
			}
			records = nil
		}
	}
}

// run starts a pump.
func (n *node) run() {
	n.t.Helper()
	logger := n.logger
	if logger == nil && testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	sink, err := nats.New(nats.Options{Config: n.nats, Name: "central", Logger: logger})
	if err != nil {
		n.t.Fatal(err)
	}
	n.pump = uplink.New(uplink.Options{Config: n.config, Node: n.id, Sink: sink, Log: n.log, Logger: logger})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.pump.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("pump: %v", err)
		}
		n.stop = nil
	}
}

func (n *node) halt() {
	if n.stop != nil {
		n.stop()
	}
}

// drained waits until the pump has committed everything.
func (n *node) drained() {
	n.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		behind := int64(0)
		for _, c := range n.log.Consumers() {
			for _, lag := range c.Lags {
				behind += lag.Records
			}
		}
		if behind == 0 && len(n.log.Consumers()) > 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("still %d records behind: %+v", behind, n.pump.Status())
		}
		<-time.After(10 * time.Millisecond) // polled: the log does not tell of commits of positions
	}
}

// check reads the whole JetStream stream: each record once, in order per key.
func check(t *testing.T, server *natstest.Server, nodes ...*node) {
	t.Helper()
	js, closeJS := server.Connect()
	defer closeJS()
	stream, err := js.Stream(t.Context(), "WEIR")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	last := map[string]int{}
	for _, n := range nodes {
		for stream, keys := range n.sent {
			for key, count := range keys {
				total += count
				last["weir."+n.id+"."+stream+" "+key] = 0
			}
		}
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for seen := uint64(0); seen < info.State.Msgs; {
		batch, err := consumer.Fetch(int(min(5000, info.State.Msgs-seen)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			seen++
			id := m.Headers().Get("Nats-Msg-Id")
			if ids[id] {
				t.Errorf("%s is there twice", id)
			}
			ids[id] = true
			var key string
			var number int
			if _, err := fmt.Sscanf(string(m.Data()), "%s %d", &key, &number); err != nil {
				t.Fatal(err)
			}
			if m.Headers().Get("ce-id") != id || m.Headers().Get("ce-partitionkey") != key {
				t.Errorf("headers of %s: %v", id, m.Headers())
			}
			of := m.Subject() + " " + key
			meta, err := m.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			if meta.Sequence.Stream != seen {
				t.Fatalf("the test read message %d as number %d", meta.Sequence.Stream, seen)
			}
			if last[of]+1 != number {
				t.Fatalf("%s: %d comes after %d (%s), message %d", of, number, last[of], id, seen)
			}
			last[of] = number
		}
		if err := batch.Error(); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != total {
		t.Errorf("%d records at the centre, %d were sent", len(ids), total)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	n := newNode(t, "gw-17", server.URL(), "telemetry", "alerts")
	n.append("telemetry", 5000)
	n.append("alerts", 300)
	n.run()
	n.drained()
	n.append("telemetry", 1000)
	n.drained()
	n.halt()
	check(t, server, n)
	t.Logf("%+v", n.pump.Status())
}
