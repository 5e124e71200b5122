package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// probe finds out whether the daemon makes progress. Each question runs in a
// goroutine, so that one that hangs on a lock does not take the probe along;
// while an old one hangs, no new one is asked.
type probe struct {
	daemon *Daemon

	mu     sync.Mutex
	asking bool
	loops  map[string]*loop
}

func newProbe(d *Daemon) *probe { return &probe{daemon: d, loops: map[string]*loop{}} }

// How long a loop may have work and get nowhere before it counts as hung. A
// card that stalls for a few seconds is no hang, and a source can only be as
// quick as the log.
const (
	logStuckAfter    = 10 * time.Second
	sourceStuckAfter = 30 * time.Second
)

// check returns nil if the log and every part answer, and no loop sits on its
// work.
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
		err := p.ask(time.Now())
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

// ask takes the locks of the log and of all parts, and looks whether their
// loops get on.
func (p *probe) ask(now time.Time) error {
	p.daemon.log.Streams()
	stats := p.daemon.log.Stats()
	// A commit that fails, an append that is refused: that is not a hang.
	moved := stats.Commits + stats.WriteErrors + stats.RefusedAppends
	errs := []error{p.loop("log").judge(now, stats.PendingBytes, moved, logStuckAfter)}
	for _, s := range p.daemon.Parts().Sources {
		pending := s.Inflight
		if s.State != api.Running || s.LogError != "" {
			pending = 0 // it waits for someone else, and says so
		}
		if s.Type == "http" {
			pending = 0 // a request has a time limit of its own, and its append is the log's
		}
		moved := progress(s)
		errs = append(errs, p.loop("source "+s.Name).judge(now, pending, moved, sourceStuckAfter))
	}
	return errors.Join(errs...)
}

// progress grows with everything a source gets done. Messages less Inflight are
// those that were dealt with; some, such as commands between devices with QoS 0,
// end in no other count.
func progress(s api.Source) int64 {
	return s.Messages - s.Inflight + s.Appended + s.Acknowledged + s.Duplicates + s.SetAside + s.Lost + s.Restarts
}

// loop returns what is known of the loop called name. Only ask calls it, and
// there is one ask at a time.
func (p *probe) loop(name string) *loop {
	l := p.loops[name]
	if l == nil {
		l = &loop{name: name}
		p.loops[name] = l
	}
	return l
}

// loop is something that works off what is pending.
type loop struct {
	name  string
	moved int64     // what it had done when it was last looked at
	stuck time.Time // since when there is work and nothing moves; zero: it gets on
}

// judge decides from what is pending and what was done whether the loop
// hangs.
func (l *loop) judge(now time.Time, pending, moved int64, after time.Duration) error {
	switch {
	case pending == 0 || moved != l.moved:
		l.stuck = time.Time{}
	case l.stuck.IsZero():
		l.stuck = now
	}
	l.moved = moved
	if !l.stuck.IsZero() && now.Sub(l.stuck) >= after {
		return fmt.Errorf("%s: %d pending and nothing done for %s", l.name, pending, now.Sub(l.stuck).Round(time.Second))
	}
	return nil
}
