package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// refresh is how often a line looks for shards that are new.
const refresh = 5 * time.Second

// line sends one stream: its shards in turn, one batch at a time. So at the
// moment of a commit nothing of the stream is in flight, and one mark is right
// for all of its shards.
type line struct {
	*Pump
	stream    string
	cursors   map[buffer.ShardID]*cursor
	order     []buffer.ShardID
	looked    time.Time // for shards
	sure      bool      // what the destination holds is known
	pause     pause     // after failures of the destination as a whole
	notBefore time.Time // end of the pause
}

// run returns nil when ctx is done.
func (l *line) run(ctx context.Context) error {
	for ctx.Err() == nil {
		news := l.log.News()
		sent, wait, err := l.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, buffer.ErrClosed) {
			return err
		}
		if err != nil {
			wait = l.wait(err, 0)
		} else if sent {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// wait notes a failure of the line and begins its pause.
func (l *line) wait(err error, after time.Duration) time.Duration {
	l.status.fail(l.stream, err, l.logger)
	d := l.pause.next(l.config, after)
	l.notBefore = time.Now().Add(d)
	return d
}

// step gives each shard one turn. It says whether anything was sent, and if
// not how long to wait at most for news. An error is about the log.
func (l *line) step(ctx context.Context) (sent bool, wait time.Duration, err error) {
	if left := time.Until(l.notBefore); left > 0 {
		return false, left, nil
	}
	if err := l.findShards(ctx); err != nil {
		return false, 0, err
	}
	if linked, ok := l.sink.(Linked); ok && !linked.Link().Connected {
		l.sure = false // and ask again, so that the link is up before it is needed
	}
	if !l.sure {
		if wait, err := l.resume(ctx); err != nil || wait > 0 {
			return false, wait, err
		}
	}
	idle := true
	wait = refresh
	for _, shard := range l.order {
		c := l.cursors[shard]
		ready, left, err := l.gather(ctx, c)
		if err != nil {
			return sent, 0, err
		}
		idle = idle && len(c.waiting) == 0
		if !ready {
			wait = min(wait, left)
			continue
		}
		if err := l.send(ctx, c); err != nil {
			return sent, 0, err
		}
		if sent = true; !l.sure || ctx.Err() != nil {
			break
		}
	}
	if idle {
		l.status.works(l.stream, l.logger) // there is nothing left that could fail
	}
	return sent, wait, nil
}

// findShards makes a cursor for each shard that has none: at the committed
// position, or else at the oldest record.
func (l *line) findShards(ctx context.Context) error {
	now := time.Now()
	if !l.looked.IsZero() && now.Sub(l.looked) < refresh {
		return nil
	}
	info, err := l.log.Stream(l.stream)
	if errors.Is(err, buffer.ErrNotFound) {
		return nil // it is made with its first record
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", l.stream, err)
	}
	checkpoint, err := l.log.Checkpoint(l.consumer)
	if err != nil && !errors.Is(err, buffer.ErrNotFound) {
		return fmt.Errorf("find the place of uplink %s: %w", l.config.Name, err)
	}
	fresh := make(map[buffer.ShardKey]buffer.Sequence)
	for _, shard := range info.Shards {
		if l.cursors[shard.ID] != nil {
			continue
		}
		key := buffer.ShardKey{Stream: l.stream, Shard: shard.ID}
		next, known := checkpoint.Positions[key]
		if !known {
			if next, err = l.log.Find(l.stream, shard.ID, buffer.Start{Kind: buffer.TrimHorizon}); err != nil {
				return fmt.Errorf("find the oldest record of %s of stream %s: %w", shard.ID, l.stream, err)
			}
			fresh[key] = next
		}
		l.cursors[shard.ID] = &cursor{key: key, next: next}
	}
	l.order = slices.Sorted(maps.Keys(l.cursors))
	l.looked = now
	if len(fresh) == 0 {
		return nil
	}
	return l.commit(ctx, l.stream, fresh, l.mark(l.stream))
}

// gather reads what is missing to a batch. It says whether a batch is to be
// sent now, or how long there is still to wait.
func (l *line) gather(ctx context.Context, c *cursor) (ready bool, wait time.Duration, err error) {
	if left := time.Until(c.notBefore); left > 0 {
		return false, left, nil
	}
	for {
		if _, full := l.config.Batch.cut(c.waiting); full {
			return true, 0, nil
		}
		page, err := l.log.Read(ctx, l.stream, buffer.Position{Shard: c.key.Shard, Sequence: c.next}, c.room(l.config.Batch))
		if err != nil {
			return false, 0, fmt.Errorf("read %s of stream %s: %w", c.key.Shard, l.stream, err)
		}
		l.gaps(page.Gaps)
		if len(c.waiting) == 0 {
			c.since = time.Now()
		}
		moved := page.Next > c.next
		c.waiting, c.next = append(c.waiting, page.Entries...), max(c.next, page.Next)
		if page.AtEnd || !moved {
			break
		}
	}
	if len(c.waiting) == 0 {
		return false, refresh, nil
	}
	_, full := l.config.Batch.cut(c.waiting)
	wait = l.config.Batch.due(c.since, time.Now())
	return full || wait <= 0, wait, nil
}

// gaps counts what the log does not have any more.
func (l *line) gaps(gaps []buffer.Gap) {
	for _, gap := range gaps {
		l.status.missed(int64(gap.To - gap.From + 1))
		l.logger.Warn("records are gone from the log before they were sent", "stream", l.stream, "shard", gap.Shard.String(),
			"from", uint64(gap.From), "to", uint64(gap.To), "reason", string(gap.Reason))
	}
}

// send hands one batch of a shard to the sink, once, and settles what became
// of it. What was not accepted stays in the cursor. An error is about the log.
func (l *line) send(ctx context.Context, c *cursor) error {
	n, _ := l.config.Batch.cut(c.waiting)
	if c.limit > 0 {
		n = min(n, c.limit)
	}
	batch := Batch{Node: l.node, Entries: c.waiting[:n]}
	l.status.sending(n)
	late, cancel := graceful(ctx)
	sendErr := l.sink.Send(late, batch)
	cancel()
	l.status.sending(-n)

	out := judge(n, sendErr)
	for _, i := range slices.Sorted(maps.Keys(out.refuse)) {
		if err := l.setAside(ctx, &batch.Entries[i], out.refuse[i]); err != nil {
			// Not set aside, so not settled: the whole batch is read back.
			l.sure = false
			return err
		}
	}
	l.account(batch.Entries, out)
	l.steer(c, n, out, sendErr)
	if out.unsure {
		return nil
	}
	before := c.position()
	c.keep(n, out.rest)
	if c.position() == before {
		return nil
	}
	return l.commit(ctx, l.stream, map[buffer.ShardKey]buffer.Sequence{c.key: c.position()}, l.reached())
}

// reached is the mark behind all that is settled.
func (l *line) reached() Mark {
	if l.resumer == nil {
		return ""
	}
	return l.resumer.Mark(l.node, l.stream)
}

// account counts what was accepted.
func (l *line) account(entries []buffer.Entry, out outcome) {
	accepted, bytes := 0, 0
	for i := range entries {
		if _, refused := out.refuse[i]; refused || slices.Contains(out.rest, i) {
			continue
		}
		accepted++
		bytes += entryBytes(&entries[i])
	}
	if accepted > 0 {
		l.status.sent(accepted, bytes)
	}
}

// steer decides what the outcome of a send means for the next one.
func (l *line) steer(c *cursor, n int, out outcome, sendErr error) {
	switch {
	case out.unsure:
		l.sure = false
		l.wait(sendErr, out.after)
	case out.failed:
		l.status.fail(l.stream, sendErr, l.logger)
		c.notBefore = time.Now().Add(c.pause.next(l.config, out.after))
	case out.split:
		c.limit = max(1, n/2)
	default:
		if c.limit *= 2; c.limit >= l.config.Batch.MaxRecords {
			c.limit = 0
		}
		l.pause.reset()
		c.pause.reset()
		l.status.works(l.stream, l.logger)
	}
}

// resume asks the destination what it holds of the stream and moves all
// cursors behind that. If the destination does not answer it returns how long
// to wait before it is asked again. An error is about the log.
func (l *line) resume(ctx context.Context) (wait time.Duration, err error) {
	if l.resumer == nil {
		l.sure = true
		return 0, nil
	}
	late, cancel := graceful(ctx)
	tail, err := l.resumer.Tail(late, l.node, l.stream, l.mark(l.stream))
	cancel()
	if err != nil {
		return l.wait(fmt.Errorf("read back stream %s: %w", l.stream, err), 0), nil
	}
	for shard, last := range tail.Last {
		ours, err := l.ours(ctx, shard, last)
		if err != nil {
			return 0, err
		}
		if c := l.cursors[shard]; ours {
			l.status.skipped(c.skip(last.Sequence + 1))
		}
	}
	positions := make(map[buffer.ShardKey]buffer.Sequence)
	for _, c := range l.cursors {
		positions[c.key] = c.position()
	}
	if err := l.commit(ctx, l.stream, positions, tail.Mark); err != nil {
		return 0, err
	}
	l.sure = true
	return 0, nil
}

// ours says whether the record that the destination holds is the one the log
// has under that id. It is not if the node started over with an empty log.
func (l *line) ours(ctx context.Context, shard buffer.ShardID, last Last) (bool, error) {
	c := l.cursors[shard]
	if c == nil || last.Sequence < c.position() {
		return false, nil // nothing to skip
	}
	next, err := l.log.Find(l.stream, shard, buffer.Start{Kind: buffer.Latest})
	if err != nil {
		return false, fmt.Errorf("find the end of %s of stream %s: %w", shard, l.stream, err)
	}
	same := last.Sequence < next
	if same && !last.Arrival.IsZero() {
		page, err := l.log.Read(ctx, l.stream, buffer.Position{Shard: shard, Sequence: last.Sequence}, buffer.Limit{MaxRecords: 1})
		if err != nil {
			return false, fmt.Errorf("read %s of stream %s: %w", shard, l.stream, err)
		}
		if len(page.Entries) > 0 && page.Entries[0].Sequence == last.Sequence {
			same = page.Entries[0].Arrival.UnixMilli() == last.Arrival.UnixMilli()
		}
	}
	if !same {
		l.status.foreign()
		l.logger.Warn("the destination holds other records under the ids of this node; a new log needs a new node id",
			"stream", l.stream, "shard", shard.String(), "sequence", uint64(last.Sequence))
	}
	return same, nil
}
