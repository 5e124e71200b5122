package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Batch is what is sent at once: records of one shard of one stream, in the
// order of their sequence numbers, at least one.
type Batch struct {
	Node    string
	Entries []buffer.Entry
}

// Stream is the stream all entries are of.
func (b Batch) Stream() string { return b.Entries[0].Stream }

// Shard is the shard all entries are of.
func (b Batch) Shard() buffer.ShardID { return b.Entries[0].Shard }

// Sink is a destination.
type Sink interface {
	// Send delivers a batch. It returns nil when the destination has
	// acknowledged all of it, and otherwise one of
	//
	//   - *PartialError: the entries it names were not accepted, all others were;
	//   - *RetryAfterError: nothing was accepted, come back later;
	//   - *PermanentError: nothing was accepted and never will be as it is;
	//   - any other error: any of the entries may have been stored, or none.
	//
	// Of the entries of one partition key it never stores a later one without
	// the earlier ones of the batch. A Resumer never stores any entry without
	// all the earlier ones; what it holds back because of one that is refused it
	// reports as ErrNotSent. The batch is the caller's again when Send returns:
	// nothing of it may be kept or changed.
	//
	// Send is called by several goroutines, never by two for one stream. It
	// returns soon after ctx is done, and bounds by itself how long it waits
	// for a destination that is silent.
	Send(ctx context.Context, batch Batch) error
	// Close ends all connections. It is called once, after the last Send.
	Close() error
}

// Mark is a destination's own name for a place in what it stores. It is
// opaque to the pump, which keeps it beside its positions. The empty mark is
// the beginning. At most 1 KiB.
type Mark string

// Last is the newest record of a shard that a destination holds.
type Last struct {
	Sequence buffer.Sequence
	Arrival  time.Time // zero if it is not known; to the millisecond
}

// Tail is what a destination stored of one stream behind a mark.
type Tail struct {
	// Last has the last stored record of each shard that has any behind the mark.
	Last map[buffer.ShardID]Last
	// Mark is behind all of them.
	Mark Mark
}

// Resumer is a Sink that can read back what the destination holds. The pump
// calls Tail before the first Send of a stream and after each Send of it whose
// outcome is not known.
type Resumer interface {
	// Tail reads back what was stored of one stream of one node behind a mark.
	// When it returns, nothing that was sent before can be stored any more
	// without being seen by the next Send as something that came between.
	Tail(ctx context.Context, node, stream string, behind Mark) (Tail, error)
	// Mark returns the place behind the last record of the stream that was
	// acknowledged or read back. It is called between two Sends of the stream.
	Mark(node, stream string) Mark
}

// Link is what a sink says of its connection.
type Link struct {
	URL       string // without user, password and query
	Connected bool
	Since     time.Time // of Connected; zero before the first connection
	Connects  int64
}

// Linked is a Sink that keeps a connection.
type Linked interface{ Link() Link }

// Failure is one entry of a batch that was not accepted.
type Failure struct {
	Index int   // in Batch.Entries
	Err   error // a *PermanentError if sending it again is useless
}

// PartialError: the destination accepted the batch except for some entries.
type PartialError struct {
	Failed []Failure // in the order of Index, at least one
	// After is how long to wait before the failed ones are sent again; 0
	// leaves it to the pump.
	After time.Duration
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%d entries were not accepted, the first because: %v", len(e.Failed), e.Failed[0].Err)
}

// RetryAfterError: the destination wants to be left alone for a while.
type RetryAfterError struct {
	After time.Duration
	Err   error
}

func (e *RetryAfterError) Error() string {
	return fmt.Sprintf("%v (try again after %v)", e.Err, e.After)
}
func (e *RetryAfterError) Unwrap() error { return e.Err }

// ErrNotSent is the Err of a Failure of an entry that was held back because of
// an earlier one of the batch.
var ErrNotSent = errors.New("held back because of an earlier one")

// PermanentError: the destination will not take this, however often it is
// sent. It is about a record; credentials that are refused, or a stream that
// is missing, may be put right and are not permanent.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// outcome is what became of the first n records of what is to be sent.
type outcome struct {
	rest   []int         // still to be sent, in order
	refuse map[int]error // permanently refused
	split  bool          // refused as a whole: find out which one it was
	unsure bool          // any of them may have arrived
	failed bool          // something went wrong that waiting may help
	after  time.Duration // wait at least this long
}

// judge turns the error of a Send of n records into what to do. It is pure.
func judge(n int, err error) outcome {
	var partial *PartialError
	var later *RetryAfterError
	var never *PermanentError
	switch {
	case err == nil:
		return outcome{}
	case errors.As(err, &partial):
		out := outcome{after: partial.After, refuse: map[int]error{}}
		for _, f := range partial.Failed {
			if f.Index < 0 || f.Index >= n {
				// A sink that names entries it was not given is not to be believed.
				return outcome{rest: indices(n), unsure: true, failed: true}
			}
			if errors.As(f.Err, &never) {
				out.refuse[f.Index] = f.Err
				continue
			}
			out.rest = append(out.rest, f.Index)
			out.failed = out.failed || !errors.Is(f.Err, ErrNotSent)
		}
		return out
	case errors.As(err, &later):
		return outcome{rest: indices(n), failed: true, after: later.After}
	case errors.As(err, &never) && n == 1:
		return outcome{refuse: map[int]error{0: err}}
	case errors.As(err, &never):
		return outcome{rest: indices(n), split: true}
	}
	return outcome{rest: indices(n), unsure: true, failed: true}
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
