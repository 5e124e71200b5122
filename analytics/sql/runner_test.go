package sql

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
)

const contract = `INSERT INTO averages
SELECT sensor, AVG(value) AS mean, COUNT(*) AS n, window_start
FROM telemetry GROUP BY sensor, TUMBLE(arrival, INTERVAL '60' SECOND)`

// TestContract is the query of the contract in real time, in a bubble: its
// rows come within moments of each window's end.
func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := buffer.DefaultStreamConfig(buffer.Data)
		c.Shards = 4
		log := buffertest.NewLog(map[string]buffer.StreamConfig{"telemetry": c})
		q := DefaultQuery()
		q.Name, q.SQL = "minute-average", contract
		r, err := NewRunner(q, log, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		for i := range 150 {
			rec := buffer.Record{PartitionKey: fmt.Sprint("s", i%3), Data: fmt.Appendf(nil, `{"sensor":"s-%d","value":%d.5}`, i%3, i)}
			if _, err := log.Append(ctx, "telemetry", rec); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(40 * time.Second)
		if s := r.Status(); s.State != analytics.Live || s.Records != 150 || s.Rows != 9 || s.Late != 0 || s.Windows != 0 || s.LastError != "" {
			t.Errorf("the status is %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		page, err := log.Read(t.Context(), "averages", buffer.Position{}, buffer.Limit{})
		if err != nil || len(page.Entries) != 9 {
			t.Fatalf("%d rows, %v; want three windows of three sensors", len(page.Entries), err)
		}
		want := []string{"29", "30", "31", "89", "90", "91", "134", "135", "136"}
		for i, e := range page.Entries {
			minute, sensor, n := i/3, i%3, 20-10*(i/6)
			row := fmt.Sprintf(`{"sensor":"s-%d","mean":%s,"n":%d,"window_start":"2000-01-01T00:0%d:00.000Z"}`, sensor, want[i], n, minute)
			if string(e.Data) != row || e.PartitionKey != fmt.Sprintf("s-%d", sensor) || e.Attribute(AttrQuery) != "minute-average" {
				t.Errorf("row %d is %s with key %s and %v, want %s", i, e.Data, e.PartitionKey, e.Attributes, row)
			}
			closed := time.Date(2000, 1, 1, 0, minute+1, 5, 0, time.UTC)
			if late := e.Arrival.Sub(closed); late < 0 || late > time.Second {
				t.Errorf("row %d came %s after its window was closed", i, late)
			}
		}
	})
}
