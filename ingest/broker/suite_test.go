package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// configuration is a broker's on a free port of loopback.
func configuration(topics ...Topic) Config {
	c := DefaultConfig()
	c.Listen, c.Topics = "tcp://127.0.0.1:0", topics
	if len(topics) == 0 {
		c.Topics = []Topic{{Filter: "sensors/+", Stream: ingesttest.Stream, PartitionKey: "{topic[1]}"}}
	}
	return c
}

// start runs a broker over log until stop is called or the test ends.
func start(t *testing.T, c Config, log Log) (b *Broker, stop func()) {
	t.Helper()
	b, err := New(Options{Config: c, Log: log, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the broker ends with %v", err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("stopping took %s", took)
		}
	})
	t.Cleanup(stop)
	until(t, "the broker listens", func() bool { return b.Ready() })
	return b, stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// device publishes with QoS 1 or 2, and again what is not acknowledged after it
// had to connect anew.
type device struct {
	t    *testing.T
	qos  byte
	id   string
	addr func() string

	mu      sync.Mutex
	conn    net.Conn
	next    uint16
	pending []packet.Publish
	acked   int
}

func (d *device) send(topic, data string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	p := packet.Publish{QoS: d.qos, ID: d.next, Topic: topic, Payload: []byte(data)}
	d.pending = append(d.pending, p)
	if d.conn != nil {
		wire, _ := p.Append(nil, packet.V311)
		_, _ = d.conn.Write(wire) // if it fails it is sent again
	}
}

// run connects again and again until stop.
func (d *device) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := d.once(ctx); err != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

func (d *device) once(ctx context.Context) error {
	addr := d.addr()
	if addr == "" {
		return errors.New("not yet")
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	wire, err := (&packet.Connect{Version: packet.V311, ClientID: d.id, KeepAlive: 60}).Append(nil, 0)
	if err != nil {
		return err
	}
	if _, err := conn.Write(wire); err != nil {
		return err
	}
	r := newRaw(conn, packet.V311)
	if _, err := r.next(); err != nil { // CONNACK
		return err
	}
	d.mu.Lock()
	for _, p := range d.pending {
		p.Dup = true
		wire, _ := p.Append(nil, packet.V311)
		_, _ = conn.Write(wire)
	}
	d.conn = conn
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.conn = nil
		d.mu.Unlock()
	}()
	for {
		p, err := r.next()
		if err != nil {
			return err
		}
		a, ok := p.(*packet.Ack)
		if !ok {
			continue
		}
		d.mu.Lock()
		switch a.Kind {
		case packet.PUBACK, packet.PUBREC:
			for i := range d.pending {
				if d.pending[i].ID == a.ID {
					d.pending = append(d.pending[:i], d.pending[i+1:]...)
					d.acked++
					break
				}
			}
			if a.Kind == packet.PUBREC {
				wire, _ := (&packet.Ack{Kind: packet.PUBREL, ID: a.ID}).Append(nil, packet.V311)
				_, _ = conn.Write(wire)
			}
		}
		d.mu.Unlock()
	}
}

func TestSuite(t *testing.T) {
	for name, qos := range map[string]byte{"qos1": 1, "qos2": 2} {
		t.Run(name, func(t *testing.T) {
			ingesttest.Suite(t, func(t *testing.T) ingesttest.Harness {
				c := configuration(
					Topic{Filter: "sensors/+", Stream: ingesttest.Stream, PartitionKey: "{topic[1]}"},
					Topic{Filter: "json", Stream: ingesttest.Stream, PartitionKey: "{json.id}"})
				var mu sync.Mutex
				var now *Broker
				d := &device{t: t, qos: qos, id: "dev", addr: func() string {
					mu.Lock()
					defer mu.Unlock()
					if now == nil {
						return ""
					}
					return now.Address()
				}}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() { defer close(done); d.run(ctx) }()
				t.Cleanup(func() { cancel(); <-done })
				return ingesttest.Harness{
					Start: func(t *testing.T, log *ingesttest.Log) func() {
						b, stop := start(t, c, log)
						mu.Lock()
						now = b
						mu.Unlock()
						return stop
					},
					Send:       func(_ *testing.T, key, data string) { d.send("sensors/"+key, data) },
					Unmappable: func(*testing.T) { d.send("json", "{}") },
					Acknowledged: func() int {
						d.mu.Lock()
						defer d.mu.Unlock()
						return d.acked
					},
					Again: true,
				}
			})
		})
	}
}
