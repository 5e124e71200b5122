package buffer

import (
	"sync"

	"github.com/weir-edge/weir/buffer/disk"
)

const maxOpenHandles = 64

// handles keeps segment files open for readers, the most recently used ones.
type handles struct {
	log *Log

	mu   sync.Mutex
	open map[segmentID]*handle
	tick int64
}

type handle struct {
	file  disk.File
	users int
	used  int64
	gone  bool // close when the last user is done
}

// acquire returns the file of a segment and what to call when done with it.
// errMoved: there is no such segment any more.
func (hs *handles) acquire(id segmentID) (*handle, error) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.tick++
	if h := hs.open[id]; h != nil {
		h.users++
		h.used = hs.tick
		return h, nil
	}
	if !hs.log.has(id) {
		return nil, errMoved
	}
	file, err := hs.log.files.OpenFile(hs.log.segmentPath(id), disk.Read)
	if err != nil {
		if !hs.log.has(id) {
			return nil, errMoved
		}
		return nil, &CorruptError{Segment: hs.log.segmentPath(id), Reason: err.Error()}
	}
	hs.evict()
	h := &handle{file: file, users: 1, used: hs.tick}
	hs.open[id] = h
	return h, nil
}

func (hs *handles) openFile(id segmentID) (disk.File, func(), error) {
	h, err := hs.acquire(id)
	if err != nil {
		return nil, nil, err
	}
	return h.file, func() {
		hs.mu.Lock()
		defer hs.mu.Unlock()
		h.users--
		if h.gone && h.users == 0 {
			hs.shut(h)
		}
	}, nil
}

// evict makes room for one more. hs.mu is held.
func (hs *handles) evict() {
	if len(hs.open) < maxOpenHandles {
		return
	}
	var oldest segmentID
	var found *handle
	for id, h := range hs.open {
		if found == nil || h.used < found.used {
			oldest, found = id, h
		}
	}
	hs.remove(oldest)
}

// drop forgets the handle of a segment that goes away.
func (hs *handles) drop(id segmentID) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.remove(id)
}

func (hs *handles) remove(id segmentID) {
	h := hs.open[id]
	if h == nil {
		return
	}
	delete(hs.open, id)
	if h.gone = true; h.users == 0 {
		hs.shut(h)
	}
}

func (hs *handles) shut(h *handle) {
	if err := h.file.Close(); err != nil {
		hs.log.log.Warn("closing a segment after reading", "error", err)
	}
}

func (hs *handles) close() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for id := range hs.open {
		hs.remove(id)
	}
}
