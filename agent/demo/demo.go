// Package demo is `weir demo`: a whole installation in one process, on
// loopback, with nothing to install. It runs an MQTT broker, simulated sensors
// that publish to it, a looping video that plays a camera, a NATS JetStream
// server as the centre, and between them the daemon itself, from a
// configuration file like any other.
//
// Run is its entry. It draws what flows once a second and succeeds only if
// data really arrived at the centre. A binary built with the tag slim has no
// centre in it and refuses the demo.
//
// Nothing here is for production: the broker lets everyone in, which is why it
// listens on loopback only.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/agent/daemon"
)

// Options are what a demo is made of.
type Options struct {
	// Dir keeps the data after the demo. Default: a directory that is removed.
	Dir string
	// For ends the demo after this long. Default 0: it runs until ctx is done.
	For time.Duration
	// Out gets the table; Terminal says that it shows to a person, so that the
	// table is drawn in place.
	Out      io.Writer
	Terminal bool
	// AnyPort takes free ports instead of those people know by heart.
	AnyPort bool
	Version string
}

// ErrSlim: this binary was built without the centre.
var ErrSlim = errors.New("the demo is left out of this slim build")

// centre is the embedded central stream.
type centre interface {
	// URL is where clients connect.
	URL() string
	// Messages is how many messages it holds.
	Messages() (int64, error)
	Close()
}

// ports are what the demo listens on.
type ports struct{ mqtt, nats, api, video int }

// knownPorts are taken if nobody else has them, so that what the demo prints
// can be typed in.
func knownPorts() ports { return ports{mqtt: 1883, nats: 4222, api: 8080, video: 5004} }

// Run runs the demo until ctx is done or its time is over. It returns nil if
// records came in and arrived at the centre.
func Run(ctx context.Context, o Options) (err error) {
	if slim {
		return ErrSlim
	}
	dir, remove, err := makeDir(o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	logFile, err := os.OpenFile(filepath.Join(dir, "weir.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the demo's log: %w", err)
	}
	defer func() { err = errors.Join(err, logFile.Close()) }()
	logger := slog.New(slog.NewTextHandler(logFile, nil))

	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	wanted := knownPorts()
	if o.AnyPort {
		wanted = ports{}
	}
	stage, err := build(dir, wanted, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	return stage.play(ctx, o, logger)
}

// makeDir returns the demo's directory and what removes it.
func makeDir(wanted string) (dir string, remove func() error, err error) {
	if wanted != "" {
		if dir, err = filepath.Abs(wanted); err != nil {
			return "", nil, fmt.Errorf("find %s: %w", wanted, err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, fmt.Errorf("make the demo's directory: %w", err)
		}
		return dir, func() error { return nil }, nil
	}
	if dir, err = os.MkdirTemp("", "weir-demo-"); err != nil {
		return "", nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// stage is everything around the daemon.
type stage struct {
	dir    string
	broker *broker
	centre centre
	video  string // host:port the camera sends to
	config *config.Config
	before int64 // messages the centre held before, from an earlier demo
}

// build starts broker and centre and loads the configuration that joins them.
func build(dir string, wanted ports, logger *slog.Logger) (*stage, error) {
	s := &stage{dir: dir}
	var err error
	if s.broker, err = startBroker(freeTCP(wanted.mqtt), logger.With("part", "broker")); err != nil {
		return nil, err
	}
	if s.centre, err = startCentre(freeTCP(wanted.nats), filepath.Join(dir, "centre")); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.video, err = freeUDP(wanted.video); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.before, err = s.centre.Messages(); err != nil {
		return nil, errors.Join(fmt.Errorf("ask the centre: %w", err), s.close())
	}
	path := filepath.Join(dir, "weir.yaml")
	text := fmt.Sprintf(configuration, filepath.Join(dir, "log"), s.broker.address, s.video, s.centre.URL(), freeTCP(wanted.api))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write the demo's configuration: %w", err), s.close())
	}
	if s.config, err = config.Load(path, config.Options{Secrets: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("load the demo's configuration: %w", err), s.close())
	}
	return s, nil
}

// configuration is what the daemon of the demo runs with.
const configuration = `# Written by weir demo; try it with: weir run -c FILE
node:
  id: demo
  labels: {site: your-desk}
buffer:
  dir: %q
  max_bytes: 1GiB
streams:
  telemetry: {shards: 2, retention: 24h}
ingest:
  mqtt:
    - name: plant
      url: mqtt://%s
      client_id: weir-demo
      topics:
        - {filter: "sensors/#", qos: 1, stream: telemetry, partition_key: "{topic[1]}"}
video:
  cameras:
    - {name: dock, url: "rtp://%s", codec: h264}
uplink:
  - name: central
    type: nats
    url: %s
    create: WEIR
    streams: [telemetry]
    batch: {max_records: 500, max_bytes: 1MiB, max_delay: 200ms}
api: {listen: "%s"}
`

// play runs daemon, sensors and camera, and draws until ctx is done.
func (s *stage) play(ctx context.Context, o Options, logger *slog.Logger) error {
	node := daemon.New(s.config, daemon.Options{Logger: logger, Version: o.Version})
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- node.Run(nodeCtx) }()
	end := func() error { stopNode(); return <-ended }

	select {
	case <-node.Running():
	case err := <-ended:
		stopNode()
		return err
	}
	world := startWorld(ctx, s.broker.address, s.video, logger)
	screen := &screen{out: o.Out, terminal: o.Terminal, address: node.API().Address, dir: s.dir, kept: o.Dir != ""}
	last, err := s.watch(ctx, node, ended, screen)
	// The sensors stop before the daemon does: what they sent is taken in.
	world.stop()
	if err == nil {
		err = end()
	} else {
		stopNode()
	}
	if err != nil {
		return err
	}
	return screen.finish(last)
}

// watch draws a line or a table each second and returns the last one.
func (s *stage) watch(ctx context.Context, node *daemon.Daemon, ended <-chan error, screen *screen) (sample, error) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	last := sample{at: time.Now()}
	for {
		now, err := s.sample(node)
		if err != nil {
			return last, err
		}
		screen.draw(now, last)
		last = now
		select {
		case <-ctx.Done():
			return s.lastSample(node, last)
		case err := <-ended:
			if err == nil {
				err = errors.New("the daemon ended by itself")
			}
			return last, err
		case <-ticker.C:
		}
	}
}

// lastSample is taken before the daemon stops.
func (s *stage) lastSample(node *daemon.Daemon, last sample) (sample, error) {
	now, err := s.sample(node)
	if err != nil {
		return last, err
	}
	return now, nil
}

// sample is what flows at one moment.
type sample struct {
	at       time.Time
	in       int64 // messages durable in the log
	records  int64 // of the log, video included
	disk     int64
	out      int64 // messages that arrived at the centre
	lag      int64 // records the uplink has not delivered
	cameras  []api.Camera
	problems []api.Problem
}

func (s *stage) sample(node *daemon.Daemon) (sample, error) {
	parts, stats := node.Parts(), node.Log().Stats()
	now := sample{
		at: time.Now(), records: stats.AppendedRecords, disk: stats.DiskBytes,
		cameras: parts.Cameras, problems: node.Health().Problems,
	}
	for _, source := range parts.Sources {
		now.in += source.Appended
	}
	for _, consumer := range node.Log().Consumers() {
		for _, lag := range consumer.Lags {
			now.lag += lag.Records
		}
	}
	held, err := s.centre.Messages()
	if err != nil {
		return now, fmt.Errorf("ask the centre: %w", err)
	}
	now.out = held - s.before
	return now, nil
}

func (s *stage) close() error {
	var err error
	if s.broker != nil {
		err = s.broker.close()
	}
	if s.centre != nil {
		s.centre.Close()
	}
	return err
}

// freeTCP returns the loopback address with wanted if that port is free, else
// with 0.
func freeTCP(wanted int) string {
	address := fmt.Sprintf("127.0.0.1:%d", wanted)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	if err := listener.Close(); err != nil {
		return "127.0.0.1:0"
	}
	return address
}

// freeUDP returns a loopback address that was free a moment ago, with wanted
// as its port if it can be.
func freeUDP(wanted int) (string, error) {
	conn, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", wanted))
	if err != nil {
		conn, err = net.ListenPacket("udp", "127.0.0.1:0")
	}
	if err != nil {
		return "", fmt.Errorf("find a port for the camera: %w", err)
	}
	return conn.LocalAddr().String(), conn.Close()
}
