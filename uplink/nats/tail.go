package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
)

// fetchSize is how many headers are read back at once, and fetchTimeout how
// long that may take: half a minute at 64 kbit/s.
const (
	fetchSize    = 500
	fetchTimeout = time.Minute
)

// readback is what to read back.
type readback struct {
	node, stream string
	behind       uplink.Mark
}

// lastTimeout is long, because the answer has the data of the message in it and
// the link may be slow.
const lastTimeout = 3 * time.Minute

// lastOf asks the leader of a stream for the newest sequence of a subject; 0:
// none. It does not use a direct get, which a replica may answer that is behind.
func lastOf(ctx context.Context, ses *session, stream, subject string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, lastTimeout)
	defer cancel()
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return 0, err
	}
	m, err := ses.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.MSG.GET."+stream, request)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Error   *jetstream.APIError
		Message struct{ Seq uint64 }
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return 0, fmt.Errorf("understand the server: %w", err)
	}
	if answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return 0, nil
	}
	if answer.Error != nil {
		return 0, answer.Error
	}
	return answer.Message.Seq, nil
}

// readBack finds the newest message of the subject, and the last record of
// each shard among those behind the mark.
func (s *Sink) readBack(ctx context.Context, ses *session, sub *subject, what readback) error {
	ctx, cancel := ses.within(ctx)
	defer cancel()
	stream, err := s.stream(ctx, ses, sub.name)
	if err != nil {
		return slow(ses, err)
	}
	info := stream.CachedInfo()
	sub.stream = streamFacts{
		name: info.Config.Name, created: info.Created.UnixNano(),
		atomic: info.Config.AllowAtomicPublish,
	}
	if info.Config.NoAck {
		return fmt.Errorf("JetStream stream %s does not acknowledge (no_ack); nothing can be delivered safely", sub.stream.name)
	}

	start := s.startOf(sub.stream, what.behind, info.State.LastSeq)
	sub.held = make(map[buffer.ShardID]uplink.Last)
	if sub.last, err = lastOf(ctx, ses, sub.stream.name, sub.name); err != nil {
		return slow(ses, fmt.Errorf("read the last message of %s: %w", sub.name, err))
	}
	if sub.last > start {
		if err := s.scan(ctx, stream, sub, scanning{what, start + 1}); err != nil {
			return slow(ses, fmt.Errorf("read back %s from %d on: %w", sub.name, start+1, err))
		}
	}
	// Nothing of the subject that was there when the stream was looked at is
	// behind its last sequence.
	sub.behind = max(start, sub.last, info.State.LastSeq)
	return nil
}

// slow ends a session in which an answer did not come, so that the next try is
// made on a new connection.
func slow(ses *session, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		ses.end(err)
	}
	if cause := ses.reason(); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// startOf is the sequence up to which nothing has to be read back: the mark's,
// if it is a mark of this very stream.
func (s *Sink) startOf(facts streamFacts, behind uplink.Mark, lastSeq uint64) uint64 {
	prefix := strings.TrimSuffix(string(facts.mark(0)), "0")
	text, ours := strings.CutPrefix(string(behind), prefix)
	seq, err := strconv.ParseUint(text, 10, 64)
	if !ours || err != nil {
		return 0
	}
	if seq > lastSeq {
		s.logger.Error("the centre went back: it has lost messages that it had acknowledged",
			"stream", facts.name, "acknowledged", seq, "last", lastSeq)
		return 0
	}
	return seq
}

type scanning struct {
	readback
	from uint64
}

// scan goes over the headers of a subject's messages up to sub.last.
func (s *Sink) scan(ctx context.Context, stream jetstream.Stream, sub *subject, what scanning) error {
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: sub.name, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: what.from,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: 30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	defer func() {
		// It goes by itself after 30 s; the link may be down by now.
		if err := stream.DeleteConsumer(context.WithoutCancel(ctx), consumer.CachedInfo().Name); err != nil {
			s.logger.Debug("the consumer for reading back is left to the server", "error", err)
		}
	}()
	seen := uint64(0)
	for {
		at, err := fetch(ctx, consumer, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			if seen++; meta.Sequence.Consumer != seen {
				return fmt.Errorf("header %d came as number %d", meta.Sequence.Consumer, seen)
			}
			note(sub, what.readback, m)
			return nil
		}, sub.last)
		if err != nil {
			return err
		}
		if at >= sub.last {
			sub.last = at
			return nil
		}
		if at == 0 {
			// Removed since it was looked up, or on a replica that is behind.
			return fmt.Errorf("the message %d did not come", sub.last)
		}
	}
}

// fetch visits the next messages of a consumer, until one is at last or
// behind, and returns the sequence of the one visited last.
func fetch(ctx context.Context, consumer jetstream.Consumer, visit func(jetstream.Msg, *jetstream.MsgMetadata) error, last uint64) (at uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	batch, err := consumer.Fetch(fetchSize, jetstream.FetchContext(ctx))
	if err != nil {
		cancel()
		return 0, err
	}
	defer func() {
		// The client's goroutine ends, and is waited for.
		cancel()
		for range batch.Messages() {
			continue
		}
	}()
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return at, err
		}
		if err := visit(m, meta); err != nil {
			return at, err
		}
		if at = meta.Sequence.Stream; at >= last {
			return at, nil
		}
	}
	return at, batch.Error()
}

// note keeps the place of a record of ours.
func note(sub *subject, what readback, m jetstream.Msg) {
	header := m.Headers()
	node, stream, at, err := uplink.ParseRecordID(header.Get(jetstream.MsgIDHeader))
	if err != nil || node != what.node || stream != what.stream {
		return
	}
	last := uplink.Last{Sequence: at.Sequence}
	if arrival, err := time.Parse(uplink.TimeFormat, header.Get("ce-time")); err == nil {
		last.Arrival = arrival
	}
	sub.held[at.Shard] = last
}
