package broker

import "sync"

// room is an amount of bytes that is taken and given back.
type room struct {
	size int

	mu    sync.Mutex
	used  int
	freed chan struct{} // closed and replaced when some is given back
}

func newRoom(size int) *room { return &room{size: size, freed: make(chan struct{})} }

// take waits for n bytes, or for one of the two to end; then it returns false.
// What is larger than all of it goes alone.
func (r *room) take(n int, stop, gone <-chan struct{}) bool {
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

func (r *room) give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	close(r.freed)
	r.freed = make(chan struct{})
}

// over says whether more than n bytes are taken.
func (r *room) over(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used > n
}
