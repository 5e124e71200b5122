package buffer

import (
	"fmt"
	"strconv"
	"time"
)

// Limits of a record and of one append. The names and the figures follow
// Kinesis Data Streams (API reference, PutRecords), except MaxAttributes*,
// which Kinesis does not have.
const (
	MaxPartitionKeyChars = 256      // Unicode characters, at least 1
	MaxRecordBytes       = 10 << 20 // hard limit of data + partition key + attributes
	DefaultRecordBytes   = 1 << 20  // limit unless Config.MaxRecordBytes says otherwise
	MaxPartBytes         = 256 << 10
	MaxAppendRecords     = 10_000
	MaxAppendBytes       = 16 << 20
	MaxAttributes        = 32 // a record
	MaxAttributeBytes    = 4 << 10
	MaxIndexValueBytes   = 4 << 10
	MaxStateBytes        = 512 << 10 // a consumer's state
	MaxNameBytes         = 128       // a stream's or consumer's name, [a-zA-Z0-9_.-]+
)

// Sequence is a record's place in its shard. The first record of a shard has
// sequence 1; each appended record has a greater one than all before it.
// Usually they are consecutive; a number is skipped only when a write failed.
type Sequence uint64

func (s Sequence) String() string { return strconv.FormatUint(uint64(s), 10) }

// ShardID numbers the shards of one stream from 0. Its text form is Kinesis'.
type ShardID uint32

func (s ShardID) String() string { return fmt.Sprintf("shardId-%012d", uint32(s)) }

// Attribute is a name and a value that travel with a record's data.
type Attribute struct{ Key, Value string }

// Part says how a record belongs to a run of records that together are one
// large thing (a video fragment).
type Part uint8

const (
	// Whole is an ordinary record.
	Whole Part = iota
	// Piece is one part of something larger that a later Closing record of
	// the same shard and partition key completes. Without one (a crash, a
	// camera that went away) it is nothing and readers pass over it.
	Piece
	// Closing ends a run of pieces. Its Index names how many it closes.
	Closing
)

// Index is what a Closing record puts into the log's index, so that the run
// it closes is found by time without reading its bytes.
type Index struct {
	Start, End time.Time // of what the run holds, wall time. Kept to the millisecond
	Pieces     uint32    // how many Piece records of the same key come right before
	Value      []byte    // at most MaxIndexValueBytes; the caller's own description
}

// Record is what a source appends. The log reads it during Append only and
// keeps no reference to its slices afterwards.
type Record struct {
	PartitionKey string
	Data         []byte
	Attributes   []Attribute
	Arrival      time.Time // when it arrived; zero means now. Kept to the millisecond
	Part         Part
	Index        *Index // for Closing records, else nil
}

// Attribute returns the value of the attribute called key, or "".
func (r *Record) Attribute(key string) string {
	for i := range r.Attributes {
		if r.Attributes[i].Key == key {
			return r.Attributes[i].Value
		}
	}
	return ""
}

// Entry is a record as the log holds it. Entries returned by one Read share
// their memory with each other; keep a copy of the few you keep.
type Entry struct {
	Stream   string
	Shard    ShardID
	Sequence Sequence
	// ClockSynced says whether the wall clock was known to be right when the
	// record was committed.
	ClockSynced bool
	Record
}

// Position names a place in a stream: the record with Sequence in Shard, or
// the place where it will be.
type Position struct {
	Shard    ShardID
	Sequence Sequence
}

// Gap is a run of records that were in the log, or should have been, and
// cannot be read any more.
type Gap struct {
	Stream    string    `json:"stream"`
	Shard     ShardID   `json:"shard"`
	From      Sequence  `json:"from"` // first missing
	To        Sequence  `json:"to"`   // last missing
	Bytes     int64     `json:"bytes,omitempty"`
	Reason    GapReason `json:"reason"`
	Consumers []string  `json:"consumers,omitempty"` // those that had not read it
	At        time.Time `json:"at"`                  // when it was noticed
}

// GapReason says why records are missing.
type GapReason string

const (
	GapRetention   GapReason = "retention"    // older than the stream keeps, or over its bytes
	GapDisk        GapReason = "disk"         // the disk budget of the node decided
	GapCorrupt     GapReason = "corrupt"      // a checksum did not match
	GapMissing     GapReason = "missing"      // a segment file is not there
	GapWriteFailed GapReason = "write-failed" // never acknowledged: the numbers were used up by a failed write
)

// Page is what one Read returns.
type Page struct {
	Entries []Entry
	// Next is where the next Read continues. It moves on even when Entries is
	// empty.
	Next Sequence
	// Gaps lie between the position asked for and Next, oldest first. They
	// are told to every reader that passes, not once.
	Gaps []Gap
	// AtEnd: there was nothing more to read at the time of the call.
	AtEnd bool
}

// Limit bounds one Read. Zero fields mean 1000 records and 1 MiB. At least
// one record is returned if there is one, whatever its size.
type Limit struct {
	MaxRecords int
	MaxBytes   int
}

// Start says where reading begins; the kinds are those of a Kinesis shard
// iterator.
type Start struct {
	Kind     StartKind
	Sequence Sequence  // for AtSequence, AfterSequence
	Time     time.Time // for AtTime: the first record that arrived then or later
}

// StartKind is one of Kinesis' shard iterator types.
type StartKind uint8

const (
	TrimHorizon StartKind = iota // the oldest record there is
	Latest                       // after the newest record there is
	AtSequence
	AfterSequence
	AtTime
)
