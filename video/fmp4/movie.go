package fmp4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"github.com/weir-edge/weir/video"
)

// maxMovieTable bounds the memory of a Movie: encoded tables, about five bytes
// a frame, so a day of 30 frames a second fits.
const maxMovieTable = 32 << 20

// ErrTooLong: the clip has more frames than a Movie holds.
var ErrTooLong = errors.New("too long; cut it in several clips")

// Movie lays stored fragments out as one MP4. Add the fragments in order, then
// WriteHeader, then the bytes of each fragment's samples (CopySamples). It
// holds only sample tables.
type Movie struct {
	segments     []segment
	descriptions []video.Parameters
	references   []string
	held         int
	bytes        int64 // of mdat's content
	delay        int64 // added to presentation times, so that none is before its decoding time
	editStart    int64
	editEnd      int64
}

// segment is a fragment in the movie: one chunk.
type segment struct {
	stored      *Stored
	shift       int64 // movie time minus media time
	count       int   // samples used, from the first on
	description int
	start       int64 // its first decoding time in the movie
	end         int64 // movie time
	bytes       int64
}

// Add appends the first count samples of s. at is the movie time of its first
// frame; it is moved up if that is before the end of what is there. It returns
// where the fragment's first frame is.
func (m *Movie) Add(s *Stored, at int64, count int) (int64, error) {
	if count <= 0 || count > s.count {
		return 0, fmt.Errorf("add fragment to movie: %d samples of %d", count, s.count)
	}
	if m.held += len(s.samples); m.held > maxMovieTable {
		return 0, fmt.Errorf("add fragment to movie: %w", ErrTooLong)
	}
	if n := len(m.segments); n > 0 {
		at = max(at, m.segments[n-1].end)
	}
	g := segment{stored: s, count: count, shift: at - s.Fragment.MediaStart, start: math.MaxInt64}
	last := int64(math.MinInt64)
	for sample, decoded := range g.samples() {
		g.bytes += sample.size()
		g.start, last = min(g.start, sample.PTS+g.shift), max(last, sample.PTS+g.shift)
		m.delay = max(m.delay, decoded-sample.PTS)
	}
	g.end = s.Fragment.MediaEnd + g.shift
	if count < s.count { // the frame after the last one that is used
		g.end = min(g.end, m.after(s, last-g.shift)+g.shift)
	}
	reference := s.Parameters.Reference()
	if g.description = slices.Index(m.references, reference); g.description < 0 {
		g.description = len(m.references)
		m.references = append(m.references, reference)
		m.descriptions = append(m.descriptions, s.Parameters)
	}
	m.bytes += g.bytes
	m.segments = append(m.segments, g)
	m.editStart, m.editEnd = m.segments[0].start, g.end
	return at, nil
}

// after is the first presentation time behind pts, or the fragment's end.
func (m *Movie) after(s *Stored, pts int64) int64 {
	next := s.Fragment.MediaEnd
	for sample := range s.Samples() {
		if sample.PTS > pts {
			next = min(next, sample.PTS)
		}
	}
	return next
}

// Edit shows only [start, end) of the movie, in movie time.
func (m *Movie) Edit(start, end int64) {
	m.editStart, m.editEnd = max(start, m.segments[0].start), min(end, m.segments[len(m.segments)-1].end)
}

// samples yields the samples that are used, each with its decoding time: the
// i-th has the i-th smallest of their presentation times.
func (g *segment) samples() iter.Seq2[Sample, int64] {
	return func(yield func(Sample, int64) bool) {
		times := make([]int64, 0, g.count)
		for sample := range g.stored.Samples() {
			if len(times) == g.count {
				break
			}
			times = append(times, sample.PTS)
		}
		slices.Sort(times)
		i := 0
		for sample := range g.stored.Samples() {
			if i == g.count || !yield(sample, times[i]) {
				return
			}
			i++
		}
	}
}

// placed is a sample in the movie.
type placed struct {
	size   int64
	delta  int64 // to the next one's decoding time
	offset int64 // presentation minus decoding time
	key    bool
}

// each calls do for every sample, in decoding order.
func (m *Movie) each(do func(placed)) {
	for i := range m.segments {
		g := &m.segments[i]
		end := g.end
		if i+1 < len(m.segments) {
			end = m.segments[i+1].start
		}
		var last placed
		var lastTime int64
		n := 0
		for sample, decoded := range g.samples() {
			if n++; n > 1 {
				last.delta = min(decoded-lastTime, math.MaxInt32)
				do(last)
			}
			last = placed{size: sample.size(), key: sample.Key, offset: sample.PTS - decoded + m.delay}
			lastTime = decoded
		}
		last.delta = min(max(end-g.shift-lastTime, 0), math.MaxInt32)
		do(last)
	}
}

// runs feeds values and calls emit for each run of equal ones.
type runs struct {
	value int64
	count uint32
	emit  func(count uint32, value int64)
}

func (r *runs) add(value int64) {
	if r.count > 0 && value != r.value {
		r.flush()
	}
	r.value = value
	r.count++
}

func (r *runs) flush() {
	if r.count > 0 {
		r.emit(r.count, r.value)
	}
	r.count = 0
}

// tables is what one walk through the samples tells of the tables' sizes.
type tables struct {
	samples, sync uint32
	stts, ctts    uint32
	stsc          []chunkRun
}

type chunkRun struct{ first, samples, description uint32 }

func (m *Movie) measure() tables {
	var t tables
	stts := runs{emit: func(uint32, int64) { t.stts++ }}
	ctts := runs{emit: func(uint32, int64) { t.ctts++ }}
	m.each(func(p placed) {
		t.samples++
		if p.key {
			t.sync++
		}
		stts.add(p.delta)
		ctts.add(p.offset)
	})
	stts.flush()
	ctts.flush()
	for i, g := range m.segments {
		run := chunkRun{uint32(i + 1), uint32(g.count), uint32(g.description + 1)}
		if n := len(t.stsc); n == 0 || t.stsc[n-1].samples != run.samples || t.stsc[n-1].description != run.description {
			t.stsc = append(t.stsc, run)
		}
	}
	return t
}

// WriteHeader writes everything up to the first byte of the first sample.
func (m *Movie) WriteHeader(w io.Writer) error {
	if len(m.segments) == 0 {
		return errors.New("write movie: it has no fragment")
	}
	first, last := m.segments[0].start, m.segments[len(m.segments)-1].end
	t := m.measure()
	wideOffsets := m.bytes > math.MaxUint32-(64<<20)
	tableBytes := int64(16+8*int64(t.stts)) + 16 + 12*int64(len(t.stsc)) + 20 + 4*int64(t.samples)
	if t.sync < t.samples {
		tableBytes += 16 + 4*int64(t.sync)
	}
	if m.delay > 0 {
		tableBytes += 16 + 8*int64(t.ctts)
	}
	offsetBytes := int64(4)
	if wideOffsets {
		offsetBytes = 8
	}
	tableBytes += 16 + offsetBytes*int64(len(m.segments))

	// Each of these boxes ends where the tables end.
	p := &m.descriptions[0]
	shown := m.editEnd - m.editStart
	inner := stsd(m.descriptions)
	size := tableBytes
	for _, level := range []struct {
		name string
		head []byte
	}{
		{"stbl", nil},
		{"minf", append(vmhd(), dinf()...)},
		{"mdia", append(mdhd(last-first), hdlr()...)},
		{"trak", append(tkhd(shown, p.Width, p.Height), edts(m.editStart-first+m.delay, shown)...)},
		{"moov", mvhd(shown)},
	} {
		head := append(header(nil, level.name, int64(8+len(level.head)+len(inner))+size), level.head...)
		inner = append(head, inner...)
	}
	head := append(ftyp(), inner...)
	mdat := header(nil, "mdat", 8+m.bytes)
	if m.bytes+8 > math.MaxUint32 {
		mdat = append(header(nil, "mdat", 1), wide(16+m.bytes)...)
	}
	out := &tableWriter{w: w}
	out.write(head)
	m.writeTables(out, t)
	m.writeOffsets(out, int64(len(head))+tableBytes+int64(len(mdat)), wideOffsets)
	out.write(mdat)
	out.flush()
	if out.err != nil {
		return fmt.Errorf("write movie header: %w", out.err)
	}
	return nil
}

func (m *Movie) writeTables(out *tableWriter, t tables) {
	pair := func(count uint32, value int64) { out.fields(count, uint32(value)) }
	out.table("stts", 16+8*int64(t.stts), 0, t.stts)
	stts := runs{emit: pair}
	m.each(func(p placed) { stts.add(p.delta) })
	stts.flush()
	if t.sync < t.samples {
		out.table("stss", 16+4*int64(t.sync), 0, t.sync)
		number := uint32(0)
		m.each(func(p placed) {
			if number++; p.key {
				out.fields(number)
			}
		})
	}
	if m.delay > 0 {
		out.table("ctts", 16+8*int64(t.ctts), 0, t.ctts)
		ctts := runs{emit: pair}
		m.each(func(p placed) { ctts.add(p.offset) })
		ctts.flush()
	}
	out.table("stsc", 16+12*int64(len(t.stsc)), 0, uint32(len(t.stsc)))
	for _, run := range t.stsc {
		out.fields(run.first, run.samples, run.description)
	}
	out.table("stsz", 20+4*int64(t.samples), 0, 0)
	out.fields(t.samples)
	m.each(func(p placed) { out.fields(uint32(p.size)) })
}

func (m *Movie) writeOffsets(out *tableWriter, offset int64, wideOffsets bool) {
	count := uint32(len(m.segments))
	if wideOffsets {
		out.table("co64", 16+8*int64(count), 0, count)
	} else {
		out.table("stco", 16+4*int64(count), 0, count)
	}
	for i := range m.segments {
		if wideOffsets {
			out.write(wide(offset))
		} else {
			out.fields(uint32(offset))
		}
		offset += m.segments[i].bytes
	}
}

// tableWriter gathers small writes and keeps the first error.
type tableWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (t *tableWriter) write(b []byte) {
	if t.buf = append(t.buf, b...); len(t.buf) >= 32<<10 {
		t.flush()
	}
}

func (t *tableWriter) fields(values ...uint32) {
	for _, v := range values {
		t.buf = binary.BigEndian.AppendUint32(t.buf, v)
	}
	if len(t.buf) >= 32<<10 {
		t.flush()
	}
}

// table begins a full box with a count.
func (t *tableWriter) table(name string, size int64, versionFlags, count uint32) {
	t.write(header(nil, name, size))
	t.fields(versionFlags, count)
}

func (t *tableWriter) flush() {
	if t.err == nil && len(t.buf) > 0 {
		_, t.err = t.w.Write(t.buf)
	}
	t.buf = t.buf[:0]
}

// CopySamples writes the bytes of the i-th fragment's samples to w, with their
// length prefixes; r gives the bytes of its pieces.
func (m *Movie) CopySamples(w io.Writer, i int, r io.Reader) error {
	g := &m.segments[i]
	var prefix [prefixBytes]byte
	for sample := range g.samples() {
		for _, size := range sample.NALs {
			binary.BigEndian.PutUint32(prefix[:], size)
			if _, err := w.Write(prefix[:]); err != nil {
				return fmt.Errorf("write sample: %w", err)
			}
			if _, err := io.CopyN(w, r, int64(size)); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("copy sample: %w", err)
			}
		}
	}
	return nil
}
