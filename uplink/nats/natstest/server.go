// Package natstest runs a real nats-server for tests: a process of its own,
// with JetStream in files, on the loopback, that can be stopped, killed and
// started again on the same port and files.
//
// The program is built once from the module that go.mod pins, into the user's
// cache directory, so a test needs the go command and nothing else.
package natstest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const serverModule = "github.com/nats-io/nats-server/v2"

// Server is a nats-server. It is stopped when the test ends.
type Server struct {
	t       testing.TB
	program string
	dir     string
	address string
	extra   string // configuration

	mu      sync.Mutex
	process *exec.Cmd
	output  *bytes.Buffer
}

// Start starts a server. extra is added to its configuration file.
func Start(t testing.TB, extra string) *Server {
	t.Helper()
	s := prepare(t)
	s.extra = extra
	s.Start()
	return s
}

// StartCluster starts n servers that share what they hold.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	var servers []*Server
	var routes []string
	for range n {
		servers = append(servers, prepare(t))
		routes = append(routes, "nats://"+freeAddress(t))
	}
	for i, s := range servers {
		s.Configure(fmt.Sprintf("server_name: n%d\ncluster {\n  name: weir\n  listen: %q\n  routes: [%s]\n}",
			i, strings.TrimPrefix(routes[i], "nats://"), strings.Join(routes, ", ")))
		s.StartWithoutLooking()
	}
	for _, s := range servers {
		s.until(s.answers)
	}
	return servers
}

// prepare makes a server that does not run yet.
func prepare(t testing.TB) *Server {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatalf("build nats-server (needs the go command): %v", err)
	}
	s := &Server{t: t, program: program, dir: t.TempDir(), address: freeAddress(t)}
	t.Cleanup(func() { s.end((*os.Process).Kill) })
	return s
}

// freeAddress is one that nobody listened on a moment ago. The server has to
// have the same one after a restart, so it cannot choose.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

// build makes the program if it is not there yet, and returns its path.
func build() (string, error) {
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", serverModule).Output()
	if err != nil {
		return "", fmt.Errorf("find the version of %s: %w", serverModule, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "weir-test")
	program := filepath.Join(dir, "nats-server-"+strings.TrimSpace(string(version)))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Into a directory of its own and then renamed: tests of several packages
	// may do this at once.
	fresh, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	made := filepath.Join(fresh, "nats-server")
	if out, err := exec.Command("go", "build", "-o", made, serverModule).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(fresh))
	}
	return program, errors.Join(os.Rename(made, program), os.RemoveAll(fresh))
}

// URL of the server; the same after a restart.
func (s *Server) URL() string { return "nats://" + s.address }

// Address is host and port.
func (s *Server) Address() string { return s.address }

// Configure replaces what is added to the configuration, for the next start.
func (s *Server) Configure(extra string) { s.extra = extra }

// Start starts the server, after Stop or Kill, and waits until JetStream
// answers.
func (s *Server) Start() {
	s.t.Helper()
	s.wait(s.answers)
}

// StartWithoutLooking is Start for a server that a plain client cannot ask. It
// waits until the port is open.
func (s *Server) StartWithoutLooking() {
	s.t.Helper()
	s.wait(func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// wait runs the server and waits until it is ready.
func (s *Server) wait(ready func() bool) {
	s.t.Helper()
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	config := filepath.Join(s.dir, "server.conf")
	text := fmt.Sprintf("host: %s\nport: %s\njetstream {\n  store_dir: %q\n  max_mem: 64M\n  max_file: 4G\n}\n%s\n",
		host, port, filepath.Join(s.dir, "store"), s.extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.output = new(bytes.Buffer)
	s.process = exec.Command(s.program, "-c", config)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	err = s.process.Start()
	s.mu.Unlock()
	if err != nil {
		s.t.Fatalf("start nats-server: %v", err)
	}
	s.until(ready)
}

func (s *Server) until(ready func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ready() {
		if time.Now().After(deadline) {
			s.end((*os.Process).Kill)
			s.t.Fatalf("nats-server is not ready after 30s:\n%s", s.output)
		}
		<-time.After(20 * time.Millisecond) // polled: the server tells nobody that it is ready
	}
}

func (s *Server) answers() bool {
	nc, err := nats.Connect(s.URL(), nats.Timeout(time.Second), nats.NoReconnect())
	if err != nil {
		return strings.Contains(err.Error(), "Authorization")
	}
	defer nc.Close()
	// An account without JetStream is told so, which is an answer as well.
	_, err = nc.Request("$JS.API.INFO", nil, time.Second)
	return err == nil
}

// Stop ends the server in order.
func (s *Server) Stop() { s.end(func(p *os.Process) error { return p.Signal(os.Interrupt) }) }

// Kill ends it with SIGKILL.
func (s *Server) Kill() { s.end((*os.Process).Kill) }

func (s *Server) end(how func(*os.Process) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	if err := how(s.process.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("end nats-server: %v", err)
	}
	// Its exit status says how it was ended, which is known.
	_ = s.process.Wait()
	s.process = nil
}

// Connect returns a connection for looking at what the server holds.
func (s *Server) Connect() (jetstream.JetStream, func()) {
	s.t.Helper()
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		s.t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return js, nc.Close
}
