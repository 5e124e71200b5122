package buffer

import (
	"errors"
	"fmt"
)

// The kinds of error a caller acts on. Test with errors.Is and errors.As.
var (
	// ErrFull: there is no room, in memory or on disk, and waiting the bounded
	// time made none. Nothing was appended; the caller may try again.
	ErrFull = errors.New("log is full")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrNotFound: no such stream, shard or consumer.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge: over a limit of this package. Trying again does not help.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid: not allowed by the rules of this package (a name, an empty
	// partition key). Trying again does not help.
	ErrInvalid = errors.New("invalid")
	// ErrLocked: another process has the log's directory open.
	ErrLocked = errors.New("in use by another weir")
	// ErrNewer: the directory was made by a newer version. Nothing was touched.
	ErrNewer = errors.New("made by a newer version of weir")
)

// CorruptError says that bytes of a segment are not what was written there.
type CorruptError struct {
	Segment string // path below the log's directory
	Offset  int64
	Reason  string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("segment %s is damaged at byte %d: %s", e.Segment, e.Offset, e.Reason)
}
