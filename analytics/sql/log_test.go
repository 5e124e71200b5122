package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/analytics/analyticstest"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
	"github.com/weir-edge/weir/configs/value"
)

// killable is a real log whose user can be killed: from then on no call is
// heard, though the one on its way may be done.
type killable struct {
	analytics.Log
	mu      sync.Mutex
	left    int // commits before the kill; < 0: none
	during  bool
	commits int
}

func (k *killable) Commit(ctx context.Context, c buffer.Commit) error {
	k.mu.Lock()
	k.commits++
	dead, last := k.left == 0, k.left == 1
	if k.left > 0 {
		k.left--
	}
	k.mu.Unlock()
	if dead || last && !k.during {
		return buffer.ErrClosed
	}
	if last {
		// In the middle: nobody waits for the answer.
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_ = k.Log.Commit(ctx, c)
		return buffer.ErrClosed
	}
	return k.Log.Commit(ctx, c)
}

func (k *killable) Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error) {
	limit.MaxRecords = 40
	page, err := k.Log.Read(ctx, stream, from, limit)
	if err == nil && len(page.Entries) > 0 {
		// Reading takes its time, so that there are commits on the way.
		timer := time.NewTimer(10 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return buffer.Page{}, ctx.Err()
		case <-timer.C:
		}
	}
	return page, err
}

func openLog(t testing.TB, dir string) *buffer.Log {
	t.Helper()
	c := buffer.DefaultConfig()
	c.Dir, c.MaxBytes = dir, 256<<20
	c.Commit.MaxDelay = value.Duration(time.Millisecond)
	three := buffer.DefaultStreamConfig(buffer.Data)
	three.Shards = 3
	log, err := buffer.Open(t.Context(), c, buffer.Options{Streams: map[string]buffer.StreamConfig{"telemetry": three}})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// undisturbed is the output of one run over the same records in memory.
func undisturbed(t *testing.T, q Query, records []buffer.Record) []string {
	t.Helper()
	three := buffer.DefaultStreamConfig(buffer.Data)
	three.Shards = 3
	log := buffertest.NewLog(map[string]buffer.StreamConfig{"telemetry": three})
	if _, err := log.Append(t.Context(), "telemetry", records...); err != nil {
		t.Fatal(err)
	}
	finish(t, q, log)
	return analyticstest.Output(t, log, "averages")
}

// finish runs the query until it has nothing left, in real time.
func finish(t testing.TB, q Query, log analytics.Log) {
	t.Helper()
	r, err := NewRunner(q, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s := r.Status(); s.State != analytics.Live || s.Windows > 0 || s.Commits == 0; s = r.Status() {
		if ctx.Err() != nil {
			t.Errorf("it does not come through: %+v", s)
			break
		}
		<-poll.C
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestKills runs a query over a log on the disk, kills its runner at random
// commits, before and amid them, opens the log anew each time, and compares
// the output with that of an undisturbed run.
func TestKills(t *testing.T) {
	records := make([]buffer.Record, 3000)
	begin := time.Now().Add(-2 * time.Hour).Truncate(time.Millisecond)
	for i := range records {
		records[i] = buffer.Record{PartitionKey: fmt.Sprint("k", i%17), Arrival: begin.Add(time.Duration(i) * 2 * time.Second),
			Data: fmt.Appendf(nil, `{"sensor":"s-%d","value":%v}`, i%7, float64(i%1000)*0.1)}
	}
	q := named("minute-average", contract)
	q.IdleGrace = value.Duration(time.Second)
	want := undisturbed(t, q, records)
	if len(want) < 7*90 {
		t.Fatalf("only %d rows", len(want))
	}
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		log := openLog(t, dir)
		if _, err := log.Append(t.Context(), "telemetry", records...); err != nil {
			t.Fatal(err)
		}
		kills := 0
		for range 8 {
			k := &killable{Log: log, left: 1 + random.IntN(3), during: random.IntN(2) == 0}
			r, err := NewRunner(q, k, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err = r.Run(ctx)
			cancel()
			if errors.Is(err, buffer.ErrClosed) {
				kills++
			} else if err != nil {
				t.Fatal(err)
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			log = openLog(t, dir)
		}
		finish(t, q, log)
		got := analyticstest.Output(t, log, "averages")
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d rows after %d kills are not the %d of an undisturbed run", seed, len(got), kills, len(want))
		}
		t.Logf("seed %d: %d kills, %d rows", seed, kills, len(got))
	}
}

// live runs a query in a bubble while f does things.
func live(t *testing.T, q Query, log analytics.Log, f func(r *analytics.Runner)) error {
	t.Helper()
	r, err := NewRunner(q, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	f(r)
	cancel()
	return <-done
}

// TestChangedSQL: the window that was open when the text was changed is whole
// in the new query, and no closed one comes again.
func TestChangedSQL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := analyticstest.NewLog(nil)
		put := func() {
			if _, err := log.Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "k", Data: []byte(`{"sensor":"s","value":1}`)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		q := named("q", contract)
		if err := live(t, q, log, func(*analytics.Runner) {
			for range 90 {
				put()
			}
		}); err != nil {
			t.Fatal(err)
		}
		q.SQL = strings.Replace(contract, "AVG(value) AS mean", "SUM(value) AS total", 1)
		if err := live(t, q, log, func(*analytics.Runner) {
			for range 10 {
				put()
			}
			time.Sleep(time.Minute)
		}); err != nil {
			t.Fatal(err)
		}
		rows := analyticstest.Output(t, log, "averages")
		if len(rows) != 2 || !strings.Contains(rows[0], `"mean":1,"n":60,`) || !strings.Contains(rows[1], `"total":40,"n":40,`) {
			t.Errorf("the rows are %v", rows)
		}
	})
}

// TestTooMany: a query over its bound says so and ends, and goes on where it
// was when the bound is raised.
func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := analyticstest.NewLog(nil)
		for i := range 150 {
			if _, err := log.Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "k", Data: fmt.Appendf(nil, `{"sensor":%d}`, i)}); err != nil {
				t.Fatal(err)
			}
		}
		q := named("q", contract)
		q.MaxGroups = 100
		r, err := NewRunner(q, log, nil)
		if err != nil {
			t.Fatal(err)
		}
		const want = "query q: 100 groups are open in 1 windows, and max_groups is 100: use shorter windows, a key with fewer values, or raise it"
		if err := r.Run(t.Context()); err == nil || err.Error() != want || r.Status().LastError != want {
			t.Errorf("it ended with %v and says %q", err, r.Status().LastError)
		}
		q.MaxGroups = 150
		if err := live(t, q, log, func(*analytics.Runner) { time.Sleep(2 * time.Minute) }); err != nil {
			t.Fatal(err)
		}
		if rows := analyticstest.Output(t, log, "averages"); len(rows) != 150 {
			t.Errorf("%d rows", len(rows))
		}
	})
}

// TestBadRecords: what cannot be used is told in the status.
func TestBadRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := analyticstest.NewLog(nil)
		for _, data := range []string{"\xff\xd8JPEG", `{"sensor":"a","value":"high"}`, `{"sensor":"a","value":4}`, `[1]`} {
			if _, err := log.Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "k", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := live(t, named("q", contract), log, func(r *analytics.Runner) {
			time.Sleep(2 * time.Minute)
			if s := r.Status(); s.BadRecords != 2 || s.BadValues != 1 || s.LastBad != "shardId-000000000000 4 of stream telemetry: it is not a JSON object" {
				t.Errorf("%+v", s)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if rows := analyticstest.Output(t, log, "averages"); len(rows) != 1 || !strings.Contains(rows[0], `"mean":4,"n":2,`) {
			t.Errorf("%v", rows)
		}
	})
}

// TestModelOfRunner is TestModel with the runner and a log in memory: random
// records and clocks, pages, stalls and kills, and the rows of a plain reading.
func TestModelOfRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Without the method Deadline, which a bubble does not have. The checks
		// have a day of the bubble's time.
		rapid.Check(struct{ testing.TB }{t}, func(r *rapid.T) {
			c := buffer.DefaultStreamConfig(buffer.Data)
			c.Shards = rapid.IntRange(1, 3).Draw(r, "shards")
			log := analyticstest.NewLog(map[string]buffer.StreamConfig{"i": c})
			for _, e := range drawShard(r, 0) {
				e.Record.PartitionKey = fmt.Sprint(rapid.IntRange(0, 9).Draw(r, "key"))
				if _, err := log.Append(t.Context(), "i", e.Record); err != nil {
					r.Fatal(err)
				}
			}
			shards := make([][]buffer.Entry, c.Shards)
			for id := range shards {
				page, err := log.Read(t.Context(), "i", buffer.Position{Shard: buffer.ShardID(id)}, buffer.Limit{})
				if err != nil {
					r.Fatal(err)
				}
				shards[id] = page.Entries
			}
			log.MaxRecords = rapid.IntRange(1, 10).Draw(r, "page")
			log.ReadTakes = time.Duration(rapid.IntRange(0, 400).Draw(r, "read takes")) * time.Millisecond
			stall := rapid.IntRange(0, 3).Draw(r, "stall")
			log.Stall = func(n int) bool { return n*n*31%7 < stall }
			q := named("q", modelQuery)
			for rapid.IntRange(0, 3).Draw(r, "another kill") > 0 {
				log.Kill(rapid.IntRange(1, 4).Draw(r, "kill at"), rapid.Bool().Draw(r, "after"))
				if err := live(t, q, log, func(*analytics.Runner) {
					time.Sleep(time.Duration(rapid.IntRange(0, 5000).Draw(r, "ms")) * time.Millisecond)
				}); err != nil && !errors.Is(err, buffer.ErrClosed) {
					r.Fatal(err)
				}
				log.Revive()
			}
			if err := live(t, q, log, func(run *analytics.Runner) {
				for s := run.Status(); s.State != analytics.Live || s.Windows > 0 || s.Commits == 0; s = run.Status() {
					time.Sleep(time.Second)
				}
			}); err != nil {
				r.Fatal(err)
			}
			var got []string
			if page, err := log.Memory.Read(t.Context(), "o", buffer.Position{}, buffer.Limit{}); err == nil {
				for _, e := range page.Entries {
					got = append(got, strings.Split(e.Attribute(AttrRowID), "/")[2]+" "+string(e.Data))
				}
			}
			if want := reference(shards); !slices.Equal(got, want) {
				r.Fatalf("the rows are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	})
}
