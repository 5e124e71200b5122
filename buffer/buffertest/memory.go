// Package buffertest is the contract of the shard log as a suite: what the
// comments in package buffer promise, checked on any implementation. The main
// functions are Run, which goes through the promises one by one, and CheckModel,
// which does random things to a log and to a model of it and compares.
//
// Memory is the model: a log in maps and slices, with its own idea of
// routing and reading, and nothing on disk. It is also what tests of other
// packages use in place of a real log. It passes the suite itself.
//
// What a power cut leaves is not checked here; buffer/crash_test.go does.
package buffertest

import (
	"context"
	"crypto/md5" // Kinesis routes by MD5
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// Log is what the suite checks.
type Log interface {
	buffer.Writer
	buffer.Reader
	buffer.Committer
	buffer.Catalog
	Close() error
}

// Memory is a log in memory. Safe for concurrent use.
type Memory struct {
	mu        sync.Mutex
	streams   map[string]*stream
	consumers map[string]*buffer.Checkpoint
	news      chan struct{}
	closed    bool
	failure   error
}

var _ Log = (*Memory)(nil)

type stream struct {
	config  buffer.StreamConfig
	created time.Time
	shards  [][]buffer.Entry // sequence n is at n-1
	first   []buffer.Sequence
	reasons [][]buffer.Gap
}

// NewLog returns an empty log with these streams.
func NewLog(streams map[string]buffer.StreamConfig) *Memory {
	m := &Memory{streams: map[string]*stream{}, consumers: map[string]*buffer.Checkpoint{}, news: make(chan struct{})}
	for name, config := range streams {
		m.create(name, config)
	}
	return m
}

// Fail makes every append return err, until Fail(nil).
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}

// DropBefore takes the records of a shard before next away, as retention does.
func (m *Memory) DropBefore(name string, shard buffer.ShardID, next buffer.Sequence, reason buffer.GapReason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[name]
	if from := s.first[shard]; next > from {
		s.reasons[shard] = append(s.reasons[shard], buffer.Gap{Stream: name, Shard: shard, From: from, To: next - 1, Reason: reason, At: time.Now()})
		s.first[shard] = next
	}
}

func (m *Memory) create(name string, config buffer.StreamConfig) *stream {
	if config.Kind == "" {
		config.Kind = buffer.Data
	}
	s := &stream{config: config, created: time.Now(), shards: make([][]buffer.Entry, config.Shards),
		first: make([]buffer.Sequence, config.Shards), reasons: make([][]buffer.Gap, config.Shards)}
	for i := range s.first {
		s.first[i] = 1
	}
	m.streams[name] = s
	return s
}

// route finds the shard of a key with big integers: floor(2^128/n) to each,
// the rest to the last.
func route(key string, shards int) buffer.ShardID {
	sum := md5.Sum([]byte(key))
	step := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(shards)))
	n := new(big.Int).Div(new(big.Int).SetBytes(sum[:]), step).Int64()
	return buffer.ShardID(min(n, int64(shards-1)))
}

func check(r *buffer.Record) error {
	size := len(r.Data) + len(r.PartitionKey)
	bytes := 0
	for _, a := range r.Attributes {
		if a.Key == "" || !utf8.ValidString(a.Key) || !utf8.ValidString(a.Value) {
			return buffer.ErrInvalid
		}
		bytes += len(a.Key) + len(a.Value)
	}
	switch {
	case r.PartitionKey == "" || !utf8.ValidString(r.PartitionKey):
		return buffer.ErrInvalid
	case (r.Part == buffer.Closing) != (r.Index != nil) || r.Part > buffer.Closing:
		return buffer.ErrInvalid
	case r.Index != nil && r.Index.End.Before(r.Index.Start):
		return buffer.ErrInvalid
	case utf8.RuneCountInString(r.PartitionKey) > buffer.MaxPartitionKeyChars, len(r.Attributes) > buffer.MaxAttributes,
		bytes > buffer.MaxAttributeBytes, r.Part == buffer.Whole && size+bytes > buffer.DefaultRecordBytes,
		r.Part == buffer.Piece && len(r.Data) > buffer.MaxPartBytes, r.Index != nil && len(r.Index.Value) > buffer.MaxIndexValueBytes:
		return buffer.ErrTooLarge
	}
	return nil
}

// Append appends. See buffer.Writer.
func (m *Memory) Append(ctx context.Context, name string, records ...buffer.Record) ([]buffer.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.append(ctx, name, records)
}

func (m *Memory) append(ctx context.Context, name string, records []buffer.Record) ([]buffer.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.closed {
		return nil, buffer.ErrClosed
	}
	if m.failure != nil {
		return nil, m.failure
	}
	for i := range records {
		if err := check(&records[i]); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
	}
	s := m.streams[name]
	if s == nil {
		if err := buffer.CheckName(name); err != nil {
			return nil, err
		}
		s = m.create(name, buffer.DefaultStreamConfig(buffer.Data))
	}
	var positions []buffer.Position
	for _, r := range records {
		shard := route(r.PartitionKey, len(s.shards))
		r.Data = slices.Clone(r.Data)
		r.Attributes = slices.Clone(r.Attributes)
		if r.Arrival.IsZero() {
			r.Arrival = time.Now()
		}
		r.Arrival = time.UnixMilli(r.Arrival.UnixMilli())
		if r.Index != nil {
			index := *r.Index
			index.Value = slices.Clone(index.Value)
			r.Index = &index
		}
		seq := buffer.Sequence(len(s.shards[shard]) + 1)
		s.shards[shard] = append(s.shards[shard], buffer.Entry{Stream: name, Shard: shard, Sequence: seq, Record: r})
		positions = append(positions, buffer.Position{Shard: shard, Sequence: seq})
	}
	close(m.news)
	m.news = make(chan struct{})
	return positions, nil
}

func (m *Memory) shard(name string, id buffer.ShardID) (*stream, error) {
	s := m.streams[name]
	if s == nil || int(id) >= len(s.shards) {
		return nil, fmt.Errorf("%s of stream %q: %w", id, name, buffer.ErrNotFound)
	}
	return s, nil
}

// Read reads. See buffer.Reader.
func (m *Memory) Read(_ context.Context, name string, from buffer.Position, limit buffer.Limit) (buffer.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return buffer.Page{}, buffer.ErrClosed
	}
	s, err := m.shard(name, from.Shard)
	if err != nil {
		return buffer.Page{}, err
	}
	if limit.MaxRecords <= 0 {
		limit.MaxRecords = 1000
	}
	if limit.MaxBytes <= 0 {
		limit.MaxBytes = 1 << 20
	}
	page := buffer.Page{Next: max(from.Sequence, 1)}
	if first := s.first[from.Shard]; page.Next < first {
		for _, g := range s.reasons[from.Shard] {
			if g.To >= page.Next {
				g.From = max(g.From, page.Next)
				page.Gaps = append(page.Gaps, g)
			}
		}
		page.Next = first
	}
	entries, bytes := s.shards[from.Shard], 0
	for ; int(page.Next) <= len(entries); page.Next++ {
		e := entries[page.Next-1]
		size := len(e.Data) + len(e.PartitionKey)
		if len(page.Entries) > 0 && (len(page.Entries) >= limit.MaxRecords || bytes+size > limit.MaxBytes) {
			return page, nil
		}
		bytes += size
		page.Entries = append(page.Entries, e)
	}
	page.AtEnd = true
	return page, nil
}

// Find finds. See buffer.Reader.
func (m *Memory) Find(name string, shard buffer.ShardID, start buffer.Start) (buffer.Sequence, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.shard(name, shard)
	if err != nil {
		return 0, err
	}
	first, next := s.first[shard], buffer.Sequence(len(s.shards[shard])+1)
	switch start.Kind {
	case buffer.TrimHorizon:
		return first, nil
	case buffer.Latest:
		return next, nil
	case buffer.AtSequence:
		return min(max(start.Sequence, first), next), nil
	case buffer.AfterSequence:
		return min(max(start.Sequence+1, first), next), nil
	}
	for seq := first; seq < next; seq++ {
		if !s.shards[shard][seq-1].Arrival.Before(start.Time) {
			return seq, nil
		}
	}
	return next, nil
}

// News tells of the next commit. See buffer.Reader.
func (m *Memory) News() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

// Closings lists completed runs. See buffer.Reader.
func (m *Memory) Closings(name string, shard buffer.ShardID, from, to time.Time, after buffer.Sequence, limit int) ([]buffer.Closed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.shard(name, shard)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = 1000
	}
	var list []buffer.Closed
	for _, e := range s.shards[shard] {
		if e.Part != buffer.Closing || e.Sequence <= after || len(list) == limit {
			continue
		}
		c := buffer.Closed{Index: *e.Index, Shard: shard, First: e.Sequence - buffer.Sequence(e.Index.Pieces), Last: e.Sequence}
		instant := c.Start.Equal(c.End) && !c.Start.Before(from)
		if c.First >= s.first[shard] && c.Start.Before(to) && (c.End.After(from) || instant) {
			list = append(list, c)
		}
	}
	return list, nil
}

// Commit moves a consumer on. See buffer.Committer.
func (m *Memory) Commit(ctx context.Context, c buffer.Commit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := buffer.CheckName(c.Consumer); err != nil {
		return err
	}
	if m.closed {
		return buffer.ErrClosed
	}
	if len(c.State) > buffer.MaxStateBytes {
		return buffer.ErrTooLarge
	}
	for key := range c.Positions {
		if _, err := m.shard(key.Stream, key.Shard); err != nil {
			return err
		}
	}
	for _, a := range c.Appends {
		if _, err := m.append(ctx, a.Stream, a.Records); err != nil {
			return err
		}
	}
	state := m.consumers[c.Consumer]
	if state == nil {
		state = &buffer.Checkpoint{Positions: map[buffer.ShardKey]buffer.Sequence{}}
		m.consumers[c.Consumer] = state
	}
	maps.Copy(state.Positions, c.Positions)
	if c.State != nil {
		state.State = slices.Clone(c.State)
	}
	return nil
}

// Checkpoint returns a consumer's place. See buffer.Committer.
func (m *Memory) Checkpoint(consumer string) (buffer.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.consumers[consumer]
	if c == nil {
		return buffer.Checkpoint{}, buffer.ErrNotFound
	}
	return buffer.Checkpoint{Positions: maps.Clone(c.Positions), State: slices.Clone(c.State)}, nil
}

// CreateStream makes a stream or changes its policy. See buffer.Catalog.
func (m *Memory) CreateStream(_ context.Context, name string, config buffer.StreamConfig) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := buffer.CheckName(name); err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return fmt.Errorf("%w: %w", buffer.ErrInvalid, err)
	}
	if m.closed {
		return buffer.ErrClosed
	}
	if s := m.streams[name]; s != nil {
		config.Shards = len(s.shards)
		s.config = config
		return nil
	}
	m.create(name, config)
	return nil
}

// Streams lists the streams. See buffer.Catalog.
func (m *Memory) Streams() []buffer.StreamInfo {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.streams))
	m.mu.Unlock()
	var list []buffer.StreamInfo
	for _, name := range names {
		if info, err := m.Stream(name); err == nil {
			list = append(list, info)
		}
	}
	return list
}

// Stream describes a stream. See buffer.Catalog.
func (m *Memory) Stream(name string) (buffer.StreamInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[name]
	if s == nil {
		return buffer.StreamInfo{}, buffer.ErrNotFound
	}
	info := buffer.StreamInfo{Name: name, Config: s.config, Created: s.created}
	for i, entries := range s.shards {
		shard := buffer.ShardInfo{ID: buffer.ShardID(i), First: s.first[i], Next: buffer.Sequence(len(entries) + 1)}
		for _, e := range entries[s.first[i]-1:] {
			shard.Bytes += int64(len(e.Data) + len(e.PartitionKey))
			if shard.FirstArrival.IsZero() {
				shard.FirstArrival = e.Arrival
			}
			shard.LastArrival = e.Arrival
		}
		info.Shards = append(info.Shards, shard)
	}
	return info, nil
}

// Consumers lists the consumers. See buffer.Catalog.
func (m *Memory) Consumers() []buffer.ConsumerInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []buffer.ConsumerInfo
	for _, name := range slices.Sorted(maps.Keys(m.consumers)) {
		info := buffer.ConsumerInfo{Name: name}
		for key, position := range m.consumers[name].Positions {
			s := m.streams[key.Stream]
			from := max(position, s.first[key.Shard])
			lag := buffer.Lag{ShardKey: key, Position: position, Records: max(0, int64(len(s.shards[key.Shard]))-int64(from)+1)}
			if lag.Records > 0 {
				lag.Bytes, lag.Behind = 1, max(time.Since(s.shards[key.Shard][from-1].Arrival), 1)
			}
			info.Lags = append(info.Lags, lag)
		}
		slices.SortFunc(info.Lags, func(a, b buffer.Lag) int {
			if a.Stream != b.Stream {
				return map[bool]int{true: -1, false: 1}[a.Stream < b.Stream]
			}
			return int(a.Shard) - int(b.Shard)
		})
		list = append(list, info)
	}
	return list
}

// DeleteConsumer forgets a consumer. See buffer.Catalog.
func (m *Memory) DeleteConsumer(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.consumers[name] == nil {
		return buffer.ErrNotFound
	}
	delete(m.consumers, name)
	return nil
}

// Close closes the log.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return buffer.ErrClosed
	}
	m.closed = true
	return nil
}
