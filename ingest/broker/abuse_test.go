package broker

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// TestStopWhileFull: the log takes nothing, a subscription waits to be written
// and a message to be appended. start wants the stop to be quick.
func TestStopWhileFull(t *testing.T) {
	log := ingesttest.NewLog()
	b, stop := start(t, configuration(), log)
	sub, _ := connect(t, b, packet.Connect{Version: packet.V311, ClientID: "sub"})
	log.Fill(true)
	sub.send(&packet.Subscribe{ID: 1, Subscriptions: []packet.Subscription{{Filter: "sensors/#", QoS: 1}}})
	until(t, "the subscription meets the full log", func() bool { return log.Refused() > 0 })
	dev := plain(t, b, packet.V311, "dev")
	dev.publish("sensors/k", "x", 1, 1)
	until(t, "the message is taken", func() bool { return b.Status().Received == 1 })
	stop()
}

// TestStopBesideOneWhoDoesNotRead: a write to it is under way.
func TestStopBesideOneWhoDoesNotRead(t *testing.T) {
	b, stop := start(t, configuration(), ingesttest.NewLog())
	sub := plain(t, b, packet.V311, "sub")
	sub.subscribe("cmd/#", 0)
	dev := plain(t, b, packet.V311, "dev")
	large := strings.Repeat("x", 60<<10)
	for i := range 250 {
		dev.publish("cmd/k", large, 1, uint16(i+1))
		expect[*packet.Ack](dev)
	}
	stop()
}

// TestManyFiltersAtOnce: the same one again and again gets what is retained once,
// and more than a session may have end the connection.
func TestManyFiltersAtOnce(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	dev := plain(t, b, packet.V5, "dev")
	dev.send(&packet.Publish{Topic: "r", Payload: []byte("x"), Retain: true, QoS: 1, ID: 1})
	expect[*packet.Ack](dev)
	p := &packet.Subscribe{ID: 1}
	for range 100 {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: "#"})
	}
	dev.send(p)
	expect[*packet.Suback](dev)
	expect[*packet.Publish](dev)
	dev.quiet()
	p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: "#"})
	dev.send(p)
	if code := dev.closed(); code != packet.QuotaExceeded {
		t.Errorf("ended with 0x%02x", byte(code))
	}
}

// TestQueuedBeforeItsSession: a message that was planned before the record of
// the subscription it is for is there after a kill.
func TestQueuedBeforeItsSession(t *testing.T) {
	log := ingesttest.NewLog()
	b, _ := start(t, configuration(), log)
	sub, _ := connect(t, b, packet.Connect{Version: packet.V311, ClientID: "sub"})
	b.keeper.mu.Lock() // a commit is under way
	sub.send(&packet.Subscribe{ID: 1, Subscriptions: []packet.Subscription{{Filter: "sensors/#", QoS: 1}}})
	until(t, "it is subscribed", func() bool { return b.Status().Subscriptions == 1 })
	it := []*inbound{newInbound(&client{id: "x", session: &session{}}, &packet.Publish{Topic: "sensors/k", Payload: []byte("x"), QoS: 1, ID: 1})}
	if !b.keeper.write(context.Background(), b.plan(it)) {
		t.Fatal("not written")
	}
	b.publish(it)
	b.keeper.mu.Unlock()
	until(t, "the subscription is durable too", func() bool { return len(log.Entries(StateStream)) >= 2 })

	other, _ := start(t, configuration(), log) // as after a kill: the first one says nothing more
	again, ack := connect(t, other, packet.Connect{Version: packet.V311, ClientID: "sub"})
	if p := expect[*packet.Publish](again); !ack.SessionPresent || string(p.Payload) != "x" {
		t.Errorf("session present: %v, got %+v", ack.SessionPresent, p)
	}
}

// TestPropertiesCount: they take memory, and the limits know it.
func TestPropertiesCount(t *testing.T) {
	c := configuration()
	c.MaxRetainedBytes = 10 << 10
	b, _ := start(t, c, ingesttest.NewLog())
	dev := plain(t, b, packet.V5, "dev")
	p := &packet.Publish{Retain: true, Payload: []byte("x"), QoS: 1, ID: 1}
	p.Properties.User = make([]packet.UserProperty, maxUserProperties)
	for i := range 20 {
		p.Topic = "r/" + strconv.Itoa(i)
		dev.send(p)
		expect[*packet.Ack](dev)
	}
	if s := b.Status(); s.Retained != 4 || s.Dropped != 16 { // of 2,251 bytes each
		t.Errorf("%d retained, %d dropped", s.Retained, s.Dropped)
	}
	p.Properties.User = make([]packet.UserProperty, maxUserProperties+1)
	dev.send(p)
	if code := dev.closed(); code != packet.QuotaExceeded {
		t.Errorf("ended with 0x%02x", byte(code))
	}
}

// countLog counts appends.
type countLog struct {
	*ingesttest.Log
	appends atomic.Int64
}

func (l *countLog) Append(ctx context.Context, stream string, r ...buffer.Record) ([]buffer.Position, error) {
	l.appends.Add(1)
	return l.Log.Append(ctx, stream, r...)
}

// TestOneRefusedRecord costs the others of its batch a few appends, not one each.
func TestOneRefusedRecord(t *testing.T) {
	log := &countLog{Log: ingesttest.NewLog()}
	log.Refuse(func(stream string, r *buffer.Record) error {
		if stream == ingesttest.Stream && string(r.Data) == "bad" {
			return buffer.ErrTooLarge
		}
		return nil
	})
	c := configuration()
	c.MaxInflight = 3000
	b, _ := start(t, c, log)
	dev := plain(t, b, packet.V311, "dev")
	release := log.Hold()
	const count = 2001
	for i := range count {
		data := "x"
		if i == 1000 {
			data = "bad"
		}
		dev.publish("sensors/k", data, 1, uint16(i+1))
	}
	until(t, "all are taken", func() bool { return b.Status().Received == count })
	release()
	for range count {
		expect[*packet.Ack](dev)
	}
	if n := log.appends.Load(); n > 60 {
		t.Errorf("%d appends", n)
	}
	if n := len(log.Entries(ingesttest.Stream)); n != count-1 {
		t.Errorf("the log holds %d", n)
	}
}

// TestTooLargeToKeep: what does not fit into the state stream is not promised to
// one who is away, and counted; who is there with a clean session gets it.
func TestTooLargeToKeep(t *testing.T) {
	log := ingesttest.NewLog()
	log.Refuse(func(_ string, r *buffer.Record) error {
		if len(r.Data)+len(r.PartitionKey) > buffer.DefaultRecordBytes {
			return buffer.ErrTooLarge
		}
		return nil
	})
	b, _ := start(t, configuration(), log)
	away, _ := connect(t, b, packet.Connect{Version: packet.V311, ClientID: "away"})
	away.subscribe("cmd/#", 1)
	away.send(&packet.Disconnect{})
	away.closed()
	here := plain(t, b, packet.V311, "here")
	here.subscribe("cmd/#", 1)
	dev := plain(t, b, packet.V311, "dev")
	dev.publish("cmd/k", strings.Repeat("x", 1<<20-20), 1, 1)
	expect[*packet.Ack](dev)
	if p := expect[*packet.Publish](here); len(p.Payload) != 1<<20-20 {
		t.Errorf("got %d bytes", len(p.Payload))
	}
	if s := b.Status(); s.Dropped != 1 || s.Lost != 0 {
		t.Errorf("%d dropped, %d lost", s.Dropped, s.Lost)
	}
}

// TestPoppedIsNotHeld: a queue does not hold what was taken off it.
func TestPoppedIsNotHeld(t *testing.T) {
	s := &session{}
	for i := range 100 {
		s.queue = append(s.queue, &outgoing{publication: &publication{}, qos: 1, serial: uint64(i + 1)})
	}
	all := s.queue[:100]
	for range all {
		s.next(1000)
	}
	for i, o := range all {
		if o != nil {
			t.Fatalf("message %d is still held", i)
		}
	}
}
