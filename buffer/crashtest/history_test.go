package crashtest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weir-edge/weir/buffer/crashtest"
	"github.com/weir-edge/weir/buffer/disk"
	"github.com/weir-edge/weir/buffer/disk/disktest"
)

// claim is what must be on the disk at every cut from one operation up to, not
// including, another.
type claim struct {
	name     string
	offset   int64
	content  string
	from, to int
}

// author makes a random history and keeps account of what it may rely on. It
// writes each file in order, as a log does, and now and then over something.
type author struct {
	t      *testing.T
	fs     *crashtest.FS
	random *rand.Rand
	files  []*authored
	made   int
	claims []claim
}

type authored struct {
	file    disk.File
	name    string
	content []byte // as it must be seen
	wet     []claim
	claims  []int // of this file, that still hold
}

// end ends the claims of a file that reach behind offset, at the next
// operation.
func (a *author) end(w *authored, offset int64) {
	var kept []int
	for _, i := range w.claims {
		if c := &a.claims[i]; c.offset+int64(len(c.content)) > offset {
			c.to = a.fs.Ops()
		} else {
			kept = append(kept, i)
		}
	}
	w.claims = kept
}

func (a *author) claim(w *authored) {
	for _, c := range w.wet {
		c.name, c.from, c.to = w.name, a.fs.Mark(), 1<<62
		w.claims = append(w.claims, len(a.claims))
		a.claims = append(a.claims, c)
	}
	w.wet = nil
}

func (a *author) create() {
	a.made++
	w := &authored{name: fmt.Sprintf("d%d/f%d", a.random.IntN(2), a.made)}
	w.file = disktest.Create(a.t, a.fs, w.name, "")
	if a.random.IntN(2) == 0 {
		must(a.t, w.file.Allocate(20_000))
		w.content = make([]byte, 20_000)
	}
	must(a.t, a.fs.SyncDir(w.name[:2]))
	a.files = append(a.files, w)
}

func (a *author) write(w *authored) {
	offset := int64(a.random.IntN(20_000))
	b := make([]byte, 1+a.random.IntN(3000))
	for i := range b {
		b[i] = byte('a' + a.random.IntN(26))
	}
	end := offset + int64(len(b))
	var kept []int
	for _, i := range w.claims {
		if c := &a.claims[i]; c.offset < end && c.offset+int64(len(c.content)) > offset {
			c.to = a.fs.Ops() + 1 // that one's cut may have part of the write
		} else {
			kept = append(kept, i)
		}
	}
	w.claims = kept
	var wet []claim
	for _, c := range w.wet {
		if c.offset >= end || c.offset+int64(len(c.content)) <= offset {
			wet = append(wet, c)
		}
	}
	write(a.t, w.file, string(b), offset)
	w.wet = append(wet, claim{offset: offset, content: string(b)})
	w.content = append(w.content, make([]byte, max(0, int(end)-len(w.content)))...)
	copy(w.content[offset:], b)
}

func (a *author) step() {
	if len(a.files) == 0 {
		a.create()
		return
	}
	i := a.random.IntN(len(a.files))
	w := a.files[i]
	switch n := a.random.IntN(100); {
	case n < 6 && len(a.files) < 6:
		a.create()
	case n < 60:
		a.write(w)
	case n < 90:
		must(a.t, w.file.Sync())
		a.claim(w)
	case n < 94: // recycled under another name
		a.end(w, -1)
		a.claimsAfterRename(w)
	case n < 97:
		a.end(w, -1)
		must(a.t, a.fs.Remove(w.name))
		disktest.Close(a.t, w.file)
		a.files = append(a.files[:i], a.files[i+1:]...)
	default:
		size := int64(a.random.IntN(20_000))
		a.end(w, min(size, int64(len(w.content))))
		var wet []claim
		for _, c := range w.wet {
			if c.offset+int64(len(c.content)) <= size {
				wet = append(wet, c)
			}
		}
		w.wet = wet
		must(a.t, w.file.Truncate(size))
		w.content = append(w.content[:min(size, int64(len(w.content)))], make([]byte, max(0, size-int64(len(w.content))))...)
	}
}

func (a *author) claimsAfterRename(w *authored) {
	a.made++
	old := w.name
	w.name = fmt.Sprintf("d%d/f%d", a.random.IntN(2), a.made)
	must(a.t, a.fs.Rename(old, w.name))
	must(a.t, w.file.Sync())
	must(a.t, a.fs.SyncDir(w.name[:2]))
	w.wet = []claim{{content: string(w.content)}}
	if len(w.content) == 0 {
		w.wet = nil
	}
	a.claim(w)
}

// historyOf makes a random history of about n operations.
func historyOf(t *testing.T, seed uint64, n int) *author {
	t.Helper()
	a := &author{t: t, fs: crashtest.New(8 << 20), random: rand.New(rand.NewPCG(seed, 1))}
	for _, d := range []string{"d0", "d1"} {
		must(t, a.fs.Mkdir(d))
	}
	must(t, a.fs.SyncDir("."))
	for a.fs.Ops() < n {
		a.step()
	}
	for _, w := range a.files {
		if got := disktest.Content(t, w.file); got != string(w.content) {
			t.Fatalf("seed %d: %s is not as it was written", seed, w.name)
		}
		disktest.Close(t, w.file)
	}
	return a
}

func history(t *testing.T, seed uint64, n int) *crashtest.FS { return historyOf(t, seed, n).fs }

// TestClaims checks over random histories, at every cut and in every mode, that
// what was synced is there, and that a cut of a cut keeps it as well.
func TestClaims(t *testing.T) {
	claims := 0
	for seed := range uint64(8) {
		a := historyOf(t, seed, 300)
		for op := range a.fs.Ops() + 1 {
			for _, mode := range crashtest.Modes() {
				after := a.fs.CrashAt(op, crashtest.Tear{Seed: seed, Mode: mode})
				if op%5 == 0 {
					after = after.CrashAt(0, crashtest.Tear{Seed: seed, Mode: crashtest.Modes()[op/5%5]})
				}
				held, missed := a.check(after, op)
				claims += held
				if missed > 0 {
					t.Fatalf("seed %d, cut %d, %v: what was synced is not there", seed, op, mode)
				}
			}
		}
	}
	if claims < 40_000 {
		t.Errorf("only %d claims were checked", claims)
	}
}

// check counts the claims that hold and those that do not.
func (a *author) check(after *crashtest.FS, op int) (held, missed int) {
	loaded := map[string]string{}
	for i := range a.claims {
		c := &a.claims[i]
		if op < c.from || op >= c.to {
			continue
		}
		content, ok := loaded[c.name]
		if !ok {
			content, _ = load(a.t, after, c.name)
			loaded[c.name] = content
		}
		end := c.offset + int64(len(c.content))
		if int64(len(content)) >= end && content[c.offset:end] == c.content {
			held++
		} else {
			missed++
			a.t.Logf("%s %d+%d, claimed from operation %d", c.name, c.offset, len(c.content), c.from)
		}
	}
	return held, missed
}

// TestManyCuts is the amount that the crash test of the log asks for.
func TestManyCuts(t *testing.T) {
	f := crashtest.New(64 << 20)
	must(t, f.Mkdir("data"))
	must(t, f.SyncDir("."))
	var segment disk.File
	unit := strings.Repeat("unit", 1500)
	for i := range 700 {
		if i%70 == 0 {
			segment = disktest.Create(t, f, fmt.Sprint("data/", i), "")
			must(t, segment.Allocate(1<<20))
			must(t, f.SyncDir("data"))
		}
		write(t, segment, unit[:100], int64(i%70*6000))
		write(t, segment, unit[100:], int64(i%70*6000)+100)
		must(t, segment.Sync())
	}
	cuts := 0
	for op := range f.Ops() + 1 {
		for _, mode := range crashtest.Modes() {
			after := f.CrashAt(op, crashtest.Tear{Seed: uint64(op), Mode: mode})
			if _, err := after.ReadDir("."); err != nil {
				t.Fatal(err)
			}
			cuts++
		}
	}
	if cuts < 10_000 {
		t.Errorf("%d cuts", cuts)
	}
}

// TestConcurrent cuts and reads while the history goes on.
func TestConcurrent(t *testing.T) {
	f := crashtest.New(64 << 20)
	kv := f.NewKV("kv")
	for w := range 4 {
		t.Run(fmt.Sprint("writer ", w), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprint("f", w)
			file := disktest.Create(t, f, name, "")
			for i := range 100 {
				write(t, file, strings.Repeat(fmt.Sprint(w), 1000), int64(i*1000))
				must(t, file.Sync())
				must(t, f.SyncDir("."))
				must(t, kv.Write([]crashtest.KVOp{put(name, fmt.Sprint(i))}))
				mark := f.Mark()
				for _, mode := range crashtest.Modes() {
					after := f.CrashAt(mark, crashtest.Tear{Seed: uint64(i), Mode: mode})
					if got, _ := load(t, after, name); got != strings.Repeat(fmt.Sprint(w), (i+1)*1000) {
						t.Fatalf("%s, %v: %d bytes after write %d", name, mode, len(got), i)
					}
					late, err := after.OpenFile(name, disk.ReadWrite)
					must(t, err)
					write(t, late, "over", 0)
				}
			}
		})
	}
}
