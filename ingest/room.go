package ingest

import "sync"

// Room is an amount of bytes that is taken and given back: what a source holds
// between its connections and the log. It is safe for concurrent use.
type Room struct {
	size int

	mu    sync.Mutex
	used  int
	freed chan struct{} // closed and replaced when some is given back
}

// NewRoom returns a room of that many bytes.
func NewRoom(size int) *Room { return &Room{size: size, freed: make(chan struct{})} }

// Take waits for n bytes, or for one of the two to end (nil: never); then it
// returns false. What is larger than all of the room goes alone.
func (r *Room) Take(n int, stop, gone <-chan struct{}) bool {
	for {
		r.mu.Lock()
		if r.used == 0 || r.used+n <= r.size {
			r.used += n
			r.mu.Unlock()
			return true
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-stop:
			return false
		case <-gone:
			return false
		}
	}
}

// Give gives n bytes back that were taken.
func (r *Room) Give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	close(r.freed)
	r.freed = make(chan struct{})
}

// Over says whether more than n bytes are taken.
func (r *Room) Over(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used > n
}
