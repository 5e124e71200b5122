package broker

import (
	"cmp"
	"slices"
	"time"
)

// restore makes sessions and retained messages of what was read. It runs before
// anybody connects.
func (b *Broker) restore(r *restorer) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, st := range r.retained {
		p := st.publication()
		if st.Topic == topic && !p.expired(now) && b.mayRetain(p) {
			b.retain(p)
		}
	}
	for id, kept := range r.sessions {
		if len(b.sessions) >= b.config.MaxSessions {
			b.logger.Warn("sessions of an earlier run are over max_sessions; some are forgotten", "sessions", len(r.sessions))
			break
		}
		b.restoreSession(id, kept, now)
	}
}

func (b *Broker) restoreSession(id string, kept *restored, now time.Time) {
	s := &session{
		id: id, owner: kept.kept.Owner, generation: kept.generation, expiry: min(kept.kept.Expiry, b.config.SessionExpiry.Std()),
		away: kept.kept.Away, subs: map[string]subscription{}, stored: kept.delivered, serial: kept.delivered,
	}
	if s.away.IsZero() || s.away.After(now) {
		s.away = now // it was connected when the broker ended, or the clock was set back
	}
	if now.Sub(s.away) >= s.expiry {
		return
	}
	b.sessions[id] = s
	for _, sub := range kept.kept.Subs {
		if len(s.subs) < b.config.MaxSubscriptions {
			s.subs[sub.Filter] = sub
			b.tree.add(s, sub)
		}
	}
	slices.SortStableFunc(kept.queue, func(x, y queued) int { return cmp.Compare(x.waits.Serial, y.waits.Serial) })
	last := kept.delivered
	for _, q := range kept.queue {
		if q.waits.Serial <= last {
			continue // delivered, or there twice
		}
		last = q.waits.Serial
		p := q.message.publication()
		o := &outgoing{publication: p, qos: min(q.waits.QoS, 2), retain: q.waits.Retain && p.retain, ids: q.waits.IDs}
		if !p.expired(now) && b.enqueue(s, o) {
			o.serial, o.kept = q.waits.Serial, true
		}
	}
	s.serial = max(s.serial, last)
}
