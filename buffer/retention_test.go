package buffer

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
)

// fakeClock is a clock that a test moves.
type fakeClock struct {
	mu  sync.Mutex
	now instant
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: instant{wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), monotonic: time.Hour, boot: 1, synced: true}}
}

func (c *fakeClock) read() instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// pass lets time go by; jump moves the wall clock alone.
func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.wall, c.now.monotonic = c.now.wall.Add(d), c.now.monotonic+d
}

func (c *fakeClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.wall = c.now.wall.Add(d)
}

func blob(n int) Record {
	data := make([]byte, n)
	_, _ = rand.Read(data) // never fails
	return Record{PartitionKey: "k", Data: data}
}

func mustAppend(t *testing.T, l *Log, stream string, records ...Record) []Position {
	t.Helper()
	positions, err := l.Append(t.Context(), stream, records...)
	if err != nil {
		t.Fatal(err)
	}
	return positions
}

// TestDiskBudget writes five times the budget: the oldest records go, are told
// as a gap, and the numbering goes on over a restart.
func TestDiskBudget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	change := func(c *Config, o *Options) {
		c.MaxBytes, c.ReserveBytes, c.Commit.MaxDelay = 32<<20, 1, 0
	}
	l := open(t, dir, change)
	if err := l.Commit(t.Context(), Commit{Consumer: "slow"}); err != nil {
		t.Fatal(err)
	}
	const n = 1600 // of 100 KiB
	for i := range n {
		mustAppend(t, l, "s", blob(100<<10))
		if i == 0 {
			if err := l.Commit(t.Context(), Commit{Consumer: "slow", Positions: map[ShardKey]Sequence{{Stream: "s"}: 2}}); err != nil {
				t.Fatal(err)
			}
		}
		if used := l.Stats().DiskBytes; used > 32<<20+2<<20 {
			t.Fatalf("after %d records the directory takes %d bytes", i, used)
		}
	}
	check := func(l *Log) {
		t.Helper()
		entries, gaps := all(t, l, "s", 0)
		if len(entries) < 220 || len(entries) > 320 || entries[len(entries)-1].Sequence != n {
			t.Fatalf("%d entries up to %d", len(entries), entries[len(entries)-1].Sequence)
		}
		if len(gaps) == 0 || gaps[0].From != 1 || gaps[len(gaps)-1].To != entries[0].Sequence-1 {
			t.Fatalf("gaps %+v before %d", gaps, entries[0].Sequence)
		}
		last := gaps[len(gaps)-1]
		if last.Reason != GapDisk || len(last.Consumers) != 1 || last.Consumers[0] != "slow" {
			t.Fatalf("gap %+v", last)
		}
	}
	check(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, change)
	check(l)
	if p := mustAppend(t, l, "s", blob(10)); p[0].Sequence != n+1 {
		t.Fatalf("the next sequence is %d", p[0].Sequence)
	}
}

// TestReject: a stream that rejects keeps what it has and says that it is full.
func TestReject(t *testing.T) {
	clock := newFakeClock()
	l := open(t, filepath.Join(t.TempDir(), "log"), func(c *Config, o *Options) {
		o.clock, o.pause = clock.read, func(int) time.Duration { return time.Millisecond }
		c.MaxBytes, c.ReserveBytes, c.Commit.MaxDelay = 32<<20, 1, 0
		keep := DefaultStreamConfig(Data)
		keep.OnFull = Reject
		o.Streams = map[string]StreamConfig{"keep": keep}
	})
	n := 0
	for ; ; n++ {
		_, err := l.Append(t.Context(), "keep", blob(100<<10))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || n > 640 {
			t.Fatal(n, err)
		}
	}
	if n < 220 {
		t.Fatalf("full after %d records of 100 KiB in 32 MiB", n)
	}
	if l.Stats().Full == "" {
		t.Error("the status does not say that it is full")
	}
	if entries, _ := all(t, l, "keep", 0); len(entries) != n {
		t.Fatalf("%d entries of %d", len(entries), n)
	}
	// What was refused leaves no hole in the numbers once there is room again.
	for range 20 {
		if _, err := l.Append(t.Context(), "keep", blob(100<<10)); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	clock.pass(30 * time.Hour)
	if err := l.retain(); err != nil {
		t.Fatal(err)
	}
	var p []Position
	for p == nil { // the pause after a refusal ends by itself
		var err error
		if p, err = l.Append(t.Context(), "keep", blob(100<<10)); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if p[0].Sequence != Sequence(n+1) {
		t.Errorf("the next sequence is %d, not %d", p[0].Sequence, n+1)
	}
}

// TestAge: records go when their time has come by the age clock, whatever the
// wall clock does, and also when nothing is written any more.
func TestAge(t *testing.T) {
	clock := newFakeClock()
	dir := filepath.Join(t.TempDir(), "log")
	change := func(c *Config, o *Options) {
		c.Commit.MaxDelay = 0
		o.clock = clock.read
		s := DefaultStreamConfig(Data)
		s.Retention = value.Duration(2 * time.Hour)
		o.Streams = map[string]StreamConfig{"s": s, "t": s}
	}
	l := open(t, dir, change)
	count := func() int {
		t.Helper()
		if err := l.retain(); err != nil {
			t.Fatal(err)
		}
		entries, _ := all(t, l, "s", 0)
		return len(entries)
	}
	for range 6 { // one record each half hour
		mustAppend(t, l, "s", blob(100))
		clock.pass(30 * time.Minute)
	}
	if n := count(); n != 4 && n != 3 {
		t.Errorf("after 3 h there are %d records of the last 2 h", n)
	}
	before := count()
	clock.jump(50 * 365 * 24 * time.Hour)
	if n := count(); n != before {
		t.Errorf("a jump of 50 years took %d records", before-n)
	}
	clock.jump(-100 * 365 * 24 * time.Hour)
	if n := count(); n != before {
		t.Errorf("a jump of -100 years took %d records", before-n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, change)
	if n := count(); n != before {
		t.Errorf("a restart took %d records", before-n)
	}
	clock.pass(3 * time.Hour)
	if n := count(); n != 0 {
		t.Errorf("%d records are there 3 h later", n)
	}
	mustAppend(t, l, "s", blob(100)) // closes the old segment
	mustAppend(t, l, "t", blob(100))
	if err := l.retain(); err != nil {
		t.Fatal(err)
	}
	if n := l.Stats().Segments; n != 1 {
		t.Errorf("%d segments are left", n)
	}
}

// TestOwnBudget: a stream with a byte budget keeps to it and to its own chain.
func TestOwnBudget(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "log"), func(c *Config, o *Options) {
		c.Commit.MaxDelay = 0
		cam := DefaultStreamConfig(Video)
		cam.MaxBytes = 16 << 20
		o.Streams = map[string]StreamConfig{"cam": cam}
	})
	mustAppend(t, l, "other", blob(1000))
	for range 600 {
		mustAppend(t, l, "cam", blob(100<<10))
	}
	entries, _ := all(t, l, "cam", 0)
	if len(entries) < 80 || len(entries) > 160 || entries[len(entries)-1].Sequence != 600 {
		t.Errorf("%d entries", len(entries))
	}
	if entries, _ := all(t, l, "other", 0); len(entries) != 1 {
		t.Error("another stream's record is gone")
	}
}

// TestPolicyChange: a stream that changes its class goes on in another chain;
// order and numbers stay.
func TestPolicyChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := open(t, dir, func(c *Config, _ *Options) { c.Commit.MaxDelay = 0 })
	policy := DefaultStreamConfig(Data)
	for i := range 300 {
		if i%50 == 49 {
			policy.Priority = (i / 50) % 3
			if err := l.CreateStream(t.Context(), "s", policy); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, l, "s", record("k", i))
	}
	for range 2 {
		entries, gaps := all(t, l, "s", 0)
		if len(entries) != 300 || len(gaps) != 0 {
			t.Fatalf("%d entries, gaps %v", len(entries), gaps)
		}
		for i, e := range entries {
			if string(e.Data) != string(record("k", i).Data) {
				t.Fatalf("entry %d is %s", i, e.Data)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		removeAll(t, filepath.Join(dir, indexDir)) // the second time around everything is replayed
		l = open(t, dir, nil)
	}
}
