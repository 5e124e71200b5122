package daemon

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/mqtt"
)

// streamsOf returns every stream that cfg names, with its policy; those that
// are named outside of `streams:` have the defaults.
func streamsOf(cfg *config.Config) map[string]buffer.StreamConfig {
	streams := make(map[string]buffer.StreamConfig, len(cfg.Streams))
	for _, source := range cfg.Ingest.MQTT {
		for _, topic := range source.Topics {
			streams[topic.Stream] = buffer.DefaultStreamConfig(buffer.Data)
		}
	}
	maps.Copy(streams, cfg.Streams)
	return streams
}

// specs turns the configuration into parts: the one place where a type in the
// file chooses a package.
func (d *Daemon) specs(cfg *config.Config) []partSpec {
	var specs []partSpec
	for _, source := range cfg.Ingest.MQTT {
		specs = append(specs, d.mqttSource(cfg.Node.ID, source))
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

// recordings is what the API needs of package video/recording.
type recordings struct{ daemon *Daemon }

func (r recordings) List(_ context.Context, camera string, from, to time.Time, max int) ([]api.Recording, error) {
	return nil, fmt.Errorf("camera %q: %w", camera, buffer.ErrNotFound)
}

func (r recordings) Clip(ctx context.Context, w io.Writer, camera string, from, to time.Time) error {
	return fmt.Errorf("camera %q: %w", camera, buffer.ErrNotFound)
}
