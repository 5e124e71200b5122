package mqtt

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/message"
)

const (
	batchMessages = 4000
	batchBytes    = 4 << 20
	stopAppend    = 2 * time.Second
)

// item is a message on its way from the connection to the worker, or the news
// that a connection began without a session.
type item struct {
	epoch      uint64
	newSession bool

	topic    string
	payload  []byte
	qos      byte
	id       uint16
	dup      bool
	retained bool
	arrival  time.Time
	from     *connection
	received func() // sends PUBREC; nil but for QoS 2

	tooLarge bool // payload is cut short, size was its length, hash is of all of it
	size     int
	hash     uint64
}

// weight is what an item takes of Source.room.
func (it *item) weight() int { return len(it.payload) + len(it.topic) + 256 }

// worker appends what the connections bring, and acknowledges it. It is one
// goroutine, so that what an old connection brought is settled before the
// same message is looked at again when a new one brings it.
type worker struct {
	source *Source
	window *message.Window
	order  message.Arrivals
}

// run works until ctx is done or the log is closed.
func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-w.source.queue:
			batch := w.collect(first)
			done := w.handle(ctx, batch)
			w.source.state.handled(len(batch))
			for i := range batch {
				w.source.room.Give(batch[i].weight())
			}
			if !done {
				return // what comes behind must not get in before what was given up
			}
		}
	}
}

// collect takes what waits.
func (w *worker) collect(first item) []item {
	batch, bytes := []item{first}, len(first.payload)
	for len(batch) < batchMessages && bytes < batchBytes {
		select {
		case it := <-w.source.queue:
			batch = append(batch, it)
			bytes += len(it.payload)
		default:
			return batch
		}
	}
	return batch
}

// todo is a message that has to be appended.
type todo struct {
	item   *item
	stream string
	record buffer.Record
}

// handle appends a batch and acknowledges it, in order. It returns false when
// it gave up.
func (w *worker) handle(ctx context.Context, batch []item) bool {
	// A message of this batch may be a redelivery of another one of it (the
	// connection broke between): what is noted at the end comes too late then.
	for start := 0; start < len(batch); {
		end := start + 1
		for end < len(batch) && batch[end].epoch == batch[start].epoch {
			end++
		}
		if !w.handleOne(ctx, batch[start:end]) {
			return false
		}
		start = end
	}
	return true
}

// handleOne is handle for messages of one connection. It returns false when
// it gave up because the source stops; then nothing was acknowledged.
func (w *worker) handleOne(ctx context.Context, batch []item) bool {
	var work []todo
	for i := range batch {
		it := &batch[i]
		if it.newSession {
			w.window.NewSession(it.epoch)
			continue
		}
		if it.qos > 0 {
			if !it.tooLarge {
				it.hash = message.Fingerprint(it.topic, it.payload)
			}
			if it.dup && w.window.Holds(it.id, it.hash, it.epoch) {
				w.source.state.repeated()
				continue
			}
			if !it.dup {
				w.window.Forget(it.id)
			}
		}
		t := w.source.prepare(it)
		// The order of arrival is what a restart rebuilds the window by.
		t.record.Arrival = w.order.Next(it.arrival)
		work = append(work, t)
	}
	if !w.appendAll(ctx, work) {
		return false
	}
	for i := range work {
		if it := work[i].item; it.qos > 0 {
			w.window.Note(it.id, message.Seen{Hash: it.hash, Epoch: it.epoch, Exact: it.qos == 2})
		}
	}
	acknowledged := acknowledge(batch)
	w.source.state.acknowledged(len(work), acknowledged)
	return true
}

// acknowledge tells the broker that the messages, all of one connection, are
// safe, in the order they came. It returns how many there were to tell of.
func acknowledge(batch []item) int {
	count := 0
	var ids []uint16
	var from *connection
	for i := range batch {
		switch it := &batch[i]; {
		case it.newSession || it.qos == 0:
			continue
		case it.received != nil:
			it.received()
		default:
			ids, from = append(ids, it.id), it.from
		}
		count++
	}
	if len(ids) > 0 {
		from.acknowledge(puback, ids...)
	}
	return count
}

// appendAll makes the messages durable, stream by stream and at once, so that
// streams share a commit. It returns false when the source stops first.
func (w *worker) appendAll(ctx context.Context, work []todo) bool {
	byStream := make(map[string][]buffer.Record)
	for i := range work {
		byStream[work[i].stream] = append(byStream[work[i].stream], work[i].record)
	}
	var group sync.WaitGroup
	results := make(chan bool, len(byStream))
	for stream, records := range byStream {
		group.Go(func() { results <- w.appendOne(ctx, stream, records) })
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
func (w *worker) appendOne(ctx context.Context, stream string, records []buffer.Record) bool {
	backoff := value.Backoff{Min: value.Duration(50 * time.Millisecond), Max: value.Duration(5 * time.Second)}
	var pause time.Duration
	for {
		err := w.try(ctx, stream, records)
		if err == nil {
			w.source.state.logged(stream, nil, w.source.logger)
			return true
		}
		if ctx.Err() != nil || errors.Is(err, buffer.ErrClosed) {
			return false
		}
		if errors.Is(err, buffer.ErrInvalid) || errors.Is(err, buffer.ErrTooLarge) {
			return w.separate(ctx, stream, records, err)
		}
		w.source.state.logged(stream, err, w.source.logger)
		pause = backoff.Next(pause, rand.Float64())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// try appends once. When the source stops, the append under way gets a bounded
// time.
func (w *worker) try(ctx context.Context, stream string, records []buffer.Record) error {
	c, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopAppend, cancel) })
	defer stop()
	_, err := w.source.log.Append(c, stream, records...)
	return err
}

// separate appends one by one after the log refused all of them together, and
// sets aside those that it refuses alone.
func (w *worker) separate(ctx context.Context, stream string, records []buffer.Record, why error) bool {
	if len(records) == 1 {
		r := records[0]
		if stream == ingest.Aside { // cannot be, for they are made by us; never lose the place in the line for it
			w.source.logger.Error("a record that was set aside is refused", "error", why)
			w.source.state.lost()
			return true
		}
		w.source.state.aside(why.Error(), w.source.logger)
		aside := w.source.router.SetAside(stream, r, why)
		return w.appendOne(ctx, ingest.Aside, []buffer.Record{aside})
	}
	for i := range records {
		if !w.appendOne(ctx, stream, records[i:i+1]) {
			return false
		}
	}
	return true
}

// prepare says which record a message becomes, and where it goes.
func (s *Source) prepare(it *item) todo {
	m := message.Message{
		Topic: it.topic, Payload: it.payload, QoS: it.qos, ID: it.id, Dup: it.dup, Retained: it.retained, Hash: it.hash,
	}
	if it.tooLarge {
		m.Size = it.size
	}
	routed := s.router.Record(&m)
	if routed.Refused != nil {
		s.state.aside(routed.Refused.Error(), s.logger)
	}
	return todo{item: it, stream: routed.Stream, record: routed.Record}
}

// rebuild fills the window with what this source appended last, before this
// process.
func (w *worker) rebuild(ctx context.Context) error {
	list, err := message.Recall(ctx, w.source.log, w.source.config.Name, w.source.router.Streams())
	if err != nil {
		return err
	}
	for _, m := range list {
		w.window.Note(m.ID, m.Seen())
		w.order.Next(m.Arrival)
	}
	return nil
}
