// Package broker is an MQTT broker for devices, of MQTT 3.1.1 and 5.0, whose
// acknowledgement means that the message is on the disk. The main type is Broker.
//
// A message that a configured topic matches becomes a record of the shard log. It
// is acknowledged after the log made it durable, and passed on to subscribers
// then, both in the order of arrival. The connection is read on meanwhile, up to
// a number of messages, so that one commit serves many. When the log is full
// nothing is acknowledged and nothing more is read, which is MQTT's
// backpressure. A message that no topic matches goes to subscribers only. What can
// never be appended goes to the stream ingest.Aside.
//
// Sessions, retained messages and what waits for subscribers that are away are
// records of the stream StateStream; there is no other store. BROKER.md beside
// this file says what an acknowledgement means in each case, what a crash leaves,
// and what is bounded by what.
//
// The wire format is in the package packet below, the users in the package users.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/broker/users"
	"github.com/weir-edge/weir/ingest/message"
)

// Log is what a broker needs of the shard log.
type Log interface {
	ingest.Appender
	message.Log
}

// User is who a client is: what it may do. *users.User is one.
type User interface {
	// MayPublish and MaySubscribe are asked at every message and subscription;
	// they are safe for concurrent use and quick.
	MayPublish(clientID, topic string) bool
	MaySubscribe(clientID, filter string) bool
	// Revoked says that the user is no longer known and may do nothing; the
	// client has to go.
	Revoked() bool
}

// Options are what a Broker is made of.
type Options struct {
	Config Config
	Log    Log
	// Places remembers where in StateStream to begin; nil: at its beginning.
	Places buffer.Committer
	// MaxRecordBytes is the largest record the log takes. 0: its default.
	MaxRecordBytes int
	// Window is how often the log commits at most (buffer.commit.max_delay). 0:
	// batches are appended at once.
	Window time.Duration
	Logger *slog.Logger // nil: no log
}

// Broker is one broker. Make it with New, let it Run once.
type Broker struct {
	config Config
	log    Log
	users  *users.File // nil: everybody may do everything
	logger *slog.Logger
	router *message.Router
	window time.Duration
	// maxRecord is the largest record of the log.
	maxRecord int

	queue   chan *inbound
	waiting *ingest.Room // bytes that may wait in queue
	bodies  *ingest.Room // bytes of large packets that are being read
	keeper  keeper
	doors   *doors
	state   state

	mu            sync.Mutex
	sessions      map[string]*session
	tree          tree
	retained      map[string]*publication
	retainedBytes int64
	queuedBytes   int64
	freshBytes    int64      // of session.fresh
	retentions    uint64     // messages retained so far
	wills         []*inbound // to be published
	willDue       chan struct{}
	generation    uint64 // of the newest session
	epochs        uint64 // connections so far
}

// recordReserve of the largest record is for the partition key and the
// attributes; a larger payload is set aside.
const recordReserve = 8 << 10

// New returns a broker for a valid configuration. It listens to nothing yet.
func New(o Options) (*Broker, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("broker %s: %w", o.Config.Name, err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		config: o.Config, log: o.Log, logger: o.Logger, window: o.Window, maxRecord: o.MaxRecordBytes,
		queue: make(chan *inbound, queueMessages), waiting: ingest.NewRoom(queueBytes), bodies: ingest.NewRoom(bodyBytes),
		sessions: map[string]*session{}, retained: map[string]*publication{},
		doors: newDoors(o.Config), willDue: make(chan struct{}, 1),
	}
	b.keeper = keeper{broker: b, places: o.Places, due: make(chan struct{}, 1)}
	if b.maxRecord == 0 {
		b.maxRecord = buffer.DefaultRecordBytes
	}
	if err := b.loadUsers(); err != nil {
		return nil, fmt.Errorf("broker %s: users_file: %w", o.Config.Name, err)
	}
	var routes []message.Route
	for _, t := range o.Config.Topics {
		routes = append(routes, t.route())
	}
	var err error
	b.router, err = message.NewRouter(message.RouterConfig{Source: o.Config.Name, Routes: routes, MaxBytes: min(o.Config.MaxPacketBytes, value.Bytes(b.maxRecord-recordReserve))})
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", o.Config.Name, err)
	}
	b.state.status = Status{Name: o.Config.Name, State: Starting, Since: time.Now(), Refused: map[string]int64{}}
	return b, nil
}

// loadUsers reads the users file, if there is one.
func (b *Broker) loadUsers() (err error) {
	if b.config.UsersFile == "" {
		return nil
	}
	if b.users, err = users.Load(b.config.UsersFile); err != nil {
		return err
	}
	for _, warning := range b.users.Warnings() {
		b.logger.Warn("the users file", "warning", warning)
	}
	return nil
}

// Reload reads the users file anew. With a fault in it the old users stay;
// clients whose user is gone are thrown out within a second or two.
func (b *Broker) Reload() error {
	if b.users == nil {
		return nil
	}
	if err := b.users.Reload(); err != nil {
		return err
	}
	var changes []change
	b.mu.Lock()
	for _, s := range b.sessions {
		if s.client != nil && b.prune(s, s.client.who) {
			changes = append(changes, s.describe())
		}
	}
	b.mu.Unlock()
	b.keeper.later(changes...)
	return nil
}

// prune takes away the subscriptions that a user may not have any more, and says
// whether there were any. Broker.mu is held.
func (b *Broker) prune(s *session, who User) (changed bool) {
	for filter := range s.subs {
		if !who.MaySubscribe(s.id, filter) {
			delete(s.subs, filter)
			b.tree.remove(s, filter)
			changed = true
		}
	}
	return changed
}

// Address is host:port where the broker listens; "" while it does not.
func (b *Broker) Address() string { return b.Status().Address }

// Ready says that the broker takes clients.
func (b *Broker) Ready() bool { return b.Address() != "" }

// Run listens and serves until ctx is done, and returns at most three seconds
// later. It returns an error if it cannot listen, or the log or its own files
// cannot be read.
func (b *Broker) Run(ctx context.Context) error {
	w := &worker{broker: b, seen: map[string]*seen{}}
	if err := b.load(ctx, w); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("broker %s: read back what it had: %w", b.config.Name, err)
	}
	address, secure, err := b.config.Address()
	if err != nil {
		return err
	}
	var security *tls.Config
	if secure {
		if security, err = b.tlsConfig(); err != nil {
			return fmt.Errorf("broker %s: %w", b.config.Name, err)
		}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("broker %s: listen: %w", b.config.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.keeper.begin(ctx)
	var group, last sync.WaitGroup
	group.Go(func() { w.run(ctx) })
	group.Go(func() { b.janitor(ctx) })
	// The keeper ends after the connections, to write how they left.
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeping()
	// It may hold keeper.mu while the log takes nothing, and the worker waits for that.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopAppend/2, stopKeeping) })()
	last.Go(func() { b.keeper.run(keeping) })
	stop := context.AfterFunc(ctx, func() {
		if err := listener.Close(); err != nil {
			b.logger.Warn("closing the listener", "error", err)
		}
	})
	defer stop()
	b.state.listening(listener.Addr().String())
	b.logger.Info("the broker listens", "address", listener.Addr().String(), "tls", secure)
	err = b.accept(ctx, cancel, listener, security)
	cancel()
	b.endAll()
	group.Wait()
	stopKeeping()
	last.Wait()
	b.state.stopped()
	return err
}

func (b *Broker) load(ctx context.Context, w *worker) error {
	if err := b.keeper.load(ctx); err != nil {
		return err
	}
	return w.rebuild(ctx)
}

// accept takes connections until ctx is done, and waits for those it took.
func (b *Broker) accept(ctx context.Context, cancel func(), listener net.Listener, security *tls.Config) error {
	var group sync.WaitGroup
	defer group.Wait()
	defer b.endAll()
	defer cancel() // so that nobody comes in behind endAll
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close() // it came too late
			}
			return nil
		}
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() || isTooManyFiles(err) {
				b.state.failedAccept(err, b.logger)
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond): // until a connection ends
				}
				continue
			}
			return fmt.Errorf("broker %s: accept: %w", b.config.Name, err)
		}
		leave, reason := b.doors.enter(conn.RemoteAddr())
		if reason != "" {
			b.state.turnedAway(reason)
			if err := conn.Close(); err != nil {
				b.logger.Debug("closing a connection that was turned away", "error", err)
			}
			continue
		}
		group.Go(func() {
			defer leave()
			b.serve(ctx, conn, security)
		})
	}
}

// endAll ends every connection, for the broker stops.
func (b *Broker) endAll() {
	b.mu.Lock()
	var list []*client
	for _, s := range b.sessions {
		if s.client != nil {
			list = append(list, s.client)
		}
	}
	b.mu.Unlock()
	for _, c := range list {
		c.refuse(packet.ServerShuttingDown, "")
	}
}

// everybody is a user who may do everything.
type everybody struct{}

func (everybody) MayPublish(string, string) bool   { return true }
func (everybody) MaySubscribe(string, string) bool { return true }
func (everybody) Revoked() bool                    { return false }
