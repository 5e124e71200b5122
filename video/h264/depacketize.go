package h264

import "errors"

// Types of NAL unit (H.264, table 7-1) and of RTP payload (RFC 6184, table 1).
const (
	typeSlice      = 1
	typePartitionA = 2
	typeIDR        = 5
	typeSPS        = 7
	typePPS        = 8
	typeSTAPA      = 24
	typeFUA        = 28
)

// errDamaged: the payload is not what RFC 6184 describes.
var errDamaged = errors.New("damaged H.264 payload")

// piece is a part of a NAL unit, as it comes out of one packet.
type piece struct {
	data  []byte // first byte is the NAL header if first
	first bool
	last  bool
}

// depacketizer takes packets apart. Its zero value is ready.
type depacketizer struct {
	open   bool    // a FU-A is under way
	header [1]byte // of that NAL unit
}

// packet calls emit for each part of a NAL unit in payload, in order. After an
// error what came before is in doubt, and the state is reset.
func (d *depacketizer) packet(payload []byte, emit func(piece) error) error {
	if len(payload) == 0 {
		return nil // keep-alive: only padding
	}
	kind := payload[0] & 0x1f
	if d.open && kind != typeFUA {
		d.open = false
		return errDamaged
	}
	switch {
	case kind == typeFUA:
		return d.fragment(payload, emit)
	case kind == typeSTAPA:
		return aggregate(payload[1:], emit)
	case kind >= 1 && kind < typeSTAPA:
		return emit(piece{data: payload, first: true, last: true})
	default:
		return errDamaged
	}
}

// fragment is a FU-A (RFC 6184, 5.8).
func (d *depacketizer) fragment(payload []byte, emit func(piece) error) error {
	if len(payload) < 2 {
		d.open = false
		return errDamaged
	}
	start, end := payload[1]&0x80 != 0, payload[1]&0x40 != 0
	header := payload[0]&0xe0 | payload[1]&0x1f
	if start == d.open || !start && header&0x1f != d.header[0]&0x1f {
		d.open = false
		return errDamaged
	}
	if start {
		if kind := header & 0x1f; kind == 0 || kind >= typeSTAPA {
			return errDamaged
		}
		d.header[0] = header
		if err := emit(piece{data: d.header[:], first: true}); err != nil {
			return err
		}
	}
	// Start and end in one packet is forbidden, and sent by some cameras.
	d.open = !end
	if err := emit(piece{data: payload[2:], last: end}); err != nil {
		d.open = false
		return err
	}
	return nil
}

// aggregate is a STAP-A (RFC 6184, 5.7.1); zeros behind the last unit are
// padding that some cameras add.
func aggregate(rest []byte, emit func(piece) error) error {
	units := 0
	for len(rest) > 0 {
		if len(rest) < 2 {
			return errDamaged
		}
		size := int(rest[0])<<8 | int(rest[1])
		rest = rest[2:]
		if size == 0 && units > 0 && allZero(rest) {
			return nil
		}
		if size == 0 || size > len(rest) {
			return errDamaged
		}
		if kind := rest[0] & 0x1f; kind == 0 || kind >= typeSTAPA {
			return errDamaged
		}
		if err := emit(piece{data: rest[:size], first: true, last: true}); err != nil {
			return err
		}
		rest = rest[size:]
		units++
	}
	if units == 0 {
		return errDamaged
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// startsPicture says whether a payload begins a new picture: a delimiter,
// parameter sets or SEI, or a slice whose first macroblock is the picture's
// first (first_mb_in_slice is 0, which is coded as a single 1 bit).
func startsPicture(payload []byte) bool {
	if len(payload) < 3 {
		return false
	}
	kind, body := payload[0]&0x1f, payload[1:]
	switch kind {
	case typeSTAPA:
		return len(payload) > 4 && startsPicture(payload[3:])
	case typeFUA:
		if payload[1]&0x80 == 0 {
			return false
		}
		kind, body = payload[1]&0x1f, payload[2:]
	}
	switch kind {
	case typeSlice, typePartitionA, typeIDR:
		return body[0]&0x80 != 0
	default:
		return kind > typeIDR && kind <= 9
	}
}
