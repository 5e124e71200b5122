package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestPipeGetsNoEscapes: on a pipe a table is tabs, and bytes from outside
// reach a terminal only quoted.
func TestPipeGetsNoEscapes(t *testing.T) {
	var out bytes.Buffer
	c := &console{stdout: &out, getenv: func(string) string { return "" }}
	rows := &table{header: []string{"A", "B"}}
	rows.add("1", "2")
	if err := rows.print(c); err != nil || out.String() != "A\tB\n1\t2\n" {
		t.Errorf("the table is %q, %v", out.String(), err)
	}
	for in, want := range map[string]string{"plain é": "plain é", "\x1b[31mred": `"\x1b[31mred"`, "a\nb": `"a\nb"`, "tab\there": "tab\there"} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) is %s", in, got)
		}
	}
}

func TestTexts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "2ms", 1230 * time.Millisecond: "1.2s", 90 * time.Second: "1m30s", 2 * time.Hour: "2h0m", 50 * time.Hour: "2d2h",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%d ns is written %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 40: "5.0 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d bytes are written %q, want %q", n, got, want)
		}
	}
}

// TestErrorsAreOneLine: whatever a library says, a person reads one line.
func TestErrorsAreOneLine(t *testing.T) {
	var out bytes.Buffer
	c := &console{stderr: &out}
	if code := c.report(failed(errors.New("first\n\tsecond  third"), "do this")); code != 1 || out.String() != "weir: first; second third (do this)\n" {
		t.Errorf("code %d, %q", code, out.String())
	}
	out.Reset()
	faults := &failure{code: exitUsage, err: errors.New("a.yaml:1: x: bad\na.yaml:2: y: bad"), each: true}
	if code := c.report(faults); code != 2 || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("code %d, %q", code, out.String())
	}
}
