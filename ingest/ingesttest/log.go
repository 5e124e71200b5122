package ingesttest

import (
	"context"
	"fmt"
	"sync"

	"github.com/weir-edge/weir/buffer"
)

// Log is a log in memory that does what a test tells it: hold appends back, be
// full, refuse records. It has what sources use of buffer.Log, with one shard
// a stream. A stream exists from its first record on. Safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	streams map[string][]buffer.Entry
	held    chan struct{} // appends wait until it is closed; nil: they do not
	waiting int
	full    bool
	refused int
	refuse  func(stream string, r *buffer.Record) error
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{streams: make(map[string][]buffer.Entry)} }

// Hold makes appends wait until release is called: nothing gets durable.
func (l *Log) Hold() (release func()) {
	held := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.held = nil
		close(held)
	})
}

// Fill makes appends fail with buffer.ErrFull, or no longer.
func (l *Log) Fill(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = full
}

// Refuse makes an append fail if fn returns an error for one of its records.
func (l *Log) Refuse(fn func(stream string, r *buffer.Record) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = fn
}

// Waiting is how many appends are held back at the moment.
func (l *Log) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// Refused is how many appends met a full log.
func (l *Log) Refused() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Entries returns what a stream holds.
func (l *Log) Entries(stream string) []buffer.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]buffer.Entry(nil), l.streams[stream]...)
}

// Append is buffer.Writer's.
func (l *Log) Append(ctx context.Context, stream string, records ...buffer.Record) ([]buffer.Position, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		l.refused++
		return nil, fmt.Errorf("append to stream %s: %w", stream, buffer.ErrFull)
	}
	for i := range records {
		if l.refuse == nil {
			break
		}
		if err := l.refuse(stream, &records[i]); err != nil {
			return nil, fmt.Errorf("append to stream %s: record %d: %w", stream, i, err)
		}
	}
	var out []buffer.Position
	for _, r := range records {
		r.Data = append([]byte(nil), r.Data...) // the caller's again after this call
		r.Attributes = append([]buffer.Attribute(nil), r.Attributes...)
		e := buffer.Entry{Stream: stream, Sequence: buffer.Sequence(len(l.streams[stream]) + 1), Record: r}
		l.streams[stream] = append(l.streams[stream], e)
		out = append(out, buffer.Position{Sequence: e.Sequence})
	}
	return out, nil
}

func (l *Log) wait(ctx context.Context) error {
	l.mu.Lock()
	held := l.held
	if held == nil {
		l.mu.Unlock()
		return ctx.Err()
	}
	l.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waiting--
	}()
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read is buffer.Reader's; limit is ignored.
func (l *Log) Read(_ context.Context, stream string, from buffer.Position, _ buffer.Limit) (buffer.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.streams[stream]
	at := min(max(int(from.Sequence), 1)-1, len(list))
	return buffer.Page{Entries: append([]buffer.Entry(nil), list[at:]...), Next: buffer.Sequence(len(list) + 1), AtEnd: true}, nil
}

// Find is buffer.Reader's; it knows the oldest record only.
func (l *Log) Find(string, buffer.ShardID, buffer.Start) (buffer.Sequence, error) { return 1, nil }

// Stream is buffer.Catalog's.
func (l *Log) Stream(name string) (buffer.StreamInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.streams[name]
	if len(list) == 0 {
		return buffer.StreamInfo{}, fmt.Errorf("stream %s: %w", name, buffer.ErrNotFound)
	}
	shard := buffer.ShardInfo{First: 1, Next: buffer.Sequence(len(list) + 1)}
	for i := range list {
		shard.Bytes += int64(len(list[i].Data))
	}
	return buffer.StreamInfo{Name: name, Shards: []buffer.ShardInfo{shard}}, nil
}
