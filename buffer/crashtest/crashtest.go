// Package crashtest is a disk in memory that remembers everything that was
// done to it, so that a test can ask for the state a power cut would have left
// after any of it. The main type is FS, a disk.FS; FS.NewKV is a store beside it
// that stands in for Badger and shares its history.
//
// What a cut leaves (buffer/CRASH.md has the reasons):
//
//   - bytes and size of a file as of its last Sync, and of what was written
//     since, whatever Tear says: nothing, everything, any subset of 512-byte
//     sectors, any subset of whole writes, or zeros where sectors were to be;
//   - directory operations up to the last SyncDir that covered them, and any
//     number of the following ones, in their order;
//   - every write to the store that returned.
//
// It also fails operations on request, as a dying disk does: a failed sync
// forgets what was written since the last one.
//
// It does not model a disk that lies about syncs, nor bit rot.
package crashtest

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/buffer/disk"
)

const sector = 512

// Tear says what a cut makes of what was not synced.
type Tear struct {
	Mode TearMode
	Seed uint64
}

// TearMode is one way a disk treats what was not synced.
type TearMode int

// The ways.
const (
	LoseUnsynced TearMode = iota // nothing of it is there
	KeepAll                      // all of it is there, as when only the process died
	Sectors                      // any subset of its sectors is there
	Writes                       // any subset of whole writes is there
	Zeros                        // any subset of sectors is there, some others are zeros
	TearModes                    // how many there are
)

type opKind uint8

const (
	opWrite opKind = iota
	opSync
	opTruncate
	opAllocate
	opCreate
	opRename
	opRemove
	opMkdir
	opSyncDir
	opStore
)

// op is one operation of the history.
type op struct {
	kind   opKind
	inode  int
	offset int64 // or size
	data   []byte
	name   string
	to     string
	kv     []KVOp
}

// inode is a file's content.
type inode struct {
	data   []byte // shared until owned
	owned  bool
	size   int64
	writes []op // since the last sync (only while replaying)
}

func (n *inode) own(size int64) {
	if !n.owned || int64(cap(n.data)) < size {
		grown := make([]byte, len(n.data), max(size, int64(len(n.data))))
		copy(grown, n.data)
		n.data, n.owned = grown, true
	}
	if int64(len(n.data)) < size {
		n.data = n.data[:size]
	}
}

func (n *inode) apply(o op) {
	switch o.kind {
	case opWrite:
		end := o.offset + int64(len(o.data))
		n.own(end)
		copy(n.data[o.offset:], o.data)
		n.size = max(n.size, end)
	case opTruncate:
		if o.offset < int64(len(n.data)) {
			n.own(int64(len(n.data)))
			clear(n.data[o.offset:])
			n.data = n.data[:o.offset]
		}
		n.size = o.offset
	case opAllocate:
		n.size = max(n.size, o.offset)
	}
}

// tree is names and inodes.
type tree struct {
	names  map[string]int
	dirs   map[string]bool
	inodes map[int]*inode
}

func newTree() *tree {
	return &tree{names: map[string]int{}, dirs: map[string]bool{".": true}, inodes: map[int]*inode{}}
}

func (t *tree) directory(o op) {
	switch o.kind {
	case opCreate:
		t.names[o.name] = o.inode
	case opRename:
		t.names[o.to] = t.names[o.name]
		delete(t.names, o.name)
	case opRemove:
		delete(t.names, o.name)
	case opMkdir:
		for d := o.name; d != "."; d = path.Dir(d) {
			t.dirs[d] = true
		}
	}
}

// FS is the disk. Safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	live    *tree
	stores  map[string]map[string][]byte
	history []op
	forgets bool // keeps no history: it is the state after a cut
	next    int
	total   int64
	faults  []*fault
}

var _ disk.FS = (*FS)(nil)

// New returns an empty disk of total bytes.
func New(total int64) *FS {
	return &FS{live: newTree(), stores: map[string]map[string][]byte{}, total: total}
}

// Ops is how many operations were done: cuts are possible after 0 to Ops.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.history)
}

// do records and applies an operation. f.mu is held.
func (f *FS) do(o op) {
	if !f.forgets {
		if o.data != nil {
			o.data = slices.Clone(o.data)
		}
		f.history = append(f.history, o)
	}
	switch o.kind {
	case opWrite, opTruncate, opAllocate:
		f.live.inodes[o.inode].apply(o)
	case opCreate, opRename, opRemove, opMkdir:
		f.live.directory(o)
	}
}

// OpenFile opens a file. See disk.Files.
func (f *FS) OpenFile(name string, mode disk.Mode) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	id, ok := f.live.names[name]
	if mode != disk.Create {
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return &file{fs: f, inode: id, name: name, writable: mode != disk.Read}, nil
	}
	if ok {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if !f.live.dirs[path.Dir(name)] {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	if err := f.fail("create", name); err != nil {
		return nil, err
	}
	f.next++
	f.live.inodes[f.next] = &inode{owned: true}
	f.do(op{kind: opCreate, name: name, inode: f.next})
	return &file{fs: f, inode: f.next, name: name, writable: true}, nil
}

// Rename moves a file.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to = path.Clean(from), path.Clean(to)
	if _, ok := f.live.names[from]; !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if err := f.fail("rename", from); err != nil {
		return err
	}
	f.do(op{kind: opRename, name: from, to: to})
	return nil
}

// Remove removes a file. Its bytes stay for those who have it open.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	if _, ok := f.live.names[name]; !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if err := f.fail("remove", name); err != nil {
		return err
	}
	f.do(op{kind: opRemove, name: name})
	return nil
}

// Mkdir makes a directory and its parents.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name = path.Clean(name); !f.live.dirs[name] {
		f.do(op{kind: opMkdir, name: name})
	}
	return nil
}

// ReadDir lists a directory.
func (f *FS) ReadDir(name string) ([]disk.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	if !f.live.dirs[name] {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var list []disk.Info
	for file, id := range f.live.names {
		if path.Dir(file) == name {
			size := f.live.inodes[id].size
			list = append(list, disk.Info{Name: path.Base(file), Size: size, Allocated: size})
		}
	}
	for d := range f.live.dirs {
		if d != "." && path.Dir(d) == name {
			list = append(list, disk.Info{Name: path.Base(d), Dir: true})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// SyncDir makes the directory's entries durable, and all directory operations
// before them.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail("syncdir", name); err != nil {
		return err
	}
	f.do(op{kind: opSyncDir, name: path.Clean(name)})
	return nil
}

// Space tells how full the disk is.
func (f *FS) Space() (disk.Space, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return disk.Space{FreeBytes: f.total - f.used(), TotalBytes: f.total}, nil
}

func (f *FS) used() int64 {
	var used int64
	for _, id := range f.live.names {
		used += f.live.inodes[id].size
	}
	return used
}

// file is an open file.
type file struct {
	fs       *FS
	inode    int
	name     string
	writable bool
}

func (o *file) ReadAt(b []byte, offset int64) (int, error) {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	n := o.fs.live.inodes[o.inode]
	if offset >= n.size {
		return 0, io.EOF
	}
	count := int(min(int64(len(b)), n.size-offset))
	clear(b[:count])
	if offset < int64(len(n.data)) {
		copy(b[:count], n.data[offset:])
	}
	if count < len(b) {
		return count, io.EOF
	}
	return count, nil
}

func (o *file) WriteAt(b []byte, offset int64) (int, error) {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	if !o.writable {
		return 0, &fs.PathError{Op: "write", Path: o.name, Err: fs.ErrPermission}
	}
	if err := o.fs.fail("write", o.name); err != nil {
		half := len(b) / 2 // what a failing write may have done
		o.fs.do(op{kind: opWrite, inode: o.inode, offset: offset, data: b[:half]})
		return half, err
	}
	size := o.fs.live.inodes[o.inode].size
	if grow := offset + int64(len(b)) - size; grow > 0 && o.fs.used()+grow > o.fs.total {
		return 0, &fs.PathError{Op: "write", Path: o.name, Err: unix.ENOSPC}
	}
	o.fs.do(op{kind: opWrite, inode: o.inode, offset: offset, data: b})
	return len(b), nil
}

func (o *file) Sync() error {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	if err := o.fs.fail("sync", o.name); err != nil {
		return err // nothing of it is promised; a cut later treats it as not synced
	}
	o.fs.do(op{kind: opSync, inode: o.inode})
	return nil
}

func (o *file) Allocate(size int64) error {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	if err := o.fs.fail("allocate", o.name); err != nil {
		return err
	}
	if grow := size - o.fs.live.inodes[o.inode].size; grow > 0 && o.fs.used()+grow > o.fs.total {
		return &fs.PathError{Op: "fallocate", Path: o.name, Err: unix.ENOSPC}
	}
	o.fs.do(op{kind: opAllocate, inode: o.inode, offset: size})
	return nil
}

func (o *file) Truncate(size int64) error {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	if err := o.fs.fail("truncate", o.name); err != nil {
		return err
	}
	o.fs.do(op{kind: opTruncate, inode: o.inode, offset: size})
	return nil
}

func (o *file) Size() (int64, error) {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	return o.fs.live.inodes[o.inode].size, nil
}

func (o *file) Close() error { return nil }

// fault makes operations fail.
type fault struct {
	kind, prefix string
	after        int
	forever      bool
	err          error
}

// Fail makes the n-th operation from now (1: the next) of a kind (write, sync,
// allocate, truncate, create, rename, remove, syncdir) on a name with prefix
// fail with err, and with forever all after it too.
func (f *FS) Fail(kind, prefix string, n int, forever bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault{kind: kind, prefix: prefix, after: n, forever: forever, err: err})
}

// Heal ends all faults.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

func (f *FS) fail(kind, name string) error {
	for _, t := range f.faults {
		if t.kind != kind || !strings.HasPrefix(name, t.prefix) {
			continue
		}
		if t.after--; t.after == 0 || t.after < 0 && t.forever {
			return &fs.PathError{Op: kind, Path: name, Err: t.err}
		}
	}
	return nil
}

// Replay walks through the history of a disk, from the beginning on.
type Replay struct {
	fs      *FS
	at      int
	durable *tree // inodes hold what is synced; their writes what is not
	pending []op  // directory operations that are not durable
	stores  map[string]map[string][]byte
}

// Replay begins to walk through what was done so far.
func (f *FS) Replay() *Replay {
	return &Replay{fs: f, durable: newTree(), stores: map[string]map[string][]byte{}}
}

// CrashAt is Replay for a single cut.
func (f *FS) CrashAt(after int, tear Tear) *FS {
	r := f.Replay()
	r.To(after)
	return r.Crash(tear)
}

// To goes on to the state after that many operations; never back.
func (r *Replay) To(after int) {
	r.fs.mu.Lock()
	history := r.fs.history
	r.fs.mu.Unlock()
	for ; r.at < after; r.at++ {
		r.step(history[r.at])
	}
}

func (r *Replay) step(o op) {
	switch o.kind {
	case opWrite, opTruncate, opAllocate:
		n := r.durable.inodes[o.inode]
		n.writes = append(n.writes, o)
	case opSync:
		n := r.durable.inodes[o.inode]
		for _, w := range n.writes {
			n.apply(w)
		}
		n.writes = nil
	case opCreate:
		r.durable.inodes[o.inode] = &inode{owned: true}
		r.pending = append(r.pending, o)
	case opRename, opRemove, opMkdir:
		r.pending = append(r.pending, o)
	case opSyncDir:
		last := -1
		for i, p := range r.pending {
			if path.Dir(p.name) == o.name || p.kind == opRename && path.Dir(p.to) == o.name {
				last = i
			}
		}
		for _, p := range r.pending[:last+1] {
			r.durable.directory(p)
		}
		r.pending = append([]op(nil), r.pending[last+1:]...)
	case opStore:
		store := r.stores[o.name]
		if store == nil {
			store = map[string][]byte{}
			r.stores[o.name] = store
		}
		applyKV(store, o.kv)
	}
}

// Crash returns the disk as a power cut at this moment leaves it. The walk
// can go on afterwards.
func (r *Replay) Crash(tear Tear) *FS {
	random := rand.New(rand.NewPCG(tear.Seed, uint64(r.at)))
	image := &FS{live: newTree(), stores: map[string]map[string][]byte{}, forgets: true, next: r.fs.next, total: r.fs.total}
	for name, id := range r.durable.names {
		image.live.names[name] = id
	}
	for d := range r.durable.dirs {
		image.live.dirs[d] = true
	}
	keep := 0
	switch tear.Mode {
	case LoseUnsynced:
	case KeepAll:
		keep = len(r.pending)
	default:
		keep = random.IntN(len(r.pending) + 1)
	}
	for _, p := range r.pending[:keep] {
		image.live.directory(p)
	}
	for _, id := range sortedInodes(image.live.names) {
		n := r.durable.inodes[id]
		copied := &inode{data: n.data[:len(n.data):len(n.data)], size: n.size}
		image.live.inodes[id] = copied
		tearWrites(copied, n.writes, tear.Mode, random)
	}
	for name, store := range r.stores {
		copied := make(map[string][]byte, len(store))
		for k, v := range store {
			copied[k] = v
		}
		image.stores[name] = copied
	}
	return image
}

func sortedInodes(names map[string]int) []int {
	var list []int
	for _, id := range names {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// tearWrites applies what survives of writes that were not synced.
func tearWrites(n *inode, writes []op, mode TearMode, random *rand.Rand) {
	for _, w := range writes {
		switch {
		case mode == LoseUnsynced:
		case mode == KeepAll:
			n.apply(w)
		case w.kind != opWrite || mode == Writes:
			if random.IntN(2) == 0 {
				n.apply(w)
			}
		default:
			tearOne(n, w, mode, random)
		}
	}
}

// tearOne applies any subset of a write's sectors.
func tearOne(n *inode, w op, mode TearMode, random *rand.Rand) {
	end := w.offset + int64(len(w.data))
	for at := w.offset; at < end; {
		next := min(end, (at/sector+1)*sector)
		piece := op{kind: opWrite, offset: at, data: w.data[at-w.offset : next-w.offset]}
		switch random.IntN(3) {
		case 0:
			n.apply(piece)
		case 1:
			if mode == Zeros {
				piece.data = make([]byte, len(piece.data))
				n.apply(piece)
			}
		}
		at = next
	}
}

// KVOp is one write to a store.
type KVOp = struct {
	Key, Value []byte
	Delete     bool
}

func applyKV(store map[string][]byte, ops []KVOp) {
	for _, o := range ops {
		if o.Delete {
			delete(store, string(o.Key))
		} else {
			store[string(o.Key)] = o.Value
		}
	}
}

// KV is an ordered store whose writes are durable when they return.
type KV struct {
	fs   *FS
	name string
}

// OpenKV opens the store called name, or makes it.
func (f *FS) OpenKV(name string) *KV {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stores[name] == nil {
		f.stores[name] = map[string][]byte{}
	}
	return &KV{f, name}
}

// DropKV empties the store called name.
func (f *FS) DropKV(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stores[name] = map[string][]byte{}
}

// Get returns the value of key.
func (k *KV) Get(key []byte) ([]byte, bool, error) {
	k.fs.mu.Lock()
	defer k.fs.mu.Unlock()
	v, ok := k.fs.stores[k.name][string(key)]
	return v, ok, nil
}

// Scan calls fn for the keys in [from, to), in order or in reverse.
func (k *KV) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	k.fs.mu.Lock()
	type pair struct {
		key   string
		value []byte
	}
	var list []pair
	for key, value := range k.fs.stores[k.name] {
		if key >= string(from) && key < string(to) {
			list = append(list, pair{key, value})
		}
	}
	k.fs.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].key < list[j].key != reverse })
	for _, p := range list {
		if !fn([]byte(p.key), p.value) {
			return nil
		}
	}
	return nil
}

// Write applies ops, all or nothing.
func (k *KV) Write(ops []KVOp) error {
	k.fs.mu.Lock()
	defer k.fs.mu.Unlock()
	if err := k.fs.fail("store", k.name); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	copied := make([]KVOp, len(ops))
	for i, o := range ops {
		copied[i] = KVOp{Key: slices.Clone(o.Key), Value: slices.Clone(o.Value), Delete: o.Delete}
	}
	if !k.fs.forgets {
		k.fs.history = append(k.fs.history, op{kind: opStore, name: k.name, kv: copied})
	}
	applyKV(k.fs.stores[k.name], copied)
	return nil
}

// Close does nothing.
func (k *KV) Close() error { return nil }
