package buffer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer/disk"
)

// chainMark says how far a chain is indexed. The checkpoint in Badger holds
// one for each chain.
type chainMark struct {
	Segment uint64          `json:"segment"`
	Offset  int64           `json:"offset"`
	Prev    uint32          `json:"prev"`
	Summary *segmentSummary `json:"summary"` // of that segment up to there
}

// segmentSummary is what is in a segment.
type segmentSummary struct {
	End    int64          `json:"end"`
	Oldest time.Duration  `json:"oldest"`
	Newest time.Duration  `json:"newest"`
	Shares []summaryShare `json:"shares"`
}

type summaryShare struct {
	Stream uint32  `json:"stream"`
	Shard  ShardID `json:"shard"`
	segmentShare
}

func summaryOf(g *segment) *segmentSummary {
	s := &segmentSummary{End: g.end, Oldest: g.oldest, Newest: g.newest}
	for n, share := range g.shards {
		s.Shares = append(s.Shares, summaryShare{n.stream, n.shard, *share})
	}
	slices.SortFunc(s.Shares, func(a, b summaryShare) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Shard, b.Shard))
	})
	return s
}

func (s *segmentSummary) fill(g *segment) {
	g.end, g.oldest, g.newest = s.End, s.Oldest, s.Newest
	g.shards = make(map[shardNumber]*segmentShare)
	for _, share := range s.Shares {
		copied := share.segmentShare
		g.shards[shardNumber{share.Stream, share.Shard}] = &copied
	}
}

func encodeSummary(g *segment) []byte {
	b, err := json.Marshal(summaryOf(g))
	if err != nil {
		return nil // numbers and strings always encode; an empty value is scanned anew at open
	}
	return b
}

// checkpointLocked is the text of the checkpoint at this moment.
func (l *Log) checkpointLocked() string {
	marks := make(map[string]chainMark, len(l.chains))
	for name, c := range l.chains {
		if n := len(c.segments); n > 0 {
			g := c.segments[n-1]
			marks[name] = chainMark{Segment: g.id.number, Offset: g.end, Prev: g.prev, Summary: summaryOf(g)}
		}
	}
	b, err := json.Marshal(marks)
	if err != nil {
		return "" // as in encodeSummary
	}
	return string(b)
}

func (l *Log) loadCheckpoint() (map[string]chainMark, error) {
	key := []byte{keyCheckpoint}
	sealed, ok, err := l.kv.Get(key)
	if err != nil || !ok {
		return nil, err
	}
	value, err := openValue(key, sealed)
	if err != nil {
		return nil, err
	}
	var marks map[string]chainMark
	if err := json.Unmarshal(value, &marks); err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", errIndexDamaged, err)
	}
	l.lastMark = string(value)
	return marks, nil
}

// recoverChains brings every chain and the index to where the last durable
// commit left them.
func (l *Log) recoverChains(ctx context.Context) error {
	l.catalogued = make(map[uint32]bool)
	for number := range l.byNumber {
		l.catalogued[number] = true
	}
	marks, err := l.loadCheckpoint()
	if err == nil {
		err = l.loadShards()
	}
	if err != nil {
		return err
	}
	if l.distrust {
		marks = nil // records of streams the catalogue lost have to be found again
	}
	dirs, err := l.files.ReadDir(dataDir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dataDir, err)
	}
	for _, d := range dirs {
		if !d.Dir {
			l.log.Warn("a file in the log's directory is not ours; left alone", "file", path.Join(dataDir, d.Name))
			continue
		}
		if l.chains[d.Name] == nil {
			if err := l.adoptChain(d.Name); err != nil {
				return err
			}
			delete(marks, d.Name)
		}
	}
	l.loadSpares()
	// Chains by number: a stream that moved usually moved to a later one.
	chains := slices.SortedFunc(maps.Values(l.chains), func(a, b *chain) int { return cmp.Compare(a.number, b.number) })
	for _, c := range chains {
		r := &chainRecovery{log: l, chain: c, mark: marks[c.name]}
		if err := r.run(ctx); err != nil {
			return fmt.Errorf("recover chain %s: %w", c.name, err)
		}
	}
	return nil
}

// loadShards takes from the index where each shard's numbering ends.
func (l *Log) loadShards() error {
	for n, s := range l.shards {
		ref, ok, err := l.storedFloor(n, ^Sequence(0)-1)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if ref.next() > s.next {
			s.next, s.bytes, s.latest = ref.next(), ref.before+int64(ref.length), ref.latest
		}
		var oldest Sequence
		var bad error
		err = l.kv.Scan(shardPrefix(keyBatch, n), shardKeyOf(keyBatch, n, ^Sequence(0)), false, func(key, value []byte) bool {
			first, err := decodeBatchRef(key, value)
			oldest, bad = first.first, err
			return false
		})
		if err = errors.Join(err, bad); err != nil {
			return err
		}
		s.first = max(s.first, oldest)
	}
	return nil
}

// adoptChain takes over a directory the catalogue does not know, by what its
// segments say of themselves.
func (l *Log) adoptChain(name string) error {
	var number uint32
	for _, c := range l.chains {
		number = max(number, c.number)
	}
	number++
	segments, _, err := listSegments(l.files, path.Join(dataDir, name))
	if err != nil {
		return err
	}
	for n := range segments {
		file, err := l.files.OpenFile(path.Join(dataDir, name, segmentName(n)), disk.Read)
		if err != nil {
			return err
		}
		b := make([]byte, segmentHeaderSize)
		rerr := readFull(file, b, 0)
		if err := file.Close(); err != nil {
			return err
		}
		if h, err := decodeSegmentHeader(b); rerr == nil && err == nil && h.number == n {
			number = h.chain
			break
		}
	}
	l.log.Warn("the catalogue does not know this chain; it is taken over", "chain", name)
	l.addChain(name, number)
	return nil
}

// chainRecovery recovers one chain.
type chainRecovery struct {
	log   *Log
	chain *chain
	mark  chainMark
}

func (r *chainRecovery) run(ctx context.Context) error {
	l, c := r.log, r.chain
	dir := path.Join(dataDir, c.name)
	if err := errors.Join(l.files.Mkdir(dir), l.files.SyncDir(dataDir)); err != nil {
		return err
	}
	files, others, err := listSegments(l.files, dir)
	if err != nil {
		return err
	}
	for _, name := range others {
		l.log.Warn("a file in the log's directory is not ours; left alone", "file", name)
	}
	numbers := slices.Sorted(maps.Keys(files))
	c.used = c.dropped
	for i, number := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.used = max(c.used, number)
		g := &segment{id: segmentID{c.number, number}, path: path.Join(dir, segmentName(number)), size: files[number].Size}
		if number <= c.dropped {
			if err := l.retire(g); err != nil {
				return err
			}
			continue
		}
		if err := r.segment(g, i == len(numbers)-1); err != nil {
			return err
		}
	}
	return r.missing(files)
}

// missing notes the segments that the index knows and the disk does not have.
func (r *chainRecovery) missing(files map[uint64]disk.Info) error {
	l := r.log
	var gone []*segment
	var bad error
	from, to := segmentKey(segmentID{r.chain.number, r.chain.dropped + 1}), segmentKey(segmentID{r.chain.number, ^uint64(0)})
	err := l.kv.Scan(from, to, false, func(key, sealed []byte) bool {
		var number uint64
		for _, b := range key[5:] {
			number = number<<8 | uint64(b)
		}
		if _, ok := files[number]; ok {
			return true
		}
		value, err := openValue(key, sealed)
		var sum segmentSummary
		if err == nil {
			err = json.Unmarshal(value, &sum)
		}
		if err != nil {
			bad = err
			return false
		}
		g := &segment{id: segmentID{r.chain.number, number}}
		sum.fill(g)
		gone = append(gone, g)
		return true
	})
	_, now := l.clock.now()
	for _, g := range gone {
		l.log.Error("a segment file is missing", "chain", r.chain.name, "segment", g.id.number)
		for n, share := range g.shards {
			if st := l.byNumber[n.stream]; st != nil {
				l.keepGap(Gap{Stream: st.name, Shard: n.shard, From: share.First, To: share.Last, Bytes: share.Bytes, Reason: GapMissing, At: now.wall})
				l.counters.drop(GapMissing, int64(share.Last-share.First+1), share.Bytes)
			}
		}
	}
	return errors.Join(err, bad)
}

// segment recovers one segment file.
func (r *chainRecovery) segment(g *segment, newest bool) error {
	l := r.log
	start := scanStart{}
	switch {
	case g.id.number < r.mark.Segment && !l.rebuilt:
		if sum, ok, err := l.loadSummary(g.id); err != nil {
			return err
		} else if ok && l.knows(sum) {
			sum.fill(g)
			g.sealed = true
			r.keep(g)
			return nil
		}
	case g.id.number == r.mark.Segment && r.mark.Summary != nil && r.mark.Offset <= g.size && l.knows(r.mark.Summary):
		start = scanStart{offset: r.mark.Offset, prev: r.mark.Prev}
		r.mark.Summary.fill(g)
	}
	mode := disk.Read
	if newest {
		mode = disk.ReadWrite
	}
	file, err := l.files.OpenFile(g.path, mode)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil {
		l.log.Error("a segment cannot be opened; its records are missing", "segment", g.path, "error", err)
		return nil
	}
	end, err := r.scan(file, g, start)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	g.end, g.prev = end.end, end.prev
	if g.shards == nil {
		// Nothing in it was ever acknowledged, or nothing of it can be read.
		if err := file.Close(); err != nil {
			return err
		}
		if newest {
			return l.retire(g)
		}
		l.log.Error("a segment holds nothing that can be read; it is left alone", "segment", g.path)
		return nil
	}
	r.keep(g)
	if !newest || len(end.damaged) > 0 {
		g.sealed = true
		l.unsummed = append(l.unsummed, g)
		return file.Close()
	}
	if err := neutralise(file, end); err != nil {
		return errors.Join(err, file.Close())
	}
	r.chain.open = g
	r.chain.writer = &segmentWriter{file: file, id: g.id, size: g.size, end: end.end, synced: end.end, prev: end.prev}
	return nil
}

// knows says whether the catalogue knows every stream of a summary. If not it
// has lost some, and the segment has to be read again to find their records.
func (l *Log) knows(s *segmentSummary) bool {
	return !slices.ContainsFunc(s.Shares, func(share summaryShare) bool { return !l.catalogued[share.Stream] })
}

func (r *chainRecovery) keep(g *segment) {
	r.chain.segments = append(r.chain.segments, g)
	r.log.segments[g.id] = g
}

func (l *Log) loadSummary(id segmentID) (*segmentSummary, bool, error) {
	key := segmentKey(id)
	sealed, ok, err := l.kv.Get(key)
	if err != nil || !ok {
		return nil, false, err
	}
	value, err := openValue(key, sealed)
	if err != nil {
		return nil, false, err
	}
	var sum segmentSummary
	if err := json.Unmarshal(value, &sum); err != nil {
		return nil, false, nil
	}
	return &sum, true, nil
}

// scan replays a segment file into memory. A header that cannot be read does
// not condemn the frames behind it.
func (r *chainRecovery) scan(file disk.File, g *segment, start scanStart) (scanEnd, error) {
	s := &scanner{
		file: file, id: g.id, path: g.path,
		bodies: func(*frameHeader) bool { return true },
		deliver: func(h frameHeader, crc uint32, offset int64, body []byte) error {
			return r.frame(g, &h, crc, offset, body)
		},
	}
	end, err := s.scan(start)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && start.offset == 0 {
		s.out, s.unit = scanEnd{}, nil
		if end, err = s.scan(scanStart{offset: segmentHeaderSize}); err == nil && end.any {
			end.damaged = append(end.damaged, corrupt)
		}
	}
	if err != nil {
		return end, err
	}
	if end.any {
		r.log.noteStamp(&end.last)
	}
	for _, d := range end.damaged {
		r.log.counters.corrupt.Add(1)
		r.log.log.Error("a segment is damaged; what is sound is kept", "error", d)
	}
	return end, nil
}

// frame takes one frame into memory.
func (r *chainRecovery) frame(g *segment, h *frameHeader, _ uint32, offset int64, stored []byte) error {
	l := r.log
	g.add(h)
	l.recovered++
	body := stored
	if h.flags&flagZstd != 0 {
		var err error
		if body, err = l.unpack(stored, h.raw); err != nil {
			l.log.Error("a batch does not unpack; it is passed over", "segment", g.path, "offset", offset, "error", err)
			return nil
		}
	}
	switch h.kind {
	case frameConsumer:
		var c consumerRecord
		if err := json.Unmarshal(body, &c); err != nil {
			l.log.Error("a consumer's place does not decode; it is passed over", "segment", g.path, "offset", offset, "error", err)
			return nil
		}
		l.applyConsumer(&c)
	case frameBatch:
		return r.batch(g, h, offset, body)
	}
	return nil
}

// held is a batch that came before its turn: its shard moved between chains.
type held struct {
	header frameHeader
	id     segmentID
	offset int64
	times  batchTimes
	closed []closedRef
}

func (r *chainRecovery) batch(g *segment, h *frameHeader, offset int64, body []byte) error {
	l := r.log
	b := held{header: *h, id: g.id, offset: offset}
	d, err := decodeBatch(body, h.count)
	for seq := h.first; err == nil; seq++ {
		var rec Record
		var more bool
		if more, err = d.next(&rec); !more {
			break
		}
		ms := rec.Arrival.UnixMilli()
		if seq == h.first {
			b.times = batchTimes{ms, ms}
		}
		b.times.latest = max(b.times.latest, ms)
		if rec.Index != nil {
			index := *rec.Index
			index.Value = slices.Clone(index.Value)
			b.closed = append(b.closed, closedRef{last: seq, index: index})
		}
	}
	if err != nil {
		l.log.Error("a batch does not decode; it is passed over", "segment", g.path, "offset", offset, "error", err)
		return nil
	}
	if l.byNumber[h.stream] == nil {
		l.recoverStream(h.stream, h.shard)
	}
	s := l.shardFor(shardNumber{h.stream, h.shard})
	if s.stream == nil {
		l.recoverStream(h.stream, h.shard)
	}
	switch {
	case h.last() < s.first:
		return nil // behind the trim horizon
	case h.last() < s.next:
		s.closed = append(s.closed, b.closed...) // indexed already; the same entries again do no harm
		return nil
	case h.first-Sequence(h.skipped) > s.next:
		s.held = append(s.held, b)
		return nil
	}
	l.publishHeld(s, &b)
	if l.pendingIndexLocked() >= 4*indexThreshold {
		return l.flushIndex()
	}
	return nil
}

// publishHeld makes a recovered batch readable.
func (l *Log) publishHeld(s *shardState, b *held) {
	s.publish(&b.header, b.id, b.offset, b.times)
	l.unindexed += b.header.size()
	s.closed = append(s.closed, b.closed...)
}

// recoverStream makes up a stream for records whose catalogue entry is lost.
func (l *Log) recoverStream(number uint32, shard ShardID) {
	name := fmt.Sprintf("recovered-%d", number)
	if st := l.byNumber[number]; st != nil {
		// Known, but with fewer shards than there are records for.
		for len(st.shards) <= int(shard) {
			s := l.shardFor(shardNumber{number, ShardID(len(st.shards))})
			s.stream = st
			st.shards = append(st.shards, s)
		}
		return
	}
	l.log.Error("the catalogue does not know the stream of some records; they are under a new name", "stream", name)
	_, now := l.clock.now()
	config := DefaultStreamConfig(Data)
	l.addStream(&metaStream{Number: number, Name: name, Created: now.wall.UTC(), Config: config})
	l.recoverStream(number, shard)
}

// noteStamp keeps the newest clock stamp.
func (l *Log) noteStamp(h *frameHeader) {
	if age := time.Duration(h.age); !l.newest.ok || age >= l.newest.age {
		l.newest = seen{age: age, ok: true, when: instant{
			wall: time.Unix(0, h.wall), monotonic: time.Duration(h.monotonic), boot: h.boot,
			synced: h.flags&flagClockSynced != 0,
		}}
	}
}

// neutralise makes the end of a recovered segment ready to be written to: what
// an unfinished unit left behind it is overwritten, so that it can never be
// taken for data later, and what was read from the page cache is made durable,
// because from now on it counts as acknowledged.
func neutralise(file disk.File, end scanEnd) error {
	if n := end.stale - end.end; n > 0 {
		if _, err := file.WriteAt(make([]byte, n), end.end); err != nil {
			return fmt.Errorf("overwrite an unfinished commit: %w", err)
		}
	}
	return file.Sync()
}

// finishRecovery settles what recovery collected and starts the committers.
func (l *Log) finishRecovery() {
	_, now := l.clock.now()
	for _, s := range l.shards {
		slices.SortFunc(s.held, func(a, b held) int { return cmp.Compare(a.header.first, b.header.first) })
		for i := range s.held {
			b := &s.held[i]
			if b.header.last() < s.next {
				continue
			}
			if from := s.next; b.header.first > from {
				reason := GapMissing
				if b.header.skipped > 0 && b.header.first-Sequence(b.header.skipped) == from {
					reason = GapWriteFailed
				}
				l.keepGap(Gap{Stream: s.stream.name, Shard: s.number.shard, From: from, To: b.header.first - 1, Reason: reason, At: now.wall})
			}
			l.publishHeld(s, b)
		}
		s.held = nil
		s.assign = s.next
	}
	for _, c := range l.chains {
		l.startChain(c)
	}
}
