package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// kv is what the log needs of Badger, so that a crash test can put a store
// with a history in its place.
type kv interface {
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for the keys in [from, to), ascending or, with reverse,
	// descending, until fn returns false. fn must not keep the slices.
	Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error
	// Write applies ops in their order, all or nothing, durable on return.
	Write(ops []KVOp) error
	Close() error
}

// KVOp is one write to the index store.
type KVOp = struct {
	Key, Value []byte
	Delete     bool
}

// Keys; FORMAT.md lists them.
const (
	keyBatch      = 'b'
	keyClosed     = 'i'
	keySegment    = 's'
	keyCheckpoint = 'k'
	keyConsumer   = 'c'
)

func shardPrefix(kind byte, s shardNumber) []byte {
	k := make([]byte, 9, 17)
	k[0] = kind
	binary.BigEndian.PutUint32(k[1:], s.stream)
	binary.BigEndian.PutUint32(k[5:], uint32(s.shard))
	return k
}

func shardKeyOf(kind byte, s shardNumber, seq Sequence) []byte {
	return binary.BigEndian.AppendUint64(shardPrefix(kind, s), uint64(seq))
}

func segmentKey(id segmentID) []byte {
	k := []byte{keySegment}
	k = binary.BigEndian.AppendUint32(k, id.chain)
	return binary.BigEndian.AppendUint64(k, id.number)
}

// sealValue appends the CRC over key and value.
func sealValue(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, checksum(append(append([]byte(nil), key...), value...)))
}

var errIndexDamaged = errors.New("index is damaged")

// openValue checks and cuts off what sealValue appended.
func openValue(key, value []byte) ([]byte, error) {
	if len(value) < 4 {
		return nil, fmt.Errorf("%w: value of key %x is too short", errIndexDamaged, key)
	}
	body, sum := value[:len(value)-4], binary.LittleEndian.Uint32(value[len(value)-4:])
	if checksum(append(append([]byte(nil), key...), body...)) != sum {
		return nil, fmt.Errorf("%w: checksum of key %x does not match", errIndexDamaged, key)
	}
	return body, nil
}

// badgerKV is the real store.
type badgerKV struct{ db *badger.DB }

// openBadger opens the store in dir with the small options of a board: no
// value log in use, no compression, about 10 MB of memory. Why each is as it
// is: SyncWrites, because without it Badger loses acknowledged writes even
// after Sync; ValueThreshold at its greatest, so that nothing is in the value
// log, whose garbage collection is no quota; no TTL ever, it believes the wall
// clock.
func openBadger(dir string) (store kv, err error) {
	if err := removeEmptyFiles(dir); err != nil {
		return nil, err
	}
	defer guard(&err)
	o := badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(nil).
		WithMemTableSize(8 << 20).WithNumMemtables(2).
		WithValueThreshold(1 << 20).WithValueLogFileSize(16 << 20).
		WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(4).WithNumCompactors(2).
		WithBaseLevelSize(10 << 20).WithBaseTableSize(2 << 20).
		WithBlockCacheSize(4 << 20).WithIndexCacheSize(4 << 20).
		WithDetectConflicts(false).WithMetricsEnabled(false).
		WithCompression(options.None)
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return &badgerKV{db}, nil
}

// removeEmptyFiles takes away zero-length .mem and .vlog files, which a power
// cut leaves and Badger refuses (badger#2207). They hold nothing.
func removeEmptyFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".mem") && !strings.HasSuffix(e.Name(), ".vlog") {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// guard turns a panic of Badger on a damaged table into an error. What it
// does in goroutines of its own is out of reach.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: badger gave up: %v", errIndexDamaged, r)
	}
}

func (b *badgerKV) Get(key []byte) (value []byte, ok bool, err error) {
	defer guard(&err)
	err = b.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	return value, err == nil, err
}

func (b *badgerKV) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) (err error) {
	defer guard(&err)
	return b.db.View(func(txn *badger.Txn) error {
		o := badger.IteratorOptions{PrefetchValues: false, Reverse: reverse}
		it := txn.NewIterator(o)
		defer it.Close()
		if reverse {
			it.Seek(to)
			if it.Valid() && string(it.Item().Key()) == string(to) {
				it.Next()
			}
		} else {
			it.Seek(from)
		}
		for ; it.Valid(); it.Next() {
			item := it.Item()
			key := item.Key()
			if reverse && string(key) < string(from) || !reverse && string(key) >= string(to) {
				return nil
			}
			more := true
			if err := item.Value(func(value []byte) error {
				more = fn(key, value)
				return nil
			}); err != nil {
				return err
			}
			if !more {
				return nil
			}
		}
		return nil
	})
}

func (b *badgerKV) Write(ops []KVOp) (err error) {
	defer guard(&err)
	return b.db.Update(func(txn *badger.Txn) error {
		for _, op := range ops {
			var err error
			if op.Delete {
				err = txn.Delete(op.Key)
			} else {
				err = txn.Set(op.Key, op.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *badgerKV) Close() (err error) {
	defer guard(&err)
	return b.db.Close()
}
