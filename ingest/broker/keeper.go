package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/broker/packet"
)

// stateVersion is the form of the records in StateStream.
const stateVersion = 1

// The kinds of change.
const (
	kindSession   = "session"   // Session is there, with these subscriptions
	kindGone      = "gone"      // the session of Client is not there any more
	kindRetained  = "retained"  // Message is retained; an empty payload: nothing is
	kindQueued    = "queued"    // Message waits For sessions
	kindDelivered = "delivered" // Client has everything up to UpTo
	kindBegin     = "begin"     // a snapshot begins: forget everything before
	kindEnd       = "end"       // and is complete
)

// change is a record of StateStream: JSON in one line, and behind the line's end
// the payload of Message as it is.
type change struct {
	Version    int          `json:"v"`
	Kind       string       `json:"kind"`
	Client     string       `json:"client,omitempty"`
	Generation uint64       `json:"generation,omitempty"`
	UpTo       uint64       `json:"up_to,omitempty"`
	Session    *keptSession `json:"session,omitempty"`
	Message    *stored      `json:"message,omitempty"`
	For        []waits      `json:"for,omitempty"`
}

// keptSession is a session in StateStream.
type keptSession struct {
	Owner  string         `json:"owner,omitempty"`
	Expiry time.Duration  `json:"expiry"`        // ns
	Away   time.Time      `json:"away,omitzero"` // zero: connected
	Subs   []subscription `json:"subs,omitempty"`
}

// stored is a message in StateStream.
type stored struct {
	Topic   string             `json:"topic"`
	Payload []byte             `json:"-"`
	QoS     byte               `json:"qos,omitempty"`
	Retain  bool               `json:"retain,omitempty"`
	From    string             `json:"from,omitempty"`
	Expires time.Time          `json:"expires,omitzero"`
	Props   *packet.Properties `json:"props,omitempty"`
}

// waits is a session for which a message waits.
type waits struct {
	Client     string   `json:"client"`
	Generation uint64   `json:"generation"`
	Serial     uint64   `json:"serial"` // its place in the queue
	QoS        byte     `json:"qos"`
	Retain     bool     `json:"retain,omitempty"`
	IDs        []uint32 `json:"ids,omitempty"`
}

func (t target) waits(serial uint64) waits {
	return waits{Client: t.session.id, Generation: t.session.generation, Serial: serial, QoS: t.qos, Retain: t.retain, IDs: t.ids}
}

// describe is the session for the state stream. Broker.mu is held.
func (s *session) describe() change {
	k := &keptSession{Owner: s.owner, Expiry: s.expiry, Away: s.away}
	for _, sub := range s.subs {
		k.Subs = append(k.Subs, sub)
	}
	return change{Kind: kindSession, Client: s.id, Generation: s.generation, Session: k}
}

// record is the change as it is appended.
func (c change) record() buffer.Record {
	c.Version = stateVersion
	data, err := json.Marshal(c)
	if err != nil { // cannot be: there is nothing in it that JSON has not
		data = []byte("{}")
	}
	if c.Message != nil {
		data = append(append(data, '\n'), c.Message.Payload...)
	}
	return buffer.Record{PartitionKey: c.Kind, Data: data}
}

// consumer is the name under which the log remembers where the last snapshot is.
func (b *Broker) consumer() string { return "broker." + b.config.Name }

// When a snapshot is due, by what was written since the last one.
const (
	snapshotRecords = 20_000
	appendRecords   = 5000 // at once
	snapshotAge     = 30 * 24 * time.Hour
	laterMost       = 50_000 // changes that wait to be written
)

// keeper writes StateStream.
type keeper struct {
	broker *Broker
	places buffer.Committer
	due    chan struct{} // something waits in pending

	// mu is held while something is planned, appended and applied, so that a
	// snapshot is not older than what stands before it. It comes before
	// Broker.mu.
	mu      sync.Mutex
	records int
	bytes   int64
	taken   time.Time       // the last snapshot
	ctx     context.Context // of Run; for those who have none

	pendingMu sync.Mutex
	pending   []change
	waiters   []chan struct{} // closed when all that is pending now is durable
}

// wrote counts what was appended. mu is held.
func (k *keeper) wrote(records []buffer.Record) {
	k.records += len(records)
	for i := range records {
		k.bytes += int64(len(records[i].Data))
	}
}

// write appends records. mu is held. It returns false when the broker stops.
func (k *keeper) write(ctx context.Context, records []buffer.Record) bool {
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && n < appendRecords && size < 2*batchBytes {
			size += len(records[n].Data)
			n++
		}
		if !k.broker.appendOne(ctx, StateStream, records[:n]) {
			return false
		}
		k.wrote(records[:n])
		records = records[n:]
	}
	return true
}

// begin says for how long those who wait in persist may wait. Nobody does yet.
func (k *keeper) begin(ctx context.Context) { k.ctx = ctx }

// persist makes what a session is now durable before it returns; false when the
// broker stops or the client is gone. Those who wait at once share a commit.
func (k *keeper) persist(s *session, gone <-chan struct{}) bool {
	done := make(chan struct{})
	k.note(done, change{Kind: kindSession, Client: s.id, Generation: s.generation})
	select {
	case <-done:
		return true
	case <-gone:
		return false
	case <-k.ctx.Done():
		return false
	}
}

// later has changes written soon, for those that nobody waits for.
func (k *keeper) later(changes ...change) {
	if len(changes) > 0 {
		k.note(nil, changes...)
	}
}

// note puts changes into the line, and with them one who waits, if any.
func (k *keeper) note(waiter chan struct{}, changes ...change) {
	k.pendingMu.Lock()
	if waiter != nil {
		k.waiters = append(k.waiters, waiter)
	}
	if len(k.pending)+len(changes) <= laterMost {
		k.pending = append(k.pending, changes...)
	} else { // the log takes nothing; a snapshot will say it all
		k.pending = nil
		k.broker.logger.Warn("the broker's state was not written in time; a snapshot follows", "changes", laterMost)
		k.pending = append(k.pending, change{Kind: kindBegin})
	}
	k.pendingMu.Unlock()
	select {
	case k.due <- struct{}{}:
	default:
	}
}

// run writes what waits and takes snapshots, until ctx is done; then it writes
// what waits once more.
func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			k.finish(ctx)
			return
		case <-k.due:
		}
		if !k.flush(ctx) && ctx.Err() == nil {
			return // the log is closed
		}
	}
}

// finish writes what waits once more.
func (k *keeper) finish(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopAppend/4)
	defer cancel()
	k.broker.sweepDelivered()
	k.flush(last)
}

// sweepDelivered notes how far everybody has everything.
func (b *Broker) sweepDelivered() {
	var changes []change
	b.mu.Lock()
	for _, s := range b.sessions {
		if c, ok := s.delivered(); ok {
			changes = append(changes, c)
		}
	}
	b.mu.Unlock()
	b.keeper.later(changes...)
}

// flush writes what waits, and a snapshot if one is due.
func (k *keeper) flush(ctx context.Context) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pendingMu.Lock()
	pending, waiters := k.pending, k.waiters
	k.pending, k.waiters = nil, nil
	k.pendingMu.Unlock()
	whole := k.records >= snapshotRecords || k.bytes >= int64(k.broker.config.StateStreamConfig().MaxBytes)/6 ||
		k.records > 0 && time.Since(k.taken) > snapshotAge
	var records []buffer.Record
	for _, c := range pending {
		whole = whole || c.Kind == kindBegin
		if c.Kind == kindSession && !k.broker.now(&c) {
			continue // it is gone meanwhile
		}
		records = append(records, c.record())
	}
	done := false
	if whole {
		done = k.snapshot(ctx)
	} else {
		done = k.write(ctx, records)
	}
	if done {
		for _, w := range waiters {
			close(w)
		}
		return true
	}
	k.pendingMu.Lock() // the last flush tries it once more
	k.pending = append(pending, k.pending...)
	k.pendingMu.Unlock()
	return false
}

// now fills in what a session is at this moment: it may have changed since the
// change was noted, and been written. It is false when there is no such session.
func (b *Broker) now(c *change) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[c.Client]
	if s == nil || s.generation != c.Generation || !s.persistent() {
		return false
	}
	*c = s.describe()
	return true
}

// snapshot writes everything, and remembers where. mu is held.
func (k *keeper) snapshot(ctx context.Context) bool {
	b := k.broker
	info, err := b.log.Stream(StateStream)
	at := buffer.Sequence(1)
	if err == nil {
		at = info.Shards[0].Next
	}
	records := []buffer.Record{change{Kind: kindBegin}.record()}
	b.mu.Lock()
	for _, s := range b.sessions {
		if !s.persistent() {
			continue
		}
		records = append(records, s.describe().record())
		for _, part := range [][]*outgoing{s.sent, s.queue} {
			for _, o := range part {
				t := target{session: s, qos: o.qos, retain: o.retain, ids: o.ids}
				records = append(records, change{Kind: kindQueued, Message: o.stored(), For: []waits{t.waits(o.serial)}}.record())
			}
		}
	}
	for _, p := range b.retained {
		records = append(records, change{Kind: kindRetained, Message: p.stored()}.record())
	}
	b.mu.Unlock()
	records = append(records, change{Kind: kindEnd}.record())
	if !k.write(ctx, records) {
		return false
	}
	k.records, k.bytes, k.taken = 0, 0, time.Now()
	if k.places != nil {
		err := k.places.Commit(ctx, buffer.Commit{
			Consumer: b.consumer(), Positions: map[buffer.ShardKey]buffer.Sequence{{Stream: StateStream}: at},
		})
		if err != nil { // the next start reads more than it needs
			b.logger.Warn("the place of the broker's snapshot is not remembered", "error", err)
		}
	}
	return true
}

// load reads the state back: the last complete snapshot and what follows.
func (k *keeper) load(ctx context.Context) error {
	b := k.broker
	at := buffer.Position{Sequence: 1}
	if k.places != nil {
		place, err := k.places.Checkpoint(b.consumer())
		if err != nil && !errors.Is(err, buffer.ErrNotFound) {
			return err
		}
		at.Sequence = max(1, place.Positions[buffer.ShardKey{Stream: StateStream}])
	}
	r := &restorer{sessions: map[string]*restored{}, retained: map[string]*stored{}}
	for {
		page, err := b.log.Read(ctx, StateStream, at, buffer.Limit{})
		if errors.Is(err, buffer.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			k.records++
			k.bytes += int64(len(e.Data))
			if err := r.apply(e.Data); err != nil {
				b.state.badState()
				b.logger.Warn("a record of the broker's state cannot be read; it is passed over", "sequence", e.Sequence, "error", err)
			}
		}
		if at.Sequence = page.Next; page.AtEnd {
			break
		}
	}
	k.taken = time.Now()
	b.restore(r)
	return nil
}

// restorer puts the state together from its records.
type restorer struct {
	sessions map[string]*restored
	retained map[string]*stored
	building *restorer // of a snapshot that has begun and not ended
}

type restored struct {
	generation uint64
	kept       keptSession
	queue      []queued
	delivered  uint64
}

type queued struct {
	waits   waits
	message *stored
}

// apply takes one record. A snapshot counts once it is complete; until then,
// and if it never is, what stands before it and beside it counts.
func (r *restorer) apply(data []byte) error {
	var c change
	line, payload, _ := bytes.Cut(data, []byte{'\n'})
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	if c.Message != nil {
		c.Message.Payload = bytes.Clone(payload) // the entry's memory is not ours
	}
	if c.Version != stateVersion {
		return fmt.Errorf("it has version %d and not %d", c.Version, stateVersion)
	}
	switch c.Kind {
	case kindBegin:
		r.building = &restorer{sessions: map[string]*restored{}, retained: map[string]*stored{}}
		return nil
	case kindEnd:
		if r.building == nil {
			return errors.New("a snapshot ends that did not begin")
		}
		r.sessions, r.retained, r.building = r.building.sessions, r.building.retained, nil
		return nil
	}
	if r.building != nil {
		if err := r.building.change(&c); err != nil {
			return err
		}
	}
	return r.change(&c)
}

func (r *restorer) change(c *change) error {
	switch {
	case c.Kind == kindSession && c.Session != nil:
		s := r.sessions[c.Client]
		if s == nil || s.generation != c.Generation {
			s = &restored{generation: c.Generation}
			r.sessions[c.Client] = s
		}
		s.kept = *c.Session
	case c.Kind == kindGone:
		if s := r.sessions[c.Client]; s != nil && s.generation == c.Generation {
			delete(r.sessions, c.Client)
		}
	case c.Kind == kindRetained && c.Message != nil:
		delete(r.retained, c.Message.Topic)
		if len(c.Message.Payload) > 0 {
			r.retained[c.Message.Topic] = c.Message
		}
	case c.Kind == kindQueued && c.Message != nil:
		for _, w := range c.For {
			s := r.sessions[w.Client]
			if s == nil || s.generation < w.Generation { // its record is behind this one, or never came
				s = &restored{generation: w.Generation}
				r.sessions[w.Client] = s
			}
			if s.generation == w.Generation {
				s.queue = append(s.queue, queued{w, c.Message})
			}
		}
	case c.Kind == kindDelivered:
		if s := r.sessions[c.Client]; s != nil && s.generation == c.Generation {
			s.delivered = max(s.delivered, c.UpTo)
		}
	default:
		return fmt.Errorf("its kind %.20q is not known or says nothing", c.Kind)
	}
	return nil
}
