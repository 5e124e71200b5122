package uplink_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// memLog is a log in memory with what a pump uses, without goroutines of its
// own, so that a test may let weeks go by.
type memLog struct {
	mu      sync.Mutex
	streams map[string][][]buffer.Entry // by shard
	first   map[buffer.ShardKey]buffer.Sequence
	place   buffer.Checkpoint
	places  []buffer.Checkpoint // all commits
	news    chan struct{}
	shards  int
	full    bool // appends are refused
	broken  bool // reads fail
	reads   int
	most    int // entries of one read
}

func newMemLog(shards int, streams ...string) *memLog {
	l := &memLog{streams: map[string][][]buffer.Entry{}, first: map[buffer.ShardKey]buffer.Sequence{}, news: make(chan struct{}), shards: shards}
	for _, stream := range streams {
		l.streams[stream] = make([][]buffer.Entry, shards)
	}
	return l
}

// shardOf puts a key always into the same shard.
func (l *memLog) shardOf(key string) int {
	sum := 0
	for _, b := range []byte(key) {
		sum += int(b)
	}
	return sum % l.shards
}

func (l *memLog) Append(_ context.Context, stream string, records ...buffer.Record) ([]buffer.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		return nil, buffer.ErrFull
	}
	if l.streams[stream] == nil {
		l.streams[stream] = make([][]buffer.Entry, l.shards)
	}
	var out []buffer.Position
	for _, r := range records {
		shard := l.shardOf(r.PartitionKey)
		e := buffer.Entry{Stream: stream, Shard: buffer.ShardID(shard), Sequence: buffer.Sequence(len(l.streams[stream][shard]) + 1), Record: r}
		e.Arrival = time.Now().Truncate(time.Millisecond)
		e.ClockSynced = true
		l.streams[stream][shard] = append(l.streams[stream][shard], e)
		out = append(out, buffer.Position{Shard: e.Shard, Sequence: e.Sequence})
	}
	close(l.news)
	l.news = make(chan struct{})
	return out, nil
}

// drop removes the records before sequence, as retention does.
func (l *memLog) drop(key buffer.ShardKey, before buffer.Sequence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first[key] = before
}

func (l *memLog) Read(_ context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.broken {
		return buffer.Page{}, errors.New("the disk is sick")
	}
	all := l.streams[stream][from.Shard]
	page := buffer.Page{Next: max(from.Sequence, 1)}
	if first := l.first[buffer.ShardKey{Stream: stream, Shard: from.Shard}]; first > page.Next {
		page.Gaps = []buffer.Gap{{Stream: stream, Shard: from.Shard, From: page.Next, To: first - 1, Reason: buffer.GapRetention}}
		page.Next = first
	}
	bytes := 0
	for page.Next <= buffer.Sequence(len(all)) && len(page.Entries) < limit.MaxRecords {
		e := all[page.Next-1]
		if bytes += len(e.Data) + len(e.PartitionKey); bytes > limit.MaxBytes && len(page.Entries) > 0 {
			break
		}
		e.Data = slices.Clone(e.Data)
		page.Entries = append(page.Entries, e)
		page.Next++
	}
	l.most = max(l.most, len(page.Entries))
	page.AtEnd = page.Next > buffer.Sequence(len(all))
	return page, nil
}

func (l *memLog) Find(stream string, shard buffer.ShardID, start buffer.Start) (buffer.Sequence, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if start.Kind == buffer.Latest {
		return buffer.Sequence(len(l.streams[stream][shard]) + 1), nil
	}
	return max(l.first[buffer.ShardKey{Stream: stream, Shard: shard}], 1), nil
}

func (l *memLog) News() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

func (l *memLog) Stream(name string) (buffer.StreamInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shards, ok := l.streams[name]
	if !ok {
		return buffer.StreamInfo{}, fmt.Errorf("stream %s: %w", name, buffer.ErrNotFound)
	}
	info := buffer.StreamInfo{Name: name}
	for i := range shards {
		info.Shards = append(info.Shards, buffer.ShardInfo{ID: buffer.ShardID(i)})
	}
	return info, nil
}

func (l *memLog) Commit(_ context.Context, c buffer.Commit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := buffer.Checkpoint{Positions: maps.Clone(l.place.Positions), State: l.place.State}
	if next.Positions == nil {
		next.Positions = map[buffer.ShardKey]buffer.Sequence{}
	}
	maps.Copy(next.Positions, c.Positions)
	if c.State != nil {
		next.State = slices.Clone(c.State)
	}
	l.place = next
	l.places = append(l.places, next)
	return nil
}

func (l *memLog) Checkpoint(string) (buffer.Checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.place.Positions == nil {
		return buffer.Checkpoint{}, buffer.ErrNotFound
	}
	return buffer.Checkpoint{Positions: maps.Clone(l.place.Positions), State: l.place.State}, nil
}

// crash takes the place of the consumer back by some commits.
func (l *memLog) crash(commits int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.places) - 1 - commits; n >= 0 {
		l.place, l.places = l.places[n], l.places[:n+1]
	} else {
		l.place, l.places = buffer.Checkpoint{}, nil
	}
}

// count is of all records of a stream.
func (l *memLog) count(stream string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, shard := range l.streams[stream] {
		n += len(shard)
	}
	return n
}
