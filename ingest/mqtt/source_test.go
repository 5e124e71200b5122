package mqtt

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/message"
)

func config(address string, topics ...Topic) Config {
	c := DefaultConfig()
	c.URL, c.ClientID = "mqtt://"+address, "weir-test"
	c.Retry = value.Backoff{Min: value.Duration(5 * time.Millisecond), Max: value.Duration(50 * time.Millisecond)}
	c.Topics = topics
	return c
}

func topic(filter string, qos int, stream, key string) Topic {
	return Topic{Filter: filter, QoS: qos, Stream: stream, PartitionKey: key}
}

// publishNumbered publishes n messages over 20 keys: key k gets 0, 1, 2, …
func publishNumbered(t *testing.T, p paho.Client, n int, qos byte) {
	t.Helper()
	var last paho.Token
	for i := range n {
		last = p.Publish(fmt.Sprintf("sensors/k%d/v", i%20), qos, false, strconv.Itoa(i/20))
		if (i%100 == 99 || qos == 2 && i%10 == 9) && !last.WaitTimeout(30*time.Second) {
			t.Fatal("the broker does not answer the publisher")
		}
	}
	if !last.WaitTimeout(30*time.Second) || last.Error() != nil {
		t.Fatal("the broker does not answer the publisher")
	}
}

// checkNumbered wants each message once, in order per key.
func checkNumbered(t *testing.T, list []buffer.Entry, n int) {
	t.Helper()
	next := map[string]int{}
	for _, e := range list {
		if want := strconv.Itoa(next[e.PartitionKey]); string(e.Data) != want {
			t.Fatalf("sequence %s of key %s is %s, want %s (dup %q)", e.Sequence, e.PartitionKey, e.Data, want, e.Attribute(message.AttrDup))
		}
		next[e.PartitionKey]++
	}
	if len(list) != n {
		t.Fatalf("%d messages, want %d", len(list), n)
	}
}

func TestQualitiesOfService(t *testing.T) {
	for qos := range 3 {
		t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
			b := startBroker(t, "")
			l := openLog(t, filepath.Join(t.TempDir(), "log"))
			defer l.Close()
			s, stop := startSource(t, config(b.address(), topic("sensors/+/v", qos, "telemetry", "{topic[1]}")), l)
			defer stop()
			until(t, "subscribed", func() bool { return s.Status().State == Connected })
			publishNumbered(t, b.publisher(t), 2000, byte(qos))
			until(t, "all appended", func() bool { return s.Status().Appended == 2000 })
			stop()
			list := entries(t, l, "telemetry")
			checkNumbered(t, list, 2000)
			e := list[0]
			if e.Attribute(message.AttrTopic) != "sensors/k0/v" || e.Attribute(message.AttrQoS) != strconv.Itoa(qos) || e.Attribute(ingest.AttrSource) != "mqtt" {
				t.Errorf("attributes %v", e.Attributes)
			}
		})
	}
}

// TestCuts cuts the connection at random moments: every message is in the log
// once, in order per key.
func TestCuts(t *testing.T) {
	for _, qos := range []int{1, 2} {
		t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
			const n = 10_000
			b := startBroker(t, "max_inflight_messages 100")
			proxy := startCutter(t, b.address())
			l := openLog(t, filepath.Join(t.TempDir(), "log"))
			defer l.Close()
			s, stop := startSource(t, config(proxy.listener.Addr().String(), topic("sensors/#", qos, "telemetry", "{topic[1]}")), l)
			defer stop()
			until(t, "subscribed", func() bool { return s.Status().State == Connected })
			done := make(chan struct{})
			go func() {
				defer close(done)
				publishNumbered(t, b.publisher(t), n, byte(qos))
			}()
			for i := range 30 {
				goal := int64(n/31*(i+1) + rand.IntN(50))
				until(t, "progress", func() bool { return s.Status().Appended >= goal })
				proxy.cut()
			}
			<-done
			until(t, "all appended", func() bool { return s.Status().Appended >= n })
			stop()
			t.Logf("%+v", s.Status())
			checkNumbered(t, entries(t, l, "telemetry"), n)
		})
	}
}

// TestNewProcess replaces source and log at random moments as a kill does: the
// connection is cut first, so that nothing more gets out.
func TestNewProcess(t *testing.T) {
	const n = 6000
	b := startBroker(t, "max_inflight_messages 200")
	proxy := startCutter(t, b.address())
	dir := filepath.Join(t.TempDir(), "log")
	c := config(proxy.listener.Addr().String(), topic("sensors/#", 1, "telemetry", "{topic[1]}"))
	l := openLog(t, dir)
	s, stop := startSource(t, c, l)
	until(t, "subscribed", func() bool { return s.Status().State == Connected })
	done := make(chan struct{})
	go func() {
		defer close(done)
		publishNumbered(t, b.publisher(t), n, 1)
	}()
	var before int64
	for i := range 10 {
		goal := int64(n/12*(i+1) + rand.IntN(100))
		until(t, "progress", func() bool { return before+s.Status().Appended >= goal })
		proxy.cut()
		stop()
		before += s.Status().Appended
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir)
		s, stop = startSource(t, c, l)
	}
	<-done
	until(t, "all appended", func() bool { return before+s.Status().Appended >= n })
	stop()
	defer l.Close()
	checkNumbered(t, entries(t, l, "telemetry"), n)
}

// TestDeliversBeforeSubscribe: what waits in a resumed session comes before
// SUBSCRIBE and is not lost. Broker restarts keep the session.
func TestDeliversBeforeSubscribe(t *testing.T) {
	b := startBroker(t, "")
	l := openLog(t, filepath.Join(t.TempDir(), "log"))
	defer l.Close()
	c := config(b.address(), topic("sensors/#", 1, "telemetry", "{topic[1]}"))
	s, stop := startSource(t, c, l)
	until(t, "subscribed", func() bool { return s.Status().State == Connected })
	stop()
	p := b.publisher(t)
	publishNumbered(t, p, 500, 1)
	p.Disconnect(100)
	b.stop()
	b.start()
	s, stop = startSource(t, c, l)
	defer stop()
	until(t, "all appended", func() bool { return s.Status().Appended == 500 })
	if !s.Status().SessionPresent {
		t.Error("the session was not there")
	}
	checkNumbered(t, entries(t, l, "telemetry"), 500)
}

// TestBrokerRestarted ends mosquitto and starts it anew in the middle: what it
// had saved on its way to the source is in the log once, in order.
func TestBrokerRestarted(t *testing.T) {
	const n = 5000
	b := startBroker(t, "max_inflight_messages 100")
	l := openLog(t, filepath.Join(t.TempDir(), "log"))
	defer l.Close()
	s, stop := startSource(t, config(b.address(), topic("sensors/#", 1, "telemetry", "{topic[1]}")), l)
	defer stop()
	p := b.publisher(t)
	for part := range 5 {
		until(t, "subscribed", func() bool { return s.Status().State == Connected })
		for i := part * n / 5; i < (part+1)*n/5; i++ {
			token := p.Publish(fmt.Sprintf("sensors/k%d/v", i%20), 1, false, fmt.Sprint(i/20))
			if i%100 == 99 && (!token.WaitTimeout(30*time.Second) || token.Error() != nil) {
				t.Fatal("the broker does not answer the publisher")
			}
		}
		if part == 4 {
			break
		}
		p.Disconnect(100)
		b.stop() // saves its sessions with what is still on the way to us
		until(t, "the source notices", func() bool { return s.Status().State == Away })
		b.start()
		p = b.publisher(t)
	}
	until(t, "all appended", func() bool { return s.Status().Appended >= n })
	stop()
	if got := s.Status().Connects; got < 5 {
		t.Errorf("%d connects", got)
	}
	checkNumbered(t, entries(t, l, "telemetry"), n)
}

// TestSetAside: what cannot be appended does not block what comes behind it.
func TestSetAside(t *testing.T) {
	b := startBroker(t, "message_size_limit 20000000")
	l := openLog(t, filepath.Join(t.TempDir(), "log"))
	defer l.Close()
	s, stop := startSource(t, config(b.address(),
		topic("json/#", 1, "telemetry", "{json.id}"), topic("raw/#", 1, "telemetry", "{topic}")), l)
	defer stop()
	until(t, "subscribed", func() bool { return s.Status().State == Connected })
	p := b.publisher(t)
	for _, m := range []struct{ topic, payload string }{
		{"json/a", `{"id":"x"}`}, {"json/b", "no json"}, {"json/c", `{"other":1}`},
		{"raw/big", strings.Repeat("x", 3<<20)}, {"raw/just", strings.Repeat("y", 1<<20+100)}, {"raw/ok", "fine"},
	} {
		if token := p.Publish(m.topic, 1, false, m.payload); !token.WaitTimeout(30*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	until(t, "all handled", func() bool { return s.Status().Acknowledged == 6 })
	stop()
	if list := entries(t, l, "telemetry"); len(list) != 2 || list[0].PartitionKey != "x" || string(list[1].Data) != "fine" {
		t.Errorf("telemetry has %d entries", len(list))
	}
	aside := entries(t, l, ingest.Aside)
	if len(aside) != 4 {
		t.Fatalf("%d set aside, want 4", len(aside))
	}
	for i, want := range []string{"payload is not JSON", "payload has no field id", "payload of 3145728 bytes is over the limit of 1MiB", "payload of 1048676 bytes is over the limit of 1MiB"} {
		if got := aside[i].Attribute(ingest.AttrReason); got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
	}
	if got := aside[2].Attribute(ingest.AttrSize); got != "3145728" || len(aside[2].Data) != ingest.MaxAsideBytes {
		t.Errorf("size %s, %d bytes kept", got, len(aside[2].Data))
	}
	if s.Status().SetAside != 4 {
		t.Errorf("%d counted", s.Status().SetAside)
	}
}
