package analytics_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/analytics/analyticstest"
	"github.com/weir-edge/weir/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// copier is the least analyzer: a row for each record, as soon as it is sure
// that no shard has an older one. Its state is what waits.
type copier struct {
	state
	ends map[buffer.ShardID]bool
}

type state struct {
	Shards  []buffer.ShardID
	Waiting map[buffer.ShardID][]buffer.Record
}

func newCopier() *copier {
	c := &copier{}
	_, _ = c.Restore(nil)
	return c
}

func (c *copier) Restore(b []byte) (map[buffer.ShardID]buffer.Sequence, error) {
	c.state, c.ends = state{Waiting: map[buffer.ShardID][]buffer.Record{}}, map[buffer.ShardID]bool{}
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < 10 || string(b[:5]) != "copy " || fmt.Sprintf("%05d", sum(b[10:])) != string(b[5:10]) || json.Unmarshal(b[10:], &c.state) != nil {
		c.state = state{Waiting: map[buffer.ShardID][]buffer.Record{}}
		return nil, errors.New("no state of a copier")
	}
	return nil, nil
}

func sum(b []byte) int {
	n := 0
	for i, c := range b {
		n = (n*31 + int(c) + i) % 99991
	}
	return n
}

func (c *copier) State() ([]byte, error) {
	b, err := json.Marshal(c.state)
	return append(fmt.Appendf(nil, "copy %05d", sum(b)), b...), err
}

func (c *copier) Analyze(b analytics.Batch) error {
	if c.Waiting[b.Shard] == nil {
		c.Waiting[b.Shard] = []buffer.Record{}
		c.Shards = append(c.Shards, b.Shard)
	}
	for _, e := range b.Entries {
		if string(e.Data) == "poison" {
			return errors.New("this cannot be analyzed")
		}
		c.Waiting[b.Shard] = append(c.Waiting[b.Shard], buffer.Record{PartitionKey: e.PartitionKey, Data: e.Data, Arrival: e.Arrival})
	}
	c.ends[b.Shard] = b.AtEnd
	return nil
}

// first is the shard with the oldest record, if that is known.
func (c *copier) first() (buffer.ShardID, bool) {
	var least buffer.ShardID
	found := false
	for _, id := range c.Shards {
		w := c.Waiting[id]
		if len(w) == 0 && !c.ends[id] {
			return 0, false
		}
		if len(w) > 0 && (!found || w[0].Arrival.Before(c.Waiting[least][0].Arrival)) {
			least, found = id, true
		}
	}
	return least, found
}

func (c *copier) Rows(limit analytics.Limit) []buffer.Record {
	var rows []buffer.Record
	for len(rows) < limit.MaxRecords {
		id, ok := c.first()
		if !ok {
			break
		}
		rows = append(rows, c.Waiting[id][0])
		c.Waiting[id] = c.Waiting[id][1:]
	}
	return rows
}

func (c *copier) Progress() analytics.Progress {
	var p analytics.Progress
	if _, ok := c.first(); ok {
		for _, w := range c.Waiting {
			p.Ready += len(w)
		}
	}
	for _, id := range c.Shards {
		if !c.ends[id] && len(c.Waiting[id]) == 0 {
			p.Behind = id
		}
	}
	return p
}

func TestSuite(t *testing.T) {
	analyticstest.Run(t, analyticstest.Harness{
		New: func(testing.TB) analytics.Analyzer { return newCopier() },
		Record: func(n int) buffer.Record {
			return buffer.Record{PartitionKey: fmt.Sprint("key", n%11), Data: fmt.Append(nil, n)}
		},
		Rows: analyticstest.Records,
	})
}

func TestNew(t *testing.T) {
	for want, o := range map[string]analytics.Options{
		`query "a b": its consumer: invalid: name "query.a b"`: {Name: "a b", Input: "i", Output: "o"},
		`query a: stream "":`:                            {Name: "a", Output: "o"},
		`query a: stream "x/y": invalid`:                 {Name: "a", Input: "i", Output: "x/y"},
		"query a: it reads what it writes, the stream i": {Name: "a", Input: "i", Output: "i"},
	} {
		if _, err := analytics.New(o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// TestPoison: an analyzer that gives up ends the run with its reason; the
// position stays before the record, and the runner may be run again.
func TestPoison(t *testing.T) {
	log := analyticstest.NewLog(nil)
	records := []buffer.Record{{PartitionKey: "k", Data: []byte("a")}, {PartitionKey: "k", Data: []byte("poison")}}
	if _, err := log.Append(t.Context(), "i", records...); err != nil {
		t.Fatal(err)
	}
	r, err := analytics.New(analytics.Options{Name: "q", Input: "i", Output: "o", Analyzer: newCopier(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Run(t.Context()); err == nil || err.Error() != "query q: this cannot be analyzed" {
			t.Errorf("the run ended with %v", err)
		}
		if s := r.Status(); s.State != analytics.Stopped || s.LastError != "query q: this cannot be analyzed" || s.Commits != 0 {
			t.Errorf("the status is %+v", s)
		}
	}
	if _, err := log.Checkpoint("query.q"); !errors.Is(err, buffer.ErrNotFound) {
		t.Errorf("it committed: %v", err)
	}
}
