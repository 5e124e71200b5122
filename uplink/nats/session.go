package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	dialTimeout = 10 * time.Second
	// silence is how long a peer may be silent while an answer is due, besides
	// the time that what is on its way needs at slowest bytes a second.
	silence = 15 * time.Second
	slowest = 4 << 10
	// sendBuffer bounds what the kernel takes ahead of a slow link, so that
	// pings are answered while a batch goes out at 64 kbit/s.
	sendBuffer = 64 << 10
	apiTimeout = 10 * time.Second
)

// session is one connection, from dial to break. It is never resumed.
type session struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	inbox string
	done  <-chan struct{} // closed when the connection is gone
	life  context.Context // done with it
	kill  context.CancelFunc

	close func()

	publish sync.Mutex // held while the messages of a round are written, so that they stay together
	mu      sync.Mutex
	err     error // why it is gone
	rounds  map[uint64]chan ack
	last    uint64 // round
}

// ack is the server's answer to message i of a round.
type ack struct {
	i         int
	missing   bool // nobody took the message
	Seq       uint64
	Duplicate bool
	Error     *jetstream.APIError
}

func (a *ack) stored() bool { return !a.missing && a.Error == nil }

// refusal is why the message was not stored.
func (a *ack) refusal() error {
	if a.missing {
		return errors.New("no JetStream stream takes the subject")
	}
	return a.Error
}

// dialer makes connections that end with their context.
type dialer struct {
	ctx context.Context
	mu  sync.Mutex
	raw net.Conn
}

// Dial is called by nats.go, once for each server that it tries.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetWriteBuffer(sendBuffer); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raw = conn
	return conn, nil
}

// cut closes the connection under the client, which may be blocked in it.
func (d *dialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raw != nil {
		// The peer may be gone: there is nobody to tell an error of it.
		_ = d.raw.Close()
	}
}

// dial connects. When it returns an error, nothing is left open.
func (s *Sink) dial(ctx context.Context) (*session, error) {
	servers, err := s.config.servers()
	if err != nil {
		return nil, err
	}
	d := &dialer{ctx: ctx}
	ses := &session{rounds: make(map[uint64]chan ack)}
	ses.life, ses.kill = context.WithCancel(context.WithoutCancel(ctx))
	ses.done = ses.life.Done()
	options := []nats.Option{
		nats.Name("weir " + s.name), nats.NoReconnect(), nats.Timeout(dialTimeout), nats.SetCustomDialer(d),
		nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(3), nats.FlusherTimeout(5 * time.Minute),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { s.heard(err) }),
		nats.ClosedHandler(func(nc *nats.Conn) { ses.gone(nc.LastError()); s.lost(ses) }),
	}
	tlsConfig, err := s.config.tlsConfig()
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil {
		options = append(options, nats.Secure(tlsConfig))
	}
	switch {
	case s.config.User != "":
		options = append(options, nats.UserInfo(s.config.User, s.config.Password.Reveal()))
	case !s.config.Token.IsZero():
		options = append(options, nats.Token(s.config.Token.Reveal()))
	case s.config.Credentials != "":
		options = append(options, nats.UserCredentials(s.config.Credentials))
	}
	texts := make([]string, len(servers))
	for i, u := range servers {
		texts[i] = u.String()
	}
	stop := context.AfterFunc(ctx, d.cut)
	nc, err := nats.Connect(strings.Join(texts, ","), options...)
	stop()
	if err != nil {
		d.cut()
		ses.kill()
		return nil, fmt.Errorf("connect to %s: %w", s.shown, err)
	}
	// From here on cuts end the connection: the client would try to flush it.
	ses.nc, ses.close = nc, func() { d.cut(); nc.Close() }
	ses.inbox = nc.NewInbox() + "."
	if _, err = nc.Subscribe(ses.inbox+"*.*", ses.answer); err == nil {
		ses.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout))
	}
	if err != nil {
		ses.end(err)
		return nil, fmt.Errorf("connect to %s: %w", s.shown, err)
	}
	return ses, nil
}

// gone notes the end of the connection.
func (ses *session) gone(err error) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.err != nil {
		return
	}
	if ses.err = err; err == nil {
		ses.err = errors.New("the connection broke")
	}
	ses.kill()
}

// end gives the connection up because of err.
func (ses *session) end(err error) {
	ses.gone(err)
	ses.close()
}

func (ses *session) reason() error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.err
}

// answer takes the server's answers to what was published.
func (ses *session) answer(m *nats.Msg) {
	round, i, ok := strings.Cut(strings.TrimPrefix(m.Subject, ses.inbox), ".")
	number, err1 := strconv.ParseUint(round, 10, 64)
	index, err2 := strconv.Atoi(i)
	if !ok || err1 != nil || err2 != nil {
		return
	}
	out := ack{i: index, missing: m.Header.Get("Status") == "503"}
	if len(m.Data) > 0 {
		if err := json.Unmarshal(m.Data, &out); err != nil {
			out.Error = &jetstream.APIError{Description: "an answer that is no JSON"}
		}
	}
	ses.mu.Lock()
	answers := ses.rounds[number]
	ses.mu.Unlock()
	select {
	case answers <- out:
	default: // not waited for any more (nil), or answered twice
	}
}

// within is ctx, done as well when the session is.
func (ses *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ses.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// begin opens a round of n answers.
func (ses *session) begin(n int) (id uint64, answers chan ack) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.last++
	answers = make(chan ack, n)
	ses.rounds[ses.last] = answers
	return ses.last, answers
}

func (ses *session) finish(id uint64) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	delete(ses.rounds, id)
}

// watch ends the session if nothing is heard for long enough to send size
// bytes over the slowest link. The returned function is called with each sign
// of life; stop ends the watch.
func (ses *session) watch(ctx context.Context, size int) (alive, stop func()) {
	patience := silence + time.Duration(size)*time.Second/slowest
	timer := time.AfterFunc(patience, func() { ses.end(fmt.Errorf("the server was silent for %v", patience)) })
	unhook := context.AfterFunc(ctx, func() { ses.end(ctx.Err()) })
	return func() { timer.Reset(patience) }, func() { timer.Stop(); unhook() }
}
