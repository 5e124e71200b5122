// Package demo is `weir demo`: a whole installation in one process, on
// loopback, with nothing to install. It runs the daemon itself, from a
// configuration file like any other, with its broker for devices and a query;
// simulated sensors that publish to it, a looping video that plays a camera, and
// a NATS JetStream server as the centre.
//
// Run is its entry. It draws what flows once a second and succeeds only if
// data really arrived at the centre. A binary built with the tag slim has no
// centre in it and refuses the demo.
//
// Nothing here is for production: broker and centre let everyone in, which is
// why they listen on loopback only.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/agent/daemon"
	"github.com/weir-edge/weir/buffer"
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
	stage, err := build(dir, wanted)
	if err != nil {
		return err
	}
	defer stage.close()
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
	centre centre
	video  string // host:port the camera sends to
	config *config.Config
	before int64 // messages the centre held before, from an earlier demo
}

// build starts the centre and loads the configuration.
func build(dir string, wanted ports) (*stage, error) {
	s := &stage{dir: dir}
	var err error
	if s.centre, err = startCentre(freeTCP(wanted.nats), filepath.Join(dir, "centre")); err != nil {
		return nil, err
	}
	if s.video, err = freeUDP(wanted.video); err != nil {
		s.close()
		return nil, err
	}
	if s.before, err = s.centre.Messages(); err != nil {
		s.close()
		return nil, fmt.Errorf("ask the centre: %w", err)
	}
	path := filepath.Join(dir, "weir.yaml")
	text := fmt.Sprintf(configuration, filepath.Join(dir, "log"), freeTCP(wanted.mqtt), s.video, s.centre.URL(), freeTCP(wanted.api))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.close()
		return nil, fmt.Errorf("write the demo's configuration: %w", err)
	}
	if s.config, err = config.Load(path, config.Options{Secrets: true}); err != nil {
		s.close()
		return nil, fmt.Errorf("load the demo's configuration: %w", err)
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
  broker:
    listen: "tcp://%s"
    topics:
      - {filter: "sensors/#", stream: telemetry, partition_key: "{topic[1]}"}
video:
  cameras:
    - {name: dock, url: "rtp://%s", codec: h264}
analytics:
  queries:
    - name: two-second-average
      sql: >
        INSERT INTO averages
        SELECT sensor, AVG(value) AS mean, COUNT(*) AS n, window_start
        FROM telemetry GROUP BY sensor, TUMBLE(arrival, INTERVAL '2' SECOND)
uplink:
  - name: central
    type: nats
    url: %s
    create: WEIR
    streams: [telemetry, averages]
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
	world := startWorld(ctx, func() string { return brokerOf(node) }, s.video, logger)
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
	queries  []api.Query
	average  average // the newest
	problems []api.Problem
}

// average is a row of the demo's query.
type average struct {
	Sensor string  `json:"sensor"`
	Mean   float64 `json:"mean"`
	N      int64   `json:"n"`
}

// brokerOf is where the daemon's broker listens; "" while it does not.
func brokerOf(node *daemon.Daemon) string {
	for _, source := range node.Parts().Sources {
		if source.Type == "broker" && source.State == api.Running {
			return strings.TrimPrefix(source.URL, "tcp://")
		}
	}
	return ""
}

func (s *stage) sample(node *daemon.Daemon) (sample, error) {
	parts, stats := node.Parts(), node.Log().Stats()
	now := sample{
		at: time.Now(), records: stats.AppendedRecords, disk: stats.DiskBytes,
		cameras: parts.Cameras, queries: parts.Queries, problems: node.Health().Problems,
	}
	for _, source := range parts.Sources {
		now.in += source.Appended
	}
	for _, consumer := range node.Log().Consumers() {
		for _, lag := range consumer.Lags {
			now.lag += lag.Records
		}
	}
	var err error
	if now.average, err = newestAverage(node); err != nil {
		return now, err
	}
	held, err := s.centre.Messages()
	if err != nil {
		return now, fmt.Errorf("ask the centre: %w", err)
	}
	now.out = held - s.before
	return now, nil
}

// newestAverage reads the last row of the query; the zero value before the
// first.
func newestAverage(node *daemon.Daemon) (average, error) {
	info, err := node.Log().Stream("averages")
	if err != nil || info.Shards[0].First == info.Shards[0].Next {
		return average{}, nil // nothing yet
	}
	page, err := node.Log().Read(context.Background(), "averages", buffer.Position{Sequence: info.Shards[0].Next - 1}, buffer.Limit{MaxRecords: 1})
	if err != nil || len(page.Entries) == 0 {
		return average{}, err
	}
	var row average
	if err := json.Unmarshal(page.Entries[0].Data, &row); err != nil {
		return average{}, fmt.Errorf("read a row of the query: %w", err)
	}
	return row, nil
}

func (s *stage) close() {
	if s.centre != nil {
		s.centre.Close()
	}
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
