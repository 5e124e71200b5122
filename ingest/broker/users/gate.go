package users

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
)

// maxWaiting passwords wait for their check, first come, first served: a fleet
// that comes back after a power cut, with strangers among it that hold up the
// line. On a small board one takes 150 ms, and the last of many comes again.
const maxWaiting = 2048

// gate lets few hashes be computed at once, for each takes megabytes and a
// core; the rest of the machine is for data.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64
}

func newGate() *gate { return &gate{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))} }

// enter waits for a slot, which leave gives back.
func (g *gate) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("check password: %w", err)
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > maxWaiting {
		return ErrBusy
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait to check password: %w", ctx.Err())
	}
}

func (g *gate) leave() { <-g.slots }
