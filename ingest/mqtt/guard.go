package mqtt

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/weir-edge/weir/ingest"
)

// guard stands between the connection and the client library, which would
// allocate whatever length a packet claims (MQTT allows 256 MiB). A PUBLISH
// over the limit is read past and handed on cut short. Anything that a broker
// does not send ends the connection: the library answers some of it with a
// panic (a SUBACK with more codes than there were filters) and takes some for
// what it is not (a CONNACK with an unknown code for a success).
type guard struct {
	net.Conn
	in *bufio.Reader
	guardRules
	begun bool // CONNACK was there

	pending []byte // of a fixed header that was read but not passed on yet
	body    int    // bytes of the packet still to be passed on
}

// oversized is what is kept of a message over the limit.
type oversized struct {
	topic    string
	id       uint16
	qos      byte
	dup      bool
	retained bool
	size     int    // of the whole payload
	data     []byte // its first bytes
	hash     uint64 // as fingerprint gives it
}

// guardRules are what a guard has to know.
type guardRules struct {
	limit     int // bytes of a PUBLISH after its fixed header
	filters   int // how many codes a SUBACK has
	oversized func(oversized) error
}

func newGuard(conn net.Conn, rules guardRules) *guard {
	return &guard{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10), guardRules: rules}
}

// Read passes on packets that are within the limit.
func (g *guard) Read(b []byte) (int, error) {
	for {
		if len(g.pending) > 0 {
			n := copy(b, g.pending)
			g.pending = g.pending[n:]
			return n, nil
		}
		if g.body > 0 {
			n, err := g.in.Read(b[:min(len(b), g.body)])
			g.body -= n
			return n, err
		}
		if err := g.next(); err != nil {
			return 0, err
		}
	}
}

// next reads a fixed header (MQTT 3.1.1, section 2.2).
func (g *guard) next() error {
	first, err := g.in.ReadByte()
	if err != nil {
		return err
	}
	header := []byte{first}
	length := 0
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return errors.New("packet with a malformed length")
		}
		c, err := g.in.ReadByte()
		if err != nil {
			return unexpected(err)
		}
		header = append(header, c)
		length |= int(c&0x7f) << shift
		if c&0x80 == 0 {
			break
		}
	}
	if err := g.check(first, length); err != nil {
		return err
	}
	if first>>4 == typePublish && length > g.limit {
		return g.swallow(first, length)
	}
	g.pending, g.body = header, length
	return nil
}

// Packet types that a broker sends to a client that only subscribes (MQTT
// 3.1.1, table 2.1).
const (
	typeConnack  = 2
	typePublish  = 3
	typePubrel   = 6
	typeSuback   = 9
	typePingresp = 13
)

// check refuses what a broker does not send.
func (g *guard) check(first byte, length int) error {
	kind := first >> 4
	if g.begun == (kind == typeConnack) {
		return fmt.Errorf("packet of type %d where the broker does not send one", kind)
	}
	want := -1
	switch kind {
	case typeConnack:
		want = 2
	case typePubrel:
		want = 2
	case typeSuback:
		want = 2 + g.filters
	case typePingresp:
		want = 0
	case typePublish:
		if first>>1&3 == 3 || length < 2 {
			return errors.New("malformed PUBLISH")
		}
		return nil
	}
	if length != want {
		return fmt.Errorf("packet of type %d with %d bytes, which no broker sends", kind, length)
	}
	if kind != typeConnack {
		return nil
	}
	g.begun = true
	body, err := g.in.Peek(2)
	if err != nil {
		return unexpected(err)
	}
	if body[1] > 5 { // MQTT 3.1.1, table 3.1
		return fmt.Errorf("CONNACK with the unknown return code %d", body[1])
	}
	return nil
}

// swallow reads a PUBLISH of length bytes without keeping it.
func (g *guard) swallow(first byte, length int) error {
	m := oversized{qos: first >> 1 & 3, dup: first&8 != 0, retained: first&1 != 0}
	body := io.LimitReader(g.in, int64(length))
	var two [2]byte
	if _, err := io.ReadFull(body, two[:]); err != nil {
		return unexpected(err)
	}
	topic := make([]byte, binary.BigEndian.Uint16(two[:]))
	if _, err := io.ReadFull(body, topic); err != nil {
		return unexpected(err)
	}
	m.topic = string(topic)
	m.size = length - 2 - len(topic)
	if m.qos > 0 {
		if _, err := io.ReadFull(body, two[:]); err != nil {
			return unexpected(err)
		}
		m.id = binary.BigEndian.Uint16(two[:])
		m.size -= 2
	}
	if m.size < 0 {
		return errors.New("malformed PUBLISH")
	}
	h := sha256.New()
	binary.BigEndian.PutUint16(two[:], uint16(len(topic)))
	h.Write([]byte{0, 0, two[0], two[1]})
	h.Write(topic)
	m.data = make([]byte, min(m.size, ingest.MaxAsideBytes))
	if _, err := io.ReadFull(body, m.data); err != nil {
		return unexpected(err)
	}
	h.Write(m.data)
	if n, err := io.Copy(h, body); err != nil || int(n) != m.size-len(m.data) {
		return errors.Join(err, io.ErrUnexpectedEOF) // Copy takes an early end for the end
	}
	m.hash = binary.BigEndian.Uint64(h.Sum(nil))
	return g.oversized(m)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
