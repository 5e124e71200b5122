// Package disk is the seam between the shard log and the file system: the few
// operations the log needs, as an interface with a real implementation (Dir)
// and, in buffer/crashtest, one in memory that forgets what was not synced.
//
// Names are relative to the root and separated by slashes. What an operation
// promises across a power cut is said at each one; nothing else is promised.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds the lock of a directory.
var ErrLocked = errors.New("locked by another process")

// FS is a directory tree as the log uses it. Safe for concurrent use.
type FS interface {
	Files
	Dirs
}

// Files are the operations on files.
type Files interface {
	// OpenFile opens an existing file, or with Create makes a new one; that
	// fails with fs.ErrExist if there is one.
	OpenFile(name string, mode Mode) (File, error)
	// Rename moves a file; it survives a power cut after SyncDir of both
	// directories.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
}

// Dirs are the operations on directories.
type Dirs interface {
	// Mkdir makes a directory and its parents; one that is there is no error.
	Mkdir(name string) error
	// ReadDir lists a directory by name.
	ReadDir(name string) ([]Info, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Space tells the size of the file system and what is free for us.
	Space() (Space, error)
}

// File is an open file. Safe for concurrent use, as far as regions that are
// written are not read.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes and size durable (fdatasync). After an error
	// nothing is known of what was written since the last Sync.
	Sync() error
	// Allocate gives the file blocks for its first size bytes and at least that
	// size, so that writing there cannot meet a full disk.
	Allocate(size int64) error
	// Truncate sets the size.
	Truncate(size int64) error
	// Size returns the size.
	Size() (int64, error)
}

// Mode says how a file is opened.
type Mode int

// The modes of OpenFile.
const (
	Read Mode = iota
	ReadWrite
	Create // for reading and writing, must not exist
)

// Info describes a directory entry.
type Info struct {
	Name      string
	Size      int64
	Allocated int64 // bytes of blocks
	Dir       bool
}

// Space describes a file system, in bytes.
type Space struct {
	FreeBytes  int64 // for an unprivileged user
	TotalBytes int64
}

// Dir returns the tree below the directory root, which must exist. Files are
// made with mode 0600, directories with 0700. Names that lead out of the root
// are refused.
func Dir(root string) (FS, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	return &dir{root: r}, nil
}

type dir struct{ root *os.Root }

func (d *dir) OpenFile(name string, mode Mode) (File, error) {
	flags := os.O_RDONLY
	switch mode {
	case ReadWrite:
		flags = os.O_RDWR
	case Create:
		flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	}
	f, err := d.root.OpenFile(filepath.FromSlash(name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{f}, nil
}

func (d *dir) Rename(from, to string) error {
	return d.root.Rename(filepath.FromSlash(from), filepath.FromSlash(to))
}

func (d *dir) Remove(name string) error { return d.root.Remove(filepath.FromSlash(name)) }

func (d *dir) Mkdir(name string) error {
	return d.root.MkdirAll(filepath.FromSlash(name), 0o700)
}

func (d *dir) ReadDir(name string) ([]Info, error) {
	f, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		i, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since it was listed
		}
		if err != nil {
			return nil, err
		}
		info := Info{Name: e.Name(), Size: i.Size(), Dir: e.IsDir()}
		if st, ok := i.Sys().(*syscall.Stat_t); ok {
			info.Allocated = st.Blocks * 512
		}
		infos = append(infos, info)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos, nil
}

func (d *dir) SyncDir(name string) error {
	f, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *dir) Space() (Space, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return Space{}, err
	}
	var st unix.Statfs_t
	err = retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) })
	if err = errors.Join(err, f.Close()); err != nil {
		return Space{}, fmt.Errorf("statfs: %w", err)
	}
	return Space{FreeBytes: int64(st.Bavail) * st.Bsize, TotalBytes: int64(st.Blocks) * st.Bsize}, nil
}

type file struct{ *os.File }

func (f *file) Sync() error {
	if err := retry(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *file) Allocate(size int64) error {
	err := retry(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.fill(size)
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// fill does what fallocate does where the file system cannot: it writes zeros
// behind the end.
func (f *file) fill(size int64) error {
	end, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for end < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-end)], end)
		if err != nil {
			return err
		}
		end += int64(n)
	}
	return nil
}

func (f *file) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Lock takes the lock of the directory root, or returns ErrLocked. The lock
// goes with the process, however it ends.
func Lock(root string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(ErrLocked, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
