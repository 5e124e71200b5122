package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/message"
)

const (
	readBuffer  = 2 << 10
	smallPacket = 64 << 10         // a larger one takes its memory from Broker.bodies first
	bodyTime    = 10 * time.Second // for the rest of a packet, and for each MiB of it
	writeTime   = 10 * time.Second // for writePiece: a modem needs it for a large message
	writePiece  = 16 << 10
	writeAtOnce = 64 << 10
	maxAliases  = 16 // topic aliases of a client
	// maxUserProperties of a message: they take more memory than bytes.
	maxUserProperties = 64
	maxLevels         = 128 // of a topic filter
	maxSendAtOnce     = 1000
	noPacketLimit     = packet.MaxLength + 5
	controlBacklog    = 256 << 10 // answers that a client does not read
)

// client is one connection that was let in.
type client struct {
	broker  *Broker
	conn    net.Conn
	in      *bufio.Reader
	version byte
	id      string
	who     User
	user    string // the name of who
	session *session
	epoch   uint64 // of the connection

	keepAlive      time.Duration
	receiveMaximum uint16 // messages of QoS 1 and 2 we send before an acknowledgement
	maximumPacket  uint32 // the largest the client takes
	aliases        map[uint16]string
	clean          bool // DISCONNECT came: no will

	wakeUp chan struct{} // there is something to write
	gone   chan struct{} // closed when the connection ends
	once   sync.Once

	handing sync.Mutex // held while a message is given to the worker

	mu       sync.Mutex
	control  []byte // packets to write before messages
	inflight int    // messages taken and not acknowledged
	freed    chan struct{}
	last     []byte // to write before the connection ends
	ended    bool
}

// wake lets the writer look for work.
func (c *client) wake() {
	select {
	case c.wakeUp <- struct{}{}:
	default:
	}
}

// end ends the connection, with a last packet for the client if there is one.
func (c *client) end(last packet.Packet) {
	c.once.Do(func() {
		c.mu.Lock()
		if last != nil {
			if wire, err := last.Append(nil, c.version); err == nil { // it is ours
				c.last = wire
			}
		}
		c.ended = true
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second)) // a write that is under way too
		c.mu.Unlock()
		close(c.gone)
	})
}

// refuse ends the connection with a reason, which MQTT 5 lets us tell.
func (c *client) refuse(code packet.Code, reason string) {
	if c.version != packet.V5 {
		c.end(nil)
		return
	}
	d := &packet.Disconnect{Code: code}
	if reason != "" {
		d.Properties.ReasonString = &reason
	}
	c.end(d)
}

// send queues a packet for the client. A client that reads none of its answers
// is ended, or they would grow without bound.
func (c *client) send(p packet.Packet) {
	c.mu.Lock()
	wire, err := p.Append(c.control, c.version)
	if err == nil {
		c.control = wire
	}
	over := len(c.control) > controlBacklog
	c.mu.Unlock()
	if over {
		c.refuse(packet.QuotaExceeded, "answers are not read")
	}
	c.wake()
}

// write writes what there is until the connection ends.
func (c *client) write() error {
	var buffer []byte
	for {
		select {
		case <-c.gone:
			c.mu.Lock()
			rest := append(c.control, c.last...)
			c.mu.Unlock()
			if err := c.conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			_, err := c.conn.Write(rest)
			return err
		case <-c.wakeUp:
		}
		for {
			c.mu.Lock()
			buffer = append(buffer[:0], c.control...)
			c.control = c.control[:0]
			c.mu.Unlock()
			buffer = c.broker.more(c, buffer)
			if len(buffer) == 0 {
				break
			}
			if err := c.writeAll(buffer); err != nil {
				return err
			}
			if cap(buffer) > 2*writeAtOnce {
				buffer = nil
			}
		}
		if cap(buffer) > readBuffer {
			buffer = nil // an idle client keeps no memory
		}
		c.mu.Lock()
		if cap(c.control) > readBuffer && len(c.control) == 0 {
			c.control = nil
		}
		c.mu.Unlock()
	}
}

// mayWriteFor sets the time for a write; of a connection that ends, end has set it.
func (c *client) mayWriteFor(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	return c.conn.SetWriteDeadline(time.Now().Add(d))
}

// writeAll writes piece by piece, each in its time. It gives up when the
// connection ends.
func (c *client) writeAll(wire []byte) error {
	for len(wire) > 0 {
		if err := c.mayWriteFor(writeTime); err != nil {
			return err
		}
		n, err := c.conn.Write(wire[:min(len(wire), writePiece)])
		if err != nil {
			return err
		}
		wire = wire[n:]
	}
	return nil
}

// more appends the messages that may be sent now.
func (b *Broker) more(c *client, dst []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.session == nil || c.session.client != c {
		return dst
	}
	return b.deliveries(c.session, c, dst, writeAtOnce)
}

// read takes the client's packets until the connection ends. The error is why.
func (c *client) read(ctx context.Context) error {
	for {
		// The time in which nobody reads here does not count as silence.
		if err := c.conn.SetReadDeadline(time.Now().Add(c.keepAlive * 3 / 2)); err != nil {
			return err
		}
		h, err := packet.ReadHeader(c.in, int(c.broker.config.MaxPacketBytes))
		if err != nil {
			return c.failed(err)
		}
		body, done, err := c.body(ctx, h)
		if err != nil {
			return c.failed(err)
		}
		p, err := packet.Decode(c.version, h, body)
		if err == nil {
			err = c.handle(ctx, p)
		}
		done()
		if err != nil {
			return c.failed(err)
		}
	}
}

// body reads the rest of a packet. done gives back the memory that a large one
// was lent.
func (c *client) body(ctx context.Context, h packet.Header) (body []byte, done func(), err error) {
	done = func() {}
	if h.Length > smallPacket {
		if !c.broker.bodies.Take(h.Length, ctx.Done(), c.gone) {
			return nil, done, net.ErrClosed
		}
		done = func() { c.broker.bodies.Give(h.Length) }
	}
	if h.Length > c.in.Buffered() {
		limit := bodyTime + time.Duration(h.Length>>20)*bodyTime
		if err := c.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return nil, done, err
		}
	}
	body = make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, body); err != nil {
		done()
		return nil, func() {}, err
	}
	return body, done, nil
}

// errDone is the end of a connection that the client wanted.
var errDone = errors.New("the client disconnects")

// refused is the end of a connection with a reason code.
type refused struct {
	code   packet.Code
	reason string
}

func (r *refused) Error() string { return r.reason }

func refusal(code packet.Code, format string, args ...any) error {
	return &refused{code, fmt.Sprintf(format, args...)}
}

// failed tells the client why the connection ends, where it can be told.
func (c *client) failed(err error) error {
	var wire *packet.Error
	var no *refused
	var timeout net.Error
	switch {
	case errors.Is(err, errDone):
		c.end(nil)
	case errors.As(err, &wire):
		c.refuse(wire.Code, wire.Reason)
	case errors.As(err, &no):
		c.refuse(no.code, no.reason)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.refuse(packet.KeepAliveTimeout, "")
		err = errors.New("no sign of life")
	default:
		c.end(nil)
	}
	return err
}

// handle does what a packet asks for.
func (c *client) handle(ctx context.Context, p packet.Packet) error {
	b := c.broker
	switch p := p.(type) {
	case *packet.Publish:
		return c.publish(ctx, p)
	case *packet.Ack:
		return c.ack(p)
	case *packet.Subscribe:
		return b.subscribe(ctx, c, p)
	case *packet.Unsubscribe:
		return b.unsubscribe(c, p)
	case *packet.Pingreq:
		c.send(&packet.Pingresp{})
		return nil
	case *packet.Disconnect:
		return b.disconnect(c, p)
	case *packet.Auth:
		return refusal(packet.ProtocolError, "extended authentication was not agreed on")
	}
	return refusal(packet.ProtocolError, "%s is not for a server", p.Type())
}

// ack takes what the client says of messages that we sent, and PUBREL of its own.
func (c *client) ack(p *packet.Ack) error {
	b := c.broker
	if p.Kind == packet.PUBREL {
		answer := &packet.Ack{Kind: packet.PUBCOMP, ID: p.ID}
		b.mu.Lock()
		if !c.session.received.remove(p.ID) {
			answer.Code = packet.PacketIDNotFound
		}
		b.mu.Unlock()
		c.send(answer)
		return nil
	}
	b.mu.Lock()
	if c.session.client != c {
		b.mu.Unlock()
		return errDone // taken over
	}
	answer := b.acknowledged(c.session, p)
	b.mu.Unlock()
	if answer != nil {
		c.send(answer)
	}
	return nil
}

// settle gives back the place of a message that is acknowledged.
func (c *client) settle() {
	c.mu.Lock()
	c.inflight--
	close(c.freed)
	c.freed = make(chan struct{})
	c.mu.Unlock()
}

// takePlace waits for a place for one more message: whoever has too many that
// are not acknowledged is just not read meanwhile. MQTT 5 clients know the limit
// and could be ended (4.9), but some that people use do not keep to it and do not
// recover from that. One that does not release its QoS 2 messages would wait for
// ever, and is ended; one that sends such a message again has its place already.
func (c *client) takePlace(ctx context.Context, it *inbound) error {
	limit := c.broker.config.MaxInflight
	if c.version == packet.V5 && it.message.QoS == 2 {
		c.broker.mu.Lock()
		held, again := c.session.received.count, c.session.received.has(it.message.ID)
		c.broker.mu.Unlock()
		switch {
		case again:
			return nil
		case held >= limit:
			return refusal(packet.ReceiveMaximumExceeded, "%d messages are not released", held)
		}
	}
	for {
		c.mu.Lock()
		if c.inflight < limit {
			c.inflight++
			c.mu.Unlock()
			it.placed = true
			return nil
		}
		freed := c.freed
		c.mu.Unlock()
		select {
		case <-freed:
		case <-c.gone:
			return errDone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish takes a message of the client.
func (c *client) publish(ctx context.Context, p *packet.Publish) error {
	if err := c.resolve(p); err != nil {
		return err
	}
	if len(p.Properties.SubscriptionIDs) > 0 { // 3.3.4-6
		return refusal(packet.ProtocolError, "a client sends no subscription identifiers")
	}
	if len(p.Properties.User) > maxUserProperties {
		return refusal(packet.QuotaExceeded, "more than %d user properties", maxUserProperties)
	}
	it := newInbound(c, p)
	if strings.HasPrefix(p.Topic, "$") || !c.who.MayPublish(c.id, p.Topic) {
		c.broker.state.refusedPublish()
		// MQTT 3.1.1 has no word for that but an acknowledgement (it says so,
		// 3.3.5) or the end; an acknowledgement would be a lie here.
		if c.version != packet.V5 {
			return refusal(packet.NotAuthorized, "it may not publish to %.200q", p.Topic)
		}
		if p.QoS == 0 {
			return nil
		}
		it.denied, it.message.Payload = packet.NotAuthorized, nil
	}
	if p.QoS > 0 {
		if err := c.takePlace(ctx, it); err != nil {
			return err
		}
	}
	return c.hand(ctx, it)
}

// hand gives a message to the worker. Once the connection has ended nothing gets
// there, for it may be sent again over the next one.
func (c *client) hand(ctx context.Context, it *inbound) error {
	c.handing.Lock()
	defer c.handing.Unlock()
	select {
	case <-c.gone:
		return errDone
	default:
	}
	b := c.broker
	if !b.waiting.Take(it.weight(), ctx.Done(), c.gone) {
		return net.ErrClosed
	}
	b.state.received(it)
	select {
	case b.queue <- it:
		return nil
	case <-c.gone:
	case <-ctx.Done():
	}
	b.waiting.Give(it.weight())
	b.state.handled(1)
	return errDone
}

// handedOver waits until the message that the connection, which has ended, gives to
// the worker at this moment is there or given up. It does not take long.
func (c *client) handedOver() {
	c.handing.Lock()
	defer c.handing.Unlock()
}

// resolve puts the topic in the place of its alias (MQTT 5, section 3.3.2.3.4).
func (c *client) resolve(p *packet.Publish) error {
	alias := p.Properties.TopicAlias
	if alias == nil {
		return nil
	}
	if *alias > maxAliases {
		return refusal(packet.TopicAliasInvalid, "topic alias %d is over the maximum of %d", *alias, maxAliases)
	}
	if p.Topic == "" {
		p.Topic = c.aliases[*alias]
		if p.Topic == "" {
			return refusal(packet.ProtocolError, "topic alias %d stands for nothing", *alias)
		}
		return nil
	}
	if len(p.Topic) > message.MaxTopicBytes {
		return refusal(packet.QuotaExceeded, "an alias for a topic of more than %d bytes", message.MaxTopicBytes)
	}
	if c.aliases == nil {
		c.aliases = map[uint16]string{}
	}
	c.aliases[*alias] = p.Topic
	return nil
}

// certificate is the common name of the client's certificate, "" without one.
func certificate(conn net.Conn) string {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	if chain := secure.ConnectionState().PeerCertificates; len(chain) > 0 {
		return chain[0].Subject.CommonName
	}
	return ""
}
