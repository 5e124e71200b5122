package demo

import (
	"context"

	"github.com/weir-edge/weir/video/rtpsend"
)

// runCamera plays the demo's clip to address, host:port, as a camera would,
// until ctx is done.
func runCamera(ctx context.Context, address string) error {
	return (&rtpsend.Sender{Clip: rtpsend.DemoClip(), Addr: address}).Run(ctx)
}
