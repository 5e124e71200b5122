package h264

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/pion/rtp"

	"github.com/weir-edge/weir/video"
)

// Parameter sets of x264, 320x240, and of another size with the same ids.
var (
	sps      = []byte("\x67\x42\xc0\x0d\xda\x05\x07\xec\x04\x40\x00\x00\x03\x00\x40\x00\x00\x07\x83\xc5\x0a\xa8")
	pps      = []byte("\x68\xce\x0f\xc8")
	otherPPS = []byte("\x68\xce\x0f\x2c")
)

// take collects what an Assembler hands out.
type take struct {
	units  []string // "pts kind: nal nal", hex of the first bytes
	open   *video.AccessUnit
	data   []byte
	refuse bool
	broken []video.Cause
	params *video.Parameters
	whole  [][]byte // bytes of units
}

func (s *take) Begin(u video.AccessUnit) bool {
	if s.open != nil {
		panic("begin inside a unit")
	}
	if s.refuse {
		return false
	}
	s.open, s.data, s.params = &u, nil, u.Parameters
	return true
}

func (s *take) Data(p []byte) {
	if s.open == nil {
		panic("data outside of a unit")
	}
	s.data = append(s.data, p...)
}

func (s *take) End(nals []uint32) {
	kind := "P"
	if s.open.Keyframe {
		kind = "I"
	}
	text := fmt.Sprintf("%d %s", s.open.PTS, kind)
	rest := s.data
	for _, size := range nals {
		text += fmt.Sprintf(" %x", rest[:min(size, 3)])
		rest = rest[size:]
	}
	if len(rest) > 0 {
		panic("lengths and bytes do not agree")
	}
	s.units = append(s.units, text)
	s.whole = append(s.whole, s.data)
	s.open = nil
}

func (s *take) Abort() {
	if s.open == nil {
		panic("abort outside of a unit")
	}
	s.open = nil
}

func (s *take) Break(cause video.Cause, _ int64) {
	if s.open != nil {
		panic("break inside a unit")
	}
	s.broken = append(s.broken, cause)
}

// packet feeds one; marker if m is true.
func packet(a *Assembler, timestamp int64, m bool, payload ...byte) {
	a.Packet(Packet{Timestamp: timestamp, Marker: m, Payload: payload})
}

func (s *take) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(s.units, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("units:\n%s\nexpected:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestUnitsAndWhatEndsThem(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	packet(a, 0, false, sps...)
	packet(a, 0, false, pps...)
	packet(a, 0, true, 0x65, 1, 2)
	packet(a, 3000, false, 0x41, 1)
	packet(a, 3000, true, 0x41, 2)  // a second slice
	packet(a, 6000, false, 0x41, 3) // no marker: the next timestamp ends it
	packet(a, 9000, true, 0x41, 4)
	packet(a, 12000, false, 0x41, 5) // nothing ends it
	a.Flush()
	s.expect(t, "0 I 6742c0 68ce0f 650102", "3000 P 4101 4102", "6000 P 4103", "9000 P 4104")
	if s.params == nil || s.params.Width != 320 || s.params.Height != 240 {
		t.Errorf("parameters: %+v", s.params)
	}
	if len(s.broken) > 0 {
		t.Errorf("broken: %v", s.broken)
	}
}

func TestAggregatesAndFragments(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	stap := []byte{0x78}
	for _, nal := range [][]byte{sps, pps, {0x06, 5, 1}} {
		stap = append(append(stap, byte(len(nal)>>8), byte(len(nal))), nal...)
	}
	packet(a, 0, false, append(stap, 0, 0, 0)...) // with padding
	packet(a, 0, false, 0x7c, 0x85, 1, 2)
	packet(a, 0, false, 0x7c, 0x05, 3)
	packet(a, 0, false, 0x7c, 0x05) // an empty part is allowed
	packet(a, 0, true, 0x7c, 0x45, 4)
	packet(a, 3000, true, 0x5c, 0xc1, 9, 9) // start and end in one
	packet(a, 6000, true)                   // a keep-alive
	a.Flush()
	s.expect(t, "0 I 6742c0 68ce0f 060501 650102", "3000 P 410909")
	if !bytes.HasSuffix(s.whole[0], []byte{0x65, 1, 2, 3, 4}) {
		t.Errorf("bytes: %x", s.whole[0])
	}
}

func TestParameterSetsSentApart(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	packet(a, 0, true, sps...) // each with a marker and a time of its own
	packet(a, 10, true, pps...)
	packet(a, 3000, true, 0x65, 1)
	before := s.params
	packet(a, 6000, false, otherPPS...)
	packet(a, 6000, true, 0x65, 1)
	a.Flush()
	s.expect(t, "3000 I 6501", "6000 I 68ce0f 6501")
	if before == nil || s.params == before || s.params.Reference() == before.Reference() || len(s.params.PPS) != 1 {
		t.Errorf("parameters %+v, then %+v", before, s.params)
	}
}

// TestTimestampsStandStill: ffmpeg sends that for a raw stream with B-frames.
func TestTimestampsStandStill(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	arrival := time.Now()
	for i, payload := range [][]byte{sps, pps, {0x65, 0x80}, {0x65, 0x40}, {0x41, 0x80, 1}, {0x5c, 0x81, 0x80}, {0x5c, 0x41, 0x80}, {0x41, 0x40, 1}} {
		a.Packet(Packet{Timestamp: 90, Marker: i == 3 || i == 4 || i == 6 || i == 7, Payload: payload, Arrival: arrival.Add(time.Duration(i) * time.Second)})
	}
	a.Flush()
	s.expect(t, "90 I 6742c0 68ce0f 6580 6540", fmt.Sprint(90+4*90000, " P 418001"), fmt.Sprint(90+5*90000, " P 418080 414001"))
	if a.Stats().Frozen != 2 {
		t.Errorf("stats: %+v", a.Stats())
	}
}

func TestLoss(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	packet(a, 0, true, 0x65, 1)
	packet(a, 3000, false, 0x5c, 0x81, 1) // the rest of it is lost
	a.Lost(video.CauseLoss, 2)
	packet(a, 6000, false, 0x5c, 0x41, 1) // the end of one whose start is lost
	packet(a, 6000, true, 0x41, 1)
	packet(a, 9000, true, 0x65, 1)
	a.Flush()
	s.expect(t, "0 I 6501", "9000 I 6501")
	if fmt.Sprint(s.broken) != "[rtp-loss damaged]" {
		t.Errorf("broken: %v", s.broken)
	}
}

func TestDamaged(t *testing.T) {
	for name, payload := range map[string][]byte{
		"type 0":                     {0x00, 1},
		"forbidden bit":              {0xc1, 1},
		"STAP-B":                     {0x79, 0, 0},
		"MTAP":                       {0x7a, 0, 0},
		"FU-B":                       {0x7d, 0, 0},
		"FU-A of one byte":           {0x7c},
		"FU-A without a start":       {0x7c, 0x05, 1},
		"FU-A of a FU-A":             {0x7c, 0x9c, 1},
		"STAP-A of nothing":          {0x78},
		"STAP-A too short":           {0x78, 0, 9, 1},
		"STAP-A with an empty unit":  {0x78, 0, 0, 0, 1, 0x41},
		"STAP-A of a STAP-A":         {0x78, 0, 1, 0x78},
		"prefix that does not end":   append([]byte{0x06}, make([]byte, maxPrefixBytes)...),
		"STAP-A that ends in length": {0x78, 0, 1, 0x41, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var s take
			a := NewAssembler(&s, nil)
			packet(a, 0, true, 0x65, 1)
			packet(a, 3000, true, payload...)
			packet(a, 3000, true, 0x41, 1) // the same unit: in doubt
			packet(a, 6000, true, 0x65, 1)
			a.Flush()
			s.expect(t, "0 I 6501", "6000 I 6501")
			if fmt.Sprint(s.broken) != "[damaged]" || a.Stats().Damaged != 1 {
				t.Errorf("broken: %v, %+v", s.broken, a.Stats())
			}
		})
	}
}

func TestUnitsAreBounded(t *testing.T) {
	var s take
	a := NewAssembler(&s, nil)
	packet(a, 0, false, 0x7c, 0x85, 1)
	part := append([]byte{0x7c, 0x05}, make([]byte, 9000)...)
	for range MaxUnitBytes/9000 + 1 {
		packet(a, 0, false, part...)
	}
	packet(a, 3000, false, 0x65, 1)
	for range maxUnitNALs {
		packet(a, 3000, false, 0x65, 1)
	}
	packet(a, 6000, true, 0x65, 1)
	a.Flush()
	s.expect(t, "6000 I 6501")
	if fmt.Sprint(s.broken) != "[damaged damaged]" {
		t.Errorf("broken: %v", s.broken)
	}
}

func TestParametersFromTheConfiguration(t *testing.T) {
	given, err := Parameters(sps, pps)
	if err != nil {
		t.Fatal(err)
	}
	var s take
	a := NewAssembler(&s, given)
	packet(a, 0, true, 0x65, 1)
	a.Flush()
	if s.params == nil || s.params.Reference() != given.Reference() {
		t.Errorf("parameters: %+v", s.params)
	}
	for _, wrong := range [][][]byte{{sps}, {pps}, {{0x67, 1}, pps}, {sps, {0x68}}, {{0x65, 1, 2}}} {
		if _, err := Parameters(wrong...); err == nil {
			t.Errorf("%x are taken for parameter sets", wrong)
		}
	}
}

// units reads the access units of a stream; see testdata/README.md.
func units(t testing.TB, file string) [][][]byte {
	raw, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var nals [][]byte
	for _, nal := range bytes.Split(raw, []byte{0, 0, 1})[1:] {
		nals = append(nals, bytes.TrimRight(nal, "\x00")) // of a four-byte start code; no unit ends in zero
	}
	var out [][][]byte
	for _, nal := range nals {
		if nal[0]&0x1f == 9 || len(out) == 0 { // each begins with a delimiter
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], nal)
	}
	return out
}

// TestAgainstAnotherImplementation sends a stream by gortsplib's encoder with
// packets of several sizes, and reads it by its decoder too.
func TestAgainstAnotherImplementation(t *testing.T) {
	stream := units(t, "slices.h264")
	if len(stream) != 25 {
		t.Fatalf("%d access units", len(stream))
	}
	for _, size := range []int{50, 200, 1400, 8000} {
		encoder := rtph264.Encoder{PayloadType: 96, PayloadMaxSize: size, PacketizationMode: 1}
		if err := encoder.Init(); err != nil {
			t.Fatal(err)
		}
		decoder := rtph264.Decoder{PacketizationMode: 1}
		if err := decoder.Init(); err != nil {
			t.Fatal(err)
		}
		var s take
		a := NewAssembler(&s, nil)
		var want [][]byte
		for i, unit := range stream {
			packets, err := encoder.Encode(unit)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range packets {
				p.Timestamp = uint32(i * 3600)
				packet(a, int64(i*3600), p.Marker, p.Payload...)
				if nals, err := decoder.Decode(clone(p)); err == nil {
					want = append(want, bytes.Join(nals, nil))
				}
			}
		}
		a.Flush()
		if len(s.whole) != len(stream) || len(s.broken) > 0 {
			t.Fatalf("packets of %d: %d units, broken %v", size, len(s.whole), s.broken)
		}
		for i := range stream {
			if !bytes.Equal(s.whole[i], bytes.Join(stream[i], nil)) || !bytes.Equal(s.whole[i], want[i]) {
				t.Fatalf("packets of %d: unit %d differs", size, i)
			}
		}
	}
}

func clone(p *rtp.Packet) *rtp.Packet {
	c := *p
	c.Payload = bytes.Clone(p.Payload)
	return &c
}

// FuzzAssembler feeds packets of any content; the first byte of each is its
// length, the second says time, marker and loss.
func FuzzAssembler(f *testing.F) {
	var seed []byte
	add := func(flags byte, payload ...byte) { seed = append(append(seed, byte(len(payload)), flags), payload...) }
	add(0, sps...)
	add(0, pps...)
	add(2, 0x65, 1, 2)
	add(1, 0x7c, 0x85, 1, 2)
	add(2, 0x7c, 0x45, 1, 2)
	add(5, 0x78, 0, 2, 0x41, 1, 0, 1, 0x41)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var s take
		a := NewAssembler(&s, nil)
		timestamp := int64(0)
		for len(data) >= 2 {
			size, flags := min(int(data[0]), len(data)-2), data[1]
			if flags&1 != 0 {
				timestamp += 3000
			}
			if flags&4 != 0 {
				a.Lost(video.CauseLoss, 1)
			}
			s.refuse = flags&8 != 0
			packet(a, timestamp, flags&2 != 0, data[2:2+size]...)
			data = data[2+size:]
		}
		a.Idle()
		a.Flush()
		if s.open != nil {
			t.Fatal("a unit is left open")
		}
	})
}
