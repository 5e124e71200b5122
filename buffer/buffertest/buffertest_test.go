package buffertest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var memory = Harness{Open: func(_ testing.TB, streams map[string]buffer.StreamConfig) Log { return NewLog(streams) }}

func TestMemory(t *testing.T) { Run(t, memory) }

func TestMemoryAgainstItself(t *testing.T) { CheckModel(t, memory) }

// TestDropBefore: what retention takes is told to every reader.
func TestDropBefore(t *testing.T) {
	m := NewLog(nil)
	for i := range 10 {
		if _, err := m.Append(t.Context(), "s", simple("k", i)); err != nil {
			t.Fatal(err)
		}
	}
	m.DropBefore("s", 0, 4, buffer.GapDisk)
	for range 2 {
		page, err := m.Read(t.Context(), "s", buffer.Position{Sequence: 2}, buffer.Limit{})
		if err != nil || len(page.Gaps) != 1 || page.Gaps[0].From != 2 || page.Gaps[0].To != 3 || len(page.Entries) != 7 {
			t.Fatalf("%+v, %v", page, err)
		}
	}
}
