package brokertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// patience is how long the rig waits for what must come, and for a connection
// that must end.
const patience = 10 * time.Second

// client is a connection of a trial. One goroutine at a time.
type client struct {
	t       *trial
	id      string
	version byte
	conn    net.Conn
	r       *bufio.Reader
	inbox   []publish // messages that came while something else was waited for
	nextID  uint16
}

// dial opens a connection and says nothing.
func (t *trial) dial() *client {
	conn, err := net.DialTimeout("tcp", t.target.Address, patience)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return t.over(conn)
}

func (t *trial) over(conn net.Conn) *client {
	t.conns = append(t.conns, conn)
	return &client{t: t, version: t.version, conn: conn, r: bufio.NewReader(conn)}
}

// hello is a CONNECT of this trial that is accepted.
func (t *trial) hello(name string) connect {
	return connect{version: t.version, id: t.name + name, user: t.target.Username, password: t.target.Password}
}

// connect opens a connection as a client of that name, with changes to its
// CONNECT, and returns it with the CONNACK, which must accept.
func (t *trial) connect(name string, changes ...func(*connect)) (*client, answer) {
	h := t.hello(name)
	for _, change := range changes {
		change(&h)
	}
	c := t.dial()
	c.id = h.id
	if h.will != nil && h.will.retain {
		t.retains(*h.will)
	}
	c.send(h.bytes())
	a := c.expect(kindConnack)
	if a.code != 0 {
		t.Fatalf("CONNECT of %q is answered with %#x", h.id, a.code)
	}
	return c, a
}

// join is connect without the CONNACK.
func (t *trial) join(name string, changes ...func(*connect)) *client {
	c, _ := t.connect(name, changes...)
	return c
}

// persistent makes a session that outlives its connection.
func persistent(c *connect) {
	c.persist = true
	c.props = append(c.props, property{id: propSessionExpiry, n: 3600})
}

func with(props ...property) func(*connect) {
	return func(c *connect) { c.props = append(c.props, props...) }
}

func withWill(p publish, props ...property) func(*connect) {
	return func(c *connect) { c.will, c.willProps = &p, props }
}

// send writes bytes; an error of writing is left to the reading that follows.
func (c *client) send(parts ...[]byte) {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatalf("set deadline: %v", err)
	}
	for _, b := range parts {
		if _, err := c.conn.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatalf("the broker does not read")
		}
	}
}

// next returns the next packet.
func (c *client) next() frame {
	f, err := c.read(c.t.limit)
	if err != nil {
		c.t.Fatalf("client %s waits for a packet: %v", c.id, err)
	}
	return f
}

func (c *client) read(limit time.Duration) (frame, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return frame{}, err
	}
	f, err := readFrame(c.r)
	if err == nil {
		if fault := c.wellFormed(f); fault != nil {
			c.t.Fatalf("the broker sends a malformed %v: %v", f, fault)
		}
	}
	return f, err
}

// wellFormed holds every packet of the broker against section 2.
func (c *client) wellFormed(f frame) error {
	allowed := []byte{kindConnack, kindPublish, kindPuback, kindPubrec, kindPubrel, kindPubcomp, kindSuback, kindUnsuback, kindPingresp}
	if c.version == version5 {
		allowed = append(allowed, kindDisconnect, kindAuth)
	}
	if !slices.Contains(allowed, f.kind) {
		return errors.New("a broker does not send it")
	}
	if f.kind == kindPublish {
		p, err := f.publish(c.version)
		if err == nil && (p.qos == 3 || p.qos == 0 && p.dup || p.qos > 0 && p.id == 0) {
			err = fmt.Errorf("qos %d, dup %v, packet id %d", p.qos, p.dup, p.id)
		}
		return err
	}
	want := byte(0)
	if f.kind == kindPubrel {
		want = 2
	}
	if f.flags != want {
		return fmt.Errorf("its flags must be %x", want)
	}
	_, err := f.answer(c.version)
	return err
}

// expect returns the next packet, which must be of that kind. Messages that
// come before go to the inbox.
func (c *client) expect(kind byte) answer {
	for {
		f := c.next()
		if f.kind == kindPublish {
			c.keep(f)
			continue
		}
		a, err := f.answer(c.version)
		if f.kind != kind || err != nil {
			c.t.Fatalf("client %s got %v, want %s", c.id, f, kindNames[kind])
		}
		return a
	}
}

func (c *client) keep(f frame) {
	p, err := f.publish(c.version)
	if err != nil {
		c.t.Fatalf("%v: %v", f, err)
	}
	c.inbox = append(c.inbox, p)
}

// raw returns the next message and does not acknowledge it.
func (c *client) raw() publish {
	if len(c.inbox) == 0 {
		f := c.next()
		if f.kind != kindPublish {
			c.t.Fatalf("client %s got %v, want a message", c.id, f)
		}
		c.keep(f)
	}
	p := c.inbox[0]
	c.inbox = c.inbox[1:]
	return p
}

// message returns the next message and acknowledges it.
func (c *client) message() publish {
	p := c.raw()
	c.acknowledge(p)
	return p
}

func (c *client) acknowledge(p publish) {
	switch p.qos {
	case 1:
		c.send(ack(kindPuback, p.id))
	case 2:
		c.send(ack(kindPubrec, p.id))
		if a := c.expect(kindPubrel); a.id != p.id {
			c.t.Fatalf("PUBREL has id %d, want %d", a.id, p.id)
		}
		c.send(ack(kindPubcomp, p.id))
	}
}

// wants is message with what it must be.
func (c *client) wants(topic, payload string, qos byte) publish {
	p := c.message()
	if p.topic != topic || p.payload != payload || p.qos != qos {
		c.t.Fatalf("client %s got %q on %s with QoS %d, want %q on %s with QoS %d", c.id, p.payload, p.topic, p.qos, payload, topic, qos)
	}
	return p
}

func (c *client) newID() uint16 {
	c.nextID++
	return c.nextID
}

// publish sends a message and waits until the broker has it. It returns the
// reason code of version 5.
func (c *client) publish(p publish) byte {
	if p.qos > 0 {
		p.id = c.newID()
	}
	if p.retain {
		c.t.retains(p)
	}
	c.send(p.bytes(c.version))
	var a answer
	switch p.qos {
	case 0:
		c.ping() // it has been read
		return 0
	case 1:
		a = c.expect(kindPuback)
	case 2:
		if a = c.expect(kindPubrec); a.code < 0x80 && a.id == p.id {
			c.send(ack(kindPubrel, p.id))
			a = c.expect(kindPubcomp)
		}
	}
	if a.id != p.id {
		c.t.Fatalf("packet id %d is acknowledged, want %d", a.id, p.id)
	}
	return a.code
}

// retains notes a retained message, so that it is cleared in any case.
func (t *trial) retains(p publish) {
	t.kept[p.topic] = true
	if p.payload == "" {
		delete(t.kept, p.topic)
	}
}

func (c *client) put(topic, payload string, qos byte) {
	if code := c.publish(publish{topic: topic, payload: payload, qos: qos}); code >= 0x80 {
		c.t.Fatalf("PUBLISH to %s is answered with %#x", topic, code)
	}
}

// subscribe wants every filter granted with its QoS.
func (c *client) subscribe(list ...subscription) {
	c.subscribeWith(nil, list...)
}

func (c *client) subscribeWith(props properties, list ...subscription) {
	id := c.newID()
	c.send(subscribe(c.version, id, props, list...))
	a := c.expect(kindSuback)
	if a.id != id || len(a.codes) != len(list) {
		c.t.Fatalf("SUBACK has id %d and %d codes, want %d and %d", a.id, len(a.codes), id, len(list))
	}
	for i, code := range a.codes {
		if code != list[i].qos&3 {
			c.t.Fatalf("SUBACK answers %q with %#x, want %#x", list[i].filter, code, list[i].qos&3)
		}
	}
}

func (c *client) unsubscribe(filters ...string) answer {
	id := c.newID()
	c.send(unsubscribe(c.version, id, filters...))
	a := c.expect(kindUnsuback)
	if a.id != id {
		c.t.Fatalf("UNSUBACK has id %d, want %d", a.id, id)
	}
	if c.version == version5 && len(a.codes) != len(filters) {
		c.t.Fatalf("UNSUBACK has %d codes, want %d", len(a.codes), len(filters))
	}
	return a
}

func (c *client) ping() {
	c.send(pingreq)
	c.expect(kindPingresp)
}

// only wants no message but those published from now on: by sends a mark to a
// topic that c is subscribed to, and the mark must be the first to come.
func (c *client) only(by *client, topic string) {
	by.put(topic, "mark", 1)
	if p := c.message(); p.payload != "mark" {
		c.t.Fatalf("client %s got %q on %s, which must not come", c.id, p.payload, p.topic)
	}
}

// drop closes the connection as a broken network does.
func (c *client) drop() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it is closed in good order, which is as good here
	}
	c.conn.Close()
}

// leave disconnects in good order and waits until the broker closed, too.
func (c *client) leave() {
	c.send(disconnect)
	c.closed()
}

// closed waits until the broker has closed the connection, and returns the
// last packet it sent before, if any.
func (c *client) closed() (last frame, sent bool) {
	deadline := time.Now().Add(c.t.limit)
	for {
		f, err := c.read(time.Until(deadline))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.t.Fatalf("the broker does not close the connection within %v", c.t.limit)
		case err != nil && !errors.Is(err, io.EOF) && !isReset(err):
			c.t.Fatalf("the broker ends in the middle of a packet: %v", err)
		case err != nil:
			return last, sent
		}
		last, sent = f, true
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// refused wants the connection closed, after a packet of that kind with one of
// the codes if a packet is sent at all.
func (c *client) refused(kind byte, codes ...byte) {
	f, sent := c.closed()
	if !sent {
		return
	}
	a, err := f.answer(c.version)
	if err != nil || f.kind != kind || !slices.Contains(codes, a.code) {
		c.t.Fatalf("before it closes the broker sends %v, want %s with one of %#x", f, kindNames[kind], codes)
	}
}
