package daemon

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/buffer"
)

// streamsOf returns every stream that cfg names, with its policy.
func streamsOf(cfg *config.Config) map[string]buffer.StreamConfig { return cfg.Streams }

// specs turns the configuration into parts: the one place where a type in the
// file chooses a package.
func (d *Daemon) specs(*config.Config) []partSpec { return nil }

// recordings is what the API needs of package video/recording.
type recordings struct{ daemon *Daemon }

func (r recordings) List(_ context.Context, camera string, from, to time.Time, max int) ([]api.Recording, error) {
	return nil, fmt.Errorf("camera %q: %w", camera, buffer.ErrNotFound)
}

func (r recordings) Clip(ctx context.Context, w io.Writer, camera string, from, to time.Time) error {
	return fmt.Errorf("camera %q: %w", camera, buffer.ErrNotFound)
}
