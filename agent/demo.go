package main

import (
	"context"
	"errors"
	"time"

	"github.com/weir-edge/weir/agent/demo"
)

// demoCommand is `weir demo`.
type demoCommand struct {
	For time.Duration `placeholder:"20s" help:"Stop by itself after this long."`
	Dir string        `placeholder:"DIR" help:"Keep the data here; default: a directory that is removed."`
}

func (d *demoCommand) Run(ctx context.Context, c *console) error {
	if d.For < 0 {
		return usage(errors.New("--for is negative"), "write it as 20s")
	}
	err := demo.Run(ctx, demo.Options{
		Dir: d.Dir, For: d.For, Out: c.stdout, Terminal: c.colours(c.stdout), Version: thisBuild().Version,
	})
	if errors.Is(err, demo.ErrSlim) {
		return failed(err, "build without -tags slim")
	}
	if err != nil {
		return failed(err, "run it again with --dir DIR and see DIR/weir.log")
	}
	return nil
}
