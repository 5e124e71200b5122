package mqtt

import (
	"crypto/sha256"
	"encoding/binary"
)

// windowSize is how many messages back a redelivery is recognised: half of the
// packet identifiers there are. Brokers give them out one after the other, so
// within that distance an identifier stands for one message only.
const windowSize = 1 << 15

// window recognises messages that the broker delivers again although the log
// has them (REDELIVERY.md): the last windowSize that became durable, by packet
// identifier. One goroutine at a time.
type window struct {
	byID   map[uint16]seenMessage
	serial uint64
}

type seenMessage struct {
	hash   uint64
	serial uint64 // the how-manieth message it was
	epoch  uint64 // the connection it came over; 0: before this process
	exact  bool   // QoS 2: the identifier is its until PUBCOMP, however long that takes
}

func newWindow() *window { return &window{byID: make(map[uint16]seenMessage)} }

// note remembers a message that is durable now.
func (w *window) note(id uint16, m seenMessage) {
	w.serial++
	m.serial = w.serial
	w.byID[id] = m // at most one for each of 65,535 identifiers
}

// holds says whether a message with the DUP flag that came over connection
// epoch is one that was noted over an earlier one.
func (w *window) holds(id uint16, hash, epoch uint64) bool {
	m, ok := w.byID[id]
	return ok && m.hash == hash && m.epoch < epoch && (m.exact || w.serial-m.serial < windowSize)
}

// forget is for a message without the DUP flag: the broker uses the identifier
// for something new, so the acknowledgement of what had it before has arrived.
func (w *window) forget(id uint16) { delete(w.byID, id) }

// newSession is for a broker that has no session of ours: it delivers nothing
// again, and its identifiers begin anew.
func (w *window) newSession(epoch uint64) {
	for id, m := range w.byID {
		if m.epoch < epoch {
			delete(w.byID, id)
		}
	}
}

// fingerprint tells messages apart: 64 bits of SHA-256 over topic and payload.
func fingerprint(topic string, payload []byte) uint64 {
	h := sha256.New()
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(topic)))
	h.Write(length[:])
	h.Write([]byte(topic))
	h.Write(payload)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
