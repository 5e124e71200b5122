package disk_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/buffer/disk"
	"github.com/weir-edge/weir/buffer/disk/disktest"
)

func open(t *testing.T, root string) disk.FS {
	t.Helper()
	d, err := disk.Dir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestContract(t *testing.T) {
	disktest.Run(t, func(t *testing.T) disk.FS { return open(t, t.TempDir()) })
}

func TestDirMissing(t *testing.T) {
	if _, err := disk.Dir(filepath.Join(t.TempDir(), "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestModes(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	if err := d.Mkdir("x/y"); err != nil {
		t.Fatal(err)
	}
	f := disktest.Create(t, d, "x/y/a", "secret")
	defer disktest.Close(t, f)
	for name, want := range map[string]os.FileMode{"x": 0o700, "x/y": 0o700, "x/y/a": 0o600} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
	conn, err := f.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %x, %v: a child would inherit the file", flags, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinkOutOfRoot(t *testing.T) {
	out, root := t.TempDir(), t.TempDir()
	if err := os.Symlink(out, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, root).OpenFile("out/a", disk.Create); err == nil {
		t.Error("created a file outside, through a link")
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestLock(t *testing.T) {
	root := t.TempDir()
	lock, err := disk.Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Lock(root); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("second lock: %v, want ErrLocked", err)
	}
	if out := child(t, "^TestLockHelper$", nil, "WEIR_LOCK_DIR="+root); !strings.Contains(out, "lock: "+disk.ErrLocked.Error()) {
		t.Errorf("another process: %s", out)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if out := child(t, "^TestLockHelper$", nil, "WEIR_LOCK_DIR="+root); !strings.Contains(out, "lock: <nil>") {
		t.Errorf("another process after Close: %s", out)
	}
	// That process has ended without closing.
	lock, err = disk.Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	if _, err := disk.Lock(filepath.Join(root, "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lock of a directory that is not there: %v", err)
	}
}

// TestLockHelper is the other process of TestLock; by itself it has nothing to
// do.
func TestLockHelper(t *testing.T) {
	if root := os.Getenv("WEIR_LOCK_DIR"); root != "" {
		_, err := disk.Lock(root)
		t.Logf("lock: %v", err)
	}
}

// child runs a test of this binary in another process and returns what it
// printed.
func child(t *testing.T, test string, attr *syscall.SysProcAttr, env ...string) string {
	t.Helper()
	out, err := run(t, test, attr, env...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", test, err, out)
	}
	return out
}

func run(t *testing.T, test string, attr *syscall.SysProcAttr, env ...string) (string, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+test, "-test.v")
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestFullDisk fills a disk of 8 MiB in a mount namespace of its own, so that
// nothing stays mounted whatever happens. Where namespaces are not permitted a
// limit of the file size stands in for the disk.
func TestFullDisk(t *testing.T) {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	const helper = "^TestFullDiskHelper$"
	out, err := run(t, helper, attr, "WEIR_FULL_DISK=mount")
	if errors.Is(err, os.ErrPermission) || strings.Contains(out, "mount: operation not permitted") {
		t.Logf("no namespace for a mount (%v); with a limit of the file size instead", err)
		out, err = run(t, helper, nil, "WEIR_FULL_DISK=limit")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "met the end") {
		t.Errorf("the disk never was full:\n%s", out)
	}
}

// TestFullDiskHelper runs in the process that TestFullDisk starts; by itself
// it has nothing to do.
func TestFullDiskHelper(t *testing.T) {
	switch os.Getenv("WEIR_FULL_DISK") {
	case "mount":
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("mount: %v", err)
		}
		full := mount(t, "tmpfs", "size=8m")
		disktest.Run(t, func(t *testing.T) disk.FS { return open(t, mount(t, "tmpfs", "size=8m")) })
		testFull(t, open(t, full), syscall.ENOSPC)
		// ramfs has no fallocate.
		testFill(t, open(t, mount(t, "ramfs", "")))
		t.Log("met the end")
	case "limit":
		signal.Ignore(syscall.SIGXFSZ)
		limit := unix.Rlimit{Cur: 8 << 20, Max: 8 << 20}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		testLimit(t, open(t, t.TempDir()))
		t.Log("met the end")
	}
}

func mount(t *testing.T, kind, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// testFull meets the end of a disk of 8 MiB, and then uses it on.
func testFull(t *testing.T, d disk.FS, full error) {
	space, err := d.Space()
	if err != nil || space.TotalBytes != 8<<20 || space.FreeBytes > 8<<20 || space.FreeBytes < 7<<20 {
		t.Fatalf("space %+v, %v; want 8 MiB, nearly all free", space, err)
	}
	a := disktest.Create(t, d, "a", "first")
	defer disktest.Close(t, a)
	if err := a.Allocate(6 << 20); err != nil {
		t.Fatal(err)
	}
	b := disktest.Create(t, d, "b", "second")
	defer disktest.Close(t, b)
	if err := b.Allocate(4 << 20); !errors.Is(err, full) {
		t.Fatalf("allocate more than is free: %v, want %v", err, full)
	}
	if got := disktest.Content(t, b); got != "second" {
		t.Errorf("%d bytes after an allocation that failed, want what was there", len(got))
	}
	// What was allocated can be written although nothing is free.
	fill := disktest.Create(t, d, "fill", "")
	defer disktest.Close(t, fill)
	block := make([]byte, 64<<10)
	var end int64
	for err = nil; err == nil && end < 8<<20; {
		var n int
		n, err = fill.WriteAt(block, end)
		end += int64(n)
	}
	if !errors.Is(err, full) {
		t.Fatalf("fill the disk: %v, want %v", err, full)
	}
	for at := int64(0); at < 6<<20; at += int64(len(block)) {
		if _, err := a.WriteAt(block, at); err != nil {
			t.Fatalf("write what was allocated: %v", err)
		}
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if space, err = d.Space(); err != nil || space.FreeBytes != 0 {
		t.Errorf("space %+v, %v; want nothing free", space, err)
	}
	if err := d.Remove("fill"); err != nil {
		t.Fatal(err)
	}
	if err := fill.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.WriteAt(block, 0); err != nil {
		t.Errorf("write after there was room again: %v", err)
	}
}

// testFill allocates where the file system cannot.
func testFill(t *testing.T, d disk.FS) {
	f := disktest.Create(t, d, "a", "head")
	defer disktest.Close(t, f)
	if err := f.Allocate(3<<20 + 5); err != nil {
		t.Fatal(err)
	}
	if got := disktest.Content(t, f); got != "head"+strings.Repeat("\x00", 3<<20+1) {
		t.Error("what was there is not, or what is new is not zero")
	}
	infos, err := d.ReadDir(".")
	if err != nil || len(infos) != 1 || infos[0].Size != 3<<20+5 {
		t.Errorf("%+v, %v", infos, err)
	}
	if err := f.Allocate(5); err != nil {
		t.Error(err)
	}
	if size, err := f.Size(); err != nil || size != 3<<20+5 {
		t.Errorf("size %d, %v after a smaller allocation", size, err)
	}
}

func testLimit(t *testing.T, d disk.FS) {
	f := disktest.Create(t, d, "a", "first")
	defer disktest.Close(t, f)
	if err := f.Allocate(9 << 20); !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("allocate more than there may be: %v, want %v", err, syscall.EFBIG)
	}
	if got := disktest.Content(t, f); got != "first" {
		t.Errorf("%d bytes after an allocation that failed, want what was there", len(got))
	}
	if err := f.Allocate(8 << 20); err != nil {
		t.Error(err)
	}
}
