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
// over the limit is read past and handed on cut short; any other packet of
// such a length ends the connection.
type guard struct {
	net.Conn
	in        *bufio.Reader
	limit     int
	oversized func(oversized) error

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

// maxOtherPacket bounds packets that are not PUBLISH: a SUBACK for a few
// filters, an acknowledgement.
const maxOtherPacket = 64 << 10

func newGuard(conn net.Conn, limit int, oversized func(oversized) error) *guard {
	return &guard{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10), limit: limit, oversized: oversized}
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
	const publish = 3
	switch {
	case first>>4 == publish && length > g.limit:
		return g.swallow(first, length)
	case first>>4 != publish && length > maxOtherPacket:
		return fmt.Errorf("packet of type %d claims %d bytes", first>>4, length)
	}
	g.pending, g.body = header, length
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
	if m.qos == 3 || m.size < 0 {
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
	if _, err := io.Copy(h, body); err != nil {
		return unexpected(err)
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
