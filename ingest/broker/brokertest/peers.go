package brokertest

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Peer is a client of another maker: mosquitto_pub and mosquitto_sub, or npm
// mqtt, with one version of the protocol.
type Peer struct {
	Name    string
	version byte
	secure  bool // over Target.TLS
	node    bool
}

// Peers are all that can drive the target: each program with both versions,
// and once more over TLS if the target has it.
func Peers(target Target) (list []Peer) {
	for _, secure := range []bool{false, true} {
		if secure && target.TLS == nil {
			continue
		}
		for _, node := range []bool{false, true} {
			for _, version := range []byte{version311, version5} {
				p := Peer{Name: "mosquitto", version: version, secure: secure, node: node}
				if node {
					p.Name = "npm mqtt"
				}
				if p.Name += map[byte]string{version311: " 3.1.1", version5: " 5"}[version]; secure {
					p.Name += " TLS"
				}
				list = append(list, p)
			}
		}
	}
	return list
}

// Run is what a peer has to do.
type Run struct {
	Topic    string // below brokertest/
	ClientID string // of the publisher
	Count    int    // of messages, 1 to 10,000: their payloads are "1" to Count
	// Restart has the target killed and started again when a third of the
	// messages is acknowledged.
	Restart bool
	// Subscribe has another client of the same kind subscribed all the while. It
	// has a session that outlives its connection.
	Subscribe bool
}

// Report is what a peer saw.
type Report struct {
	// BeforeRestart of them were acknowledged when the broker was killed; the rest
	// was on the way or not sent yet. The least is a third, and all would mean that
	// nothing was tested.
	BeforeRestart int
	Acknowledged  []int // in the order of the PUBACKs
	Received      []int // by the subscriber, in the order of arrival; a message may come twice
}

// peerPatience bounds the whole of a run.
const peerPatience = 2 * time.Minute

// Publish has the peer publish numbers with QoS 1, and returns when all are
// acknowledged and, with Subscribe, each has been received. It fails the test
// if that does not happen within two minutes, or if the program is missing.
func (p Peer) Publish(t testing.TB, target Target, r Run) Report {
	t.Helper()
	if r.Count < 1 || r.Count > 10_000 {
		t.Fatalf("%d messages are not between 1 and 10,000", r.Count)
	}
	var sub *process
	var report Report
	if r.Subscribe {
		sub = p.start(t, target, r, false)
		sub.await(t, "subscribed", func() bool { return sub.ready })
	}
	pub := p.start(t, target, r, true)
	if r.Restart {
		pub.await(t, "a third is acknowledged", func() bool { return len(pub.acked) >= (r.Count+2)/3 })
		if err := target.Kill(); err != nil {
			t.Fatalf("kill the broker: %v", err)
		}
		report.BeforeRestart, _ = pub.counts()
		if err := target.Start(); err != nil {
			t.Fatalf("start the broker: %v", err)
		}
	}
	pub.await(t, "all are acknowledged", func() bool { return len(pub.acked) == r.Count })
	if err := pub.wait(t); err != nil {
		t.Fatalf("%s ends with %v: %s", p.Name, err, pub.tail())
	}
	report.Acknowledged = pub.acked
	if sub != nil {
		sub.await(t, "all have been received", func() bool { return len(sub.seen) == r.Count })
		sub.end()
		report.Received = sub.got
	}
	return report
}

// process is a running peer and what it said.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{} // closed when its output has ended
	group sync.WaitGroup

	mu      sync.Mutex
	acked   []int
	got     []int
	seen    map[int]bool
	ready   bool
	last    []string      // lines, for when something is wrong
	changed chan struct{} // closed and replaced when any of the above changes
}

// start runs a peer as publisher or subscriber.
func (p Peer) start(t testing.TB, target Target, r Run, publisher bool) *process {
	t.Helper()
	proc := &process{done: make(chan struct{}), changed: make(chan struct{}), seen: map[int]bool{}}
	id := r.ClientID
	if !publisher {
		id += "-sub"
	}
	var feed func(io.Writer) error
	if p.node {
		proc.cmd, feed = p.nodeCommand(t, target, r, id, publisher)
	} else {
		proc.cmd, feed = p.mosquittoCommand(t, target, r, id, publisher)
	}
	var err error
	if proc.stdin, err = proc.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	proc.cmd.Stdout, proc.cmd.Stderr = in, in
	if err := proc.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proc.end)
	proc.group.Go(func() { proc.read(out) })
	proc.group.Go(func() {
		// When the process ends, so does its output.
		err := proc.cmd.Wait()
		proc.note("it ended: " + fmt.Sprint(err))
		in.Close()
	})
	proc.group.Go(func() {
		if err := feed(proc.stdin); err != nil {
			proc.note("its input: " + err.Error())
		}
		if publisher {
			proc.stdin.Close()
		}
	})
	return proc
}

func (p *process) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = append(p.last[max(0, len(p.last)-20):], line)
}

// read understands what both kinds of peers print.
func (p *process) read(out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		p.note(line)
		p.mu.Lock()
		n := 0
		switch {
		case scan(line, "acked %d", &n):
			p.acked = append(p.acked, n)
		case scan(line, "got %d", &n), scan(line, "%d", &n):
			p.got, p.seen[n] = append(p.got, n), true
		case line == "subscribed", strings.HasPrefix(line, "Subscribed (mid:"):
			p.ready = true
		default:
			// The packet ids of mosquitto_pub are the numbers of the lines.
			if _, rest, ok := strings.Cut(line, "received PUBACK (Mid: "); ok && scan(rest, "%d,", &n) {
				p.acked = append(p.acked, n)
			}
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

func scan(line, format string, n *int) bool {
	count, err := fmt.Sscanf(line, format, n)
	return err == nil && count == 1
}

// counts are how many it has been acknowledged, and how many different ones it
// has received.
func (p *process) counts() (acked, seen int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acked), len(p.seen)
}

// await waits until ok, which may look at what the process said.
func (p *process) await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(peerPatience)
	defer deadline.Stop()
	ended := false
	for {
		p.mu.Lock()
		right, changed := ok(), p.changed
		p.mu.Unlock()
		switch {
		case right:
			return
		case ended:
			acked, seen := p.counts()
			t.Fatalf("the peer ended and not: %s (%d acknowledged, %d received): %s", what, acked, seen, p.tail())
		}
		select {
		case <-changed:
		case <-p.done:
			ended = true
		case <-deadline.C:
			acked, seen := p.counts()
			t.Fatalf("not within %v: %s (%d acknowledged, %d received): %s", peerPatience, what, acked, seen, p.tail())
		}
	}
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.last, "; ")
}

// wait is for a publisher: it ends by itself.
func (p *process) wait(t testing.TB) error {
	t.Helper()
	deadline := time.NewTimer(peerPatience)
	defer deadline.Stop()
	select {
	case <-p.done:
	case <-deadline.C:
		t.Fatalf("the peer does not end: %s", p.tail())
	}
	p.group.Wait()
	if !p.cmd.ProcessState.Success() {
		return errors.New(p.cmd.ProcessState.String())
	}
	return nil
}

// end stops it in any case.
func (p *process) end() {
	p.stdin.Close() // it may be closed already
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill() // it may have ended a moment ago
	}
	p.group.Wait()
}

// pace is between two messages of a publisher, so that a restart comes in the
// middle.
const pace = 2 * time.Millisecond

func numbers(count int) func(io.Writer) error {
	return func(w io.Writer) error {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for i := range count {
			<-tick.C
			if _, err := fmt.Fprintln(w, i+1); err != nil {
				return err
			}
		}
		return nil
	}
}

// mosquittoCommand is of mosquitto_pub, which reads lines and with -d tells of
// every packet, or of mosquitto_sub.
func (p Peer) mosquittoCommand(t testing.TB, target Target, r Run, id string, publisher bool) (*exec.Cmd, func(io.Writer) error) {
	t.Helper()
	program, address := "mosquitto_sub", target.Address
	if publisher {
		program = "mosquitto_pub"
	}
	for _, name := range []string{program, "stdbuf"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing; get it with: apt-get install mosquitto-clients coreutils", name)
		}
	}
	// Into a pipe it would keep its lines back.
	args := []string{"-oL", program, "-d", "-V", map[byte]string{version311: "311", version5: "5"}[p.version], "-i", id, "-c", "-q", "1", "-t", r.Topic}
	if p.secure {
		address = target.TLS.Address
		args = append(args, "--cafile", target.TLS.CAFile)
		if target.TLS.CertFile != "" {
			args = append(args, "--cert", target.TLS.CertFile, "--key", target.TLS.KeyFile)
		}
	}
	host, port, _ := strings.Cut(address, ":")
	args = append(args, "-h", host, "-p", port)
	if target.Username != "" {
		args = append(args, "-u", target.Username, "-P", target.Password)
	}
	if p.version == version5 {
		args = append(args, "-x", "3600")
	}
	if publisher {
		return exec.Command("stdbuf", append(args, "-l")...), numbers(r.Count)
	}
	return exec.Command("stdbuf", args...), func(io.Writer) error { return nil }
}

//go:embed testdata/peers
var peerFiles embed.FS

var installing sync.Mutex

// peerDir returns a folder with npm mqtt installed as the lock file pins it. It
// is in the user's cache, so that it is fetched once.
func peerDir(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing; get Node.js 20 or later with npm: apt-get install nodejs npm, or nodejs.org", name)
		}
	}
	installing.Lock()
	defer installing.Unlock()
	hash := sha256.New()
	files := []string{"package.json", "package-lock.json", "peer.mjs"}
	for _, name := range files {
		text, err := peerFiles.ReadFile("testdata/peers/" + name)
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(text)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "weir-brokertest", fmt.Sprintf("%x", hash.Sum(nil)[:8]))
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return dir
	}
	if err := install(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

// install makes dir in one step, so that two test runs do not meet in it.
func install(dir string, files []string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := peerFiles.ReadFile("testdata/peers/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(fresh, name), text, 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("npm ci (it needs a package registry once): %w: %s", err, out), os.RemoveAll(fresh))
	}
	if err := os.WriteFile(filepath.Join(fresh, "complete"), nil, 0o644); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, there := os.Stat(filepath.Join(dir, "complete")); there == nil {
			return os.RemoveAll(fresh) // another run was faster
		}
		return err
	}
	return nil
}

// task is what peer.mjs reads.
type task struct {
	URL      string `json:"url"`
	Version  int    `json:"version"`
	ClientID string `json:"clientId"`
	Username string `json:"username"`
	Password string `json:"password"`
	CA       string `json:"ca"`
	Topic    string `json:"topic"`
	Count    int    `json:"count"`
	Pace     int    `json:"pace"` // milliseconds
}

func (p Peer) nodeCommand(t testing.TB, target Target, r Run, id string, publisher bool) (*exec.Cmd, func(io.Writer) error) {
	t.Helper()
	job := task{URL: "mqtt://" + target.Address, Version: int(p.version), ClientID: id, Username: target.Username, Password: target.Password, Topic: r.Topic, Pace: int(pace.Milliseconds())}
	if publisher {
		job.Count = r.Count
	}
	if p.secure {
		ca, err := os.ReadFile(target.TLS.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		job.URL, job.CA = "mqtts://"+target.TLS.Address, string(ca)
	}
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "peer.mjs")
	cmd.Dir = peerDir(t)
	return cmd, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n", text)
		return err
	}
}
