// Package value holds the few types of configuration values that every part
// of weir shares: sizes in bytes, durations with days, and secrets that do not
// print. It is pure and imports nothing of weir, so that each package can own
// its part of the configuration (see agent/config, which loads the whole).
//
// It does not read files or expand ${NAME}: agent/config does.
package value

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
	"unique"
)

// Bytes is a size in bytes. In text it is a whole number with one of the
// units B, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of
// 1000); a bare number is bytes.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseBytes reads the text form of Bytes.
func ParseBytes(text string) (Bytes, error) {
	number, unit := strings.TrimSpace(text), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size; write it as 512MiB or 20GiB", text)
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is larger than any disk", text)
	}
	return Bytes(n * unit), nil
}

// UnmarshalText makes Bytes readable from YAML and JSON.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// MarshalText is the inverse of UnmarshalText.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String writes b exactly, in the largest power-of-1024 unit that divides it.
func (b Bytes) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if s := byteUnits[u].size; b != 0 && int64(b)%s == 0 {
			return strconv.FormatInt(int64(b)/s, 10) + byteUnits[u].name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Duration is a time.Duration whose text form also has days: 90s, 24h, 7d.
type Duration time.Duration

// ParseDuration reads the text form of Duration. It is never negative.
func ParseDuration(text string) (Duration, error) {
	bad := fmt.Errorf("%q is not a duration; write it as 500ms, 90s, 24h or 7d", text)
	if days, ok := strings.CutSuffix(strings.TrimSpace(text), "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err != nil || n < 0 || n > 100_000 {
			return 0, bad
		}
		return Duration(time.Duration(n) * 24 * time.Hour), nil
	}
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil || d < 0 {
		return 0, bad
	}
	return Duration(d), nil
}

// UnmarshalText makes Duration readable from YAML and JSON.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes whole days as days and all else as time.Duration does.
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Secret is a value that must not be seen: every way of printing it gives
// "***" (or nothing, if it is empty). Reveal gives the value itself. Secrets
// compare by their text; the zero value is the empty one.
type Secret struct {
	// Not the text itself: fmt prints the fields of a struct that it reaches
	// through an unexported field without asking any method. Of a handle it
	// prints an address.
	text unique.Handle[string]
}

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{unique.Make(text)}
}

// Reveal returns the secret, for the one place that sends it to its peer.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.text.Value()
}

// IsZero says whether there is no secret at all.
func (s Secret) IsZero() bool { return s == Secret{} }

func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return "***"
}

// GoString keeps %#v from printing the secret.
func (s Secret) GoString() string { return s.String() }

// Format keeps every other verb from printing it.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue keeps slog from printing it.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps encoders from writing it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the secret over.
func (s *Secret) UnmarshalText(text []byte) error {
	if strings.ContainsRune(string(text), 0) {
		return errors.New("a secret must not contain a NUL byte")
	}
	*s = NewSecret(string(text))
	return nil
}
