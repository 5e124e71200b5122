package nats

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/uplink"
)

// Headers by which the server stores conditionally (ADR-50 for batches).
const (
	afterSequence = "Nats-Expected-Last-Subject-Sequence"
	afterID       = "Nats-Expected-Last-Msg-Id"
	batchHeader   = "Nats-Batch-Id"
	batchSequence = "Nats-Batch-Sequence"
	batchCommit   = "Nats-Batch-Commit"
)

// Error codes of the JetStream API.
const (
	codeTooLarge       = 10054
	codeWrongLastID    = 10070
	codeWrongLast      = 10071
	codeHeaderTooLarge = 10097
	codeLastInProcess  = 10164
)

// maxAtomic is the most messages the server takes as an atomic batch, if it is
// not configured otherwise.
const maxAtomic = 1000

// sending is one call of Send.
type sending struct {
	ses   *session
	sub   *subject
	batch uplink.Batch
	max   int // messages in flight

	messages []*nats.Msg
	accepted int   // a beginning of the batch
	bytes    int   // of the largest message
	refused  error // permanently: the one behind messages
	unknown  bool  // the server may have stored more than was acknowledged
}

// make turns the entries into messages, up to the first one that is too large
// for the server.
func (b *sending) make() {
	limit := int(b.ses.nc.MaxPayload())
	for i := range b.batch.Entries {
		e := &b.batch.Entries[i]
		m := nats.NewMsg(b.sub.name)
		for _, h := range uplink.Headers(b.batch.Node, e) {
			m.Header[h.Name] = []string{h.Value}
		}
		m.Header[jetstream.MsgIDHeader] = []string{uplink.RecordID(b.batch.Node, e)}
		m.Data = e.Data
		size := len(m.Data) + headerReserve
		for name, values := range m.Header {
			size += len(name) + len(values[0]) + 4
		}
		if size > limit {
			b.refused = &uplink.PermanentError{Err: fmt.Errorf("it is %d bytes with its headers, over the server's max_payload of %d", size, limit)}
			break
		}
		b.bytes = max(b.bytes, size)
		b.messages = append(b.messages, m)
	}
}

// headerReserve is room for the headers that are added when a message is sent;
// one of them repeats an id.
const headerReserve = 512

// send publishes what is left until all is accepted or something is in the way.
func (b *sending) send(ctx context.Context) error {
	if b.sub.window < len(b.messages) {
		if done, err := b.atomic(ctx); done || err != nil {
			return err
		}
	}
	for b.accepted < len(b.messages) {
		if err := b.chain(ctx); err != nil {
			return b.partial(err)
		}
	}
	if b.refused != nil {
		return b.partial(b.refused)
	}
	return nil
}

// partial says that what was accepted is safe and what comes behind was
// stopped by err, unless the outcome is not known.
func (b *sending) partial(err error) error {
	if b.unknown {
		return err
	}
	out := &uplink.PartialError{Failed: []uplink.Failure{{Index: b.accepted, Err: err}}}
	for i := b.accepted + 1; i < len(b.batch.Entries); i++ {
		out.Failed = append(out.Failed, uplink.Failure{Index: i, Err: uplink.ErrNotSent})
	}
	return out
}

// chain publishes a window of messages: the first on the condition that the
// subject still ends where it is known to end, each other one on the condition
// that the one before it is the newest of the stream.
func (b *sending) chain(ctx context.Context) error {
	w := min(b.sub.window, b.max, len(b.messages)-b.accepted)
	answers, err := b.round(ctx, b.messages[b.accepted:b.accepted+w])
	if err != nil {
		b.unknown = true
		return err
	}
	k := 0
	for k < w && answers[k].stored() {
		b.accept(&answers[k])
		k++
	}
	if k == w {
		b.sub.window = min(2*b.sub.window, b.max)
		return nil
	}
	for _, later := range answers[k:] {
		if later.stored() {
			b.unknown = true
			return fmt.Errorf("the server stored a message of %s without the one before it", b.sub.name)
		}
	}
	no := &answers[k]
	switch {
	case no.missing:
		b.unknown = true // another stream, or none: look again
		return fmt.Errorf("publish to %s: %w", b.sub.name, no.refusal())
	case k > 0 && no.Error.ErrorCode == codeWrongLastID:
		b.sub.window = max(1, b.sub.window/2)
		return nil // somebody else's came between; now the end is known
	case no.Error.ErrorCode == codeWrongLast || no.Error.ErrorCode == codeLastInProcess:
		b.unknown = true
		return fmt.Errorf("publish to %s: something else was stored there: %w", b.sub.name, no.Error)
	case no.Error.ErrorCode == codeTooLarge || no.Error.ErrorCode == codeHeaderTooLarge:
		return &uplink.PermanentError{Err: fmt.Errorf("publish to %s: %w", b.sub.name, no.Error)}
	}
	return fmt.Errorf("publish to %s: %w", b.sub.name, no.Error)
}

// accept notes that the next message is stored.
func (b *sending) accept(a *ack) {
	if !a.Duplicate {
		b.sub.last = a.Seq
		b.sub.behind = max(b.sub.behind, a.Seq)
	}
	e := &b.batch.Entries[b.accepted]
	b.sub.held[e.Shard] = uplink.Last{Sequence: e.Sequence, Arrival: e.Arrival}
	b.accepted++
}

// round publishes messages and waits for the answers to all of them. An error
// means that any of them may be stored.
func (b *sending) round(ctx context.Context, messages []*nats.Msg) ([]ack, error) {
	ses := b.ses
	id, arriving := ses.begin(len(messages))
	defer ses.finish(id)
	alive, stop := ses.watch(ctx, b.bytes)
	defer stop()

	if err := b.publish(id, messages, alive); err != nil {
		ses.end(err)
		return nil, fmt.Errorf("publish to %s: %w", b.sub.name, err)
	}
	answers := make([]ack, len(messages))
	for left := len(messages); left > 0; left-- {
		select {
		case a := <-arriving:
			if a.i < 0 || a.i >= len(answers) {
				continue
			}
			alive()
			answers[a.i] = a
		case <-ses.done:
			return nil, fmt.Errorf("publish to %s: %w", b.sub.name, ses.reason())
		}
	}
	return answers, nil
}

// publish writes a round's messages together.
func (b *sending) publish(id uint64, messages []*nats.Msg, alive func()) error {
	ses := b.ses
	ses.publish.Lock()
	defer ses.publish.Unlock()
	for i, m := range messages {
		if i == 0 {
			delete(m.Header, afterID)
			m.Header[afterSequence] = []string{strconv.FormatUint(b.sub.last, 10)}
		} else {
			delete(m.Header, afterSequence)
			m.Header[afterID] = messages[i-1].Header[jetstream.MsgIDHeader]
		}
		m.Reply = ses.inbox + strconv.FormatUint(id, 10) + "." + strconv.Itoa(i)
		if err := ses.nc.PublishMsg(m); err != nil {
			return err
		}
		alive()
	}
	return nil
}

// atomic publishes what there is as one batch that is stored whole or not at
// all. It is done if it was stored, or if it cannot be known; else the chain
// has to find out which message is in the way.
func (b *sending) atomic(ctx context.Context) (done bool, err error) {
	n := len(b.messages)
	if !b.sub.stream.atomic || n < 2 || n > min(maxAtomic, b.max) {
		return false, nil
	}
	batch := rand.Text()
	for i, m := range b.messages {
		m.Header[batchHeader] = []string{batch}
		m.Header[batchSequence] = []string{strconv.Itoa(i + 1)}
	}
	b.messages[0].Header[afterSequence] = []string{strconv.FormatUint(b.sub.last, 10)}
	b.messages[n-1].Header[batchCommit] = []string{"1"}
	defer func() {
		for _, m := range b.messages {
			delete(m.Header, batchHeader)
			delete(m.Header, batchSequence)
			delete(m.Header, batchCommit)
		}
	}()
	verdict, err := b.roundAtomic(ctx)
	if err != nil {
		b.unknown = true
		return true, err
	}
	if !verdict.stored() || verdict.Seq == 0 {
		if verdict.Error != nil && verdict.Error.ErrorCode == codeWrongLast {
			b.unknown = true
			return true, fmt.Errorf("publish to %s: something else was stored there: %w", b.sub.name, verdict.Error)
		}
		return false, nil
	}
	for b.accepted < n {
		b.accept(verdict)
	}
	b.sub.window = min(2*b.sub.window, b.max)
	if b.refused != nil {
		return true, b.partial(b.refused)
	}
	return true, nil
}

// roundAtomic publishes the batch and waits for the answer to its last
// message. The ones before are answered too, by nothing: signs of life.
func (b *sending) roundAtomic(ctx context.Context) (*ack, error) {
	ses, n := b.ses, len(b.messages)
	id, arriving := ses.begin(n)
	defer ses.finish(id)
	alive, stop := ses.watch(ctx, b.bytes)
	defer stop()
	if err := b.publishAtomic(id, alive); err != nil {
		ses.end(err)
		return nil, fmt.Errorf("publish to %s: %w", b.sub.name, err)
	}
	for {
		select {
		case a := <-arriving:
			alive()
			if a.i == n-1 {
				return &a, nil
			}
		case <-ses.done:
			return nil, fmt.Errorf("publish to %s: %w", b.sub.name, ses.reason())
		}
	}
}

func (b *sending) publishAtomic(id uint64, alive func()) error {
	ses := b.ses
	ses.publish.Lock()
	defer ses.publish.Unlock()
	for i, m := range b.messages {
		m.Reply = ses.inbox + strconv.FormatUint(id, 10) + "." + strconv.Itoa(i)
		if err := ses.nc.PublishMsg(m); err != nil {
			return err
		}
		alive()
	}
	return nil
}
