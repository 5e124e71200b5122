package buffer

import (
	"encoding/binary"
	"fmt"
	"sort"
	"time"
)

// shardNumber names a shard inside: streams have numbers there.
type shardNumber struct {
	stream uint32
	shard  ShardID
}

// batchRef is where a batch is. It is what Badger's `b` entries hold.
type batchRef struct {
	first  Sequence
	count  uint32
	id     segmentID
	offset uint32
	length uint32
	oldest int64         // first arrival in it, ms
	latest int64         // greatest arrival in it or before it in the shard, ms
	age    time.Duration // age clock at its commit
	before int64         // stored bytes of the shard before it
}

const batchRefSize = 4 + 4 + 8 + 4 + 4 + 8 + 8 + 8 + 8

func (r *batchRef) next() Sequence { return r.first + Sequence(r.count) }

func (r *batchRef) encode() []byte {
	b := make([]byte, 0, batchRefSize+4)
	le := binary.LittleEndian
	b = le.AppendUint32(b, r.count)
	b = le.AppendUint32(b, r.id.chain)
	b = le.AppendUint64(b, r.id.number)
	b = le.AppendUint32(b, r.offset)
	b = le.AppendUint32(b, r.length)
	b = le.AppendUint64(b, uint64(r.oldest))
	b = le.AppendUint64(b, uint64(r.latest))
	b = le.AppendUint64(b, uint64(r.age))
	return le.AppendUint64(b, uint64(r.before))
}

func decodeBatchRef(key, sealed []byte) (batchRef, error) {
	b, err := openValue(key, sealed)
	if err != nil {
		return batchRef{}, err
	}
	if len(key) != 17 || len(b) != batchRefSize {
		return batchRef{}, fmt.Errorf("%w: batch entry %x has the wrong size", errIndexDamaged, key)
	}
	le := binary.LittleEndian
	return batchRef{
		first: Sequence(binary.BigEndian.Uint64(key[9:])),
		count: le.Uint32(b), id: segmentID{le.Uint32(b[4:]), le.Uint64(b[8:])},
		offset: le.Uint32(b[16:]), length: le.Uint32(b[20:]),
		oldest: int64(le.Uint64(b[24:])), latest: int64(le.Uint64(b[32:])),
		age: time.Duration(le.Uint64(b[40:])), before: int64(le.Uint64(b[48:])),
	}, nil
}

// shardState is the log's memory of one shard. Guarded by Log.mu, but for
// assign, which belongs to the committer of the stream's chain.
type shardState struct {
	number shardNumber
	stream *streamState
	assign Sequence // the next number to give
	burnt  uint32   // numbers right before assign that a failed write used up

	first  Sequence   // trim horizon
	next   Sequence   // behind the last durable record
	tail   []batchRef // durable, not yet in Badger, ascending
	latest int64      // greatest arrival, ms
	bytes  int64      // stored bytes ever
	closed []closedRef
	held   []held // only while recovering

	trimmed       int64 // stored bytes ever, up to first
	trimmedLatest int64 // greatest arrival before first, ms
}

// closedRef is a completed run, on its way to Badger's `i` entries.
type closedRef struct {
	last  Sequence // the closing record
	index Index
}

func (s *shardState) empty() bool { return s.first >= s.next }

// publish makes a durable batch readable. Log.mu is held.
func (s *shardState) publish(h *frameHeader, id segmentID, offset int64, stamp batchTimes) batchRef {
	ref := batchRef{
		first: h.first, count: h.count, id: id, offset: uint32(offset), length: uint32(h.size()),
		oldest: stamp.first, age: time.Duration(h.age), before: s.bytes,
	}
	if s.next == s.first {
		s.first = max(s.first, h.first) // nothing before it can be read
	}
	s.latest = max(s.latest, stamp.latest)
	ref.latest = s.latest
	s.bytes += h.size()
	s.next = ref.next()
	s.tail = append(s.tail, ref)
	return ref
}

// batchTimes are the arrivals of a batch, in ms.
type batchTimes struct{ first, latest int64 }

// tailFloor returns the place in s.tail of the last batch that starts at or
// before seq, or -1.
func (s *shardState) tailFloor(seq Sequence) int {
	return sort.Search(len(s.tail), func(i int) bool { return s.tail[i].first > seq }) - 1
}

// refs returns up to max batches of the shard in order, beginning with the one
// that holds seq, or the first one behind it.
func (l *Log) refs(s *shardState, seq Sequence, limit int) ([]batchRef, error) {
	l.mu.RLock()
	tail, next := s.tail, s.next
	i := s.tailFloor(seq)
	l.mu.RUnlock()
	// The slice was taken under the lock; its elements never change.
	if i >= 0 {
		if tail[i].next() <= seq {
			i++ // seq lies in the hole behind it
		}
		return tail[i:min(len(tail), i+limit)], nil
	}
	stored, err := l.storedRefs(s.number, seq, next, limit)
	if err != nil {
		return nil, err
	}
	for j := 0; j < len(tail) && len(stored) < limit; j++ {
		if len(stored) == 0 || tail[j].first > stored[len(stored)-1].first {
			stored = append(stored, tail[j])
		}
	}
	return stored, nil
}

// storedRefs is refs over what Badger has.
func (l *Log) storedRefs(number shardNumber, seq, next Sequence, limit int) ([]batchRef, error) {
	start := seq
	floor, ok, err := l.storedFloor(number, seq)
	if err != nil {
		return nil, err
	}
	if ok && floor.next() > seq {
		start = floor.first
	}
	var list []batchRef
	var bad error
	err = l.kv.Scan(shardKeyOf(keyBatch, number, start), shardKeyOf(keyBatch, number, next), false,
		func(key, value []byte) bool {
			ref, err := decodeBatchRef(key, value)
			if err != nil {
				bad = err
				return false
			}
			list = append(list, ref)
			return len(list) < limit
		})
	if err == nil {
		err = bad
	}
	return list, err
}

// storedFloor returns the last batch in Badger that starts at or before seq.
func (l *Log) storedFloor(number shardNumber, seq Sequence) (ref batchRef, ok bool, err error) {
	var bad error
	err = l.kv.Scan(shardPrefix(keyBatch, number), shardKeyOf(keyBatch, number, seq+1), true,
		func(key, value []byte) bool {
			ref, bad = decodeBatchRef(key, value)
			ok = bad == nil
			return false
		})
	if err == nil {
		err = bad
	}
	return ref, ok, err
}

// floor returns the last batch of the shard that starts at or before seq.
func (l *Log) floor(s *shardState, seq Sequence) (batchRef, bool, error) {
	l.mu.RLock()
	if i := s.tailFloor(seq); i >= 0 {
		ref := s.tail[i]
		l.mu.RUnlock()
		return ref, true, nil
	}
	l.mu.RUnlock()
	return l.storedFloor(s.number, seq)
}

// pendingIndex counts what waits to be written to Badger.
func (l *Log) pendingIndexLocked() int {
	n := 0
	for _, s := range l.shards {
		n += len(s.tail) + len(s.closed)
	}
	return n
}

// indexDueLocked says whether enough waits to be written.
func (l *Log) indexDueLocked() bool {
	return l.pendingIndexLocked() >= indexThreshold || l.unindexed >= indexBytes
}

// What one transaction of Badger may hold with a memtable of 8 MiB is a little
// more than this.
const (
	indexOpsPerWrite   = 4096
	indexBytesPerWrite = 768 << 10
)

// writeOps writes ops in their order, in as few transactions as they fit.
// flushMu is held.
func (l *Log) writeOps(ops []KVOp) error {
	for len(ops) > 0 {
		n, bytes := 0, 0
		for n < len(ops) && n < indexOpsPerWrite {
			bytes += len(ops[n].Key) + len(ops[n].Value)
			if n > 0 && bytes > indexBytesPerWrite {
				break
			}
			n++
		}
		if err := l.kv.Write(ops[:n]); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// flushIndex writes what is only in memory to Badger, and how far that goes.
// One caller at a time (l.flushMu). The positions of consumers go with it when
// they changed.
func (l *Log) flushIndex() error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()

	l.mu.RLock()
	var ops []KVOp
	upTo := make(map[*shardState]int)
	closedUpTo := make(map[*shardState]int)
	for _, s := range l.shards {
		for i := range s.tail {
			key := shardKeyOf(keyBatch, s.number, s.tail[i].first)
			ops = append(ops, KVOp{Key: key, Value: sealValue(key, s.tail[i].encode())})
		}
		for i := range s.closed {
			key := shardKeyOf(keyClosed, s.number, s.closed[i].last)
			ops = append(ops, KVOp{Key: key, Value: sealValue(key, encodeClosed(&s.closed[i]))})
		}
		upTo[s], closedUpTo[s] = len(s.tail), len(s.closed)
	}
	for _, g := range l.unsummed {
		key := segmentKey(g.id)
		ops = append(ops, KVOp{Key: key, Value: sealValue(key, encodeSummary(g))})
	}
	summed := len(l.unsummed)
	unindexed := l.unindexed
	mark := l.checkpointLocked()
	l.mu.RUnlock()

	if len(ops) == 0 && mark == l.lastMark {
		return nil
	}
	if err := l.flushConsumersLocked(); err != nil {
		return err
	}
	key := []byte{keyCheckpoint}
	ops = append(ops, KVOp{Key: key, Value: sealValue(key, []byte(mark))})
	if err := l.writeOps(ops); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	l.lastMark = mark

	l.mu.Lock()
	defer l.mu.Unlock()
	for s, n := range upTo {
		// A new slice: readers may hold the old one.
		s.tail = append([]batchRef(nil), s.tail[n:]...)
		s.closed = append([]closedRef(nil), s.closed[closedUpTo[s]:]...)
	}
	l.unsummed = append([]*segment(nil), l.unsummed[summed:]...)
	l.unindexed -= unindexed
	l.indexRoom.broadcast()
	return nil
}

func encodeClosed(c *closedRef) []byte {
	b := binary.AppendVarint(nil, c.index.Start.UnixMilli())
	b = binary.AppendVarint(b, c.index.End.UnixMilli())
	b = binary.AppendUvarint(b, uint64(c.index.Pieces))
	return append(b, c.index.Value...)
}

func decodeClosed(key, sealed []byte) (closedRef, error) {
	b, err := openValue(key, sealed)
	if err != nil {
		return closedRef{}, err
	}
	d := batchDecoder{rest: append([]byte(nil), b...)}
	start, err1 := d.varint()
	end, err2 := d.varint()
	pieces, err3 := d.uvarint()
	if err1 != nil || err2 != nil || err3 != nil || len(key) != 17 {
		return closedRef{}, fmt.Errorf("%w: entry %x does not decode", errIndexDamaged, key)
	}
	return closedRef{
		last:  Sequence(binary.BigEndian.Uint64(key[9:])),
		index: Index{Start: time.UnixMilli(start), End: time.UnixMilli(end), Pieces: uint32(pieces), Value: d.rest},
	}, nil
}
