package http

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

const head = "POST /v1/streams/telemetry/records HTTP/1.1\nHost: localhost\nContent-Type: application/json\nWeir-Partition-Key: k\n"

// ends wants the server to end the connection.
func ends(t *testing.T, conn net.Conn, within time.Duration) {
	t.Helper()
	began := time.Now()
	if err := conn.SetReadDeadline(began.Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the connection is still there after 20 s")
	}
	if took := time.Since(began); took > within {
		t.Errorf("it ended after %s, not %s", took, within)
	}
}

// TestSlowHeader: five seconds for the header, also before its first byte.
func TestSlowHeader(t *testing.T) {
	s, _ := startSource(t, open(), ingesttest.NewLog())
	silent, _ := rawPost(t, s, "")
	slow, _ := rawPost(t, s, "POST /v1/")
	ends(t, silent, headerTimeout+2*time.Second)
	ends(t, slow, headerTimeout+2*time.Second)
}

// TestSlowBody: request_timeout for the body of who may write, one second for
// who may not.
func TestSlowBody(t *testing.T) {
	c := guarded()
	c.RequestTimeout = value.Duration(time.Second)
	s, _ := startSource(t, c, ingesttest.NewLog())
	for _, length := range []string{"Content-Length: 1000\n\n{", "Content-Length: 1000000\n\n{", "Transfer-Encoding: chunked\n\n2\n{}\n"} {
		stranger, in := rawPost(t, s, head+length)
		_, a := readRaw(t, in)
		a.want(t, 401, "")
		ends(t, stranger, 3*time.Second)

		known, in := rawPost(t, s, head+"Authorization: Bearer "+token+"\n"+length)
		_, a = readRaw(t, in)
		a.want(t, 408, "the body did not come within request_timeout (1s)")
		ends(t, known, 3*time.Second)
	}
	until(t, "nothing is held", func() bool { return s.Status().InflightBytes == 0 && s.Status().Inflight == 0 })
}

// TestEndlessBody: chunks without an end are read up to the limit.
func TestEndlessBody(t *testing.T) {
	c := open()
	c.MaxBodyBytes = 64 << 10
	s, _ := startSource(t, c, ingesttest.NewLog())
	conn, in := rawPost(t, s, head+"Transfer-Encoding: chunked\n\n")
	chunk := []byte("1000\r\n" + strings.Repeat(" ", 4096) + "\r\n")
	go func() {
		for {
			if _, err := conn.Write(chunk); err != nil {
				return // it was ended
			}
		}
	}()
	_, a := readRaw(t, in)
	a.want(t, 413, "the body is over max_body_bytes (64KiB)")
	ends(t, conn, 5*time.Second)

	_, in = rawPost(t, s, head+"Content-Length: 99999999999\n\n")
	_, a = readRaw(t, in)
	a.want(t, 413, "the body is over max_body_bytes (64KiB)")
	_, in = rawPost(t, s, head+"Transfer-Encoding: chunked\n\nzz\n")
	_, a = readRaw(t, in)
	a.want(t, 400, "read the body")
}

// TestClaimedLength: a length that is only claimed holds next to no memory.
func TestClaimedLength(t *testing.T) {
	s, _ := startSource(t, open(), ingesttest.NewLog())
	for range 20 {
		rawPost(t, s, head+"Content-Length: 8388608\n\n{")
	}
	until(t, "all are read", func() bool { return s.Status().Inflight == 20 })
	until(t, "all hold something", func() bool { return s.Status().InflightBytes >= 20*(requestOverhead+4096) })
	if held := s.Status().InflightBytes; held > 20*(requestOverhead+64<<10) {
		t.Errorf("20 requests that sent a byte hold %d bytes", held)
	}
	send(t, s, request{kind: "application/json", body: "1", header: aKey}).want(t, 200, "")
}

// TestLargeHeader: 16 KiB and what net/http adds, then 431.
func TestLargeHeader(t *testing.T) {
	s, _ := startSource(t, open(), ingesttest.NewLog())
	conn, in := rawPost(t, s, head+"X: "+strings.Repeat("x", 40<<10)+"\n\n")
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("%q, %v", line, err)
	}
	ends(t, conn, 3*time.Second)
}

// TestMemoryPerConnection: what a stranger's connection costs, with a header
// that is as large as it may be and never ends, and with a TLS handshake.
func TestMemoryPerConnection(t *testing.T) {
	const n, limit = 200, 64 << 10
	authority := newAuthority(t)
	authority.server()
	for _, test := range []struct {
		name string
		tls  TLSConfig
		send []byte
	}{
		{"header", TLSConfig{}, []byte(strings.ReplaceAll(head+"X: "+strings.Repeat("x", 15<<10), "\n", "\r\n"))},
		{"silent", TLSConfig{}, nil},
		{"handshake", TLSConfig{CertFile: authority.file("server.pem"), KeyFile: authority.file("server.key")}, endlessHello()},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := guarded()
			c.TLS, c.MaxConnectionsPerAddress = test.tls, 256
			s, _ := startSource(t, c, ingesttest.NewLog())
			before := memory()
			list := make([]net.Conn, n)
			for i := range list {
				conn, err := net.Dial("tcp", s.Address())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write(test.send); err != nil {
					t.Fatal(err)
				}
				list[i] = conn
			}
			test.send = nil
			until(t, "all are let in", func() bool { return s.Status().Connections == n })
			most, tick := 0, time.NewTicker(50*time.Millisecond)
			defer tick.Stop()
			for range 20 {
				<-tick.C
				most = max(most, memory())
			}
			each := (most - before) / n
			t.Logf("%d bytes a connection", each)
			if each > limit {
				t.Errorf("a connection costs %d bytes, over %d", each, limit)
			}
			runtime.KeepAlive(list)
		})
	}
}

// endlessHello is the beginning of a ClientHello of 64 KB, in records of 16 KB,
// as much of it as a connection may send.
func endlessHello() []byte { return hello(firstBytes - 1) }

func hello(size int) []byte {
	content := append([]byte{1, 0, 0xff, 0xff}, make([]byte, 1<<14-4)...)
	var out []byte
	for len(out) < size {
		out = append(append(out, 22, 3, 1, 0x40, 0), content...)
		content = make([]byte, 1<<14)
	}
	return out[:size]
}

// TestChattyHandshake: a handshake that grows beyond what a connection may
// send is ended, long before its time is over.
func TestChattyHandshake(t *testing.T) {
	authority := newAuthority(t)
	authority.server()
	c := guarded()
	c.TLS = TLSConfig{CertFile: authority.file("server.pem"), KeyFile: authority.file("server.key")}
	s, _ := startSource(t, c, ingesttest.NewLog())
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(hello(60 << 10)); err != nil {
		t.Fatal(err)
	}
	ends(t, conn, headerTimeout/2)
}

// memory is what is in use on heap and stacks.
func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// TestConnections: so many of one address, and so many in all; a stranger
// cannot keep them for long.
func TestConnections(t *testing.T) {
	c := open()
	c.MaxConnections, c.MaxConnectionsPerAddress = 4, 3
	s, stop := startSource(t, c, ingesttest.NewLog())
	var held []net.Conn
	for range 3 {
		conn, _ := rawPost(t, s, "POST ")
		held = append(held, conn)
	}
	until(t, "they are let in", func() bool { return s.Status().Connections == 3 })
	turned, _ := rawPost(t, s, "")
	ends(t, turned, time.Second)
	if st := s.Status(); st.Refused[TurnedAway] != 1 {
		t.Errorf("status %+v", st)
	}
	_ = held[0].Close()
	until(t, "it is gone", func() bool { return s.Status().Connections == 2 })
	send(t, s, request{kind: "application/json", body: "1", header: aKey}).want(t, 200, "")
	stop()
	if n := s.Status().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestFirstBytes: a connection that sends much and no request is ended.
func TestFirstBytes(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	in := &inlet{Conn: b, release: func() {}}
	in.left.Store(firstBytes)
	go func() {
		for {
			if _, err := a.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, onlyReader{in})
	if n != firstBytes || err != errChatty {
		t.Errorf("%d bytes, %v", n, err)
	}
	lift(in)
	if n, err := in.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Errorf("after it: %d, %v", n, err)
	}
	_ = in.Close()
}

type onlyReader struct{ io.Reader }

// TestLongLived: what a connection sends after its first request is bounded by
// each request, not by the limit of the first.
func TestLongLived(t *testing.T) {
	log := ingesttest.NewLog()
	s, _ := startSource(t, open(), log)
	client := newHTTPClient(t)
	for range 5 {
		r := request{kind: "text/plain", body: strings.Repeat("x", 100<<10), header: aKey}.build(t, s)
		roundTrip(t, client, r).want(t, 200, "")
	}
	if got := len(log.Entries("telemetry")); got != 5 {
		t.Errorf("%d records", got)
	}
}

// TestStops: within two seconds, whatever clients do; what was under way is
// told so, and a second Run works.
func TestStops(t *testing.T) {
	log := ingesttest.NewLog()
	release := log.Hold()
	defer release()
	s, err := New(open(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := runSource(t, s)
	rawPost(t, s, "")                                // silent
	rawPost(t, s, "POST /")                          // in its header
	rawPost(t, s, head+"Content-Length: 1000\n\n{}") // in its body
	_, in := rawPost(t, s, head+"Content-Length: 1\n\n1")
	until(t, "both are under way", func() bool { return s.Status().Inflight == 2 && log.Waiting() == 1 })
	began := time.Now()
	stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	_, a := readRaw(t, in)
	if a.want(t, 503, "whether the records were stored is not known"); a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if st := s.Status(); st.State != Stopped || st.Inflight != 0 || st.InflightBytes != 0 || s.Ready() || s.Address() != "" {
		t.Errorf("status %+v", st)
	}
	release()
	stop = runSource(t, s)
	send(t, s, request{kind: "application/json", body: "1", header: aKey}).want(t, 200, "")
	stop()
}

// TestListenFails: an address that is taken is an error that names it.
func TestListenFails(t *testing.T) {
	s, _ := startSource(t, open(), ingesttest.NewLog())
	c := open()
	c.Listen = s.Address()
	second, err := New(c, ingesttest.NewLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "http source http: listen on "+c.Listen) {
		t.Errorf("%v", err)
	}
}

// TestPanic: a fault costs its request only.
func TestPanic(t *testing.T) {
	s, _ := startSource(t, open(), faulty{})
	send(t, s, request{kind: "application/json", body: "1", header: aKey}).want(t, 500, "a fault of weir's")
	if st := s.Status(); st.Refused[Internal] != 1 {
		t.Errorf("status %+v", st)
	}
	until(t, "nothing is held", func() bool { return s.Status().InflightBytes == 0 && s.Status().Inflight == 0 })
}

// faulty is a log with a fault in it.
type faulty struct{}

func (faulty) Append(context.Context, string, ...buffer.Record) ([]buffer.Position, error) {
	panic("index out of range")
}
