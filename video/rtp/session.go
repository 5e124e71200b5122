package rtp

import (
	"time"

	pion "github.com/pion/rtp"
)

// Limits of a Session.
const (
	MaxPacketBytes  = 9216      // a jumbo frame; longer datagrams are not RTP
	maxHeldPackets  = 128       // out of order
	maxHeldBytes    = 128 << 10 // of their payloads
	maxJump         = 3000      // RFC 3550, A.1: MAX_DROPOUT
	maxLate         = 100       // RFC 3550, A.1: MAX_MISORDER
	candidates      = 4         // senders on probation at a time
	candidateWindow = time.Second
)

// Options of a Session.
type Options struct {
	// ReorderDelay is how long a missing packet is waited for.
	ReorderDelay time.Duration
	// SenderTimeout: when the pinned sender was silent for this long, another
	// may take its place.
	SenderTimeout time.Duration
}

// Packet is a packet in its place. Payload is valid until the next Push or Pop.
type Packet struct {
	Sequence  int64 // unwrapped
	Timestamp int64 // unwrapped, from its first 32-bit value on
	Marker    bool
	Payload   []byte
	Arrival   time.Time
	// Lost is how many packets are missing right before this one.
	Lost int64
	// Restart: this is the first packet of a sender, or the numbers leapt. What
	// went before has no relation to it.
	Restart bool
}

// Stats of a Session, since it was made.
type Stats struct {
	Packets    int64 // of the pinned sender
	Bytes      int64 // of those, headers included
	Lost       int64 // did not come in time
	Reordered  int64 // came out of order and in time
	Duplicates int64
	Late       int64 // came after they had been given up
	Foreign    int64 // another SSRC or payload type than the pinned sender's
	Malformed  int64 // not RTP, or not RTCP
	Restarts   int64 // senders pinned after the first, and leaps of sequence numbers
	Reports    int64 // sender reports taken
}

// Session follows one sender. Not safe for concurrent use.
type Session struct {
	options Options
	stats   Stats
	order   reorder
	report  report
	early   report // of a sender that is not pinned, perhaps not yet

	pinned      bool
	ssrc        uint32
	payloadType uint8
	lastSeen    time.Time
	left        bool // the pinned sender said goodbye; its last packets may still come
	restart     bool // the next packet out begins anew
	timestamp   int64
	leap        candidate // of the pinned SSRC, when its numbers leapt
	probation   [candidates]candidate
	turn        int
}

// candidate is a packet that waits for its successor to prove its sender.
type candidate struct {
	header  pion.Header
	payload []byte
	arrival time.Time
	size    int
	set     bool
}

func (c *candidate) hold(h *pion.Header, payload []byte, size int, now time.Time) {
	c.header, c.arrival, c.size, c.set = *h, now, size, true
	c.header.CSRC, c.header.Extensions = nil, nil
	c.payload = append(c.payload[:0], payload...)
}

// precedes says whether h comes from the same sender, right after c.
func (c *candidate) precedes(h *pion.Header, now time.Time) bool {
	return c.set && c.header.SSRC == h.SSRC && c.header.PayloadType == h.PayloadType &&
		c.header.SequenceNumber+1 == h.SequenceNumber && now.Sub(c.arrival) <= candidateWindow
}

// NewSession returns a Session that has seen nothing.
func NewSession(options Options) *Session {
	return &Session{options: options, order: newReorder()}
}

// Stats returns the counters.
func (s *Session) Stats() Stats { return s.stats }

// Push takes a datagram of the RTP port: RTP, or RTCP multiplexed with it (RFC
// 5761). raw may be used again after the following Pops returned false.
func (s *Session) Push(now time.Time, raw []byte) {
	if len(raw) >= 2 && raw[1] >= 192 && raw[1] <= 223 {
		s.PushRTCP(raw)
		return
	}
	var header pion.Header
	payload, ok := parse(raw, &header)
	if !ok {
		s.stats.Malformed++
		return
	}
	known := s.pinned && header.SSRC == s.ssrc && header.PayloadType == s.payloadType
	open := !s.pinned || s.left || now.Sub(s.lastSeen) > s.options.SenderTimeout
	switch {
	case known:
		s.take(now, &header, payload, len(raw))
	case open:
		s.audition(now, &header, payload, len(raw))
	default:
		s.stats.Foreign++
	}
}

// parse reads an RTP packet; payload excludes padding.
func parse(raw []byte, header *pion.Header) (payload []byte, ok bool) {
	if len(raw) > MaxPacketBytes || len(raw) < 12 || raw[0]>>6 != 2 {
		return nil, false
	}
	n, err := header.Unmarshal(raw)
	if err != nil || n > len(raw) {
		return nil, false
	}
	payload = raw[n:]
	if header.Padding {
		if len(payload) == 0 {
			return nil, false
		}
		padding := int(payload[len(payload)-1])
		if padding == 0 || padding > len(payload) {
			return nil, false
		}
		payload = payload[:len(payload)-padding]
	}
	return payload, true
}

// audition lets an unknown sender prove itself by two packets in sequence.
func (s *Session) audition(now time.Time, h *pion.Header, payload []byte, size int) {
	for i := range s.probation {
		c := &s.probation[i]
		if !c.precedes(h, now) {
			continue
		}
		s.begin(now, h)
		s.stats.Packets++
		s.stats.Bytes += int64(c.size)
		s.order.reset(int64(c.header.SequenceNumber))
		s.order.put(Packet{Sequence: int64(c.header.SequenceNumber), Timestamp: s.unwrap(c.header.Timestamp),
			Marker: c.header.Marker, Payload: c.payload, Arrival: c.arrival})
		s.take(now, h, payload, size)
		for j := range s.probation {
			if s.probation[j].set && j != i {
				s.stats.Foreign++
			}
			s.probation[j].set = false
		}
		return
	}
	// What is on probation is not counted as foreign before it is given up.
	for i := range s.probation { // the newest packet of a sender is enough
		if c := &s.probation[i]; c.set && c.header.SSRC == h.SSRC {
			s.stats.Foreign++
			c.hold(h, payload, size, now)
			return
		}
	}
	if s.probation[s.turn].set {
		s.stats.Foreign++
	}
	s.probation[s.turn].hold(h, payload, size, now)
	s.turn = (s.turn + 1) % candidates
}

// begin pins the sender of h.
func (s *Session) begin(now time.Time, h *pion.Header) {
	if s.stats.Packets > 0 {
		s.stats.Restarts++
	}
	s.pinned, s.ssrc, s.payloadType, s.lastSeen = true, h.SSRC, h.PayloadType, now
	s.restart, s.timestamp = true, int64(h.Timestamp)
	s.report, s.left = report{}, false
	if s.early.ssrc == h.SSRC && !s.early.wall.IsZero() {
		s.report, s.early = s.early, report{}
		s.stats.Reports++
	}
	s.leap.set = false
}

func (s *Session) unwrap(timestamp uint32) int64 {
	s.timestamp += int64(int32(timestamp - uint32(s.timestamp)))
	return s.timestamp
}

// take puts a packet of the pinned sender in its place.
func (s *Session) take(now time.Time, h *pion.Header, payload []byte, size int) {
	s.lastSeen = now
	s.stats.Packets++
	s.stats.Bytes += int64(size)
	ahead := int64(int16(h.SequenceNumber - uint16(s.order.next)))
	if ahead > maxJump || ahead < -maxLate {
		s.leapt(now, h, payload, size)
		return
	}
	s.leap.set = false
	p := Packet{Sequence: s.order.next + ahead, Timestamp: s.unwrap(h.Timestamp), Marker: h.Marker, Payload: payload, Arrival: now}
	switch s.order.put(p) {
	case duplicate:
		s.stats.Duplicates++
	case late:
		s.stats.Late++
	case early:
		s.stats.Reordered++
	}
}

// leapt handles a packet whose number is far off: one alone is a stray, two in
// sequence are a restarted sender that kept its SSRC (RFC 3550, A.1).
func (s *Session) leapt(now time.Time, h *pion.Header, payload []byte, size int) {
	if !s.leap.precedes(h, now) {
		s.leap.hold(h, payload, size, now)
		s.stats.Late++
		return
	}
	s.stats.Late-- // the held one counts after all
	held := s.leap
	s.leap.set = false
	s.begin(now, h)
	s.order.reset(int64(held.header.SequenceNumber))
	s.order.put(Packet{Sequence: int64(held.header.SequenceNumber), Timestamp: s.unwrap(held.header.Timestamp),
		Marker: held.header.Marker, Payload: held.payload, Arrival: held.arrival})
	s.order.put(Packet{Sequence: int64(held.header.SequenceNumber) + 1, Timestamp: s.unwrap(h.Timestamp),
		Marker: h.Marker, Payload: payload, Arrival: now})
}

// Pop returns the next packet that is due: in order, or after a loss that has
// been waited for long enough. Call it until it returns false, after each Push
// and at Deadline.
func (s *Session) Pop(now time.Time) (Packet, bool) {
	p, ok := s.order.pop(now.Add(-s.options.ReorderDelay))
	if !ok {
		return p, false
	}
	if s.restart {
		s.restart, p.Restart, p.Lost = false, true, 0
	}
	s.stats.Lost += p.Lost
	return p, true
}

// Drain is Pop without waiting for what is missing: for the end.
func (s *Session) Drain(now time.Time) (Packet, bool) {
	return s.Pop(now.Add(s.options.ReorderDelay))
}

// Deadline is when Pop may have something although nothing was pushed.
func (s *Session) Deadline() (time.Time, bool) {
	arrival, ok := s.order.oldest()
	return arrival.Add(s.options.ReorderDelay), ok
}

// LastSeen is when the pinned sender's last packet arrived; zero before that.
func (s *Session) LastSeen() time.Time { return s.lastSeen }
