package http

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errBusy: other requests hold the memory, and waiting made none free.
var errBusy = errors.New("too many bytes in requests at once")

// room is the memory of all requests together.
type room struct {
	size int

	mu    sync.Mutex
	used  int
	freed chan struct{} // closed and replaced when some is given back
}

func newRoom(size int) *room { return &room{size: size, freed: make(chan struct{})} }

// lease is what one request holds of a room. One goroutine at a time.
type lease struct {
	room *room
	n    int
}

// grow waits a bounded time for n bytes more, and then returns errBusy. A
// request that is alone gets what it asks for: it is bounded by its own limits.
func (l *lease) grow(ctx context.Context, n int) error {
	var timeout <-chan time.Time
	for {
		r := l.room
		r.mu.Lock()
		if r.used == l.n || r.used+n <= r.size {
			r.used += n
			l.n += n
			r.mu.Unlock()
			return nil
		}
		freed := r.freed
		r.mu.Unlock()
		if timeout == nil {
			timer := time.NewTimer(roomTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-freed:
		case <-timeout:
			return errBusy
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shrink gives n bytes back.
func (l *lease) shrink(n int) {
	r := l.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	l.n -= n
	close(r.freed)
	r.freed = make(chan struct{})
}

// release gives all of it back.
func (l *lease) release() { l.shrink(l.n) }
