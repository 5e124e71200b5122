// Package ingesttest is what every source must do, as a test suite: Suite runs
// it on one kind of source, which a Harness joins to it. The source works over
// the package's Log, which fails as the suite tells it.
//
// The rules are those of package ingest: nothing is acknowledged before it is
// durable; a full log withholds acknowledgements and loses nothing; what can
// never be appended is set aside, or refused to the device, and blocks nothing;
// stopping takes a bounded
// time, and what was not acknowledged then comes again.
//
// What belongs to a protocol (breaks, redelivery, TLS) is tested in its own
// package.
package ingesttest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest"
)

// Stream is where the source under test has to put what the harness sends.
const Stream = "telemetry"

// Harness joins the suite to one kind of source. Each test of the suite makes
// its own with the function given to Suite.
type Harness struct {
	// Start starts the source over log, and returns what stops it as the daemon
	// does and waits for it. It may be called again after that.
	Start func(t *testing.T, log *Log) (stop func())
	// Send has the device send a message with this partition key. It does not
	// wait for the acknowledgement, and works while the source is stopped if the
	// protocol keeps messages.
	Send func(t *testing.T, key, data string)
	// Acknowledged is how many messages the device knows to be safe.
	Acknowledged func() int
	// Unmappable has the device send what has no partition key; nil: there is no
	// such thing.
	Unmappable func(t *testing.T)
	// Again says that the protocol delivers again what was not acknowledged.
	Again bool
	// Answers says that the protocol tells the device why a message can never be
	// appended. The device has to count that as neither acknowledged nor to be
	// sent again, and the source sets nothing aside.
	Answers bool
}

// Suite tests the contract of a source.
func Suite(t *testing.T, harness func(t *testing.T) Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"appends in order", appendsInOrder},
		{"acknowledges only what is durable", durableFirst},
		{"a full log withholds and loses nothing", fullWithholds},
		{"sets aside what the log refuses", setsAsideRefused},
		{"sets aside what has no key", setsAsideUnmappable},
		{"stops while the log hangs", stopsWhileHanging},
		{"stops while the log is full", stopsWhileFull},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, harness(t)) })
	}
}

func start(t *testing.T, h Harness, log *Log) (stop func()) {
	t.Helper()
	stop = h.Start(t, log)
	t.Cleanup(stop)
	return stop
}

// until polls with a deadline.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// stays wants ok for a fifth of a second.
func stays(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 10 {
		if <-tick.C; !ok() {
			t.Fatalf("not so: %s", what)
		}
	}
}

func data(entries []buffer.Entry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, string(e.Data))
	}
	return list
}

func appendsInOrder(t *testing.T, h Harness) {
	log := NewLog()
	start(t, h, log)
	const n = 300
	for i := range n {
		h.Send(t, fmt.Sprintf("key%d", i%3), fmt.Sprint(i/3))
	}
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == n })
	next := map[string]int{}
	for _, e := range log.Entries(Stream) {
		if got, want := string(e.Data), fmt.Sprint(next[e.PartitionKey]); got != want {
			t.Fatalf("key %s: %s, want %s", e.PartitionKey, got, want)
		}
		next[e.PartitionKey]++
		if e.Attribute(ingest.AttrSource) == "" || e.Arrival.IsZero() {
			t.Fatalf("a record names no source or has no time: %+v", e.Record)
		}
	}
	if len(next) != 3 || next["key0"]+next["key1"]+next["key2"] != n {
		t.Errorf("the log holds %v", next)
	}
}

func durableFirst(t *testing.T, h Harness) {
	log := NewLog()
	release := log.Hold()
	start(t, h, log)
	for i := range 5 {
		h.Send(t, "key", fmt.Sprint(i))
	}
	until(t, "an append is under way", func() bool { return log.Waiting() > 0 })
	stays(t, "nothing is acknowledged before it is durable", func() bool { return h.Acknowledged() == 0 })
	release()
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == 5 })
	if got := data(log.Entries(Stream)); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("the log holds %v", got)
	}
}

func fullWithholds(t *testing.T, h Harness) {
	log := NewLog()
	log.Fill(true)
	start(t, h, log)
	for i := range 5 {
		h.Send(t, "key", fmt.Sprint(i))
	}
	until(t, "it tries again", func() bool { return log.Refused() >= 2 })
	if got := h.Acknowledged(); got != 0 {
		t.Fatalf("%d acknowledged with a full log", got)
	}
	log.Fill(false)
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == 5 })
	if got := data(log.Entries(Stream)); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("the log holds %v", got)
	}
}

func setsAsideRefused(t *testing.T, h Harness) {
	log := NewLog()
	log.Refuse(func(stream string, r *buffer.Record) error {
		if stream == Stream && string(r.Data) == "poison" {
			return fmt.Errorf("%w: it is poison", buffer.ErrInvalid)
		}
		return nil
	})
	release := log.Hold() // so that they are appended together
	start(t, h, log)
	for _, text := range []string{"a", "poison", "b", "poison", "c"} {
		h.Send(t, "key", text)
	}
	until(t, "an append is under way", func() bool { return log.Waiting() > 0 })
	release()
	want := 5
	if h.Answers {
		want = 3
	}
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == want })
	if got := data(log.Entries(Stream)); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("the log holds %v", got)
	}
	aside := log.Entries(ingest.Aside)
	if h.Answers {
		if len(aside) != 0 {
			t.Errorf("set aside, although the device was told: %v", data(aside))
		}
		return
	}
	if got := data(aside); !slices.Equal(got, []string{"poison", "poison"}) {
		t.Fatalf("set aside: %v", got)
	}
	for _, key := range []string{ingest.AttrReason, ingest.AttrSource} {
		if aside[0].Attribute(key) == "" {
			t.Errorf("no attribute %s on what was set aside: %v", key, aside[0].Attributes)
		}
	}
	if got := aside[0].Attribute(ingest.AttrStream); got != Stream {
		t.Errorf("it should have gone to %q", got)
	}
}

func setsAsideUnmappable(t *testing.T, h Harness) {
	if h.Unmappable == nil {
		return
	}
	log := NewLog()
	start(t, h, log)
	h.Send(t, "key", "a")
	h.Unmappable(t)
	h.Send(t, "key", "b")
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == 3 })
	if got := data(log.Entries(Stream)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the log holds %v", got)
	}
	if aside := log.Entries(ingest.Aside); len(aside) != 1 || aside[0].Attribute(ingest.AttrReason) == "" {
		t.Errorf("set aside: %v", aside)
	}
}

func stopsWhileHanging(t *testing.T, h Harness) {
	log := NewLog()
	release := log.Hold()
	stop := start(t, h, log)
	for i := range 5 {
		h.Send(t, "key", fmt.Sprint(i))
	}
	until(t, "an append is under way", func() bool { return log.Waiting() > 0 })
	stopsInTime(t, h, stop)
	release()
	comesAgain(t, h, log)
}

func stopsWhileFull(t *testing.T, h Harness) {
	log := NewLog()
	log.Fill(true)
	stop := start(t, h, log)
	for i := range 5 {
		h.Send(t, "key", fmt.Sprint(i))
	}
	until(t, "it was refused", func() bool { return log.Refused() > 0 })
	stopsInTime(t, h, stop)
	log.Fill(false)
	comesAgain(t, h, log)
}

// stopsInTime: weir has ten seconds for all of its parts.
func stopsInTime(t *testing.T, h Harness, stop func()) {
	t.Helper()
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if got := h.Acknowledged(); got != 0 {
		t.Errorf("%d acknowledged that are not in the log", got)
	}
}

func comesAgain(t *testing.T, h Harness, log *Log) {
	t.Helper()
	if !h.Again {
		return
	}
	start(t, h, log)
	until(t, "all acknowledged", func() bool { return h.Acknowledged() == 5 })
	if got := data(log.Entries(Stream)); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("the log holds %v", got)
	}
}
