package broker

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
)

// raw is a client made of packets.
type raw struct {
	t       *testing.T
	conn    net.Conn
	in      *bufio.Reader
	version byte
}

func newRaw(conn net.Conn, version byte) *raw {
	return &raw{conn: conn, in: bufio.NewReader(conn), version: version}
}

// next reads a packet; the error is that of the connection.
func (r *raw) next() (packet.Packet, error) {
	h, err := packet.ReadHeader(r.in, packet.MaxLength)
	if err != nil {
		return nil, err
	}
	body := make([]byte, h.Length)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return nil, err
	}
	return packet.Decode(r.version, h, body)
}

func (r *raw) send(p packet.Packet) {
	r.t.Helper()
	wire, err := p.Append(nil, r.version)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.conn.Write(wire); err != nil {
		r.t.Fatal(err)
	}
}

// expect reads a packet of type P within a few seconds.
func expect[P packet.Packet](r *raw) P {
	r.t.Helper()
	if err := r.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	p, err := r.next()
	if err != nil {
		r.t.Fatalf("no packet: %v", err)
	}
	got, ok := p.(P)
	if !ok {
		r.t.Fatalf("got %s %+v", p.Type(), p)
	}
	return got
}

// quiet wants nothing to come: what was sent before a PINGREQ is answered before
// it, so the answer to that is all there is.
func (r *raw) quiet() {
	r.t.Helper()
	r.send(&packet.Pingreq{})
	expect[*packet.Pingresp](r)
}

// closed wants the connection to end, maybe after a DISCONNECT, whose code it
// returns.
func (r *raw) closed() (code packet.Code) {
	r.t.Helper()
	if err := r.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	for {
		p, err := r.next()
		if err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				r.t.Fatal("the connection stays")
			}
			return code
		}
		if d, ok := p.(*packet.Disconnect); ok {
			code = d.Code
		}
	}
}

// dial opens a connection and says nothing yet.
func dial(t *testing.T, b *Broker, version byte) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	r := newRaw(conn, version)
	r.t = t
	t.Cleanup(func() { conn.Close() })
	return r
}

// connect opens a connection with p, whose version and answer it takes.
func connect(t *testing.T, b *Broker, p packet.Connect) (*raw, *packet.Connack) {
	t.Helper()
	if p.KeepAlive == 0 {
		p.KeepAlive = 60
	}
	r := dial(t, b, p.Version)
	r.send(&p)
	return r, expect[*packet.Connack](r)
}

// plain is a client with a clean session.
func plain(t *testing.T, b *Broker, version byte, id string) *raw {
	t.Helper()
	r, ack := connect(t, b, packet.Connect{Version: version, ClientID: id, CleanStart: true})
	if ack.Code != packet.Success {
		t.Fatalf("refused with 0x%02x", byte(ack.Code))
	}
	return r
}

// subscribe subscribes and wants to be granted it.
func (r *raw) subscribe(filter string, qos byte) {
	r.t.Helper()
	r.subscribeWith(packet.Subscription{Filter: filter, QoS: qos}, 0)
}

func (r *raw) subscribeWith(s packet.Subscription, id uint32) {
	r.t.Helper()
	p := &packet.Subscribe{ID: 1, Subscriptions: []packet.Subscription{s}}
	if id != 0 {
		p.Properties.SubscriptionIDs = []uint32{id}
	}
	r.send(p)
	if got := expect[*packet.Suback](r); got.Codes[0] != packet.Code(s.QoS) {
		r.t.Fatalf("SUBACK says 0x%02x", byte(got.Codes[0]))
	}
}

func (r *raw) publish(topic, payload string, qos byte, id uint16) {
	r.t.Helper()
	r.send(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos, ID: id})
}
