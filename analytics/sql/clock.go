package sql

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// setBack is how far behind an arrival must be for the clock to count as set
// back: more than appends that overtake each other, less than any repair of a
// clock that is worth it.
const setBack = 10 * time.Second

// moment is a time of arrival. Each time the clock is set back a new epoch
// begins: an instant of a later epoch is after every one of an earlier.
type moment struct {
	epoch uint32
	at    int64 // ms since 1970; unset: before all of the epoch
}

const unset = math.MinInt64

func (m moment) compare(o moment) int {
	return cmp.Or(cmp.Compare(m.epoch, o.epoch), cmp.Compare(m.at, o.at))
}

// shard is what is known of the time of one shard.
type shard struct {
	id    buffer.ShardID
	clock moment // never runs back
	atEnd bool
	seen  int64  // the wall time of the last look that found it at its end, ms
	marks []mark // the windows it has records for that are not settled, in order
}

// mark is the first record of a shard in a window.
type mark struct {
	window moment
	first  buffer.Sequence
}

// arrive moves the clock to a record and returns whether the clock was set
// back.
func (s *shard) arrive(at int64) (wasSetBack bool) {
	switch {
	case s.clock.at == unset || at >= s.clock.at:
		s.clock.at = at
	case s.clock.at-at > setBack.Milliseconds():
		s.clock = moment{s.clock.epoch + 1, at}
		return true
	}
	return false
}

// clocks are all shards, in the order of their numbers.
type clocks []*shard

func (c clocks) find(id buffer.ShardID) *shard {
	for _, s := range c {
		if s.id == id {
			return s
		}
	}
	return nil
}

// add makes a shard known. It begins in the oldest epoch that counts.
func (c *clocks) add(id buffer.ShardID) *shard {
	s := &shard{id: id, clock: moment{c.watermark().epoch, unset}}
	*c = append(*c, s)
	slices.SortFunc(*c, func(a, b *shard) int { return cmp.Compare(a.id, b.id) })
	return s
}

// watermark is the time of the shard that is furthest behind: no record that
// is still to come counts before it.
func (c clocks) watermark() moment {
	if len(c) == 0 {
		return moment{0, unset}
	}
	return c.behind(func(*shard) bool { return true }).clock
}

// behind is the shard with the oldest clock of those that ok takes, or nil.
func (c clocks) behind(ok func(*shard) bool) *shard {
	var least *shard
	for _, s := range c {
		if ok(s) && (least == nil || s.clock.compare(least.clock) < 0) {
			least = s
		}
	}
	return least
}

// epoch is the latest there is.
func (c clocks) epoch() uint32 {
	var last uint32
	for _, s := range c {
		last = max(last, s.clock.epoch)
	}
	return last
}

// looked notes that s was found at its end at the wall time now. What it gets
// from now on comes after all that was read of the others, so it joins their
// epoch.
func (c clocks) looked(s *shard, now int64) {
	s.seen = now
	if last := c.epoch(); s.clock.epoch < last {
		s.clock = moment{last, unset}
	}
}

// reachable is how far the watermark may go if shards at their end follow the
// wall clock, grace behind it.
func (c clocks) reachable(grace time.Duration) moment {
	least := moment{math.MaxUint32, math.MaxInt64}
	for _, s := range c {
		m := s.clock
		if s.atEnd {
			m.at = max(m.at, s.seen-grace.Milliseconds())
		}
		if m.compare(least) < 0 {
			least = m
		}
	}
	return least
}

// advance moves the shards that are at their end to m, which is reachable.
func (c clocks) advance(m moment) {
	for _, s := range c {
		if s.atEnd && s.clock.compare(m) < 0 {
			s.clock = m
		}
	}
}
