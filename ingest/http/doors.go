package http

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// doors is a listener that lets in so many connections at once, and so many of
// one address. Beyond the first limit they stay in the kernel's queue, beyond
// the second they are closed.
type doors struct {
	net.Listener
	slots   chan struct{}
	each    int
	refused func() // tells of a connection that was closed
	once    sync.Once
	closed  chan struct{}

	mu   sync.Mutex
	open map[netip.Prefix]int
	n    int // of all
}

func newDoors(inner net.Listener, total, each int, refused func()) *doors {
	return &doors{
		Listener: inner, slots: make(chan struct{}, total), each: each, refused: refused,
		closed: make(chan struct{}), open: make(map[netip.Prefix]int),
	}
}

// Accept is net.Listener's.
func (d *doors) Accept() (net.Conn, error) {
	select {
	case d.slots <- struct{}{}:
	case <-d.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			<-d.slots
			return nil, err
		}
		from := prefixOf(conn.RemoteAddr().String())
		if !d.enter(from) {
			d.refused()
			_ = conn.Close() // nothing was written to it
			continue
		}
		in := &inlet{Conn: conn, release: sync.OnceFunc(func() {
			d.leave(from)
			<-d.slots
		})}
		in.left.Store(firstBytes)
		return in, nil
	}
}

func (d *doors) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

func (d *doors) enter(from netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[from] >= d.each {
		return false
	}
	d.open[from]++
	d.n++
	return true
}

func (d *doors) leave(from netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n--
	if d.open[from]--; d.open[from] <= 0 {
		delete(d.open, from)
	}
}

// inside is how many connections are open.
func (d *doors) inside() int {
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

// prefixOf is the address of one host: an IPv4 address, or an IPv6 /64, for a
// host chooses the rest of that itself.
func prefixOf(hostport string) netip.Prefix {
	at, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Prefix{} // all strange ones are one
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

var errChatty = errors.New("over 28 KiB before the first request")

// inlet is a connection that may send firstBytes until its first request is
// complete: a handshake of TLS alone could be a quarter of a megabyte.
type inlet struct {
	net.Conn
	release func()
	left    atomic.Int64
	free    atomic.Bool // of the limit
}

// Read is net.Conn's.
func (c *inlet) Read(p []byte) (int, error) {
	if c.free.Load() {
		return c.Conn.Read(p)
	}
	left := c.left.Load()
	if left <= 0 {
		return 0, errChatty
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), left)])
	c.left.Add(-int64(n))
	return n, err
}

func (c *inlet) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer before it breaks the connection off.
func (c *inlet) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// lift takes the limit off a connection that has sent a request.
func lift(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if in, ok := conn.(*inlet); ok {
		in.free.Store(true)
	}
}
