package crashtest

import (
	"io"
	"io/fs"
	"syscall"
)

// file is an open file of an FS.
type file struct {
	fs       *FS
	name     string
	node     int
	writable bool
	closed   bool // guarded by fs.mu
}

// check says whether the file can be used so. fs.mu is held.
func (h *file) check(op string, writes bool, number int64) error {
	switch {
	case h.closed:
		return fail(op, h.name, fs.ErrClosed)
	case writes && !h.writable:
		return fail(op, h.name, syscall.EBADF)
	case number < 0:
		return fail(op, h.name, syscall.EINVAL)
	case writes && number > maxFileSize:
		return fail(op, h.name, syscall.EFBIG)
	}
	return nil
}

func (h *file) ReadAt(b []byte, offset int64) (int, error) {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("read", false, offset); err != nil {
		return 0, err
	}
	if fault := f.fault(Read, h.name); fault != nil {
		return 0, fail("read", h.name, fault.Err)
	}
	content := f.live.nodes[h.node].cache
	n := int(min(int64(len(b)), max(0, content.size-offset)))
	content.read(b[:n], offset)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(b []byte, offset int64) (int, error) {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("write", true, offset); err != nil {
		return 0, err
	}
	if err := h.check("write", true, offset+int64(len(b))); err != nil || len(b) == 0 {
		return 0, err
	}
	n, cause := len(b), error(nil)
	if fault := f.fault(Write, h.name); fault != nil {
		n, cause = min(n, max(0, fault.Partial)), fault.Err
	}
	if fits := h.fits(offset, offset+int64(n)); fits < n {
		n, cause = fits, syscall.ENOSPC
	}
	if n > 0 {
		data := append(make([]byte, 0, n), b[:n]...)
		f.record(&op{kind: Write, path: h.name, node: h.node, offset: offset, data: data})
	}
	if cause != nil {
		return n, fail("write", h.name, cause)
	}
	return n, nil
}

// fits returns how many bytes of [from, to) there are blocks for. fs.mu is
// held.
func (h *file) fits(from, to int64) int {
	content := h.fs.live.nodes[h.node].cache
	missing := content.missing(from, to)
	if missing == 0 {
		return int(to - from)
	}
	for free := h.fs.free(); missing > free; {
		to = (to - 1) / pageSize * pageSize // without its last page
		if to <= from {
			return 0
		}
		missing = content.missing(from, to)
	}
	return int(to - from)
}

func (h *file) Sync() error {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("fdatasync", false, 0); err != nil {
		return err
	}
	fault := f.fault(Sync, h.name)
	if fault == nil {
		f.record(&op{kind: Sync, path: h.name, node: h.node})
		return nil
	}
	if !fault.KeepDirty {
		f.record(&op{kind: syncFailed, path: h.name, node: h.node})
	}
	return fail("fdatasync", h.name, fault.Err)
}

func (h *file) Allocate(size int64) error {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("fallocate", true, size); err != nil || size == 0 {
		return err
	}
	if fault := f.fault(Allocate, h.name); fault != nil {
		return fail("fallocate", h.name, fault.Err)
	}
	if f.live.nodes[h.node].cache.missing(0, size) > f.free() {
		return fail("fallocate", h.name, syscall.ENOSPC)
	}
	f.record(&op{kind: Allocate, path: h.name, node: h.node, size: size})
	return nil
}

func (h *file) Truncate(size int64) error {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("truncate", true, size); err != nil {
		return err
	}
	if fault := f.fault(Truncate, h.name); fault != nil {
		return fail("truncate", h.name, fault.Err)
	}
	f.record(&op{kind: Truncate, path: h.name, node: h.node, size: size})
	return nil
}

func (h *file) Size() (int64, error) {
	h.fs.mu.RLock()
	defer h.fs.mu.RUnlock()
	if err := h.check("stat", false, 0); err != nil {
		return 0, err
	}
	return h.fs.live.nodes[h.node].cache.size, nil
}

func (h *file) Close() error {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := h.check("close", false, 0); err != nil {
		return err
	}
	h.closed = true
	f.opens[h.node]--
	if f.opens[h.node] == 0 {
		f.forget(h.node)
	}
	return nil
}
