package crashtest

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
)

// TearMode says what becomes of what was not durable at a cut.
type TearMode int

// The modes.
const (
	// LoseUnsynced: nothing of it survives.
	LoseUnsynced TearMode = iota
	// KeepAll: all of it is there, as after the kill of the process. It is still
	// not durable: a later cut of the new FS may take it.
	KeepAll
	// Random: any sectors of each write, and a prefix of the directory
	// operations.
	Random
	// Reorder: some writes whole and others not at all, in whatever order they
	// were made, and a prefix of the directory operations.
	Reorder
	// Garbage: as Random, but bytes that did not survive may be zeros, random
	// bytes, or something that was once written elsewhere.
	Garbage
)

func (m TearMode) String() string {
	names := [...]string{"lose unsynced", "keep all", "random", "reorder", "garbage"}
	if m < 0 || int(m) >= len(names) {
		return fmt.Sprintf("tear mode %d", int(m))
	}
	return names[m]
}

// Modes returns all modes.
func Modes() []TearMode { return []TearMode{LoseUnsynced, KeepAll, Random, Reorder, Garbage} }

// Tear says what a cut leaves. The same Tear at the same operation of the same
// history leaves the same.
type Tear struct {
	Seed uint64
	Mode TearMode
}

// snapshotEvery is how many operations lie between the states that are kept, so
// that going back is cheap.
const snapshotEvery = 128

// replay walks over a history a second time, behind the caller's back.
type replay struct {
	mu     sync.Mutex
	base   *state // before the first operation
	kept   []*state
	at     int
	cursor *state
}

// state returns the state after the first n operations, to be read and cloned.
// r.mu is held.
func (r *replay) state(ops []*op, n int) *state {
	if r.cursor == nil {
		r.kept, r.cursor = []*state{r.base}, r.base.clone()
	}
	if best := min(n/snapshotEvery, len(r.kept)-1); n < r.at || best*snapshotEvery > r.at {
		r.at, r.cursor = best*snapshotEvery, r.kept[best].clone()
	}
	for r.at < n {
		r.cursor.apply(ops[r.at])
		r.at++
		if r.at == len(r.kept)*snapshotEvery {
			r.kept = append(r.kept, r.cursor.clone())
		}
	}
	return r.cursor
}

// CrashAt returns a new FS, with a history of its own, that holds what the disk
// may hold if it is cut right after operation number op (0: before the first).
// An op beyond the history is its end. This FS is not touched, and goes on.
// Cuts in rising order cost least; several at a time wait for each other.
func (f *FS) CrashAt(op int, tear Tear) *FS {
	f.mu.RLock()
	ops := f.ops[:len(f.ops):len(f.ops)]
	f.mu.RUnlock()
	op = min(max(op, 0), len(ops))

	f.replay.mu.Lock()
	defer f.replay.mu.Unlock()
	s := f.replay.state(ops, op)
	if tear.Mode == KeepAll {
		return newFS(f.total, s.clone())
	}
	return newFS(f.total, s.torn(&cut{tear: tear, op: op, ops: ops[:op]}))
}

// cut is one cut of a history.
type cut struct {
	tear Tear
	op   int
	ops  []*op
}

// random returns the source that decides about one node, or with -1 about the
// directories.
func (c *cut) random(number int) *rand.Rand {
	mix := func(x uint64) uint64 { // SplitMix64
		x += 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	return rand.New(rand.NewPCG(mix(c.tear.Seed), mix(uint64(c.op)<<32^uint64(number+1))))
}

// torn returns what a cut leaves of a state, all of it durable.
func (s *state) torn(c *cut) *state {
	left := &state{nodes: make([]*node, len(s.nodes)), durable: tree{}, kv: maps.Clone(s.kv)}
	names := s.durable
	if len(s.moves) > 0 && c.tear.Mode != LoseUnsynced {
		names = names.clone()
		for _, o := range s.moves[:c.random(-1).IntN(len(s.moves)+1)] {
			names.apply(o)
		}
	}
	names.reachable(func(number int) {
		n := s.nodes[number]
		if n.dir {
			left.nodes[number] = &node{dir: true}
			left.durable[number] = maps.Clone(names[number])
			return
		}
		content := n.torn(c, number)
		left.nodes[number] = &node{cache: content, disk: content.clone()}
	})
	left.tree = left.durable.clone()
	return left
}

// torn returns what a cut leaves of a file.
func (n *node) torn(c *cut, number int) *image {
	if len(n.pending) == 0 || c.tear.Mode == LoseUnsynced {
		return n.disk.clone()
	}
	t := &tearing{cut: c, random: c.random(number), out: n.disk.clone(), cache: n.disk.clone(), limit: math.MaxInt64}
	sizes := 0
	for _, p := range n.pending {
		if p.op.kind != Write {
			sizes++
		}
	}
	sizes = t.random.IntN(sizes + 1)
	for _, p := range n.pending {
		if p.op.kind == Write {
			t.write(&p)
			continue
		}
		if sizes > 0 {
			sizes--
			t.out.apply(p.op)
		} else if p.op.kind == Truncate && p.op.size < t.cache.size {
			t.limit = min(t.limit, p.op.size)
		}
		t.cache.apply(p.op)
	}
	return t.out
}

// tearing is the tearing of one file.
type tearing struct {
	*cut
	random *rand.Rand
	out    *image // what survives
	cache  *image // the page cache, as it was write after write
	limit  int64  // a truncation to this did not survive
}

const sectorSize = 512

// write lets a part of a write survive.
func (t *tearing) write(p *pending) {
	start, end := p.op.offset, p.op.offset+int64(len(p.op.data))
	survives := t.survivors(int((end-1)/sectorSize-start/sectorSize) + 1)
	left := p.pages
	for from := start; from < end; {
		to := min(end, from-from%sectorSize+sectorSize)
		if p.lost {
			// Pages that were written again since are as that left them.
			for len(left) > 0 && int64(left[0]) < from/pageSize {
				left = left[1:]
			}
			if len(left) == 0 || int64(left[0]) != from/pageSize {
				from = to
				continue
			}
		}
		t.cache.write(p.op.data[from-start:to-start], from)
		switch at := from - from%sectorSize; {
		case to > t.limit:
		case survives(int(at/sectorSize - start/sectorSize)):
			b := make([]byte, min(sectorSize, t.cache.size-at, t.limit-at))
			t.cache.read(b, at)
			t.out.write(b, at)
		case t.tear.Mode == Garbage:
			t.spoil(from, to)
		}
		from = to
	}
	if t.tear.Mode != Reorder && end <= t.limit && t.random.IntN(4) == 0 {
		t.out.size = max(t.out.size, end) // the size came through, the bytes did not
	}
}

// survivors decides about the n sectors of a write.
func (t *tearing) survivors(n int) func(i int) bool {
	none, all := func(int) bool { return false }, func(int) bool { return true }
	if t.tear.Mode == Reorder {
		if t.random.IntN(2) == 0 {
			return none
		}
		return all
	}
	at := t.random.IntN(n + 1)
	switch t.random.IntN(6) {
	case 0:
		return none
	case 1:
		return all
	case 2:
		return func(i int) bool { return i < at }
	case 3:
		return func(i int) bool { return i >= at }
	}
	share := t.random.Float64()
	return func(int) bool { return t.random.Float64() < share }
}

// spoil may put something else in the place of bytes that did not survive.
func (t *tearing) spoil(from, to int64) {
	b := make([]byte, to-from)
	switch t.random.IntN(4) {
	case 0:
		return // as it was before
	case 1: // zeros
	case 2:
		for i := range b {
			b[i] = byte(t.random.Uint32())
		}
	case 3:
		copy(b, t.stale(from))
	}
	t.out.write(b, from)
}

// stale returns bytes that some write of the history put at the same place of
// another sector.
func (t *tearing) stale(offset int64) []byte {
	start := t.random.IntN(len(t.ops) + 1)
	for i := range t.ops {
		o := t.ops[(start+i)%len(t.ops)]
		if o.kind != Write {
			continue
		}
		at := t.random.Int64N(int64(len(o.data)))
		at += ((offset-o.offset-at)%sectorSize + sectorSize) % sectorSize
		if at < int64(len(o.data)) {
			return o.data[at:]
		}
	}
	return nil
}
