package crashtest

import (
	"maps"
	"slices"
)

const root = 0 // the node of the root directory

// state is everything between two operations: what is seen, what is durable,
// and the operations that make the difference.
type state struct {
	nodes   []*node // by number; nil if it is of no more use
	tree    tree    // as seen
	durable tree
	moves   []*op // directory operations that are not durable, in order
	kv      map[string]table
}

// node is a file; a directory has nothing here but its number.
type node struct {
	dir     bool
	cache   *image // as seen
	disk    *image // durable
	pending []pending
}

// pending is an operation on a file that is not durable.
type pending struct {
	op *op
	// lost: a sync of it has failed, so that no later one makes it durable.
	// pages are those of a lost write that were not written again and synced.
	lost  bool
	pages []int
}

// tree is the directories: node of the directory, then name, then node.
type tree map[int]map[string]int

func newState() *state {
	return &state{
		nodes: []*node{{dir: true}},
		tree:  tree{root: {}}, durable: tree{root: {}},
		kv: map[string]table{},
	}
}

func (t tree) clone() tree {
	c := make(tree, len(t))
	for dir, names := range t {
		c[dir] = maps.Clone(names)
	}
	return c
}

func (t tree) names(dir int) map[string]int {
	names := t[dir]
	if names == nil {
		names = map[string]int{}
		t[dir] = names
	}
	return names
}

// apply makes one directory operation.
func (t tree) apply(o *op) {
	switch o.kind {
	case Create:
		t.names(o.to.dir)[o.to.name] = o.node
	case Mkdir:
		t.names(o.to.dir)[o.to.name] = o.node
		t.names(o.node)
	case Remove:
		delete(t.names(o.from.dir), o.from.name)
	case Rename:
		delete(t.names(o.from.dir), o.from.name)
		t.names(o.to.dir)[o.to.name] = o.node
	}
}

// reachable calls fn for every node below the root.
func (t tree) reachable(fn func(number int)) {
	dirs := []int{root}
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		fn(dir)
		for _, number := range t[dir] {
			if _, ok := t[number]; ok {
				dirs = append(dirs, number)
			} else {
				fn(number)
			}
		}
	}
}

func (s *state) clone() *state {
	c := &state{
		nodes: make([]*node, len(s.nodes)),
		tree:  s.tree.clone(), durable: s.durable.clone(),
		moves: slices.Clip(s.moves),
		kv:    maps.Clone(s.kv),
	}
	for i, n := range s.nodes {
		if n == nil {
			continue
		}
		d := &node{dir: n.dir}
		if !n.dir {
			d.cache, d.disk, d.pending = n.cache.clone(), n.disk.clone(), slices.Clip(n.pending)
		}
		c.nodes[i] = d
	}
	return c
}

// apply makes one operation.
func (s *state) apply(o *op) {
	switch o.kind {
	case Create, Mkdir:
		for len(s.nodes) <= o.node {
			s.nodes = append(s.nodes, nil)
		}
		s.nodes[o.node] = &node{dir: true}
		if o.kind == Create {
			s.nodes[o.node] = &node{cache: newImage(), disk: newImage()}
		}
		s.move(o)
	case Rename, Remove:
		s.move(o)
	case SyncDir:
		s.syncDir(o.node)
	case Write, Truncate, Allocate:
		n := s.nodes[o.node]
		n.cache.apply(o)
		n.pending = append(n.pending, pending{op: o})
	case Sync:
		s.nodes[o.node].sync()
	case syncFailed:
		s.nodes[o.node].lose()
	case kvReset:
		s.kv[o.path] = nil
	case KVWrite:
		s.kv[o.path] = s.kv[o.path].merge(o.kv)
	}
}

func (m *image) apply(o *op) {
	switch o.kind {
	case Write:
		m.write(o.data, o.offset)
	case Truncate:
		m.truncate(o.size)
	case Allocate:
		m.allocate(o.size)
	}
}

func (s *state) move(o *op) {
	s.tree.apply(o)
	s.moves = append(s.moves, o)
}

// syncDir makes durable what was done in a directory, and earlier operations
// on the same files and names, without which it would make no sense.
func (s *state) syncDir(dir int) {
	nodes, entries := map[int]bool{}, map[entry]bool{}
	goes := make([]bool, len(s.moves))
	for i, o := range slices.Backward(s.moves) {
		if o.in(dir) || nodes[o.node] || entries[o.from] || entries[o.to] {
			goes[i], nodes[o.node] = true, true
			for _, e := range []entry{o.from, o.to} {
				if e.name != "" {
					entries[e] = true
				}
			}
		}
	}
	var rest []*op
	for i, o := range s.moves {
		if goes[i] {
			s.durable.apply(o)
		} else {
			rest = append(rest, o)
		}
	}
	s.moves = rest
}

// sync makes a file durable, but for what an earlier sync has lost.
func (n *node) sync() {
	written := map[int]bool{}
	for _, p := range n.pending {
		switch {
		case p.lost:
		case p.op.kind == Write:
			for _, i := range p.op.pages() {
				written[i] = true
				n.disk.take(n.cache, i)
			}
		default:
			n.disk.apply(p.op)
		}
	}
	n.pending = n.stillLost(written)
	n.disk.size = n.cache.size
}

// stillLost is what remains of lost writes after a sync that wrote some pages:
// what was cut off or is on the disk now can come back no more.
func (n *node) stillLost(written map[int]bool) []pending {
	var rest []pending
	cut := n.cache.size
	for _, p := range slices.Backward(n.pending) {
		if p.op.kind == Truncate {
			cut = min(cut, p.op.size)
		}
		if !p.lost {
			continue
		}
		var pages []int
		for _, i := range p.pages {
			if !written[i] && int64(i)*pageSize < cut {
				pages = append(pages, i)
			}
		}
		if len(pages) > 0 {
			rest = append(rest, pending{op: p.op, lost: true, pages: pages})
		}
	}
	slices.Reverse(rest)
	return rest
}

// lose is a sync that failed: the pages are clean and not on the disk.
func (n *node) lose() {
	kept := make([]pending, 0, len(n.pending))
	for _, p := range n.pending {
		if p.op.kind == Write && !p.lost {
			p = pending{op: p.op, lost: true, pages: p.op.pages()}
		}
		kept = append(kept, p)
	}
	n.pending = kept
}

// pages are the pages that a write touches.
func (o *op) pages() []int {
	var pages []int
	for i := int(o.offset / pageSize); i < pagesFor(o.offset+int64(len(o.data))); i++ {
		pages = append(pages, i)
	}
	return pages
}
