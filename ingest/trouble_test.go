package ingest

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestTrouble: each stream is told of once each way, and that one is taken again
// does not hide that another is not.
func TestTrouble(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, nil))
	var trouble Trouble
	trouble.Note("a", nil, logger)
	for range 3 {
		trouble.Note("a", errors.New("a is full"), logger)
		trouble.Note("b", errors.New("b is full"), logger)
	}
	if n := strings.Count(out.String(), "takes nothing"); n != 2 || trouble.Text() != "a is full" {
		t.Errorf("%d lines, %q", n, trouble.Text())
	}
	for range 2 {
		trouble.Note("a", nil, logger)
	}
	if n := strings.Count(out.String(), "takes records again"); n != 1 || trouble.Text() != "b is full" {
		t.Errorf("%d lines, %q", n, trouble.Text())
	}
	if trouble.Note("b", nil, logger); trouble.Text() != "" {
		t.Errorf("%q", trouble.Text())
	}
}
