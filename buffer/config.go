package buffer

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/weir-edge/weir/configs/value"
)

// Config is the `buffer:` section of the configuration.
type Config struct {
	// Dir holds everything the log keeps. No default: a log must be put
	// somewhere on purpose.
	Dir string `yaml:"dir"`
	// MaxBytes is how much of the disk the directory may use, everything
	// counted, to within one segment. Default 0: as much as there is, less
	// ReserveBytes.
	MaxBytes value.Bytes `yaml:"max_bytes"`
	// ReserveBytes of the file system stay free for others. Default 0 means
	// the smaller of 512MiB and 10 % of the disk.
	ReserveBytes value.Bytes `yaml:"reserve_bytes"`
	// MaxRecordBytes is the largest record accepted: data, partition key and
	// attributes. Default 1MiB, as Kinesis; at most 10MiB.
	MaxRecordBytes value.Bytes `yaml:"max_record_bytes"`
	// MaxPendingBytes bounds the memory of appends that wait for their commit.
	// Default 8MiB: at 100 ms a commit, 80 MB/s.
	MaxPendingBytes value.Bytes `yaml:"max_pending_bytes"`
	// AppendWait is how long an append waits for room before ErrFull. Default
	// 5s: longer than a stall of an SD card, shorter than a client's patience.
	AppendWait value.Duration `yaml:"append_wait"`
	// Commit says how appends share a sync.
	Commit CommitConfig `yaml:"commit"`
}

// CommitConfig is the `buffer.commit:` section.
type CommitConfig struct {
	// MaxDelay bounds how often a chain commits under load: the next commit
	// starts at the earliest this long after the start of the one before. A
	// chain that was idle commits at once. Default 50ms: 20 syncs a second.
	MaxDelay value.Duration `yaml:"max_delay"`
	// MaxBytes starts a commit early when this much waits. Default 1MiB.
	MaxBytes value.Bytes `yaml:"max_bytes"`
}

// OnFull says what happens to a stream when the disk budget is used up.
type OnFull string

const (
	DropOldest OnFull = "drop_oldest" // make room by dropping the oldest segments
	Reject     OnFull = "reject"      // refuse appends with ErrFull
)

// Compression says how a stream's batches are stored.
type Compression string

const (
	NoCompression Compression = "none"
	Zstd          Compression = "zstd"
)

// Kind separates what has a different life on disk.
type Kind string

const (
	Data  Kind = "data"  // many small records
	Video Kind = "video" // few large ones, already compressed
)

// StreamConfig is one entry of the `streams:` section.
type StreamConfig struct {
	// Shards the stream is made with. Default 1; at most 64.
	Shards int `yaml:"shards" json:"shards"`
	// Retention is how long records are kept. Default 24h, as Kinesis;
	// 1m to 8760h.
	Retention value.Duration `yaml:"retention" json:"retention"`
	// MaxBytes bounds the stream's stored bytes. Default 0: no bound of its own.
	MaxBytes value.Bytes `yaml:"max_bytes" json:"max_bytes,omitempty"`
	// OnFull: default drop_oldest.
	OnFull OnFull `yaml:"on_full" json:"on_full"`
	// Priority, 0 to 9: when the disk decides, lower ones lose first. Default 0.
	Priority int `yaml:"priority" json:"priority"`
	// Compression: default zstd for data, none for video.
	Compression Compression `yaml:"compression" json:"compression"`
	// Kind is set by the part that owns the stream, not in the file.
	Kind Kind `yaml:"-" json:"kind"`
}

// DefaultConfig returns the defaults, Dir excepted.
func DefaultConfig() Config {
	return Config{
		MaxRecordBytes:  DefaultRecordBytes,
		MaxPendingBytes: 8 << 20,
		AppendWait:      value.Duration(5 * time.Second),
		Commit:          CommitConfig{MaxDelay: value.Duration(50 * time.Millisecond), MaxBytes: 1 << 20},
	}
}

// DefaultStreamConfig returns what a stream of this kind has when nothing
// else is said.
func DefaultStreamConfig(kind Kind) StreamConfig {
	c := StreamConfig{
		Shards: 1, Retention: value.Duration(24 * time.Hour),
		OnFull: DropOldest, Compression: Zstd, Kind: kind,
	}
	if kind == Video {
		c.Compression = NoCompression
	}
	return c
}

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		fault("dir: missing; name the directory that holds the log, such as /var/lib/weir")
	}
	if c.MaxBytes != 0 && c.MaxBytes < 16<<20 {
		fault("max_bytes: %s is too small; give the log at least 16MiB", c.MaxBytes)
	}
	if c.MaxRecordBytes < 1<<10 || c.MaxRecordBytes > MaxRecordBytes {
		fault("max_record_bytes: %s is not between 1KiB and 10MiB", c.MaxRecordBytes)
	}
	if c.MaxPendingBytes < c.MaxRecordBytes || c.MaxPendingBytes > 1<<30 {
		fault("max_pending_bytes: %s is not between max_record_bytes (%s) and 1GiB", c.MaxPendingBytes, c.MaxRecordBytes)
	}
	if c.AppendWait.Std() > time.Minute {
		fault("append_wait: %s is over one minute", c.AppendWait)
	}
	if c.Commit.MaxDelay.Std() > 10*time.Second {
		fault("commit.max_delay: %s is over 10s; senders would wait that long for their acknowledgement", c.Commit.MaxDelay)
	}
	if c.Commit.MaxBytes < 4<<10 || c.Commit.MaxBytes > MaxAppendBytes {
		fault("commit.max_bytes: %s is not between 4KiB and 16MiB", c.Commit.MaxBytes)
	}
	return errors.Join(faults...)
}

// Validate returns every fault of c, joined; each begins with the key's path.
func (c StreamConfig) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Shards < 1 || c.Shards > 64 {
		fault("shards: %d is not between 1 and 64", c.Shards)
	}
	if d := c.Retention.Std(); d < time.Minute || d > 8760*time.Hour {
		fault("retention: %s is not between 1m and 8760h", c.Retention)
	}
	if c.MaxBytes != 0 && c.MaxBytes < 4<<20 {
		fault("max_bytes: %s is too small; give the stream at least 4MiB", c.MaxBytes)
	}
	if c.OnFull != DropOldest && c.OnFull != Reject {
		fault("on_full: %q is not one of drop_oldest, reject", string(c.OnFull))
	}
	if c.Priority < 0 || c.Priority > 9 {
		fault("priority: %d is not between 0 and 9", c.Priority)
	}
	if c.Compression != Zstd && c.Compression != NoCompression {
		fault("compression: %q is not one of zstd, none", string(c.Compression))
	}
	return errors.Join(faults...)
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// CheckName says what is wrong with the name of a stream or a consumer.
func CheckName(name string) error {
	if !namePattern.MatchString(name) || name == "." || name == ".." {
		return fmt.Errorf("%w: name %.140q must be 1 to 128 of the characters a-z A-Z 0-9 _ . -", ErrInvalid, name)
	}
	return nil
}
