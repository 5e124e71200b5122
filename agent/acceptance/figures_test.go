//go:build figures

package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/weir-edge/weir/ingest/broker/brokertest"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

// TestFigures measures the daemon as it is shipped and prints each figure
// beside its goal. It takes two minutes; `make bench` runs it (build tag figures).
func TestFigures(t *testing.T) {
	broker, centre := startMosquitto(t), natstest.Start(t, "")
	n := newNode(t, fmt.Sprintf(`
ingest:
  mqtt:
    - name: plant
      url: mqtt://%s
      client_id: gw-17
      topics: [{filter: sensors/#, qos: 1, stream: telemetry, partition_key: "{topic[1]}"}]
video:
  cameras:
    - {name: dock, url: "rtp://127.0.0.1:%d"}
uplink:
  - {name: central, type: nats, url: "%s", create: WEIR, streams: [telemetry]}`, broker, freePort(t), centre.URL()))
	n.start()
	until(t, 20*time.Second, "weir is healthy", n.healthy)
	var table figures
	n.idle(&table)
	p := publisher(t, broker)
	n.paced(&table, p, "log and centre")
	n.stop()

	// Flat out, without a sink: mosquitto into the durable log, and beside it
	// mosquitto to a client that only acknowledges.
	n = newNode(t, fmt.Sprintf(`
ingest:
  mqtt:
    - name: plant
      url: mqtt://%s
      client_id: gw-18
      topics: [{filter: sensors/#, qos: 1, stream: telemetry, partition_key: "{topic[1]}"}]`, broker))
	n.start()
	until(t, 20*time.Second, "weir is healthy", n.healthy)
	n.paced(&table, p, "log alone")
	plain := peer(t, broker, p)
	n.flatOut(&table, p, plain)
	n.stop()
	brokerFigures(t, &table)
	t.Logf("\n%s", table.String())
}

// brokerFigures measures the broker for devices, with its log on the disk and a
// commit window of 50 ms.
func brokerFigures(t *testing.T, table *figures) {
	t.Helper()
	n, target := brokerNode(t)
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		options brokertest.Options
		goal    string
	}{
		{brokertest.Options{Clients: 1, InFlight: 20}, ""},
		{brokertest.Options{Clients: 1, InFlight: 100}, ">= 1000"},
		{brokertest.Options{Clients: 1, InFlight: 256}, ""},
		{brokertest.Options{Clients: 100, InFlight: 20}, ">= 20000"},
		{brokertest.Options{Clients: 100, InFlight: 100}, ""},
		{brokertest.Options{Clients: 1000, InFlight: 2, Rate: 1000}, ""},
	} {
		o := c.options
		o.Username, o.Password, o.Duration = target.Username, target.Password, 8*time.Second
		before := cpu(t, n.cmd.Process.Pid)
		r, err := brokertest.Load(t.Context(), target.Address, o)
		if err != nil {
			t.Fatal(err)
		}
		used := cpu(t, n.cmd.Process.Pid) - before
		name := fmt.Sprintf("broker, %d clients, %d in flight", o.Clients, o.InFlight)
		if o.Rate > 0 {
			name += fmt.Sprintf(", %d/s wanted", o.Rate)
		}
		table.add(name+", acknowledged", r.PerSecond, "messages/s", c.goal)
		table.add(name+", latency, median", float64(r.Median)/float64(time.Millisecond), "ms", "")
		table.add(name+", latency, 99 %", float64(r.P99)/float64(time.Millisecond), "ms", "")
		table.add(name+", processor a message", used.Seconds()*1e6/float64(r.Acknowledged), "microseconds", "")
		table.add(name+", resident", float64(n.memory())/(1<<20), "MiB", "")
	}
}

// figures is a table of what was measured.
type figures struct{ rows []string }

func (f *figures) add(name string, value float64, unit, goal string) {
	f.rows = append(f.rows, fmt.Sprintf("%-62s %10.2f %-14s %s", name, value, unit, goal))
}

func (f *figures) String() string { return strings.Join(f.rows, "\n") }

// pass lets time go by.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	until(t, d+time.Minute, "time passes", after(d, func() {}))
}

func (n *node) idle(table *figures) {
	n.t.Helper()
	pass(n.t, 10*time.Second)
	table.add("idle daemon, resident", float64(n.memory())/(1<<20), "MiB", "<= 40")
	before, began := cpu(n.t, n.cmd.Process.Pid), time.Now()
	pass(n.t, 20*time.Second)
	used := cpu(n.t, n.cmd.Process.Pid) - before
	table.add("idle daemon, processor", 100*used.Seconds()/time.Since(began).Seconds(), "% of a core", "<= 1")
}

// paced measures a thousand messages of 256 bytes a second.
func (n *node) paced(table *figures, p paho.Client, where string) {
	n.t.Helper()
	payload := strings.Repeat("x", 256)
	written := n.written()
	before, began := cpu(n.t, n.cmd.Process.Pid), time.Now()
	const seconds, rate = 20, 1000
	for i := range seconds * 100 {
		var last paho.Token
		for j := range rate / 100 {
			last = p.Publish(fmt.Sprintf("sensors/k%d/v", (i+j)%200), 1, false, payload)
		}
		last.WaitTimeout(10 * time.Second)
		if ahead := time.Duration(i+1)*10*time.Millisecond - time.Since(began); ahead > 0 {
			<-time.After(ahead) // the pace
		}
	}
	used := cpu(n.t, n.cmd.Process.Pid) - before
	table.add("1,000 messages/s of 256 B, "+where+", processor", 100*used.Seconds()/time.Since(began).Seconds(), "% of a core", "<= 5")
	table.add("1,000 messages/s of 256 B, "+where+", resident", float64(n.memory())/(1<<20), "MiB", "")
	table.add("1,000 messages/s of 256 B, "+where+", written", float64(n.written()-written)/(seconds*rate*256), "per byte", "")
}

// written is what the process had the kernel write to disk, in bytes.
func (n *node) written() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	var bytes int64
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	return bytes
}

const burst = 60_000

// flood publishes burst messages as fast as the broker takes them.
func flood(t *testing.T, p paho.Client) {
	payload := strings.Repeat("x", 256)
	var tokens []paho.Token
	for i := range burst {
		tokens = append(tokens, p.Publish(fmt.Sprintf("sensors/k%d/v", i%200), 1, false, payload))
		if len(tokens) == 500 {
			for _, token := range tokens {
				if !token.WaitTimeout(time.Minute) {
					t.Error("the broker does not answer")
					return
				}
			}
			tokens = tokens[:0]
		}
	}
}

// peer is mosquitto's own rate to a client that only acknowledges.
func peer(t *testing.T, broker string, p paho.Client) float64 {
	t.Helper()
	var got atomic.Int64
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("peer"))
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer c.Disconnect(100)
	if token := c.Subscribe("sensors/#", 1, func(paho.Client, paho.Message) { got.Add(1) }); !token.WaitTimeout(10 * time.Second) {
		t.Fatal("no SUBACK")
	}
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood(t, p)
	}()
	until(t, 2*time.Minute, "the peer has all", func() bool { return got.Load() >= burst })
	<-done
	return burst / time.Since(began).Seconds()
}

// flatOut measures weir at the same.
func (n *node) flatOut(table *figures, p paho.Client, plain float64) {
	n.t.Helper()
	// The peer's messages came here as well: wait until they are through.
	until(n.t, 2*time.Minute, "weir has the peer's messages", func() bool { return n.records() >= burst+20_000 })
	start := n.records()
	before, began := cpu(n.t, n.cmd.Process.Pid), time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood(n.t, p)
	}()
	until(n.t, 2*time.Minute, "weir has all", func() bool { return n.records() >= start+burst })
	rate := burst / time.Since(began).Seconds()
	<-done
	used := cpu(n.t, n.cmd.Process.Pid) - before
	table.add("QoS 1 from mosquitto into the durable log", rate, "messages/s", "")
	table.add("QoS 1 from mosquitto to a client that only acknowledges", plain, "messages/s", "(the peer)")
	table.add("the log over the peer", rate/plain, "", "")
	table.add("processor a message", used.Seconds()*1e6/burst, "microseconds", "")
	table.add("resident after 120,000 messages", float64(n.memory())/(1<<20), "MiB", "")
}

// records is how many records the stream has taken.
func (n *node) records() int64 {
	var next int64
	for _, line := range lines(n.run("streams", "list")) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[0] == "telemetry" {
			if _, err := fmt.Sscan(fields[3], &next); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	return next
}

// cpu is the processor time the process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("stat of %d: %s", pid, b)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// memory is the resident set of the process in bytes; 0 if it is not running.
func (n *node) memory() int64 {
	if n.cmd == nil {
		return 0
	}
	return status(n.cmd.Process.Pid, "VmRSS:") << 10
}
