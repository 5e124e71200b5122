package rtp

import "time"

// placed says what became of a packet.
type placed uint8

const (
	inOrder placed = iota
	early
	duplicate
	late
)

// reorder is the bounded buffer of packets that came before their turn. A
// packet whose turn it is passes without being copied.
type reorder struct {
	next   int64 // sequence of the packet to come out next
	direct Packet
	ready  bool // direct is set
	held   map[int64]*Packet
	free   []*Packet // with their payload memory
	bytes  int
	lent   *Packet // handed out by the last pop, its memory still in use
}

func newReorder() reorder { return reorder{held: make(map[int64]*Packet)} }

// reset forgets everything and expects sequence next.
func (r *reorder) reset(next int64) {
	for sequence, p := range r.held {
		r.recycle(p)
		delete(r.held, sequence)
	}
	r.next, r.ready, r.bytes = next, false, 0
}

// put places p. Its payload is kept only by reference if its turn has come.
func (r *reorder) put(p Packet) placed {
	if p.Sequence < r.next {
		return late
	}
	if _, ok := r.held[p.Sequence]; ok || r.ready && p.Sequence == r.direct.Sequence {
		return duplicate
	}
	if p.Sequence == r.next && !r.ready {
		r.direct, r.ready = p, true
		return inOrder
	}
	r.hold(p)
	if r.ready && p.Sequence == r.next+1 {
		return inOrder
	}
	return early
}

func (r *reorder) hold(p Packet) {
	var slot *Packet
	if n := len(r.free); n > 0 {
		slot, r.free = r.free[n-1], r.free[:n-1]
	} else {
		slot = new(Packet)
	}
	memory := slot.Payload[:0]
	*slot = p
	slot.Payload = append(memory, p.Payload...)
	r.held[p.Sequence] = slot
	r.bytes += len(p.Payload)
}

// recycle keeps p's memory for later, unless it is a jumbo frame's.
func (r *reorder) recycle(p *Packet) {
	if len(r.free) < maxHeldPackets && cap(p.Payload) <= 2048 {
		r.free = append(r.free, p)
	}
}

// pop returns the next packet; one that waits for others only if it arrived
// before overdue or if the buffer is over its bounds.
func (r *reorder) pop(overdue time.Time) (Packet, bool) {
	if r.lent != nil {
		r.recycle(r.lent)
		r.lent = nil
	}
	if r.ready {
		r.ready = false
		r.next = r.direct.Sequence + 1
		return r.direct, true
	}
	if len(r.held) == 0 {
		return Packet{}, false
	}
	p, ok := r.held[r.next]
	if !ok {
		arrival, _ := r.oldest()
		if arrival.After(overdue) && len(r.held) <= maxHeldPackets && r.bytes <= maxHeldBytes {
			return Packet{}, false
		}
		p = r.lowest()
	}
	delete(r.held, p.Sequence)
	r.bytes -= len(p.Payload)
	out := *p
	out.Lost = p.Sequence - r.next
	r.next = p.Sequence + 1
	r.lent = p
	return out, true
}

func (r *reorder) lowest() *Packet {
	var lowest *Packet
	for _, p := range r.held {
		if lowest == nil || p.Sequence < lowest.Sequence {
			lowest = p
		}
	}
	return lowest
}

// oldest is the arrival of the packet that has waited longest.
func (r *reorder) oldest() (time.Time, bool) {
	var oldest time.Time
	for _, p := range r.held {
		if oldest.IsZero() || p.Arrival.Before(oldest) {
			oldest = p.Arrival
		}
	}
	return oldest, !oldest.IsZero()
}
