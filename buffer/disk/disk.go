// Package disk is the seam between the shard log and the file system: the few
// operations the log needs, as an interface with a real implementation (Dir)
// and, in buffer/crashtest, one in memory that forgets what was not synced.
//
// Names are relative to the root and separated by slashes; "." is the root.
// Errors name the file and wrap the system's, so that errors.Is finds
// fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, syscall.ENOSPC and syscall.EIO.
// What an operation promises across a power cut is said at each one; nothing
// else is promised. A name that leads out of the root is refused.
//
// What it does not do: it has no buffer, no retry after an error, and no wait
// for a full disk. Those are decisions, and the log makes them.
package disk

import (
	"errors"
	"io"
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
	// Rename moves a file or a directory, in one step, over a file that is
	// there. It survives a power cut after SyncDir of the directory it went to
	// or of the one it left.
	Rename(from, to string) error
	// Remove removes a file, which stays readable through what has it open, or
	// an empty directory. It survives a power cut after SyncDir.
	Remove(name string) error
}

// Dirs are the operations on directories.
type Dirs interface {
	// Mkdir makes a directory and its parents; one that is there is no error.
	// It survives a power cut after SyncDir of the directory it was made in.
	Mkdir(name string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]Info, error)
	// SyncDir makes the entries of a directory durable: what was created,
	// renamed and removed in it. Bytes are File.Sync's.
	SyncDir(name string) error
	// Space tells the size of the file system and what is free for us.
	Space() (Space, error)
}

// File is an open file. Safe for concurrent use, as far as regions that are
// written are not read. Once closed its methods return fs.ErrClosed.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes and size durable (fdatasync); its name is
	// SyncDir's. After an error nothing is known of what was written since the
	// last Sync, and a later Sync that succeeds does not change that.
	Sync() error
	// Allocate gives the file blocks for its first size bytes and at least that
	// size, so that writing there cannot meet a full disk. New bytes are zero.
	// After an error the size is what it was. Where the file system has no
	// fallocate, zeros are written behind the end, and holes before it stay.
	Allocate(size int64) error
	// Truncate sets the size. Bytes it adds are zero, and have no blocks.
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
	Allocated int64 // bytes of blocks, which may be less or more than Size
	Dir       bool
}

// Space describes a file system, in bytes.
type Space struct {
	FreeBytes  int64 // for an unprivileged user
	TotalBytes int64
}
