package crashtest

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/weir-edge/weir/buffer/disk"
)

// maxFileSize keeps a wild offset from taking all memory.
const maxFileSize = 1 << 36

var errOutside = errors.New("path escapes from the root")

// FS is a disk.FS in memory with a history. Its methods are safe for concurrent
// use; an operation is in the history, at once and whole, when it returns.
type FS struct {
	total int64

	mu     sync.RWMutex
	ops    []*op
	live   *state
	opens  map[int]int // open handles by node
	faults []*Fault
	failed int

	replay replay
}

var _ disk.FS = (*FS)(nil)

// New returns an empty disk of this size.
func New(totalBytes int64) *FS { return newFS(totalBytes, newState()) }

// newFS takes over a state as the start of a new history.
func newFS(total int64, base *state) *FS {
	f := &FS{total: total, live: base.clone(), opens: map[int]int{}}
	f.replay.base = base
	linked := map[int]bool{}
	f.live.tree.reachable(func(number int) { linked[number] = true })
	for number := range f.live.nodes {
		if !linked[number] {
			f.live.nodes[number] = nil
		}
	}
	return f
}

// Ops returns how many operations were made. The points to cut at are 0 to
// Ops, each the number of operations that come before it.
func (f *FS) Ops() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.ops)
}

// Mark is Ops, to note what was acknowledged when: whatever was acknowledged
// before Mark returned n must be there after a cut at n or later.
func (f *FS) Mark() int { return f.Ops() }

// Describe says what the operations from op number from up to number to were,
// one a line, for the report of a cut that went wrong.
func (f *FS) Describe(from, to int) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var b strings.Builder
	for _, o := range f.ops[min(max(from, 0), len(f.ops)):min(max(to, 0), len(f.ops))] {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// record makes an operation and writes it down. f.mu is held.
func (f *FS) record(o *op) {
	f.ops = append(f.ops, o)
	f.live.apply(o)
}

func fail(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// find returns the place of a name and the node there, or -1. An error says
// that there is no such place. f.mu is held.
func (f *FS) find(name string) (entry, int, error) {
	if name == "" {
		return entry{}, -1, syscall.ENOENT
	}
	clean := path.Clean(name)
	if clean == "." {
		return entry{}, root, nil
	}
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return entry{}, -1, errOutside
	}
	at := entry{dir: root}
	for {
		first, rest, more := strings.Cut(clean, "/")
		number, ok := f.live.tree[at.dir][first]
		if !more {
			if !ok {
				number = -1
			}
			return entry{at.dir, first}, number, nil
		}
		if !ok {
			return entry{}, -1, syscall.ENOENT
		}
		if !f.live.nodes[number].dir {
			return entry{}, -1, syscall.ENOTDIR
		}
		at.dir, clean = number, rest
	}
}

// dir returns the node of a directory. f.mu is held.
func (f *FS) dir(name string) (int, error) {
	_, number, err := f.find(name)
	switch {
	case err != nil:
		return -1, err
	case number < 0:
		return -1, syscall.ENOENT
	case !f.live.nodes[number].dir:
		return -1, syscall.ENOTDIR
	}
	return number, nil
}

// forget gives back the blocks of a file that has neither name nor handle.
// f.mu is held.
func (f *FS) forget(number int) {
	if f.opens[number] > 0 {
		return
	}
	delete(f.opens, number)
	linked := false
	f.live.tree.reachable(func(n int) { linked = linked || n == number })
	if !linked {
		f.live.nodes[number] = nil
	}
}

// free is the space left, in pages. f.mu is held.
func (f *FS) free() int64 {
	used := int64(0)
	for _, n := range f.live.nodes {
		if n != nil && !n.dir {
			used += n.cache.blocks
		}
	}
	return max(0, f.total/pageSize-used)
}

// OpenFile is that of disk.Files.
func (f *FS) OpenFile(name string, mode disk.Mode) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, number, err := f.find(name)
	switch {
	case err != nil:
	case mode != disk.Create && number < 0:
		err = syscall.ENOENT
	case mode == disk.Create && number >= 0:
		err = syscall.EEXIST
	case number >= 0 && f.live.nodes[number].dir:
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, fail("open", name, err)
	}
	if mode == disk.Create {
		if fault := f.fault(Create, name); fault != nil {
			return nil, fail("open", name, fault.Err)
		}
		number = len(f.live.nodes)
		f.record(&op{kind: Create, path: name, node: number, to: at})
	}
	f.opens[number]++
	return &file{fs: f, name: name, node: number, writable: mode != disk.Read}, nil
}

// Rename is that of disk.Files.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, number, err := f.find(from)
	if err != nil {
		return fail("rename", from, err)
	}
	if number < 0 {
		return fail("rename", from, syscall.ENOENT)
	}
	if number == root {
		return fail("rename", from, syscall.EBUSY)
	}
	at, there, err := f.find(to)
	if err == nil {
		err = f.canReplace(number, at, there)
	}
	if err != nil {
		return fail("rename", to, err)
	}
	if number == there {
		return nil
	}
	if fault := f.fault(Rename, from); fault != nil {
		return fail("rename", from, fault.Err)
	}
	f.record(&op{kind: Rename, path: from + " " + to, node: number, from: old, to: at})
	if there >= 0 {
		f.forget(there)
	}
	return nil
}

// canReplace says why a node cannot be put at a place where another, or -1,
// is. f.mu is held.
func (f *FS) canReplace(number int, at entry, there int) error {
	n := f.live.nodes[number]
	if n.dir {
		inside := number == at.dir
		for dirs := []int{number}; len(dirs) > 0 && !inside; dirs = dirs[1:] {
			for _, child := range f.live.tree[dirs[0]] {
				inside = inside || child == at.dir
				if f.live.nodes[child].dir {
					dirs = append(dirs, child)
				}
			}
		}
		if inside {
			return syscall.EINVAL
		}
	}
	switch {
	case there < 0 || there == number:
		return nil
	case there == root:
		return syscall.EBUSY
	case f.live.nodes[there].dir != n.dir && n.dir:
		return syscall.ENOTDIR
	case f.live.nodes[there].dir != n.dir:
		return syscall.EISDIR
	case len(f.live.tree[there]) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// Remove is that of disk.Files.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, number, err := f.find(name)
	switch {
	case err != nil:
	case number < 0:
		err = syscall.ENOENT
	case number == root:
		err = syscall.EINVAL
	case len(f.live.tree[number]) > 0:
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return fail("remove", name, err)
	}
	if fault := f.fault(Remove, name); fault != nil {
		return fail("remove", name, fault.Err)
	}
	f.record(&op{kind: Remove, path: name, node: number, from: at})
	f.forget(number)
	return nil
}

// Mkdir is that of disk.Dirs. Each directory it makes is an operation.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, _, err := f.find(name); errors.Is(err, errOutside) || name == "" {
		return fail("mkdir", name, cmp.Or[error](err, syscall.ENOENT))
	}
	clean := path.Clean(name)
	for end := 0; end < len(clean); end++ {
		if i := strings.IndexByte(clean[end:], '/'); i >= 0 {
			end += i
		} else {
			end = len(clean)
		}
		at, number, err := f.find(clean[:end])
		if err == nil && number >= 0 && !f.live.nodes[number].dir {
			err = syscall.ENOTDIR
		}
		if err != nil {
			return fail("mkdir", name, err)
		}
		if number >= 0 {
			continue
		}
		if fault := f.fault(Mkdir, clean[:end]); fault != nil {
			return fail("mkdir", name, fault.Err)
		}
		f.record(&op{kind: Mkdir, path: clean[:end], node: len(f.live.nodes), to: at})
	}
	return nil
}

// ReadDir is that of disk.Dirs. A directory has size 0.
func (f *FS) ReadDir(name string) ([]disk.Info, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	dir, err := f.dir(name)
	if err != nil {
		return nil, fail("readdir", name, err)
	}
	infos := make([]disk.Info, 0, len(f.live.tree[dir]))
	for name, number := range f.live.tree[dir] {
		info := disk.Info{Name: name, Dir: true}
		if n := f.live.nodes[number]; !n.dir {
			info = disk.Info{Name: name, Size: n.cache.size, Allocated: n.cache.blocks * pageSize}
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b disk.Info) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

// SyncDir is that of disk.Dirs.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, err := f.dir(name)
	if err != nil {
		return fail("syncdir", name, err)
	}
	if fault := f.fault(SyncDir, name); fault != nil {
		return fail("syncdir", name, fault.Err)
	}
	f.record(&op{kind: SyncDir, path: name, node: dir})
	return nil
}

// Space is that of disk.Dirs.
func (f *FS) Space() (disk.Space, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return disk.Space{FreeBytes: f.free() * pageSize, TotalBytes: f.total / pageSize * pageSize}, nil
}
