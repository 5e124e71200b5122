package crashtest

import (
	"fmt"
	"path"
)

// Kind is a kind of operation.
type Kind int

// The kinds of operations. Read is the only one that is not in the history;
// Any is every kind but Read.
const (
	Any Kind = iota
	Create
	Mkdir
	Write
	Truncate
	Allocate
	Sync
	Rename
	Remove
	SyncDir
	KVWrite
	Read

	syncFailed
	kvReset
)

func (k Kind) String() string {
	names := [...]string{"any", "create", "mkdir", "write", "truncate", "allocate", "sync", "rename", "remove", "syncdir", "kv write", "read", "failed sync", "kv reset"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}

// op is one operation of a history. Nothing changes in it once it is there.
type op struct {
	kind Kind
	path string // as the caller named it, for people
	node int    // file or directory; the one that SyncDir syncs

	offset int64 // Write
	data   []byte
	size   int64 // Truncate, Allocate

	from, to entry // Create, Mkdir: to. Remove: from. Rename: both

	kv []KVOp
}

// entry is a place in a directory.
type entry struct {
	dir  int
	name string
}

func (o *op) String() string {
	switch o.kind {
	case Write:
		return fmt.Sprintf("write %s %d+%d", o.path, o.offset, len(o.data))
	case Truncate, Allocate:
		return fmt.Sprintf("%s %s %d", o.kind, o.path, o.size)
	case KVWrite:
		return fmt.Sprintf("kv write %s %d", o.path, len(o.kv))
	}
	return o.kind.String() + " " + path.Clean(o.path)
}

// in says whether a directory operation changes a directory.
func (o *op) in(dir int) bool {
	return o.from.name != "" && o.from.dir == dir || o.to.name != "" && o.to.dir == dir
}
