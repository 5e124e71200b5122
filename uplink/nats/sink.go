package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
)

// Options are what a Sink is made of.
type Options struct {
	Config Config       // valid
	Name   string       // of the uplink, shown to the server
	Logger *slog.Logger // nil: no log
}

// Sink is an uplink.Sink, uplink.Resumer and uplink.Linked for JetStream.
type Sink struct {
	config Config
	name   string
	shown  string // the URL, for people
	logger *slog.Logger

	dialing sync.Mutex // one at a time

	mu       sync.Mutex
	ses      *session // nil: none
	link     uplink.Link
	closed   bool
	subjects map[string]*subject
	heardAt  time.Time
}

// subject is what is known of the subject of one stream. It belongs to the one
// caller that sends the stream.
type subject struct {
	name   string
	ses    *session // in which it was read back; another one, or nil: not known
	stream streamFacts
	last   uint64 // stream sequence of the newest message of the subject; 0: none
	behind uint64 // everything of ours up to here was read back or acknowledged
	held   map[buffer.ShardID]uplink.Last
	window int // of a chain
}

// streamFacts are of the JetStream stream that takes a subject.
type streamFacts struct {
	name    string
	created int64 // ns since 1970: a stream of the same name made later is another one
	atomic  bool
}

// mark is a place in the stream.
func (f streamFacts) mark(seq uint64) uplink.Mark {
	return uplink.Mark(f.name + "/" + strconv.FormatInt(f.created, 10) + "/" + strconv.FormatUint(seq, 10))
}

// New makes a sink. It does not connect: the first call of Tail does.
func New(o Options) (*Sink, error) {
	servers, err := o.Config.servers()
	if err != nil {
		return nil, fmt.Errorf("uplink %s: url: %w", o.Name, err)
	}
	if _, err := o.Config.tlsConfig(); err != nil {
		return nil, fmt.Errorf("uplink %s: %w", o.Name, err)
	}
	s := &Sink{config: o.Config, name: o.Name, logger: o.Logger, subjects: make(map[string]*subject)}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	shown := make([]string, len(servers))
	for i, u := range servers {
		shown[i] = u.String()
	}
	s.shown = strings.Join(shown, ",")
	s.link.URL = s.shown
	return s, nil
}

// Link says how the connection is.
func (s *Sink) Link() uplink.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// Close ends the connection.
func (s *Sink) Close() error {
	s.mu.Lock()
	ses := s.ses
	s.closed = true
	s.mu.Unlock()
	if ses != nil {
		ses.end(errors.New("the uplink was closed"))
		s.lost(ses)
	}
	return nil
}

// session returns the connection there is, or dials.
func (s *Sink) session(ctx context.Context) (*session, error) {
	s.dialing.Lock()
	defer s.dialing.Unlock()
	s.mu.Lock()
	ses, closed := s.ses, s.closed
	s.mu.Unlock()
	if closed {
		return nil, errors.New("the uplink was closed")
	}
	if ses != nil {
		return ses, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ses, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.ses = ses
	s.link.Connected, s.link.Since = true, time.Now()
	s.link.Connects++
	s.mu.Unlock()
	select {
	case <-ses.done: // before it was ours
		s.lost(ses)
		return nil, ses.reason()
	default:
		return ses, nil
	}
}

// lost forgets a connection that is gone.
func (s *Sink) lost(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ses == ses {
		s.ses = nil
		s.link.Connected, s.link.Since = false, time.Now()
	}
}

// heard takes errors that the client library reports on the side, such as
// permissions that are missing. At most one a minute is logged.
func (s *Sink) heard(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.heardAt.IsZero() || now.Sub(s.heardAt) >= time.Minute {
		s.logger.Warn("the NATS server reports an error", "error", err)
		s.heardAt = now
	}
}

// subject returns what is known of the subject of a stream.
func (s *Sink) subject(node, stream string) (*subject, error) {
	name := strings.NewReplacer("{node}", node, "{stream}", stream).Replace(s.config.Subject)
	if err := checkPlainSubject(name); err != nil {
		return nil, fmt.Errorf("subject of stream %s: %w", stream, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subjects[name]
	if sub == nil {
		sub = &subject{name: name, window: s.config.MaxInflight}
		s.subjects[name] = sub
	}
	return sub, nil
}

// Mark is the place behind what was acknowledged or read back.
func (s *Sink) Mark(node, stream string) uplink.Mark {
	sub, err := s.subject(node, stream)
	if err != nil || sub.stream.name == "" {
		return ""
	}
	return sub.stream.mark(sub.behind)
}

// Tail reads back what the subject of the stream got behind a mark.
func (s *Sink) Tail(ctx context.Context, node, stream string, behind uplink.Mark) (uplink.Tail, error) {
	sub, err := s.subject(node, stream)
	if err != nil {
		return uplink.Tail{}, err
	}
	ses, err := s.session(ctx)
	if err != nil {
		return uplink.Tail{}, err
	}
	if sub.ses != ses {
		if err := s.readBack(ctx, ses, sub, readback{node, stream, behind}); err != nil {
			return uplink.Tail{}, err
		}
		sub.ses = ses
	}
	return uplink.Tail{Last: maps.Clone(sub.held), Mark: sub.stream.mark(sub.behind)}, nil
}

// Send publishes a batch to the subject of its stream.
func (s *Sink) Send(ctx context.Context, batch uplink.Batch) error {
	sub, err := s.subject(batch.Node, batch.Stream())
	if err != nil {
		return err
	}
	s.mu.Lock()
	ses := s.ses
	s.mu.Unlock()
	if ses == nil || sub.ses != ses {
		return errors.New("the connection is new, the tail has to be read back first")
	}
	b := &sending{ses: ses, sub: sub, batch: batch, max: s.config.MaxInflight}
	b.make()
	if err = b.send(ctx); b.unknown {
		sub.ses = nil
	}
	return err
}

// stream finds the JetStream stream that takes a subject, or makes it.
func (s *Sink) stream(ctx context.Context, ses *session, subject string) (jetstream.Stream, error) {
	name, err := ses.js.StreamNameBySubject(ctx, subject)
	if err == nil {
		stream, err := ses.js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("look at JetStream stream %s: %w", name, err)
		}
		return stream, nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("find the JetStream stream that takes %s: %w", subject, noJetStream(err))
	}
	if s.config.Create == "" {
		return nil, fmt.Errorf("no JetStream stream takes %s; make one, or set create", subject)
	}
	over := subjectPrefix(s.config.Subject) + ">"
	stream, err := ses.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: s.config.Create, Subjects: []string{over}, Storage: jetstream.FileStorage,
		Description: "records of weir", AllowAtomicPublish: true, AllowDirect: true,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil, fmt.Errorf("JetStream stream %s is there and does not take %s", s.config.Create, subject)
	}
	if err != nil {
		return nil, fmt.Errorf("make JetStream stream %s over %s: %w", s.config.Create, over, err)
	}
	s.logger.Info("made a JetStream stream", "name", s.config.Create, "subjects", over)
	return stream, nil
}

// noJetStream explains the answer of a server without JetStream.
func noJetStream(err error) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("the server has no JetStream for this account: %w", err)
	}
	return err
}
