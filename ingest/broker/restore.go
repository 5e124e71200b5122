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

// comeBack is how long a session is kept after a start, however long its client
// seems to have been away.
const comeBack = time.Hour

func (b *Broker) restoreSession(id string, kept *restored, now time.Time) {
	s := &session{
		id: id, owner: kept.kept.Owner, generation: kept.generation, expiry: min(kept.kept.Expiry, b.config.SessionExpiry.Std()),
		subs: map[string]subscription{}, stored: kept.delivered, serial: kept.delivered,
	}
	b.generation = max(b.generation, s.generation)
	if s.expiry <= 0 {
		return // only messages for it were found
	}
	// Away since when it was connected when the broker ended, or the clock was set
	// back: now. A clock that jumped ahead while weir was off must end nothing: every
	// client has some time to come back. From here on it is time that cannot jump,
	// which is in now.
	var away time.Duration
	if !kept.kept.Away.IsZero() {
		away = max(0, now.Sub(kept.kept.Away))
	}
	s.away = now.Add(-min(away, s.expiry-min(s.expiry, comeBack)))
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
