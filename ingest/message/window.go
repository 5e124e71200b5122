package message

import (
	"crypto/sha256"
	"encoding/binary"
)

// WindowSize is how many messages back a redelivery is recognised at most: half
// of the packet identifiers there are. Peers give them out one after the other,
// so within that distance an identifier stands for one message only.
const WindowSize = 1 << 15

// Window recognises messages that a peer delivers again although the log has
// them (ingest/mqtt/REDELIVERY.md): the last ones that became durable, by packet
// identifier. One goroutine at a time.
type Window struct {
	size   uint64
	byID   map[uint16]Seen
	serial uint64
	order  []noted // those that may leave byID, oldest first
}

// noted is where in the order an identifier was noted.
type noted struct {
	serial uint64
	id     uint16
}

// Seen is a message that is durable.
type Seen struct {
	Hash   uint64 // its Fingerprint
	Epoch  uint64 // the connection it came over; 0: before this process
	Exact  bool   // QoS 2: the identifier is its until PUBCOMP, however long that takes
	serial uint64 // the how-manieth message it was
}

// NewWindow returns a window of the given depth, at most WindowSize.
func NewWindow(size int) *Window {
	return &Window{size: uint64(min(size, WindowSize)), byID: make(map[uint16]Seen)}
}

// Note remembers a message that is durable now.
func (w *Window) Note(id uint16, m Seen) {
	w.serial++
	m.serial = w.serial
	w.byID[id] = m // at most one for each of 65,535 identifiers
	if m.Exact {
		return
	}
	w.order = append(w.order, noted{m.serial, id})
	for w.serial-w.order[0].serial >= w.size {
		if w.byID[w.order[0].id].serial == w.order[0].serial {
			delete(w.byID, w.order[0].id)
		}
		w.order = w.order[1:]
		if len(w.order) == 0 {
			break
		}
	}
}

// Holds says whether a message with the DUP flag that came over connection
// epoch is one that was noted over an earlier one.
func (w *Window) Holds(id uint16, hash, epoch uint64) bool {
	m, ok := w.byID[id]
	return ok && m.Hash == hash && m.Epoch < epoch && (m.Exact || w.serial-m.serial < w.size)
}

// Forget is for a message without the DUP flag: the peer uses the identifier
// for something new, so the acknowledgement of what had it before has arrived.
func (w *Window) Forget(id uint16) { delete(w.byID, id) }

// NewSession is for a peer that has no session of ours: it delivers nothing
// again, and its identifiers begin anew. What came over epoch or later stays.
func (w *Window) NewSession(epoch uint64) {
	for id, m := range w.byID {
		if m.Epoch < epoch {
			delete(w.byID, id)
		}
	}
}

// Len is how many messages are remembered.
func (w *Window) Len() int { return len(w.byID) }

// Fingerprint tells messages apart: 64 bits of SHA-256 over topic and payload.
func Fingerprint(topic string, payload []byte) uint64 {
	h := sha256.New()
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(topic)))
	h.Write(length[:])
	h.Write([]byte(topic))
	h.Write(payload)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
