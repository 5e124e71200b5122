package buffer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer/disk"
)

// The meta chain: what the log knows besides records, as JSON lines in frames
// (FORMAT.md). The first unit of each of its segments is a snapshot.

const (
	metaDir         = "meta"
	metaSegmentSize = 2 << 20
	metaFrameBytes  = 1 << 20
	maxGapsKept     = 10_000
)

// metaEntry is one line; exactly one field is set.
type metaEntry struct {
	Snapshot bool            `json:"snapshot,omitempty"`
	Stream   *metaStream     `json:"stream,omitempty"`
	Chain    *metaChain      `json:"chain,omitempty"`
	Trim     *metaTrim       `json:"trim,omitempty"`
	Gap      *Gap            `json:"gap,omitempty"`
	Consumer *consumerRecord `json:"consumer,omitempty"`
	Forget   string          `json:"forget_consumer,omitempty"`
}

// metaStream is a stream and its policy.
type metaStream struct {
	Number  uint32       `json:"number"`
	Name    string       `json:"name"`
	Created time.Time    `json:"created"`
	Config  StreamConfig `json:"config"`
}

// metaChain names a chain and says which of its segments are gone for good.
type metaChain struct {
	Number  uint32 `json:"number"`
	Name    string `json:"name"`
	Dropped uint64 `json:"dropped_through,omitempty"`
}

// metaTrim says what is gone from a shard, so that its numbering goes on even
// when nothing of it is left.
type metaTrim struct {
	Stream uint32   `json:"stream"`
	Shard  ShardID  `json:"shard"`
	Next   Sequence `json:"through_before"` // records before this one are gone
	Bytes  int64    `json:"bytes"`          // stored bytes ever, up to there
	Latest int64    `json:"latest_ms"`
}

// metaWriter appends to the meta chain. Log.metaMu is held.
type metaWriter struct {
	files  disk.FS
	writer *segmentWriter
	last   uint64 // greatest segment number used
}

// metaAppend makes entries durable in one unit and then runs apply, which
// takes them into memory. Both happen under metaMu, so that a snapshot made by
// another call cannot fall between and miss them.
func (l *Log) metaAppend(apply func(), entries ...metaEntry) error {
	l.metaMu.Lock()
	defer l.metaMu.Unlock()
	if err := l.metaWrite(entries); err != nil {
		return err
	}
	if apply != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		apply()
	}
	return nil
}

func (l *Log) metaWrite(entries []metaEntry) error {
	if l.meta.writer != nil {
		unit, err := l.metaUnit(l.meta.writer, entries)
		if err != nil {
			return err
		}
		if l.meta.writer.fits(len(unit)) {
			err := l.meta.writer.write(unit)
			if err == nil {
				l.counters.wrote(len(unit))
				return nil
			}
			// The segment is not to be trusted any more; go on in a new one.
			l.counters.writeErrors.Add(1)
			l.log.Error("the meta chain failed; going on in a new segment", "segment", l.meta.writer.id.number, "error", err)
		}
	}
	return l.metaRoll(entries)
}

// metaRoll begins a new segment with a snapshot of everything and the entries
// behind it, then removes the older segments.
func (l *Log) metaRoll(entries []metaEntry) error {
	m := &l.meta
	id := segmentID{0, m.last + 1}
	snapshot := append(l.snapshot(), entries...)
	name := path.Join(metaDir, segmentName(id.number))
	size := int64(metaSegmentSize)
	_, now := l.clock.now()
	probe := &segmentWriter{id: id, end: segmentHeaderSize}
	unit, err := l.metaUnit(probe, snapshot)
	if err != nil {
		return err
	}
	size = max(size, 2*int64(len(unit))+segmentHeaderSize)
	m.last++
	file, err := m.files.OpenFile(name, disk.Create)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	w, err := l.startMeta(file, id, size, now.wall, unit)
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), file.Close(), m.files.Remove(name))
	}
	w.prev = probe.prev
	old := m.writer
	m.writer = w
	if old != nil {
		if err := old.file.Close(); err != nil {
			l.log.Warn("closing an old segment of the meta chain", "error", err)
		}
	}
	l.removeOldMeta(id.number)
	return nil
}

func (l *Log) startMeta(file disk.File, id segmentID, size int64, now time.Time, unit []byte) (*segmentWriter, error) {
	if err := file.Allocate(size); err != nil {
		return nil, err
	}
	w, err := startSegment(file, id, size, now)
	if err != nil {
		return nil, err
	}
	if err := w.write(unit); err != nil {
		return nil, err
	}
	l.counters.wrote(len(unit))
	// The name has to be durable before the older segments go.
	return w, l.meta.files.SyncDir(metaDir)
}

func (l *Log) removeOldMeta(current uint64) {
	segments, _, err := listSegments(l.files, metaDir)
	if err != nil {
		l.log.Warn("old segments of the meta chain stay", "error", err)
		return
	}
	for number := range segments {
		if number >= current {
			continue
		}
		if err := l.files.Remove(path.Join(metaDir, segmentName(number))); err != nil {
			l.log.Warn("an old segment of the meta chain stays", "segment", number, "error", err)
		}
	}
}

// metaUnit encodes entries as one unit that goes to w's end, and moves w.prev.
func (l *Log) metaUnit(w *segmentWriter, entries []metaEntry) ([]byte, error) {
	var bodies [][]byte
	var body bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode an entry of the catalogue: %w", err)
		}
		if body.Len() > 0 && body.Len()+len(line) > metaFrameBytes {
			bodies = append(bodies, bytes.Clone(body.Bytes()))
			body.Reset()
		}
		body.Write(line)
		body.WriteByte('\n')
	}
	bodies = append(bodies, body.Bytes())
	age, now := l.clock.now()
	var unit []byte
	prev := w.prev
	for i, b := range bodies {
		h := frameHeader{
			kind: frameMeta, stored: uint32(len(b)), raw: uint32(len(b)), segment: w.id.number,
			synced: uint32(w.synced), prev: prev, bodyCRC: checksum(b),
		}
		h.stamp(age, now)
		if i == len(bodies)-1 {
			h.flags |= flagUnitEnd
		}
		start := len(unit)
		unit = append(unit, make([]byte, frameHeaderSize)...)
		prev = h.put(unit[start:])
		unit = append(unit, b...)
	}
	w.prev = prev
	return unit, nil
}

// stamp puts every clock into the header.
func (h *frameHeader) stamp(age time.Duration, now instant) {
	h.wall, h.monotonic, h.age, h.boot = now.wall.UnixNano(), int64(now.monotonic), int64(age), now.boot
	if now.synced {
		h.flags |= flagClockSynced
	}
}

// snapshot is everything the meta chain has to say at this moment.
func (l *Log) snapshot() []metaEntry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := []metaEntry{{Snapshot: true}}
	for _, s := range l.streams {
		list = append(list, metaEntry{Stream: s.meta()})
	}
	for _, c := range l.chains {
		list = append(list, metaEntry{Chain: &metaChain{Number: c.number, Name: c.name, Dropped: c.dropped}})
	}
	for _, s := range l.shards {
		if s.first > 1 {
			list = append(list, metaEntry{Trim: l.trimOf(s)})
		}
	}
	for i := range l.gaps {
		list = append(list, metaEntry{Gap: &l.gaps[i]})
	}
	for _, c := range l.consumers {
		list = append(list, metaEntry{Consumer: c.record()})
	}
	return list
}

func (l *Log) trimOf(s *shardState) *metaTrim {
	return &metaTrim{Stream: s.number.stream, Shard: s.number.shard, Next: s.first, Bytes: s.trimmed, Latest: s.trimmedLatest}
}

// recoverMeta reads the newest segment of the meta chain that begins with a
// whole snapshot.
func (l *Log) recoverMeta() error {
	segments, others, err := listSegments(l.files, metaDir)
	if err != nil {
		return err
	}
	for _, name := range others {
		l.log.Warn("a file in the log's directory is not ours; left alone", "file", name)
	}
	numbers := make([]uint64, 0, len(segments))
	for n := range segments {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i := len(numbers) - 1; i >= 0; i-- {
		l.meta.last = max(l.meta.last, numbers[i])
		ok, err := l.readMeta(numbers[i])
		if err != nil {
			return err
		}
		if ok {
			l.removeOldMeta(numbers[i])
			return nil
		}
	}
	return nil
}

// readMeta applies one segment of the meta chain. It returns false, having
// changed nothing, when the segment does not begin with a whole snapshot.
func (l *Log) readMeta(number uint64) (bool, error) {
	name := path.Join(metaDir, segmentName(number))
	file, err := l.files.OpenFile(name, disk.ReadWrite)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", name, err)
	}
	var entries []metaEntry
	s := &scanner{
		file: file, id: segmentID{0, number}, path: name,
		bodies: func(h *frameHeader) bool { return h.kind == frameMeta },
		deliver: func(h frameHeader, _ uint32, offset int64, body []byte) error {
			for line := range bytes.Lines(body) {
				var e metaEntry
				if err := json.Unmarshal(line, &e); err != nil {
					return &CorruptError{Segment: name, Offset: offset, Reason: "catalogue entry: " + err.Error()}
				}
				entries = append(entries, e)
			}
			return nil
		},
	}
	end, err := s.scan(scanStart{})
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && len(entries) == 0 {
		l.log.Warn("a segment of the meta chain is passed over", "error", err)
		l.distrust = true
		return false, file.Close()
	}
	if err != nil && !errors.As(err, &corrupt) {
		return false, errors.Join(err, file.Close())
	}
	if len(entries) == 0 || !entries[0].Snapshot {
		return false, file.Close()
	}
	for _, e := range entries {
		l.applyMeta(e)
	}
	for _, d := range append(end.damaged, corrupt) {
		if d != nil {
			l.log.Error("the meta chain is damaged; what is sound was read", "error", d)
			l.counters.corrupt.Add(1)
			l.distrust = true
		}
	}
	if end.any {
		l.noteStamp(&end.last)
	}
	if len(end.damaged) > 0 || corrupt != nil {
		return true, file.Close() // the next append begins a new segment
	}
	if err := neutralise(file, end); err != nil {
		return false, errors.Join(err, file.Close())
	}
	l.meta.writer = &segmentWriter{file: file, id: s.id, size: s.size, end: end.end, synced: end.end, prev: end.prev}
	return true, nil
}

// applyMeta takes one entry into memory. Only Open calls it.
func (l *Log) applyMeta(e metaEntry) {
	switch {
	case e.Stream != nil:
		l.addStream(e.Stream)
	case e.Chain != nil:
		c := l.addChain(e.Chain.Name, e.Chain.Number)
		c.dropped = max(c.dropped, e.Chain.Dropped)
	case e.Trim != nil:
		s := l.shardFor(shardNumber{e.Trim.Stream, e.Trim.Shard})
		if e.Trim.Next > s.first {
			s.first, s.trimmed, s.trimmedLatest = e.Trim.Next, e.Trim.Bytes, e.Trim.Latest
		}
		if s.first > s.next {
			s.next, s.bytes, s.latest = s.first, s.trimmed, s.trimmedLatest
		}
	case e.Gap != nil:
		l.keepGap(*e.Gap)
	case e.Consumer != nil:
		l.applyConsumer(e.Consumer)
	case e.Forget != "":
		delete(l.consumers, e.Forget)
	}
}

// keepGap remembers a gap: one that goes on where another of its kind ended
// becomes part of it, and beyond maxGapsKept the oldest give way. It returns
// false if the gap was known. Log.mu is held, or Open runs.
func (l *Log) keepGap(g Gap) bool {
	for i := len(l.gaps) - 1; i >= 0; i-- {
		o := &l.gaps[i]
		if o.Stream != g.Stream || o.Shard != g.Shard || o.Reason != g.Reason || !slices.Equal(o.Consumers, g.Consumers) {
			continue
		}
		if g.From >= o.From && g.To <= o.To {
			return false
		}
		if g.From >= o.From && g.From <= o.To+1 {
			o.To, o.Bytes, o.At = g.To, o.Bytes+g.Bytes, g.At
			return true
		}
	}
	l.gaps = append(l.gaps, g)
	if n := len(l.gaps) - maxGapsKept; n > 0 {
		l.gaps = append([]Gap(nil), l.gaps[n:]...)
	}
	return true
}
