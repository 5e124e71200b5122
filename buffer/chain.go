package buffer

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// batchTarget is where a batch is closed and the next one begins: what a
// reader has to read to get at one record.
const batchTarget = 256 << 10

// chain is a run of segments with one committer. See FORMAT.md, "Chains".
type chain struct {
	log    *Log
	number uint32
	name   string
	policy chainPolicy

	mu      sync.Mutex
	queue   []*request
	queued  int64 // bytes in queue
	closing bool
	wake    chan struct{} // holds one token when queue or closing changed

	// Guarded by Log.mu.
	segments []*segment // oldest first; the last one may be open
	dropped  uint64     // greatest number of a segment that is gone for good
	trouble  string     // why the last commit failed; "" if it did not

	// The committer's own.
	writer    *segmentWriter
	open      *segment
	used      uint64 // greatest segment number used
	lastStart time.Time
	notBefore time.Time // after a failed commit
	failures  int
	unit      []byte
	bodies    [][]byte // of frames that are written, to be used again
	builders  []*frameBuilder
	zstd      *zstd.Encoder
}

// chainPolicy is the part of a stream's policy that decides its chain.
type chainPolicy struct {
	kind     Kind
	priority int
	onFull   OnFull
	hours    uint64 // retention, rounded up to a power of two
	own      string // the stream, if it has a byte budget of its own
	maxBytes int64
}

func policyOf(stream string, c StreamConfig) chainPolicy {
	p := chainPolicy{kind: c.Kind, priority: c.Priority, onFull: c.OnFull, maxBytes: int64(c.MaxBytes)}
	hours := uint64((c.Retention.Std() + time.Hour - 1) / time.Hour)
	p.hours = 1 << bits.Len64(max(hours, 1)-1)
	if p.maxBytes > 0 {
		p.own = stream
	}
	return p
}

func (p chainPolicy) name() string {
	name := fmt.Sprintf("%s-p%d-%s-", p.kind, p.priority, p.onFull)
	if p.own != "" {
		return name + p.own + ".own"
	}
	return name + fmt.Sprintf("%dh", p.hours)
}

// parseChainName gives back what a name says, for chains whose streams are
// gone or have another policy now.
func parseChainName(name string) chainPolicy {
	p := chainPolicy{kind: Data, onFull: DropOldest}
	parts := strings.SplitN(name, "-", 4)
	if len(parts) != 4 {
		return p
	}
	p.kind, p.onFull = Kind(parts[0]), OnFull(parts[2])
	if _, err := fmt.Sscanf(parts[1], "p%d", &p.priority); err != nil {
		p.priority = 0
	}
	if own, ok := strings.CutSuffix(parts[3], ".own"); ok {
		p.own = own
	} else if _, err := fmt.Sscanf(parts[3], "%dh", &p.hours); err != nil {
		p.hours = 0
	}
	return p
}

// request is one append on its way through a chain.
type request struct {
	parts    []requestPart
	consumer *Commit // rides in the same unit
	bytes    int64
	done     chan error // buffered; gets exactly one value
}

type requestPart struct {
	stream    *streamState
	records   []Record
	positions []Position // filled by the committer
}

// enqueue hands r to the committer, which will answer on r.done.
func (c *chain) enqueue(r *request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return ErrClosed
	}
	c.queue = append(c.queue, r)
	c.queued += r.bytes
	c.poke()
	return nil
}

// cancel takes r back if the committer has not begun with it.
func (c *chain) cancel(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.queue {
		if q == r {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			c.queued -= r.bytes
			return true
		}
	}
	return false
}

func (c *chain) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *chain) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.poke()
}

// run is the committer. It ends when the chain is closing and the queue is
// empty.
func (c *chain) run() {
	for {
		batch, closing := c.collect()
		if len(batch) > 0 {
			c.commit(batch)
		}
		if closing {
			c.stop()
			return
		}
	}
}

// collect waits for requests, and then for the commit window: under load the
// next commit starts MaxDelay after the start of the last one, or when
// MaxBytes wait; a chain that was idle commits at once.
func (c *chain) collect() (batch []*request, closing bool) {
	window := c.log.config.Commit
	for {
		c.mu.Lock()
		n, queued := len(c.queue), c.queued
		closing = c.closing
		var wait time.Duration
		if n > 0 {
			wait = time.Until(c.lastStart.Add(window.MaxDelay.Std()))
			if closing || queued >= int64(window.MaxBytes) {
				wait = 0
			}
			if wait <= 0 {
				batch = c.take(int64(window.MaxBytes))
				closing = closing && len(c.queue) == 0
			}
		}
		c.mu.Unlock()
		if len(batch) > 0 || closing && n == 0 {
			return batch, closing
		}
		if n == 0 {
			<-c.wake
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take cuts a batch of about limit bytes from the queue. c.mu is held.
func (c *chain) take(limit int64) []*request {
	var bytes int64
	n := 0
	for n < len(c.queue) && (n == 0 || bytes+c.queue[n].bytes <= limit) {
		bytes += c.queue[n].bytes
		n++
	}
	batch := c.queue[:n:n]
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	} else {
		c.poke()
	}
	c.queued -= bytes
	return batch
}

// commit writes a batch of requests as one unit and answers them.
func (c *chain) commit(batch []*request) {
	c.lastStart = time.Now()
	err := c.write(batch)
	c.log.setTrouble(c, err)
	for _, r := range batch {
		c.log.release(r.bytes)
		r.done <- err
	}
	if err == nil {
		c.log.news.broadcast()
		c.log.indexIfNeeded()
	}
}

// write does the work of commit. After a failure it tries once more in a new
// segment, with the same numbers; if that fails too, the numbers are burnt
// and nothing of the batch was acknowledged.
func (c *chain) write(batch []*request) error {
	if wait := time.Until(c.notBefore); wait > 0 && c.failures > 0 {
		return fmt.Errorf("chain %s is resting for %s after a failed write: %w", c.name, wait.Round(time.Millisecond), ErrFull)
	}
	age, now := c.log.clock.now()
	frames, err := c.build(batch, now)
	written := false
	if err == nil {
		written, err = c.writeTwice(frames, age, now)
	}
	if err != nil {
		c.takeBack(frames, written)
		c.failures++
		c.notBefore = time.Now().Add(c.log.pause(c.failures))
		return err
	}
	c.failures = 0
	c.publish(frames, age)
	for _, f := range frames {
		c.reuse(f.body)
	}
	if c.writer.end > c.writer.size/2 {
		c.log.prepareSpare(c)
	}
	for _, r := range batch {
		c.log.counters.appended(r)
	}
	return nil
}

// writeTwice writes the frames as one unit, after a failure once more in a new
// segment. written says whether anything of them may be on the disk.
func (c *chain) writeTwice(frames []*frame, age time.Duration, now instant) (written bool, err error) {
	for range 2 {
		if err = c.prepare(frames, age, now); err != nil {
			return written, err
		}
		written = true
		if err = c.writeUnit(frames, age, now); err == nil {
			return true, nil
		}
		c.log.counters.writeErrors.Add(1)
		c.log.log.Error("a write to the log failed; its segment is closed", "chain", c.name, "segment", c.writer.id.number, "error", err)
		c.seal()
	}
	return true, err
}

// takeBack settles the numbers of frames that were not acknowledged. Those
// that may be on the disk are burnt; others are given out again.
func (c *chain) takeBack(frames []*frame, written bool) {
	for _, f := range slices.Backward(frames) {
		switch {
		case f.shard == nil:
		case written:
			f.shard.burnt += f.skipped + f.count
		default:
			f.shard.assign -= Sequence(f.count)
			f.shard.burnt += f.skipped
		}
	}
}

// frame is one finished body and what its header needs.
type frame struct {
	kind     uint8
	zstd     bool
	shard    *shardState // nil for consumer frames
	body     []byte
	raw      uint32
	first    Sequence
	count    uint32
	skipped  uint32
	times    batchTimes
	closed   []closedRef
	consumer *consumerRecord

	header frameHeader // filled by writeUnit
	crc    uint32
	offset int64
}

// frameBuilder collects records of one shard.
type frameBuilder struct {
	shard  *shardState
	enc    batchEncoder
	first  Sequence
	closed []closedRef
}

// build turns requests into frames and gives the records their numbers.
func (c *chain) build(batch []*request, now instant) ([]*frame, error) {
	var frames []*frame
	used := 0
	byShard := make(map[*shardState]*frameBuilder)
	wall := now.wall.UnixMilli()
	var b *frameBuilder // of the record before
	for _, r := range batch {
		for p := range r.parts {
			part := &r.parts[p]
			for i := range part.records {
				rec := &part.records[i]
				shard := part.stream.shardOf(rec.PartitionKey)
				if b == nil || b.shard != shard {
					if b = byShard[shard]; b == nil {
						b = c.builder(used)
						used++
						b.start(shard)
						byShard[shard] = b
					}
				}
				if b.enc.count > 0 && int64(b.enc.size())+recordSize(rec) > batchTarget {
					frames = append(frames, c.finish(b))
					b.start(shard)
				}
				arrival := wall
				if !rec.Arrival.IsZero() {
					arrival = rec.Arrival.UnixMilli()
				}
				b.enc.add(rec, arrival)
				if rec.Index != nil {
					index := *rec.Index
					index.Value = append([]byte(nil), index.Value...)
					// As the segment keeps it, so that answers stay the same after a restart.
					index.Start, index.End = time.UnixMilli(index.Start.UnixMilli()), time.UnixMilli(index.End.UnixMilli())
					b.closed = append(b.closed, closedRef{last: shard.assign, index: index})
				}
				part.positions[i] = Position{shard.number.shard, shard.assign}
				shard.assign++
			}
		}
	}
	for _, b := range c.builders[:used] {
		frames = append(frames, c.finish(b))
	}
	for _, r := range batch {
		if r.consumer == nil {
			continue
		}
		f, err := c.log.consumerFrame(r.consumer)
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}

func (c *chain) builder(i int) *frameBuilder {
	if i == len(c.builders) {
		c.builders = append(c.builders, &frameBuilder{})
	}
	return c.builders[i]
}

func (b *frameBuilder) start(s *shardState) {
	b.shard, b.first, b.closed = s, s.assign, nil
	b.enc.reset()
}

// finish makes a frame of what b has.
func (c *chain) finish(b *frameBuilder) *frame {
	f := &frame{
		kind: frameBatch, shard: b.shard, first: b.first, count: b.enc.count, closed: b.closed,
		skipped: b.shard.burnt, times: batchTimes{b.enc.first, b.enc.latest},
	}
	b.shard.burnt = 0
	f.body = b.enc.body(c.body(b.enc.size() + 8))
	f.raw = uint32(len(f.body))
	if b.shard.stream.config().Compression == Zstd && len(f.body) >= 128 {
		if small := c.compress(f.body); len(small) < len(f.body)*15/16 {
			c.reuse(f.body)
			f.body, f.zstd = small, true
		}
	}
	return f
}

// body returns an empty slice with room for size bytes, a used one if there
// is one.
func (c *chain) body(size int) []byte {
	for i := len(c.bodies) - 1; i >= 0; i-- {
		if b := c.bodies[i]; cap(b) >= size {
			c.bodies[i] = c.bodies[len(c.bodies)-1]
			c.bodies = c.bodies[:len(c.bodies)-1]
			return b[:0]
		}
	}
	return make([]byte, 0, size)
}

// reuse keeps a few bodies of ordinary size.
func (c *chain) reuse(b []byte) {
	if cap(b) <= 2*batchTarget && len(c.bodies) < 8 {
		c.bodies = append(c.bodies, b)
	}
}

func (c *chain) compress(body []byte) []byte {
	if c.zstd == nil {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return body // the options are constants; a body stored plain is never wrong
		}
		c.zstd = e
	}
	return c.zstd.EncodeAll(body, c.body(len(body)/2))
}

// prepare sees to it that there is an open segment with room for the frames.
func (c *chain) prepare(frames []*frame, age time.Duration, now instant) error {
	size := 0
	for _, f := range frames {
		size += frameHeaderSize + len(f.body)
	}
	if c.writer != nil && c.writer.fits(size) && !c.outlived(age) {
		return nil
	}
	return c.roll(int64(size), now)
}

// writeUnit lays the frames out at the end of the open segment and makes them
// durable.
func (c *chain) writeUnit(frames []*frame, age time.Duration, now instant) error {
	unit := c.unit[:0]
	prev := c.writer.prev
	for i, f := range frames {
		f.offset = c.writer.end + int64(len(unit))
		f.header = frameHeader{
			kind: f.kind, stored: uint32(len(f.body)), raw: f.raw, segment: c.writer.id.number,
			synced: uint32(c.writer.synced), prev: prev, first: f.first, count: f.count,
			skipped: f.skipped, bodyCRC: checksum(f.body),
		}
		if f.shard != nil {
			f.header.stream, f.header.shard = f.shard.number.stream, f.shard.number.shard
		}
		if f.zstd {
			f.header.flags |= flagZstd
		}
		if i == len(frames)-1 {
			f.header.flags |= flagUnitEnd
		}
		f.header.stamp(age, now)
		start := len(unit)
		unit = append(unit, make([]byte, frameHeaderSize)...)
		f.crc = f.header.put(unit[start:])
		prev = f.crc
		unit = append(unit, f.body...)
	}
	if c.unit = unit; cap(c.unit) > 4<<20 {
		c.unit = nil
	}
	if err := c.writer.write(unit); err != nil {
		return err
	}
	c.writer.prev = prev
	c.log.counters.wrote(len(unit))
	return nil
}

// publish makes durable frames readable.
func (c *chain) publish(frames []*frame, age time.Duration) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range frames {
		c.open.add(&f.header)
		if f.consumer != nil {
			l.applyConsumer(f.consumer)
			continue
		}
		if f.skipped > 0 {
			l.keepGap(Gap{
				Stream: f.shard.stream.name, Shard: f.shard.number.shard, From: f.first - Sequence(f.skipped),
				To: f.first - 1, Reason: GapWriteFailed, At: time.Unix(0, f.header.wall),
			})
		}
		f.shard.publish(&f.header, c.open.id, f.offset, f.times)
		l.unindexed += f.header.size()
		f.shard.closed = append(f.shard.closed, f.closed...)
	}
	c.open.end, c.open.prev = c.writer.end, c.writer.prev
	c.open.newest = max(c.open.newest, age)
	l.lastCommit = time.Now()
}

// outlived says that the open segment is old enough to be closed, so that an
// idle chain's records can go when their time comes.
func (c *chain) outlived(age time.Duration) bool {
	if c.open == nil || c.open.shards == nil || c.policy.hours == 0 {
		return false
	}
	return age-c.open.oldest > max(time.Duration(c.policy.hours)*time.Hour/8, 10*time.Minute)
}

// seal closes the open segment.
func (c *chain) seal() {
	if c.writer == nil {
		return
	}
	if err := c.writer.file.Close(); err != nil {
		c.log.log.Warn("closing a segment", "chain", c.name, "segment", c.writer.id.number, "error", err)
	}
	c.log.mu.Lock()
	c.open.sealed = true
	c.open.end = c.writer.synced
	c.log.unsummed = append(c.log.unsummed, c.open)
	c.log.mu.Unlock()
	c.writer, c.open = nil, nil
}

// roll closes the open segment and begins a new one with room for size bytes.
func (c *chain) roll(size int64, now instant) error {
	c.seal()
	id := segmentID{c.number, c.used + 1}
	seg, file, err := c.log.newSegment(c, id, size+segmentHeaderSize)
	if err != nil {
		return err
	}
	w, err := startSegment(file, id, seg.size, now.wall)
	if err != nil {
		c.log.discardSegment(seg, file)
		return fmt.Errorf("start segment %s: %w", seg.path, err)
	}
	c.used = id.number
	c.writer, c.open = w, seg
	c.log.mu.Lock()
	c.segments = append(c.segments, seg)
	c.log.segments[id] = seg
	c.log.mu.Unlock()
	return nil
}

// stop closes the file of the open segment, which stays open in the sense of
// the format: the next Open goes on in it.
func (c *chain) stop() {
	if c.writer != nil {
		if err := c.writer.file.Close(); err != nil {
			c.log.log.Warn("closing a segment", "chain", c.name, "segment", c.writer.id.number, "error", err)
		}
	}
	if c.zstd != nil {
		if err := c.zstd.Close(); err != nil {
			c.log.log.Warn("closing the compressor", "chain", c.name, "error", err)
		}
	}
}

// wait blocks until r is answered, or takes it back when ctx is done first.
func (c *chain) wait(ctx context.Context, r *request) error {
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if c.cancel(r) {
		c.log.release(r.bytes)
		return ctx.Err()
	}
	return <-r.done
}
