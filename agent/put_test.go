package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weir-edge/weir/buffer"
)

// TestPutSendsWhatIsThere: a line that stands alone goes at once; lines that
// come while a request runs go together, and no more than a batch waits.
func TestPutSendsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		lines := newLineBatches()
		go lines.read(in)
		write := func(text string) {
			t.Helper()
			if _, err := io.WriteString(out, text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		next := func(want int) []byte {
			t.Helper()
			batch, n, err := lines.next(t.Context())
			if err != nil || n != want || bytes.Count(batch, []byte("\n")) != want {
				t.Fatalf("there are %d lines, %v; want %d", n, err, want)
			}
			return batch
		}
		write("alone\n")
		next(1)
		write("a\nb\nhalf")
		next(2)
		write(" a line\n")
		if batch := next(1); string(batch) != "half a line\n" {
			t.Fatalf("the line is %q", batch)
		}
		blocked := make(chan struct{})
		go func() {
			defer close(blocked)
			if _, err := io.WriteString(out, strings.Repeat(strings.Repeat("x", 1023)+"\n", 3000)); err != nil {
				t.Error(err)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		select {
		case <-blocked:
			t.Fatal("all of 3 MiB is in memory")
		default:
		}
		for total := 0; total < 3000; {
			batch, n, err := lines.next(t.Context())
			if err != nil || n == 0 || len(batch) > putBatchBytes {
				t.Fatalf("a batch of %d bytes and %d lines, %v", len(batch), n, err)
			}
			total += n
		}
		next(0)
		<-blocked
	})
}

func TestPutRefusesEndlessLine(t *testing.T) {
	lines := newLineBatches()
	lines.read(strings.NewReader("ok\n" + strings.Repeat("x", buffer.MaxRecordBytes+100<<10) + "\n"))
	if _, n, err := lines.next(t.Context()); n != 1 || err != nil {
		t.Fatalf("the line before it: %d, %v", n, err)
	}
	if _, _, err := lines.next(t.Context()); err == nil || !strings.Contains(err.Error(), "a line is over 10 MiB") {
		t.Fatalf("the error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := newLineBatches().next(ctx); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Fatalf("after an interrupt: %v", err)
	}
}
