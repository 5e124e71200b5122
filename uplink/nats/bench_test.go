package nats_test

import (
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

// BenchmarkSend compares batches of a sink with the same messages published
// by the client library alone, asynchronously, in the same run.
func BenchmarkSend(b *testing.B) {
	const records = 500
	var list []buffer.Entry
	for i := range records {
		list = append(list, buffer.Entry{Stream: "telemetry", Sequence: buffer.Sequence(i + 1), ClockSynced: true, Record: buffer.Record{
			PartitionKey: fmt.Sprintf("sensor-%d", i%50), Data: make([]byte, 256), Arrival: time.Now(),
			Attributes: []buffer.Attribute{{Key: "mqtt.topic", Value: "sensors/17/temperature"}},
		}})
	}
	renumber := func(n int) {
		for i := range list {
			list[i].Sequence = buffer.Sequence(n*records + i + 1)
		}
	}
	b.Run("sink", func(b *testing.B) {
		server := natstest.Start(b, "")
		config := nats.DefaultConfig()
		config.URL, config.Create = server.URL(), "WEIR"
		sink, err := nats.New(nats.Options{Config: config, Name: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := sink.Close(); err != nil {
				b.Error(err)
			}
		})
		if _, err := sink.Tail(b.Context(), "gw-17", "telemetry", ""); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			renumber(n)
			n++
			if err := sink.Send(b.Context(), uplink.Batch{Node: "gw-17", Entries: list}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(n*records)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("library", func(b *testing.B) {
		server := natstest.Start(b, "")
		js, closeJS := server.Connect()
		defer closeJS()
		if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "WEIR", Subjects: []string{"weir.>"}}); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			renumber(n)
			n++
			for i := range list {
				m := natsgo.NewMsg("weir.gw-17.telemetry")
				for _, h := range uplink.Headers("gw-17", &list[i]) {
					m.Header[h.Name] = []string{h.Value}
				}
				m.Header["Nats-Msg-Id"] = []string{uplink.RecordID("gw-17", &list[i])}
				m.Data = list[i].Data
				if _, err := js.PublishMsgAsync(m); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
		}
		b.ReportMetric(float64(n*records)/b.Elapsed().Seconds(), "records/s")
	})
}
