// Package http takes records in by HTTP POST, for devices that speak nothing
// else: one record, lines or an array of JSON, CloudEvents. The main type is
// Source.
//
//	POST /v1/streams/STREAM/records
//
// A request is all or nothing: its records are one append, and the answer 200
// comes after that append is durable. A full log is 429 with Retry-After, and
// whatever else is wrong is told in the answer (RFC 9457), with the line or the
// index, so nothing is set aside: HTTP has an answer for the device. A request
// whose answer got lost may be sent again and is then in the log twice; an id
// in the record or the event tells the two apart.
//
// The partition key is the request's (header Weir-Partition-Key or query
// partition_key), else the event's (extension partitionkey), else what the
// stream's template makes.
//
// An event's attributes become those of the record, as ce-NAME. The uplink adds
// events of its own around records, whose ce-id, ce-source, … are weir's; what
// came with the record travels beside them as ce-ceid, ce-cesource, ….
//
// Everything is bounded before it is read: connections, headers, bodies, what
// they unpack to, and the memory of all requests together.
package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"
	"os"
	"sync"
	"time"

	"github.com/weir-edge/weir/ingest"
)

// Limits that no key of the configuration moves.
const (
	maxHeaderBytes  = 16 << 10 // of a request; net/http reads up to 4 KiB more
	firstBytes      = 28 << 10 // of a connection before its first request is complete, TLS included
	headerTimeout   = 5 * time.Second
	idleTimeout     = 60 * time.Second
	writeTimeout    = 10 * time.Second
	drainTimeout    = time.Second            // of a body that is not wanted
	roomTimeout     = 2 * time.Second        // a request waits for memory of others
	graceTimeout    = time.Second            // requests that run when the source stops
	shutdownTimeout = 400 * time.Millisecond // and then to say that they were broken off
	maxGunzipRatio  = 100                    // what a body may grow by, beyond the first MiB
	recordOverhead  = 512                    // bytes of memory a record needs beside its data: itself, its key, its answer
	eventOverhead   = 512                    // and for the attributes of an event, beside their text
	gzipOverhead    = 64 << 10
	requestOverhead = 16 << 10
	minTokenBytes   = 16
)

// Source is one listener. Make it with New and let it Run; Run may be called
// again after it returned.
type Source struct {
	config  Config
	log     ingest.Appender
	logger  *slog.Logger
	streams map[string]template // what may be written, and the key's template
	clients []client
	guesses guesses
	room    *room
	flights flights
	state   state

	mu      sync.Mutex
	address string
	doors   *doors // of the last Run; nil before it
}

// New returns a source for a valid configuration. It does not listen yet.
func New(config Config, log ingest.Appender, logger *slog.Logger) (*Source, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("http source %s: %w", config.Name, err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		config: config, log: log, logger: logger.With("source", config.Name),
		streams: make(map[string]template), room: newRoom(int(config.MaxInflightBytes)),
	}
	s.state.status = Status{Name: config.Name, State: Starting, Since: time.Now(), Refused: make(map[Reason]int64)}
	for _, st := range config.Streams {
		key, err := parseTemplate(st.PartitionKey)
		if err != nil {
			return nil, err
		}
		s.streams[st.Stream] = key
	}
	for _, c := range config.Clients {
		s.clients = append(s.clients, newClient(c))
	}
	return s, nil
}

// Address returns host:port where the source listens, or "".
func (s *Source) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Ready says that the source listens.
func (s *Source) Ready() bool { return s.Address() != "" }

// Run listens and serves until ctx is done, then gives the requests that run
// one second and returns nil within two. It returns an error if it cannot
// listen, cannot go on listening, or cannot read its certificates.
func (s *Source) Run(ctx context.Context) error {
	security, err := s.config.TLS.load()
	if err != nil {
		return fmt.Errorf("http source %s: %w", s.config.Name, err)
	}
	plain, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("http source %s: listen on %s: %w", s.config.Name, s.config.Listen, err)
	}
	doors := newDoors(plain, s.config.MaxConnections, s.config.MaxConnectionsPerAddress, s.state.turnedAway)
	listener := net.Listener(doors)
	if security != nil {
		listener = tls.NewListener(doors, security)
	}
	requests, endRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endRequests(nil)
	server := s.server(requests)
	s.flights.open()
	s.listens(doors, security != nil)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	s.listensNot()
	closed := s.stop(ctx, server, func() { endRequests(errStopping) })
	if err != nil {
		return fmt.Errorf("http source %s: serve %s: %w", s.config.Name, s.config.Listen, err)
	}
	if err := <-served; !errors.Is(err, nethttp.ErrServerClosed) {
		return fmt.Errorf("http source %s: serve %s: %w", s.config.Name, s.config.Listen, err)
	}
	return closed
}

func (s *Source) server(requests context.Context) *nethttp.Server {
	protocols := new(nethttp.Protocols)
	protocols.SetHTTP1(true) // one request a connection at a time: connections bound requests
	return &nethttp.Server{
		Handler: nethttp.HandlerFunc(s.serve), Protocols: protocols,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return requests },
		ConnState: func(c net.Conn, to nethttp.ConnState) {
			if to == nethttp.StateActive {
				lift(c)
			}
		},
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// stop ends the server: no new requests, those that run have graceTimeout,
// then their appends are given up and they say so.
func (s *Source) stop(ctx context.Context, server *nethttp.Server, endRequests func()) error {
	ctx = context.WithoutCancel(ctx)
	grace, cancel := context.WithTimeout(ctx, graceTimeout)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		endRequests()
		last, cancel := context.WithTimeout(ctx, shutdownTimeout)
		defer cancel()
		err = server.Shutdown(last)
	}
	if err != nil {
		err = server.Close()
	}
	s.flights.close()
	return err
}

func (s *Source) listens(doors *doors, encrypted bool) {
	address := doors.Addr().String()
	s.mu.Lock()
	s.address, s.doors = address, doors
	s.mu.Unlock()
	s.state.listening(address)
	s.logger.Info("http source listens", "address", address)
	if s.config.Loopback() {
		return
	}
	s.logger.Warn("http source is reachable from other machines", "listen", s.config.Listen, "guard", s.config.guard())
	if !encrypted {
		s.logger.Warn("http source is not encrypted; its tokens can be read on the network", "hint", "set tls of this source")
	}
}

func (s *Source) listensNot() {
	s.mu.Lock()
	s.address = ""
	s.mu.Unlock()
	s.state.stopped()
}

// load reads the files of c; nil if TLS is not configured.
func (c TLSConfig) load() (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	if c.ClientCAFile == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca_file: %w", err)
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.client_ca_file: %s holds no certificate", c.ClientCAFile)
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}

// flights are the requests that run. Run waits for them: net/http's Close does
// not.
type flights struct {
	mu     sync.Mutex
	n      int
	landed *sync.Cond
	shut   bool
}

func (f *flights) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut = false
	if f.landed == nil {
		f.landed = sync.NewCond(&f.mu)
	}
}

// begin says whether a request may still run; then end follows.
func (f *flights) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return false
	}
	f.n++
	return true
}

func (f *flights) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	f.landed.Broadcast()
}

// close lets no more in and waits for those that run.
func (f *flights) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut = true
	for f.n > 0 {
		f.landed.Wait()
	}
}
