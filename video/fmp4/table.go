package fmp4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/weir-edge/weir/video"
)

const magic = "wvf1"

// prefixBytes is the length field that MP4 puts before each NAL unit.
const prefixBytes = 4

// Limits of what DecodeClosing accepts.
const (
	maxSamples       = 1 << 20
	maxParameterSets = 64
	maxNALBytes      = 64 << 20
)

// errShort: the record ends too early, or a length in it is wrong.
var errShort = errors.New("it ends too early")

// Sample is one frame of a fragment.
type Sample struct {
	PTS  int64 // media time
	Key  bool
	NALs []uint32 // lengths
}

// Bytes is the sample's size in a piece, without length prefixes.
func (s *Sample) Bytes() int64 {
	var n int64
	for _, size := range s.NALs {
		n += int64(size)
	}
	return n
}

// size is the sample's size in an MP4.
func (s *Sample) size() int64 { return s.Bytes() + int64(prefixBytes*len(s.NALs)) }

// Table collects the samples of one fragment, encoded as they come.
type Table struct {
	first, last int64
	count       int
	encoded     []byte // all but the first sample's time
}

// NewTable returns an empty table whose first sample will be at first.
func NewTable(first int64) *Table { return &Table{first: first, last: first} }

// Len is the number of samples.
func (t *Table) Len() int { return t.count }

// Size is how many bytes the table takes, about.
func (t *Table) Size() int { return len(t.encoded) }

// Add adds s and returns its bytes in the pieces.
func (t *Table) Add(s Sample) int64 {
	if t.count == 0 {
		t.first = s.PTS
	} else {
		t.encoded = binary.AppendVarint(t.encoded, s.PTS-t.last)
	}
	t.last = s.PTS
	t.count++
	units := uint64(len(s.NALs)) << 1
	if s.Key {
		units |= 1
	}
	t.encoded = binary.AppendUvarint(t.encoded, units)
	for _, size := range s.NALs {
		t.encoded = binary.AppendUvarint(t.encoded, uint64(size))
	}
	return s.Bytes()
}

// EncodeClosing returns the data of the closing record of f, and f's metadata
// as it is in there, for the index.
func EncodeClosing(f *video.Fragment, p *video.Parameters, t *Table) (data, meta []byte, err error) {
	meta, err = f.Encode()
	if err != nil {
		return nil, nil, fmt.Errorf("encode fragment: %w", err)
	}
	data = append(make([]byte, 0, len(meta)+len(t.encoded)+256), magic...)
	data = appendBytes(data, meta)
	for _, sets := range [][][]byte{p.SPS, p.PPS} {
		data = binary.AppendUvarint(data, uint64(len(sets)))
		for _, set := range sets {
			data = appendBytes(data, set)
		}
	}
	data = binary.AppendUvarint(data, uint64(t.count))
	data = binary.AppendVarint(data, t.first-f.MediaStart)
	return append(data, t.encoded...), meta, nil
}

func appendBytes(data, b []byte) []byte {
	return append(binary.AppendUvarint(data, uint64(len(b))), b...)
}

// Stored is a fragment as its closing record describes it.
type Stored struct {
	Fragment   video.Fragment
	Parameters video.Parameters
	count      int
	samples    []byte // encoded, checked
}

// DecodeClosing reads the data of a closing record. The result keeps a copy of
// what it needs.
func DecodeClosing(data []byte) (*Stored, error) {
	s, err := decodeClosing(data)
	if err != nil {
		return nil, fmt.Errorf("decode closing record: %w", err)
	}
	return s, nil
}

func decodeClosing(data []byte) (*Stored, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, errors.New("it is not a fragment of a version that is known")
	}
	d := decoder{rest: data[len(magic):]}
	fragment, err := video.DecodeFragment(d.bytes())
	if d.bad || err != nil {
		return nil, errors.Join(d.err(), err)
	}
	s := &Stored{Fragment: fragment, Parameters: video.Parameters{Codec: fragment.Codec, Width: fragment.Width, Height: fragment.Height}}
	for _, sets := range []*[][]byte{&s.Parameters.SPS, &s.Parameters.PPS} {
		n := d.uvarint()
		if n == 0 || n > maxParameterSets {
			return nil, fmt.Errorf("it has %d parameter sets of one kind", n)
		}
		for range n {
			set := slices.Clone(d.bytes())
			if len(set) < 4 && sets == &s.Parameters.SPS || len(set) < 2 {
				d.bad = true
				break
			}
			*sets = append(*sets, set)
		}
	}
	n := d.uvarint()
	if d.bad || n == 0 || n > maxSamples || n != uint64(fragment.Frames) {
		return nil, errors.Join(d.err(), fmt.Errorf("it has %d samples for %d frames", n, fragment.Frames))
	}
	s.count, s.samples = int(n), slices.Clone(d.rest)
	return s, s.check()
}

// check walks through the samples once, so that Samples cannot fail.
func (s *Stored) check() error {
	d := decoder{rest: s.samples}
	var total, pts int64
	for range s.count {
		pts += d.varint()
		units := d.uvarint() >> 1
		if d.bad || units == 0 || units > uint64(len(d.rest)) {
			return errShort
		}
		if pts < 0 || pts >= s.Fragment.MediaEnd-s.Fragment.MediaStart && pts > 0 {
			return fmt.Errorf("a sample lies outside of the fragment")
		}
		for range units {
			size := d.uvarint()
			if size == 0 || size > maxNALBytes {
				return fmt.Errorf("a NAL unit of %d bytes", size)
			}
			total += int64(size)
		}
	}
	switch {
	case d.bad:
		return errShort
	case len(d.rest) > 0:
		return fmt.Errorf("%d bytes too many", len(d.rest))
	case total != s.Fragment.Bytes:
		return fmt.Errorf("its samples have %d bytes, its metadata says %d", total, s.Fragment.Bytes)
	}
	return nil
}

// Len is the number of samples.
func (s *Stored) Len() int { return s.count }

// Samples returns the samples in decoding order. NALs is used again for the
// next one.
func (s *Stored) Samples() iter.Seq[Sample] {
	return func(yield func(Sample) bool) {
		d := decoder{rest: s.samples}
		sample := Sample{PTS: s.Fragment.MediaStart}
		for range s.count {
			sample.PTS += d.varint()
			units := d.uvarint()
			sample.Key = units&1 != 0
			sample.NALs = sample.NALs[:0]
			for range units >> 1 {
				sample.NALs = append(sample.NALs, uint32(d.uvarint()))
			}
			if d.bad || !yield(sample) {
				return
			}
		}
	}
}

// decoder reads fields and remembers that one was bad.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) err() error {
	if d.bad {
		return errShort
	}
	return nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
