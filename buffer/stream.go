package buffer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// streamState is a stream in memory.
type streamState struct {
	log     *Log
	number  uint32
	name    string
	created time.Time
	starts  []hashKey // first hash key of each shard
	shards  []*shardState
	policy  atomic.Pointer[StreamConfig]

	// mu is held for reading while a request is handed to the chain, and for
	// writing while the stream changes to another one.
	mu    sync.RWMutex
	chain *chain
}

func (s *streamState) config() StreamConfig { return *s.policy.Load() }

func (s *streamState) meta() *metaStream {
	return &metaStream{Number: s.number, Name: s.name, Created: s.created, Config: s.config()}
}

// shardOf finds the shard of a partition key.
func (s *streamState) shardOf(partitionKey string) *shardState {
	if len(s.starts) == 1 {
		return s.shards[0]
	}
	return s.shards[shardOf(s.starts, hashOf(partitionKey))]
}

// enqueue hands r to the chain of the stream.
func (s *streamState) enqueue(r *request) (*chain, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.chain, s.chain.enqueue(r)
}

// streamOrDefault finds the stream or makes it with the defaults.
func (l *Log) streamOrDefault(name string) (*streamState, error) {
	l.mu.RLock()
	st, closed := l.streams[name], l.closed
	l.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	if st != nil {
		return st, nil
	}
	if err := l.setStream(name, DefaultStreamConfig(Data), false); err != nil {
		return nil, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.streams[name], nil
}

// CreateStream makes a stream or changes its policy. See Catalog.
func (l *Log) CreateStream(_ context.Context, name string, config StreamConfig) error {
	if err := l.setStream(name, config, true); err != nil {
		return fmt.Errorf("create stream %q: %w", name, err)
	}
	return nil
}

// setStream makes the stream name, or with change gives it a new policy.
func (l *Log) setStream(name string, config StreamConfig, change bool) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if config.Kind == "" {
		config.Kind = Data
	}
	if config.Kind != Data && config.Kind != Video {
		return fmt.Errorf("%w: kind %q of a stream is not known", ErrInvalid, config.Kind)
	}
	if err := config.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	l.mu.RLock()
	st, closed := l.streams[name], l.closed
	l.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case st == nil:
		return l.newStream(name, config)
	case !change:
		return nil
	}
	config.Shards = len(st.shards)
	if config == st.config() {
		return nil
	}
	return l.changeStream(st, config)
}

// newStream makes a stream. streamMu is held.
func (l *Log) newStream(name string, config StreamConfig) error {
	l.mu.RLock()
	number := uint32(1)
	for _, s := range l.streams {
		number = max(number, s.number+1)
	}
	l.mu.RUnlock()
	_, now := l.clock.now()
	m := &metaStream{Number: number, Name: name, Created: now.wall.UTC(), Config: config}
	c, err := l.chainFor(policyOf(name, config))
	if err != nil {
		return err
	}
	return l.metaAppend(func() {
		l.addStream(m)
		l.streams[name].chain = c
	}, metaEntry{Stream: m})
}

// changeStream gives st a new policy. When that means another chain, what was
// handed to the old one is waited for first, so that numbers keep their order.
func (l *Log) changeStream(st *streamState, config StreamConfig) error {
	c, err := l.chainFor(policyOf(st.name, config))
	if err != nil {
		return err
	}
	m := st.meta()
	m.Config = config
	st.mu.Lock()
	defer st.mu.Unlock()
	if c != st.chain {
		barrier := &request{done: make(chan error, 1)}
		if err := st.chain.enqueue(barrier); err != nil {
			return err
		}
		if err := <-barrier.done; err != nil {
			return err
		}
	}
	return l.metaAppend(func() {
		st.policy.Store(&config)
		st.chain = c
	}, metaEntry{Stream: m})
}

// addStream takes a stream into memory. Log.mu is held, or Open runs.
func (l *Log) addStream(m *metaStream) {
	config := m.Config
	if st := l.streams[m.Name]; st != nil {
		st.policy.Store(&config)
		return
	}
	st := &streamState{log: l, number: m.Number, name: m.Name, created: m.Created, starts: shardRanges(max(config.Shards, 1))}
	st.policy.Store(&config)
	for i := range st.starts {
		s := l.shardFor(shardNumber{m.Number, ShardID(i)})
		s.stream = st
		st.shards = append(st.shards, s)
	}
	l.streams[m.Name] = st
	l.byNumber[m.Number] = st
}

// shardFor returns the state of a shard, making it if need be. Log.mu is held,
// or Open runs.
func (l *Log) shardFor(n shardNumber) *shardState {
	s := l.shards[n]
	if s == nil {
		s = &shardState{number: n, assign: 1, first: 1, next: 1}
		l.shards[n] = s
	}
	return s
}

// shard finds a shard by name.
func (l *Log) shard(stream string, id ShardID) (*shardState, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	st := l.streams[stream]
	if st == nil {
		return nil, fmt.Errorf("stream %q: %w", stream, ErrNotFound)
	}
	if int(id) >= len(st.shards) {
		return nil, fmt.Errorf("%s of stream %q: %w", id, stream, ErrNotFound)
	}
	return st.shards[id], nil
}

// Streams lists the streams by name.
func (l *Log) Streams() []StreamInfo {
	l.mu.RLock()
	names := slices.Sorted(maps.Keys(l.streams))
	l.mu.RUnlock()
	list := make([]StreamInfo, 0, len(names))
	for _, name := range names {
		if info, err := l.Stream(name); err == nil {
			list = append(list, info)
		}
	}
	return list
}

// Stream describes one stream.
func (l *Log) Stream(name string) (StreamInfo, error) {
	l.mu.RLock()
	st := l.streams[name]
	l.mu.RUnlock()
	if st == nil {
		return StreamInfo{}, fmt.Errorf("stream %q: %w", name, ErrNotFound)
	}
	info := StreamInfo{Name: name, Config: st.config(), Created: st.created}
	for i, s := range st.shards {
		info.Shards = append(info.Shards, l.describe(s, st.starts[i], endOf(st.starts, i)))
	}
	return info, nil
}

func (l *Log) describe(s *shardState, start, end hashKey) ShardInfo {
	l.mu.RLock()
	info := ShardInfo{
		ID: s.number.shard, HashKeyStart: start.String(), HashKeyEnd: end.String(),
		First: s.first, Next: s.next,
	}
	empty, latest, bytes := s.empty(), s.latest, s.bytes
	l.mu.RUnlock()
	if empty {
		return info
	}
	info.LastArrival = time.UnixMilli(latest)
	// An index that cannot be read leaves these two unknown; reading tells why.
	if refs, err := l.refs(s, info.First, 1); err == nil && len(refs) > 0 {
		info.Bytes = bytes - refs[0].before
		info.FirstArrival = time.UnixMilli(refs[0].oldest)
	}
	return info
}
