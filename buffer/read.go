package buffer

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	defaultReadRecords = 1000
	defaultReadBytes   = 1 << 20
	refsPerRead        = 64
)

// errMoved: the segment went away while it was read; look again.
var errMoved = errors.New("segment was dropped meanwhile")

// News returns a channel that is closed at the next commit. See Reader.
func (l *Log) News() <-chan struct{} { return l.news.wait() }

// Read returns a page of one shard. See Reader.
func (l *Log) Read(ctx context.Context, stream string, from Position, limit Limit) (Page, error) {
	s, err := l.shard(stream, from.Shard)
	if err != nil {
		return Page{}, fmt.Errorf("read: %w", err)
	}
	if limit.MaxRecords <= 0 {
		limit.MaxRecords = defaultReadRecords
	}
	if limit.MaxBytes <= 0 {
		limit.MaxBytes = defaultReadBytes
	}
	p := pageReader{log: l, shard: s, stream: stream, limit: limit, at: max(from.Sequence, 1)}
	for {
		if err := ctx.Err(); err != nil {
			return Page{}, err
		}
		done, err := p.step()
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return Page{}, fmt.Errorf("read %s of stream %q at %s: %w", from.Shard, stream, p.at, err)
		}
		if done {
			p.page.Next = p.at
			return p.page, nil
		}
	}
}

// pageReader builds one Page.
type pageReader struct {
	log    *Log
	shard  *shardState
	stream string
	limit  Limit
	at     Sequence // the next record to give
	page   Page
	bytes  int
}

// step reads the batches that one look at the index gives.
func (p *pageReader) step() (done bool, err error) {
	l, s := p.log, p.shard
	l.mu.RLock()
	first, next, closed := s.first, s.next, l.closed
	l.mu.RUnlock()
	if closed {
		return false, ErrClosed
	}
	if p.at < first {
		p.gap(p.at, first-1, GapRetention)
		p.at = first
	}
	if p.at >= next {
		p.page.AtEnd = true
		return true, nil
	}
	refs, err := l.refs(s, p.at, refsPerRead)
	if err != nil {
		return false, err
	}
	if len(refs) == 0 {
		p.gap(p.at, next-1, GapMissing)
		p.at = next
		return false, nil
	}
	for i := range refs {
		if refs[i].first > p.at {
			p.gap(p.at, refs[i].first-1, GapMissing)
			p.at = refs[i].first
		}
		full, err := p.batch(&refs[i])
		if err != nil || full {
			return full, err
		}
	}
	return false, nil
}

// batch adds the records of one batch from p.at on.
func (p *pageReader) batch(ref *batchRef) (full bool, err error) {
	if len(p.page.Entries) > 0 && p.bytes+int(ref.length) > 2*p.limit.MaxBytes {
		return true, nil // would be decoded for little
	}
	_, d, h, err := p.log.loadBatch(p.shard, ref)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		p.log.reportCorrupt(p.shard, ref, corrupt)
		p.gap(max(p.at, ref.first), ref.next()-1, GapCorrupt)
		p.at = ref.next()
		return false, nil
	}
	if errors.Is(err, errMoved) {
		p.log.mu.RLock()
		first := p.shard.first
		p.log.mu.RUnlock()
		if p.at < first {
			return false, errMoved // dropped meanwhile
		}
		p.gap(max(p.at, ref.first), ref.next()-1, GapMissing)
		p.at = ref.next()
		return false, nil
	}
	if err != nil {
		return false, err
	}
	synced := h.flags&flagClockSynced != 0
	for seq := ref.first; ; seq++ {
		var r Record
		more, err := d.next(&r)
		if err != nil {
			return false, err
		}
		if !more {
			return p.full(0), nil
		}
		if seq < p.at {
			continue
		}
		size := int(recordSize(&r))
		if p.full(size) {
			return true, nil
		}
		p.page.Entries = append(p.page.Entries, Entry{
			Stream: p.stream, Shard: p.shard.number.shard, Sequence: seq, ClockSynced: synced, Record: r,
		})
		p.bytes += size
		p.at = seq + 1
	}
}

// full says whether a record of size bytes has no place on the page any more.
func (p *pageReader) full(size int) bool {
	n := len(p.page.Entries)
	return n > 0 && (n >= p.limit.MaxRecords || p.bytes+size > p.limit.MaxBytes)
}

// gap adds the records [from, to] as missing, with the reasons that were
// recorded, and why where none was.
func (p *pageReader) gap(from, to Sequence, why GapReason) {
	l := p.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	known := make([]Gap, 0, 4)
	for _, g := range l.gaps {
		if g.Stream == p.stream && g.Shard == p.shard.number.shard && g.From <= to && g.To >= from {
			g.From, g.To = max(g.From, from), min(g.To, to)
			known = append(known, g)
		}
	}
	sort.Slice(known, func(i, j int) bool { return known[i].From < known[j].From })
	_, now := l.clock.now()
	for _, g := range known {
		if g.From > from {
			p.page.Gaps = append(p.page.Gaps, Gap{Stream: p.stream, Shard: g.Shard, From: from, To: g.From - 1, Reason: why, At: now.wall})
		}
		if g.To >= from {
			g.From = max(g.From, from)
			p.page.Gaps = append(p.page.Gaps, g)
			from = g.To + 1
		}
	}
	if from <= to {
		p.page.Gaps = append(p.page.Gaps, Gap{Stream: p.stream, Shard: p.shard.number.shard, From: from, To: to, Reason: why, At: now.wall})
	}
}

// loadBatch reads and checks the batch that ref names.
func (l *Log) loadBatch(s *shardState, ref *batchRef) ([]byte, *batchDecoder, frameHeader, error) {
	h, body, err := l.loadFrame(ref.id, int64(ref.offset), int(ref.length))
	if err != nil {
		return nil, nil, h, err
	}
	bad := func(reason string) error {
		return &CorruptError{Segment: l.segmentPath(ref.id), Offset: int64(ref.offset), Reason: reason}
	}
	if h.kind != frameBatch || h.stream != s.number.stream || h.shard != s.number.shard || h.first != ref.first || h.count != ref.count {
		return nil, nil, h, bad("it is not the batch the index says")
	}
	d, err := decodeBatch(body, h.count)
	if err != nil {
		return nil, nil, h, bad(err.Error())
	}
	return body, d, h, nil
}

// loadFrame reads the frame of length bytes at offset, checks it, and returns
// its body uncompressed. The memory is the caller's.
func (l *Log) loadFrame(id segmentID, offset int64, length int) (frameHeader, []byte, error) {
	file, release, err := l.handles.openFile(id)
	if err != nil {
		return frameHeader{}, nil, err
	}
	b := make([]byte, length)
	err = readFull(file, b, offset)
	release()
	bad := func(err error) error {
		if !l.has(id) {
			return errMoved // its file may carry another segment by now
		}
		return &CorruptError{Segment: l.segmentPath(id), Offset: offset, Reason: err.Error()}
	}
	if err != nil {
		return frameHeader{}, nil, bad(err)
	}
	h, _, err := parseFrameHeader(b)
	switch {
	case err != nil:
	case h.segment != id.number || h.size() != int64(length):
		err = errors.New("another frame is there")
	case checksum(b[frameHeaderSize:]) != h.bodyCRC:
		err = errors.New("checksum of the body does not match")
	}
	if err != nil {
		return h, nil, bad(err)
	}
	body := b[frameHeaderSize:]
	if h.flags&flagZstd != 0 {
		if body, err = l.unpack(body, h.raw); err != nil {
			return h, nil, bad(err)
		}
	}
	return h, body, nil
}

func (l *Log) unpack(body []byte, raw uint32) ([]byte, error) {
	out, err := l.zstd.DecodeAll(body, make([]byte, 0, raw))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	if len(out) != int(raw) {
		return nil, fmt.Errorf("zstd gave %d bytes instead of %d", len(out), raw)
	}
	return out, nil
}

func newUnpacker() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBodyBytes), zstd.WithDecoderLowmem(true))
}

// Find turns a Start into a sequence. See Reader.
func (l *Log) Find(stream string, shard ShardID, start Start) (Sequence, error) {
	s, err := l.shard(stream, shard)
	if err != nil {
		return 0, fmt.Errorf("find: %w", err)
	}
	l.mu.RLock()
	first, next := s.first, s.next
	l.mu.RUnlock()
	switch start.Kind {
	case TrimHorizon:
		return first, nil
	case Latest:
		return next, nil
	case AtSequence:
		return min(max(start.Sequence, first), next), nil
	case AfterSequence:
		return max(min(start.Sequence, next-1)+1, first), nil
	case AtTime:
		seq, err := l.findTime(s, first, next, start.Time)
		if err != nil {
			return 0, fmt.Errorf("find %s in %s of stream %q: %w", start.Time.Format(time.RFC3339Nano), shard, stream, err)
		}
		return seq, nil
	}
	return 0, fmt.Errorf("find: %w: start kind %d is not known", ErrInvalid, start.Kind)
}

// findTime returns the first record that arrived at or after t. Batches carry
// the greatest arrival so far, which never falls, so a binary search over the
// numbers finds the batch whatever the clock did.
func (l *Log) findTime(s *shardState, first, next Sequence, t time.Time) (Sequence, error) {
	// Arrivals are whole milliseconds: the first one not before t.
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	lo, hi := first, next // the answer is in [lo, hi]
	var bad error
	n := sort.Search(int(hi-lo), func(i int) bool {
		ref, ok, err := l.floor(s, lo+Sequence(i))
		if err != nil {
			bad = err
		}
		return ok && ref.latest >= ms
	})
	if bad != nil || lo+Sequence(n) >= next {
		return next, bad
	}
	refs, err := l.refs(s, lo+Sequence(n), 1)
	if err != nil || len(refs) == 0 {
		return lo + Sequence(n), err
	}
	_, d, _, err := l.loadBatch(s, &refs[0])
	if err != nil {
		return max(refs[0].first, first), nil // reading there tells what is wrong
	}
	for seq := refs[0].first; ; seq++ {
		var r Record
		if more, err := d.next(&r); err != nil || !more {
			return max(min(seq, next), first), err
		}
		if seq >= first && r.Arrival.UnixMilli() >= ms {
			return seq, nil
		}
	}
}

// Closings lists completed runs. See Reader.
func (l *Log) Closings(stream string, shard ShardID, from, to time.Time, after Sequence, limit int) ([]Closed, error) {
	s, err := l.shard(stream, shard)
	if err != nil {
		return nil, fmt.Errorf("closings: %w", err)
	}
	if limit <= 0 {
		limit = 1000
	}
	l.mu.RLock()
	first, next := s.first, s.next
	waiting := s.closed
	l.mu.RUnlock()
	var list []Closed
	var last Sequence
	add := func(c closedRef) bool {
		last = c.last
		begin := c.last - Sequence(c.index.Pieces)
		if c.last <= after || begin > c.last || begin < first || !c.index.Start.Before(to) || !c.index.End.After(from) && c.index.End != c.index.Start {
			return true
		}
		if c.index.End.Equal(c.index.Start) && c.index.Start.Before(from) {
			return true
		}
		list = append(list, Closed{Index: c.index, Shard: shard, First: begin, Last: c.last})
		return len(list) < limit
	}
	var bad error
	err = l.kv.Scan(shardKeyOf(keyClosed, s.number, max(first, after+1)), shardKeyOf(keyClosed, s.number, next), false,
		func(key, value []byte) bool {
			c, err := decodeClosed(key, value)
			if err != nil {
				bad = err
				return false
			}
			return add(c)
		})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("closings of stream %q: %w", stream, err)
	}
	for i := range waiting {
		if waiting[i].last > last && (len(list) >= limit || !add(waiting[i])) {
			break
		}
	}
	return list, nil
}
