package uplink

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

// Config is what every entry of the `uplink:` section has, whatever its type.
// The keys of the type stand beside these in the same mapping: a loader
// decodes the mapping into Config and into the Config of the type's package,
// and a key that neither has is unknown.
type Config struct {
	// Name of this uplink; the consumer "uplink.NAME" of the log. No default.
	Name string `yaml:"name"`
	// Type says which kind of destination it is: nats. No default.
	Type string `yaml:"type"`
	// Streams that are sent, each as a whole. No default.
	Streams []string `yaml:"streams"`
	// Batch says how many records travel together.
	Batch BatchConfig `yaml:"batch"`
	// Retry is the wait between tries while the destination is away. Default
	// 500ms to 1m: a short break costs little, and a thousand boxes whose
	// centre comes back after a day do not come at once. Tries never end.
	Retry value.Backoff `yaml:"retry"`
}

// BatchConfig is the `batch:` of an uplink.
type BatchConfig struct {
	// MaxRecords in a batch. Default 500: the limit of Kinesis, and at 100 ms
	// round trip 5,000 records a second. 1 to 10000.
	MaxRecords int `yaml:"max_records"`
	// MaxBytes of data, keys and attributes in a batch; a single larger record
	// is a batch of its own. Default 1MiB. 1KiB to 16MiB.
	MaxBytes value.Bytes `yaml:"max_bytes"`
	// MaxDelay is how long a record waits for others to fill its batch. Default
	// 1s: few messages on a metered link. 0: send at once. At most 1h.
	MaxDelay value.Duration `yaml:"max_delay"`
}

// Supported are the types of destination there are.
func Supported() []string { return []string{"nats"} }

// planned are the types that have a place in the design and are not built.
func planned() []string {
	return []string{"kinesis", "kafka", "mqtt", "http", "s3", "redshift", "opensearch", "splunk", "datadog", "newrelic",
		"mongodb", "firehose", "kvs", "whip", "file"}
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Batch: BatchConfig{MaxRecords: 500, MaxBytes: 1 << 20, MaxDelay: value.Duration(time.Second)},
		Retry: value.Backoff{Min: value.Duration(500 * time.Millisecond), Max: value.Duration(time.Minute)},
	}
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,100}$`)

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !namePattern.MatchString(c.Name) {
		fault("name: %.120q must be 1 to 100 of the characters a-z A-Z 0-9 _ . -", c.Name)
	}
	switch {
	case c.Type == "":
		fault("type: missing; supported are %v", Supported())
	case slices.Contains(planned(), c.Type):
		fault("type: %s: not supported yet; supported are %v", c.Type, Supported())
	case !slices.Contains(Supported(), c.Type):
		fault("type: %.40q is not known; supported are %v", c.Type, Supported())
	}
	if len(c.Streams) == 0 {
		fault("streams: missing; name the streams to send")
	}
	for i, stream := range c.Streams {
		if err := buffer.CheckName(stream); err != nil {
			fault("streams[%d]: %w", i, err)
		}
		if slices.Contains(c.Streams[:i], stream) {
			fault("streams[%d]: %s is named twice", i, stream)
		}
	}
	if c.Batch.MaxRecords < 1 || c.Batch.MaxRecords > 10_000 {
		fault("batch.max_records: %d is not between 1 and 10000", c.Batch.MaxRecords)
	}
	if c.Batch.MaxBytes < 1<<10 || c.Batch.MaxBytes > 16<<20 {
		fault("batch.max_bytes: %s is not between 1KiB and 16MiB", c.Batch.MaxBytes)
	}
	if c.Batch.MaxDelay.Std() > time.Hour {
		fault("batch.max_delay: %s is over 1h", c.Batch.MaxDelay)
	}
	if c.Retry.Min.Std() < 10*time.Millisecond || c.Retry.Min.Std() > time.Hour {
		fault("retry.min: %s is not between 10ms and 1h", c.Retry.Min)
	}
	if c.Retry.Max < c.Retry.Min || c.Retry.Max.Std() > 24*time.Hour {
		fault("retry.max: %s is not between retry.min (%s) and 24h", c.Retry.Max, c.Retry.Min)
	}
	return errors.Join(faults...)
}

// Consumer is the name of the uplink's consumer in the log.
func (c Config) Consumer() string { return "uplink." + c.Name }
