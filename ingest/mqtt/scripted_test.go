package mqtt

import (
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// scripted is a broker for one client that does what a test tells it, and
// knows exactly what was acknowledged. It keeps one session, and delivers again
// as MQTT 3.1.1 says in section 4.4.
type scripted struct {
	t        *testing.T
	listener net.Listener
	group    sync.WaitGroup

	mu       sync.Mutex
	conn     net.Conn // nil: nobody is connected
	session  bool
	deaf     bool // acknowledgements get lost
	code     byte // of every SUBACK
	open     []*outgoing
	acks     []uint16 // PUBACK and PUBREC, in the order received
	known    int      // messages whose acknowledgement counts
	lastID   uint16
	connects int
	pings    int
}

type outgoing struct {
	topic, payload string
	qos            byte
	id             uint16
	sent           bool
}

func startScripted(t *testing.T) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &scripted{t: t, listener: l, code: 1}
	b.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.group.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.cut()
		b.group.Wait()
	})
	return b
}

func (b *scripted) address() string { return b.listener.Addr().String() }

func (b *scripted) serve(conn net.Conn) {
	defer conn.Close()
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		if !b.answer(conn, p) {
			return
		}
	}
}

// answer acts on a packet; false: the connection is over.
func (b *scripted) answer(conn net.Conn, p packets.ControlPacket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p := p.(type) {
	case *packets.ConnectPacket:
		present := byte(0)
		if b.session {
			present = 1
		}
		b.conn, b.session = conn, true
		b.connects++
		b.raw([]byte{0x20, 2, present, 0})
		for _, o := range b.open {
			b.send(o)
		}
	case *packets.SubscribePacket:
		answer := []byte{0x90, byte(2 + len(p.Topics)), byte(p.MessageID >> 8), byte(p.MessageID)}
		for range p.Topics {
			answer = append(answer, b.code)
		}
		b.raw(answer)
	case *packets.PubackPacket:
		b.acknowledged(p.MessageID)
	case *packets.PubrecPacket:
		if b.acknowledged(p.MessageID) {
			b.raw([]byte{0x62, 2, byte(p.MessageID >> 8), byte(p.MessageID)})
		}
	case *packets.PingreqPacket:
		b.pings++
		b.raw([]byte{0xd0, 0})
	case *packets.DisconnectPacket:
		return false
	}
	return b.conn == conn
}

// acknowledged settles a message; false: it got lost.
func (b *scripted) acknowledged(id uint16) bool {
	if b.deaf {
		return false
	}
	b.acks = append(b.acks, id)
	before := len(b.open)
	b.open = slices.DeleteFunc(b.open, func(o *outgoing) bool { return o.id == id })
	b.known += before - len(b.open)
	return true
}

func (b *scripted) raw(bytes []byte) {
	if b.conn == nil {
		return
	}
	if _, err := b.conn.Write(bytes); err != nil {
		b.conn = nil // it comes back
	}
}

func (b *scripted) send(o *outgoing) {
	if b.conn == nil {
		return
	}
	b.raw(publish(o.topic, o.payload, o.qos, o.id, o.sent))
	o.sent = true
}

// publish delivers a message with the next identifier.
func (b *scripted) publish(topic, payload string, qos byte) uint16 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastID++
	b.deliver(&outgoing{topic: topic, payload: payload, qos: qos, id: b.lastID})
	return b.lastID
}

// publishAs delivers a message with this identifier; sent says that it was
// delivered before, and got lost.
func (b *scripted) publishAs(o outgoing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(&o)
}

func (b *scripted) deliver(o *outgoing) {
	b.open = append(b.open, o)
	b.send(o)
}

// cut resets the connection.
func (b *scripted) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if tcp, ok := b.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // then Close sends a RST; without it a FIN, which will do
		tcp.Close()
	}
	b.conn = nil
}

// set changes the script.
func (b *scripted) set(change func(b *scripted)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

func (b *scripted) settled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known
}

func (b *scripted) connected() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connects
}
