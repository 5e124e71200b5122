package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/weir-edge/weir/buffer/bench"
)

// benchCommand is `weir bench`.
type benchCommand struct {
	Log benchLogCommand `cmd:"" help:"Measure what the log costs on a disk."`
}

type benchLogCommand struct {
	Dir  string `help:"A directory on the disk to measure; it is left as it was." placeholder:"DIR" default:"."`
	JSON bool   `help:"Print JSON."`
}

func (b *benchLogCommand) Run(ctx context.Context, c *console) error {
	report, err := bench.Log(ctx, b.Dir)
	if err != nil {
		return failed(fmt.Errorf("measure the log in %s: %w", b.Dir, err), "--dir names a directory that can be written, with 300 MiB free")
	}
	if b.JSON {
		return c.printJSON(report)
	}
	t := &table{header: []string{"FIGURE", "MEASURED", "GOAL", ""}}
	for _, f := range report.Figures() {
		t.add(f.Name, strconv.FormatFloat(f.Value, 'f', 2, 64), f.Goal(), f.Verdict())
	}
	if err := t.print(c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "bytes written are counted by %s\n", report.Counted)
	return err
}
