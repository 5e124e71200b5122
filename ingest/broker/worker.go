package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/message"
)

const (
	queueMessages = 8192     // between the connections and the log
	queueBytes    = 16 << 20 // of them
	bodyBytes     = 16 << 20 // large packets that are being read
	batchMessages = 4000
	batchBytes    = 4 << 20
	stopAppend    = 2 * time.Second
)

// inbound is a message on its way from a client to the log and to subscribers.
type inbound struct {
	client  *client // nil for a will
	session *session
	epoch   uint64
	message message.Message
	props   packet.Properties
	arrival time.Time

	extra    int                 // bytes of props
	will     byte                // QoS of a will for subscribers; its record has none, for it has no identifier
	repeated bool                // the log has it already
	placed   bool                // it counts as in flight
	denied   packet.Code         // not Success: it only waits for its turn to be refused
	routed   bool                // it becomes a record
	targets  []target            // found before it was durable; nil: not looked for
	barrier  chan struct{}       // no message: closed when all before it are passed on
	kept     map[*session]uint64 // sessions for which the state stream has it, with its serial in their queue
}

func newInbound(c *client, p *packet.Publish) *inbound {
	it := &inbound{
		client: c, session: c.session, epoch: c.epoch, props: p.Properties, arrival: time.Now(), extra: weigh(&p.Properties),
		message: message.Message{
			Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, ID: p.ID, Dup: p.Dup, Retained: p.Retain, ClientID: c.id,
		},
	}
	it.props.TopicAlias, it.props.SubscriptionIDs = nil, nil
	return it
}

// weight is what an inbound takes of Broker.waiting.
func (it *inbound) weight() int {
	return len(it.message.Payload) + len(it.message.Topic) + it.extra + 512
}

// publication is what subscribers get.
func (it *inbound) publication() *publication {
	p := &publication{
		topic: it.message.Topic, payload: it.message.Payload, qos: max(it.message.QoS, it.will), retain: it.message.Retained,
		props: it.props, from: it.message.ClientID, extra: it.extra,
	}
	if seconds := it.props.MessageExpiry; seconds != nil {
		p.expires = it.arrival.Add(time.Duration(*seconds) * time.Second)
	}
	return p
}

// worker makes messages durable, then passes them on, then acknowledges them. It
// is one goroutine, so that the order of arrival is that of the log, of the
// subscribers and of the acknowledgements.
type worker struct {
	broker *Broker
	order  message.Arrivals
	seen   map[string]*seen
	uses   uint64
}

// run works until ctx is done or the log is closed.
func (w *worker) run(ctx context.Context) {
	var ended time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-w.broker.queue:
			w.linger(ctx, ended.Add(w.broker.window*4/5))
			if !w.step(ctx, w.collect(first)) {
				return // what comes behind must not get in before what was given up
			}
			ended = time.Now()
		}
	}
}

// lingerStep is how often it is looked whether a batch is large enough.
const lingerStep = 5 * time.Millisecond

// linger lets a batch grow while the log would not write it yet: it commits once
// in its window, and what comes after a batch was handed over waits for the next
// one. So it is handed over late in the window. After a pause there is nothing
// to wait for.
func (w *worker) linger(ctx context.Context, until time.Time) {
	for ctx.Err() == nil && len(w.broker.queue) < batchMessages/2 && !w.broker.waiting.Over(batchBytes) {
		left := time.Until(until)
		if left <= 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, lingerStep)):
		}
	}
}

// step takes one batch to its end; false when the broker stops before that.
func (w *worker) step(ctx context.Context, batch []*inbound) bool {
	messages := make([]*inbound, 0, len(batch))
	for _, it := range batch {
		if it.barrier != nil {
			defer close(it.barrier) // what is behind it in the batch is passed on too
			continue
		}
		messages = append(messages, it)
	}
	done := len(messages) == 0 || w.handle(ctx, messages)
	w.broker.state.handled(len(messages))
	for _, it := range messages {
		w.broker.waiting.Give(it.weight())
	}
	return done
}

// collect takes what waits.
func (w *worker) collect(first *inbound) []*inbound {
	batch, bytes := []*inbound{first}, first.weight()
	for len(batch) < batchMessages && bytes < batchBytes {
		select {
		case it := <-w.broker.queue:
			batch = append(batch, it)
			bytes += it.weight()
		default:
			return batch
		}
	}
	return batch
}

// handle takes a batch from the connections to the acknowledgements. It returns
// false when it gave up because the broker stops; then nothing was acknowledged.
func (w *worker) handle(ctx context.Context, batch []*inbound) bool {
	b := w.broker
	byStream := map[string][]buffer.Record{}
	for _, it := range batch {
		if stream, record, ok := w.prepare(it); ok {
			byStream[stream] = append(byStream[stream], record)
		}
	}
	// No snapshot may come between this plan, its append and what follows from it.
	b.keeper.mu.Lock()
	defer b.keeper.mu.Unlock()
	// The state first: a message that is in its stream and not in the state would
	// be recognised when it is sent again, and never get to those who wait for it.
	if records := b.plan(batch); !b.keeper.write(ctx, records) {
		return false
	}
	if !w.appendAll(ctx, byStream) {
		return false
	}
	if late := b.publish(batch); len(late) > 0 && !b.keeper.write(ctx, late) {
		return false
	}
	w.acknowledge(batch)
	return true
}

// prepare recognises what the log has, and says which record a message becomes.
func (w *worker) prepare(it *inbound) (stream string, record buffer.Record, ok bool) {
	b, m := w.broker, &it.message
	if it.denied != packet.Success {
		return "", buffer.Record{}, false
	}
	if m.QoS > 0 {
		m.Hash = message.Fingerprint(m.Topic, m.Payload)
		if w.recognise(it) {
			it.repeated = true
			b.state.repeated()
			return "", buffer.Record{}, false
		}
	}
	if _, it.routed = b.router.Match(m.Topic); !it.routed {
		return "", buffer.Record{}, false
	}
	routed := b.router.Record(m)
	if routed.Refused != nil {
		b.state.aside(routed.Refused.Error(), b.logger)
	}
	routed.Record.Arrival = w.order.Next(it.arrival) // a restart rebuilds the windows by it
	return routed.Stream, routed.Record, true
}

// recognise says whether the log holds the message from an earlier delivery, and
// remembers it if not.
func (w *worker) recognise(it *inbound) bool {
	m := &it.message
	window := w.windowOf(m.ClientID)
	if m.Dup && window.Holds(m.ID, m.Hash, it.epoch) {
		return true
	}
	if m.QoS == 2 && it.session != nil && w.broker.received(it.session, m.ID) {
		return true
	}
	if !m.Dup {
		window.Forget(m.ID)
	}
	window.Note(m.ID, message.Seen{Hash: m.Hash, Epoch: it.epoch}) // of QoS 2, session.received knows in this process
	return false
}

// windowOf finds the window of a client, at most config.MaxSessions of them: the
// one that was not used for longest makes room.
func (w *worker) windowOf(clientID string) *message.Window {
	w.uses++
	s := w.seen[clientID]
	if s == nil {
		if len(w.seen) >= w.broker.config.MaxSessions {
			oldest := ""
			for id, other := range w.seen {
				if oldest == "" || other.used < w.seen[oldest].used {
					oldest = id
				}
			}
			delete(w.seen, oldest)
		}
		s = &seen{window: message.NewWindow(w.broker.config.MaxInflight)}
		w.seen[clientID] = s
	}
	s.used = w.uses
	return s.window
}

// rebuild fills the windows with what this broker appended before this process.
func (w *worker) rebuild(ctx context.Context) error {
	list, err := message.Recall(ctx, w.broker.log, w.broker.config.Name, w.broker.router.Streams())
	if err != nil {
		return err
	}
	for _, m := range list {
		w.windowOf(m.ClientID).Note(m.ID, m.Seen())
		w.order.Next(m.Arrival)
	}
	return nil
}

// received says whether a QoS 2 message with that identifier is durable and not
// released.
func (b *Broker) received(s *session, id uint16) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.received.has(id)
}

// acknowledge tells each client, in the order of arrival.
func (w *worker) acknowledge(batch []*inbound) {
	appended, acknowledged := 0, 0
	for _, it := range batch {
		if it.routed {
			appended++
		}
		m := &it.message
		if it.client == nil || m.QoS == 0 {
			continue
		}
		acknowledged++
		// Its place first: who looks between the two must not count it twice.
		if it.placed {
			it.client.settle()
		}
		kind := packet.PUBACK
		if m.QoS == 2 {
			kind = packet.PUBREC
			if it.denied == packet.Success {
				w.broker.hold(it)
			}
		}
		it.client.send(&packet.Ack{Kind: kind, ID: m.ID, Code: it.denied})
	}
	w.broker.state.acknowledged(appended, acknowledged)
}

// hold keeps the identifier of a QoS 2 message until it is released.
func (b *Broker) hold(it *inbound) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it.session.received.add(it.message.ID)
}

// appendAll makes records durable, all streams at once so that they share a
// commit where they can. It returns false when the broker stops first.
func (w *worker) appendAll(ctx context.Context, byStream map[string][]buffer.Record) bool {
	var group sync.WaitGroup
	results := make(chan bool, len(byStream))
	for stream, records := range byStream {
		group.Go(func() { results <- w.broker.appendOne(ctx, stream, records) })
	}
	group.Wait()
	close(results)
	for ok := range results {
		if !ok {
			return false
		}
	}
	return true
}

// appendOne appends to one stream, for as long as it takes: while the log is
// full nothing is acknowledged, which is MQTT's backpressure.
func (b *Broker) appendOne(ctx context.Context, stream string, records []buffer.Record) bool {
	backoff := value.Backoff{Min: value.Duration(50 * time.Millisecond), Max: value.Duration(5 * time.Second)}
	var pause time.Duration
	for ctx.Err() == nil {
		err := b.try(ctx, stream, records)
		if err == nil {
			b.state.logged(stream, nil, b.logger)
			return true
		}
		if ctx.Err() != nil || errors.Is(err, buffer.ErrClosed) {
			return false
		}
		if errors.Is(err, buffer.ErrInvalid) || errors.Is(err, buffer.ErrTooLarge) {
			return b.separate(ctx, stream, records, err)
		}
		b.state.logged(stream, err, b.logger)
		pause = backoff.Next(pause, rand.Float64())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	return false
}

// try appends once. When the broker stops, the append of messages that is under
// way gets a bounded time; the state's does not, for the keeper tries once more.
func (b *Broker) try(ctx context.Context, stream string, records []buffer.Record) error {
	if stream == StateStream {
		_, err := b.log.Append(ctx, stream, records...)
		return err
	}
	c, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopAppend, cancel) })
	defer stop()
	_, err := b.log.Append(c, stream, records...)
	return err
}

// separate appends by halves after the log refused all of them together, and
// sets aside those that it refuses alone.
func (b *Broker) separate(ctx context.Context, stream string, records []buffer.Record, why error) bool {
	if len(records) > 1 {
		half := len(records) / 2
		return b.appendOne(ctx, stream, records[:half]) && b.appendOne(ctx, stream, records[half:])
	}
	if stream == ingest.Aside || stream == StateStream { // cannot be, for they are made by us
		b.logger.Error("a record of the broker's own is refused", "stream", stream, "error", why)
		b.state.lost()
		return true
	}
	b.state.aside(why.Error(), b.logger)
	return b.appendOne(ctx, ingest.Aside, []buffer.Record{b.router.SetAside(stream, records[0], why)})
}
