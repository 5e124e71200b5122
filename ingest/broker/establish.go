package broker

import (
	"context"
	"errors"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
)

// establish gives the client its session, an old one or a new one, and answers
// CONNECT. Whoever had the session is thrown out (3.1.4).
func (b *Broker) establish(ctx context.Context, c *client, p *packet.Connect) (packet.Code, error) {
	b.mu.Lock()
	old := b.sessions[c.id]
	if old == nil && len(b.sessions) >= b.config.MaxSessions {
		b.mu.Unlock()
		return packet.QuotaExceeded, &turnedAway{"sessions", errors.New("there are max_sessions sessions")}
	}
	if old != nil && old.owner == "" {
		old.owner = c.user // from before there were users
	}
	if old != nil && old.owner != c.user {
		b.mu.Unlock()
		return packet.NotAuthorized, &turnedAway{"auth", errors.New("the client identifier is another user's")}
	}
	if old != nil {
		b.takeOver(old, p.CleanStart)
	}
	b.epochs++
	c.epoch = b.epochs
	present := old != nil && !p.CleanStart && old.persistent() // one that was to end with its connection has ended
	s := old
	if !present {
		if old != nil {
			b.drop(old)
			old.client = nil // what is left of the old connection finds nothing
		}
		s = &session{id: c.id, owner: c.user, generation: b.nextGeneration(), subs: map[string]subscription{}}
		b.sessions[c.id] = s
	}
	s.away, s.client, c.session = time.Time{}, c, s
	s.expiry = b.expiryOf(p)
	s.will = willOf(p)
	if s.will != nil {
		s.will.message.from, s.will.who = c.id, c.who
	}
	pruned := present && b.prune(s, c.who)
	connack := b.connack(c, p, present)
	wire, err := connack.Append(nil, c.version)
	if present {
		wire = append(wire, b.resend(s, c)...)
	}
	c.mu.Lock()
	c.control = append(wire, c.control...)
	c.mu.Unlock()
	b.mu.Unlock()
	b.state.connected()
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		c.end(nil)
		b.left(c, err)
		return 0, err
	}
	c.wake()
	if pruned {
		b.keeper.later(change{Kind: kindSession, Client: s.id, Generation: s.generation})
	}
	if old != nil && !present {
		b.keeper.later(change{Kind: kindGone, Client: c.id, Generation: old.generation})
	}
	return 0, nil
}

// nextGeneration tells a session from all earlier ones of its client, also when the
// clock was set back. Broker.mu is held.
func (b *Broker) nextGeneration() uint64 {
	b.generation = max(b.generation+1, uint64(time.Now().UnixNano()))
	return b.generation
}

// takeOver ends what is left of a session's connection, and of its will: a new
// connection stops the delay of one (3.1.3.2.2), unless the session ends with it.
// After that the old connection brings nothing more. Broker.mu is held.
func (b *Broker) takeOver(old *session, cleanStart bool) {
	ends := cleanStart || !old.persistent()
	if c := old.client; c != nil {
		c.refuse(packet.SessionTakenOver, "")
		c.handedOver()
		if c.clean { // it said good-bye, and was not heard out
			old.will = nil
		}
		ends = ends || old.will != nil && old.will.delay == 0
	}
	if ends {
		b.publishWill(old)
	}
	old.will = nil
}

// expiryOf is how long the session will outlive the connection.
func (b *Broker) expiryOf(p *packet.Connect) time.Duration {
	limit := b.config.SessionExpiry.Std()
	if p.Version == packet.V311 {
		if p.CleanStart {
			return 0
		}
		return limit
	}
	if p.Properties.SessionExpiry == nil {
		return 0
	}
	return min(time.Duration(*p.Properties.SessionExpiry)*time.Second, limit)
}

func willOf(p *packet.Connect) *will {
	if p.Will == nil {
		return nil
	}
	w := &will{message: &publication{
		topic: p.Will.Topic, payload: p.Will.Payload, qos: p.Will.QoS, retain: p.Will.Retain, props: p.Will.Properties,
	}}
	if n := p.Will.Properties.WillDelay; n != nil {
		w.delay = time.Duration(*n) * time.Second
	}
	w.message.props.WillDelay = nil
	return w
}

// connack says yes, and what is granted other than asked for (3.2.2.3).
func (b *Broker) connack(c *client, p *packet.Connect, present bool) *packet.Connack {
	answer := &packet.Connack{SessionPresent: present}
	if c.version != packet.V5 {
		return answer
	}
	props := &answer.Properties
	inflight, aliases := uint16(b.config.MaxInflight), uint16(maxAliases)
	size := uint32(b.config.MaxPacketBytes) + 5
	props.ReceiveMaximum, props.TopicAliasMaximum, props.MaximumPacketSize = &inflight, &aliases, &size
	if p.ClientID == "" {
		props.AssignedClientID = &c.id
	}
	if seconds := uint16(c.keepAlive / time.Second); seconds != p.KeepAlive {
		props.ServerKeepAlive = &seconds
	}
	if n := p.Properties.SessionExpiry; n != nil && time.Duration(*n)*time.Second != c.session.expiry {
		seconds := uint32(c.session.expiry / time.Second)
		props.SessionExpiry = &seconds
	}
	return answer
}

// drop forgets a session and all that waits in it. Broker.mu is held.
func (b *Broker) drop(s *session) {
	for filter := range s.subs {
		b.tree.remove(s, filter)
	}
	b.clear(s)
	s.away = time.Time{}
	if b.sessions[s.id] == s {
		delete(b.sessions, s.id)
	}
}

// left takes the end of a connection: the session ends or goes on without it,
// and the will is published, now or later.
func (b *Broker) left(c *client, why error) {
	b.state.disconnected()
	if why != nil && !errors.Is(why, errDone) {
		b.logger.Debug("a client is gone", "client", c.id, "error", why)
	}
	b.mu.Lock()
	s := c.session
	if s.client != c { // taken over
		b.mu.Unlock()
		return
	}
	s.client = nil
	if c.clean {
		s.will = nil
	}
	var changes []change
	if s.persistent() {
		s.away = time.Now()
		b.settleFresh(s, s.away)
		changes = append(changes, change{Kind: kindSession, Client: s.id, Generation: s.generation})
		changes = append(changes, b.describeQueue(s)...)
		if done, ok := s.delivered(); ok {
			changes = append(changes, done)
		}
		if s.will != nil {
			s.will.due = s.away.Add(min(s.will.delay, s.expiry))
		}
	} else {
		if len(s.subs) > 0 {
			changes = append(changes, change{Kind: kindGone, Client: s.id, Generation: s.generation})
		}
		b.drop(s)
	}
	if s.will != nil && (s.will.delay == 0 || !s.persistent()) {
		b.publishWill(s)
	}
	b.mu.Unlock()
	b.keeper.later(changes...)
}

// publishWill hands the will to the worker, as a message of the client.
// Broker.mu is held.
func (b *Broker) publishWill(s *session) {
	if s.will == nil {
		return
	}
	w, who := s.will.message, s.will.who
	s.will = nil
	if !who.MayPublish(s.id, w.topic) {
		b.state.refusedPublish() // its user is gone, or may do less than at CONNECT
		return
	}
	it := &inbound{session: s, props: w.props, arrival: time.Now(), extra: weigh(&w.props)}
	it.message.Topic, it.message.Payload, it.message.Retained, it.message.ClientID = w.topic, w.payload, w.retain, s.id
	it.will = w.qos
	b.wills = append(b.wills, it)
	select {
	case b.willDue <- struct{}{}:
	default:
	}
}

// disconnect takes DISCONNECT (3.14).
func (b *Broker) disconnect(c *client, p *packet.Disconnect) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := p.Properties.SessionExpiry; n != nil && c.session.client == c {
		if c.session.expiry == 0 && *n > 0 {
			return refusal(packet.ProtocolError, "a session that was to end with the connection cannot be kept now")
		}
		c.session.expiry = min(time.Duration(*n)*time.Second, b.config.SessionExpiry.Std())
	}
	c.clean = p.Code != packet.DisconnectWithWill
	return errDone
}

// janitor ends what has had its time, once a second, and passes wills on.
func (b *Broker) janitor(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.willDue:
		case <-ticker.C:
			b.sweep(time.Now())
		}
		b.mu.Lock()
		wills := b.wills
		b.wills = nil
		b.mu.Unlock()
		for _, it := range wills {
			if !b.waiting.Take(it.weight(), ctx.Done(), nil) {
				return
			}
			b.state.received(it)
			select {
			case b.queue <- it:
			case <-ctx.Done():
				b.waiting.Give(it.weight())
				return
			}
		}
	}
}

// sweep ends sessions and retained messages that have expired, publishes wills
// whose delay is over, and throws out clients whose user is gone.
func (b *Broker) sweep(now time.Time) {
	b.doors.sweep(now)
	var changes []change
	b.mu.Lock()
	for _, s := range b.sessions {
		if s.client != nil && s.client.who.Revoked() {
			s.client.refuse(packet.NotAuthorized, "")
		}
		if s.will != nil && !s.will.due.IsZero() && !now.Before(s.will.due) {
			b.publishWill(s)
		}
		if !s.away.IsZero() && now.Sub(s.away) >= s.expiry {
			changes = append(changes, change{Kind: kindGone, Client: s.id, Generation: s.generation})
			b.drop(s)
		} else if c, ok := s.delivered(); ok {
			changes = append(changes, c)
		}
	}
	for topic, p := range b.retained {
		if !p.expires.IsZero() && !now.Before(p.expires) {
			b.retainedBytes -= p.bytes()
			delete(b.retained, topic)
			changes = append(changes, change{Kind: kindRetained, Message: &stored{Topic: topic}})
		}
	}
	b.mu.Unlock()
	b.keeper.later(changes...)
}
