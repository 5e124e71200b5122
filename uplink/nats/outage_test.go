package nats_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

// makeStream makes WEIR with a duplicate window so short that it helps nobody.
func makeStream(t *testing.T, server *natstest.Server, atomic bool) {
	t.Helper()
	js, closeJS := server.Connect()
	defer closeJS()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "WEIR", Subjects: []string{"weir.>"}, Duplicates: 100 * time.Millisecond, AllowAtomicPublish: atomic,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pass waits; the test is about time that goes by in another process.
func pass(d time.Duration) { <-time.After(d) }

// both runs a test with chains and with atomic batches.
func both(t *testing.T, f func(t *testing.T, atomic bool)) {
	for name, atomic := range map[string]bool{"chain": false, "atomic": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, atomic)
		})
	}
}

func TestServerAwayLongerThanItsDuplicateWindow(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	makeStream(t, server, false)
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 3000)
	n.run()
	n.drained()
	server.Stop()
	n.append("telemetry", 3000)
	pass(time.Second)
	if s := n.pump.Status(); s.Connected || s.LastError == "" || s.Retries == 0 {
		t.Errorf("status while the centre is away: %+v", s)
	}
	server.Start()
	n.drained()
	n.halt()
	check(t, server, n)
	if s := n.pump.Status(); s.LastError != "" || s.SentRecords+s.DuplicatesSkipped != 6000 {
		t.Errorf("status: %+v", s)
	}
}

func TestServerKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		server := natstest.Start(t, "")
		makeStream(t, server, atomic)
		n := newNode(t, "gw-17", server.URL(), "telemetry", "alerts")
		n.append("telemetry", 1000)
		n.run()
		for range 6 {
			var feeding sync.WaitGroup
			feeding.Go(func() {
				for range 10 {
					n.append("telemetry", 700)
					n.append("alerts", 50)
				}
			})
			pass(time.Duration(rand.IntN(60)) * time.Millisecond)
			server.Kill()
			feeding.Wait()
			pass(150 * time.Millisecond)
			server.Start()
		}
		n.drained()
		n.halt()
		check(t, server, n)
		t.Logf("%+v", n.pump.Status())
	})
}

func TestConnectionCutFiftyTimes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		server := natstest.Start(t, "")
		makeStream(t, server, atomic)
		proxy := natstest.NewProxy(t, server.Address())
		n := newNode(t, "gw-17", proxy.URL(), "telemetry", "alerts", "averages")
		n.run()
		var feeding sync.WaitGroup
		feeding.Go(func() {
			for range 50 {
				n.append("telemetry", 600)
				n.append("alerts", 100)
				n.append("averages", 100)
				pass(20 * time.Millisecond)
			}
		})
		for range 50 {
			pass(time.Duration(rand.IntN(60)) * time.Millisecond)
			proxy.Cut()
		}
		feeding.Wait()
		n.drained()
		n.halt()
		check(t, server, n)
		t.Logf("%+v", n.pump.Status())
	})
}

// What a broken connection still carries arrives after the same records were
// read back, sent again, and forgotten by the duplicate window.
func TestLateBytesOfABrokenConnection(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		server := natstest.Start(t, "")
		makeStream(t, server, atomic)
		proxy := natstest.NewProxy(t, server.Address())
		n := newNode(t, "gw-17", proxy.URL(), "telemetry")
		n.append("telemetry", 500)
		n.run()
		n.drained()
		for range 5 {
			proxy.Hold()
			n.append("telemetry", 400)
			pass(50 * time.Millisecond) // it is sent into the held connection
			proxy.Hangup()
			n.drained() // through a new one
			pass(300 * time.Millisecond)
			proxy.Release()
			n.append("telemetry", 100)
			n.drained()
			pass(100 * time.Millisecond)
		}
		n.halt()
		check(t, server, n)
		t.Logf("%+v", n.pump.Status())
	})
}

func TestTwoNodesShareTheStream(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		server := natstest.Start(t, "")
		makeStream(t, server, atomic)
		a := newNode(t, "gw-17", server.URL(), "telemetry", "alerts", "averages")
		b := newNode(t, "gw-18", server.URL(), "telemetry", "alerts", "averages")
		for _, n := range []*node{a, b} {
			n.append("telemetry", 10_000)
			n.append("alerts", 5000)
		}
		a.run()
		b.run()
		for range 20 {
			a.append("averages", 100)
			b.append("averages", 100)
			pass(10 * time.Millisecond)
		}
		a.drained()
		b.drained()
		a.halt()
		b.halt()
		check(t, server, a, b)
		t.Logf("%+v", a.pump.Status())
		t.Logf("%+v", b.pump.Status())
	})
}

// After a crash the position, and the mark with it, are what they were a
// second before.
func TestPositionIsBehindAfterACrash(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, atomic bool) {
		server := natstest.Start(t, "")
		makeStream(t, server, atomic)
		n := newNode(t, "gw-17", server.URL(), "telemetry", "alerts")
		n.append("telemetry", 300)
		n.run()
		n.drained()
		for range 5 {
			was, err := n.log.Checkpoint("uplink.central")
			if err != nil {
				t.Fatal(err)
			}
			n.append("telemetry", 2500)
			n.append("alerts", 20)
			n.drained()
			n.halt()
			if err := n.log.Commit(t.Context(), buffer.Commit{Consumer: "uplink.central", Positions: was.Positions, State: was.State}); err != nil {
				t.Fatal(err)
			}
			pass(200 * time.Millisecond) // longer than the duplicate window
			n.run()
			n.append("telemetry", 100)
			n.drained()
			if s := n.pump.Status(); s.DuplicatesSkipped != 2520 || s.SentRecords != 100 {
				t.Errorf("status: %+v", s)
			}
		}
		n.halt()
		check(t, server, n)
	})
}

// The consumer itself is gone: everything is read back.
func TestWithoutACheckpoint(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	makeStream(t, server, false)
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 7000)
	n.run()
	n.drained()
	n.halt()
	if err := n.log.DeleteConsumer(t.Context(), "uplink.central"); err != nil {
		t.Fatal(err)
	}
	n.append("telemetry", 50)
	n.run()
	n.drained()
	n.halt()
	check(t, server, n)
	if s := n.pump.Status(); s.SentRecords != 50 {
		t.Errorf("status: %+v", s)
	}
}
