//go:build !slim

package demo_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/agent/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen collects what the demo shows and ends it once that matches.
type screen struct {
	mu    sync.Mutex
	text  strings.Builder
	until *regexp.Regexp
	end   context.CancelFunc
	took  time.Duration
	began time.Time
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if s.took == 0 && s.until.MatchString(s.text.String()) {
		s.took = time.Since(s.began)
		s.end()
	}
	return len(p), nil
}

// TestDemoFlows runs the demo until messages have come in, are in the log and
// at the centre, and the camera has a fragment.
func TestDemoFlows(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := &screen{end: cancel, began: time.Now(),
		until: regexp.MustCompile(`(?m)^.* in=[1-9]\d* .*log=[1-9]\d* .*out=[1-9]\d* .*averages=[1-9]\d* \(s-\d\d [\d.]+ of \d+\) cameras=1 frames=[1-9]\d* fragments=[1-9]\d*$`)}
	dir := filepath.Join(t.TempDir(), "kept")
	if err := demo.Run(ctx, demo.Options{Dir: dir, Out: s, AnyPort: true, Version: "test"}); err != nil {
		t.Fatalf("%v\n%s", err, s.text.String())
	}
	if s.took == 0 {
		t.Fatalf("not everything flows:\n%s", s.text.String())
	}
	t.Logf("everything flows after %s", s.took.Round(100*time.Millisecond))
	text := s.text.String()
	if strings.Contains(text, "\x1b") {
		t.Error("escapes on a pipe")
	}
	for _, part := range []string{"weir tail telemetry", "weir tail averages", "weir status", "weir video clip dock", "done: "} {
		if !strings.Contains(text, part) {
			t.Errorf("it does not say %q:\n%s", part, text)
		}
	}
	for _, name := range []string{"weir.yaml", "weir.log", "log", "centre"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the kept directory: %v", err)
		}
	}
}

// TestDemoCleansUp: without a directory of its own nothing stays, and one in
// which nothing could flow is not a success.
func TestDemoCleansUp(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := demo.Run(ctx, demo.Options{Out: io.Discard, AnyPort: true}); err == nil || !strings.Contains(err.Error(), "nothing came in") {
		t.Errorf("a demo that did not run ends with %v", err)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

// TestDemoOnTerminal draws in place.
func TestDemoOnTerminal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := &screen{end: cancel, began: time.Now(), until: regexp.MustCompile(`out +[1-9]\d* `)}
	if err := demo.Run(ctx, demo.Options{Out: s, Terminal: true, AnyPort: true}); err != nil {
		t.Fatalf("%v\n%s", err, s.text.String())
	}
	if !regexp.MustCompile(`\x1b\[\d+A\x1b\[2K`).MatchString(s.text.String()) {
		t.Errorf("it is not drawn in place: %q", s.text.String())
	}
}
