package sql

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/analytics/analyticstest"
	"github.com/weir-edge/weir/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSuite runs the contract of an analyzer on a query.
func TestSuite(t *testing.T) {
	plan, err := Compile("INSERT INTO output SELECT sensor, SUM(value) AS sum, AVG(value) AS avg, COUNT(*) AS n, MIN(arrival) AS first, window_end " +
		"FROM input GROUP BY sensor, TUMBLE(arrival, INTERVAL '20' SECOND)")
	if err != nil {
		t.Fatal(err)
	}
	analyticstest.Run(t, analyticstest.Harness{
		New: func(testing.TB) analytics.Analyzer {
			return plan.Analyzer(Options{Name: "q", IdleGrace: time.Second, MaxGroups: 1000})
		},
		Record: func(n int) buffer.Record {
			return buffer.Record{PartitionKey: fmt.Sprint("key", n*n%11), Data: fmt.Appendf(nil, `{"sensor":"s-%d","value":%d.%d}`, n%4, n*7919%1000, n%10)}
		},
		Rows: 30 * 4,
	})
}

func newLog(testing.TB) *analyticstest.Log { return analyticstest.NewLog(nil) }
