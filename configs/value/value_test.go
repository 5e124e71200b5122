package value_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-edge/weir/configs/value"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]value.Bytes{
		"0": 0, "1": 1, "1B": 1, "4KiB": 4 << 10, "1MiB": 1 << 20, "20GiB": 20 << 30, "2TiB": 2 << 40,
		"4kB": 4e3, "3MB": 3e6, "2GB": 2e9, "1TB": 1e12, " 512 MiB ": 512 << 20,
		"9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		if got, err := value.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "B", "MiB", "-1", "-1MiB", "1.5GiB", "1e9", "0x10", "1 000", "1mib", "1K", "20Gi", "twenty", "1MiBB", "٣MiB"} {
		if got, err := value.ParseBytes(text); err == nil || !strings.Contains(err.Error(), "write it as 512MiB") {
			t.Errorf("ParseBytes(%q) = %d, %v; want an error that says what is right", text, got, err)
		}
	}
	if _, err := value.ParseBytes("8388608TiB"); err == nil || !strings.Contains(err.Error(), "larger than any disk") {
		t.Errorf("an overflow gives %v", err)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "90s": 90 * time.Second, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour,
		"1h30m": 90 * time.Minute, " 5s ": 5 * time.Second, "0d": 0, "100000d": 100_000 * 24 * time.Hour,
	} {
		if got, err := value.ParseDuration(text); err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "24", "-1s", "-1d", "100001d", "1.5d", "1d12h", "3 fortnights", "1w", "9999999999h"} {
		if got, err := value.ParseDuration(text); err == nil || !strings.Contains(err.Error(), "write it as 500ms, 90s, 24h or 7d") {
			t.Errorf("ParseDuration(%q) = %s, %v; want an error that says what is right", text, got, err)
		}
	}
}

// TestRoundTrip: what is written is read as the same.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := value.Bytes(rapid.Int64Min(0).Draw(t, "size"))
		var sizeAgain value.Bytes
		text, err := size.MarshalText()
		if err == nil {
			err = sizeAgain.UnmarshalText(text)
		}
		if err != nil || sizeAgain != size {
			t.Fatalf("%d is written %q and read %d, %v", size, text, sizeAgain, err)
		}
		// Whole days up to the limit, and everything else a time.Duration holds.
		d := value.Duration(rapid.Int64Min(0).Draw(t, "duration"))
		if rapid.Bool().Draw(t, "days") {
			d = value.Duration(rapid.Int64Range(0, 100_000).Draw(t, "n") * int64(24*time.Hour))
		}
		var again value.Duration
		text, err = d.MarshalText()
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || again != d {
			t.Fatalf("%d is written %q and read %d, %v", d, text, again, err)
		}
	})
}

func TestString(t *testing.T) {
	for want, v := range map[string]fmt.Stringer{
		"0B": value.Bytes(0), "1MiB": value.Bytes(1 << 20), "1025B": value.Bytes(1025), "1536KiB": value.Bytes(1536 << 10),
		"2048TiB": value.Bytes(2048 << 40),
		"0s":      value.Duration(0), "7d": value.Duration(7 * 24 * time.Hour), "36h0m0s": value.Duration(36 * time.Hour),
	} {
		if v.String() != want {
			t.Errorf("%#v is written %q; want %q", v, v.String(), want)
		}
	}
}

// TestSecretIsNeverSeen prints a secret in every way that a log, an error or
// an encoder may.
func TestSecretIsNeverSeen(t *testing.T) {
	const text = "hunter2-ß"
	s := value.NewSecret(text)
	type holder struct {
		Password value.Secret
		Pointer  *value.Secret
		List     []value.Secret
		Map      map[string]value.Secret
		Any      any
		hidden   value.Secret
		deep     struct{ hidden []value.Secret }
	}
	h := holder{Password: s, Pointer: &s, List: []value.Secret{s}, Map: map[string]value.Secret{"k": s}, Any: s, hidden: s}
	h.deep.hidden = []value.Secret{s}
	var seen strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10s", "%.3s", "%-20q", "%+q", "% x", "%#x", "%c", "%U", "%b", "%t", "%e"} {
		for _, v := range []any{s, &s, h, &h, h.List, h.Map} {
			// One operand for two verbs is the point of %T %v.
			fmt.Fprintf(&seen, verb+"\n", v)
		}
	}
	fmt.Fprintln(&seen, s, &s, h.List)
	fmt.Fprintln(&seen, fmt.Errorf("connect: %v: %w", s, fmt.Errorf("%s", s)))
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	seen.Write(encoded)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&seen, nil), slog.NewJSONHandler(&seen, nil)} {
		slog.New(handler).Info("told", "secret", s, "pointer", &s, "holder", h, "list", h.List, slog.Group("g", "s", s))
	}
	for _, form := range []string{text, "hunter2", "hun", fmt.Sprintf("%x", text), fmt.Sprintf("% x", text), fmt.Sprintf("%X", text), "104 117"} {
		if strings.Contains(seen.String(), form) {
			t.Errorf("%q is seen in\n%s", form, seen.String())
		}
	}
	if !strings.Contains(seen.String(), `"Password":"***"`) {
		t.Errorf("the secret is not *** in\n%s", seen.String())
	}
}

func TestSecretItself(t *testing.T) {
	var s value.Secret
	if !s.IsZero() || s != value.NewSecret("") || s.Reveal() != "" || s.String() != "" || fmt.Sprintf("%v", s) != "" {
		t.Errorf("no secret prints %q", s)
	}
	if err := s.UnmarshalText([]byte("hunter2")); err != nil || s.Reveal() != "hunter2" || s.IsZero() {
		t.Errorf("it is %q, %v", s.Reveal(), err)
	}
	err := s.UnmarshalText([]byte("hunter3\x00"))
	if err == nil || strings.Contains(err.Error(), "hunter") || s.Reveal() != "hunter2" {
		t.Errorf("a NUL byte gives %v and %q", err, s.Reveal())
	}
	if (s == value.Secret{}) || s != value.NewSecret("hunter2") || s == value.NewSecret("hunter3") {
		t.Error("secrets do not compare by their text")
	}
}

// TestBackoff: every wait is within the bounds, and the longest grows to Max.
func TestBackoff(t *testing.T) {
	b := value.Backoff{Min: value.Duration(500 * time.Millisecond), Max: value.Duration(time.Minute)}
	rapid.Check(t, func(t *rapid.T) {
		previous := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "previous"))
		wait := b.Next(previous, rapid.Float64Range(0, 0.999999).Draw(t, "random"))
		if wait < b.Min.Std() || wait > b.Max.Std() || wait > max(3*previous, b.Min.Std()) {
			t.Fatalf("after %s it waits %s", previous, wait)
		}
	})
	wait, tries := time.Duration(0), 0
	for ; wait < b.Max.Std() && tries < 20; tries++ {
		wait = b.Next(wait, 0.999999)
	}
	if wait != b.Max.Std() || tries < 4 {
		t.Errorf("after %d tries it waits %s", tries, wait)
	}
	if first := b.Next(0, 0.5); first != b.Min.Std() {
		t.Errorf("the first wait is %s", first)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"1MiB", "7d", "90s", "", "-1", "9223372036854775807B", "1.5h", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if size, err := value.ParseBytes(text); err == nil {
			if again, err := value.ParseBytes(size.String()); err != nil || again != size || size < 0 {
				t.Errorf("%q is %d and then %d, %v", text, size, again, err)
			}
		}
		if d, err := value.ParseDuration(text); err == nil {
			if again, err := value.ParseDuration(d.String()); err != nil || again != d || d < 0 {
				t.Errorf("%q is %d and then %d, %v", text, d, again, err)
			}
		}
		var s value.Secret
		if s.UnmarshalText([]byte(text)) == nil && (s.Reveal() != text || bytes.IndexByte([]byte(text), 0) >= 0) {
			t.Errorf("the secret of %q is another", text)
		}
	})
}
