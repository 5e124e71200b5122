package crashtest_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-edge/weir/buffer/crashtest"
	"github.com/weir-edge/weir/buffer/disk"
	"github.com/weir-edge/weir/buffer/disk/disktest"
)

const errNoSpace = syscall.ENOSPC

func TestFaults(t *testing.T) {
	f := crashtest.New(1 << 20)
	must(t, f.Mkdir("d"))
	a := disktest.Create(t, f, "d/a", "x")
	kv := f.NewKV("kv")
	for _, c := range []struct {
		kind crashtest.Kind
		do   func() error
	}{
		{crashtest.Create, func() error {
			file, err := f.OpenFile("d/b", disk.Create)
			if err != nil {
				return err
			}
			return errors.Join(file.Close(), f.Remove("d/b"))
		}},
		{crashtest.Mkdir, func() error {
			if err := f.Mkdir("d/e"); err != nil {
				return err
			}
			return f.Remove("d/e")
		}},
		{crashtest.Write, func() error { _, err := a.WriteAt([]byte("y"), 0); return err }},
		{crashtest.Read, func() error { _, err := a.ReadAt(make([]byte, 1), 0); return err }},
		{crashtest.Truncate, func() error { return a.Truncate(1) }},
		{crashtest.Allocate, func() error { return a.Allocate(1) }},
		{crashtest.Sync, a.Sync},
		{crashtest.SyncDir, func() error { return f.SyncDir("d") }},
		{crashtest.Rename, func() error {
			if err := f.Rename("d/a", "d/c"); err != nil {
				return err
			}
			return f.Rename("d/c", "d/a")
		}},
		{crashtest.Remove, func() error { disktest.Close(t, disktest.Create(t, f, "d/b", "")); return f.Remove("d/b") }},
		{crashtest.KVWrite, func() error { return kv.Write(nil) }},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			must(t, c.do())
			f.FailNext(c.kind, 1, syscall.EIO)
			before := f.Failed()
			if err := c.do(); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v, want EIO", err)
			}
			if f.Failed() != before+1 {
				t.Errorf("%d failed, want one", f.Failed()-before)
			}
			if c.kind == crashtest.Remove {
				must(t, f.Remove("d/b"))
			}
			must(t, c.do())
			f.Heal()
		})
	}
	if got := disktest.Load(t, f, "d/a"); got != "y" {
		t.Errorf("d/a holds %q", got)
	}
}

func TestFaultCounts(t *testing.T) {
	f := crashtest.New(1 << 20)
	must(t, f.Mkdir("x"))
	must(t, f.Mkdir("y"))
	a, b := disktest.Create(t, f, "x/a", ""), disktest.Create(t, f, "y/b", "")
	results := func(n int, do func() error) string {
		var s strings.Builder
		for range n {
			if do() == nil {
				s.WriteByte('+')
			} else {
				s.WriteByte('-')
			}
		}
		return s.String()
	}
	for _, c := range []struct {
		fault      crashtest.Fault
		inA, inB   string
		alternated bool
	}{
		{crashtest.Fault{Kind: crashtest.Sync}, "-++++", "+++++", false},
		{crashtest.Fault{Kind: crashtest.Sync, Nth: 3}, "++-++", "+++++", false},
		{crashtest.Fault{Kind: crashtest.Sync, Nth: 3, Always: true}, "++---", "-----", false},
		{crashtest.Fault{Kind: crashtest.Sync, Prefix: "y/", Nth: 2}, "+++++", "+-+++", false},
		{crashtest.Fault{Kind: crashtest.Write}, "+++++", "+++++", false},
		{crashtest.Fault{Kind: crashtest.Any, Nth: 6, Always: true}, "+++++", "-----", false},
	} {
		c.fault.Err = syscall.EIO
		f.Fail(c.fault)
		if inA, inB := results(5, a.Sync), results(5, b.Sync); inA != c.inA || inB != c.inB {
			t.Errorf("%+v: %s %s, want %s %s", c.fault, inA, inB, c.inA, c.inB)
		}
		f.Heal()
		must(t, a.Sync())
	}
	f.Fail(crashtest.Fault{Kind: crashtest.Any, Always: true, Err: syscall.EIO})
	if _, err := a.ReadAt(nil, 0); err != nil {
		t.Errorf("a fault of any kind met a read: %v", err)
	}
	if _, err := f.OpenFile("no", disk.Read); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v, want what is wrong without the fault", err)
	}
}

func TestPartialWrite(t *testing.T) {
	f := crashtest.New(1 << 20)
	a := disktest.Create(t, f, "a", "....")
	f.Fail(crashtest.Fault{Kind: crashtest.Write, Partial: 2, Err: syscall.EIO})
	if n, err := a.WriteAt([]byte("xyz"), 1); n != 2 || !errors.Is(err, syscall.EIO) {
		t.Errorf("%d, %v; want 2 and EIO", n, err)
	}
	if got := disktest.Content(t, a); got != ".xy." {
		t.Errorf("%q, want .xy.", got)
	}
}

// TestFailedSync: what a sync that failed has lost stays lost, and in sight.
func TestFailedSync(t *testing.T) {
	start := func(keep bool) (*crashtest.FS, disk.File) {
		f := crashtest.New(1 << 20)
		a := disktest.Create(t, f, "a", strings.Repeat("o", 3*4096))
		must(t, a.Sync())
		must(t, f.SyncDir("."))
		write(t, a, strings.Repeat("n", 2*4096), 0)
		f.Fail(crashtest.Fault{Kind: crashtest.Sync, Err: syscall.EIO, KeepDirty: keep})
		if err := a.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%v, want EIO", err)
		}
		return f, a
	}
	pages := func(f *crashtest.FS, mode crashtest.TearMode, seed uint64) string {
		s, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{Seed: seed, Mode: mode}), "a")
		return string([]byte{s[0], s[4096], s[2*4096]})
	}

	f, a := start(false)
	if got := disktest.Content(t, a); got[0] != 'n' {
		t.Error("the page cache lost what the disk did")
	}
	must(t, a.Sync())
	if got := pages(f, crashtest.LoseUnsynced, 0); got != "ooo" {
		t.Errorf("%s durable after a sync that came later, want ooo", got)
	}
	if got := pages(f, crashtest.KeepAll, 0); got != "nno" {
		t.Errorf("%s after a kill, want nno", got)
	}
	some := map[string]bool{}
	for seed := range uint64(200) {
		some[pages(f, crashtest.Random, seed)] = true
	}
	if !some["ooo"] || !some["nno"] || !some["ono"] {
		t.Errorf("saw %v, want any part of what was lost to have come through", some)
	}
	write(t, a, "m", 4096)
	must(t, a.Sync())
	if got := pages(f, crashtest.LoseUnsynced, 0); got != "omo" {
		t.Errorf("%s durable after the second page was written again, want omo", got)
	}
	for seed := range uint64(200) {
		for _, mode := range crashtest.Modes() {
			if got := pages(f, mode, seed); got[1] != 'm' {
				t.Fatalf("%v, seed %d: %s; the lost write came back over a durable one", mode, seed, got)
			}
		}
	}
	if got, _ := load(t, f.CrashAt(f.Ops(), crashtest.Tear{}), "a"); got[4097] != 'n' {
		t.Error("a page is written whole, with what was lost in it")
	}

	f, a = start(true)
	must(t, a.Sync())
	if got := pages(f, crashtest.LoseUnsynced, 0); got != "nno" {
		t.Errorf("%s durable where pages stay dirty, want nno", got)
	}
}
