package video_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// memLog is the log of these tests: in memory, strict about what a piece and a
// closing record are.
type memLog struct {
	mu      sync.Mutex
	entries []buffer.Entry
	closed  []buffer.Closed
	fail    func(records []buffer.Record) error
	news    chan struct{}
}

func newMemLog() *memLog { return &memLog{news: make(chan struct{})} }

func (m *memLog) Append(_ context.Context, stream string, records ...buffer.Record) ([]buffer.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(records); err != nil {
			return nil, err
		}
	}
	var out []buffer.Position
	for _, r := range records {
		if len(r.Data) > buffer.MaxPartBytes || r.PartitionKey == "" || len(r.Data) == 0 {
			return nil, fmt.Errorf("a record of %d bytes", len(r.Data))
		}
		sequence := buffer.Sequence(len(m.entries) + 1)
		r.Data = bytes.Clone(r.Data)
		m.entries = append(m.entries, buffer.Entry{Stream: stream, Sequence: sequence, Record: r})
		out = append(out, buffer.Position{Sequence: sequence})
		if r.Part != buffer.Closing {
			continue
		}
		if len(r.Index.Value) > buffer.MaxIndexValueBytes || r.Index.End.Before(r.Index.Start) {
			return nil, fmt.Errorf("index of %d bytes from %s to %s", len(r.Index.Value), r.Index.Start, r.Index.End)
		}
		index := *r.Index
		index.Start, index.End = index.Start.Truncate(time.Millisecond), index.End.Truncate(time.Millisecond)
		m.closed = append(m.closed, buffer.Closed{Index: index, First: sequence - buffer.Sequence(index.Pieces), Last: sequence})
	}
	close(m.news)
	m.news = make(chan struct{})
	return out, nil
}

func (m *memLog) Read(_ context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page buffer.Page
	size := 0
	for _, e := range m.entries[max(from.Sequence, 1)-1:] {
		if size += len(e.Data); len(page.Entries) > 0 && (len(page.Entries) >= limit.MaxRecords || limit.MaxBytes > 0 && size > limit.MaxBytes) {
			break
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

func (m *memLog) Closings(stream string, _ buffer.ShardID, from, to time.Time, after buffer.Sequence, max int) ([]buffer.Closed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) == 0 || m.entries[0].Stream != stream {
		return nil, fmt.Errorf("stream %q: %w", stream, buffer.ErrNotFound)
	}
	var out []buffer.Closed
	for _, c := range m.closed {
		if c.Last > after && c.Start.Before(to) && c.End.After(from) && len(out) < max {
			out = append(out, c)
		}
	}
	return out, nil
}

// refuse lets fail refuse appends from now on.
func (m *memLog) refuse(fail func([]buffer.Record) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// forget takes the oldest n fragments away, as retention does.
func (m *memLog) forget(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = m.closed[n:]
}

// fragments is how many there are, and a channel that is closed at the next
// append.
func (m *memLog) fragments() (int, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.closed), m.news
}
