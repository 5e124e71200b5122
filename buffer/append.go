package buffer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Append stores records in stream. See Writer.
func (l *Log) Append(ctx context.Context, stream string, records ...Record) ([]Position, error) {
	if len(records) == 0 {
		return nil, nil
	}
	positions, err := l.append(ctx, stream, records)
	if err != nil {
		return nil, fmt.Errorf("append to stream %q: %w", stream, err)
	}
	return positions, nil
}

func (l *Log) append(ctx context.Context, stream string, records []Record) ([]Position, error) {
	size, err := l.checkRecords(records)
	if err != nil {
		return nil, err
	}
	st, err := l.streamOrDefault(stream)
	if err != nil {
		return nil, err
	}
	if err := l.reserve(ctx, size); err != nil {
		return nil, err
	}
	r := &request{
		parts: []requestPart{{stream: st, records: records, positions: make([]Position, len(records))}},
		bytes: size, done: make(chan error, 1),
	}
	c, err := st.enqueue(r)
	if err != nil {
		l.release(size)
		return nil, err
	}
	if err := c.wait(ctx, r); err != nil {
		return nil, err
	}
	return r.parts[0].positions, nil
}

// commitAppends is the part of Commit that also appends.
func (l *Log) commitAppends(ctx context.Context, c Commit) error {
	r := &request{consumer: &c, done: make(chan error, 1)}
	var name string
	for _, a := range c.Appends {
		size, err := l.checkRecords(a.Records)
		if err != nil {
			return fmt.Errorf("append to stream %q: %w", a.Stream, err)
		}
		st, err := l.streamOrDefault(a.Stream)
		if err != nil {
			return fmt.Errorf("append to stream %q: %w", a.Stream, err)
		}
		own := policyOf(a.Stream, st.config()).name()
		if name != "" && own != name {
			return fmt.Errorf("%w: streams %q and %q have different classes (%s, %s) and cannot share one commit",
				ErrInvalid, c.Appends[0].Stream, a.Stream, name, own)
		}
		name = own
		r.parts = append(r.parts, requestPart{stream: st, records: a.Records, positions: make([]Position, len(a.Records))})
		r.bytes += size
	}
	r.bytes += int64(len(c.State))
	if r.bytes > MaxAppendBytes {
		return fmt.Errorf("%w: %d bytes in one commit are over the limit of %d", ErrTooLarge, r.bytes, MaxAppendBytes)
	}
	if err := l.reserve(ctx, r.bytes); err != nil {
		return err
	}
	ch, err := r.parts[0].stream.enqueue(r)
	if err != nil {
		l.release(r.bytes)
		return err
	}
	return ch.wait(ctx, r)
}

// consumerFrame is the frame that carries a consumer's new place. The
// committer calls it, so that versions grow in the order of the file.
func (l *Log) consumerFrame(c *Commit) (*frame, error) {
	l.mu.RLock()
	next := l.nextConsumerLocked(*c)
	l.mu.RUnlock()
	body, err := json.Marshal(next)
	if err != nil {
		return nil, fmt.Errorf("encode consumer %s: %w", c.Consumer, err)
	}
	return &frame{kind: frameConsumer, body: body, raw: uint32(len(body)), consumer: next}, nil
}

func (l *Log) checkRecords(records []Record) (int64, error) {
	if len(records) > MaxAppendRecords {
		return 0, fmt.Errorf("%w: %d records in one append are over the limit of %d", ErrTooLarge, len(records), MaxAppendRecords)
	}
	var size int64
	for i := range records {
		if err := checkRecord(&records[i], int64(l.config.MaxRecordBytes)); err != nil {
			return 0, fmt.Errorf("record %d: %w", i, err)
		}
		size += recordSize(&records[i])
	}
	if size > MaxAppendBytes {
		return 0, fmt.Errorf("%w: %d bytes in one append are over the limit of %d", ErrTooLarge, size, MaxAppendBytes)
	}
	return size, nil
}

// reserve takes size bytes of the memory for appends, or waits a bounded time
// for them. An append larger than all of it goes alone.
func (l *Log) reserve(ctx context.Context, size int64) error {
	var timeout <-chan time.Time
	for {
		room := l.room.wait()
		l.pendingMu.Lock()
		fits := l.pending == 0 || l.pending+size <= int64(l.config.MaxPendingBytes)
		if fits {
			l.pending += size
		}
		l.pendingMu.Unlock()
		if fits {
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(l.config.AppendWait.Std())
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-room:
		case <-timeout:
			l.counters.refused.Add(1)
			return fmt.Errorf("%w: over %s wait for the disk", ErrFull, l.config.MaxPendingBytes)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) release(size int64) {
	l.pendingMu.Lock()
	l.pending -= size
	l.pendingMu.Unlock()
	l.room.broadcast()
}
