package buffer

import (
	"context"
	"time"
)

// ShardKey names a shard of a stream.
type ShardKey struct {
	Stream string
	Shard  ShardID
}

// Append is records for one stream inside a Commit.
type Append struct {
	Stream  string
	Records []Record
}

// Commit moves a consumer on, and with it appends what the consumer made.
type Commit struct {
	Consumer  string                // its name; created by its first commit
	Positions map[ShardKey]Sequence // the next record to read; shards not named stay as they are
	State     []byte                // replaces the consumer's state; nil keeps it. At most MaxStateBytes
	// Appends become durable in the same moment as Positions and State, or not
	// at all. Without them Commit returns at once and is durable within a
	// second: after a power cut the consumer may be up to that much behind.
	Appends []Append
}

// Checkpoint is what the log knows of a consumer.
type Checkpoint struct {
	Positions map[ShardKey]Sequence
	State     []byte
}

// StreamInfo describes a stream.
type StreamInfo struct {
	Name    string
	Config  StreamConfig
	Created time.Time
	Shards  []ShardInfo
}

// ShardInfo describes a shard. The hash key range is inclusive, in decimal, as
// Kinesis writes it.
type ShardInfo struct {
	ID           ShardID
	HashKeyStart string
	HashKeyEnd   string
	First        Sequence  // the oldest readable record; equals Next when there is none
	Next         Sequence  // what the next appended record will at least get
	Bytes        int64     // stored bytes of the readable records, about
	FirstArrival time.Time // zero when empty
	LastArrival  time.Time // zero when empty
}

// Closed is a run of pieces that a Closing record completed.
type Closed struct {
	Index
	Shard ShardID
	First Sequence // the first piece
	Last  Sequence // the Closing record itself
}

// ConsumerInfo describes a consumer and how far it is behind.
type ConsumerInfo struct {
	Name string
	Lags []Lag // in the order of stream and shard
}

// Lag is how far a consumer is behind in one shard.
type Lag struct {
	ShardKey
	Position Sequence      // the next record it will read
	Records  int64         // records it has not read
	Bytes    int64         // their stored bytes, about
	Behind   time.Duration // now minus the arrival of the oldest of them; 0 when none
}

// Stats are the log's figures since Open, and the state of its disk.
type Stats struct {
	AppendedRecords  int64
	AppendedBytes    int64 // data + partition keys + attributes
	Commits          int64
	Syncs            int64
	WrittenBytes     int64 // handed to the file system for segments, headers and padding included
	WriteErrors      int64
	RefusedAppends   int64 // that got ErrFull
	PendingBytes     int64 // waiting for a commit
	CorruptBatches   int64
	DroppedRecords   map[GapReason]int64
	DroppedBytes     map[GapReason]int64
	DiskBytes        int64 // allocated below the log's directory
	DiskFreeBytes    int64 // free on its file system
	Segments         int64
	ClockSynced      bool
	LastCommit       time.Time // zero: none yet
	Full             string    // why appends are refused at the moment; "" if they are not
	IndexRebuilt     bool      // Badger's part was made anew by this Open
	SetAside         []string  // damaged files and directories this Open found and set aside
	RecoveredBatches int64     // replayed by this Open
}

// The reading and writing side of a Log, cut into the pieces that others
// need. *Log and buffertest's in-memory log implement all of them.
type (
	// Writer appends.
	Writer interface {
		// Append stores records, in their order, and returns where they went
		// once they are durable. It is all or nothing. It waits a bounded time
		// for room and then returns ErrFull. Safe for concurrent use; records of
		// two calls of one goroutine keep their order within a shard. A stream
		// that does not exist is made with the defaults.
		Append(ctx context.Context, stream string, records ...Record) ([]Position, error)
	}
	// Reader reads.
	Reader interface {
		// Read returns durable records of one shard from from.Sequence on. A
		// position older than the oldest record is moved up, and the Gap told.
		// It does not wait: an empty page with AtEnd is an answer.
		Read(ctx context.Context, stream string, from Position, limit Limit) (Page, error)
		// Find turns a Start into the sequence of the first record to read.
		Find(stream string, shard ShardID, start Start) (Sequence, error)
		// News returns a channel that is closed when something is committed
		// after this call. Fetch it before you read, wait on it after.
		News() <-chan struct{}
		// Closings returns the completed runs whose time overlaps [from, to), by
		// sequence, at most max of them (0: 1000). after continues a listing
		// behind that sequence.
		Closings(stream string, shard ShardID, from, to time.Time, after Sequence, max int) ([]Closed, error)
	}
	// Committer keeps consumers' places.
	Committer interface {
		// Commit moves a consumer on. See Commit. A consumer has one committer at
		// a time: of two at once the later one may undo the earlier.
		Commit(ctx context.Context, c Commit) error
		// Checkpoint returns what was last committed, also what is not durable
		// yet; ErrNotFound for a consumer that never committed.
		Checkpoint(consumer string) (Checkpoint, error)
	}
	// Catalog knows the streams and consumers.
	Catalog interface {
		// CreateStream makes a stream, or gives an existing one a new policy. The
		// number of shards of an existing stream does not change here.
		CreateStream(ctx context.Context, name string, config StreamConfig) error
		// Streams lists the streams by name; Stream returns one or ErrNotFound.
		Streams() []StreamInfo
		Stream(name string) (StreamInfo, error)
		// Consumers lists the consumers by name.
		Consumers() []ConsumerInfo
		// DeleteConsumer forgets a consumer; ErrNotFound if there is none.
		DeleteConsumer(ctx context.Context, name string) error
	}
)
