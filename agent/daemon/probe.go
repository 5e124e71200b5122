package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// probe finds out whether the daemon makes progress. Each question runs in a
// goroutine, so that one that hangs on a lock does not take the probe along;
// while an old one hangs, no new one is asked.
type probe struct {
	daemon *Daemon

	mu      sync.Mutex
	asking  bool
	commits int64     // what moves when the committers work
	stuck   time.Time // since when appends wait and nothing moves; zero: they do not
}

func newProbe(d *Daemon) *probe { return &probe{daemon: d} }

// stuckAfter is how long appends may wait while no commit ends before it
// counts as a hang; a card that stalls for a few seconds is none.
const stuckAfter = 10 * time.Second

// check returns nil if the log and every part answer, and the committers do
// not sit on appends.
func (p *probe) check(ctx context.Context) error {
	p.mu.Lock()
	if p.asking {
		p.mu.Unlock()
		return errors.New("the last question to the daemon is not answered yet")
	}
	p.asking = true
	p.mu.Unlock()
	answer := make(chan error, 1)
	go func() { // ends with its answer; while it hangs there is no other
		err := p.ask()
		p.mu.Lock()
		p.asking = false
		p.mu.Unlock()
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the daemon does not answer: %w", ctx.Err())
	}
}

// ask takes the locks of the log and of all parts, and looks whether the
// commits move.
func (p *probe) ask() error {
	p.daemon.log.Streams()
	p.daemon.Parts()
	stats := p.daemon.log.Stats()
	// A commit that fails, an append that is refused: that is not a hang.
	moved := stats.Commits + stats.WriteErrors + stats.RefusedAppends
	return p.judge(time.Now(), stats.PendingBytes, moved)
}

// judge decides from two figures of the log whether its committers hang.
func (p *probe) judge(now time.Time, pending, moved int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case pending == 0 || moved != p.commits:
		p.stuck = time.Time{}
	case p.stuck.IsZero():
		p.stuck = now
	}
	p.commits = moved
	if !p.stuck.IsZero() && now.Sub(p.stuck) >= stuckAfter {
		return fmt.Errorf("%d bytes wait for a commit for %s", pending, now.Sub(p.stuck).Round(time.Second))
	}
	return nil
}
