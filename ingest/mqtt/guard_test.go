package mqtt

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/message"
)

// stream is a connection that a broker has already written everything to.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(b []byte) (int, error) { return s.Reader.Read(b) }

var connack = []byte{0x20, 2, 0, 0}

// publish encodes a PUBLISH.
func publish(topic, payload string, qos byte, id uint16, dup bool) []byte {
	p, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID, p.Dup = topic, []byte(payload), qos, id, dup
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		panic(err) // a bytes.Buffer does not fail
	}
	return b.Bytes()
}

// readAll runs a guard over bytes and returns what it passes on.
func readAll(in []byte, limit, filters int) (passed []byte, cut []oversized, err error) {
	g := newGuard(stream{Reader: bytes.NewReader(in)}, guardRules{limit: limit, filters: filters, oversized: func(o oversized) {
		cut = append(cut, o)
	}})
	passed, err = io.ReadAll(g)
	return passed, cut, err
}

func TestGuardPassesWhatIsAllowed(t *testing.T) {
	in := bytes.Join([][]byte{
		connack, publish("a/b", "first", 1, 7, false), {0x90, 4, 0, 1, 1, 1}, {0x62, 2, 0, 9}, {0xd0, 0}, publish("c", "", 0, 0, false),
	}, nil)
	passed, cut, err := readAll(in, 1<<10, 2)
	if err != nil || !bytes.Equal(passed, in) || len(cut) != 0 {
		t.Errorf("passed %x of %x, %d cut, error %v", passed, in, len(cut), err)
	}
}

func TestGuardShortensOversized(t *testing.T) {
	payload := strings.Repeat("0123456789", 20_000)
	before, after := publish("a", "x", 1, 1, false), publish("a", "y", 1, 3, false)
	for _, qos := range []byte{0, 1, 2} {
		in := bytes.Join([][]byte{connack, before, publish("big/one", payload, qos, 2, true), after}, nil)
		passed, cut, err := readAll(in, 1<<10, 1)
		short := publish("big/one", payload[:ingest.MaxAsideBytes], qos, 2, true)
		if want := bytes.Join([][]byte{connack, before, short, after}, nil); err != nil || !bytes.Equal(passed, want) {
			t.Fatalf("qos %d: passed %d bytes, want %d, error %v", qos, len(passed), len(want), err)
		}
		want := oversized{ordinal: 2, size: len(payload), hash: message.Fingerprint("big/one", []byte(payload))}
		if len(cut) != 1 || cut[0] != want {
			t.Errorf("qos %d: %+v, want %+v", qos, cut, want)
		}
	}
}

func TestGuardRefuses(t *testing.T) {
	for name, in := range map[string][]byte{
		"a SUBACK with too many codes":    append(bytes.Clone(connack), 0x90, 5, 0, 1, 1, 1, 1),
		"a SUBACK with too few codes":     append(bytes.Clone(connack), 0x90, 3, 0, 1, 1),
		"no CONNACK first":                {0xd0, 0},
		"a second CONNACK":                append(bytes.Clone(connack), connack...),
		"a CONNACK of another length":     {0x20, 3, 0, 0, 0},
		"an unknown return code":          {0x20, 2, 0, 99},
		"a PUBREC, we publish nothing":    append(bytes.Clone(connack), 0x50, 2, 0, 1),
		"type 0":                          append(bytes.Clone(connack), 0, 0),
		"type 15":                         append(bytes.Clone(connack), 0xf0, 0),
		"a PINGRESP of 256 MiB":           append(bytes.Clone(connack), 0xd0, 0xff, 0xff, 0xff, 0x7f),
		"a length of five bytes":          append(bytes.Clone(connack), 0x30, 0xff, 0xff, 0xff, 0xff, 1),
		"a PUBLISH of QoS 3":              append(bytes.Clone(connack), 0x36, 6, 0, 1, 'a', 0, 1, 'x'),
		"a PUBLISH without a topic":       append(bytes.Clone(connack), 0x30, 1, 0),
		"a large PUBLISH that breaks off": append(bytes.Clone(connack), publish("a", strings.Repeat("x", 5000), 1, 1, false)[:4000]...),
		"a huge PUBLISH that breaks off":  append(bytes.Clone(connack), publish("a", strings.Repeat("x", 200_000), 1, 1, false)[:150_000]...),
	} {
		passed, cut, err := readAll(in, 1<<10, 2)
		if err == nil || len(cut) != 0 {
			t.Errorf("%s: passed %x, error %v", name, passed, err)
		}
	}
}

// FuzzGuard: whatever a broker sends, what the guard passes on is packets
// within a limit, which the library decodes without a panic; those that were
// cut are known by their number.
func FuzzGuard(f *testing.F) {
	f.Add(append(bytes.Clone(connack), publish("a/b", "value", 1, 7, true)...))
	f.Add(append(bytes.Clone(connack), publish("a", strings.Repeat("x", 9000), 2, 1, false)...))
	f.Add(append(bytes.Clone(connack), 0x90, 4, 0, 1, 1, 0x80, 0xd0, 0, 0x62, 2, 0, 1))
	f.Add([]byte{0x20, 2, 1, 0, 0x30, 0xff, 0xff, 0xff, 0x7f, 0, 3, 'a'})
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 2048
		passed, cut, _ := readAll(in, limit, 2) // an error ends the connection
		r := bytes.NewReader(passed)
		publishes := uint64(0)
		for r.Len() > 0 {
			before := r.Len()
			p, err := packets.ReadPacket(r)
			if err != nil {
				break
			}
			if before-r.Len() > ingest.MaxAsideBytes+70_000 {
				t.Fatalf("a packet of %d bytes was passed on", before-r.Len())
			}
			if m, ok := p.(*packets.PublishPacket); ok {
				publishes++
				if len(cut) > 0 && cut[0].ordinal == publishes {
					if len(m.Payload) > ingest.MaxAsideBytes || cut[0].size < len(m.Payload) {
						t.Fatalf("%d bytes of %d were kept", len(m.Payload), cut[0].size)
					}
					cut = cut[1:]
				} else if before-r.Len() > limit+5 {
					t.Fatalf("a packet of %d bytes was passed on", before-r.Len())
				}
			}
			if s, ok := p.(*packets.SubackPacket); ok && len(s.ReturnCodes) != 2 {
				t.Fatalf("a SUBACK with %d codes was passed on", len(s.ReturnCodes))
			}
		}
	})
}
