package buffer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a log in dir and closes it at the end of the test.
func open(t *testing.T, dir string, change func(*Config, *Options)) *Log {
	t.Helper()
	config, options := DefaultConfig(), Options{Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	config.Dir = dir
	if change != nil {
		change(&config, &options)
	}
	l, err := Open(t.Context(), config, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func record(key string, n int) Record {
	return Record{PartitionKey: key, Data: fmt.Appendf(nil, "%s-%d", key, n), Attributes: []Attribute{{"n", fmt.Sprint(n)}}}
}

// all reads a shard from the start, through every page.
func all(t *testing.T, l *Log, stream string, shard ShardID) ([]Entry, []Gap) {
	t.Helper()
	var entries []Entry
	var gaps []Gap
	at := Position{Shard: shard}
	for {
		page, err := l.Read(t.Context(), stream, at, Limit{MaxRecords: 37})
		if err != nil {
			t.Fatal(err)
		}
		entries, gaps = append(entries, page.Entries...), append(gaps, page.Gaps...)
		at.Sequence = page.Next
		if page.AtEnd {
			return entries, gaps
		}
	}
}

func TestAppendReadReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	change := func(c *Config, o *Options) {
		o.Streams = map[string]StreamConfig{"s": DefaultStreamConfig(Data)}
		c.Commit.MaxDelay = 0
	}
	total := 0
	for round := range 4 {
		l := open(t, dir, change)
		var group sync.WaitGroup
		for w := range 4 {
			group.Go(func() {
				for i := range 50 {
					if _, err := l.Append(t.Context(), "s", record(fmt.Sprint("w", w), round*50+i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		total += 200
		if err := l.Commit(t.Context(), Commit{Consumer: "c", Positions: map[ShardKey]Sequence{{Stream: "s"}: Sequence(total)}}); err != nil {
			t.Fatal(err)
		}
		entries, gaps := all(t, l, "s", 0)
		if len(entries) != total || len(gaps) != 0 {
			t.Fatalf("round %d: %d entries, %v; want %d and none", round, len(entries), gaps, total)
		}
		next := map[string]int{}
		for i, e := range entries {
			if e.Sequence != Sequence(i+1) {
				t.Fatalf("entry %d has sequence %d", i, e.Sequence)
			}
			want := record(e.PartitionKey, next[e.PartitionKey])
			if string(e.Data) != string(want.Data) || e.Attribute("n") != want.Attribute("n") {
				t.Fatalf("entry %d is %q, want %q", i, e.Data, want.Data)
			}
			next[e.PartitionKey]++
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRebuildsIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := open(t, dir, func(c *Config, _ *Options) { c.Commit.MaxDelay = 0 })
	for i := range 3000 {
		if _, err := l.Append(t.Context(), "s", record("k", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Commit(t.Context(), Commit{Consumer: "c", Positions: map[ShardKey]Sequence{{Stream: "s"}: 77}, State: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, indexDir)); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, nil)
	if entries, gaps := all(t, l, "s", 0); len(entries) != 3000 || len(gaps) != 0 {
		t.Fatalf("%d entries, gaps %v", len(entries), gaps)
	}
	c, err := l.Checkpoint("c")
	if err != nil || c.Positions[ShardKey{Stream: "s"}] != 77 || string(c.State) != "x" {
		t.Fatalf("checkpoint %v, %v", c, err)
	}
}

func TestAtTime(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "log"), nil)
	t0 := time.Now().Truncate(time.Second)
	for i := range 20 {
		r := record("k", i)
		r.Arrival = t0.Add(time.Duration(i) * time.Second)
		if _, err := l.Append(context.Background(), "s", r); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		at   time.Time
		want Sequence
	}{{t0.Add(-time.Hour), 1}, {t0, 1}, {t0.Add(500 * time.Millisecond), 2}, {t0.Add(7 * time.Second), 8}, {t0.Add(time.Hour), 21}} {
		if got, err := l.Find("s", 0, Start{Kind: AtTime, Time: c.at}); err != nil || got != c.want {
			t.Errorf("at %v: %d, %v; want %d", c.at.Sub(t0), got, err, c.want)
		}
	}
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}
