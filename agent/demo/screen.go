package demo

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// screen shows what flows: a table in place on a terminal, a line a second
// elsewhere.
type screen struct {
	out      io.Writer
	terminal bool
	address  func() string // of the API
	dir      string
	kept     bool // dir stays after the demo
	began    time.Time
	drawn    int // lines of the table on the terminal
	hinted   bool
}

// draw shows now, with rates since before.
func (s *screen) draw(now, before sample) {
	if s.began.IsZero() {
		s.began = now.at
	}
	if !s.hinted && s.address() != "" {
		s.hinted = true
		s.hints()
	}
	seconds := max(now.at.Sub(before.at).Seconds(), 0.001)
	rate := func(now, before int64) float64 { return float64(now-before) / seconds }
	var frames, fragments, rows int64
	for _, query := range now.queries {
		rows += query.Rows
	}
	for _, camera := range now.cameras {
		frames, fragments = frames+camera.Frames, fragments+camera.Fragments
	}
	if !s.terminal {
		s.write(fmt.Sprintf("%3.0fs in=%d (%.0f/s) log=%d records %d bytes out=%d (%.0f/s) lag=%d averages=%d%s cameras=%d frames=%d fragments=%d%s\n",
			now.at.Sub(s.began).Seconds(), now.in, rate(now.in, before.in), now.records, now.disk,
			now.out, rate(now.out, before.out), now.lag, rows, now.average.text(" (%s %.2f of %d)"), len(now.cameras), frames, fragments, problemText(now.problems)))
		return
	}
	lines := []string{
		fmt.Sprintf("%-8s %12s %12s", "", "total", "a second"),
		fmt.Sprintf("%-8s %12d %12.0f   messages from the sensors, durable", "in", now.in, rate(now.in, before.in)),
		fmt.Sprintf("%-8s %12d %12.0f   records, %.1f MiB on disk", "log", now.records, rate(now.records, before.records), float64(now.disk)/(1<<20)),
		fmt.Sprintf("%-8s %12d %12.0f   messages at the centre", "out", now.out, rate(now.out, before.out)),
		fmt.Sprintf("%-8s %12d %12s   records not at the centre yet", "lag", now.lag, ""),
	}
	for _, query := range now.queries {
		lines = append(lines, fmt.Sprintf("%-8s %12d %12s   rows of the query %s%s",
			"averages", query.Rows, "", query.Name, now.average.text(": %s has a mean of %.2f over %d values")))
	}
	for _, camera := range now.cameras {
		lines = append(lines, fmt.Sprintf("%-8s %12d %12s   frames of camera %s, %s, in %d fragments",
			"video", camera.Frames, "", camera.Name, camera.State, camera.Fragments))
	}
	if text := problemText(now.problems); text != "" {
		lines = append(lines, strings.TrimSpace(text))
	}
	var text strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", s.drawn)
	}
	for _, line := range lines {
		text.WriteString("\x1b[2K" + line + "\n")
	}
	text.WriteString("\x1b[J")
	s.drawn = len(lines)
	s.write(text.String())
}

// text shows the row; "" before the first.
func (a average) text(format string) string {
	if a.N == 0 {
		return ""
	}
	return fmt.Sprintf(format, a.Sensor, a.Mean, a.N)
}

func problemText(problems []api.Problem) string {
	var text strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&text, " problem: %s: %s", p.Part, strings.ReplaceAll(p.Reason, "\n", " "))
	}
	return text.String()
}

// hints prints once what a person may try.
func (s *screen) hints() {
	flag := ""
	if address := s.address(); address != fmt.Sprintf("127.0.0.1:%d", knownPorts().api) {
		flag = " --api http://" + address
	}
	s.write(fmt.Sprintf(`weir demo: simulated sensors and a camera -> local log -> central stream. Ctrl-C ends it.
data is in %s%s
in another terminal, try:
  weir status%[3]s
  weir tail telemetry --follow%[3]s
  weir tail averages --follow --raw%[3]s
  echo '{"sensor":"me","value":42}' | weir put telemetry --key me%[3]s
  weir video list%[3]s
  weir video clip dock --from 10s -o clip.mp4%[3]s
  curl http://%[4]s/metrics

`, s.dir, map[bool]string{true: "", false: ", which is removed at the end (--dir keeps it)"}[s.kept], flag, s.address()))
}

// finish says how it went; an error if nothing flowed.
func (s *screen) finish(last sample) error {
	if last.in == 0 {
		return errors.New("nothing came in from the sensors" + problemText(last.problems))
	}
	if last.out == 0 {
		return errors.New("nothing arrived at the centre" + problemText(last.problems))
	}
	s.write(fmt.Sprintf("done: %d messages in, %d records in the log, %d at the centre\n", last.in, last.records, last.out))
	return nil
}

// write ignores errors: the demo goes on without someone who watches.
func (s *screen) write(text string) { _, _ = io.WriteString(s.out, text) }
