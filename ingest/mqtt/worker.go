package mqtt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
)

// Attributes of a record that came by MQTT.
const (
	AttrTopic    = "mqtt.topic"
	AttrQoS      = "mqtt.qos"
	AttrRetained = "mqtt.retained"  // "true", or absent
	AttrDup      = "mqtt.dup"       // "true", or absent
	AttrPacketID = "mqtt.packet_id" // QoS 1 and 2
	attrHash     = "mqtt.hash"      // of a message that was set aside cut short
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
	window *window
	last   time.Time // greatest arrival given
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
				w.source.room.give(batch[i].weight())
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
			w.window.newSession(it.epoch)
			continue
		}
		if it.qos > 0 {
			if !it.tooLarge {
				it.hash = fingerprint(it.topic, it.payload)
			}
			if it.dup && w.window.holds(it.id, it.hash, it.epoch) {
				w.source.state.repeated()
				continue
			}
			if !it.dup {
				w.window.forget(it.id)
			}
		}
		t := w.source.prepare(it)
		// The order of arrival is what a restart rebuilds the window by: a small
		// step back of the clock does not show, a large one is a new beginning.
		if ahead := w.last.Sub(it.arrival); ahead <= 0 || ahead > time.Second {
			w.last = it.arrival
		}
		t.record.Arrival = w.last
		work = append(work, t)
	}
	if !w.appendAll(ctx, work) {
		return false
	}
	for i := range work {
		if it := work[i].item; it.qos > 0 {
			w.window.note(it.id, seenMessage{hash: it.hash, epoch: it.epoch, exact: it.qos == 2})
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
		aside := ingest.Refused{
			Source: w.source.config.Name, Stream: stream, Reason: why.Error(), Size: len(r.Data), Data: r.Data,
			Attributes: keep(r.Attributes, AttrTopic, AttrQoS, AttrRetained, AttrDup, AttrPacketID),
		}.Record()
		aside.Attributes = append(aside.Attributes, hashAttribute(fingerprint(r.Attribute(AttrTopic), r.Data)))
		aside.Arrival = r.Arrival
		return w.appendOne(ctx, ingest.Aside, []buffer.Record{aside})
	}
	for i := range records {
		if !w.appendOne(ctx, stream, records[i:i+1]) {
			return false
		}
	}
	return true
}

func keep(attributes []buffer.Attribute, keys ...string) []buffer.Attribute {
	var list []buffer.Attribute
	for _, a := range attributes {
		if slices.Contains(keys, a.Key) {
			list = append(list, a)
		}
	}
	return list
}

func hashAttribute(hash uint64) buffer.Attribute {
	return buffer.Attribute{Key: attrHash, Value: strconv.FormatUint(hash, 16)}
}

// prepare says which record a message becomes, and where it goes.
func (s *Source) prepare(it *item) todo {
	t := todo{item: it}
	attributes := []buffer.Attribute{{Key: AttrTopic, Value: it.topic}, {Key: AttrQoS, Value: strconv.Itoa(int(it.qos))}}
	if it.retained {
		attributes = append(attributes, buffer.Attribute{Key: AttrRetained, Value: "true"})
	}
	if it.dup {
		attributes = append(attributes, buffer.Attribute{Key: AttrDup, Value: "true"})
	}
	if it.qos > 0 {
		attributes = append(attributes, buffer.Attribute{Key: AttrPacketID, Value: strconv.Itoa(int(it.id))})
	}
	stream, key, err := s.route(it)
	if err == nil && len(it.topic) > 2048 {
		err = errors.New("topic is longer than 2048 bytes")
	}
	if err == nil && !utf8.ValidString(it.topic) {
		err = errors.New("topic is not UTF-8")
	}
	if err != nil {
		s.state.aside(err.Error(), s.logger)
		t.stream = ingest.Aside
		t.record = ingest.Refused{
			Source: s.config.Name, Stream: stream, Reason: err.Error(), Size: max(it.size, len(it.payload)), Data: it.payload,
			Attributes: append(attributes, hashAttribute(it.hash)),
		}.Record()
		return t
	}
	t.stream = stream
	t.record = buffer.Record{
		PartitionKey: key, Data: it.payload,
		Attributes: append(attributes, buffer.Attribute{Key: ingest.AttrSource, Value: s.config.Name}),
	}
	return t
}

// route finds the stream and the partition key.
func (s *Source) route(it *item) (stream, key string, err error) {
	for i, t := range s.config.Topics {
		if !matches(t.Filter, it.topic) {
			continue
		}
		if it.tooLarge {
			return t.Stream, "", fmt.Errorf("payload of %d bytes is over the limit of %s", it.size, s.config.MaxMessageBytes)
		}
		key, err := s.keys[i].expand(it.topic, s.config.ClientID, it.payload)
		if n := utf8.RuneCountInString(key); err == nil && n > buffer.MaxPartitionKeyChars {
			err = fmt.Errorf("partition key of %d characters is over the limit of %d", n, buffer.MaxPartitionKeyChars)
		}
		return t.Stream, key, err
	}
	return "", "", errors.New("no configured topic matches")
}

// rebuild fills the window with what this source appended last, before this
// process: the newest records of every stream it writes to, by arrival.
func (w *worker) rebuild(ctx context.Context) error {
	type message struct {
		arrival  time.Time
		sequence buffer.Sequence
		id       uint16
		hash     uint64
		exact    bool
	}
	var list []message
	for _, stream := range w.source.streams() {
		info, err := w.source.log.Stream(stream)
		if errors.Is(err, buffer.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, shard := range info.Shards {
			err := w.tail(ctx, stream, shard, func(e *buffer.Entry) {
				if e.Attribute(ingest.AttrSource) != w.source.config.Name {
					return
				}
				id, err := strconv.ParseUint(e.Attribute(AttrPacketID), 10, 16)
				if err != nil {
					return // QoS 0
				}
				hash := uint64(0)
				if text := e.Attribute(attrHash); text != "" {
					hash, _ = strconv.ParseUint(text, 16, 64) // what we wrote; a wrong one recognises nothing
				} else {
					hash = fingerprint(e.Attribute(AttrTopic), e.Data)
				}
				list = append(list, message{e.Arrival, e.Sequence, uint16(id), hash, e.Attribute(AttrQoS) == "2"})
			})
			if err != nil {
				return err
			}
		}
	}
	slices.SortStableFunc(list, func(a, b message) int {
		return cmp.Or(a.arrival.Compare(b.arrival), cmp.Compare(a.sequence, b.sequence))
	})
	for _, m := range list[max(0, len(list)-windowSize):] {
		w.window.note(m.id, seenMessage{hash: m.hash, exact: m.exact})
		w.last = m.arrival
	}
	return nil
}

// rebuildBytes of each shard are read back at most: 2 KiB a message.
const rebuildBytes = 64 << 20

// tail calls fn for the newest entries of a shard, as many as the window has.
func (w *worker) tail(ctx context.Context, stream string, shard buffer.ShardInfo, fn func(*buffer.Entry)) error {
	at := buffer.Position{Shard: shard.ID, Sequence: shard.First}
	records := int64(shard.Next - shard.First)
	if records == 0 {
		return nil
	}
	count := min(records, windowSize, rebuildBytes/max(shard.Bytes/records, 1)+1)
	at.Sequence = shard.Next - buffer.Sequence(count)
	for {
		page, err := w.source.log.Read(ctx, stream, at, buffer.Limit{})
		if err != nil {
			return err
		}
		for i := range page.Entries {
			fn(&page.Entries[i])
		}
		if at.Sequence = page.Next; page.AtEnd || at.Sequence >= shard.Next {
			return nil
		}
	}
}

// streams are those this source writes to.
func (s *Source) streams() []string {
	list := []string{ingest.Aside}
	for _, t := range s.config.Topics {
		if !slices.Contains(list, t.Stream) {
			list = append(list, t.Stream)
		}
	}
	return list
}
