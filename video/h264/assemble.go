package h264

import (
	"time"

	"github.com/weir-edge/weir/video"
)

// Limits of one access unit.
const (
	MaxUnitBytes   = 8 << 20  // 2160p at 50 Mbit/s has less
	maxUnitNALs    = 1024     // 8160 macroblock rows of slices are not sent by anyone
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

// Stats count what Assembler could not use.
type Stats struct {
	Damaged int64 // packets, or units, that make no sense
}

// Assembler makes access units of packets in order. Not safe for concurrent
// use.
type Assembler struct {
	sink  Sink
	in    depacketizer
	sets  parameterSets
	stats Stats

	state   state
	unit    video.AccessUnit
	prefix  []byte   // NAL units before the first slice
	nals    []uint32 // lengths of the unit's NAL units; the last grows while one is open
	inNAL   bool     // a NAL unit has begun and not ended
	spsIDs  []uint32 // of the SPS in the prefix
	size    int
	whole   bool // the marker said so
	headers bool // the first slice has come
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
func NewAssembler(sink Sink, parameters *video.Parameters) (*Assembler, error) {
	a := &Assembler{sink: sink}
	if parameters != nil {
		for _, list := range [][][]byte{parameters.SPS, parameters.PPS} {
			for _, nal := range list {
				if err := a.sets.add(nal); err != nil {
					return nil, err
				}
			}
		}
	}
	return a, nil
}

// Stats returns the counters.
func (a *Assembler) Stats() Stats { return a.stats }

// Packet takes the next packet.
func (a *Assembler) Packet(p Packet) {
	if a.state != idle && p.Timestamp != a.unit.PTS {
		a.finish()
	}
	if len(p.Payload) == 0 {
		return
	}
	if a.state == idle {
		a.start(p)
	}
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

func (a *Assembler) start(p Packet) {
	a.state = taking
	a.unit = video.AccessUnit{PTS: p.Timestamp, Arrival: p.Arrival, Sender: p.Sender}
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
