package fmp4

import (
	"encoding/binary"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"

	"github.com/weir-edge/weir/video"
)

// box returns a box (ISO 14496-12, 4.2) around its parts.
func box(name string, parts ...[]byte) []byte {
	size := 8
	for _, part := range parts {
		size += len(part)
	}
	b := header(make([]byte, 0, size), name, int64(size))
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

// header appends the head of a box of size bytes, head included.
func header(b []byte, name string, size int64) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return append(b, name...)
}

// fields appends 32-bit fields.
func fields(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func wide(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// matrix is the unit matrix of mvhd and tkhd.
func matrix() []byte { return fields(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000) }

func ftyp() []byte {
	return box("ftyp", []byte("isom"), fields(0x200), []byte("isomiso2avc1mp41"))
}

func mvhd(length int64) []byte {
	return box("mvhd", fields(1<<24), wide(0), wide(0), fields(video.ClockRate), wide(length),
		fields(0x10000, 0x01000000, 0, 0), matrix(), make([]byte, 24), fields(2))
}

func tkhd(length int64, width, height int) []byte {
	return box("tkhd", fields(1<<24|3), wide(0), wide(0), fields(1, 0), wide(length),
		make([]byte, 16), matrix(), fields(uint32(width)<<16, uint32(height)<<16))
}

// edts hides what is before start and behind start + length.
func edts(start, length int64) []byte {
	return box("edts", box("elst", fields(1<<24, 1), wide(length), wide(start), fields(0x10000)))
}

func mdhd(length int64) []byte {
	return box("mdhd", fields(1<<24), wide(0), wide(0), fields(video.ClockRate), wide(length), fields(0x55c40000))
}

func hdlr() []byte {
	return box("hdlr", fields(0, 0), []byte("vide"), make([]byte, 12), []byte("VideoHandler\x00"))
}

func vmhd() []byte { return box("vmhd", fields(1), make([]byte, 8)) }

func dinf() []byte { return box("dinf", box("dref", fields(0, 1), box("url ", fields(1)))) }

func stsd(descriptions []video.Parameters) []byte {
	parts := [][]byte{fields(0, uint32(len(descriptions)))}
	for i := range descriptions {
		parts = append(parts, avc1(&descriptions[i]))
	}
	return box("stsd", parts...)
}

// avc1 is the sample entry (ISO 14496-15, 5.4.2.1). The samples keep their
// parameter sets in band too, as they came.
func avc1(p *video.Parameters) []byte {
	size := fields(uint32(p.Width)<<16 | uint32(p.Height)&0xffff)
	return box("avc1", make([]byte, 6), []byte{0, 1}, make([]byte, 16), size,
		fields(0x480000, 0x480000, 0), []byte{0, 1}, make([]byte, 32), []byte{0, 24, 0xff, 0xff}, avcC(p))
}

// avcC is the decoder configuration (ISO 14496-15, 5.3.3.1).
func avcC(p *video.Parameters) []byte {
	first := p.SPS[0]
	b := []byte{1, first[1], first[2], first[3], 0xfc | prefixBytes - 1, 0xe0 | byte(len(p.SPS))}
	for i, sets := range [][][]byte{p.SPS, p.PPS} {
		if i == 1 {
			b = append(b, byte(len(sets)))
		}
		for _, set := range sets {
			b = binary.BigEndian.AppendUint16(b, uint16(len(set)))
			b = append(b, set...)
		}
	}
	var sps h264.SPS
	if profile := first[1]; profile == 100 || profile == 110 || profile == 122 || profile == 144 {
		if err := sps.Unmarshal(first); err == nil {
			b = append(b, 0xfc|byte(sps.ChromaFormatIdc), 0xf8|byte(sps.BitDepthLumaMinus8), 0xf8|byte(sps.BitDepthChromaMinus8), 0)
		}
	}
	return box("avcC", b)
}
