package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Limits of the server. They bound what a client, also a hostile one, can
// make it hold.
const (
	maxConnections   = 256
	maxShortRequests = 64       // at once; more are answered 503
	maxLongRequests  = 16       // followers and clips at once
	maxHeaderBytes   = 16 << 10 // of a request
	maxBodyBytes     = 16 << 20 // one append
	maxBodiesBytes   = 24 << 20 // of all appends at once
	headerTimeout    = 5 * time.Second
	bodyTimeout      = 30 * time.Second
	writeTimeout     = 30 * time.Second // of each piece of a streamed answer
	idleTimeout      = 60 * time.Second
	shutdownTimeout  = 3 * time.Second
)

// Log is what the API needs of the shard log, view by view, so that a test may
// give only some of them.
type Log struct {
	buffer.Writer
	buffer.Reader
	buffer.Catalog
	Stats func() buffer.Stats
}

// LogOf returns all views of l.
func LogOf(l *buffer.Log) Log { return Log{Writer: l, Reader: l, Catalog: l, Stats: l.Stats} }

// Recordings finds and cuts what cameras recorded.
type Recordings interface {
	// List returns the recordings of camera that overlap span, oldest first, at
	// most max of them; buffer.ErrNotFound if there is no such camera.
	List(ctx context.Context, camera string, span Span, max int) ([]Recording, error)
	// Clip writes an MP4 of span to w. buffer.ErrNotFound, before the first
	// byte, if nothing is recorded there.
	Clip(ctx context.Context, w io.Writer, camera string, span Span) error
}

// Span is a stretch of wall time, To not included.
type Span struct{ From, To time.Time }

// Recording is a stretch of a camera's fragments in time.
type Recording struct {
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	Fragments int       `json:"fragments"`
	Frames    int64     `json:"frames"`
	Bytes     int64     `json:"bytes"`
	Width     int       `json:"width"`
	Height    int       `json:"height"`
	Codec     string    `json:"codec"`
	Clock     string    `json:"clock"` // where the times come from: rtcp or arrival
	// LostPackets and MissingSeconds are what of the time between Start and End
	// is not there.
	LostPackets    int64   `json:"lost_packets"`
	MissingSeconds float64 `json:"missing_seconds"`
}

// Options are what a Server is made of. All but Logger are needed.
type Options struct {
	Config     Config
	Log        Log
	Node       Node
	Recordings Recordings
	Version    string
	Logger     *slog.Logger // nil: no log
}

// Server is the HTTP API. Make it with New and let it Run; Run may be called
// again after it returned.
type Server struct {
	config     Config
	log        Log
	node       Node
	recordings Recordings
	version    string
	logger     *slog.Logger
	handler    http.Handler
	counters   *counters
	short      chan struct{} // a slot for each short request that runs
	long       chan struct{} // and for each long one
	bodies     budget        // bytes of request bodies in memory

	mu        sync.Mutex
	address   string
	listening chan struct{} // closed while address is valid
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		config: o.Config, log: o.Log, node: o.Node, recordings: o.Recordings, version: o.Version, logger: o.Logger,
		counters: newCounters(),
		short:    make(chan struct{}, maxShortRequests), long: make(chan struct{}, maxLongRequests),
		bodies:    budget{free: maxBodiesBytes},
		listening: make(chan struct{}),
	}
	s.handler = s.newHandler()
	return s
}

// Handler returns the whole API with all its checks, for a test or for a
// listener of someone else's.
func (s *Server) Handler() http.Handler { return s.handler }

// Listening is closed once Address has an answer.
func (s *Server) Listening() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listening
}

// Address returns host:port where the server listens, or "".
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Run listens and serves until ctx is done, then ends the requests that run
// within three seconds and returns nil. It returns an error if it cannot
// listen or go on listening.
func (s *Server) Run(ctx context.Context) error {
	tlsConfig, err := s.config.TLS.load()
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.config.Listen, err)
	}
	listener = limitListener(listener, maxConnections)
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	}
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	s.listens(listener.Addr().String())
	defer s.listensNot()
	s.warnExposed(tlsConfig != nil)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
		return fmt.Errorf("serve %s: %w", s.config.Listen, err)
	case <-ctx.Done():
	}
	endRequests() // followers end now, the rest has until the timeout
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err = server.Shutdown(stop); err != nil {
		err = server.Close()
	}
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.config.Listen, served)
	}
	return err
}

func (s *Server) listens(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = address
	close(s.listening)
	s.logger.Info("api listens", "address", address)
}

func (s *Server) listensNot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address, s.listening = "", make(chan struct{})
}

// warnExposed says at start what is reachable from where.
func (s *Server) warnExposed(encrypted bool) {
	if s.config.Loopback() {
		return
	}
	guard := "token"
	if s.config.Token.IsZero() {
		guard = "client certificate"
	}
	s.logger.Warn("api is reachable from other machines", "listen", s.config.Listen, "guard", guard)
	if !encrypted {
		s.logger.Warn("api is not encrypted; its token can be read on the network", "hint", "set api.tls")
	}
}

// load reads the files of c; nil if TLS is not configured.
func (c TLSConfig) load() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("load api certificate: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	if c.ClientCA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("load api client CA: %w", err)
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load api client CA %s: no certificate in it", c.ClientCA)
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}
