package natstest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy passes TCP connections on to a server, and breaks them on demand.
type Proxy struct {
	t        testing.TB
	to       string
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex
	pairs map[*pair]bool
}

// pair is a connection through the proxy.
type pair struct {
	client, server net.Conn

	mu   sync.Mutex
	free chan struct{} // closed: what the client sends goes on to the server
}

// NewProxy starts a proxy on the loopback. It ends with the test.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t: t, to: to, listener: listener, pairs: make(map[*pair]bool)}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		p.Release()
		p.Cut()
		p.all.Wait()
	})
	return p
}

// URL is what a client dials.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			closeAll(client)
			continue
		}
		c := &pair{client: client, server: server, free: make(chan struct{})}
		close(c.free)
		p.mu.Lock()
		p.pairs[c] = true
		p.mu.Unlock()
		p.all.Go(func() { p.forth(c) })
		p.all.Go(func() {
			// Errors of either side end the connection, which is all there is to do.
			_, _ = io.Copy(client, server)
			closeAll(client)
		})
	}
}

// forth carries what the client sends. What is held is delivered even if the
// client has gone meanwhile, as a network does.
func (p *Proxy) forth(c *pair) {
	buf := make([]byte, 1<<20)
	for {
		n, err := c.client.Read(buf)
		if n > 0 {
			c.mu.Lock()
			free := c.free
			c.mu.Unlock()
			<-free
			if _, werr := c.server.Write(buf[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err != nil {
			break
		}
	}
	closeAll(c.client, c.server)
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

func closeAll(conns ...net.Conn) {
	for _, c := range conns {
		_ = c.Close() // it is being broken; nobody is told
	}
}

func (p *Proxy) each(f func(*pair)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		f(c)
	}
}

// Cut breaks all connections on both sides at once.
func (p *Proxy) Cut() { p.each(func(c *pair) { closeAll(c.client, c.server) }) }

// Hold keeps back what the clients of the connections there are send from now
// on. Connections made later are not held.
func (p *Proxy) Hold() {
	p.each(func(c *pair) {
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-c.free:
			c.free = make(chan struct{})
		default:
		}
	})
}

// Hangup breaks the clients' side of all connections: they see a broken
// connection, the server does not.
func (p *Proxy) Hangup() { p.each(func(c *pair) { closeAll(c.client) }) }

// Release lets what was held go on.
func (p *Proxy) Release() {
	p.each(func(c *pair) {
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-c.free:
		default:
			close(c.free)
		}
	})
}
