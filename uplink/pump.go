package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Source is the part of the log that a pump reads.
type Source interface {
	Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error)
	Find(stream string, shard buffer.ShardID, start buffer.Start) (buffer.Sequence, error)
	News() <-chan struct{}
	Stream(name string) (buffer.StreamInfo, error)
}

// Log is what a pump needs of the log: to read, to keep its place, and to set
// records aside. *buffer.Log is one.
type Log interface {
	Source
	buffer.Committer
	buffer.Writer
}

// Options are what a Pump is made of. All but Logger are needed.
type Options struct {
	Config Config // valid
	Node   string // the node's id, the first part of every record id
	Sink   Sink   // the pump closes it when Run ends
	Log    Log
	Logger *slog.Logger // nil: no log
}

// stopGrace is how long a batch in flight may go on after Run was told to
// stop. What is not acknowledged by then is sent again after the start.
const stopGrace = 2 * time.Second

// Pump feeds one sink from the log. Make it with New.
type Pump struct {
	config   Config
	node     string
	consumer string
	sink     Sink
	resumer  Resumer // nil if the sink is none
	log      Log
	logger   *slog.Logger
	status   status

	mu    sync.Mutex // held during a commit, so that marks and positions agree
	marks map[string]Mark
}

// New makes a pump. It starts nothing.
func New(o Options) *Pump {
	p := &Pump{
		config: o.Config, node: o.Node, consumer: o.Config.Consumer(), sink: o.Sink, log: o.Log, logger: o.Logger,
		marks: make(map[string]Mark),
	}
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	p.resumer, _ = o.Sink.(Resumer)
	p.status.failing = make(map[string]failing)
	return p
}

// Run sends until ctx is done; then it returns nil, after at most a few
// seconds for the batches in flight. It returns an error if the log cannot be
// used any more. Streams go side by side, the shards of a stream in turn. Run
// is called once.
func (p *Pump) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err := p.run(ctx, stop)
	if cerr := p.sink.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close uplink %s: %w", p.config.Name, cerr)
	}
	return err
}

func (p *Pump) run(ctx context.Context, stop context.CancelFunc) error {
	if err := p.loadMarks(); err != nil {
		return err
	}
	errs := make([]error, len(p.config.Streams))
	var lines sync.WaitGroup
	for i, stream := range p.config.Streams {
		lines.Go(func() {
			line := &line{Pump: p, stream: stream, cursors: make(map[buffer.ShardID]*cursor)}
			if errs[i] = line.run(ctx); errs[i] != nil {
				stop()
			}
		})
	}
	lines.Wait()
	return errors.Join(errs...)
}

// place is the state of the pump's consumer, beside its positions.
type place struct {
	Marks map[string]Mark `json:"marks"`
}

func (p *Pump) loadMarks() error {
	checkpoint, err := p.log.Checkpoint(p.consumer)
	if errors.Is(err, buffer.ErrNotFound) || err == nil && len(checkpoint.State) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the place of uplink %s: %w", p.config.Name, err)
	}
	var was place
	if err := json.Unmarshal(checkpoint.State, &was); err != nil {
		// Without marks more is read back; nothing is lost by it.
		p.logger.Warn("the marks of the uplink cannot be read; the destination is read back from the beginning", "error", err)
		return nil
	}
	for stream, mark := range was.Marks {
		p.marks[stream] = mark
	}
	return nil
}

func (p *Pump) mark(stream string) Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marks[stream]
}

// commit moves the positions of one stream on, and its mark with them.
func (p *Pump) commit(ctx context.Context, stream string, positions map[buffer.ShardKey]buffer.Sequence, mark Mark) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	commit := buffer.Commit{Consumer: p.consumer, Positions: positions}
	if p.resumer != nil {
		p.marks[stream] = mark
		state, err := json.Marshal(place{p.marks})
		if err != nil {
			return fmt.Errorf("commit the place of uplink %s: %w", p.config.Name, err)
		}
		commit.State = state
	}
	// What was acknowledged is committed also while the pump stops.
	if err := p.log.Commit(context.WithoutCancel(ctx), commit); err != nil {
		return fmt.Errorf("commit the place of uplink %s: %w", p.config.Name, err)
	}
	return nil
}

// pause is the backoff of one line.
type pause struct{ last time.Duration }

// next draws how long to wait after a failure, at least after.
func (b *pause) next(c Config, after time.Duration) time.Duration {
	b.last = c.Retry.Next(b.last, rand.Float64())
	return max(b.last, after)
}

// reset is called when the destination accepted something: a connection alone
// does not make a link good.
func (b *pause) reset() { b.last = 0 }

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
