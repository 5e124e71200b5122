package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Aside is the stream that takes the records a destination refuses for good.
const Aside = "aside"

// setAside keeps a refused record in the stream Aside, and waits for room
// there if the log is full. An error is about the log.
func (l *line) setAside(ctx context.Context, e *buffer.Entry, why error) error {
	id := RecordID(l.node, e)
	l.status.setAside(id, why, l.logger)
	if l.stream == Aside {
		// It is kept where it is; setting it aside once more would go round.
		return nil
	}
	text := why.Error()
	note := []buffer.Attribute{
		{Key: "aside.id", Value: id},
		{Key: "aside.uplink", Value: l.config.Name},
		{Key: "aside.error", Value: text[:min(len(text), 512)]},
	}
	full := buffer.Record{PartitionKey: e.PartitionKey, Data: e.Data, Attributes: append(slices.Clone(e.Attributes), note...)}
	bare := full
	bare.Attributes = note
	empty := bare
	empty.Data = nil
	var wait pause
	for {
		var err error
		for _, record := range []buffer.Record{full, bare, empty} {
			if _, err = l.log.Append(ctx, Aside, record); !errors.Is(err, buffer.ErrTooLarge) {
				break
			}
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, buffer.ErrClosed) {
			return fmt.Errorf("set %s aside: %w", id, err)
		}
		l.status.fail(l.stream, fmt.Errorf("set %s aside: %w", id, err), l.logger)
		if !sleep(ctx, wait.next(l.config, time.Second)) {
			return ctx.Err()
		}
	}
}
