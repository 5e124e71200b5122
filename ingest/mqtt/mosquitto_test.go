package mqtt

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/weir-edge/weir/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker is a real mosquitto on loopback.
type broker struct {
	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startBroker starts mosquitto with extra lines of configuration.
func startBroker(t testing.TB, extra string) *broker {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Fatal("mosquitto is missing; get it with: apt-get install mosquitto")
	}
	b := &broker{t: t, dir: t.TempDir(), port: freePort(t)}
	config := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"+
		"persistence true\npersistence_location %s/\nuser root\n%s\n", b.port, b.dir, extra)
	if err := os.WriteFile(filepath.Join(b.dir, "m.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.Command("mosquitto", "-c", filepath.Join(b.dir, "m.conf"))
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	until(b.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", b.address())
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

func (b *broker) address() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// stop ends mosquitto in good order, so that it saves its sessions.
func (b *broker) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	_ = b.cmd.Wait()
	b.cmd = nil
}

// publisher is a client that publishes and waits for each PUBACK.
func (b *broker) publisher(t testing.TB) paho.Client {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + b.address()).SetClientID("publisher").SetWriteTimeout(10 * time.Second))
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// until polls with a deadline.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-tick.C
	}
}

// cutter is a TCP proxy whose connections can be cut.
type cutter struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	conns    []net.Conn
	group    sync.WaitGroup
}

func startCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, to: to}
	c.group.Go(c.run)
	t.Cleanup(func() {
		l.Close()
		c.cut()
		c.group.Wait()
	})
	return c
}

func (c *cutter) run() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, in, out)
		c.mu.Unlock()
		c.group.Go(func() { _, _ = io.Copy(out, in); out.Close(); in.Close() })
		c.group.Go(func() { _, _ = io.Copy(in, out); out.Close(); in.Close() })
	}
}

// cut resets every connection: what is on the way is lost.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
	c.conns = nil
}

// openLog opens a real log.
func openLog(t testing.TB, dir string) *buffer.Log {
	t.Helper()
	config := buffer.DefaultConfig()
	config.Dir = dir
	config.Commit.MaxDelay = 0
	l, err := buffer.Open(t.Context(), config, buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startSource runs a source and returns how to end it.
func startSource(t testing.TB, c Config, l Log) (*Source, func()) {
	t.Helper()
	s, err := New(c, l, slog.New(slog.NewTextHandler(logWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, sync.OnceFunc(func() { cancel(); group.Wait() })
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// entries reads a whole stream of one shard.
func entries(t *testing.T, l Log, stream string) []buffer.Entry {
	t.Helper()
	var list []buffer.Entry
	var at buffer.Position
	for {
		page, err := l.Read(t.Context(), stream, at, buffer.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, page.Entries...)
		if at.Sequence = page.Next; page.AtEnd {
			return list
		}
	}
}
