package analytics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

// Log is what a runner needs of the log. *buffer.Log is one.
type Log interface {
	buffer.Committer
	// As in buffer.Reader and buffer.Catalog.
	Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error)
	Find(stream string, shard buffer.ShardID, start buffer.Start) (buffer.Sequence, error)
	News() <-chan struct{}
	Stream(name string) (buffer.StreamInfo, error)
}

// Options are what a Runner is made of. All but Logger and Retry are needed.
type Options struct {
	Name     string // of the query; its consumer is Consumer(Name)
	Input    string // the stream that is read
	Output   string // the stream that rows are appended to, another one
	Analyzer Analyzer
	Log      Log
	Logger   *slog.Logger  // nil: no log
	Retry    value.Backoff // while the log refuses. Zero: 200ms to 30s
}

// Consumer is the name of a query's consumer in the log.
func Consumer(name string) string { return "query." + name }

// Runner feeds one analyzer from the log. Make it with New.
type Runner struct {
	Options
	consumer string
	status   status
}

// New makes a runner. It starts nothing.
func New(o Options) (*Runner, error) {
	r := &Runner{Options: o, consumer: Consumer(o.Name)}
	if err := buffer.CheckName(r.consumer); err != nil {
		return nil, fmt.Errorf("query %.120q: its consumer: %w", o.Name, err)
	}
	for _, stream := range []string{o.Input, o.Output} {
		if err := buffer.CheckName(stream); err != nil {
			return nil, fmt.Errorf("query %s: stream %.120q: %w", o.Name, stream, err)
		}
	}
	if o.Input == o.Output {
		return nil, fmt.Errorf("query %s: it reads what it writes, the stream %s", o.Name, o.Input)
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Retry == (value.Backoff{}) {
		r.Retry = value.Backoff{Min: value.Duration(200 * time.Millisecond), Max: value.Duration(30 * time.Second)}
	}
	r.status.now = Status{Name: o.Name, State: Stopped, Consumer: r.consumer, Input: o.Input, Output: o.Output}
	return r, nil
}

// Status returns a snapshot. It is safe at any time.
func (r *Runner) Status() Status { return r.status.get() }

// Run works until ctx is done and then returns nil, after at most a few
// seconds for a commit on its way. While the log refuses it tries again. It
// returns an error if the log is closed, or if a person has to change
// something: the analyzer has more than it may keep, or a row is larger than
// the log takes. The position stays, so nothing is lost, and Run may be called
// again.
func (r *Runner) Run(ctx context.Context) error {
	err := r.run(ctx)
	r.status.change(func(s *Status) {
		s.State, s.Since = Stopped, time.Now()
		if err != nil {
			s.LastError = err.Error()
		}
	})
	return err
}

// final is an error that trying again does not help.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

func (r *Runner) run(ctx context.Context) error {
	var pause time.Duration
	for {
		l := &life{Runner: r, shards: make(map[buffer.ShardID]*shard), pause: &pause}
		err := l.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var stop final
		if errors.As(err, &stop) {
			return fmt.Errorf("query %s: %w", r.Name, stop.error)
		}
		if errors.Is(err, buffer.ErrClosed) {
			return fmt.Errorf("query %s: %w", r.Name, err)
		}
		// What the log did with the last commit is not known: the next life asks.
		if !r.wait(ctx, err, &pause) {
			return nil
		}
	}
}

// wait notes a failure of the log and waits; false: ctx is done.
func (r *Runner) wait(ctx context.Context, err error, pause *time.Duration) bool {
	r.status.fail(err, r.Logger)
	*pause = r.Retry.Next(*pause, rand.Float64())
	return sleep(ctx, *pause)
}

// sleep waits for d, or until ctx is done; then it returns false.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// stopGrace is how long a commit may go on after Run was told to stop.
const stopGrace = 2 * time.Second

// graceful is ctx, but done only stopGrace after ctx is.
func graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(stopGrace)
		defer timer.Stop()
		select {
		case <-late.Done():
		case <-timer.C:
			cancel()
		}
	})
	return late, func() { stop(); cancel() }
}
