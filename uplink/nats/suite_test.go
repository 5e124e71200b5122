package nats_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/uplink/nats/natstest"
	"github.com/weir-edge/weir/uplink/uplinktest"
)

func TestSinkKeepsTheContract(t *testing.T) {
	t.Parallel()
	uplinktest.Suite(t, func(t *testing.T) uplinktest.Harness {
		server := natstest.Start(t, "")
		proxy := natstest.NewProxy(t, server.Address())
		return uplinktest.Harness{
			Open: func(t *testing.T) uplink.Sink {
				config := nats.DefaultConfig()
				config.URL, config.Create = proxy.URL(), "WEIR"
				sink, err := nats.New(nats.Options{Config: config, Name: "suite"})
				if err != nil {
					t.Fatal(err)
				}
				return sink
			},
			Stored: func(t *testing.T) []uplinktest.Stored { return stored(t, server) },
			Break:  func(*testing.T) { proxy.Cut() },
		}
	})
}

// stored reads the whole stream WEIR.
func stored(t *testing.T, server *natstest.Server) []uplinktest.Stored {
	t.Helper()
	js, closeJS := server.Connect()
	defer closeJS()
	stream, err := js.Stream(t.Context(), "WEIR")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var out []uplinktest.Stored
	for uint64(len(out)) < info.State.Msgs {
		batch, err := consumer.Fetch(min(1000, int(info.State.Msgs)-len(out)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			key, err := url.PathUnescape(m.Headers().Get("ce-partitionkey"))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, uplinktest.Stored{ID: m.Headers().Get("Nats-Msg-Id"), PartitionKey: key, Data: string(m.Data())})
		}
		if err := batch.Error(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
