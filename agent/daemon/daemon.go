// Package daemon is the composition root of weir: Run takes a configuration,
// opens the shard log, starts what fills it and what empties it, and ends all
// of it in order. It is the only package that imports all others.
//
// Daemon is the main type. The log and the API come first; if the log cannot
// be opened, Run returns, for without it there is nothing to do. Everything
// else (a source, a camera, a query, a sink) is a part with a supervisor of its own: one
// that does not start or that dies is told in status and health and started
// again after a pause; it never ends the daemon or another part.
//
// Stopping goes the way of the data: sources and cameras, then queries and
// sinks, then the API, then the log. Nothing is drained, for the log is durable. A reload stops
// and starts the parts whose configuration changed, from their durable
// positions.
//
// It reads no files and handles no signals: the command line does.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/systemd"
)

// How long each step of stopping may take; together less than the 10 s in
// which the daemon promises to end.
const (
	stopProducers = 3 * time.Second
	stopReaders   = 2 * time.Second
	stopAPI       = 3500 * time.Millisecond
)

// readyAtLatest is when systemd is told that the daemon is ready although not
// all of its parts are: the log takes data, and the rest is told in the status.
const readyAtLatest = 15 * time.Second

// Daemon is one weir node. Make it with New and let it Run once.
type Daemon struct {
	logger   *slog.Logger
	version  string
	notifier systemd.Notifier
	reloads  chan *config.Config

	log    *buffer.Log
	server *api.Server
	apiRun *part

	mu      sync.Mutex
	config  *config.Config
	started time.Time
	parts   []*part       // in the order of the configuration
	running chan struct{} // closed when log, server and parts are set
}

// Options are what a daemon is made of besides its configuration.
type Options struct {
	Logger  *slog.Logger // nil: no log
	Version string
}

// New returns a daemon for a valid configuration. It opens and starts nothing.
func New(cfg *config.Config, o Options) *Daemon {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Daemon{
		logger: o.Logger, version: o.Version, config: cfg,
		reloads: make(chan *config.Config, 1), running: make(chan struct{}),
	}
}

// Run runs a daemon until ctx is done and returns nil once everything has
// stopped, at most ten seconds later. It returns an error if the log's
// directory cannot be used.
func Run(ctx context.Context, cfg *config.Config, o Options) error { return New(cfg, o).Run(ctx) }

// Reload takes over a new, valid configuration while Run runs. It returns at
// once; of two that come close together the later one counts.
func (d *Daemon) Reload(cfg *config.Config) {
	for {
		select {
		case d.reloads <- cfg:
			return
		default:
		}
		select {
		case <-d.reloads:
		default:
		}
	}
}

// Running is closed once the log is open and the API has been started.
func (d *Daemon) Running() <-chan struct{} { return d.running }

// Log returns the shard log; nil before Running is closed.
func (d *Daemon) Log() *buffer.Log { return d.log }

// API returns the server of the API; nil before Running is closed.
func (d *Daemon) API() *api.Server { return d.server }

// Run is the method behind the function of the same name.
func (d *Daemon) Run(ctx context.Context) (err error) {
	d.started = time.Now()
	d.log, err = buffer.Open(ctx, d.config.Buffer, buffer.Options{
		Logger: d.logger.With("part", "log"), Streams: streamsOf(d.config),
	})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := d.log.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	d.server = api.New(api.Options{
		Config: d.config.API, Log: api.LogOf(d.log), Node: d, Recordings: recordings{d.log},
		Version: d.version, Logger: d.logger.With("part", "api"),
	})
	// The parts' contexts are not children of ctx: they end in order, below.
	base := context.WithoutCancel(ctx)
	d.apiRun = newPart(partSpec{kind: apiKind, name: "api", build: func() (instance, error) {
		return instance{run: d.server.Run}, nil
	}}, d.logger)
	d.apiRun.start(base)
	d.startParts(base, d.config)
	close(d.running)
	d.loop(ctx, base)
	return d.stop()
}

// startParts starts what cfg says; the caller is Run or reload.
func (d *Daemon) startParts(base context.Context, cfg *config.Config) {
	var parts []*part
	for _, spec := range d.specs(cfg) {
		p := newPart(spec, d.logger)
		p.start(base)
		parts = append(parts, p)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = parts
}

// loop tells systemd how it goes and takes reloads, until ctx is done.
func (d *Daemon) loop(ctx, base context.Context) {
	var watchdog sync.WaitGroup
	defer watchdog.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interval, err := d.notifier.WatchdogInterval()
	if err != nil {
		d.logger.Warn("the watchdog is off", "error", err)
	}
	if interval > 0 {
		watchdog.Go(func() { d.notifier.KeepAlive(ctx, interval, d.logger, newProbe(d).check) })
	}
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	reporter := reporter{daemon: d}
	for {
		reporter.report(time.Now())
		if reporter.ready {
			ticker.Reset(5 * time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case cfg := <-d.reloads:
			d.reload(ctx, base, cfg)
		case <-ticker.C:
		}
	}
}

// reporter tells systemd what changed.
type reporter struct {
	daemon *Daemon
	ready  bool
	status string
}

func (r *reporter) report(now time.Time) {
	d, health := r.daemon, r.daemon.Health()
	if !r.ready && (health.OK || now.Sub(d.started) > readyAtLatest) {
		r.ready = true
		d.logger.Info("weir is ready", "healthy", health.OK)
		r.tell(d.notifier.Ready())
	}
	status := "healthy"
	if !health.OK {
		status = fmt.Sprintf("%d problems; first: %s: %s", len(health.Problems), health.Problems[0].Part, health.Problems[0].Reason)
	}
	if status != r.status {
		r.status = status
		r.tell(d.notifier.Status(status))
	}
}

func (r *reporter) tell(err error) {
	if err != nil {
		r.daemon.logger.Warn("systemd was not told", "error", err)
	}
}

// reload stops what changed or went and starts what changed or came. What
// cannot change while the daemon runs is said in the log.
func (d *Daemon) reload(ctx, base context.Context, next *config.Config) {
	old := d.config
	for _, fixed := range []struct {
		section string
		same    bool
	}{
		{"node", reflect.DeepEqual(old.Node, next.Node)},
		{"buffer", reflect.DeepEqual(old.Buffer, next.Buffer)},
		{"api", reflect.DeepEqual(old.API, next.API)},
	} {
		if !fixed.same {
			d.logger.Warn("a changed section counts only after a restart", "section", fixed.section)
		}
	}
	kept := *next
	kept.Node, kept.Buffer, kept.API = old.Node, old.Buffer, old.API
	streams, before := streamsOf(&kept), streamsOf(old)
	for name, stream := range streams {
		if reflect.DeepEqual(stream, before[name]) {
			continue
		}
		if err := d.log.CreateStream(ctx, name, stream); err != nil {
			d.logger.Error("a stream keeps its policy", "stream", name, "error", err)
		}
	}
	running := map[partKey]*part{}
	for _, p := range d.parts {
		running[p.key()] = p
	}
	var parts []*part
	specs := d.specs(&kept)
	keep := map[partKey]bool{}
	for _, spec := range specs {
		if p := running[spec.key()]; p != nil && reflect.DeepEqual(p.spec.config, spec.config) {
			keep[spec.key()] = true
		}
	}
	var gone []*part
	for _, p := range d.parts {
		if !keep[p.key()] {
			d.logger.Info("part stops for the new configuration", "kind", p.spec.kind, "name", p.spec.name)
			gone = append(gone, p)
		}
	}
	if err := stopAll(gone, stopProducers); err != nil {
		d.logger.Error("what follows starts all the same", "error", err)
	}
	for _, spec := range specs {
		p := running[spec.key()]
		if keep[spec.key()] {
			p.reload()
		} else {
			p = newPart(spec, d.logger)
			p.start(base)
		}
		parts = append(parts, p)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts, d.config = parts, &kept
	d.logger.Info("configuration reloaded")
}

// stop ends everything but the log, in the way of the data.
func (d *Daemon) stop() error {
	if err := d.notifier.Stopping(); err != nil {
		d.logger.Warn("systemd was not told", "error", err)
	}
	d.logger.Info("weir stops")
	var producers, readers []*part
	for _, p := range d.parts {
		if p.spec.kind == sinkKind || p.spec.kind == queryKind {
			readers = append(readers, p)
		} else {
			producers = append(producers, p)
		}
	}
	return errors.Join(
		stopAll(producers, stopProducers), stopAll(readers, stopReaders), stopAll([]*part{d.apiRun}, stopAPI),
	)
}

// stopAll ends parts together and says which did not end in time.
func stopAll(parts []*part, within time.Duration) error {
	for _, p := range parts {
		p.stop()
	}
	deadline := time.Now().Add(within)
	var errs []error
	for _, p := range parts {
		if !p.wait(time.Until(deadline)) {
			errs = append(errs, fmt.Errorf("stop %s %s: it did not end in %s", p.spec.kind, p.spec.name, within))
		}
	}
	return errors.Join(errs...)
}
