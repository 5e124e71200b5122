package broker

import (
	"time"

	"github.com/weir-edge/weir/ingest/message"
)

// fresh is a retained message on its way to a new subscription. Only where it is
// found waits, for all that is retained may be much more than may wait. If another
// message has taken its place meanwhile, the subscription brings that one.
type fresh struct {
	topic  string
	number uint64 // publication.number
	qos    byte   // of the subscription
	id     uint32 // the same; 0: none
}

// freshMost bytes wait so for all subscribers together, and ownShare for each
// that is connected: about a hundred thousand topics.
const freshMost = 8 << 20

func (f fresh) bytes() int64 { return int64(len(f.topic)) + 48 }

// sendRetained has what is retained sent for new subscriptions.
func (b *Broker) sendRetained(c *client, subs []subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, now := c.session, time.Now()
	if s.client != c {
		return
	}
	for _, sub := range subs {
		for topic, p := range b.retained {
			if !message.Matches(sub.Filter, topic) || p.expired(now) {
				continue
			}
			f := fresh{topic: topic, number: p.number, qos: sub.QoS, id: sub.ID}
			if !b.fitsFresh(s, f) {
				b.state.droppedFor(s.id, b.logger)
				continue
			}
			s.fresh = append(s.fresh, f)
			s.topics += f.bytes()
			b.freshBytes += f.bytes()
		}
	}
	c.wake()
}

func (b *Broker) fitsFresh(s *session, f fresh) bool {
	return len(s.fresh) < b.config.MaxRetained && (b.freshBytes+f.bytes() <= freshMost || s.topics+f.bytes() <= ownShare)
}

// forgetFresh takes the first n away. Broker.mu is held.
func (b *Broker) forgetFresh(s *session, n int) {
	for _, f := range s.fresh[:n] {
		s.topics -= f.bytes()
		b.freshBytes -= f.bytes()
	}
	if s.fresh = s.fresh[n:]; len(s.fresh) == 0 {
		s.fresh = nil
	}
}

// find is the message of f for its subscriber, nil if there is another one now.
// Broker.mu is held.
func (b *Broker) find(f fresh, now time.Time) *outgoing {
	p := b.retained[f.topic]
	if p == nil || p.number != f.number || p.expired(now) {
		return nil
	}
	o := &outgoing{publication: p, qos: min(p.qos, f.qos), retain: true}
	if f.id != 0 {
		o.ids = []uint32{f.id}
	}
	return o
}

// nextFresh takes the retained message that is to be sent next, into the account
// of the queue; nil: there is none, or the client takes no more at the moment.
// They go before what waits in the queues, which is newer. Broker.mu is held.
func (b *Broker) nextFresh(s *session, now time.Time) *outgoing {
	for len(s.fresh) > 0 {
		if len(s.sent) >= int(s.client.receiveMaximum) {
			return nil
		}
		o := b.find(s.fresh[0], now)
		if o != nil && s.bytes > 0 && b.queuedBytes+o.bytes() > int64(b.config.MaxQueuedBytes) && s.bytes+o.bytes() > ownShare {
			return nil // until the client has acknowledged some
		}
		b.forgetFresh(s, 1)
		if o == nil {
			continue
		}
		s.serial++
		o.serial = s.serial
		s.bytes += o.bytes()
		b.queuedBytes += o.bytes()
		return o
	}
	return nil
}

// settleFresh is for a session whose client has left: what it did not get yet
// waits with the rest, as far as there is room. Broker.mu is held.
func (b *Broker) settleFresh(s *session, now time.Time) {
	for _, f := range s.fresh {
		if o := b.find(f, now); o != nil && o.qos > 0 {
			b.enqueue(s, o)
		}
	}
	b.forgetFresh(s, len(s.fresh))
}
