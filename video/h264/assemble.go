package h264

import (
	"time"

	"github.com/weir-edge/weir/video"
)

// Limits of one access unit.
const (
	MaxUnitBytes   = 8 << 20  // 2160p at 50 Mbit/s has less
	maxUnitNALs    = 16 << 10 // 1080p with a slice for each macroblock has 8160
	maxPrefixBytes = 32 << 10 // parameter sets, SEI: what comes before the first slice
)

// Sink takes access units, in decoding order. For each one Begin is called,
// and if it returned true Data any number of times and then End or Abort.
type Sink interface {
	// Begin starts a unit; false refuses it.
	Begin(unit video.AccessUnit) bool
	// Data is the next bytes of the unit's NAL units; they are only lent.
	Data(p []byte)
	// End says that the unit is whole, and how long its NAL units are. The slice
	// is only lent.
	End(nals []uint32)
	// Abort forgets the unit: the rest of it did not come.
	Abort()
	// Break says that something is missing or makes no sense before the next
	// unit. Packets is how many are known to be lost.
	Break(cause video.Cause, packets int64)
}

// Packet is what Assembler needs of an RTP packet.
type Packet struct {
	Timestamp int64 // unwrapped
	Marker    bool
	Payload   []byte
	Arrival   time.Time
	Sender    time.Time // the sender's wall time of Timestamp; zero: not known
}

// Stats count what was wrong with what Assembler got.
type Stats struct {
	Damaged int64 // packets, or units, that make no sense
	Frozen  int64 // units with the timestamp of the one before
}

// Assembler makes access units of packets in order. Not safe for concurrent
// use.
type Assembler struct {
	sink  Sink
	in    depacketizer
	sets  parameterSets
	stats Stats

	state     state
	unit      video.AccessUnit
	timestamp int64    // of the unit's packets
	marked    bool     // one of them had the marker
	prefix    []byte   // NAL units before the first slice
	nals      []uint32 // lengths of the unit's NAL units; the last grows while one is open
	inNAL     bool     // a NAL unit has begun and not ended
	spsIDs    []uint32 // of the SPS in the prefix
	size      int
	whole     bool // the marker said so
	headers   bool // the first slice has come
}

// state is where a unit is in its life.
type state uint8

const (
	idle    state = iota // between units
	taking               // the sink wants it, or has not been asked yet
	refused              // the sink does not want it, or it is damaged
)

// NewAssembler returns an Assembler that hands units to sink. parameters, if
// not nil, are in force until the stream brings its own.
func NewAssembler(sink Sink, parameters *video.Parameters) *Assembler {
	a := &Assembler{sink: sink}
	if parameters == nil {
		return a
	}
	for _, list := range [][][]byte{parameters.SPS, parameters.PPS} {
		for _, nal := range list {
			if err := a.sets.add(nal); err != nil {
				a.stats.Damaged++
			}
		}
	}
	return a
}

// Stats returns the counters.
func (a *Assembler) Stats() Stats { return a.stats }

// Packet takes the next packet.
func (a *Assembler) Packet(p Packet) {
	frozen := false
	if a.state != idle {
		// A sender whose timestamps stand still has only the marker and the start
		// of a picture to tell units apart.
		frozen = p.Timestamp == a.timestamp && a.marked && !a.sets.fields && startsPicture(p.Payload)
		if frozen || p.Timestamp != a.timestamp {
			a.finish()
		}
	}
	if len(p.Payload) == 0 {
		return
	}
	if a.state == idle {
		a.start(p, frozen)
	}
	a.marked = a.marked || p.Marker
	if a.state == refused {
		return
	}
	if err := a.in.packet(p.Payload, a.piece); err != nil {
		a.damaged()
		return
	}
	// A marker behind nothing but parameter sets ends no picture.
	if p.Marker && a.headers && !a.inNAL {
		a.whole = true
	}
}

// Lost says that packets are missing before the next one, or that it has no
// relation to those before (cause says which).
func (a *Assembler) Lost(cause video.Cause, packets int64) {
	a.Flush()
	a.in = depacketizer{}
	a.sink.Break(cause, packets)
}

// Flush ends the unit under way: kept if the marker said it is whole.
func (a *Assembler) Flush() {
	if a.state == idle {
		return
	}
	if a.state == taking && !a.whole {
		a.abandon()
		return
	}
	a.finish()
}

// Idle ends the unit under way if it is whole, and says whether nothing is
// left: for a camera that fell silent.
func (a *Assembler) Idle() bool {
	if a.state == taking && a.whole {
		a.finish()
	}
	return a.state == idle
}

// start begins a unit. Its time is the timestamp; if that stands still, the
// time that passed since the unit before.
func (a *Assembler) start(p Packet, frozen bool) {
	pts := p.Timestamp
	if frozen {
		pts = a.unit.PTS + max(video.ToTicks(p.Arrival.Sub(a.unit.Arrival)), 1)
		a.stats.Frozen++
	}
	a.state, a.timestamp, a.marked = taking, p.Timestamp, false
	a.unit = video.AccessUnit{PTS: pts, Arrival: p.Arrival, Sender: p.Sender}
	a.prefix, a.nals, a.spsIDs = a.prefix[:0], a.nals[:0], a.spsIDs[:0]
	a.inNAL, a.size, a.whole, a.headers = false, 0, false, false
}

// finish ends a unit because the next one begins.
func (a *Assembler) finish() {
	switch {
	case a.state != taking:
		a.in = depacketizer{}
	case a.inNAL:
		a.damaged()
		a.in = depacketizer{}
	case a.headers:
		a.sink.End(a.nals)
	default:
		// No slice: parameter sets alone, sent apart. They are in force; their
		// bytes belong to no frame.
		a.takeSets()
	}
	a.state = idle
}

func (a *Assembler) abandon() {
	if a.state == taking && a.headers {
		a.sink.Abort()
	}
	a.state = idle
}

// damaged gives up the unit and what follows up to the next keyframe.
func (a *Assembler) damaged() {
	a.stats.Damaged++
	a.abandon()
	a.state = refused
	a.in = depacketizer{}
	a.sink.Break(video.CauseDamaged, 0)
}

// piece takes a part of a NAL unit.
func (a *Assembler) piece(p piece) error {
	if p.first {
		if len(p.data) == 0 || p.data[0]&0x80 != 0 || len(a.nals) >= maxUnitNALs {
			return errDamaged
		}
		if kind := p.data[0] & 0x1f; !a.headers && isPicture(kind) {
			if !a.picture(kind == typeIDR) {
				a.state = refused
			}
		}
		a.nals = append(a.nals, 0)
	}
	if a.state == refused {
		return nil
	}
	a.size += len(p.data)
	if a.size > MaxUnitBytes {
		return errDamaged
	}
	a.nals[len(a.nals)-1] += uint32(len(p.data))
	a.inNAL = !p.last
	if a.headers {
		a.sink.Data(p.data)
		return nil
	}
	if len(a.prefix)+len(p.data) > maxPrefixBytes {
		return errDamaged
	}
	a.prefix = append(a.prefix, p.data...)
	return nil
}

func isPicture(kind byte) bool { return kind >= typeSlice && kind <= typeIDR }

// picture is called at the first slice: now the unit's kind is known, and it
// is offered to the sink. The bytes before the slice go first.
func (a *Assembler) picture(key bool) bool {
	a.takeSets()
	if key && len(a.spsIDs) > 0 {
		a.sets.keep(a.spsIDs)
	}
	a.unit.Keyframe, a.unit.Parameters = key, a.sets.current
	if !a.sink.Begin(a.unit) {
		return false
	}
	a.headers = true
	if len(a.prefix) > 0 {
		a.sink.Data(a.prefix)
	}
	return true
}

// takeSets reads the parameter sets of the prefix. One that does not parse is
// counted and left in the stream: the decoder may know better.
func (a *Assembler) takeSets() {
	rest := a.prefix
	for _, size := range a.nals {
		nal := rest[:size]
		rest = rest[size:]
		kind := nal[0] & 0x1f
		if kind != typeSPS && kind != typePPS {
			continue
		}
		if err := a.sets.add(nal); err != nil {
			a.stats.Damaged++
			continue
		}
		if kind == typeSPS {
			if s, err := parseSPS(nal); err == nil {
				a.spsIDs = append(a.spsIDs, s.id)
			}
		}
	}
}
