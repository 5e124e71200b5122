package mqtt

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

func payloads(log *ingesttest.Log, stream string) []string {
	var list []string
	for _, e := range log.Entries(stream) {
		list = append(list, string(e.Data))
	}
	return list
}

// scene is a source at a scripted broker.
type scene struct {
	t      *testing.T
	broker *scripted
	log    *ingesttest.Log
	source *Source
	config Config
	stop   func()
}

func newScene(t *testing.T) *scene {
	b := startScripted(t)
	b.session = true
	s := &scene{t: t, broker: b, log: ingesttest.NewLog(), config: config(b.address(),
		topic("a/#", 1, "telemetry", "{topic}"), topic("b/#", 1, "alerts", "{topic}"), topic("json", 1, "telemetry", "{json.id}"))}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *scene) start() {
	s.source, s.stop = startSource(s.t, s.config, s.log)
	until(s.t, "subscribed", func() bool { return s.source.Status().State == Connected })
}

// reconnect breaks the connection and waits for the next one.
func (s *scene) reconnect() {
	before := s.broker.connected()
	s.broker.cut()
	until(s.t, "connected again", func() bool { return s.broker.connected() > before && s.source.Status().State == Connected })
}

func (s *scene) settled(n int) {
	s.t.Helper()
	until(s.t, "acknowledged", func() bool { return s.broker.settled() == n })
}

func (s *scene) holds(stream string, want ...string) {
	s.t.Helper()
	if got := payloads(s.log, stream); !slices.Equal(got, want) {
		s.t.Errorf("stream %s holds %v, want %v", stream, got, want)
	}
}

// TestLostAcknowledgement: durable, PUBACK lost, delivered again: once in the log.
func TestLostAcknowledgement(t *testing.T) {
	s := newScene(t)
	s.broker.set(func(b *scripted) { b.deaf = true })
	s.broker.publish("a/1", "one", 1)
	s.broker.publish("b/1", "two", 2)
	s.broker.publish("json", "{}", 1)
	until(t, "acknowledged, in vain", func() bool { return s.source.Status().Acknowledged == 3 })
	s.reconnect()
	until(t, "delivered again", func() bool { return s.source.Status().Repeated == 3 })
	s.broker.set(func(b *scripted) { b.deaf = false })
	s.reconnect() // acknowledgements may get lost more than once
	s.settled(3)
	s.holds("telemetry", "one")
	s.holds("alerts", "two")
	s.holds(ingest.Aside, "{}")
}

// TestKilledBeforeAcknowledgement: another process over the same log.
func TestKilledBeforeAcknowledgement(t *testing.T) {
	s := newScene(t)
	s.broker.set(func(b *scripted) { b.deaf = true })
	s.broker.publish("a/1", "one", 1)
	s.broker.publish("b/1", "two", 2)
	s.broker.publish("json", "{}", 1)
	until(t, "acknowledged, in vain", func() bool { return s.source.Status().Acknowledged == 3 })
	s.broker.cut()
	s.stop()
	s.broker.set(func(b *scripted) { b.deaf = false })
	s.start()
	s.settled(3)
	if got := s.source.Status().Repeated; got != 3 {
		t.Errorf("%d recognised", got)
	}
	s.holds("telemetry", "one")
	s.holds("alerts", "two")
	s.holds(ingest.Aside, "{}")
}

// TestSourcesDoNotShareTheirWindow: what another source appended with the same
// identifier and content is another message.
func TestSourcesDoNotShareTheirWindow(t *testing.T) {
	s := newScene(t)
	s.broker.publish("a/1", "one", 1)
	s.settled(1)
	s.stop()
	s.config.Name = "other"
	s.broker.publishAs(outgoing{topic: "a/1", payload: "one", qos: 1, id: 1, sent: true})
	s.start()
	s.settled(2)
	s.holds("telemetry", "one", "one")
}

// TestNeverWider: what is alike and still another message is appended.
func TestNeverWider(t *testing.T) {
	for name, test := range map[string]func(s *scene){
		"the identifier is used again": func(s *scene) {
			s.broker.publishAs(outgoing{topic: "a/1", payload: "same", qos: 1, id: 1})
		},
		"and again after a break": func(s *scene) {
			s.reconnect()
			s.broker.publishAs(outgoing{topic: "a/1", payload: "same", qos: 1, id: 1})
		},
		"another identifier, the first delivery was lost": func(s *scene) {
			s.reconnect()
			s.broker.publishAs(outgoing{topic: "a/1", payload: "same", qos: 1, id: 2, sent: true})
		},
		"the broker lost the session": func(s *scene) {
			s.broker.set(func(b *scripted) { b.session = false })
			s.reconnect()
			s.broker.publishAs(outgoing{topic: "a/1", payload: "same", qos: 1, id: 1, sent: true})
		},
		"DUP without a break": func(s *scene) {
			s.broker.publishAs(outgoing{topic: "a/1", payload: "same", qos: 1, id: 1, sent: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.broker.publish("a/1", "same", 1)
			s.settled(1)
			s.t = t
			test(s)
			s.settled(2)
			s.holds("telemetry", "same", "same")
		})
	}
	t.Run("another payload", func(t *testing.T) {
		s := newScene(t)
		s.broker.publish("a/1", "one", 1)
		s.settled(1)
		s.reconnect()
		s.broker.publishAs(outgoing{topic: "a/1", payload: "two", qos: 1, id: 1, sent: true})
		s.settled(2)
		s.holds("telemetry", "one", "two")
	})
}

// TestAcknowledgesInOrder (MQTT-4.6.0), with one that is over the limit.
func TestAcknowledgesInOrder(t *testing.T) {
	s := newScene(t)
	release := s.log.Hold()
	var want []uint16
	for i := range 200 {
		payload := "x"
		if i%20 == 10 {
			payload = strings.Repeat("x", 1<<20+100_000)
		}
		want = append(want, s.broker.publish("a/1", payload, 1))
	}
	release()
	s.settled(200)
	s.broker.set(func(b *scripted) { // under its lock
		if !slices.Equal(b.acks, want) {
			t.Errorf("acknowledged in the order %v", b.acks)
		}
	})
	if got := len(s.log.Entries(ingest.Aside)); got != 10 {
		t.Errorf("%d set aside", got)
	}
}

// TestFullForLong: a log that takes nothing for several times keep_alive does
// not cost the connection, even with more waiting than is taken in.
func TestFullForLong(t *testing.T) {
	s := newScene(t)
	s.stop()
	s.config.KeepAlive, s.config.MaxInflight = value.Duration(time.Second), 2
	s.config.ConnectTimeout = value.Duration(500 * time.Millisecond)
	s.log.Fill(true)
	before := s.broker.connected()
	for range 20 { // they come before SUBACK
		s.broker.publish("a/1", "x", 1)
	}
	s.source, s.stop = startSource(t, s.config, s.log)
	pings := 0
	until(t, "it asks several times", func() bool {
		s.broker.set(func(b *scripted) { pings = b.pings })
		return pings >= 8
	})
	s.log.Fill(false)
	s.settled(20)
	if got := s.broker.connected() - before; got != 1 {
		t.Errorf("%d connections", got)
	}
}

// TestSilentBroker: a connection that is dead without a word is noticed.
func TestSilentBroker(t *testing.T) {
	in, out := net.Pipe()
	defer in.Close()
	defer out.Close()
	g := newGuard(in, guardRules{limit: 100, filters: 1, idle: 20 * time.Millisecond})
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { _, _ = out.Write(connack) }) // the read below fails without it
	if _, err := io.ReadAll(g); err == nil || err.Error() != "the broker is silent for 20ms" {
		t.Error(err)
	}
}

// TestRefusedSubscription is an error that is shown, and tried again.
func TestRefusedSubscription(t *testing.T) {
	b := startScripted(t)
	b.code = 0x80
	s, stop := startSource(t, config(b.address(), topic("a/#", 1, "telemetry", "{topic}")), ingesttest.NewLog())
	defer stop()
	until(t, "it is shown", func() bool {
		st := s.Status()
		return st.State == Away && strings.Contains(st.LastError, "refuses the subscription to a/#")
	})
	if !s.Ready() {
		t.Error("a source that keeps trying is not ready")
	}
	b.set(func(b *scripted) { b.code = 1 })
	until(t, "subscribed", func() bool { return s.Status().State == Connected })
}

// TestGarbage: a peer that is no broker. Nothing panics, nothing grows, and it
// is tried again for ever.
func TestGarbage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer := make([]byte, 1+rand.IntN(3000))
			for j := range answer {
				answer[j] = byte(rand.Uint32())
			}
			switch i % 4 {
			case 1: // so that it goes further
				answer = append([]byte{0x20, 2, 0, 0}, answer...)
			case 2: // what the library panics at
				answer = []byte{0x20, 2, 0, 0, 0x90, 6, 0, 1, 1, 1, 1, 1}
			case 3: // a claim of 256 MiB
				answer = []byte{0x20, 2, 0, 0, 0xd0, 0xff, 0xff, 0xff, 0x7f}
			}
			_, _ = conn.Write(answer) // the source may be gone before
			conn.Close()
		}
	})
	c := config(l.Addr().String(), topic("#", 1, "telemetry", "{topic}"))
	s, err := New(c, ingesttest.NewLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var lines lineCounter
	s.logger = slog.New(slog.NewTextHandler(&lines, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	until(t, "fifty tries", func() bool {
		s.state.mu.Lock()
		defer s.state.mu.Unlock()
		return s.state.failures > 50
	})
	cancel()
	l.Close()
	group.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more are in use", grown)
	}
	if n := lines.Load(); n > 2 {
		t.Errorf("%d lines of log for one fault", n)
	}
}

// TestStopsAtAClosedLog: the source waits for the end, it does not spin and acknowledges nothing.
func TestStopsAtAClosedLog(t *testing.T) {
	s := newScene(t)
	s.log.Refuse(closedLog)
	s.broker.publish("a/1", "one", 1)
	s.broker.publish("a/1", "two", 1)
	until(t, "it arrived", func() bool { return s.source.Status().Received == 2 })
	s.stop()
	if s.broker.settled() != 0 {
		t.Error("acknowledged without a log")
	}
	s.log.Refuse(nil)
	s.start()
	s.settled(2)
	s.holds("telemetry", "one", "two")
}

// TestNothingOvertakes: after an append was given up, what came behind it does
// not get into the log first.
func TestNothingOvertakes(t *testing.T) {
	s := newScene(t)
	var given atomic.Bool
	s.log.Refuse(func(_ string, r *buffer.Record) error {
		if string(r.Data) == "one" {
			given.Store(true)
			return buffer.ErrClosed
		}
		return nil
	})
	s.broker.publish("a/1", "one", 1)
	until(t, "it is given up", given.Load)
	s.broker.publish("a/1", "two", 1)
	until(t, "the next one arrived", func() bool { return s.source.Status().Received == 2 })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		s.holds("telemetry")
	}
	s.stop()
	s.log.Refuse(nil)
	s.start()
	s.settled(2)
	s.holds("telemetry", "one", "two")
}

func closedLog(string, *buffer.Record) error { return buffer.ErrClosed }

type lineCounter struct{ atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.Add(1)
	return len(b), nil
}
