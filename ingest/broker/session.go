package broker

import (
	"slices"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/message"
)

// publication is a message on its way to subscribers. It does not change once it
// is made, and many queues share it.
type publication struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	props   packet.Properties // those that are passed on
	from    string            // the publisher's client identifier
	expires time.Time         // zero: never
	extra   int               // bytes of props
	number  uint64            // of what is retained, to tell it from what takes its place
}

// bytes is about what a publication takes.
func (p *publication) bytes() int64 { return int64(len(p.topic)+len(p.payload)+p.extra) + 200 }

// weigh is about what the properties of a message take in memory.
func weigh(p *packet.Properties) (n int) {
	for _, u := range p.User {
		n += 32 + len(u.Key) + len(u.Value)
	}
	for _, s := range []*string{p.ContentType, p.ResponseTopic} {
		if s != nil {
			n += len(*s)
		}
	}
	return n + len(p.CorrelationData)
}

// outgoing is a publication in the queue of one session.
type outgoing struct {
	*publication
	qos    byte
	retain bool
	ids    []uint32 // of the subscriptions it matched
	serial uint64   // of the queue; what is persisted is known by it
	id     uint16   // once sent with QoS 1 or 2
	kept   bool     // the state stream has it
	// released: PUBREC has come, and PUBREL goes out instead of the message.
	released bool
}

// session is what the broker keeps of a client, connected or not. Broker.mu
// guards all of it but the window, which is the worker's alone.
type session struct {
	id         string
	owner      string        // the user whose it is
	generation uint64        // one session of a client from the next
	expiry     time.Duration // how long it outlives the connection; 0: not at all
	away       time.Time     // since when; zero while connected
	client     *client       // nil while away
	subs       map[string]subscription

	queue   []*outgoing // QoS 1 and 2, not sent yet, oldest first
	loose   []*outgoing // QoS 0, the same
	sent    []*outgoing // with an identifier, not acknowledged yet, oldest first
	bytes   int64       // of all three
	fresh   []fresh     // what is retained for a new subscription; goes before the rest
	topics  int64       // bytes of fresh
	planned int         // messages the state stream has and the queue not yet
	serial  uint64      // last one given
	stored  uint64      // up to where the log was told that it is delivered

	received idSet // QoS 2 messages that are durable, until PUBREL
	will     *will
}

// will is what is published when a connection ended badly.
type will struct {
	message *publication
	who     User // whose it is
	delay   time.Duration
	due     time.Time // when; zero while the client is connected
}

// seen is what the worker keeps of a client to recognise a redelivery.
type seen struct {
	window *message.Window
	used   uint64 // the worker's clock of use
}

// persistent says whether the session outlives its connection.
func (s *session) persistent() bool { return s.expiry > 0 }

// enqueue adds a message for a subscriber, within the limits of the queue. It
// says whether there was room. Broker.mu is held.
func (b *Broker) enqueue(s *session, o *outgoing) bool {
	if o.qos == 0 && s.client == nil {
		return true // nobody is there for it (3.1.2.4)
	}
	if o.qos > 0 && s.persistent() && !b.mayKeep(o.publication) {
		b.state.droppedFor(s.id, b.logger)
		return false
	}
	for !b.fits(s, o) && o.qos > 0 && len(s.loose) > 0 { // QoS 0 makes room
		b.forget(s, s.loose[0])
		s.loose[0], s.loose = nil, s.loose[1:]
		b.state.droppedFor(s.id, b.logger)
	}
	if !b.fits(s, o) {
		b.state.droppedFor(s.id, b.logger)
		return false
	}
	s.serial++
	o.serial = s.serial
	if o.qos == 0 {
		s.loose = append(s.loose, o)
	} else {
		s.queue = append(s.queue, o)
	}
	s.bytes += o.bytes()
	b.queuedBytes += o.bytes()
	if s.client != nil {
		s.client.wake()
	}
	return true
}

// ownShare of bytes may wait for a client that is connected although what waits
// for all together is used up: others that do not read are not its fault.
const ownShare = 16 << 10

// fits says whether there is room for one more message in a session's queue.
// Broker.mu is held.
func (b *Broker) fits(s *session, o *outgoing) bool {
	if len(s.queue)+len(s.loose) >= b.config.MaxQueued {
		return false
	}
	return b.queuedBytes+o.bytes() <= int64(b.config.MaxQueuedBytes) || s.client != nil && s.bytes+o.bytes() <= ownShare
}

// next takes the message that is to be sent next off the queues: the oldest, but
// one of QoS 1 or 2 only while the client takes more of them (MQTT 5, 4.9). nil:
// there is none.
func (s *session) next(receiveMaximum int) (o *outgoing) {
	first := len(s.queue) > 0 && len(s.sent) < receiveMaximum
	switch {
	case first && (len(s.loose) == 0 || s.queue[0].serial < s.loose[0].serial):
		o, s.queue[0] = s.queue[0], nil
		s.queue = s.queue[1:]
	case len(s.loose) > 0:
		o, s.loose[0] = s.loose[0], nil
		s.loose = s.loose[1:]
	}
	return o
}

// forget takes the bytes of a message off the accounts.
func (b *Broker) forget(s *session, o *outgoing) {
	s.bytes -= o.bytes()
	b.queuedBytes -= o.bytes()
}

// clear drops all that waits. Broker.mu is held.
func (b *Broker) clear(s *session) {
	b.queuedBytes -= s.bytes
	b.forgetFresh(s, len(s.fresh))
	s.bytes, s.queue, s.loose, s.sent = 0, nil, nil, nil
}

// deliveries appends to dst the packets that may be sent to the client now, at
// most about max bytes. Broker.mu is held.
func (b *Broker) deliveries(s *session, c *client, dst []byte, max int) []byte {
	now := time.Now()
	start := len(dst)
	for len(dst)-start < max {
		o := b.nextFresh(s, now)
		if o == nil {
			o = s.next(int(c.receiveMaximum))
		}
		if o == nil {
			break
		}
		wire, err := b.encode(s, c, o, now)
		if err != nil || wire == nil || len(wire) > int(c.maximumPacket) {
			b.forget(s, o) // expired, or larger than the client takes (3.1.2.11.4)
			if err != nil || wire != nil {
				b.state.droppedFor(s.id, b.logger)
			}
			continue
		}
		dst = append(dst, wire...)
		if o.qos == 0 {
			b.forget(s, o)
			continue
		}
		s.sent = append(s.sent, o)
	}
	return dst
}

// encode writes a message for its subscriber; nil when it has expired.
func (b *Broker) encode(s *session, c *client, o *outgoing, now time.Time) ([]byte, error) {
	p := packet.Publish{QoS: o.qos, Retain: o.retain, Topic: o.topic, Payload: o.payload}
	if c.version == packet.V5 {
		p.Properties = o.props
		p.Properties.SubscriptionIDs = o.ids
	}
	if !o.expires.IsZero() {
		left := o.expires.Sub(now)
		if left <= 0 {
			return nil, nil
		}
		seconds := uint32((left + time.Second - 1) / time.Second)
		p.Properties.MessageExpiry = &seconds
	}
	if o.qos > 0 {
		o.id = s.identifier(o)
		p.ID = o.id
	}
	return p.Append(nil, c.version)
}

// identifier gives one that no message on its way has. There is one, for fewer
// than 65,535 are on their way. It goes by the message's place in the queue, which
// the state stream has: after a restart a message gets the one it had. A client
// takes another message with it for the same one, if that was of QoS 2 and not
// released, and drops it.
func (s *session) identifier(o *outgoing) uint16 {
	id := uint16(o.serial%65535) + 1
	for slices.ContainsFunc(s.sent, func(other *outgoing) bool { return other.id == id }) {
		id = uint16(uint32(id)%65535) + 1
	}
	return id
}

// acknowledged takes PUBACK, PUBREC and PUBCOMP of the client. It returns what is
// to be answered, or nil. Broker.mu is held.
func (b *Broker) acknowledged(s *session, a *packet.Ack) packet.Packet {
	i := slices.IndexFunc(s.sent, func(o *outgoing) bool { return o.id == a.ID })
	if i < 0 {
		if a.Kind == packet.PUBREC {
			return &packet.Ack{Kind: packet.PUBREL, ID: a.ID, Code: packet.PacketIDNotFound}
		}
		return nil
	}
	o := s.sent[i]
	if a.Kind == packet.PUBREC && a.Code < packet.Unspecified {
		o.released = true
		return &packet.Ack{Kind: packet.PUBREL, ID: a.ID}
	}
	if o.qos == 2 && a.Kind == packet.PUBACK || o.qos == 1 && a.Kind == packet.PUBCOMP {
		return nil
	}
	s.sent = slices.Delete(s.sent, i, i+1)
	b.forget(s, o)
	s.client.wake()
	return nil
}

// resend returns what was sent and not acknowledged, for a client that comes
// back (4.4). Broker.mu is held.
func (b *Broker) resend(s *session, c *client) []byte {
	var dst []byte
	for _, o := range s.sent {
		var p packet.Packet = &packet.Ack{Kind: packet.PUBREL, ID: o.id}
		if !o.released {
			publish := &packet.Publish{Dup: true, QoS: o.qos, Retain: o.retain, Topic: o.topic, ID: o.id, Payload: o.payload}
			if c.version == packet.V5 {
				publish.Properties = o.props
				publish.Properties.SubscriptionIDs = o.ids
			}
			p = publish
		}
		if wire, err := p.Append(nil, c.version); err == nil { // it was encoded before
			dst = append(dst, wire...)
		}
	}
	return dst
}

// idSet is a set of packet identifiers, of 8 KiB once it has held one.
type idSet struct {
	bits  []uint64
	count int
}

func (s *idSet) has(id uint16) bool { return s.bits != nil && s.bits[id/64]&(1<<(id%64)) != 0 }

func (s *idSet) add(id uint16) {
	if s.bits == nil {
		s.bits = make([]uint64, 1024)
	}
	if !s.has(id) {
		s.bits[id/64] |= 1 << (id % 64)
		s.count++
	}
}

// remove says whether it was there.
func (s *idSet) remove(id uint16) bool {
	if !s.has(id) {
		return false
	}
	s.bits[id/64] &^= 1 << (id % 64)
	s.count--
	return true
}
