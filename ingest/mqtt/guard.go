package mqtt

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/weir-edge/weir/ingest"
)

// guard stands between the connection and the client library, which would
// allocate whatever length a packet claims (MQTT allows 256 MiB). A PUBLISH
// over the limit is passed on with its first bytes only, so that the library
// acknowledges it in its turn (MQTT-4.6.0). Anything that a broker
// does not send ends the connection: the library answers some of it with a
// panic (a SUBACK with more codes than there were filters) and takes some for
// what it is not (a CONNACK with an unknown code for a success).
type guard struct {
	net.Conn
	in *bufio.Reader
	guardRules
	begun     bool   // CONNACK was there
	published uint64 // PUBLISH packets passed on

	pending []byte // of a fixed header that was read but not passed on yet
	body    int    // bytes of the packet still to be passed on
}

// oversized is what the library does not see of a message over the limit.
type oversized struct {
	ordinal uint64 // it is the how-manieth PUBLISH of the connection, from 1
	size    int    // of the whole payload
	hash    uint64 // as message.Fingerprint gives it for all of it
}

// guardRules are what a guard has to know.
type guardRules struct {
	limit     int           // bytes of a PUBLISH after its fixed header
	filters   int           // how many codes a SUBACK has
	idle      time.Duration // a broker that is silent for longer while we listen is dead; 0: never
	oversized func(oversized)
}

func newGuard(conn net.Conn, rules guardRules) *guard {
	g := &guard{Conn: conn, guardRules: rules}
	g.in = bufio.NewReaderSize(listener{g}, 16<<10)
	return g
}

// listener reads from a guard's connection, for a bounded time. The time that
// passes while nobody reads does not count.
type listener struct{ guard *guard }

func (l listener) Read(b []byte) (int, error) {
	g := l.guard
	if g.begun && g.idle > 0 { // before, the deadline of connecting holds
		if err := g.SetReadDeadline(time.Now().Add(g.idle)); err != nil {
			return 0, err
		}
	}
	n, err := g.Conn.Read(b)
	if g.begun && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the broker is silent for %s", g.idle)
	}
	return n, err
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
	if first>>4 == typePublish {
		g.published++
		if length > g.limit {
			return g.shorten(first, length)
		}
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

// shorten reads a PUBLISH of length bytes, and passes on one of the same topic
// and identifier with at most ingest.MaxAsideBytes of its payload.
func (g *guard) shorten(first byte, length int) error {
	body := io.LimitReader(g.in, int64(length))
	var two [2]byte
	if _, err := io.ReadFull(body, two[:]); err != nil {
		return unexpected(err)
	}
	head := int(binary.BigEndian.Uint16(two[:])) // bytes of topic and identifier
	topic := head
	if first>>1&3 > 0 {
		head += 2
	}
	size := length - 2 - head
	if size < 0 {
		return errors.New("malformed PUBLISH")
	}
	short := make([]byte, 2+head+min(size, ingest.MaxAsideBytes))
	copy(short, two[:])
	if _, err := io.ReadFull(body, short[2:]); err != nil {
		return unexpected(err)
	}
	h := sha256.New() // as message.Fingerprint does
	h.Write([]byte{0, 0, two[0], two[1]})
	h.Write(short[2 : 2+topic])
	h.Write(short[2+head:])
	if n, err := io.Copy(h, body); err != nil || int(n) != length-len(short) {
		return errors.Join(err, io.ErrUnexpectedEOF) // Copy takes an early end for the end
	}
	g.oversized(oversized{ordinal: g.published, size: size, hash: binary.BigEndian.Uint64(h.Sum(nil))})
	header := []byte{first}
	for rest := len(short); ; {
		if rest < 0x80 {
			header = append(header, byte(rest))
			break
		}
		header = append(header, byte(rest&0x7f|0x80))
		rest >>= 7
	}
	g.pending = append(header, short...)
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
