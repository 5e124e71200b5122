package fragment

import (
	"time"

	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/fmp4"
)

// jumpLimit: media time and arrival time of two units in a row may differ by
// this much before it counts as a leap of the sender's timestamps.
const jumpLimit = 10 * time.Second

// Part is what Builder hands out: a piece, the end of a fragment, or both.
type Part struct {
	Serial  int64     // numbers fragments, also those that never close
	Key     bool      // the fragment starts at a keyframe
	Data    []byte    // at most PieceBytes; nil if there is none
	Arrival time.Time // of the fragment
	Closing *Closing  // with the last part of a fragment
}

// Closing describes a whole fragment.
type Closing struct {
	Fragment   video.Fragment
	Parameters *video.Parameters
	Table      *fmp4.Table
	Pieces     uint32
}

// Out takes parts. Put and Drop do not wait.
type Out interface {
	// Buffer returns memory for a piece, empty, with the capacity it likes; nil
	// if there is none even after a short, bounded wait.
	Buffer() []byte
	// Put takes over part and its data. False: there is no room for it, now or
	// later; the fragment is lost.
	Put(part Part) bool
	// Drop gives memory from Buffer back.
	Drop(memory []byte)
}

// Stats of a Builder, since it was made.
type Stats struct {
	Frames    int64 // taken
	Dropped   int64 // whole or in part, and not taken
	Keyframes int64 // of those taken
	Fragments int64 // closed
	Width     int
	Height    int
}

// Options of a Builder.
type Options struct {
	Camera     string
	PieceBytes int // at most; buffer.MaxPartBytes
}

// Builder makes fragments of one camera. Not safe for concurrent use.
type Builder struct {
	options Options
	out     Out
	stats   Stats
	clock   clock

	epoch    int64
	number   uint64
	keyStart time.Time   // of the last fragment that starts at a keyframe
	key      bool        // false: nothing is taken until a keyframe
	waiting  video.Cause // while not key: why
	gap      *video.Gap
	packets  func() (received, lost int64)
	received int64 // at the end of the last fragment
	lost     int64

	last     video.AccessUnit // the last one offered
	haveLast bool
	frame    int64 // mean duration in the last fragment, ticks

	current *open
	serial  int64
}

// open is the fragment under way.
type open struct {
	meta      video.Fragment
	params    *video.Parameters
	table     *fmp4.Table
	piece     []byte
	committed int // bytes of piece that belong to whole units
	pieces    uint32
	started   time.Time
	floor     time.Time // Start may not be before it
	unit      video.AccessUnit
	bytes     int64
	min, max  int64
	reordered bool // frames are shown in another order than they come
}

// NewBuilder returns a Builder that gives its parts to out. packets, if not
// nil, tells how many packets were received and lost so far.
func NewBuilder(options Options, out Out, packets func() (received, lost int64)) *Builder {
	if packets == nil {
		packets = func() (int64, int64) { return 0, 0 }
	}
	return &Builder{options: options, out: out, packets: packets, waiting: video.CauseStart,
		gap: &video.Gap{Cause: video.CauseStart}}
}

// Stats returns the counters.
func (b *Builder) Stats() Stats { return b.stats }

// Waiting says that nothing is taken until a keyframe comes, and why.
func (b *Builder) Waiting() (video.Cause, bool) {
	return b.waiting, !b.key
}

// Begin implements h264.Sink.
func (b *Builder) Begin(u video.AccessUnit) bool {
	if b.haveLast {
		media, arrival := video.Ticks(u.PTS-b.last.PTS), u.Arrival.Sub(b.last.Arrival)
		if off := media - arrival; off > jumpLimit || off < -jumpLimit {
			b.Break(video.CauseTimestampJump, 0)
		}
	}
	b.last, b.haveLast = u, true
	if !u.Keyframe && !b.key {
		b.drop()
		return false
	}
	if u.Parameters == nil {
		b.Break(video.CauseNoParameters, 0)
		b.drop()
		return false
	}
	if f := b.current; f != nil && (u.Keyframe || f.full() && u.PTS > f.max) {
		b.close(u.PTS, u.Keyframe || !f.reordered)
	}
	if b.current == nil && !b.start(u) {
		b.drop()
		return false
	}
	b.current.unit = u
	return true
}

// full says that the fragment has to be cut.
func (f *open) full() bool {
	return f.bytes >= video.MaxFragmentBytes || f.table.Size() >= video.MaxTableBytes ||
		video.Ticks(f.max-f.min) >= video.MaxFragmentDuration
}

func (b *Builder) drop() {
	b.stats.Dropped++
	if b.gap != nil {
		b.gap.Frames++
	}
}

// start opens a fragment with u.
func (b *Builder) start(u video.AccessUnit) bool {
	memory := b.out.Buffer()
	if memory == nil {
		b.Break(video.CauseBackpressure, 0)
		return false
	}
	observed, source := observe(u)
	floor := b.clock.wall
	wall, step := b.clock.start(u.PTS, observed, u.Keyframe)
	wall = wall.Truncate(time.Microsecond)
	if step {
		floor = time.Time{}
	}
	if step && b.epoch != 0 {
		b.epoch = 0
		if b.gap == nil {
			b.gap = &video.Gap{Cause: video.CauseClockStep, From: b.clock.wall}
		}
	}
	if b.epoch == 0 {
		b.epoch, b.number = wall.UnixMilli(), 0
	}
	if u.Keyframe {
		b.keyStart = wall
	}
	b.key = true
	b.serial++
	b.current = &open{
		meta: video.Fragment{
			Version: 1, Camera: b.options.Camera, Epoch: b.epoch, Number: b.number, Key: u.Keyframe,
			MediaStart: u.PTS, Start: wall, Clock: source, Codec: u.Parameters.Codec,
			Parameters: u.Parameters.Reference(), Width: u.Parameters.Width, Height: u.Parameters.Height,
		},
		params: u.Parameters, table: fmp4.NewTable(u.PTS), piece: memory[:0], started: u.Arrival, floor: floor, min: u.PTS, max: u.PTS,
	}
	if !u.Keyframe {
		b.current.meta.KeyStart = b.keyStart
	}
	b.stats.Width, b.stats.Height = u.Parameters.Width, u.Parameters.Height
	if b.gap != nil {
		b.gap.To = wall
		b.current.meta.AddGap(*b.gap)
		b.gap = nil
	}
	return true
}

// Data implements h264.Sink. It cuts the bytes into pieces.
func (b *Builder) Data(p []byte) {
	for len(p) > 0 && b.current != nil {
		f := b.current
		room := b.options.PieceBytes - len(f.piece)
		if room == 0 {
			if !b.ship() {
				return
			}
			continue
		}
		n := min(room, len(p))
		f.piece = append(f.piece, p[:n]...)
		p = p[n:]
	}
}

// ship hands out a full piece and takes memory for the next.
func (b *Builder) ship() bool {
	f := b.current
	if b.out.Put(Part{Serial: b.serial, Key: f.meta.Key, Data: f.piece, Arrival: f.started}) {
		f.pieces++
		f.committed = 0
		if f.piece = b.out.Buffer(); f.piece != nil {
			return true
		}
	}
	// The log is slower than the camera: the whole fragment goes.
	b.stats.Dropped += int64(f.table.Len()) + 1
	b.stats.Frames -= int64(f.table.Len())
	frames := int64(f.table.Len()) + 1
	b.current, b.key = nil, false
	b.note(video.CauseBackpressure, f.meta.Start)
	b.gap.Frames += frames
	for _, g := range f.meta.Gaps { // told by nobody now
		b.gap.Packets += g.Packets
		b.gap.Frames += g.Frames
	}
	return false
}

// End implements h264.Sink.
func (b *Builder) End(nals []uint32) {
	f := b.current
	if f == nil {
		return // the fragment was lost while the unit came
	}
	f.bytes += f.table.Add(fmp4.Sample{PTS: f.unit.PTS, Key: f.unit.Keyframe, NALs: nals})
	f.reordered = f.reordered || f.unit.PTS < f.max
	f.min, f.max = min(f.min, f.unit.PTS), max(f.max, f.unit.PTS)
	f.committed = len(f.piece)
	b.stats.Frames++
	if f.unit.Keyframe {
		b.stats.Keyframes++
	}
}

// Abort implements h264.Sink. Break or Close follows.
func (b *Builder) Abort() {
	if b.current != nil {
		b.stats.Dropped++
	}
	b.rewind()
}

// rewind takes back the bytes of a unit that was not completed, as far as they
// have not been handed out; those are behind the table's end.
func (b *Builder) rewind() {
	if f := b.current; f != nil {
		f.piece = f.piece[:f.committed]
	}
}

// Break implements h264.Sink: the fragment ends at its last whole unit, and
// nothing is taken until the next keyframe.
func (b *Builder) Break(cause video.Cause, packets int64) {
	b.rewind()
	end := b.estimateEnd()
	b.close(end, false)
	b.key = false
	b.note(cause, b.clock.wall)
	b.gap.Packets += packets
	if cause == video.CauseRestart || cause == video.CauseTimestampJump {
		b.epoch, b.clock, b.haveLast = 0, clock{}, false
	}
}

// note begins a gap, or makes the one under way longer.
func (b *Builder) note(cause video.Cause, from time.Time) {
	b.waiting = cause
	if b.gap != nil && b.gap.Cause == video.CauseStart && cause == video.CauseNoParameters {
		b.gap.Cause = cause
	}
	if b.gap == nil {
		b.gap = &video.Gap{Cause: cause, From: from}
	}
}

// Close ends the fragment at its last whole unit because nothing comes at the
// moment. What comes next goes on in a continuation.
func (b *Builder) Close() {
	b.rewind()
	b.close(b.estimateEnd(), false)
}

// estimateEnd is where the fragment ends if nothing tells: its last frame
// lasts as long as the others did.
func (b *Builder) estimateEnd() int64 {
	f := b.current
	if f == nil {
		return 0
	}
	return f.max + f.mean(b.frame)
}

// mean is the mean duration of the fragment's frames; before when there are
// too few, and a 30th of a second when nothing is known.
func (f *open) mean(before int64) int64 {
	if n := int64(f.table.Len()); n > 1 {
		return max((f.max-f.min)/(n-1), 1)
	}
	if before > 0 {
		return before
	}
	return video.ClockRate / 30
}

// close hands out the fragment under way. next is the media time of what
// follows; exact says that it is the very next frame to be shown.
func (b *Builder) close(next int64, exact bool) {
	f := b.current
	if f == nil {
		return
	}
	b.current = nil
	if f.table.Len() == 0 {
		b.out.Drop(f.piece)
		b.reopenGap(f)
		return
	}
	b.frame = f.mean(b.frame)
	end := f.max + b.frame
	if exact && next > f.max {
		end = next
	}
	received, lost := b.packets()
	m := &f.meta
	m.Start = m.Start.Add(-video.Ticks(m.MediaStart - f.min)).Truncate(time.Microsecond)
	if m.Start.Before(f.floor) {
		m.Start = f.floor
	}
	m.MediaStart, m.MediaEnd = f.min, end
	m.End = b.clock.end(m.Start, m.MediaStart, m.MediaEnd)
	m.Frames, m.Bytes = f.table.Len(), f.bytes
	m.Packets, m.Lost = received-b.received, lost-b.lost
	b.received, b.lost = received, lost
	b.number++
	b.stats.Fragments++
	part := Part{Serial: b.serial, Key: m.Key, Arrival: f.started, Data: f.piece}
	if len(f.piece) > 0 {
		f.pieces++
	}
	part.Closing = &Closing{Fragment: *m, Parameters: f.params, Table: f.table, Pieces: f.pieces}
	if !b.out.Put(part) {
		b.key = false
		b.stats.Dropped += int64(m.Frames)
		b.stats.Frames -= int64(m.Frames)
		b.note(video.CauseBackpressure, m.Start)
		b.gap.Frames += int64(m.Frames)
	}
}

// reopenGap keeps the gap of a fragment that came to nothing.
func (b *Builder) reopenGap(f *open) {
	if len(f.meta.Gaps) > 0 && b.gap == nil {
		gap := f.meta.Gaps[0]
		gap.To = time.Time{}
		b.gap = &gap
	}
	if f.meta.Key {
		b.key = false
		b.note(video.CauseDamaged, b.clock.wall)
	}
}
