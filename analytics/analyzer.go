package analytics

import (
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Batch is what was read of one shard at once.
type Batch struct {
	Shard buffer.ShardID
	// Entries in the order of the shard, without repetition. They are the
	// analyzer's to read until it returns.
	Entries []buffer.Entry
	// AtEnd: there was nothing more in the shard at the time Now.
	AtEnd bool
	// Now is the wall time from before the shard was read. An analyzer has no
	// other clock.
	Now time.Time
}

// Limit bounds what Rows returns. At least one row is returned if there is
// one.
type Limit struct {
	MaxRecords int
	MaxBytes   int // of data, keys and attributes
}

// Progress is what an analyzer says of itself. Counters are since it was made
// and not part of its state.
type Progress struct {
	// Ready is how many rows wait to be taken with Rows.
	Ready int
	// Behind is the shard that holds the others back, of those that were not at
	// their end when last read: the next one to read. Without such a shard it is
	// any.
	Behind buffer.ShardID
	// Due is when the next row may become ready though no record comes, if every
	// shard is then found at its end. Zero: not by waiting.
	Due       time.Time
	Watermark time.Time // everything before it is settled; zero: nothing is yet
	Windows   int       // that are open
	Groups    int       // in them
	Late      int64     // records counted in a later window than that of their arrival
	Setbacks  int64     // times the clock was set back, by shard
	BadRecord int64     // records that are not what the analyzer reads
	BadValue  int64     // records with a value that could not be used and counted as none
	LastBad   string    // what was wrong with the last of them
}

// Analyzer makes rows out of the records of one stream. It is used by one
// goroutine.
//
// What it makes is a function of the log: neither how the shards are
// interleaved nor the size of the batches nor a restart with State changes the
// rows or their order. Only a batch that is AtEnd brings in the wall time.
type Analyzer interface {
	// Restore forgets everything and takes up what State gave; nil is a new
	// start. It returns where the input is to be read from, for the shards where
	// that is not behind the last entry analyzed: an analyzer that was told to do
	// something else since may want records again. After an error the analyzer is
	// as after Restore(nil).
	Restore(state []byte) (map[buffer.ShardID]buffer.Sequence, error)
	// Analyze takes a batch. Each shard is made known with an empty batch before
	// the first one with entries: nothing is settled before all shards are known.
	// After an error the analyzer must be restored; the error tells what a person
	// has to change.
	Analyze(Batch) error
	// Rows takes rows that are ready out of the analyzer, in their order. They are
	// the caller's.
	Rows(Limit) []buffer.Record
	// State encodes everything but the rows that were taken, at most
	// buffer.MaxStateBytes; else it is an error that tells what a person has to
	// change.
	State() ([]byte, error)
	// Progress is cheap.
	Progress() Progress
}
