// Package mqtt reads an existing MQTT broker into the shard log: wildcard
// filters, QoS 0 to 2, a persistent session, TLS. The main type is Source.
//
// A message is acknowledged after the log made it durable, in the order of
// arrival (MQTT 3.1.1, section 4.6). Meanwhile the following ones collect, so
// that one commit serves many; their number is bounded, and beyond it nothing
// is read from the connection. When the log is full no acknowledgement goes
// out and the broker keeps what it has. A message that the broker delivers again
// after a break, because its acknowledgement was lost, is recognised and not
// appended twice: REDELIVERY.md says how and where that ends.
//
// What can never be appended goes to the stream ingest.Aside with its reason.
//
// The package is the only one that knows the client library
// (eclipse/paho.mqtt.golang, MQTT 3.1.1), and uses nothing of its reconnecting:
// each connection is a client of its own.
package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/message"
)

// Log is what a source needs of the shard log: to append, and to read what it
// appended last before it was killed.
type Log interface {
	ingest.Appender
	Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error)
	Find(stream string, shard buffer.ShardID, start buffer.Start) (buffer.Sequence, error)
	Stream(name string) (buffer.StreamInfo, error)
}

// shortSession: a connection that ends sooner than this counts as a failed
// try, or a broker that throws us out at once would be asked without a pause.
const shortSession = 30 * time.Second

// Source is one broker. Make it with New, let it Run once.
type Source struct {
	config Config
	log    Log
	logger *slog.Logger
	url    *url.URL
	router *message.Router

	filters map[string]byte // to subscribe to, with their QoS
	queue   chan item
	room    *ingest.Room // bytes that may wait in the queue
	state   state
}

// New returns a source for a valid configuration. It connects to nothing yet.
func New(config Config, log Log, logger *slog.Logger) (*Source, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("mqtt source %s: %w", config.Name, err)
	}
	u, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if config.ClientID == "" {
		config.ClientID = "weir-" + config.Name
	}
	s := &Source{
		config: config, log: log, logger: logger.With("source", config.Name), url: u,
		queue: make(chan item, config.MaxInflight), room: ingest.NewRoom(queueBytes), filters: make(map[string]byte),
	}
	s.state.status = Status{Name: config.Name, URL: u.Redacted(), State: Connecting, Since: time.Now()}
	var routes []message.Route
	for _, t := range config.Topics {
		routes = append(routes, t.route())
		s.filters[t.Filter] = max(s.filters[t.Filter], byte(t.QoS))
	}
	s.router, err = message.NewRouter(message.RouterConfig{
		Source: config.Name, Routes: routes, MaxBytes: config.MaxMessageBytes, ClientID: config.ClientID,
	})
	if err != nil {
		return nil, fmt.Errorf("mqtt source %s: %w", config.Name, err)
	}
	return s, nil
}

// Run connects, and connects again, until ctx is done. It returns an error
// only if its own files (certificates) cannot be read or the log cannot.
func (s *Source) Run(ctx context.Context) error {
	security, err := s.tlsConfig()
	if err != nil {
		return fmt.Errorf("mqtt source %s: %w", s.config.Name, err)
	}
	w := &worker{source: s, window: message.NewWindow(message.WindowSize)}
	if err := w.rebuild(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("mqtt source %s: read back what was appended last: %w", s.config.Name, err)
	}
	var group sync.WaitGroup
	group.Go(func() { w.run(ctx) })
	s.connections(ctx, security)
	group.Wait()
	return nil
}

// connections keeps one connection after the other until ctx is done.
func (s *Source) connections(ctx context.Context, security *tls.Config) {
	var pause time.Duration
	for epoch := uint64(1); ctx.Err() == nil; epoch++ {
		c := &connection{source: s, epoch: epoch, security: security, lost: make(chan error, 1)}
		began := time.Now()
		err := c.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) >= shortSession {
			pause = 0
		}
		pause = s.config.Retry.Next(pause, rand.Float64())
		s.state.away(err, pause, s.logger)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	s.state.set(Stopped, nil)
}

func (s *Source) tlsConfig() (*tls.Config, error) {
	if s.url.Scheme != "mqtts" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.config.TLS.ServerName}
	if c.ServerName == "" {
		c.ServerName = s.url.Hostname()
	}
	if name := s.config.TLS.CAFile; name != "" {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no certificate", name)
		}
	}
	if s.config.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.config.TLS.CertFile, s.config.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// connection is one client of the library, from CONNECT to the end.
type connection struct {
	source   *Source
	epoch    uint64
	security *tls.Config
	lost     chan error // gets the reason of the end
	done     <-chan struct{}
	conn     net.Conn
	arrivals uint64 // messages the library handed over; it does so one by one

	blocked atomic.Bool // a message waits for room, so nothing is read

	mu   sync.Mutex
	over bool // nothing more of this connection reaches the worker

	cutMu sync.Mutex
	cut   []oversized // of messages that the library is about to hand over
}

// run holds the connection until it is lost (an error) or ctx is done.
func (c *connection) run(ctx context.Context) error {
	s := c.source
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.done = ctx.Done()
	s.state.set(Connecting, nil)
	var group sync.WaitGroup
	defer group.Wait()
	client := paho.NewClient(c.options(ctx))
	// The session may deliver before CONNACK is processed and long before
	// SUBSCRIBE: the handler is in the options.
	defer client.Disconnect(250)
	defer c.close(cancel) // before Disconnect, so that a handler that waits lets go
	connect := client.Connect()
	if err := c.wait(ctx, connect, s.config.ConnectTimeout.Std()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	present := false
	if t, ok := connect.(*paho.ConnectToken); ok {
		present = t.SessionPresent()
	}
	s.state.session(present)
	group.Go(func() { c.ping(ctx) })
	if !present {
		if !c.put(item{epoch: c.epoch, newSession: true}) {
			return nil
		}
	}
	if err := c.subscribe(ctx, client); err != nil {
		return err
	}
	s.state.connected(s.logger)
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.lost:
		return err
	}
}

// wait is for a token, the end of the connection or ctx.
func (c *connection) wait(ctx context.Context, token paho.Token, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-token.Done():
			return token.Error()
		case err := <-c.lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if !c.blocked.Load() {
			return fmt.Errorf("no answer within %s", limit)
		}
		timer.Reset(limit) // the answer is behind messages that wait for room
	}
}

// ping keeps the connection while a message waits for room, perhaps for hours
// because the log is full: the library asks once and would wait for an answer
// that nobody reads. Otherwise the library's own questions do.
func (c *connection) ping(ctx context.Context) {
	ticker := time.NewTicker(c.source.config.KeepAlive.Std() / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !c.blocked.Load() {
			continue
		}
		if _, err := c.conn.Write([]byte{0xc0, 0}); err != nil { // PINGREQ
			c.end(err)
			return
		}
	}
}

func (c *connection) subscribe(ctx context.Context, client paho.Client) error {
	token := client.SubscribeMultiple(c.source.filters, nil)
	if err := c.wait(ctx, token, c.source.config.ConnectTimeout.Std()); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	t, ok := token.(*paho.SubscribeToken)
	if !ok {
		return nil
	}
	var refused []error
	for filter, code := range t.Result() {
		if code > 2 {
			refused = append(refused, fmt.Errorf("the broker refuses the subscription to %s", filter))
		}
	}
	return errors.Join(refused...)
}

func (c *connection) options(ctx context.Context) *paho.ClientOptions {
	s := c.source
	o := paho.NewClientOptions().
		AddBroker(s.url.String()).
		SetClientID(s.config.ClientID).
		SetProtocolVersion(4).
		SetCleanSession(s.config.CleanSession).
		SetOrderMatters(true).
		SetAutoAckDisabled(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetResumeSubs(false).
		SetStore(noStore{}).
		SetKeepAlive(s.config.KeepAlive.Std()).
		SetPingTimeout(24 * time.Hour). // the guard sees a dead connection, and knows when nobody reads
		SetConnectTimeout(s.config.ConnectTimeout.Std()).
		SetWriteTimeout(s.config.ConnectTimeout.Std()).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { c.arrived(m) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { c.end(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return c.dial(ctx) })
	if s.config.Username != "" {
		o.SetUsername(s.config.Username)
		o.SetPassword(s.config.Password.Reveal())
	}
	return o
}

func (c *connection) end(err error) {
	if err == nil {
		err = errors.New("the connection ended")
	}
	select {
	case c.lost <- err:
	default: // the first reason counts
	}
}

func (c *connection) dial(ctx context.Context) (net.Conn, error) {
	s := c.source
	ctx, cancel := context.WithTimeout(ctx, s.config.ConnectTimeout.Std())
	defer cancel()
	d := &net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", s.url.Host)
	if err != nil {
		return nil, err
	}
	if c.security != nil {
		secure := tls.Client(conn, c.security)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = secure
	}
	c.conn = conn
	// The limit is of the payload; topic and identifier come on top.
	limit := int(s.config.MaxMessageBytes) + 70_000
	idle := s.config.KeepAlive.Std()*3/2 + 5*time.Second // the library asks up to 5 s late
	return newGuard(conn, guardRules{limit: limit, filters: len(s.filters), idle: idle, oversized: c.tooLarge}), nil
}

// arrived is the library's handler. It blocks while the window is full, and
// with it everything that reads this connection.
func (c *connection) arrived(m paho.Message) {
	it := item{
		epoch: c.epoch, topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), id: m.MessageID(),
		dup: m.Duplicate(), retained: m.Retained(), arrival: time.Now(), from: c,
	}
	if it.qos == 2 {
		it.received = m.Ack // PUBREC; the library answers PUBREL by itself
	}
	c.arrivals++
	if o, ok := c.wasCut(c.arrivals); ok {
		it.tooLarge, it.size, it.hash = true, o.size, o.hash
	} else if len(it.payload) > int(c.source.config.MaxMessageBytes) {
		it.tooLarge, it.size = true, len(it.payload)
		it.hash = message.Fingerprint(it.topic, it.payload)
		it.payload = append([]byte(nil), it.payload[:min(len(it.payload), ingest.MaxAsideBytes)]...)
	}
	c.put(it)
}

// tooLarge notes a message that the guard passes on cut short. There are only
// as many of them as the library reads ahead, which is two or three packets.
func (c *connection) tooLarge(o oversized) {
	c.cutMu.Lock()
	defer c.cutMu.Unlock()
	c.cut = append(c.cut, o)
}

func (c *connection) wasCut(ordinal uint64) (oversized, bool) {
	c.cutMu.Lock()
	defer c.cutMu.Unlock()
	if len(c.cut) == 0 || c.cut[0].ordinal != ordinal {
		return oversized{}, false
	}
	o := c.cut[0]
	c.cut = c.cut[1:]
	return o, true
}

// puback is the first byte of a PUBACK (MQTT 3.1.1, section 3.4).
const puback = 0x40

// acknowledge writes acknowledgements, all of them in one write: a thousand
// system calls a second are more than the rest of the work. The library writes
// its own packets whole, so that theirs and ours do not mix.
func (c *connection) acknowledge(kind byte, ids ...uint16) {
	out := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		out = append(out, kind, 2, byte(id>>8), byte(id))
	}
	if _, err := c.conn.Write(out); err != nil {
		c.end(err) // the broker delivers them again, and they are recognised
	}
}

// close sees to it that what this connection brought so far is all it will
// have brought: the library may still call the handler for what it has read.
func (c *connection) close(cancel context.CancelFunc) {
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// put hands an item to the worker; false when the connection is over, and
// then the broker will deliver it again. After one false there are only more
// of them: a later message must not get in before an earlier one.
func (c *connection) put(it item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		c.over = true
	default:
	}
	if c.over {
		return false
	}
	c.blocked.Store(true)
	defer c.blocked.Store(false)
	if !c.source.room.Take(it.weight(), c.done, nil) {
		c.over = true
		return false
	}
	select {
	case c.source.queue <- it:
		c.source.state.received(it)
		return true
	case <-c.done:
		c.source.room.Give(it.weight())
		c.over = true
		return false
	}
}
