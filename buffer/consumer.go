package buffer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// consumerState is a consumer in memory. Guarded by Log.mu.
type consumerState struct {
	name      string
	version   uint64 // of positions and state; greater is newer
	positions map[ShardKey]Sequence
	state     []byte
	stored    uint64 // the version Badger has
	copied    uint64 // the version the meta chain has
}

// consumerRecord is a consumer as it is stored.
type consumerRecord struct {
	Name      string             `json:"name"`
	Version   uint64             `json:"version"`
	Positions []consumerPosition `json:"positions"`
	State     []byte             `json:"state,omitempty"`
}

type consumerPosition struct {
	Stream   string   `json:"stream"`
	Shard    ShardID  `json:"shard"`
	Sequence Sequence `json:"sequence"`
}

func (c *consumerState) record() *consumerRecord {
	r := &consumerRecord{Name: c.name, Version: c.version, State: c.state}
	for _, key := range slices.SortedFunc(maps.Keys(c.positions), compareShardKeys) {
		r.Positions = append(r.Positions, consumerPosition{key.Stream, key.Shard, c.positions[key]})
	}
	return r
}

func compareShardKeys(a, b ShardKey) int {
	if n := strings.Compare(a.Stream, b.Stream); n != 0 {
		return n
	}
	return int(a.Shard) - int(b.Shard)
}

// applyConsumer takes a stored consumer over if it is newer than what is
// known. Log.mu is held, or Open runs.
func (l *Log) applyConsumer(r *consumerRecord) {
	c := l.consumers[r.Name]
	if c == nil {
		c = &consumerState{name: r.Name}
		l.consumers[r.Name] = c
	} else if r.Version <= c.version {
		return
	}
	c.version, c.state = r.Version, r.State
	c.positions = make(map[ShardKey]Sequence, len(r.Positions))
	for _, p := range r.Positions {
		c.positions[ShardKey{p.Stream, p.Shard}] = p.Sequence
	}
}

// Commit moves a consumer on. See the type Commit. The streams of
// Commit.Appends must share a chain (FORMAT.md), else it is ErrInvalid: what
// is to be one commit must be in one file.
func (l *Log) Commit(ctx context.Context, c Commit) error {
	if err := CheckName(c.Consumer); err != nil {
		return fmt.Errorf("commit of consumer %q: %w", c.Consumer, err)
	}
	if len(c.State) > MaxStateBytes {
		return fmt.Errorf("commit of consumer %s: %w: state of %d bytes is over the limit of %d", c.Consumer, ErrTooLarge, len(c.State), MaxStateBytes)
	}
	if err := l.checkPositions(c.Positions); err != nil {
		return fmt.Errorf("commit of consumer %s: %w", c.Consumer, err)
	}
	if len(c.Appends) > 0 {
		if err := l.commitAppends(ctx, c); err != nil {
			return fmt.Errorf("commit of consumer %s: %w", c.Consumer, err)
		}
		return nil
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.applyConsumer(l.nextConsumerLocked(c))
	l.mu.Unlock()
	l.dirty.broadcast()
	return nil
}

func (l *Log) checkPositions(positions map[ShardKey]Sequence) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for key := range positions {
		st := l.streams[key.Stream]
		if st == nil || int(key.Shard) >= len(st.shards) {
			return fmt.Errorf("position in %s of stream %q: %w", key.Shard, key.Stream, ErrNotFound)
		}
	}
	return nil
}

// nextConsumerLocked is what the consumer will be after c.
func (l *Log) nextConsumerLocked(c Commit) *consumerRecord {
	next := &consumerState{name: c.Consumer, positions: map[ShardKey]Sequence{}}
	if old := l.consumers[c.Consumer]; old != nil {
		next.version, next.state = old.version, old.state
		maps.Copy(next.positions, old.positions)
	}
	next.version++
	maps.Copy(next.positions, c.Positions)
	if c.State != nil {
		next.state = slices.Clone(c.State)
	}
	return next.record()
}

// Checkpoint returns what the consumer last committed, durable or not yet.
func (l *Log) Checkpoint(consumer string) (Checkpoint, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.consumers[consumer]
	if c == nil {
		return Checkpoint{}, fmt.Errorf("consumer %q: %w", consumer, ErrNotFound)
	}
	return Checkpoint{Positions: maps.Clone(c.positions), State: slices.Clone(c.state)}, nil
}

// DeleteConsumer forgets a consumer.
func (l *Log) DeleteConsumer(_ context.Context, name string) error {
	l.mu.RLock()
	c := l.consumers[name]
	l.mu.RUnlock()
	if c == nil {
		return fmt.Errorf("consumer %q: %w", name, ErrNotFound)
	}
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	if err := l.kv.Write([]KVOp{{Key: consumerKey(name), Delete: true}}); err != nil {
		return fmt.Errorf("delete consumer %s: %w", name, err)
	}
	if err := l.metaAppend(func() { delete(l.consumers, name) }, metaEntry{Forget: name}); err != nil {
		return fmt.Errorf("delete consumer %s: %w", name, err)
	}
	return nil
}

func consumerKey(name string) []byte { return append([]byte{keyConsumer}, name...) }

// Consumers lists the consumers by name, with their lag.
func (l *Log) Consumers() []ConsumerInfo {
	l.mu.RLock()
	states := make(map[string]map[ShardKey]Sequence, len(l.consumers))
	for name, c := range l.consumers {
		states[name] = maps.Clone(c.positions)
	}
	l.mu.RUnlock()
	_, now := l.clock.now()
	var list []ConsumerInfo
	for _, name := range slices.Sorted(maps.Keys(states)) {
		info := ConsumerInfo{Name: name}
		for _, key := range slices.SortedFunc(maps.Keys(states[name]), compareShardKeys) {
			info.Lags = append(info.Lags, l.lag(key, states[name][key], now.wall))
		}
		list = append(list, info)
	}
	return list
}

// lag measures how far position is behind. An index that cannot be read makes
// the bytes and the time unknown (0), not the records.
func (l *Log) lag(key ShardKey, position Sequence, now time.Time) Lag {
	lag := Lag{ShardKey: key, Position: position}
	s, err := l.shard(key.Stream, key.Shard)
	if err != nil {
		return lag
	}
	l.mu.RLock()
	from, next, bytes := max(position, s.first), s.next, s.bytes
	l.mu.RUnlock()
	if from >= next {
		return lag
	}
	lag.Records = int64(next - from)
	refs, err := l.refs(s, from, 1)
	if err != nil || len(refs) == 0 {
		return lag
	}
	lag.Bytes = bytes - refs[0].before
	if behind := now.Sub(time.UnixMilli(refs[0].oldest)); behind > 0 {
		lag.Behind = behind
	}
	return lag
}

// flushConsumers writes what changed to Badger.
func (l *Log) flushConsumers() error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	return l.flushConsumersLocked()
}

// flushConsumersLocked is flushConsumers with flushMu held. The checkpoint may
// not go past a consumer frame before this.
func (l *Log) flushConsumersLocked() error {
	l.mu.RLock()
	var ops []KVOp
	versions := make(map[string]uint64)
	var err error
	for name, c := range l.consumers {
		if c.stored == c.version {
			continue
		}
		var value []byte
		if value, err = json.Marshal(c.record()); err != nil {
			break
		}
		key := consumerKey(name)
		ops = append(ops, KVOp{Key: key, Value: sealValue(key, value)})
		versions[name] = c.version
	}
	l.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("encode a consumer: %w", err)
	}
	if err := l.writeOps(ops); err != nil {
		return fmt.Errorf("write consumers: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, version := range versions {
		if c := l.consumers[name]; c != nil {
			c.stored = max(c.stored, version)
		}
	}
	return nil
}

// copyConsumers writes what changed to the meta chain.
func (l *Log) copyConsumers() error {
	l.mu.RLock()
	var entries []metaEntry
	for _, c := range l.consumers {
		if c.copied != c.version {
			entries = append(entries, metaEntry{Consumer: c.record()})
		}
	}
	l.mu.RUnlock()
	if len(entries) == 0 {
		return nil
	}
	if err := l.metaAppend(nil, entries...); err != nil {
		return fmt.Errorf("copy consumers to the meta chain: %w", err)
	}
	l.mu.Lock()
	for _, e := range entries {
		if c := l.consumers[e.Consumer.Name]; c != nil {
			c.copied = max(c.copied, e.Consumer.Version)
		}
	}
	l.mu.Unlock()
	return nil
}

// loadConsumers reads them from Badger.
func (l *Log) loadConsumers() error {
	var bad error
	err := l.kv.Scan([]byte{keyConsumer}, []byte{keyConsumer + 1}, false, func(key, sealed []byte) bool {
		value, err := openValue(key, sealed)
		if err != nil {
			bad = err
			return false
		}
		var r consumerRecord
		if err := json.Unmarshal(value, &r); err != nil || r.Name != string(key[1:]) {
			bad = fmt.Errorf("%w: consumer %q does not decode", errIndexDamaged, key[1:])
			return false
		}
		l.applyConsumer(&r)
		return true
	})
	if err == nil {
		err = bad
	}
	return err
}
