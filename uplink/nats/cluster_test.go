package nats_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/uplink/nats/natstest"
)

// Three servers hold the stream; its leader is killed again and again. What was
// on its way to the old leader is lost or late, and the chain notices.
func TestLeaderOfAReplicatedStreamKilled(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		servers := natstest.StartCluster(t, 3)
		js, closeJS := servers[0].Connect()
		config := jetstream.StreamConfig{
			Name: "WEIR", Subjects: []string{"weir.>"}, Replicas: 3, Duplicates: 100 * time.Millisecond, AllowAtomicPublish: atomic,
		}
		// A cluster that has just come up says for a while that it is not there yet.
		deadline := time.Now().Add(30 * time.Second)
		for {
			_, err := js.CreateStream(t.Context(), config)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			pass(100 * time.Millisecond)
		}
		closeJS()
		var urls []string
		for _, s := range servers {
			urls = append(urls, s.URL())
		}
		n := newNode(t, "gw-17", strings.Join(urls, ","), "telemetry", "alerts")
		n.append("telemetry", 1000)
		n.run()
		for round := range 2 {
			var feeding sync.WaitGroup
			feeding.Go(func() {
				for range 20 {
					n.append("telemetry", 300)
					n.append("alerts", 30)
				}
			})
			leader := servers[round%3]
			if name := leaderOf(t, servers[round%3]); name != "" {
				leader = servers[int(name[1]-'0')]
			}
			pass(30 * time.Millisecond)
			leader.Kill()
			feeding.Wait()
			leader.Start()
			n.drained()
		}
		n.halt()
		check(t, servers[0], n)
		t.Logf("%+v", n.pump.Status())
	})
}

// leaderOf is the name of the server that leads the stream.
func leaderOf(t *testing.T, server *natstest.Server) string {
	t.Helper()
	js, closeJS := server.Connect()
	defer closeJS()
	stream, err := js.Stream(t.Context(), "WEIR")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Cluster.Leader
}
