package daemon

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/analytics/sql"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/broker"
	"github.com/weir-edge/weir/ingest/http"
	"github.com/weir-edge/weir/ingest/mqtt"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/receiver"
	"github.com/weir-edge/weir/video/recording"
)

// streamsOf returns every stream that cfg names, with its policy; those that
// are named outside of `streams:` have the defaults, and a camera's has the
// camera's.
func streamsOf(cfg *config.Config) map[string]buffer.StreamConfig {
	streams := make(map[string]buffer.StreamConfig, len(cfg.Streams))
	for _, source := range cfg.Ingest.MQTT {
		for _, topic := range source.Topics {
			streams[topic.Stream] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	if cfg.Ingest.Broker != nil {
		for _, topic := range cfg.Ingest.Broker.Topics {
			streams[topic.Stream] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	if cfg.Ingest.HTTP != nil {
		for _, stream := range cfg.Ingest.HTTP.Streams {
			streams[stream.Stream] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	for _, query := range cfg.Analytics.Queries {
		if plan, err := sql.Compile(query.SQL); err == nil { // it was checked
			streams[plan.Input()] = buffer.DefaultStreamConfig(buffer.Data)
			streams[plan.Output()] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	for _, sink := range cfg.Uplink {
		for _, stream := range sink.Streams {
			streams[stream] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	maps.Copy(streams, cfg.Streams)
	if cfg.Ingest.Broker != nil {
		streams[broker.StateStream] = cfg.Ingest.Broker.StateStreamConfig()
	}
	for _, camera := range cfg.Video.Cameras {
		streams[camera.Stream()] = camera.StreamConfig()
	}
	return streams
}

// specs turns the configuration into parts: the one place where a type in the
// file chooses a package.
func (d *Daemon) specs(cfg *config.Config) []partSpec {
	var specs []partSpec
	for _, source := range cfg.Ingest.MQTT {
		specs = append(specs, d.mqttSource(cfg.Node.ID, source))
	}
	if cfg.Ingest.Broker != nil {
		specs = append(specs, d.broker(*cfg.Ingest.Broker, cfg.Buffer))
	}
	if cfg.Ingest.HTTP != nil {
		specs = append(specs, d.httpSource(*cfg.Ingest.HTTP))
	}
	for _, camera := range cfg.Video.Cameras {
		specs = append(specs, d.camera(camera))
	}
	for _, query := range cfg.Analytics.Queries {
		specs = append(specs, d.query(query))
	}
	for _, sink := range cfg.Uplink {
		specs = append(specs, d.sink(cfg.Node.ID, sink))
	}
	return specs
}

// mqttSource is a subscriber at an existing broker.
func (d *Daemon) mqttSource(node string, cfg mqtt.Config) partSpec {
	if cfg.ClientID == "" {
		cfg.ClientID = "weir-" + node + "-" + cfg.Name
	}
	return partSpec{kind: sourceKind, name: cfg.Name, typ: "mqtt", config: cfg, build: func() (instance, error) {
		source, err := mqtt.New(cfg, d.log, d.logger.With("part", "source "+cfg.Name))
		if err != nil {
			return instance{}, err
		}
		return instance{run: source.Run, source: func() api.Source { return mqttStatus(source.Status()) }}, nil
	}}
}

func mqttStatus(s mqtt.Status) api.Source {
	states := map[mqtt.State]api.State{
		mqtt.Connecting: api.Starting, mqtt.Connected: api.Running, mqtt.Away: api.Waiting, mqtt.Stopped: api.Stopped,
	}
	out := api.Source{
		Part: api.Part{State: states[s.State], Since: s.Since, Error: s.LastError}, URL: s.URL,
		Messages: s.Received, Bytes: s.ReceivedBytes, Appended: s.Appended, Acknowledged: s.Acknowledged,
		Duplicates: s.Repeated, SetAside: s.SetAside, Lost: s.Lost, Connects: s.Connects, Inflight: s.Inflight,
		LogError: s.LogError,
	}
	return out
}

// broker is a broker that devices connect to, over the log of that configuration.
func (d *Daemon) broker(cfg broker.Config, log buffer.Config) partSpec {
	window, maxRecord := log.Commit.MaxDelay.Std(), int(log.MaxRecordBytes)
	return partSpec{kind: sourceKind, name: cfg.Name, typ: "broker", config: stampedConfig{cfg, stamps(cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.ClientCAFile)}, build: func() (instance, error) {
		b, err := broker.New(broker.Options{
			Config: cfg, Log: d.log, Places: d.log, Window: window, MaxRecordBytes: maxRecord, Logger: d.logger.With("part", "source "+cfg.Name),
		})
		if err != nil {
			return instance{}, err
		}
		scheme := "tcp://"
		if cfg.TLS.CertFile != "" {
			scheme = "tls://"
		}
		return instance{run: b.Run, reload: b.Reload, source: func() api.Source { return brokerStatus(scheme, b.Status()) }}, nil
	}}
}

// stampedConfig is the configuration of a part that reads files when it starts:
// a reload starts it anew if one of them changed, such as a certificate.
type stampedConfig struct {
	config any
	stamps string
}

func stamps(files ...string) string {
	var out strings.Builder
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&out, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
	}
	return out.String()
}

func brokerStatus(scheme string, s broker.Status) api.Source {
	states := map[broker.State]api.State{broker.Starting: api.Starting, broker.Listening: api.Running, broker.Stopped: api.Stopped}
	out := api.Source{
		Part: api.Part{State: states[s.State], Since: s.Since}, URL: scheme + s.Address, Clients: s.Clients,
		Messages: s.Received, Bytes: s.ReceivedBytes, Appended: s.Appended, Acknowledged: s.Acknowledged, Duplicates: s.Repeated,
		SetAside: s.SetAside, Lost: s.Lost, Dropped: s.Dropped, Refused: s.Denied, Connects: s.Connects, Inflight: s.Inflight,
		LogError: s.LogError,
	}
	for _, n := range s.Refused {
		out.Refused += n
	}
	return out
}

// httpSource takes records by POST.
func (d *Daemon) httpSource(cfg http.Config) partSpec {
	return partSpec{kind: sourceKind, name: cfg.Name, typ: "http", config: stampedConfig{cfg, stamps(cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.ClientCAFile)}, build: func() (instance, error) {
		source, err := http.New(cfg, d.log, d.logger.With("part", "source "+cfg.Name))
		if err != nil {
			return instance{}, err
		}
		scheme := "http://"
		if cfg.TLS.CertFile != "" {
			scheme = "https://"
		}
		return instance{run: source.Run, source: func() api.Source { return httpStatus(scheme, source.Status()) }}, nil
	}}
}

func httpStatus(scheme string, s http.Status) api.Source {
	states := map[http.State]api.State{http.Starting: api.Starting, http.Listening: api.Running, http.Stopped: api.Stopped}
	out := api.Source{
		Part: api.Part{State: states[s.State], Since: s.Since}, URL: scheme + s.Address,
		Messages: s.Received, Bytes: s.ReceivedBytes, Appended: s.Appended, Acknowledged: s.Acknowledged,
		Connects: s.Requests, Inflight: s.Inflight, LogError: s.LogError,
	}
	for _, n := range s.Refused {
		out.Refused += n
	}
	return out
}

// camera is a receiver of RTP.
func (d *Daemon) camera(cfg video.CameraConfig) partSpec {
	return partSpec{kind: cameraKind, name: cfg.Name, typ: "rtp", config: cfg, build: func() (instance, error) {
		camera, err := receiver.New(cfg, d.log, d.logger.With("part", "camera "+cfg.Name))
		if err != nil {
			return instance{}, err
		}
		return instance{run: camera.Run, camera: func() api.Camera { return cameraStatus(camera.Stats(), time.Now()) }}, nil
	}}
}

// silentAfter is how long a camera may send nothing before it counts as away.
const silentAfter = 5 * time.Second

func cameraStatus(s receiver.Stats, now time.Time) api.Camera {
	out := api.Camera{
		Part: api.Part{State: api.Running}, Stream: s.Stream, Codec: s.Codec, Address: s.Address,
		Packets: s.Packets, Bytes: s.Bytes, LostPackets: s.LostPackets, BadPackets: s.BadPackets, Frames: s.Frames,
		DroppedFrames: s.DroppedFrames, Fragments: s.Fragments, LostFragments: s.LostFragments, LastFragment: s.LastFragment,
	}
	switch {
	case s.Address == "":
		out.State = api.Starting
	case s.LastPacket.IsZero():
		out.State, out.Error = api.Waiting, "it has sent nothing yet"
	case now.Sub(s.LastPacket) > silentAfter:
		out.State, out.Since, out.Error = api.Waiting, s.LastPacket, "it sends nothing"
	case s.Waiting != "":
		out.State, out.Error = api.Waiting, s.Waiting
	case s.LastError != "":
		out.State, out.Error = api.Waiting, s.LastError
	}
	return out
}

// query is SQL that runs over a stream all the time.
func (d *Daemon) query(cfg sql.Query) partSpec {
	return partSpec{kind: queryKind, name: cfg.Name, typ: "sql", config: cfg, build: func() (instance, error) {
		runner, err := sql.NewRunner(cfg, d.log, d.logger.With("part", "query "+cfg.Name))
		if err != nil {
			return instance{}, err
		}
		return instance{run: runner.Run, query: func() api.Query { return queryStatus(cfg.SQL, runner.Status()) }}, nil
	}}
}

func queryStatus(text string, s analytics.Status) api.Query {
	states := map[analytics.State]api.State{
		analytics.Waiting: api.Waiting, analytics.CatchingUp: api.Running, analytics.Live: api.Running,
		analytics.Failing: api.Waiting, analytics.Stopped: api.Starting,
	}
	out := api.Query{
		Part: api.Part{State: states[s.State], Since: s.Since, Error: s.LastError}, Consumer: s.Consumer, SQL: strings.TrimSpace(text),
		Input: s.Input, Output: s.Output, Records: s.Records, Rows: s.Rows, Late: s.Late, BadRecords: s.BadRecords,
		BadValues: s.BadValues, LastBad: s.LastBad, MissedRecords: s.MissedRecords, Windows: int64(s.Windows), Groups: int64(s.Groups),
		StateBytes: int64(s.StateBytes), Watermark: s.Watermark, LastRow: s.LastRow,
	}
	if s.State == analytics.Waiting {
		out.Error = "the stream " + s.Input + " does not exist yet"
	}
	return out
}

// sink is a pump with the destination of its type.
func (d *Daemon) sink(node string, cfg config.Uplink) partSpec {
	return partSpec{kind: sinkKind, name: cfg.Name, typ: cfg.Type, config: cfg, build: func() (instance, error) {
		logger := d.logger.With("part", "sink "+cfg.Name)
		var destination uplink.Sink
		var err error
		switch cfg.Type {
		case "nats":
			destination, err = nats.New(nats.Options{Name: cfg.Name, Config: cfg.NATS, Logger: logger})
		default:
			err = fmt.Errorf("type %q is not built in", cfg.Type)
		}
		if err != nil {
			return instance{}, err
		}
		pump := uplink.New(uplink.Options{Config: cfg.Config, Node: node, Sink: destination, Log: d.log, Logger: logger})
		return instance{run: pump.Run, sink: func() api.Sink { return sinkStatus(pump.Status()) }}, nil
	}}
}

func sinkStatus(s uplink.Status) api.Sink {
	out := api.Sink{
		Part: api.Part{State: api.Running, Since: s.Since}, Consumer: s.Consumer, URL: s.URL, Connected: s.Connected, Connects: s.Connects,
		SentRecords: s.SentRecords, SentBytes: s.SentBytes, Batches: s.Batches, Retries: s.Retries, SetAside: s.SetAside,
		Skipped: s.DuplicatesSkipped, MissedRecords: s.MissedRecords, Foreign: s.Foreign, Inflight: s.InFlight, LastSent: s.LastSent,
	}
	if s.LastError != "" {
		out.State, out.Since, out.Error = api.Waiting, s.FailingSince, s.LastError
	}
	return out
}

// recordings is what the API needs of package video/recording. A camera that
// is no longer configured still has what it recorded.
type recordings struct{ log *buffer.Log }

// camera says whether name has a camera's stream.
func (r recordings) camera(name string) error {
	info, err := r.log.Stream(name)
	if err == nil && info.Config.Kind != buffer.Video {
		err = fmt.Errorf("stream %q is not a camera's: %w", name, buffer.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("find camera %q: %w", name, err)
	}
	return nil
}

func (r recordings) List(ctx context.Context, camera string, span api.Span, max int) ([]api.Recording, error) {
	if err := r.camera(camera); err != nil {
		return nil, err
	}
	list, err := recording.List(ctx, r.log, recording.Span{Camera: camera, From: span.From, To: span.To}, max)
	if err != nil {
		return nil, err
	}
	out := make([]api.Recording, 0, len(list))
	for _, rec := range list {
		out = append(out, api.Recording{
			Start: rec.Start, End: rec.End, Fragments: rec.Fragments, Frames: rec.Frames, Bytes: rec.Bytes,
			Width: rec.Width, Height: rec.Height, Codec: rec.Codec, Clock: rec.Clock,
			LostPackets: rec.Lost, MissingSeconds: rec.Missing.Seconds(),
		})
	}
	return out, nil
}

func (r recordings) Clip(ctx context.Context, w io.Writer, camera string, span api.Span) error {
	if err := r.camera(camera); err != nil {
		return err
	}
	return recording.Clip(ctx, w, r.log, recording.Span{Camera: camera, From: span.From, To: span.To})
}
