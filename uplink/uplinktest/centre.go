// Package uplinktest holds the contract of a sink as a test suite, and Centre,
// a destination in memory that does what a script tells it: fail, be slow,
// store and not acknowledge, refuse. The pump is tested against it, and each
// real sink against the suite, which Centre passes too.
//
// The main type is Centre; Suite is the entry for the tests of a sink.
package uplinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
)

// Act is what a Centre does with one batch.
type Act struct {
	// Delay before anything happens.
	Delay time.Duration
	// Store is how many entries are stored, from the first; negative: all.
	Store int
	// Err is what Send returns; nil only if all is stored.
	Err error
	// Refuse are sequences that are refused for good: what comes before is
	// stored, what comes behind is held back.
	Refuse func(e *buffer.Entry) bool
}

// OK stores and acknowledges everything.
func OK() Act { return Act{Store: -1} }

// Away stores nothing.
func Away() Act { return Act{Err: errors.New("the centre is away")} }

// LoseAck stores everything and does not acknowledge it.
func LoseAck() Act { return Act{Store: -1, Err: errors.New("the connection broke")} }

// Stored is a record at a destination.
type Stored struct {
	ID           string
	PartitionKey string
	Data         string
}

// Centre is a destination in memory: an uplink.Sink and uplink.Resumer.
// Safe for concurrent use.
type Centre struct {
	// Script says what happens with a send. nil: always OK. Called with the
	// mutex of Centre held.
	Script func(call int, batch uplink.Batch) Act
	// TailErr says whether reading back fails. nil: never.
	TailErr func(call int) error

	mu     sync.Mutex
	sends  int
	tails  int
	closed bool
	stored []Stored
	place  []uplink.Last    // of stored
	shard  []buffer.ShardID // of stored
	stream []string         // of stored
	sure   map[string]bool  // streams whose tail was read since their last failure
	times  []time.Time      // of sends
	most   int              // entries in one batch
	faults []string         // breaches of the contract by the caller
}

// Send does what the script says.
func (c *Centre) Send(ctx context.Context, batch uplink.Batch) error {
	act := c.next(batch)
	if act.Delay > 0 {
		timer := time.NewTimer(act.Delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			act = Act{Err: ctx.Err()}
		case <-timer.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("the sink is closed")
	}
	if err := ctx.Err(); err != nil {
		act = Act{Err: err}
	}
	n := act.Store
	if n < 0 || n > len(batch.Entries) {
		n = len(batch.Entries)
	}
	for i := range batch.Entries[:n] {
		if e := &batch.Entries[i]; act.Refuse != nil && act.Refuse(e) {
			return refusal(i, len(batch.Entries))
		}
		c.store(batch.Node, &batch.Entries[i])
	}
	if act.Err != nil && !definite(act.Err) {
		delete(c.sure, batch.Stream())
	}
	return act.Err
}

// definite says whether the error tells what became of the batch.
func definite(err error) bool {
	var partial *uplink.PartialError
	var later *uplink.RetryAfterError
	var never *uplink.PermanentError
	return errors.As(err, &partial) || errors.As(err, &later) || errors.As(err, &never)
}

// refusal refuses entry i of n and holds back what comes behind.
func refusal(i, n int) error {
	out := &uplink.PartialError{Failed: []uplink.Failure{{Index: i, Err: &uplink.PermanentError{Err: errors.New("refused")}}}}
	for i++; i < n; i++ {
		out.Failed = append(out.Failed, uplink.Failure{Index: i, Err: uplink.ErrNotSent})
	}
	return out
}

func (c *Centre) next(batch uplink.Batch) Act {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends++
	c.times = append(c.times, time.Now())
	c.most = max(c.most, len(batch.Entries))
	if !c.sure[batch.Stream()] {
		c.faults = append(c.faults, fmt.Sprintf("send %d of stream %s without reading back", c.sends, batch.Stream()))
	}
	for i := range batch.Entries {
		e := &batch.Entries[i]
		if e.Stream != batch.Stream() || e.Shard != batch.Shard() || i > 0 && e.Sequence <= batch.Entries[i-1].Sequence {
			c.faults = append(c.faults, fmt.Sprintf("send %d is not of one shard in order", c.sends))
			break
		}
	}
	if c.Script == nil {
		return OK()
	}
	return c.Script(c.sends, batch)
}

func (c *Centre) store(node string, e *buffer.Entry) {
	c.stored = append(c.stored, Stored{uplink.RecordID(node, e), e.PartitionKey, string(e.Data)})
	c.place = append(c.place, uplink.Last{Sequence: e.Sequence, Arrival: e.Arrival})
	c.shard, c.stream = append(c.shard, e.Shard), append(c.stream, node+"/"+e.Stream)
}

// Tail reads back.
func (c *Centre) Tail(ctx context.Context, node, stream string, behind uplink.Mark) (uplink.Tail, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tails++
	if err := ctx.Err(); err != nil {
		return uplink.Tail{}, err
	}
	if c.closed {
		return uplink.Tail{}, errors.New("the sink is closed")
	}
	if c.TailErr != nil {
		if err := c.TailErr(c.tails); err != nil {
			return uplink.Tail{}, err
		}
	}
	start := 0
	if behind != "" {
		var err error
		if start, err = strconv.Atoi(string(behind)); err != nil {
			return uplink.Tail{}, fmt.Errorf("mark %q: %w", behind, err)
		}
	}
	tail := uplink.Tail{Last: make(map[buffer.ShardID]uplink.Last), Mark: c.mark()}
	for i := start; i < len(c.stored); i++ {
		if c.stream[i] == node+"/"+stream {
			tail.Last[c.shard[i]] = c.place[i]
		}
	}
	if c.sure == nil {
		c.sure = make(map[string]bool)
	}
	c.sure[stream] = true
	return tail, nil
}

func (c *Centre) mark() uplink.Mark { return uplink.Mark(strconv.Itoa(len(c.stored))) }

// Mark is behind everything stored.
func (c *Centre) Mark(_, _ string) uplink.Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mark()
}

// Close refuses what comes later, until Reopen.
func (c *Centre) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// Reopen makes the centre usable by another pump; what is stored stays.
func (c *Centre) Reopen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.sure = false, nil
}

// Stored returns what is stored, in order.
func (c *Centre) Stored() []Stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.stored)
}

// Times returns when Send was called.
func (c *Centre) Times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times)
}

// MostEntries is the size of the largest batch.
func (c *Centre) MostEntries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most
}

// Faults returns how the caller broke the contract of Sink.
func (c *Centre) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults)
}

// AtLeastOnce hides that a sink can read back.
type AtLeastOnce struct{ Sink uplink.Sink }

// Send is the sink's.
func (a AtLeastOnce) Send(ctx context.Context, batch uplink.Batch) error {
	return a.Sink.Send(ctx, batch)
}

// Close is the sink's.
func (a AtLeastOnce) Close() error { return a.Sink.Close() }
