package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The byte layouts of segments and frames; FORMAT.md draws them.
const (
	segmentMagic      = "WEIRSEG1"
	segmentHeaderSize = 64
	frameMagic        = 0x4d524657 // "WFRM"
	frameHeaderSize   = 112
	maxBodyBytes      = 17 << 20 // one MaxAppendBytes record and its strings
)

const (
	frameBatch    = 1
	frameMeta     = 2
	frameConsumer = 3
)

const (
	flagUnitEnd = 1 << iota
	flagZstd
	flagClockSynced
	flagSealed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segmentHeader opens a segment file.
type segmentHeader struct {
	chain   uint32
	number  uint64
	created int64 // Unix nanoseconds
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint16(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.chain)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.created))
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
	return b
}

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	if len(b) < segmentHeaderSize || string(b[:8]) != segmentMagic {
		return segmentHeader{}, fmt.Errorf("no segment header")
	}
	if checksum(b[:60]) != binary.LittleEndian.Uint32(b[60:]) {
		return segmentHeader{}, fmt.Errorf("checksum of the segment header does not match")
	}
	return segmentHeader{
		chain:   binary.LittleEndian.Uint32(b[12:]),
		number:  binary.LittleEndian.Uint64(b[16:]),
		created: int64(binary.LittleEndian.Uint64(b[24:])),
	}, nil
}

// frameHeader goes before each frame's body.
type frameHeader struct {
	kind      uint8
	flags     uint16
	stored    uint32 // length of the body as stored
	raw       uint32 // and uncompressed
	segment   uint64
	synced    uint32
	prev      uint32
	stream    uint32
	shard     ShardID
	first     Sequence
	count     uint32
	skipped   uint32
	wall      int64
	monotonic int64
	age       int64
	boot      uint32
	bodyCRC   uint32
}

// put writes h into b[:frameHeaderSize] and returns the header's own CRC.
func (h *frameHeader) put(b []byte) uint32 {
	le := binary.LittleEndian
	le.PutUint32(b[0:], frameMagic)
	b[4], b[5] = formatVersion, h.kind
	le.PutUint16(b[6:], h.flags)
	le.PutUint32(b[8:], h.stored)
	le.PutUint32(b[12:], h.raw)
	le.PutUint64(b[16:], h.segment)
	le.PutUint32(b[24:], h.synced)
	le.PutUint32(b[28:], h.prev)
	le.PutUint32(b[32:], h.stream)
	le.PutUint32(b[36:], uint32(h.shard))
	le.PutUint64(b[40:], uint64(h.first))
	le.PutUint32(b[48:], h.count)
	le.PutUint32(b[52:], h.skipped)
	le.PutUint64(b[56:], uint64(h.wall))
	le.PutUint64(b[64:], uint64(h.monotonic))
	le.PutUint64(b[72:], uint64(h.age))
	le.PutUint32(b[80:], h.boot)
	clear(b[84:104])
	le.PutUint32(b[104:], h.bodyCRC)
	sum := checksum(b[:108])
	le.PutUint32(b[108:], sum)
	return sum
}

// parseFrameHeader reads and checks a header; crc is its own CRC, which the
// next frame repeats.
func parseFrameHeader(b []byte) (h frameHeader, crc uint32, err error) {
	le := binary.LittleEndian
	if len(b) < frameHeaderSize || le.Uint32(b) != frameMagic {
		return h, 0, fmt.Errorf("no frame header")
	}
	crc = le.Uint32(b[108:])
	if checksum(b[:108]) != crc {
		return h, 0, fmt.Errorf("checksum of the frame header does not match")
	}
	h = frameHeader{
		kind: b[5], flags: le.Uint16(b[6:]), stored: le.Uint32(b[8:]), raw: le.Uint32(b[12:]),
		segment: le.Uint64(b[16:]), synced: le.Uint32(b[24:]), prev: le.Uint32(b[28:]),
		stream: le.Uint32(b[32:]), shard: ShardID(le.Uint32(b[36:])), first: Sequence(le.Uint64(b[40:])),
		count: le.Uint32(b[48:]), skipped: le.Uint32(b[52:]), wall: int64(le.Uint64(b[56:])),
		monotonic: int64(le.Uint64(b[64:])), age: int64(le.Uint64(b[72:])), boot: le.Uint32(b[80:]),
		bodyCRC: le.Uint32(b[104:]),
	}
	switch {
	case b[4] != formatVersion:
		return h, crc, fmt.Errorf("frame version %d is not known", b[4])
	case h.stored > maxBodyBytes || h.raw > maxBodyBytes:
		return h, crc, fmt.Errorf("frame of %d bytes is over the limit", max(h.stored, h.raw))
	case h.kind == frameBatch && (h.first == 0 || h.count == 0):
		return h, crc, fmt.Errorf("batch without records")
	}
	return h, crc, nil
}

func (h *frameHeader) size() int64    { return frameHeaderSize + int64(h.stored) }
func (h *frameHeader) last() Sequence { return h.first + Sequence(h.count) - 1 }
