package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// kind sorts parts by their place in the way of the data.
type kind string

const (
	sourceKind kind = "source"
	cameraKind kind = "camera"
	queryKind  kind = "query"
	sinkKind   kind = "sink"
	apiKind    kind = "api"
)

// The pause before a part that failed is started again: it doubles from the
// first to the last, and begins anew when the part ran for steadyAfter.
const (
	firstPause  = time.Second
	lastPause   = time.Minute
	steadyAfter = time.Minute
)

// instance is a part that was built: what runs it, and what it says of
// itself. Exactly one of the snapshots is set, none for the API.
type instance struct {
	run    func(context.Context) error
	reload func() error // reads its own files anew; nil: it has none
	source func() api.Source
	camera func() api.Camera
	query  func() api.Query
	sink   func() api.Sink
}

// partSpec says how to make a part, and from what.
type partSpec struct {
	kind   kind
	name   string
	typ    string
	config any // compared on reload
	build  func() (instance, error)
}

type partKey struct {
	kind kind
	name string
}

func (s partSpec) key() partKey { return partKey{s.kind, s.name} }

// part is a source, camera, query or sink with its supervisor.
type part struct {
	spec   partSpec
	logger *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	current  instance
	state    api.State
	since    time.Time
	err      error
	restarts int64
}

func newPart(spec partSpec, logger *slog.Logger) *part {
	return &part{
		spec: spec, logger: logger.With("part", string(spec.kind)+" "+spec.name),
		done: make(chan struct{}), state: api.Starting, since: time.Now(),
	}
}

func (p *part) key() partKey { return p.spec.key() }

// start lets the part run, again and again, until stop.
func (p *part) start(base context.Context) {
	ctx, cancel := context.WithCancel(base)
	p.cancel = cancel
	go func() {
		defer close(p.done)
		p.supervise(ctx)
	}()
}

func (p *part) stop() { p.cancel() }

// wait says whether the part ended within the given time.
func (p *part) wait(within time.Duration) bool {
	timer := time.NewTimer(max(within, time.Millisecond))
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

func (p *part) supervise(ctx context.Context) {
	pause := firstPause
	var quiet quiet
	for {
		begin := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			p.set(api.Stopped, err)
			if err != nil {
				p.logger.Warn("part stopped with an error", "error", err)
			}
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		p.set(api.Failed, err)
		if time.Since(begin) > steadyAfter {
			pause = firstPause
		}
		// Jitter, so that parts that failed together do not come back together.
		wait := pause/2 + rand.N(pause)
		pause = min(2*pause, lastPause)
		if n, ok := quiet.allow(time.Now()); ok {
			p.logger.Error("part failed, it is started again", "error", err, "after", wait.Round(time.Millisecond), "failures", n)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			p.set(api.Stopped, nil)
			return
		case <-timer.C:
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// once builds the part and runs it. A panic is an error of this part alone.
func (p *part) once(ctx context.Context) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p.logger.Error("part panicked", "fault", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("fault of the program: %v", fault)
		}
	}()
	built, err := p.spec.build()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.current = built
	p.mu.Unlock()
	p.set(api.Running, nil)
	return built.run(ctx)
}

// reload has a part that goes on read its own files anew; one with a fault
// changes nothing.
func (p *part) reload() {
	if _, current := p.snapshot(); current.reload != nil {
		if err := current.reload(); err != nil {
			p.logger.Error("its files have a fault; what was read before stays", "error", err)
		}
	}
}

func (p *part) set(state api.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != state {
		p.state, p.since = state, time.Now()
	}
	p.err = err
}

// snapshot returns what the supervisor knows, and the instance to ask for the
// rest; it is the last one built, also after it failed.
func (p *part) snapshot() (api.Part, instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := api.Part{Name: p.spec.name, Type: p.spec.typ, State: p.state, Since: p.since, Restarts: p.restarts}
	if p.err != nil {
		out.Error = p.err.Error()
	}
	return out, p.current
}

// quiet lets a repeated failure be logged once, then at most once a minute.
type quiet struct {
	last   time.Time
	failed int64
}

// allow counts a failure; if it is to be logged it returns how many there were
// since the last one that was.
func (q *quiet) allow(now time.Time) (int64, bool) {
	q.failed++
	if !q.last.IsZero() && now.Sub(q.last) < time.Minute {
		return 0, false
	}
	n := q.failed
	q.last, q.failed = now, 0
	return n, true
}
