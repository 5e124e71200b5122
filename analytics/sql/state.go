package sql

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-edge/weir/buffer"
)

// A state is
//
//	"WSQ" and the version, 1
//	CRC-32C of what follows, little endian
//	zstd of
//	  16 bytes       fingerprint of the query
//	  uvarint length, name of the stream that is read
//	  uvarint n × shard: uvarint number, moment of its clock, uvarint n × (moment of a window, uvarint first record)
//	  uvarint n × window: moment of its start, uvarint n × group
//	  group: uvarint length, key; uvarint n × (uvarint shard, totals as the query has them)
//	moment: uvarint epoch, varint ms (the smallest number: unset)
//
// A query that was changed reads only the part up to the shards.
const (
	stateMagic   = "WSQ\x01"
	maxStateRaw  = 32 << 20 // unpacked
	maxShards    = 1 << 16
	stateTrouble = "the state of the query is damaged"
)

var (
	errState = errors.New(stateTrouble)
	crcTable = crc32.MakeTable(crc32.Castagnoli)
)

// coder has the memory that packing takes.
type coder struct {
	zstd *zstd.Encoder
	raw  []byte
}

// State encodes all. See analytics.Analyzer.
func (a *Analyzer) State() ([]byte, error) {
	c := &a.coder
	if c.zstd == nil {
		var err error
		c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("pack the state: %w", err)
		}
	}
	c.raw = a.appendState(c.raw[:0])
	state := c.zstd.EncodeAll(c.raw, append([]byte(stateMagic), 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(state[4:], crc32.Checksum(state[8:], crcTable))
	if len(state) > buffer.MaxStateBytes || len(c.raw) > maxStateRaw {
		return nil, fmt.Errorf("the state of %d groups in %d windows takes %d bytes, and the log keeps %d: use shorter windows or a key with fewer values",
			a.groups, len(a.panes), len(state), buffer.MaxStateBytes)
	}
	return state, nil
}

func appendMoment(b []byte, m moment) []byte {
	return binary.AppendVarint(binary.AppendUvarint(b, uint64(m.epoch)), m.at)
}

func (a *Analyzer) appendState(b []byte) []byte {
	id := a.plan.fingerprint()
	b = append(b, id[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(a.plan.Input()))), a.plan.Input()...)
	b = binary.AppendUvarint(b, uint64(len(a.shards)))
	for _, s := range a.shards {
		b = appendMoment(binary.AppendUvarint(b, uint64(s.id)), s.clock)
		b = binary.AppendUvarint(b, uint64(len(s.marks)))
		for _, m := range s.marks {
			b = binary.AppendUvarint(appendMoment(b, m.window), uint64(m.first))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(a.panes)))
	for _, window := range slices.SortedFunc(maps.Keys(a.panes), moment.compare) {
		p := a.panes[window]
		b = binary.AppendUvarint(appendMoment(b, window), uint64(len(p.groups)))
		for _, key := range slices.Sorted(maps.Keys(p.groups)) {
			b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
			b = a.appendGroup(b, p.groups[key])
		}
	}
	return b
}

func (a *Analyzer) appendGroup(b []byte, g *group) []byte {
	b = binary.AppendUvarint(b, uint64(len(g.parts)))
	for _, part := range g.parts {
		b = binary.AppendUvarint(b, uint64(part.shard))
		for i := range part.totals {
			b = a.plan.totals[i].appendTotal(b, &part.totals[i])
		}
	}
	return b
}

func (a *aggregate) appendTotal(b []byte, t *total) []byte {
	b = binary.AppendUvarint(b, uint64(t.n))
	if a.name == "COUNT" {
		return b
	}
	b = append(b, byte(t.kind))
	if t.kind == kindText {
		return append(binary.AppendUvarint(b, uint64(len(t.s))), t.s...)
	}
	b = binary.AppendVarint(b, t.i)
	if t.kind == kindFloat {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(t.f))
	}
	return b
}

// Restore takes a state up. See analytics.Analyzer. That of another query
// gives the places of the oldest records that it had not settled, so that the
// first windows of this one are whole.
func (a *Analyzer) Restore(state []byte) (map[buffer.ShardID]buffer.Sequence, error) {
	a.forget()
	if len(state) == 0 {
		return nil, nil
	}
	again, err := a.restore(state)
	if err != nil {
		a.forget()
		return nil, err
	}
	return again, nil
}

func (a *Analyzer) restore(state []byte) (map[buffer.ShardID]buffer.Sequence, error) {
	if len(state) < 8 || string(state[:3]) != stateMagic[:3] {
		return nil, errors.New("the state is not that of a query")
	}
	if state[3] != stateMagic[3] {
		return nil, fmt.Errorf("the state has the form %d, and this version knows %d", state[3], stateMagic[3])
	}
	if crc32.Checksum(state[8:], crcTable) != binary.LittleEndian.Uint32(state[4:]) {
		return nil, fmt.Errorf("%w: its checksum does not match", errState)
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxStateRaw))
	if err != nil {
		return nil, fmt.Errorf("unpack the state: %w", err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(state[8:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	return a.decode(raw)
}

// decode reads an unpacked state.
func (a *Analyzer) decode(raw []byte) (map[buffer.ShardID]buffer.Sequence, error) {
	r := &reader{b: raw}
	own := a.plan.fingerprint()
	same := string(r.bytes(len(own))) == string(own[:])
	input := string(r.bytes(int(r.limited(buffer.MaxNameBytes + 1))))
	a.decodeShards(r)
	if r.bad {
		return nil, errState
	}
	if input != a.plan.Input() {
		a.forget() // other shards
		return nil, nil
	}
	if !same {
		return a.takeOver(), nil
	}
	for range r.count() {
		a.decodePane(r)
		if r.bad {
			return nil, errState
		}
	}
	if r.bad || len(r.b) > 0 {
		return nil, errState
	}
	return nil, nil
}

// takeOver makes the clocks of another query begin anew where its oldest
// window that was not settled began.
func (a *Analyzer) takeOver() map[buffer.ShardID]buffer.Sequence {
	again := make(map[buffer.ShardID]buffer.Sequence)
	for _, s := range a.shards {
		if len(s.marks) > 0 {
			again[s.id] = s.marks[0].first
			s.clock, s.marks = s.marks[0].window, nil
		}
	}
	return again
}

func (a *Analyzer) decodeShards(r *reader) {
	for range r.count() {
		s := &shard{id: buffer.ShardID(r.limited(maxShards)), clock: r.moment()}
		for range r.count() {
			m := mark{window: r.moment(), first: buffer.Sequence(r.uvarint())}
			if n := len(s.marks); n > 0 && (m.window.compare(s.marks[n-1].window) <= 0 || m.first <= s.marks[n-1].first) {
				r.fail()
			}
			s.marks = append(s.marks, m)
		}
		if n := len(a.shards); r.bad || n > 0 && s.id <= a.shards[n-1].id {
			r.fail()
			return
		}
		a.shards = append(a.shards, s)
	}
}

func (a *Analyzer) decodePane(r *reader) {
	p := &pane{window: r.moment(), groups: make(map[string]*group)}
	if r.bad || a.panes[p.window] != nil || p.window.at == unset || a.start(p.window.at) != p.window.at {
		r.fail()
		return
	}
	for range r.count() {
		key := string(r.bytes(int(r.limited(maxKey + 1))))
		rest := []byte(key)
		for range a.plan.keys {
			d, more, err := decodeKey(rest)
			if rest = more; err != nil || d.kind == kindJSON && !json.Valid(d.s) {
				r.fail()
				return
			}
		}
		g := a.decodeGroup(r)
		if r.bad || len(rest) > 0 || p.groups[key] != nil {
			r.fail()
			return
		}
		p.groups[key] = g
		a.groups++
	}
	if len(p.groups) == 0 {
		r.fail()
	}
	a.panes[p.window] = p
}

func (a *Analyzer) decodeGroup(r *reader) *group {
	g := &group{}
	for range r.count() {
		p := part{shard: buffer.ShardID(r.limited(maxShards)), totals: make([]total, len(a.plan.totals))}
		if n := len(g.parts); r.bad || n > 0 && p.shard <= g.parts[n-1].shard {
			r.fail()
			return g
		}
		for i := range p.totals {
			p.totals[i] = a.plan.totals[i].decodeTotal(r)
		}
		g.parts = append(g.parts, p)
	}
	return g
}

func (a *aggregate) decodeTotal(r *reader) total {
	t := total{n: int64(r.limited(math.MaxInt64))}
	if a.name == "COUNT" {
		return t
	}
	extreme := a.name == "MIN" || a.name == "MAX"
	t.kind = kind(r.byte())
	switch {
	case t.kind == kindText && extreme:
		t.s = string(r.bytes(int(r.limited(maxText + 1))))
		if !utf8.ValidString(t.s) {
			r.fail()
		}
		return t
	case t.kind == kindNull, t.kind == kindInt && extreme:
		t.i = r.varint()
	case t.kind == kindFloat:
		t.i = r.varint()
		if b := r.bytes(8); b != nil {
			t.f = math.Float64frombits(binary.LittleEndian.Uint64(b))
		}
	default:
		r.fail()
	}
	// A sum may be infinite, and then is NULL; an extreme never is.
	if extreme && (t.kind == kindNull && t.n != 0 || t.f-t.f != 0) {
		r.fail()
	}
	return t
}

// reader reads a state. After the first fault all it gives is nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// limited reads a number below limit.
func (r *reader) limited(limit uint64) uint64 {
	v := r.uvarint()
	if v >= limit {
		r.fail()
		return 0
	}
	return v
}

// count reads a number of things, each of at least a byte.
func (r *reader) count() int {
	return int(r.limited(uint64(len(r.b)) + 1))
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) || r.bad {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) moment() moment {
	m := moment{uint32(r.limited(math.MaxUint32)), r.varint()}
	// What can be a time, with room to reckon in.
	if m.at != unset && (m.at < -1<<52 || m.at > 1<<52) {
		r.fail()
	}
	return m
}
