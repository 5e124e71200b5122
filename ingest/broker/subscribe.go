package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/message"
)

// subscribe takes SUBSCRIBE (3.8). It is answered when a session that is kept is
// durable with it.
func (b *Broker) subscribe(ctx context.Context, c *client, p *packet.Subscribe) error {
	for _, wanted := range p.Subscriptions {
		name, filter := split(wanted.Filter)
		switch {
		case c.version == packet.V311 && message.CheckFilter(filter) != nil: // 4.7.1; it has no code for it
			return refusal(packet.Malformed, "%.200q is no topic filter", wanted.Filter)
		case name != "" && wanted.NoLocal: // 3.8.3-4
			return refusal(packet.ProtocolError, "a shared subscription cannot be without the own messages")
		}
	}
	if len(p.Subscriptions) > b.config.MaxSubscriptions {
		return refusal(packet.QuotaExceeded, "more than %d filters in one SUBSCRIBE", b.config.MaxSubscriptions)
	}
	// What was sent before this is retained before it is looked up.
	if err := b.passed(ctx, c); err != nil {
		return err
	}
	answer := &packet.Suback{ID: p.ID}
	var id uint32
	if list := p.Properties.SubscriptionIDs; len(list) > 0 {
		id = list[0]
	}
	var wantRetained []subscription
	b.mu.Lock()
	s := c.session
	if s.client != c {
		b.mu.Unlock()
		return errDone // taken over
	}
	for _, wanted := range p.Subscriptions {
		code := b.check(c, wanted)
		answer.Codes = append(answer.Codes, code)
		if code > packet.GrantedQoS2 {
			continue
		}
		sub := subscription{
			Filter: wanted.Filter, QoS: wanted.QoS, NoLocal: wanted.NoLocal, RetainAsPublished: wanted.RetainAsPublished, ID: id,
		}
		_, before := s.subs[sub.Filter]
		s.subs[sub.Filter] = sub
		b.tree.add(s, sub)
		shared, _ := split(sub.Filter)
		wantRetained = slices.DeleteFunc(wantRetained, func(s subscription) bool { return s.Filter == sub.Filter })
		if shared == "" && (wanted.RetainHandling == 0 || wanted.RetainHandling == 1 && !before) {
			wantRetained = append(wantRetained, sub)
		}
	}
	kept := s.persistent()
	b.mu.Unlock()
	if kept && !b.keeper.persist(s, c.gone) {
		return errors.New("the broker stops")
	}
	if c.version == packet.V311 {
		for i, code := range answer.Codes {
			if code >= packet.Unspecified {
				answer.Codes[i] = packet.SubscribeFailure311
			}
		}
	}
	c.send(answer)
	b.sendRetained(c, wantRetained)
	return nil
}

// passed waits until what is in the worker's queue is passed on, but not longer
// than a second or two: the log may be slow.
func (b *Broker) passed(ctx context.Context, c *client) error {
	barrier := &inbound{barrier: make(chan struct{})}
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case b.queue <- barrier:
	case <-timer.C:
		return nil
	case <-c.gone:
		return errDone
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-barrier.barrier:
	case <-timer.C:
	case <-c.gone:
		return errDone
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// check says what is granted (4.7, 4.8.2). Broker.mu is held.
func (b *Broker) check(c *client, wanted packet.Subscription) packet.Code {
	name, filter := split(wanted.Filter)
	shared := strings.HasPrefix(wanted.Filter, "$share/")
	_, before := c.session.subs[wanted.Filter]
	switch {
	case shared && (c.version != packet.V5 || name == "" || strings.ContainsAny(name, "+#") || filter == ""):
		return packet.TopicFilterInvalid
	case message.CheckFilter(filter) != nil, strings.Count(filter, "/") >= maxLevels, len(wanted.Filter) > message.MaxTopicBytes:
		return packet.TopicFilterInvalid
	case !c.who.MaySubscribe(c.id, wanted.Filter):
		return packet.NotAuthorized
	case !before && (len(c.session.subs) >= b.config.MaxSubscriptions || c.session.filterBytes()+len(wanted.Filter) > maxFilterBytes):
		return packet.QuotaExceeded
	}
	return packet.Code(wanted.QoS)
}

// maxFilterBytes of a session's filters together: they are one record of the
// state stream, in which JSON may take six bytes for one of theirs.
const maxFilterBytes = 128 << 10

func (s *session) filterBytes() (n int) {
	for filter := range s.subs {
		n += len(filter)
	}
	return n
}

// unsubscribe takes UNSUBSCRIBE (3.10).
func (b *Broker) unsubscribe(c *client, p *packet.Unsubscribe) error {
	answer := &packet.Unsuback{ID: p.ID}
	b.mu.Lock()
	s := c.session
	if s.client != c {
		b.mu.Unlock()
		return errDone
	}
	for _, filter := range p.Filters {
		if _, there := s.subs[filter]; !there {
			answer.Codes = append(answer.Codes, packet.NoSubscriptionExisted)
			continue
		}
		delete(s.subs, filter)
		b.tree.remove(s, filter)
		answer.Codes = append(answer.Codes, packet.Success)
	}
	kept := s.persistent()
	b.mu.Unlock()
	if kept && !b.keeper.persist(s, c.gone) {
		return errors.New("the broker stops")
	}
	c.send(answer)
	return nil
}
