package buffer

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// retain moves trim horizons on by age, and drops the segments that no shard
// can read any more.
func (l *Log) retain() error {
	age, now := l.clock.now()
	if err := l.moveHorizons(age, now); err != nil {
		return err
	}
	l.mu.RLock()
	var chains []*chain
	for _, c := range l.chains {
		if l.expiredLocked(c) {
			chains = append(chains, c)
		}
	}
	l.mu.RUnlock()
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	l.lookAtDisk()
	for _, c := range chains {
		for {
			l.mu.RLock()
			expired := l.expiredLocked(c)
			l.mu.RUnlock()
			if !expired {
				break
			}
			if err := l.dropOldest(c, GapRetention); err != nil {
				return fmt.Errorf("drop the oldest segment of chain %s: %w", c.name, err)
			}
		}
	}
	return nil
}

// expiredLocked says whether the oldest segment of c holds nothing that can
// be read.
func (l *Log) expiredLocked(c *chain) bool {
	if len(c.segments) == 0 || !c.segments[0].sealed {
		return false
	}
	for n, share := range c.segments[0].shards {
		if s := l.shards[n]; s != nil && s.first <= share.Last {
			return false
		}
	}
	return true
}

// moveHorizons lets records that are older than their stream keeps disappear
// from readers, batch by batch.
func (l *Log) moveHorizons(age time.Duration, now instant) error {
	l.mu.RLock()
	streams := make([]*streamState, 0, len(l.streams))
	for _, st := range l.streams {
		streams = append(streams, st)
	}
	l.mu.RUnlock()
	for _, st := range streams {
		oldest := age - st.config().Retention.Std()
		if oldest <= 0 {
			continue
		}
		for _, s := range st.shards {
			if err := l.moveHorizon(s, oldest, now); err != nil {
				return fmt.Errorf("retention of stream %s: %w", st.name, err)
			}
		}
	}
	return nil
}

func (l *Log) moveHorizon(s *shardState, oldest time.Duration, now instant) error {
	for {
		l.mu.RLock()
		first, next := s.first, s.next
		l.mu.RUnlock()
		if first >= next {
			return nil
		}
		refs, err := l.refs(s, first, refsPerRead)
		if err != nil {
			return err
		}
		upTo := first
		var bytes int64
		more := len(refs) == refsPerRead
		for i := range refs {
			if refs[i].age >= oldest {
				more = false
				break
			}
			upTo = refs[i].next()
			bytes += int64(refs[i].length)
		}
		if upTo == first {
			return nil
		}
		l.mu.Lock()
		l.trimLocked(s, upTo, bytes, GapRetention, now)
		l.mu.Unlock()
		if !more {
			return nil
		}
	}
}

// trimLocked moves the horizon of s up to before next, and keeps the gap if
// there is one to tell of. Log.mu is held.
func (l *Log) trimLocked(s *shardState, next Sequence, bytes int64, reason GapReason, now instant) {
	if next <= s.first {
		return
	}
	l.counters.drop(reason, int64(next-s.first), bytes)
	if g := l.gapOfTrimLocked(s, next, bytes, reason, now); g != nil {
		l.log.Warn("records were dropped", "stream", g.Stream, "shard", g.Shard.String(), "from", g.From, "to", g.To,
			"reason", string(reason), "not_read_by", g.Consumers)
		l.keepGap(*g)
	}
	s.first = next
}

// gapOfTrimLocked is the gap that a trim leaves, if a consumer had not read
// what goes or the disk decided; nil if retention did its work on records that
// everybody had read. A late reader is told all the same.
func (l *Log) gapOfTrimLocked(s *shardState, next Sequence, bytes int64, reason GapReason, now instant) *Gap {
	if next <= s.first {
		return nil
	}
	key := ShardKey{s.stream.name, s.number.shard}
	var behind []string
	for name, c := range l.consumers {
		if p, ok := c.positions[key]; ok && p < next {
			behind = append(behind, name)
		}
	}
	if len(behind) == 0 && reason == GapRetention {
		return nil
	}
	slices.Sort(behind)
	return &Gap{
		Stream: key.Stream, Shard: key.Shard, From: s.first, To: next - 1, Bytes: bytes, Reason: reason,
		Consumers: behind, At: now.wall.Round(0),
	}
}

// dropOldest drops the oldest segment of c, which is sealed: first its index
// and the decision become durable, then the file goes. spaceMu is held.
func (l *Log) dropOldest(c *chain, reason GapReason) error {
	l.mu.RLock()
	var g *segment
	if len(c.segments) > 0 {
		g = c.segments[0]
	}
	l.mu.RUnlock()
	if g == nil || !g.sealed {
		return errors.New("there is no closed segment to drop")
	}
	// Everything of it has to be in Badger, or it could not be taken out there.
	if err := l.flushIndex(); err != nil {
		return err
	}
	entries, apply, err := l.planDrop(c, g, reason)
	if err != nil {
		return err
	}
	if err := l.metaAppend(apply, entries...); err != nil {
		return err
	}
	l.handles.drop(g.id)
	if err := l.unindex(g); err != nil {
		// The entries lead nowhere that is still readable; they cost space only.
		l.log.Warn("index entries of a dropped segment stay", "segment", g.path, "error", err)
	}
	return l.retireLocked(g)
}

// planDrop says what dropping g means: what the meta chain will say, and what
// then happens in memory.
func (l *Log) planDrop(c *chain, g *segment, reason GapReason) ([]metaEntry, func(), error) {
	_, now := l.clock.now()
	type cut struct {
		s      *shardState
		share  *segmentShare
		bytes  int64
		latest int64
	}
	var cuts []cut
	entries := []metaEntry{{Chain: &metaChain{Number: c.number, Name: c.name, Dropped: g.id.number}}}
	for n, share := range g.shards {
		l.mu.RLock()
		s := l.shards[n]
		l.mu.RUnlock()
		if s == nil {
			continue
		}
		k := cut{s: s, share: share}
		ref, ok, err := l.floor(s, share.Last)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			k.bytes, k.latest = ref.before+int64(ref.length), ref.latest
		}
		cuts = append(cuts, k)
		entries = append(entries, metaEntry{Trim: &metaTrim{
			Stream: n.stream, Shard: n.shard, Next: share.Last + 1, Bytes: k.bytes, Latest: k.latest,
		}})
		entries = append(entries, l.gapEntries(s, share, reason, now)...)
	}
	apply := func() {
		for _, k := range cuts {
			l.trimLocked(k.s, k.share.Last+1, k.share.Bytes, reason, now)
			k.s.trimmed, k.s.trimmedLatest = k.bytes, k.latest
		}
		c.dropped = max(c.dropped, g.id.number)
		c.segments = c.segments[1:]
		delete(l.segments, g.id)
	}
	return entries, apply, nil
}

// gapEntries are the gaps that dropping a share makes final: the one it opens
// itself, and those that age opened before and only memory has.
func (l *Log) gapEntries(s *shardState, share *segmentShare, reason GapReason, now instant) []metaEntry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var entries []metaEntry
	for _, g := range l.gaps {
		if g.Stream == s.stream.name && g.Shard == s.number.shard && g.From <= share.Last && g.To >= share.First {
			entries = append(entries, metaEntry{Gap: &g})
		}
	}
	if g := l.gapOfTrimLocked(s, share.Last+1, share.Bytes, reason, now); g != nil {
		entries = append(entries, metaEntry{Gap: g})
	}
	return entries
}

// unindex takes the entries of a dropped segment out of Badger.
func (l *Log) unindex(g *segment) error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	ops := []KVOp{{Key: segmentKey(g.id), Delete: true}}
	for n, share := range g.shards {
		for _, kind := range []byte{keyBatch, keyClosed} {
			from, to := shardPrefix(kind, n), shardKeyOf(kind, n, share.Last+1)
			if err := l.kv.Scan(from, to, false, func(key, _ []byte) bool {
				ops = append(ops, KVOp{Key: slices.Clone(key), Delete: true})
				return true
			}); err != nil {
				return err
			}
		}
	}
	return l.writeOps(ops)
}
