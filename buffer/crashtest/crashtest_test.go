package crashtest_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-edge/weir/buffer/crashtest"
	"github.com/weir-edge/weir/buffer/disk"
	"github.com/weir-edge/weir/buffer/disk/disktest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f disk.File, content string, offset int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(content), offset); n != len(content) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

// load returns what a file holds, and whether it is there.
func load(t *testing.T, d disk.FS, name string) (string, bool) {
	t.Helper()
	f, err := d.OpenFile(name, disk.Read)
	if err != nil {
		return "", false
	}
	defer disktest.Close(t, f)
	return disktest.Content(t, f), true
}

// dump returns everything on a disk as text, long files by their hash.
func dump(t *testing.T, d disk.FS, dir string) string {
	t.Helper()
	infos, err := d.ReadDir(dir)
	must(t, err)
	var b strings.Builder
	for _, i := range infos {
		name := dir + "/" + i.Name
		if i.Dir {
			fmt.Fprintf(&b, "%s/\n%s", name, dump(t, d, name))
			continue
		}
		content, _ := load(t, d, name)
		if len(content) > 100 {
			content = fmt.Sprintf("%d bytes, %x", len(content), sha256.Sum256([]byte(content)))
		}
		fmt.Fprintf(&b, "%s %d %q\n", name, i.Allocated, content)
	}
	return b.String()
}

// cuts calls fn for every mode and many seeds at one cut.
func cuts(t *testing.T, f *crashtest.FS, op int, fn func(t *testing.T, mode crashtest.TearMode, after *crashtest.FS)) {
	t.Helper()
	for _, mode := range crashtest.Modes() {
		for seed := range uint64(50) {
			fn(t, mode, f.CrashAt(op, crashtest.Tear{Seed: seed, Mode: mode}))
		}
	}
}

func TestContract(t *testing.T) {
	disktest.Run(t, func(*testing.T) disk.FS { return crashtest.New(64 << 20) })
	t.Run("after a cut", func(t *testing.T) {
		f := crashtest.New(64 << 20)
		disktest.Close(t, disktest.Create(t, f, "gone", "x"))
		for _, mode := range crashtest.Modes() {
			disktest.Run(t, func(*testing.T) disk.FS { return f.CrashAt(0, crashtest.Tear{Mode: mode}) })
		}
	})
}

func TestDurable(t *testing.T) {
	f := crashtest.New(1 << 20)
	must(t, f.Mkdir("d"))
	must(t, f.SyncDir("."))
	a := disktest.Create(t, f, "d/a", "kept")
	must(t, a.Sync())
	must(t, f.SyncDir("d"))
	mark := f.Mark()
	write(t, a, "more", 4)
	disktest.Close(t, disktest.Create(t, f, "d/b", "other"))
	write(t, a, "more yet", 10_000)
	for op := mark; op <= f.Ops(); op++ {
		cuts(t, f, op, func(t *testing.T, mode crashtest.TearMode, after *crashtest.FS) {
			if got, _ := load(t, after, "d/a"); !strings.HasPrefix(got, "kept") {
				t.Errorf("cut %d, %v: d/a holds %q", op, mode, got)
			}
		})
	}
}

func TestUnsynced(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, f *crashtest.FS)
		file string
	}{
		{"nothing", func(*testing.T, *crashtest.FS) {}, ""},
		{"bytes without the name", func(t *testing.T, f *crashtest.FS) {
			must(t, disktest.Create(t, f, "a", "x").Sync())
		}, ""},
		{"name without the bytes", func(t *testing.T, f *crashtest.FS) {
			disktest.Create(t, f, "a", "x")
			must(t, f.SyncDir("."))
		}, "./a 0 \"\"\n"},
		{"bytes after the sync", func(t *testing.T, f *crashtest.FS) {
			a := disktest.Create(t, f, "a", "x")
			must(t, a.Sync())
			must(t, f.SyncDir("."))
			write(t, a, "y", 1)
			must(t, a.Truncate(9000))
			must(t, a.Allocate(10_000))
		}, "./a 4096 \"x\"\n"},
		{"below a directory that was not synced", func(t *testing.T, f *crashtest.FS) {
			must(t, f.Mkdir("d"))
			must(t, disktest.Create(t, f, "d/a", "x").Sync())
			must(t, f.SyncDir("d"))
		}, ""},
		{"another directory's sync", func(t *testing.T, f *crashtest.FS) {
			must(t, f.Mkdir("d"))
			must(t, f.SyncDir("."))
			must(t, disktest.Create(t, f, "a", "x").Sync())
			must(t, f.SyncDir("d"))
		}, "./d/\n"},
		{"another file's sync", func(t *testing.T, f *crashtest.FS) {
			disktest.Create(t, f, "a", "x")
			b := disktest.Create(t, f, "b", "y")
			must(t, b.Sync())
			must(t, f.SyncDir("."))
		}, "./a 0 \"\"\n./b 4096 \"y\"\n"},
		{"removal", func(t *testing.T, f *crashtest.FS) {
			must(t, disktest.Create(t, f, "a", "x").Sync())
			must(t, f.SyncDir("."))
			must(t, f.Remove("a"))
		}, "./a 4096 \"x\"\n"},
		{"rename", func(t *testing.T, f *crashtest.FS) {
			must(t, disktest.Create(t, f, "a", "x").Sync())
			must(t, f.SyncDir("."))
			must(t, f.Rename("a", "b"))
		}, "./a 4096 \"x\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := crashtest.New(1 << 20)
			c.make(t, f)
			after := f.CrashAt(f.Ops(), crashtest.Tear{Mode: crashtest.LoseUnsynced})
			if got := dump(t, after, "."); got != c.file {
				t.Errorf("after a cut:\n%swant:\n%s", got, c.file)
			}
			if kept, now := dump(t, f.CrashAt(f.Ops(), crashtest.Tear{Mode: crashtest.KeepAll}), "."), dump(t, f, "."); kept != now {
				t.Errorf("after a kill:\n%swant:\n%s", kept, now)
			}
		})
	}
}

func TestRenameIsOneStep(t *testing.T) {
	f := crashtest.New(1 << 20)
	for _, d := range []string{"x", "y"} {
		must(t, f.Mkdir(d))
	}
	must(t, f.SyncDir("."))
	must(t, disktest.Create(t, f, "x/a", "new").Sync())
	must(t, disktest.Create(t, f, "y/a", "old").Sync())
	must(t, f.SyncDir("x"))
	must(t, f.SyncDir("y"))
	must(t, f.Rename("x/a", "y/a"))
	renamed := f.Mark()
	must(t, f.SyncDir("y"))
	seen := map[string]bool{}
	cuts(t, f, renamed, func(t *testing.T, mode crashtest.TearMode, after *crashtest.FS) {
		x, there := load(t, after, "x/a")
		y, _ := load(t, after, "y/a")
		seen[fmt.Sprint(x, there, y)] = true
	})
	if len(seen) != 2 || !seen["newtrueold"] || !seen["falsenew"] {
		t.Errorf("saw %v, want before and after, nothing between", seen)
	}
	cuts(t, f, f.Ops(), func(t *testing.T, mode crashtest.TearMode, after *crashtest.FS) {
		if _, there := load(t, after, "x/a"); there {
			t.Errorf("%v: the old name is back after the sync of the new one's directory", mode)
		}
	})
}

// TestSyncDirTakesWhatItNeeds: a directory's sync makes earlier operations on
// the same file durable that were made elsewhere.
func TestSyncDirTakesWhatItNeeds(t *testing.T) {
	f := crashtest.New(1 << 20)
	for _, d := range []string{"x", "y", "z"} {
		must(t, f.Mkdir(d))
	}
	must(t, f.SyncDir("."))
	must(t, disktest.Create(t, f, "y/a", "one").Sync())
	must(t, f.Rename("y/a", "x/kept"))
	must(t, disktest.Create(t, f, "y/a", "two").Sync())
	must(t, f.Rename("y/a", "z/b"))
	must(t, f.SyncDir("z"))
	after := f.CrashAt(f.Ops(), crashtest.Tear{Mode: crashtest.LoseUnsynced})
	if got, want := dump(t, after, "."), "./x/\n./x/kept 4096 \"one\"\n./y/\n./z/\n./z/b 4096 \"two\"\n"; got != want {
		t.Errorf("%swant:\n%s", got, want)
	}
}

func TestDirectoryPrefix(t *testing.T) {
	f := crashtest.New(1 << 20)
	for i := range 5 {
		disktest.Create(t, f, fmt.Sprint("f", i), "")
	}
	seen := map[crashtest.TearMode]map[int]bool{}
	cuts(t, f, f.Ops(), func(t *testing.T, mode crashtest.TearMode, after *crashtest.FS) {
		infos, err := after.ReadDir(".")
		must(t, err)
		for i, info := range infos {
			if info.Name != fmt.Sprint("f", i) {
				t.Errorf("%v: entry %d is %s", mode, i, info.Name)
			}
		}
		if seen[mode] == nil {
			seen[mode] = map[int]bool{}
		}
		seen[mode][len(infos)] = true
	})
	for mode, want := range map[crashtest.TearMode]int{crashtest.LoseUnsynced: 1, crashtest.KeepAll: 1, crashtest.Random: 6, crashtest.Reorder: 6, crashtest.Garbage: 6} {
		if len(seen[mode]) != want {
			t.Errorf("%v: saw the prefixes %v, want %d of them", mode, seen[mode], want)
		}
	}
}

// sectors describes each sector of a file by one letter: the one it is full
// of, 0 for zeros, ? for anything else.
func sectors(content string) string {
	var b strings.Builder
	for len(content) > 0 {
		n := min(512, len(content))
		switch s := content[:n]; s {
		case strings.Repeat(s[:1], n):
			b.WriteString(strings.ReplaceAll(s[:1], "\x00", "0"))
		default:
			b.WriteByte('?')
		}
		content = content[n:]
	}
	return b.String()
}

// TestTearing looks at what 2,000 cuts leave of two writes of two sectors each
// over durable zeros.
func TestTearing(t *testing.T) {
	f := crashtest.New(1 << 20)
	must(t, f.SyncDir("."))
	other := disktest.Create(t, f, "other", strings.Repeat("s", 8192))
	must(t, other.Sync())
	a := disktest.Create(t, f, "a", "")
	must(t, a.Allocate(2048))
	must(t, a.Sync())
	must(t, f.SyncDir("."))
	write(t, a, strings.Repeat("A", 1024), 0)
	write(t, a, strings.Repeat("B", 1024), 1024)
	all := strings.Fields("0000 A000 0A00 AA00 00B0 A0B0 0AB0 AAB0 000B A00B 0A0B AA0B 00BB A0BB 0ABB AABB")
	for _, c := range []struct {
		mode crashtest.TearMode
		want []string
		more bool
	}{
		{crashtest.LoseUnsynced, []string{"0000"}, false},
		{crashtest.KeepAll, []string{"AABB"}, false},
		{crashtest.Reorder, []string{"0000", "AA00", "00BB", "AABB"}, false},
		{crashtest.Random, all, false},
		{crashtest.Garbage, append([]string{"?ABB", "AAs0"}, all...), true},
	} {
		seen := map[string]int{}
		for seed := range uint64(2000) {
			got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{Seed: seed, Mode: c.mode}), "a")
			seen[sectors(got)]++
		}
		for _, want := range c.want {
			if seen[want] == 0 {
				t.Errorf("%v: never left %s", c.mode, want)
			}
			if !c.more {
				delete(seen, want)
			}
		}
		if !c.more && len(seen) > 0 {
			t.Errorf("%v left %v too", c.mode, seen)
		}
	}
}

// TestNeighbours: a write that begins in the middle of a sector never harms
// what is durable before it.
func TestNeighbours(t *testing.T) {
	f := crashtest.New(1 << 20)
	a := disktest.Create(t, f, "a", strings.Repeat("k", 700))
	must(t, a.Sync())
	must(t, f.SyncDir("."))
	write(t, a, strings.Repeat("n", 5000), 700)
	sizes := map[int]bool{}
	for seed := range uint64(500) {
		for _, mode := range crashtest.Modes() {
			got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{Seed: seed, Mode: mode}), "a")
			if !strings.HasPrefix(got, strings.Repeat("k", 700)) {
				t.Fatalf("%v, seed %d: durable bytes were lost", mode, seed)
			}
			if mode == crashtest.Random {
				sizes[len(got)] = true
			}
		}
	}
	if len(sizes) < 8 || !sizes[700] || !sizes[5700] {
		t.Errorf("sizes %v, want any between 700 and 5700", sizes)
	}
}

func TestTruncation(t *testing.T) {
	f := crashtest.New(1 << 20)
	a := disktest.Create(t, f, "a", strings.Repeat("k", 2048))
	must(t, a.Sync())
	must(t, f.SyncDir("."))
	must(t, a.Truncate(512))
	write(t, a, strings.Repeat("n", 512), 1024)
	seen := map[string]bool{}
	for seed := range uint64(500) {
		got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{Seed: seed, Mode: crashtest.Random}), "a")
		seen[sectors(got)] = true
	}
	want := map[string]bool{"kkkk": true, "k": true, "k0n": true, "k00": true}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
	must(t, a.Sync())
	if got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{}), "a"); sectors(got) != "k0n" {
		t.Errorf("%s after the sync, want k0n", sectors(got))
	}
}

// TestLostTruncation: what a write left near it is no reason to lose bytes that
// only a truncation that did not survive had cut off.
func TestLostTruncation(t *testing.T) {
	f := crashtest.New(1 << 20)
	a := disktest.Create(t, f, "a", strings.Repeat("k", 400))
	must(t, a.Sync())
	must(t, f.SyncDir("."))
	must(t, a.Truncate(100))
	write(t, a, strings.Repeat("n", 100), 200)
	write(t, a, strings.Repeat("n", 10), 50)
	near := 0
	for seed := range uint64(500) {
		got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{Seed: seed, Mode: crashtest.Random}), "a")
		if len(got) < 400 {
			continue
		}
		if got[100:] != strings.Repeat("k", 300) {
			t.Fatalf("seed %d: %q", seed, got)
		}
		if got[50] == 'n' {
			near++
		}
	}
	if near == 0 {
		t.Error("never saw the write without the truncation")
	}
}

func TestRecycledFileKeepsOldContent(t *testing.T) {
	f := crashtest.New(1 << 20)
	old := disktest.Create(t, f, "old", strings.Repeat("o", 4096))
	must(t, old.Sync())
	must(t, f.SyncDir("."))
	disktest.Close(t, old)
	must(t, f.Rename("old", "new"))
	must(t, f.SyncDir("."))
	a, err := f.OpenFile("new", disk.ReadWrite)
	must(t, err)
	write(t, a, strings.Repeat("n", 512), 0)
	got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{}), "new")
	if sectors(got) != "oooooooo" {
		t.Errorf("%s, want all old", sectors(got))
	}
}

// TestCutAfterKill: what a kill leaves in the page cache is still not durable.
func TestCutAfterKill(t *testing.T) {
	f := crashtest.New(1 << 20)
	disktest.Create(t, f, "a", "x")
	killed := f.CrashAt(f.Ops(), crashtest.Tear{Mode: crashtest.KeepAll})
	if got, there := load(t, killed, "a"); got != "x" || !there {
		t.Fatalf("%q after the kill", got)
	}
	if _, there := load(t, killed.CrashAt(0, crashtest.Tear{}), "a"); there {
		t.Error("the file is durable though nobody synced it")
	}
	a, err := killed.OpenFile("a", disk.ReadWrite)
	must(t, err)
	must(t, a.Sync())
	must(t, killed.SyncDir("."))
	if got, _ := load(t, killed.CrashAt(killed.Ops(), crashtest.Tear{}), "a"); got != "x" {
		t.Errorf("%q after the sync of what was found", got)
	}
	if _, there := load(t, f.CrashAt(f.Ops(), crashtest.Tear{}), "a"); there {
		t.Error("the new disk's sync reached the old one")
	}
}

// TestKilledGoesItsOwnWay: what is done after a kill is no part of the history
// it branched off, whatever the two have in common.
func TestKilledGoesItsOwnWay(t *testing.T) {
	f := crashtest.New(1 << 20)
	a := disktest.Create(t, f, "a", "")
	must(t, f.SyncDir("."))
	for i := range 3 {
		write(t, a, "x", int64(i)*4096)
		disktest.Create(t, f, fmt.Sprint("f", i), "")
	}
	branch := f.Mark()
	write(t, a, "x", 3*4096)
	disktest.Create(t, f, "f3", "")
	both := f.Mark()
	must(t, a.Sync())
	must(t, f.SyncDir("."))

	killed := f.CrashAt(branch, crashtest.Tear{Mode: crashtest.KeepAll})
	f.CrashAt(both, crashtest.Tear{})
	b, err := killed.OpenFile("a", disk.ReadWrite)
	must(t, err)
	write(t, b, "y", 0)
	disktest.Create(t, killed, "g", "")
	killed.CrashAt(killed.Ops(), crashtest.Tear{})

	after := f.CrashAt(f.Ops(), crashtest.Tear{})
	got, _ := load(t, after, "a")
	if len(got) != 3*4096+1 || got[0] != 'x' || got[3*4096] != 'x' {
		t.Errorf("%d bytes, the last %q; want the fourth write too", len(got), got[len(got)-1:])
	}
	if _, there := load(t, after, "f3"); !there {
		t.Error("a file that was created after the branch is not there")
	}
	if _, there := load(t, after, "g"); there {
		t.Error("a file of the other branch is there")
	}
}

// TestOrderOfCuts: it makes no difference in which order the cuts are made,
// nor what is done between them.
func TestOrderOfCuts(t *testing.T) {
	forward, back := history(t, 5, 400), history(t, 5, 400)
	if forward.Describe(0, forward.Ops()) != back.Describe(0, back.Ops()) {
		t.Fatal("the two histories differ")
	}
	type one struct {
		op   int
		mode crashtest.TearMode
	}
	dumps, kept := map[one]string{}, map[one]*crashtest.FS{}
	for op := range forward.Ops() + 1 {
		for _, mode := range crashtest.Modes() {
			after := forward.CrashAt(op, crashtest.Tear{Seed: 9, Mode: mode})
			dumps[one{op, mode}] = dump(t, after, ".")
			if op%10 == 0 {
				kept[one{op, mode}] = after
			}
		}
	}
	for i := range 400 {
		op, mode := i*271%(back.Ops()+1), crashtest.Modes()[i%5]
		if got := dump(t, back.CrashAt(op, crashtest.Tear{Seed: 9, Mode: mode}), "."); got != dumps[one{op, mode}] {
			t.Fatalf("cut %d, %v: not the same in another order", op, mode)
		}
	}
	for at, after := range kept {
		if got := dump(t, after, "."); got != dumps[at] {
			t.Fatalf("cut %d, %v: changed by later cuts", at.op, at.mode)
		}
	}
}

func TestSameSeedSameCut(t *testing.T) {
	f := history(t, 3, 300)
	differ := map[crashtest.TearMode]int{}
	for op := f.Ops(); op > 0; op -= 7 {
		for _, mode := range crashtest.Modes() {
			one := dump(t, f.CrashAt(op, crashtest.Tear{Seed: 1, Mode: mode}), ".")
			if two := dump(t, f.CrashAt(op, crashtest.Tear{Seed: 1, Mode: mode}), "."); one != two {
				t.Fatalf("cut %d, %v: not the same twice", op, mode)
			}
			if other := dump(t, f.CrashAt(op, crashtest.Tear{Seed: 2, Mode: mode}), "."); one != other {
				differ[mode]++
			}
		}
	}
	for _, mode := range crashtest.Modes() {
		random := mode == crashtest.Random || mode == crashtest.Reorder || mode == crashtest.Garbage
		if (differ[mode] > 0) != random {
			t.Errorf("%v: %d cuts differ by their seed", mode, differ[mode])
		}
	}
}

func TestSpace(t *testing.T) {
	f := crashtest.New(100 * 4096)
	free := func(d disk.FS, pages int64) {
		t.Helper()
		if s, err := d.Space(); err != nil || s.FreeBytes != pages*4096 || s.TotalBytes != 100*4096 {
			t.Errorf("space %+v, %v; want %d pages free", s, err, pages)
		}
	}
	free(f, 100)
	a := disktest.Create(t, f, "a", "x")
	must(t, a.Allocate(60*4096))
	free(f, 40)
	b := disktest.Create(t, f, "b", "y")
	if err := b.Allocate(60 * 4096); !errors.Is(err, errNoSpace) {
		t.Errorf("%v, want no space", err)
	}
	if n, err := b.WriteAt(make([]byte, 60*4096), 100); n != 40*4096-100 || !errors.Is(err, errNoSpace) {
		t.Errorf("wrote %d, %v; want what fits, and no space", n, err)
	}
	free(f, 0)
	write(t, a, strings.Repeat("z", 60*4096), 0)
	must(t, b.Sync())
	must(t, f.SyncDir("."))
	must(t, f.Remove("b"))
	free(f, 0)
	disktest.Close(t, b)
	free(f, 40)
	free(f.CrashAt(f.Ops(), crashtest.Tear{}), 60) // a's blocks were not synced, b is back
	must(t, a.Truncate(4097))
	free(f, 98)
	must(t, f.Remove("a"))
	free(f, 98)
	free(f.CrashAt(f.Ops(), crashtest.Tear{Mode: crashtest.KeepAll}), 100) // nobody has it open any more
}

func TestDescribe(t *testing.T) {
	f := crashtest.New(1 << 20)
	must(t, f.Mkdir("x/y"))
	a := disktest.Create(t, f, "x/y/a", "12345")
	must(t, a.Allocate(100))
	must(t, a.Sync())
	must(t, f.SyncDir("x/y"))
	must(t, f.Rename("x/y/a", "x/b"))
	must(t, f.NewKV("kv").Write([]crashtest.KVOp{{Key: []byte("k")}}))
	want := "mkdir x\nmkdir x/y\ncreate x/y/a\nwrite x/y/a 0+5\nallocate x/y/a 100\nsync x/y/a\nsyncdir x/y\nrename x/y/a x/b\nkv reset kv\nkv write kv 1\n"
	if got := f.Describe(-1, 100); got != want || f.Ops() != 10 {
		t.Errorf("%d operations:\n%s", f.Ops(), got)
	}
	if got := f.Describe(2, 3); got != "create x/y/a\n" {
		t.Errorf("%q", got)
	}
}
