package acceptance

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/broker/brokertest"
)

// brokerNode is a node that devices connect to, with users.
func brokerNode(t *testing.T) (*node, brokertest.Target) {
	t.Helper()
	port := freePort(t)
	users := filepath.Join(t.TempDir(), "users.yaml")
	n := newNode(t, fmt.Sprintf(`
streams: {telemetry: {shards: 2}}
ingest:
  broker:
    listen: tcp://127.0.0.1:%d
    users_file: %s
    topics: [{filter: brokertest/#, stream: telemetry, partition_key: "{client_id}"}]`, port, users))
	for _, u := range []struct{ name, topics string }{{"suite", "#"}, {"limited", "brokertest/limited/#"}} {
		cmd := exec.Command(n.binary, "passwd", users, u.name, "--publish", u.topics, "--subscribe", u.topics)
		cmd.Stdin = strings.NewReader("correct horse\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("weir passwd: %v: %s", err, out)
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	return n, brokertest.Target{
		Address: address, Username: "suite", Password: "correct horse", MaxPacketBytes: 1 << 20,
		Limited: &brokertest.Limited{Username: "limited", Password: "correct horse"},
		Kill:    func() error { n.kill(); return nil },
		Start: func() error {
			n.start()
			until(t, 20*time.Second, "the broker listens", func() bool {
				c, err := net.Dial("tcp", address)
				return err == nil && c.Close() == nil
			})
			return nil
		},
	}
}

// TestBrokerStandard holds the broker, as it is shipped, against the statements
// of MQTT 3.1.1 and 5.
func TestBrokerStandard(t *testing.T) {
	n, target := brokerNode(t)
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	brokertest.Suite(t, func(*testing.T) brokertest.Target { return target })
	if !n.healthy() {
		t.Error("weir is not healthy afterwards")
	}
}

// TestBrokerPeers: what other people's clients were told is safe is in the log,
// in order, and comes to a subscriber with a session, over a SIGKILL.
func TestBrokerPeers(t *testing.T) {
	n, target := brokerNode(t)
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	for _, p := range brokertest.Peers(target) {
		t.Run(p.Name, func(t *testing.T) {
			const count = 2000
			id := "peer-" + strings.ReplaceAll(p.Name, " ", "-")
			r := p.Publish(t, target, brokertest.Run{Topic: "brokertest/" + id, ClientID: id, Count: count, Restart: true, Subscribe: true})
			stored := n.numbers(t, id)
			for _, number := range r.Acknowledged {
				if !slices.Contains(stored, number) {
					t.Fatalf("%d was acknowledged and is not in the log", number)
				}
			}
			if first := firsts(stored); !slices.IsSorted(first) || len(first) != count {
				t.Errorf("the log holds %d numbers, sorted: %v", len(first), slices.IsSorted(first))
			}
			if len(firsts(r.Received)) != count {
				t.Errorf("the subscriber got %d", len(firsts(r.Received)))
			}
			t.Logf("%d acknowledged before the kill, %d in all; the log holds %d, %d of them twice",
				r.BeforeRestart, len(r.Acknowledged), len(stored), len(stored)-count)
		})
	}
}

// numbers are the payloads of a client's records, in their order.
func (n *node) numbers(t *testing.T, client string) (list []int) {
	t.Helper()
	for _, line := range lines(n.run("tail", "telemetry", "--from", "trim-horizon", "--json")) {
		var record struct {
			Key  string `json:"partition_key"`
			Data string `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if record.Key != client {
			continue
		}
		number, err := strconv.Atoi(record.Data)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, number)
	}
	return list
}

// firsts are the numbers at their first place.
func firsts(list []int) (out []int) {
	seen := map[int]bool{}
	for _, n := range list {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// TestBrokerSiege: a hundred hostile strangers, and thirty devices that went
// wrong, cost the others neither their connection nor much of their time, and the
// node little memory.
func TestBrokerSiege(t *testing.T) {
	n, target := brokerNode(t)
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []brokertest.Siege{
		{Hostile: 100, Good: 100, Duration: 10 * time.Second},
		{Hostile: 30, Good: 20, Duration: 10 * time.Second, Insider: true},
	} {
		before := n.peak()
		r := s.Run(t, target)
		t.Logf("%d hostile (insiders: %v), %d good: %d messages, the slowest %s, %d connections opened, peak %d MiB (%d before)",
			s.Hostile, s.Insider, s.Good, r.Messages, r.Slowest.Round(time.Millisecond), r.Opened, n.peak()>>20, before>>20)
		if n.peak() > 256<<20 { // what the unit gives it
			t.Errorf("weir took %d MiB", n.peak()>>20)
		}
	}
	if !n.healthy() {
		t.Error("weir is not healthy afterwards")
	}
}
