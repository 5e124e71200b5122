package analyticstest

import (
	"context"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
)

// Log is a log in memory that can be disturbed. Set the fields before it is
// used.
type Log struct {
	*buffertest.Memory
	// MaxRecords of a page; 0: as asked for.
	MaxRecords int
	// Stall says whether the n-th read finds nothing although there is more.
	Stall func(n int) bool
	// ReadTakes is how long a read takes.
	ReadTakes time.Duration
	// Trouble says of the n-th commit whether it is done and what is told.
	Trouble func(n int) (done bool, err error)

	mu      sync.Mutex
	reads   int
	commits int
	killAt  int // the commit at which everything ends; 0: none
	after   bool
	dead    bool
}

var _ buffertest.Log = (*Log)(nil)

// NewLog returns an empty log with these streams.
func NewLog(streams map[string]buffer.StreamConfig) *Log {
	return &Log{Memory: buffertest.NewLog(streams)}
}

// Kill lets the n-th commit from now on be the last call that is heard: it
// and every call after it returns ErrClosed. after: the commit is done.
func (l *Log) Kill(n int, after bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits, l.killAt, l.after = 0, n, after
}

// Revive ends a kill.
func (l *Log) Revive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead, l.killAt = false, 0
}

// Reads is how many there were.
func (l *Log) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func (l *Log) alive() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return buffer.ErrClosed
	}
	return nil
}

// Read reads, within what the fields say. See buffer.Reader.
func (l *Log) Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error) {
	if err := l.alive(); err != nil {
		return buffer.Page{}, err
	}
	l.mu.Lock()
	l.reads++
	n := l.reads
	l.mu.Unlock()
	if l.ReadTakes > 0 {
		timer := time.NewTimer(l.ReadTakes)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return buffer.Page{}, ctx.Err()
		case <-timer.C:
		}
	}
	if l.Stall != nil && l.Stall(n) {
		return buffer.Page{Next: from.Sequence}, nil
	}
	if l.MaxRecords > 0 {
		limit.MaxRecords = l.MaxRecords
	}
	return l.Memory.Read(ctx, stream, from, limit)
}

// Commit commits, unless it is to be disturbed. See buffer.Committer.
func (l *Log) Commit(ctx context.Context, c buffer.Commit) error {
	if err := l.alive(); err != nil {
		return err
	}
	l.mu.Lock()
	l.commits++
	n, kill, after := l.commits, l.commits == l.killAt, l.after
	l.dead = kill
	l.mu.Unlock()
	done, told := true, error(nil)
	if l.Trouble != nil {
		done, told = l.Trouble(n)
	}
	if kill {
		done, told = after, buffer.ErrClosed
	}
	if done {
		if err := l.Memory.Commit(ctx, c); err != nil {
			return err
		}
	}
	return told
}
