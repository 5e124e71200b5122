package broker

import (
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/ingesttest"
)

// TestRestoredByAWrongClock: a clock that jumped ahead while the broker was off
// ends no session at once, one that was set back keeps none for ever, and a new
// session is told from those before it.
func TestRestoredByAWrongClock(t *testing.T) {
	const years = 50 * 365 * 24 * time.Hour
	for name, away := range map[string]time.Duration{"ahead": years, "set back": -years} {
		t.Run(name, func(t *testing.T) {
			b, err := New(Options{Config: configuration(), Log: ingesttest.NewLog()})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			future := uint64(now.Add(years).UnixNano())
			r := &restorer{sessions: map[string]*restored{}, retained: map[string]*stored{}}
			c := change{Kind: kindSession, Client: "c", Generation: future, Session: &keptSession{Expiry: 2 * time.Hour, Away: now.Add(-away)}}
			if err := r.apply(c.record().Data); err != nil {
				t.Fatal(err)
			}
			b.restore(r)
			b.sweep(now.Add(comeBack - time.Minute))
			if b.Status().Sessions != 1 {
				t.Error("the session is gone within the hour")
			}
			b.sweep(now.Add(2*time.Hour + time.Minute))
			if b.Status().Sessions != 0 {
				t.Error("the session is there for ever")
			}
			if next := b.nextGeneration(); next <= future {
				t.Errorf("the next session, %d, counts as before %d", next, future)
			}
		})
	}
}
