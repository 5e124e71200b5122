package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/buffer/crashtest"
)

// openOn opens a log on a disk in memory.
func openOn(t *testing.T, d *crashtest.FS) *Log {
	t.Helper()
	config, options := crashOptions(d, newFakeClock())
	l, err := Open(t.Context(), config, options)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFailedWrites lets each write, sync, allocation and creation of segments
// fail once, and from then on: what is acknowledged is there, also after a cut,
// and once the disk is well again so is the log.
func TestFailedWrites(t *testing.T) {
	kinds := []crashtest.Kind{crashtest.Write, crashtest.Sync, crashtest.Allocate, crashtest.Create, crashtest.Rename, crashtest.SyncDir}
	for _, kind := range kinds {
		for n := 1; n <= 12; n++ {
			for _, forever := range []bool{false, true} {
				t.Run(fmt.Sprint(kind, n, forever), func(t *testing.T) { failedWrites(t, kind, n, forever) })
			}
		}
	}
}

func failedWrites(t *testing.T, kind crashtest.Kind, n int, forever bool) {
	d := crashtest.New(1 << 30)
	l := openOn(t, d)
	var acked []string
	put := func(i int) error {
		r := blob(20_000)
		r.Data = append(fmt.Appendf(nil, "%d:", i), r.Data...)
		_, err := l.Append(t.Context(), "s", r)
		if err == nil {
			acked = append(acked, string(r.Data))
		}
		return err
	}
	for i := range 5 {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	d.Fail(crashtest.Fault{Kind: kind, Prefix: dataDir, Nth: n, Always: forever, Err: unix.EIO, Partial: 3000})
	for i := 5; i < 30; i++ {
		_ = put(i) // may be refused; what is not is checked below
	}
	cut := d.CrashAt(d.Ops(), crashtest.Tear{Mode: crashtest.LoseUnsynced})
	d.Heal()
	until := 0
	for put(100+until) != nil { // the pause after failures ends by itself
		if until++; until > 2_000_000 {
			t.Fatal("the log does not recover")
		}
	}
	have := func(l *Log, want []string) {
		t.Helper()
		entries, _ := all(t, l, "s", 0)
		i := 0
		for _, e := range entries {
			if i < len(want) && string(e.Data) == want[i] {
				i++
			}
		}
		if i < len(want) {
			t.Errorf("%d of %d acknowledged records are there, in order", i, len(want))
		}
	}
	have(l, acked)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openOn(t, cut)
	have(l, acked[:len(acked)-1])
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamage flips, zeroes and cuts bytes of every kind of file: the log opens,
// gives nothing that was not written, and says what is missing.
func TestDamage(t *testing.T) {
	trials := 60
	if os.Getenv("WEIR_CRASH") == "full" {
		trials = 2000
	}
	golden := filepath.Join(t.TempDir(), "golden")
	small := func(c *Config, o *Options) { c.Commit.MaxDelay = 0; o.segmentBytes = 64 << 10 }
	l := open(t, golden, small)
	written := map[Sequence][]byte{}
	for i := range 400 {
		r := record("k", i)
		r.Data = append(r.Data, blob(700).Data...)
		p := mustAppend(t, l, "s", r)
		written[p[0].Sequence] = r.Data
		if i == 200 {
			if err := l.flushIndex(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for trial := range trials {
		dir := filepath.Join(t.TempDir(), "log")
		if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
			t.Fatal(err)
		}
		what := harm(t, dir, random)
		l := open(t, dir, small)
		seen := Sequence(0)
		missing := 0
		for _, name := range []string{"s", "recovered-1"} {
			if _, err := l.Stream(name); errors.Is(err, ErrNotFound) {
				continue
			}
			entries, gaps := all(t, l, name, 0)
			for _, e := range entries {
				if !bytes.Equal(e.Data, written[e.Sequence]) {
					t.Fatalf("trial %d, %s: sequence %d is not what was written", trial, what, e.Sequence)
				}
				seen++
			}
			for _, g := range gaps {
				missing += int(g.To - g.From + 1)
			}
		}
		if int(seen)+missing < 400-tailAllowance(what) {
			t.Fatalf("trial %d, %s: %d records and %d told missing of 400", trial, what, seen, missing)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// tailAllowance: damage at the very end of the newest segment cannot be told
// from what a power cut leaves; it may take the records behind it unannounced.
func tailAllowance(what string) int {
	if filepath.Ext(what) == ".newest" {
		return 90
	}
	return 0
}

// harm damages one file and says how.
func harm(t *testing.T, dir string, random *rand.Rand) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == indexDir {
			return filepath.SkipDir // TestRebuildsIndex; Badger panics in goroutines of its own on some damage
		}
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name := files[random.IntN(len(files))]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.TrimRight(b, "\x00") // sparse files: the tail is not worth a trial
	what := "empty"
	if len(b) > 0 {
		at := random.IntN(len(b))
		switch random.IntN(3) {
		case 0:
			what = "flip"
			b[at] ^= 1 << random.IntN(8)
		case 1:
			what = "zero"
			clear(b[at:min(len(b), at+1+random.IntN(4096))])
		case 2:
			what = "cut"
			b = b[:at]
		}
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	what += " " + rel
	segments, err := filepath.Glob(filepath.Join(dir, dataDir, "*", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	if len(segments) > 0 && name == segments[len(segments)-1] {
		what += ".newest"
	}
	return what
}

func FuzzFrame(f *testing.F) {
	var e batchEncoder
	e.reset()
	r := Record{PartitionKey: "k", Data: []byte("data"), Attributes: []Attribute{{"a", "b"}}}
	e.add(&r, 1_700_000_000_000)
	f.Add(e.body(nil), uint32(1))
	f.Fuzz(func(t *testing.T, body []byte, count uint32) {
		if h, _, err := parseFrameHeader(body); err == nil && h.stored > maxBodyBytes {
			t.Fatal("a length over the limit was accepted")
		}
		if _, err := decodeSegmentHeader(body); err == nil && string(body[:8]) != segmentMagic {
			t.Fatal("a foreign header was accepted")
		}
		d, err := decodeBatch(body, count)
		for err == nil {
			var r Record
			var more bool
			if more, err = d.next(&r); !more {
				break
			}
		}
	})
}

// TestStatsWhileTheDiskHangs: the figures are there for whoever wants to know
// what is wrong, and are those of before.
func TestStatsWhileTheDiskHangs(t *testing.T) {
	l := openOn(t, crashtest.New(1<<30))
	if _, err := l.Append(t.Context(), "s", blob(20_000)); err != nil {
		t.Fatal(err)
	}
	before := l.Stats()
	l.spaceMu.Lock() // as who waits for the disk holds it
	answer := make(chan Stats, 1)
	go func() { answer <- l.Stats() }()
	select {
	case s := <-answer:
		if s.DiskBytes == 0 || s.DiskBytes != before.DiskBytes || s.DiskFreeBytes != before.DiskFreeBytes {
			t.Errorf("%d bytes, %d free; before %d, %d", s.DiskBytes, s.DiskFreeBytes, before.DiskBytes, before.DiskFreeBytes)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
	}
	l.spaceMu.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
