package acceptance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	gocmp "github.com/google/go-cmp/cmp"
)

// average is a row of the query: of one key in one window.
type average struct {
	Key   string    `json:"key"`
	Mean  float64   `json:"mean"`
	N     int64     `json:"n"`
	Start time.Time `json:"window_start"`
}

// query counts and averages what TestQueryKills publishes, into a stream.
const query = `
analytics:
  queries:
    - name: %[1]s
      sql: >
        INSERT INTO %[1]s
        SELECT key, AVG(n) AS mean, COUNT(*) AS n, window_start
        FROM telemetry GROUP BY key, TUMBLE(arrival, INTERVAL '1' SECOND)
`

// TestQueryKills: weir is killed 20 times while a query runs over what comes
// in. Its output is that of a run over the same records that nobody disturbs,
// row by row, and what a plain calculation over them gives.
func TestQueryKills(t *testing.T) {
	d := &drill{t: t, broker: startMosquitto(t)}
	const stream = "streams: {telemetry: {shards: 2, retention: 24h}}\n"
	d.node = newNode(t, stream+fmt.Sprintf(`
ingest:
  mqtt:
    - name: plant
      url: mqtt://%s
      client_id: gw-17
      topics: [{filter: sensors/+/+, qos: 1, stream: telemetry, partition_key: "{topic[1]}"}]
`, d.broker)+fmt.Sprintf(query, "disturbed"))
	p := publisher(t, d.broker)
	d.node.start()
	until(t, 20*time.Second, "weir is healthy", d.node.healthy)
	published := make(chan error, 1)
	go func() { published <- d.publish(p, 15*time.Second) }()
	d.disturb(20, 15*time.Second)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "every message is in a row", func() bool { return d.counted("disturbed") >= int64(messages()) })
	d.node.stop()

	d.node.configure(stream + fmt.Sprintf(query, "undisturbed"))
	d.node.start()
	until(t, time.Minute, "every message is in a row of the other query", func() bool { return d.counted("undisturbed") >= int64(messages()) })
	disturbed, undisturbed := d.rows("disturbed"), d.rows("undisturbed")
	if diff := gocmp.Diff(undisturbed, disturbed); diff != "" {
		t.Errorf("the output is not that of an undisturbed run (-undisturbed +disturbed):\n%.2000s", diff)
	}
	if diff := gocmp.Diff(d.expected(), disturbed, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("the output is not what the records give (-expected +disturbed):\n%.2000s", diff)
	}
	t.Logf("%d rows; %d of the kills hit a process that took data", len(disturbed), d.served)
	if d.served == 0 {
		t.Error("no kill hit a process that took data; this shows nothing")
	}
}

// configure gives the node other sections; it must not run.
func (n *node) configure(sections string) {
	n.t.Helper()
	b, err := os.ReadFile(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	head := strings.SplitAfterN(string(b), "\n", 4)[:3] // node, buffer, api
	if err := os.WriteFile(n.config, []byte(strings.Join(head, "")+sections), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// rows reads a query's output; none while there is no such stream.
func (d *drill) rows(stream string) []average {
	d.t.Helper()
	var list []average
	for _, line := range lines(d.node.run("tail", stream, "--from", "trim-horizon", "--raw")) {
		var row average
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			d.t.Fatalf("%q: %v", line, err)
		}
		list = append(list, row)
	}
	return list
}

// counted is how many messages a query's rows count together.
func (d *drill) counted(stream string) (sum int64) {
	d.t.Helper()
	if !d.node.healthy() {
		return 0
	}
	for _, row := range d.rows(stream) {
		sum += row.N
	}
	return sum
}

// expected calculates the rows from the records. Within a shard the time of
// arrival never runs back: what came before the one ahead of it counts with that.
func (d *drill) expected() []average {
	d.t.Helper()
	type group struct {
		start time.Time
		key   string
	}
	rows, latest := map[group]*average{}, map[string]time.Time{}
	for _, line := range lines(d.node.run("tail", "telemetry", "--from", "trim-horizon", "--json")) {
		var record struct {
			Shard   string    `json:"shard"`
			Arrival time.Time `json:"arrival"`
			Data    string    `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			d.t.Fatalf("%q: %v", line, err)
		}
		if record.Arrival.After(latest[record.Shard]) {
			latest[record.Shard] = record.Arrival
		}
		r := parse(d.t, []byte(record.Data))
		g := group{latest[record.Shard].Truncate(time.Second), r.Key}
		if rows[g] == nil {
			rows[g] = &average{Key: g.key, Start: g.start}
		}
		rows[g].N++
		rows[g].Mean += float64(r.N) // a sum until all are counted
	}
	var list []average
	for _, row := range rows {
		row.Mean /= float64(row.N)
		list = append(list, *row)
	}
	slices.SortFunc(list, func(a, b average) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Key, b.Key))
	})
	return list
}
