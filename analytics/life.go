package analytics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
)

const (
	// refresh is how often a life looks for shards that are new, and at the wall
	// clock, which may have been changed.
	refresh = 5 * time.Second
	// pace is how often shards that are at their end are looked at while records
	// come: a row is late by as much, and the log answers a look once for all that
	// came meanwhile.
	pace = 100 * time.Millisecond
	// While there is more to read, rows are kept until they are worth a sync.
	harvestRows  = 1000
	harvestAfter = 250 * time.Millisecond
	// Rows of one commit: far below what the log takes, the state comes on top.
	commitRows  = 5000
	commitBytes = 4 << 20
	// A place without rows is committed once in commitEvery, and less often if the
	// state is large: it is written to the disk at stateRate a second at most.
	commitEvery = time.Second
	stateRate   = 32 << 10
)

// life is a run of an analyzer from a checkpoint on. After a failure of the
// log it ends and another one begins from what the log then has.
type life struct {
	*Runner
	shards map[buffer.ShardID]*shard
	order  []*shard
	found  time.Time // when shards were looked for
	looked time.Time // at the shards that are at their end
	pause  *time.Duration

	checkpoint buffer.Checkpoint
	dirty      bool      // something was read since the last commit
	torn       bool      // rows are out of the analyzer and not in the log
	committed  time.Time // zero: not yet
	stateBytes int
}

// shard is one shard of the input.
type shard struct {
	key   buffer.ShardKey
	next  buffer.Sequence
	atEnd bool
}

// run returns when ctx is done, with the last place committed, or when the
// log or the analyzer has an error.
func (l *life) run(ctx context.Context) error {
	if err := l.load(); err != nil {
		return err
	}
	for {
		news := l.Log.News()
		err := l.step(ctx)
		if ctx.Err() != nil {
			return l.close(ctx)
		}
		if err != nil {
			return err
		}
		if l.more() {
			continue
		}
		if !l.rest(ctx, news) {
			return l.close(ctx)
		}
	}
}

// load takes up the state of the last commit.
func (l *life) load() error {
	checkpoint, err := l.Log.Checkpoint(l.consumer)
	if err != nil && !errors.Is(err, buffer.ErrNotFound) {
		return fmt.Errorf("find the place of query %s: %w", l.Name, err)
	}
	again, err := l.Analyzer.Restore(checkpoint.State)
	if err != nil {
		// What open windows had is lost by this, so it is said loudly.
		l.Logger.Error("the state of the query cannot be used; it goes on from its place with open windows empty", "error", err)
		if again, err = l.Analyzer.Restore(nil); err != nil {
			return final{fmt.Errorf("begin anew: %w", err)}
		}
	}
	if checkpoint.Positions == nil {
		checkpoint.Positions = make(map[buffer.ShardKey]buffer.Sequence)
	}
	for id, sequence := range again {
		checkpoint.Positions[buffer.ShardKey{Stream: l.Input, Shard: id}] = sequence
	}
	l.checkpoint, l.dirty, l.stateBytes = checkpoint, true, len(checkpoint.State)
	return nil
}

// step gives the shards a turn and commits what is due.
func (l *life) step(ctx context.Context) error {
	if err := l.findShards(); err != nil {
		return err
	}
	if len(l.order) == 0 {
		return nil
	}
	if err := l.round(ctx); err != nil {
		return err
	}
	defer func() { l.status.progress(l.Analyzer.Progress(), l.Logger) }()
	if err := l.harvest(ctx); err != nil {
		return err
	}
	if l.more() {
		l.status.enter(CatchingUp)
	} else {
		l.status.enter(Live)
	}
	if l.dirty && time.Since(l.committed) >= l.every() {
		return l.commit(ctx, nil)
	}
	if !l.dirty {
		l.works()
	}
	return nil
}

// works ends a failure and its pauses: when a commit succeeded, or there is
// nothing to commit. That reading goes well is not enough: then a log that
// takes no commit would be tried, and read again, without rest.
func (l *life) works() {
	l.status.works(l.Logger)
	*l.pause = 0
}

// every is the least time between two commits without rows.
func (l *life) every() time.Duration {
	return max(commitEvery, time.Duration(l.stateBytes)*time.Second/stateRate)
}

// more says whether there is a shard with more to read.
func (l *life) more() bool {
	return slices.ContainsFunc(l.order, func(s *shard) bool { return !s.atEnd })
}

// findShards begins to read each shard that is new: at the committed position,
// or else at the oldest record. All of them are known to the analyzer before
// it gets a record.
func (l *life) findShards() error {
	now := time.Now()
	if len(l.order) > 0 && now.Sub(l.found) < refresh {
		return nil
	}
	info, err := l.Log.Stream(l.Input)
	if errors.Is(err, buffer.ErrNotFound) {
		l.status.enter(Waiting) // it is made with its first record
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", l.Input, err)
	}
	l.found = now
	for _, i := range info.Shards {
		if l.shards[i.ID] != nil {
			continue
		}
		s := &shard{key: buffer.ShardKey{Stream: l.Input, Shard: i.ID}}
		known := false
		if s.next, known = l.checkpoint.Positions[s.key]; !known {
			if s.next, err = l.Log.Find(l.Input, i.ID, buffer.Start{Kind: buffer.TrimHorizon}); err != nil {
				return fmt.Errorf("find the oldest record of %s of stream %s: %w", i.ID, l.Input, err)
			}
		}
		if err := l.Analyzer.Analyze(Batch{Shard: i.ID, Now: now}); err != nil {
			return final{err}
		}
		l.shards[i.ID] = s
		l.order = append(l.order, s)
	}
	return nil
}

// round reads a page of the shard that is furthest behind in time, so that the
// windows of the others need not be kept open for long; and now and then what
// has come to those that were at their end.
func (l *life) round(ctx context.Context) error {
	if now := time.Now(); now.Sub(l.looked) >= pace {
		l.looked = now
		for _, s := range l.order {
			if !s.atEnd {
				continue
			}
			if err := l.read(ctx, s); err != nil {
				return err
			}
		}
	}
	s := l.shards[l.Analyzer.Progress().Behind]
	if s == nil || s.atEnd {
		i := slices.IndexFunc(l.order, func(s *shard) bool { return !s.atEnd })
		if i < 0 {
			return nil
		}
		s = l.order[i]
	}
	return l.read(ctx, s)
}

// read hands a page of a shard to the analyzer.
func (l *life) read(ctx context.Context, s *shard) error {
	now := time.Now()
	page, err := l.Log.Read(ctx, l.Input, buffer.Position{Shard: s.key.Shard, Sequence: s.next}, buffer.Limit{})
	if err != nil {
		return fmt.Errorf("read %s of stream %s: %w", s.key.Shard, l.Input, err)
	}
	l.gaps(page.Gaps)
	l.dirty = l.dirty || page.Next > s.next
	err = l.Analyzer.Analyze(Batch{Shard: s.key.Shard, Entries: page.Entries, AtEnd: page.AtEnd, Now: now})
	if err != nil {
		l.torn = true
		return final{err}
	}
	s.next, s.atEnd = max(s.next, page.Next), page.AtEnd
	l.status.change(func(s *Status) { s.Records += int64(len(page.Entries)) })
	return nil
}

// gaps counts what the log does not have any more.
func (l *life) gaps(gaps []buffer.Gap) {
	for _, gap := range gaps {
		l.status.change(func(s *Status) { s.Gaps++; s.MissedRecords += int64(gap.To - gap.From + 1) })
		l.Logger.Warn("records are gone from the log before the query read them", "stream", l.Input, "shard", gap.Shard.String(),
			"from", uint64(gap.From), "to", uint64(gap.To), "reason", string(gap.Reason))
	}
}

// harvest appends the rows that are ready.
func (l *life) harvest(ctx context.Context) error {
	ready := l.Analyzer.Progress().Ready
	if l.more() && ready < harvestRows && time.Since(l.committed) < harvestAfter {
		return nil
	}
	for ready > 0 {
		rows := l.Analyzer.Rows(Limit{MaxRecords: commitRows, MaxBytes: commitBytes})
		if err := l.commit(ctx, rows); err != nil {
			return err
		}
		ready = l.Analyzer.Progress().Ready
	}
	return nil
}

// commit makes the positions, the state that belongs to them, and rows one
// step. While the log has no room it waits.
func (l *life) commit(ctx context.Context, rows []buffer.Record) error {
	l.torn = l.torn || len(rows) > 0
	state, err := l.Analyzer.State()
	if err != nil {
		l.torn = true
		return final{err}
	}
	c := buffer.Commit{Consumer: l.consumer, State: state, Positions: make(map[buffer.ShardKey]buffer.Sequence, len(l.order))}
	for _, s := range l.order {
		c.Positions[s.key] = s.next
	}
	if len(rows) > 0 {
		c.Appends = []buffer.Append{{Stream: l.Output, Records: rows}}
	}
	for {
		err := l.try(ctx, c)
		if err == nil {
			break
		}
		// Full is the one error after which nothing was appended for sure.
		if !errors.Is(err, buffer.ErrFull) {
			return err
		}
		if !l.wait(ctx, err, l.pause) {
			return ctx.Err()
		}
	}
	l.dirty, l.torn, l.committed, l.stateBytes = false, false, time.Now(), len(state)
	l.works()
	l.status.change(func(s *Status) {
		s.Commits, s.StateBytes = s.Commits+1, len(state)
		if len(rows) > 0 {
			s.Rows, s.LastRow = s.Rows+int64(len(rows)), l.committed
		}
	})
	return nil
}

func (l *life) try(ctx context.Context, c buffer.Commit) error {
	late, cancel := graceful(ctx)
	defer cancel()
	err := l.Log.Commit(late, c)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("commit the place and %d rows of query %s: %w", countRows(c), l.Name, err)
	if errors.Is(err, buffer.ErrTooLarge) || errors.Is(err, buffer.ErrInvalid) {
		l.torn = true
		return final{err}
	}
	return err
}

func countRows(c buffer.Commit) int {
	n := 0
	for _, a := range c.Appends {
		n += len(a.Records)
	}
	return n
}

// close commits the last place, so that less is read again. ctx is done.
func (l *life) close(ctx context.Context) error {
	if !l.dirty || l.torn || len(l.order) == 0 {
		return nil
	}
	if err := l.commit(ctx, nil); err != nil {
		l.Logger.Warn("the last place of the query is not committed; a little is read again", "error", err)
	}
	return nil
}

// rest waits until there may be something to do; false: ctx is done.
func (l *life) rest(ctx context.Context, news <-chan struct{}) bool {
	now := time.Now()
	wait := refresh
	if due := l.Analyzer.Progress().Due; !due.IsZero() {
		wait = min(wait, due.Sub(now))
	}
	if l.dirty && len(l.order) > 0 {
		wait = min(wait, l.every()-time.Since(l.committed))
	}
	timer := time.NewTimer(max(wait, pace))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-news:
	}
	// News of a busy log come often; a look now and then is enough.
	if left := pace - time.Since(l.looked); left > 0 && len(l.order) > 0 {
		return sleep(ctx, left)
	}
	return true
}
