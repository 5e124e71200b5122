package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir returns the tree below the directory root, which must exist. Files are
// made with mode 0600, directories with 0700. Symbolic links are followed as
// far as they stay below the root.
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

func (d *dir) Remove(name string) error {
	return d.root.Remove(filepath.FromSlash(name))
}

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
	err = control(f, "statfs", func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err = errors.Join(err, f.Close()); err != nil {
		return Space{}, err
	}
	unit := int64(st.Frsize) // what the counts are in; some file systems leave it 0
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return Space{FreeBytes: int64(st.Bavail) * unit, TotalBytes: int64(st.Blocks) * unit}, nil
}

type file struct{ *os.File }

func (f *file) Sync() error { return control(f.File, "fdatasync", unix.Fdatasync) }

func (f *file) Allocate(size int64) error {
	if size == 0 {
		return nil // which fallocate calls an invalid argument
	}
	before, err := f.Size()
	if err != nil {
		return err
	}
	err = control(f.File, "fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.fill(before, size)
	}
	if err == nil {
		return nil
	}
	if after, serr := f.Size(); serr == nil && after == before {
		return err
	}
	return errors.Join(err, f.Truncate(before))
}

// fill does what fallocate does where the file system cannot: it writes zeros
// from end to size.
func (f *file) fill(end, size int64) error {
	if end >= size {
		return nil
	}
	zeros := make([]byte, min(1<<20, size-end))
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
// is an flock of the file "lock" there, which stays; it goes with the process,
// however that ends, or with Close.
func Lock(root string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = control(f, "flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(ErrLocked, f.Close())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// control makes a system call on an open file, again if a signal interrupted
// it. The descriptor cannot be closed, and its number given to another file,
// while the call lasts.
func control(f *os.File, op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	var cause error
	if err := conn.Control(func(fd uintptr) {
		for cause = call(int(fd)); errors.Is(cause, unix.EINTR); {
			cause = call(int(fd))
		}
	}); err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: fs.ErrClosed}
	}
	if cause != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: cause}
	}
	return nil
}
