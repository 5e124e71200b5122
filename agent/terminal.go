package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// isTerminal says whether w shows to a person.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// colours says whether w may get escape sequences.
func (c *console) colours(w io.Writer) bool {
	return isTerminal(w) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"
}

// table is rows under a header.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes t: in columns on a terminal, with tabs between the cells on a
// pipe.
func (t *table) print(c *console) error {
	var out strings.Builder
	if !isTerminal(c.stdout) {
		for _, row := range append([][]string{t.header}, t.rows...) {
			out.WriteString(strings.Join(row, "\t") + "\n")
		}
		_, err := io.WriteString(c.stdout, out.String())
		return err
	}
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(row []string) {
		var text strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&text, "%-*s  ", widths[i], cell)
		}
		out.WriteString(strings.TrimRight(text.String(), " "))
	}
	bold, plain := "", ""
	if c.colours(c.stdout) {
		bold, plain = "\x1b[1m", "\x1b[0m"
	}
	out.WriteString(bold)
	line(t.header)
	out.WriteString(plain + "\n")
	for _, row := range t.rows {
		line(row)
		out.WriteByte('\n')
	}
	_, err := io.WriteString(c.stdout, out.String())
	return err
}

// printJSON writes one JSON document.
func (c *console) printJSON(document any) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}

// printable makes text from outside safe for a terminal.
func printable(text string) string {
	for _, r := range text {
		if !unicode.IsPrint(r) && r != '\t' {
			quoted := fmt.Sprintf("%q", text)
			return quoted
		}
	}
	return text
}

// sizeText writes a size for people.
func sizeText(n int64) string {
	const units = "KMGTP"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// agoText writes how long before now t was.
func agoText(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return durationText(now.Sub(t)) + " ago"
}

// durationText writes d with no more digits than a person wants.
func durationText(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
