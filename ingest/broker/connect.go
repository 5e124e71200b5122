package broker

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/broker/users"
)

const (
	maxConnectBytes = 16 << 10 // of CONNECT, before anybody knows who it is
	maxClientID     = 256      // bytes; brokers differ, 3.1.3.1 asks for 23 at least
	authTime        = 30 * time.Second

	maxWillProperties = 100
)

func (b *Broker) tlsConfig() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(b.config.TLS.CertFile, b.config.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if name := b.config.TLS.ClientCAFile; name != "" {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("tls.client_ca_file: %w", err)
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.client_ca_file: %s holds no certificate", name)
		}
	}
	return c, nil
}

func isTooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

// serve is one connection, from TLS to the end. A panic ends this one alone.
func (b *Broker) serve(ctx context.Context, conn net.Conn, security *tls.Config) {
	defer func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			b.logger.Debug("closing a connection", "error", err)
		}
		if fault := recover(); fault != nil {
			b.state.panicked()
			b.logger.Error("a connection panicked", "fault", fault, "stack", string(debug.Stack()))
		}
	}()
	// While nobody knows who it is, the end of the broker ends it hard.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it is closed then
	c, code, err := b.letIn(ctx, conn, security)
	stop()
	if err != nil {
		b.state.turnedAwayClient(err, b.logger)
		if code != packet.Success {
			b.answerRefusal(conn, c, code)
		}
		return
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := c.write(); err != nil {
			b.logger.Debug("writing to a client", "client", c.id, "error", err)
		}
		c.end(nil)
		_ = conn.Close() // so that the reader ends
	})
	err = c.read(ctx)
	c.end(nil)
	writer.Wait()
	b.left(c, err)
}

// letIn reads CONNECT and finds out who it is. With an error the code is what
// CONNACK should say, Success for nothing.
func (b *Broker) letIn(ctx context.Context, conn net.Conn, security *tls.Config) (*client, packet.Code, error) {
	c := &client{broker: b, conn: conn}
	if err := within(ctx, conn, b.config.ConnectTimeout.Std()); err != nil {
		return c, 0, err
	}
	if security != nil {
		secure := tls.Server(conn, security)
		if err := secure.HandshakeContext(ctx); err != nil {
			return c, 0, &turnedAway{"tls", err}
		}
		c.conn = secure
	}
	c.in = bufio.NewReaderSize(c.conn, readBuffer)
	p, err := readConnect(c.in)
	if err != nil {
		var wire *packet.Error
		code := packet.Success
		if errors.As(err, &wire) && wire.Code == packet.UnsupportedVersion {
			code = wire.Code
		}
		return c, code, &turnedAway{"connect", err}
	}
	c.version = p.Version
	if err := c.accept(p); err != nil {
		return c, err.code, &turnedAway{"connect", err}
	}
	if err := within(ctx, conn, authTime); err != nil { // a password takes its time
		return c, 0, err
	}
	if err := b.authenticate(ctx, c, p); err != nil {
		if errors.Is(err, users.ErrDenied) {
			return c, packet.BadUserNameOrPassword, err
		}
		return c, packet.ServerBusy, err // nothing is said about the password
	}
	if p.Will != nil && (strings.HasPrefix(p.Will.Topic, "$") || !c.who.MayPublish(c.id, p.Will.Topic)) {
		return c, packet.NotAuthorized, &turnedAway{"auth", fmt.Errorf("user %.100q may not publish its will", c.user)}
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return c, 0, err
	}
	if code, err := b.establish(ctx, c, p); err != nil {
		return c, code, err
	}
	return c, 0, nil
}

// within sets a time limit, unless ctx ended, whose end has set one too.
func within(ctx context.Context, conn net.Conn, d time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err()
}

// turnedAway is why a connection did not become a client.
type turnedAway struct {
	reason string // a word for the counter
	err    error
}

func (t *turnedAway) Error() string { return t.reason + ": " + t.err.Error() }
func (t *turnedAway) Unwrap() error { return t.err }

// readConnect reads the first packet, which is bounded before it is read.
func readConnect(in *bufio.Reader) (*packet.Connect, error) {
	first, err := in.Peek(1)
	if err != nil {
		return nil, err
	}
	if first[0] != byte(packet.CONNECT)<<4 {
		return nil, fmt.Errorf("the first byte is 0x%02x, which is no CONNECT", first[0])
	}
	h, err := packet.ReadHeader(in, maxConnectBytes)
	if err != nil {
		return nil, err
	}
	body := make([]byte, h.Length)
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, err
	}
	p, err := packet.Decode(0, h, body)
	if err != nil {
		return nil, err
	}
	connect, ok := p.(*packet.Connect)
	if !ok {
		return nil, errors.New("the first packet is no CONNECT")
	}
	// A pair of empty texts is five bytes there and 32 in memory. Nobody has use
	// for those of CONNECT, and nobody needs thousands on a will.
	connect.Properties.User = nil
	if connect.Will != nil && len(connect.Will.Properties.User) > maxWillProperties {
		return nil, &packet.Error{Code: packet.QuotaExceeded, Reason: "the will has too many user properties"}
	}
	return connect, nil
}

// accept takes over what CONNECT says.
func (c *client) accept(p *packet.Connect) *refused {
	b := c.broker
	switch {
	case p.ClientID == "" && p.Version == packet.V311 && !p.CleanStart:
		return &refused{packet.ClientIDNotValid, "an empty client identifier needs a clean session"}
	case len(p.ClientID) > maxClientID:
		return &refused{packet.ClientIDNotValid, "the client identifier is longer than 256 bytes"}
	case p.Will != nil && len(p.Will.Properties.User) > maxUserProperties:
		return &refused{packet.QuotaExceeded, "the will has too many user properties"}
	case p.Properties.AuthMethod != nil:
		return &refused{packet.BadAuthenticationMethod, "there is no extended authentication here"}
	}
	c.id = p.ClientID
	if c.id == "" {
		c.id = "auto-" + rand.Text()
	}
	c.keepAlive = time.Duration(p.KeepAlive) * time.Second
	if c.keepAlive == 0 || c.keepAlive > b.config.MaxKeepAlive.Std() {
		c.keepAlive = b.config.MaxKeepAlive.Std()
	}
	c.receiveMaximum = maxSendAtOnce
	if n := p.Properties.ReceiveMaximum; n != nil {
		c.receiveMaximum = min(*n, maxSendAtOnce)
	}
	c.maximumPacket = noPacketLimit
	if n := p.Properties.MaximumPacketSize; n != nil {
		c.maximumPacket = *n
	}
	c.wakeUp, c.gone, c.freed = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	return nil
}

// authenticate finds out who connects. Each failure counts against the user and
// the address.
func (b *Broker) authenticate(ctx context.Context, c *client, p *packet.Connect) error {
	if b.users == nil {
		c.who, c.user = everybody{}, certificate(c.conn) // a session is its owner's all the same
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, authTime)
	defer cancel()
	if name := certificate(c.conn); name != "" && !p.HasPassword {
		u, err := b.users.Certificate(name)
		if err != nil {
			return &turnedAway{"auth", fmt.Errorf("certificate of %.100q: %w", name, err)}
		}
		c.who, c.user = u, u.Name
		return nil
	}
	// A password that was right before is not held up by those who guess.
	if !b.users.Remembered(p.User, p.Password) && !b.doors.mayTry(c.conn.RemoteAddr(), p.User, time.Now()) {
		return &turnedAway{"auth", fmt.Errorf("user %.100q: %w: too many wrong ones from this address; wait a minute", p.User, users.ErrDenied)}
	}
	u, err := b.users.Authenticate(ctx, p.User, p.Password)
	if err != nil {
		if errors.Is(err, users.ErrDenied) {
			b.doors.wrong(c.conn.RemoteAddr(), p.User, time.Now())
		}
		return &turnedAway{"auth", fmt.Errorf("user %.100q: %w", p.User, err)}
	}
	c.who, c.user = u, u.Name
	return nil
}

// answerRefusal sends a CONNACK that says no.
func (b *Broker) answerRefusal(conn net.Conn, c *client, code packet.Code) {
	version := c.version
	if version == 0 {
		version = packet.V311
	}
	if version == packet.V311 {
		switch code {
		case packet.UnsupportedVersion:
			code = packet.RefusedVersion
		case packet.ClientIDNotValid:
			code = packet.RefusedClientID
		case packet.BadUserNameOrPassword:
			code = packet.RefusedUserNamePassword
		case packet.NotAuthorized:
			code = packet.RefusedNotAuthorized
		default:
			code = packet.RefusedUnavailable
		}
	}
	wire, err := (&packet.Connack{Code: code}).Append(nil, version)
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	if err == nil {
		_, err = c.conn.Write(wire)
	}
	if err != nil {
		b.logger.Debug("refusing a connection", "error", err)
	}
}
