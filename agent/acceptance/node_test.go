package acceptance

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// node is weir as it is shipped: the binary, a configuration, a directory.
type node struct {
	t      *testing.T
	binary string
	config string
	api    string
	out    *os.File
	cmd    *exec.Cmd
}

// build makes the binary once for a test.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "weir")
	cmd := exec.Command("go", "build", "-o", binary, "./agent")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	return binary
}

// newNode makes a node with the given sections of configuration.
func newNode(t *testing.T, sections string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, binary: build(t), config: filepath.Join(dir, "weir.yaml"), api: "127.0.0.1:" + strconv.Itoa(freePort(t))}
	text := fmt.Sprintf("node: {id: gw-17}\nbuffer: {dir: %s}\napi: {listen: %s}\n%s\n", filepath.Join(dir, "log"), n.api, sections)
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.out, err = os.Create(filepath.Join(dir, "weir.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		n.out.Close()
		if t.Failed() {
			b, _ := os.ReadFile(n.out.Name()) // for people; the test has failed already
			t.Logf("the last of what weir said:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(n.binary, "run", "-c", n.config)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends the process without a chance to tidy up.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may be gone
	_ = n.cmd.Wait()
	n.cmd = nil
}

// stop ends it in good order and returns how long that took.
func (n *node) stop() time.Duration {
	n.t.Helper()
	began := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("weir ends with %v", err)
	}
	n.cmd = nil
	return time.Since(began)
}

func (n *node) healthy() bool {
	resp, err := http.Get("http://" + n.api + "/healthz")
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// run runs a command of the tool against the node.
func (n *node) run(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(n.binary, append(args, "--api", "http://"+n.api)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("weir %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// peak is the most it has been so far; 0 if the process is not running.
func (n *node) peak() int64 {
	if n.cmd == nil {
		return 0
	}
	return status(n.cmd.Process.Pid, "VmHWM:") << 10
}

// status reads a number of kB from /proc/PID/status.
func status(pid int, name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // the kernel's own number
			return n
		}
	}
	return 0
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startMosquitto starts a real broker and returns its address.
func startMosquitto(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Fatal("mosquitto is missing; get it with: apt-get install mosquitto")
	}
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"+
		"max_inflight_messages 500\npersistence true\npersistence_location %s/\nuser root\n", port, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mosquitto", "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the test is over
		_ = cmd.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	until(t, 10*time.Second, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", address)
		return err == nil && c.Close() == nil
	})
	return address
}

// publisher is a client that stays connected to the broker all the time.
func publisher(t *testing.T, address string) paho.Client {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("publisher").
		SetAutoReconnect(false).SetWriteTimeout(30 * time.Second).SetOrderMatters(false))
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal("the publisher does not connect: ", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// until polls with a deadline.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
}

func lines(text string) []string {
	var list []string
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		list = append(list, s.Text())
	}
	return list
}
