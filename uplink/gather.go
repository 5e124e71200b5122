package uplink

import (
	"time"

	"github.com/weir-edge/weir/buffer"
)

// entryBytes is what an entry counts against the bytes of a batch.
func entryBytes(e *buffer.Entry) int {
	n := len(e.Data) + len(e.PartitionKey)
	for i := range e.Attributes {
		n += len(e.Attributes[i].Key) + len(e.Attributes[i].Value)
	}
	return n
}

// cut says how many of the waiting entries make the next batch, and whether
// that batch is full, so that waiting for more is useless. At least one entry
// is taken if there is one, whatever its size.
func (c BatchConfig) cut(waiting []buffer.Entry) (n int, full bool) {
	bytes := 0
	for n < len(waiting) {
		bytes += entryBytes(&waiting[n])
		if n > 0 && bytes > int(c.MaxBytes) {
			return n, true
		}
		n++
		if n == c.MaxRecords || bytes >= int(c.MaxBytes) {
			return n, true
		}
	}
	return n, false
}

// due says how long a batch that is not full, and whose first record has
// waited since the given time, still waits for more. 0 or less: send it.
func (c BatchConfig) due(since, now time.Time) time.Duration {
	return c.MaxDelay.Std() - now.Sub(since)
}

// cursor is a pump's place in one shard.
type cursor struct {
	key       buffer.ShardKey
	next      buffer.Sequence // the next one to read
	waiting   []buffer.Entry  // read and not settled: at most a batch, and a record
	since     time.Time       // when the first of waiting was read, or before
	limit     int             // records in a send while the refused one is looked for; 0: no limit
	pause     pause           // after failures of this shard alone
	notBefore time.Time       // end of the pause
}

// position is the first record that is not settled.
func (c *cursor) position() buffer.Sequence {
	if len(c.waiting) > 0 {
		return c.waiting[0].Sequence
	}
	return c.next
}

// room is the limit of the next read.
func (c *cursor) room(batch BatchConfig) buffer.Limit {
	limit := buffer.Limit{MaxRecords: batch.MaxRecords - len(c.waiting), MaxBytes: int(batch.MaxBytes)}
	for i := range c.waiting {
		limit.MaxBytes -= entryBytes(&c.waiting[i])
	}
	limit.MaxRecords, limit.MaxBytes = max(limit.MaxRecords, 1), max(limit.MaxBytes, 1)
	return limit
}

// keep replaces the first n waiting entries by those of them that rest names.
// The list is made anew, so that it does not hold on to what was sent.
func (c *cursor) keep(n int, rest []int) {
	waiting := make([]buffer.Entry, 0, len(rest)+len(c.waiting)-n)
	for _, i := range rest {
		waiting = append(waiting, c.waiting[i])
	}
	c.waiting = append(waiting, c.waiting[n:]...)
}

// skip drops what comes before position and returns how many records that are.
func (c *cursor) skip(position buffer.Sequence) int64 {
	before := c.position()
	if position <= before {
		return 0
	}
	n := 0
	for n < len(c.waiting) && c.waiting[n].Sequence < position {
		n++
	}
	c.keep(n, nil)
	c.next = max(c.next, position)
	return int64(position - before)
}
