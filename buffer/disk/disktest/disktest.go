// Package disktest is the contract of disk.FS as a test suite. Every
// implementation runs it: the real one, and the one of the crash tests, which
// is only worth what it has in common with the real one.
//
// It covers what is seen while the power is on, not what survives a cut: that
// is the file system's to keep, and buffer/crashtest says what is assumed of it.
package disktest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-edge/weir/buffer/disk"
)

// Run tests the file systems that open makes, each of which must be empty.
func Run(t *testing.T, open func(t *testing.T) disk.FS) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, d disk.FS)
	}{
		{"open modes", testOpen},
		{"read and write", testReadWrite},
		{"sizes", testSizes},
		{"allocate", testAllocate},
		{"rename", testRename},
		{"rename directory", testRenameDir},
		{"remove", testRemove},
		{"remove while open", testRemoveOpen},
		{"list", testList},
		{"mkdir", testMkdir},
		{"sync", testSync},
		{"closed", testClosed},
		{"names", testNames},
		{"space", testSpace},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Create makes a file with the given content and returns it open.
func Create(t *testing.T, d disk.FS, name, content string) disk.File {
	t.Helper()
	f, err := d.OpenFile(name, disk.Create)
	if err != nil {
		t.Fatal(err)
	}
	if content != "" {
		if n, err := f.WriteAt([]byte(content), 0); n != len(content) || err != nil {
			t.Fatalf("write %s: %d, %v", name, n, err)
		}
	}
	return f
}

// Content reads a file that is open to its end.
func Content(t *testing.T, f disk.File) string {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read: %d of %d, %v", n, size, err)
	}
	return string(b)
}

// Close closes a file.
func Close(t *testing.T, f disk.File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Load reads a file by name.
func Load(t *testing.T, d disk.FS, name string) string {
	t.Helper()
	f, err := d.OpenFile(name, disk.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(t, f)
	return Content(t, f)
}

func want(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, d disk.FS, dir string) string {
	t.Helper()
	infos, err := d.ReadDir(dir)
	must(t, err)
	var out []string
	for _, i := range infos {
		out = append(out, i.Name)
	}
	return strings.Join(out, " ")
}

func testOpen(t *testing.T, d disk.FS) {
	_, err := d.OpenFile("a", disk.Read)
	want(t, "read what is not there", err, fs.ErrNotExist)
	_, err = d.OpenFile("a", disk.ReadWrite)
	want(t, "write what is not there", err, fs.ErrNotExist)
	_, err = d.OpenFile("no/a", disk.Create)
	want(t, "create in no directory", err, fs.ErrNotExist)
	Close(t, Create(t, d, "a", "x"))
	_, err = d.OpenFile("a", disk.Create)
	want(t, "create what is there", err, fs.ErrExist)
	_, err = d.OpenFile("a/b", disk.Create)
	want(t, "create in a file", err, syscall.ENOTDIR)

	r, err := d.OpenFile("a", disk.Read)
	must(t, err)
	defer Close(t, r)
	if _, err := r.WriteAt([]byte("y"), 0); err == nil {
		t.Error("a file that was opened to be read was written")
	}
	if err := r.Truncate(0); err == nil {
		t.Error("a file that was opened to be read was truncated")
	}
	if err := r.Allocate(100); err == nil {
		t.Error("a file that was opened to be read was allocated")
	}
	w, err := d.OpenFile("a", disk.ReadWrite)
	must(t, err)
	defer Close(t, w)
	if _, err := w.WriteAt([]byte("yz"), 0); err != nil {
		t.Fatal(err)
	}
	if got := Content(t, r); got != "yz" {
		t.Errorf("%q through the other handle, want yz", got)
	}
}

func testReadWrite(t *testing.T, d disk.FS) {
	f := Create(t, d, "a", "hello")
	defer Close(t, f)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	if n, err := f.WriteAt(big, 4090); n != len(big) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	got := Content(t, f)
	model := make([]byte, 4090+len(big))
	copy(model, "hello")
	copy(model[4090:], big)
	if got != string(model) {
		t.Error("the file does not hold what was written")
	}
	b := make([]byte, 10)
	if n, err := f.ReadAt(b, int64(len(model))-4); n != 4 || !errors.Is(err, io.EOF) || string(b[:4]) != "cdef" {
		t.Errorf("read over the end: %d, %v, %q; want 4, EOF, cdef", n, err, b[:n])
	}
	if n, err := f.ReadAt(b, 1<<30); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read behind the end: %d, %v; want 0, EOF", n, err)
	}
	if _, err := f.ReadAt(b, -1); err == nil {
		t.Error("read before the start")
	}
	if _, err := f.WriteAt(b, -1); err == nil {
		t.Error("written before the start")
	}
}

func testSizes(t *testing.T, d disk.FS) {
	f := Create(t, d, "a", "hello world")
	defer Close(t, f)
	for _, c := range []struct {
		size int64
		want string
	}{{5, "hello"}, {8, "hello\x00\x00\x00"}, {0, ""}, {3, "\x00\x00\x00"}} {
		must(t, f.Truncate(c.size))
		if got := Content(t, f); got != c.want {
			t.Errorf("truncated to %d: %q, want %q", c.size, got, c.want)
		}
	}
	if err := f.Truncate(-1); err == nil {
		t.Error("a negative size was taken")
	}
}

func testAllocate(t *testing.T, d disk.FS) {
	f := Create(t, d, "a", "head")
	defer Close(t, f)
	must(t, f.Allocate(100_000))
	if got := Content(t, f); got != "head"+strings.Repeat("\x00", 100_000-4) {
		t.Error("allocated space is not zero, or not all there")
	}
	infos, err := d.ReadDir(".")
	must(t, err)
	if len(infos) != 1 || infos[0].Size != 100_000 || infos[0].Allocated < 100_000 {
		t.Errorf("%+v, want 100000 bytes, allocated", infos)
	}
	must(t, f.Allocate(10))
	must(t, f.Allocate(0))
	if size, err := f.Size(); size != 100_000 || err != nil {
		t.Errorf("size %d, %v after a smaller allocation", size, err)
	}
	if err := f.Allocate(-1); err == nil {
		t.Error("a negative size was taken")
	}
	space, err := d.Space()
	must(t, err)
	want(t, "allocate more than there is", f.Allocate(space.TotalBytes+1<<20), syscall.ENOSPC)
	if size, err := f.Size(); size != 100_000 || err != nil {
		t.Errorf("size %d, %v after an allocation that failed", size, err)
	}
}

func testRename(t *testing.T, d disk.FS) {
	must(t, d.Mkdir("x"))
	must(t, d.Mkdir("y"))
	f := Create(t, d, "x/a", "one")
	defer Close(t, f)
	must(t, d.Rename("x/a", "y/b"))
	_, err := d.OpenFile("x/a", disk.Read)
	want(t, "the old name", err, fs.ErrNotExist)
	if got := Load(t, d, "y/b"); got != "one" {
		t.Errorf("%q under the new name", got)
	}
	if _, err := f.WriteAt([]byte("two"), 0); err != nil {
		t.Error(err)
	}
	if got := Load(t, d, "y/b"); got != "two" {
		t.Errorf("%q, written through a handle from before", got)
	}
	Close(t, Create(t, d, "x/c", "three"))
	must(t, d.Rename("x/c", "y/b"))
	if got := Load(t, d, "y/b"); got != "three" {
		t.Errorf("%q, want what was renamed over it", got)
	}
	if got := Content(t, f); got != "two" {
		t.Errorf("%q in the file that was renamed over, want two", got)
	}
	must(t, d.Rename("y/b", "y/b"))
	want(t, "rename what is not there", d.Rename("x/no", "x/d"), fs.ErrNotExist)
	want(t, "rename to nowhere", d.Rename("y/b", "no/d"), fs.ErrNotExist)
	if err := d.Rename("y/b", "x"); err == nil {
		t.Error("a file was renamed over a directory")
	}
	if got := names(t, d, "y"); got != "b" {
		t.Errorf("y holds %q, want b", got)
	}
}

func testRenameDir(t *testing.T, d disk.FS) {
	must(t, d.Mkdir("x/sub"))
	Close(t, Create(t, d, "x/sub/a", "one"))
	must(t, d.Rename("x", "z"))
	if got := Load(t, d, "z/sub/a"); got != "one" {
		t.Errorf("%q below the renamed directory", got)
	}
	if _, err := d.ReadDir("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old directory: %v", err)
	}
	if err := d.Rename("z", "z/sub/z"); err == nil {
		t.Error("a directory was renamed into itself")
	}
	must(t, d.Mkdir("full/of"))
	if err := d.Rename("z", "full"); err == nil {
		t.Error("a directory was renamed over one that is not empty")
	}
}

func testRemove(t *testing.T, d disk.FS) {
	want(t, "remove what is not there", d.Remove("a"), fs.ErrNotExist)
	must(t, d.Mkdir("x"))
	Close(t, Create(t, d, "x/a", "one"))
	if err := d.Remove("x"); err == nil {
		t.Error("a directory that is not empty was removed")
	}
	must(t, d.Remove("x/a"))
	_, err := d.OpenFile("x/a", disk.Read)
	want(t, "open what was removed", err, fs.ErrNotExist)
	must(t, d.Remove("x"))
	if got := names(t, d, "."); got != "" {
		t.Errorf("%q is left", got)
	}
}

func testRemoveOpen(t *testing.T, d disk.FS) {
	f := Create(t, d, "a", "one")
	defer Close(t, f)
	must(t, d.Remove("a"))
	Close(t, Create(t, d, "a", "two"))
	if got := Content(t, f); got != "one" {
		t.Errorf("%q in the removed file, want one", got)
	}
	if _, err := f.WriteAt([]byte("more"), 3); err != nil {
		t.Error(err)
	}
	must(t, f.Sync())
	if got := Load(t, d, "a"); got != "two" {
		t.Errorf("%q in the new file, want two", got)
	}
}

func testList(t *testing.T, d disk.FS) {
	_, err := d.ReadDir("x")
	want(t, "list what is not there", err, fs.ErrNotExist)
	must(t, d.Mkdir("x/dir"))
	for _, name := range []string{"b", "a", "c10", "c9"} {
		Close(t, Create(t, d, "x/"+name, strings.Repeat(name, 3)))
	}
	infos, err := d.ReadDir("x")
	must(t, err)
	var got []string
	for _, i := range infos {
		got = append(got, i.Name)
		if i.Dir != (i.Name == "dir") || !i.Dir && i.Size != int64(3*len(i.Name)) {
			t.Errorf("%+v", i)
		}
	}
	if !slices.Equal(got, []string{"a", "b", "c10", "c9", "dir"}) {
		t.Errorf("listed %q", got)
	}
	if _, err := d.ReadDir("x/a"); err == nil {
		t.Error("a file was listed")
	}
}

func testMkdir(t *testing.T, d disk.FS) {
	must(t, d.Mkdir("x/y/z"))
	must(t, d.Mkdir("x/y/z"))
	must(t, d.Mkdir("x"))
	must(t, d.Mkdir("."))
	Close(t, Create(t, d, "x/y/z/a", ""))
	want(t, "mkdir below a file", d.Mkdir("x/y/z/a/b"), syscall.ENOTDIR)
	if err := d.Mkdir("x/y/z/a"); err == nil {
		t.Error("a directory was made where a file is")
	}
}

func testSync(t *testing.T, d disk.FS) {
	must(t, d.Mkdir("x"))
	f := Create(t, d, "x/a", "one")
	defer Close(t, f)
	must(t, f.Sync())
	must(t, d.SyncDir("x"))
	must(t, d.SyncDir("."))
	want(t, "sync what is not there", d.SyncDir("y"), fs.ErrNotExist)
}

func testClosed(t *testing.T, d disk.FS) {
	f := Create(t, d, "a", "one")
	Close(t, f)
	want(t, "close", f.Close(), fs.ErrClosed)
	_, err := f.ReadAt(make([]byte, 1), 0)
	want(t, "read", err, fs.ErrClosed)
	_, err = f.WriteAt(make([]byte, 1), 0)
	want(t, "write", err, fs.ErrClosed)
	want(t, "sync", f.Sync(), fs.ErrClosed)
	want(t, "allocate", f.Allocate(1), fs.ErrClosed)
	want(t, "truncate", f.Truncate(0), fs.ErrClosed)
	_, err = f.Size()
	want(t, "size", err, fs.ErrClosed)
}

func testNames(t *testing.T, d disk.FS) {
	must(t, d.Mkdir("x"))
	Close(t, Create(t, d, "./x/../a", "one"))
	if got := Load(t, d, "a"); got != "one" {
		t.Errorf("%q", got)
	}
	for _, name := range []string{"../a", "/a", "x/../../a", "..", ""} {
		if _, err := d.OpenFile(name, disk.Create); err == nil {
			t.Errorf("created %q", name)
		}
		if err := d.Mkdir(name + "/b"); err == nil {
			t.Errorf("made %q", name+"/b")
		}
		if err := d.Rename("a", name); err == nil {
			t.Errorf("renamed to %q", name)
		}
		if err := d.Remove(name); err == nil {
			t.Errorf("removed %q", name)
		}
		if err := d.SyncDir(name); err == nil {
			t.Errorf("synced %q", name)
		}
		if _, err := d.ReadDir(name); err == nil {
			t.Errorf("listed %q", name)
		}
	}
}

func testSpace(t *testing.T, d disk.FS) {
	s, err := d.Space()
	must(t, err)
	if s.TotalBytes <= 0 || s.FreeBytes < 0 || s.FreeBytes > s.TotalBytes {
		t.Errorf("%+v", s)
	}
}
