package crashtest

import (
	"bytes"
	"cmp"
	"io/fs"
	"slices"
	"sort"
)

// KVOp is one write to a KV.
type KVOp = struct {
	Key, Value []byte
	Delete     bool
}

// KV is an ordered store of keys and values whose writes are operations of an
// FS: durable on return, all or nothing. It stands in for Badger, whose own
// files are not on the FS. Its methods are safe for concurrent use, copy what
// they are given, and return fs.ErrClosed once it is closed.
type KV struct {
	fs     *FS
	name   string
	closed bool // guarded by fs.mu
}

// table is the content of a KV, sorted. It never changes; a write makes a new
// one.
type table []item

type item struct {
	key   string
	value []byte
}

func (t table) find(key string) (int, bool) {
	return sort.Find(len(t), func(i int) int { return cmp.Compare(key, t[i].key) })
}

// merge returns the table with ops applied in their order.
func (t table) merge(ops []KVOp) table {
	sorted := slices.Clone(ops)
	slices.SortStableFunc(sorted, func(a, b KVOp) int { return bytes.Compare(a.Key, b.Key) })
	out := make(table, 0, len(t)+len(ops))
	for i, o := range sorted {
		if i+1 < len(sorted) && bytes.Equal(o.Key, sorted[i+1].Key) {
			continue // the last one counts
		}
		key := string(o.Key)
		at, found := t.find(key)
		out = append(out, t[:at]...)
		t = t[at:]
		if found {
			t = t[1:]
		}
		if !o.Delete {
			out = append(out, item{key, o.Value})
		}
	}
	return append(out, t...)
}

// NewKV makes an empty store with this name, in place of one that is there.
// That is an operation of the history.
func (f *FS) NewKV(name string) *KV {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(&op{kind: kvReset, path: name})
	return &KV{fs: f, name: name}
}

// OpenKV returns the store with this name as it is: after CrashAt as of that
// operation. One that was never made is empty.
func (f *FS) OpenKV(name string) *KV { return &KV{fs: f, name: name} }

func (k *KV) table() (table, error) {
	k.fs.mu.RLock()
	defer k.fs.mu.RUnlock()
	if k.closed {
		return nil, &fs.PathError{Op: "read", Path: k.name, Err: fs.ErrClosed}
	}
	return k.fs.live.kv[k.name], nil
}

// Get returns a copy of the value of a key, and whether there is one.
func (k *KV) Get(key []byte) ([]byte, bool, error) {
	t, err := k.table()
	if err != nil {
		return nil, false, err
	}
	i, ok := t.find(string(key))
	if !ok {
		return nil, false, nil
	}
	return append([]byte{}, t[i].value...), true, nil
}

// Scan calls fn for each key in [from, to) of the store as it is now, ascending
// or, with reverse, descending, until fn returns false. An empty to is the end
// of all keys. fn must not change or keep the slices; it may call the store.
func (k *KV) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	t, err := k.table()
	if err != nil {
		return err
	}
	first, _ := t.find(string(from))
	last := len(t)
	if len(to) > 0 {
		last, _ = t.find(string(to))
	}
	if first >= last {
		return nil
	}
	part := t[first:last]
	for i := range part {
		at := &part[i]
		if reverse {
			at = &part[len(part)-1-i]
		}
		if !fn([]byte(at.key), at.value) {
			return nil
		}
	}
	return nil
}

// Write applies ops in their order, as one operation.
func (k *KV) Write(ops []KVOp) error {
	f := k.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.closed {
		return &fs.PathError{Op: "write", Path: k.name, Err: fs.ErrClosed}
	}
	if fault := f.fault(KVWrite, k.name); fault != nil {
		return &fs.PathError{Op: "write", Path: k.name, Err: fault.Err}
	}
	copied := make([]KVOp, len(ops))
	for i, o := range ops {
		copied[i] = KVOp{Key: bytes.Clone(o.Key), Value: bytes.Clone(o.Value), Delete: o.Delete}
	}
	f.record(&op{kind: KVWrite, path: k.name, kv: copied})
	return nil
}

// Close closes this handle; what was written stays.
func (k *KV) Close() error {
	k.fs.mu.Lock()
	defer k.fs.mu.Unlock()
	if k.closed {
		return &fs.PathError{Op: "close", Path: k.name, Err: fs.ErrClosed}
	}
	k.closed = true
	return nil
}
