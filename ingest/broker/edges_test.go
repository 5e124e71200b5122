package broker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/weir-edge/weir/buffer/buffertest"
	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// kept connects a client of MQTT 5 whose session outlives the connection.
func kept(t *testing.T, b *Broker, id string, clean bool) *raw {
	t.Helper()
	hour := uint32(3600)
	r, ack := connect(t, b, packet.Connect{
		Version: packet.V5, ClientID: id, CleanStart: clean, Properties: packet.Properties{SessionExpiry: &hour},
	})
	if ack.Code != packet.Success {
		t.Fatalf("refused with 0x%02x", byte(ack.Code))
	}
	return r
}

// TestAllInflightAgain: a client that had all it may have on its way when the
// connection broke, and received half of the PUBRECs or none, sends everything
// again (4.4). That is not more than it may have on its way.
func TestAllInflightAgain(t *testing.T) {
	log := ingesttest.NewLog()
	c := configuration()
	c.MaxInflight = 4
	b, _ := start(t, c, log)
	dev := kept(t, b, "dev", true)
	for id := range uint16(2) {
		dev.publish("sensors/k", fmt.Sprint(id), 2, id+1)
		expect[*packet.Ack](dev)
	}
	dev.conn.Close()
	until(t, "it is gone", func() bool { return b.Status().Clients == 0 })
	release := log.Hold()
	defer release()
	dev = kept(t, b, "dev", false)
	for id := range uint16(4) {
		dev.send(&packet.Publish{Topic: "sensors/k", Payload: []byte(fmt.Sprint(id)), QoS: 2, ID: id + 1, Dup: id < 2})
	}
	until(t, "an append is under way", func() bool { return log.Waiting() > 0 })
	release()
	for id := range uint16(4) {
		if ack := expect[*packet.Ack](dev); ack.Kind != packet.PUBREC || ack.ID != id+1 {
			t.Fatalf("got %+v", ack)
		}
	}
	if n := len(log.Entries(ingesttest.Stream)); n != 4 {
		t.Errorf("the log holds %d", n)
	}
	dev.publish("sensors/k", "one more", 2, 5)
	if code := dev.closed(); code != packet.ReceiveMaximumExceeded {
		t.Errorf("the fifth gets 0x%02x", byte(code))
	}
}

// TestManyRetained: what is retained may be more than what may wait.
func TestManyRetained(t *testing.T) {
	c := configuration()
	c.MaxQueued = 10
	b, _ := start(t, c, ingesttest.NewLog())
	pub := plain(t, b, packet.V311, "pub")
	const n = 200
	for i := range n {
		pub.send(&packet.Publish{Topic: fmt.Sprint("state/", i), Payload: []byte("x"), QoS: 1, ID: 1, Retain: true})
		expect[*packet.Ack](pub)
	}
	sub := plain(t, b, packet.V311, "sub")
	sub.subscribe("state/#", 1)
	got := map[string]bool{}
	for range n {
		p := expect[*packet.Publish](sub)
		got[p.Topic] = true
		sub.send(&packet.Ack{Kind: packet.PUBACK, ID: p.ID})
	}
	if len(got) != n {
		t.Errorf("%d topics of %d", len(got), n)
	}
}

// TestWillOfWhoComesBack: a will with a delay is not published when its client
// is back in time, the old connection being open or not (3.1.3.2.2); it is when
// the session ends with a clean start.
func TestWillOfWhoComesBack(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	sub := plain(t, b, packet.V5, "sub")
	sub.subscribe("gone", 0)
	hour := uint32(3600)
	dev := func(clean bool, payload string) *raw {
		will := &packet.Will{Topic: "gone", Payload: []byte(payload)}
		will.Properties.WillDelay = &hour
		r, _ := connect(t, b, packet.Connect{
			Version: packet.V5, ClientID: "dev", CleanStart: clean, Will: will, Properties: packet.Properties{SessionExpiry: &hour},
		})
		return r
	}
	published := func(want string) {
		t.Helper()
		if p := expect[*packet.Publish](sub); string(p.Payload) != want {
			t.Errorf("the will of %s, not %s", p.Payload, want)
		}
	}
	first := dev(true, "first")
	second := dev(false, "second")
	first.closed()
	sub.quiet()
	third := dev(true, "third") // ends the session of the second, which is connected
	second.closed()
	published("second")
	third.conn.Close()
	until(t, "it is gone", func() bool { return b.Status().Clients == 1 })
	dev(true, "fourth") // ends the session of the third, which is away
	published("third")
	sub.quiet()
}

// TestIdentifiersOverRestart: a subscriber that received a QoS 2 message and was
// not released from its identifier takes the next message of that identifier for
// the same one. So after a restart a message has the identifier it had.
func TestIdentifiersOverRestart(t *testing.T) {
	log := buffertest.NewLog(nil)
	b, stop := start(t, configuration(), log)
	sub := kept(t, b, "sub", true)
	sub.subscribe("do/#", 2)
	pub := plain(t, b, packet.V311, "pub")
	had := map[string]uint16{}
	for i := range 4 {
		pub.publish("do/it", strconv.Itoa(i), 1, 1)
		expect[*packet.Ack](pub)
	}
	pub.send(&packet.Publish{Topic: "do/it", Payload: []byte("4"), QoS: 2, ID: 9})
	expect[*packet.Ack](pub)
	for range 5 {
		p := expect[*packet.Publish](sub)
		had[string(p.Payload)] = p.ID
		if len(had) <= 2 {
			sub.send(&packet.Ack{Kind: packet.PUBACK, ID: p.ID})
		}
	}
	sub.quiet()
	stop()
	b, _ = start(t, configuration(), log)
	sub = kept(t, b, "sub", false)
	for i := 2; i < 5; i++ {
		p := expect[*packet.Publish](sub)
		if text := strconv.Itoa(i); string(p.Payload) != text || p.ID != had[text] {
			t.Errorf("message %s has identifier %d, and %d is message %s's", p.Payload, p.ID, had[text], text)
		}
	}
}

// TestTakenOver: once a client has a new connection the old one brings nothing
// more, or a message that is sent again over the new one would be appended twice.
func TestTakenOver(t *testing.T) {
	log := ingesttest.NewLog()
	b, _ := start(t, configuration(), log)
	old := plain(t, b, packet.V311, "dev")
	old.quiet()
	b.mu.Lock()
	c := b.sessions["dev"].client
	b.mu.Unlock()
	dev := plain(t, b, packet.V311, "dev")
	late := &packet.Publish{Topic: "sensors/k", Payload: []byte("late"), QoS: 1, ID: 1}
	if err := c.publish(context.Background(), late); err == nil {
		t.Error("the old connection goes on")
	}
	dev.publish("sensors/k", "x", 1, 1)
	expect[*packet.Ack](dev)
	if n := len(log.Entries(ingesttest.Stream)); n != 1 {
		t.Errorf("the log holds %d", n)
	}
}

// TestDeniedInOrder: a refusal waits for its turn among the acknowledgements
// (4.6).
func TestDeniedInOrder(t *testing.T) {
	log := ingesttest.NewLog()
	b, _ := start(t, configuration(), log)
	release := log.Hold()
	defer release()
	dev := plain(t, b, packet.V5, "dev")
	dev.publish("sensors/k", "x", 1, 1)
	dev.publish("$SYS/k", "x", 1, 2)
	dev.publish("$SYS/k", "x", 2, 3)
	dev.publish("sensors/k", "x", 1, 4)
	dev.quiet()
	release()
	for id, code := range []packet.Code{packet.Success, packet.NotAuthorized, packet.NotAuthorized, packet.Success} {
		if ack := expect[*packet.Ack](dev); ack.ID != uint16(id+1) || ack.Code != code {
			t.Errorf("got %+v", ack)
		}
	}
	dev.send(&packet.Ack{Kind: packet.PUBREL, ID: 3})
	if ack := expect[*packet.Ack](dev); ack.Code != packet.PacketIDNotFound {
		t.Errorf("the refused message is released: %+v", ack)
	}
}

// sizes notes how much is written at once.
type sizes struct {
	net.Conn
	most int
}

func (s *sizes) Write(b []byte) (int, error) {
	s.most = max(s.most, len(b))
	return s.Conn.Write(b)
}

// TestSlowLink: each write has its time, so a large message must not be one.
func TestSlowLink(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	s := &sizes{Conn: near}
	c := &client{conn: s}
	done := make(chan error, 1)
	go func() { done <- c.writeAll(make([]byte, 1<<20)) }()
	n := 0
	for buffer := make([]byte, 4096); n < 1<<20; {
		m, err := far.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if err := <-done; err != nil || s.most > writePiece {
		t.Errorf("%d bytes in one write: %v", s.most, err)
	}
}

// TestStopBesideWhoDoesNotRead: a subscriber that reads nothing does not hold up
// the end of the broker (start's stop measures it).
func TestStopBesideWhoDoesNotRead(t *testing.T) {
	log := ingesttest.NewLog()
	b, stop := start(t, configuration(), log)
	sub := plain(t, b, packet.V311, "sub")
	sub.subscribe("large", 0)
	pub := plain(t, b, packet.V311, "pub")
	for range 30 { // more than the buffers of the system take
		pub.publish("large", string(make([]byte, 900_000)), 1, 1)
		expect[*packet.Ack](pub)
	}
	until(t, "it is behind", func() bool { return b.Status().QueuedBytes > 5<<20 })
	stop()
}

// TestConnectProperties: user properties of CONNECT are many times as large in
// memory, so they are not kept while a password waits to be checked.
func TestConnectProperties(t *testing.T) {
	many := make([]packet.UserProperty, 3000)
	wire := func(p *packet.Connect) *bufio.Reader {
		b, err := p.Append(nil, packet.V5)
		if err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(bytes.NewReader(b))
	}
	p, err := readConnect(wire(&packet.Connect{Version: packet.V5, ClientID: "a", Properties: packet.Properties{User: many}}))
	if err != nil || p.Properties.User != nil {
		t.Errorf("CONNECT: %v, and they are kept", err)
	}
	will := &packet.Will{Topic: "gone", Properties: packet.Properties{User: many}}
	if _, err := readConnect(wire(&packet.Connect{Version: packet.V5, ClientID: "a", Will: will})); err == nil {
		t.Error("a will with 3000 of them is taken")
	}
	will.Properties.User = many[:maxWillProperties]
	if p, err := readConnect(wire(&packet.Connect{Version: packet.V5, ClientID: "a", Will: will})); err != nil || len(p.Will.Properties.User) != maxWillProperties {
		t.Errorf("a will with %d: %v", maxWillProperties, err)
	}
}

// TestRetainedReplaced: a retained message that another one replaced before it
// could be sent is not sent; the other one comes, once.
func TestRetainedReplaced(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	pub := plain(t, b, packet.V311, "pub")
	retain := func(payload string) {
		for _, topic := range []string{"a", "b"} {
			pub.send(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, ID: 1, Retain: true})
			expect[*packet.Ack](pub)
		}
	}
	retain("old")
	one := uint16(1)
	sub, _ := connect(t, b, packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: true, Properties: packet.Properties{ReceiveMaximum: &one}})
	sub.subscribe("+", 1)
	first := expect[*packet.Publish](sub)
	retain("new")
	sub.send(&packet.Ack{Kind: packet.PUBACK, ID: first.ID})
	for _, topic := range []string{"a", "b"} {
		p := expect[*packet.Publish](sub)
		if p.Topic != topic || string(p.Payload) != "new" {
			t.Errorf("got %s of %s", p.Payload, p.Topic)
		}
		sub.send(&packet.Ack{Kind: packet.PUBACK, ID: p.ID})
	}
	sub.quiet()
}

// TestSubscribeWhileFull: a client that comes again and again, and subscribes,
// while the log takes nothing does not use up the places of all others.
func TestSubscribeWhileFull(t *testing.T) {
	log := ingesttest.NewLog()
	b, _ := start(t, configuration(), log)
	release := log.Hold()
	defer release()
	for range 5 {
		dev := kept(t, b, "dev", false)
		dev.send(&packet.Subscribe{ID: 1, Subscriptions: []packet.Subscription{{Filter: "do/#"}}})
		until(t, "an append is under way", func() bool { return log.Waiting() > 0 })
		defer dev.conn.Close()
	}
	until(t, "only the last one has a place", func() bool {
		b.doors.mu.Lock()
		defer b.doors.mu.Unlock()
		return b.doors.inside == 1
	})
}
