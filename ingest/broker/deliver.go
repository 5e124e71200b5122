package broker

import (
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/broker/packet"
)

// waitsAtOnce are in one record of the state stream, which has a largest size.
const waitsAtOnce = 100

// target is a session that gets a message, with what its subscriptions say
// together.
type target struct {
	session *session
	qos     byte
	retain  bool // retain as published
	ids     []uint32
}

// targets finds who gets a message. A session whose subscriptions overlap gets
// it once, with the highest QoS and every identifier (3.3.4). planned are those
// found before, shares of groups included, which are not given out again; nil:
// none. Broker.mu is held.
func (b *Broker) targets(p *publication, planned []target) []target {
	list := planned
	at := map[*session]int{}
	for i := range list {
		at[list[i].session] = i
	}
	had := len(list)
	b.tree.match(p.topic, planned == nil, func(s *session, sub subscription) {
		if sub.NoLocal && s.id == p.from {
			return
		}
		i, there := at[s]
		if !there {
			i = len(list)
			at[s] = i
			list = append(list, target{session: s})
		}
		if i < had {
			return // it is all in there
		}
		t := &list[i]
		t.qos = max(t.qos, min(sub.QoS, p.qos))
		t.retain = t.retain || sub.RetainAsPublished
		if sub.ID != 0 {
			t.ids = append(t.ids, sub.ID)
		}
	})
	return list
}

// plan returns what the state stream has to hold before the batch may be
// acknowledged: what is retained, and what sessions wait for that outlive their
// connection. Who subscribes between this and publish is publish's matter.
func (b *Broker) plan(batch []*inbound) []buffer.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var records []buffer.Record
	waiters := b.waiters()
	for _, it := range batch {
		if it.repeated || it.denied != packet.Success {
			continue
		}
		p := it.publication()
		if p.retain && b.mayRetain(p) {
			records = append(records, change{Kind: kindRetained, Message: p.stored()}.record())
		}
		if !waiters || p.qos == 0 {
			continue
		}
		var waiting []waits
		it.targets = append([]target{}, b.targets(p, nil)...)
		for _, t := range it.targets {
			if t.session.persistent() && t.qos > 0 && b.mayKeep(p) && b.fits(t.session, &outgoing{publication: p}) {
				t.session.serial++
				t.session.planned++
				if it.kept == nil {
					it.kept = map[*session]uint64{}
				}
				it.kept[t.session] = t.session.serial
				waiting = append(waiting, t.waits(t.session.serial))
			}
		}
		for part := range slices.Chunk(waiting, waitsAtOnce) {
			records = append(records, change{Kind: kindQueued, Message: p.stored(), For: part}.record())
		}
	}
	return records
}

// waiters says whether any session outlives its connection and has subscribed to
// something. Broker.mu is held.
func (b *Broker) waiters() bool {
	for _, s := range b.sessions {
		if s.persistent() && len(s.subs) > 0 {
			return true
		}
	}
	return false
}

// stateReserve of the largest record is for what stands in a record of the state
// stream beside the message: those who wait for it.
const stateReserve = 192 << 10

// mayKeep says whether a message fits into a record of the state stream. JSON may
// take six bytes for one of its texts.
func (b *Broker) mayKeep(p *publication) bool {
	return len(p.payload)+6*(len(p.topic)+p.extra)+stateReserve <= b.maxRecord
}

// mayRetain says whether there is room to keep a message for later subscribers.
// What is not kept is passed on all the same, and counted. Broker.mu is held.
func (b *Broker) mayRetain(p *publication) bool {
	if len(p.payload) == 0 {
		return true
	}
	if !b.mayKeep(p) {
		return false
	}
	bytes, count := b.retainedBytes+p.bytes(), len(b.retained)
	if old := b.retained[p.topic]; old != nil {
		bytes -= old.bytes()
	} else {
		count++
	}
	return count <= b.config.MaxRetained && bytes <= int64(b.config.MaxRetainedBytes)
}

// retain keeps a message for later subscribers, or with an empty one forgets
// what was kept (3.3.1.3). Broker.mu is held.
func (b *Broker) retain(p *publication) {
	if !b.mayRetain(p) {
		b.state.droppedFor(p.from, b.logger)
		return
	}
	if old := b.retained[p.topic]; old != nil {
		b.retainedBytes -= old.bytes()
		delete(b.retained, p.topic)
	}
	if len(p.payload) > 0 {
		b.retentions++
		p.number = b.retentions
		b.retained[p.topic] = p
		b.retainedBytes += p.bytes()
	}
}

// publish passes on a batch that is durable. It returns what the state stream
// has to hold besides, for those who subscribed meanwhile.
func (b *Broker) publish(batch []*inbound) []buffer.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var late []buffer.Record
	for _, it := range batch {
		if it.repeated || it.denied != packet.Success {
			continue
		}
		p := it.publication()
		if p.retain {
			b.retain(p)
		}
		for _, t := range b.targets(p, it.targets) {
			o := &outgoing{publication: p, qos: t.qos, retain: t.retain && p.retain, ids: t.ids}
			serial, kept := it.kept[t.session]
			if kept {
				t.session.planned--
			}
			if b.sessions[t.session.id] != t.session {
				continue // it ended meanwhile
			}
			if !b.enqueue(t.session, o) {
				continue
			}
			if kept && o.serial != 0 {
				o.serial, o.kept = serial, true // what the state stream knows it by
			}
			if !kept && t.session.persistent() && o.qos > 0 {
				o.kept = true
				late = append(late, change{Kind: kindQueued, Message: p.stored(), For: []waits{t.waits(o.serial)}}.record())
			}
		}
	}
	return late
}

// describeQueue is what waits in a session and the state stream does not have:
// what was retained when it subscribed.
// Broker.mu is held.
func (b *Broker) describeQueue(s *session) []change {
	var list []change
	for _, part := range [][]*outgoing{s.sent, s.queue} {
		for _, o := range part {
			if !o.kept {
				o.kept = true
				t := target{session: s, qos: o.qos, retain: o.retain, ids: o.ids}
				list = append(list, change{Kind: kindQueued, Message: o.stored(), For: []waits{t.waits(o.serial)}})
			}
		}
	}
	return list
}

// delivered says how far the session's client has everything, if the state
// stream does not know yet. Broker.mu is held.
func (s *session) delivered() (change, bool) {
	if !s.persistent() || s.planned > 0 {
		return change{}, false
	}
	upTo := s.serial
	for _, part := range [][]*outgoing{s.sent, s.queue} {
		for _, o := range part {
			upTo = min(upTo, o.serial-1)
		}
	}
	if upTo <= s.stored {
		return change{}, false
	}
	s.stored = upTo
	return change{Kind: kindDelivered, Client: s.id, Generation: s.generation, UpTo: upTo}, true
}

// stored is the publication as the state stream has it.
func (p *publication) stored() *stored {
	return &stored{
		Topic: p.topic, Payload: p.payload, QoS: p.qos, Retain: p.retain, From: p.from, Expires: p.expires, Props: passedOn(p.props),
	}
}

// passedOn keeps the properties that go on to subscribers.
func passedOn(p packet.Properties) *packet.Properties {
	out := packet.Properties{
		PayloadFormat: p.PayloadFormat, ContentType: p.ContentType, ResponseTopic: p.ResponseTopic,
		CorrelationData: p.CorrelationData, User: p.User,
	}
	if out.PayloadFormat == nil && out.ContentType == nil && out.ResponseTopic == nil && out.CorrelationData == nil && out.User == nil {
		return nil
	}
	return &out
}

func (st *stored) publication() *publication {
	p := &publication{
		topic: st.Topic, payload: st.Payload, qos: st.QoS, retain: st.Retain, from: st.From, expires: st.Expires,
	}
	if st.Props != nil {
		if kept := passedOn(*st.Props); kept != nil {
			p.props, p.extra = *kept, weigh(kept)
		}
	}
	return p
}

// expired says whether nobody is to get it any more.
func (p *publication) expired(now time.Time) bool {
	return !p.expires.IsZero() && !now.Before(p.expires)
}
