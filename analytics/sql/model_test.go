package sql

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
)

const modelQuery = `INSERT INTO o SELECT sensor, window_start, COUNT(*) AS n, COUNT(value) AS m, SUM(value) AS sum, AVG(value) AS avg,
 MIN(value) AS min, MAX(value) AS max FROM i WHERE skip IS NULL GROUP BY sensor, TUMBLE(arrival, INTERVAL '10' SECOND)`

// drawShard makes the records of one shard, with a clock that does what clocks
// do.
func drawShard(r *rapid.T, id buffer.ShardID) []buffer.Entry {
	at := int64(900_000_000_000) // before the time of a bubble
	var list []buffer.Entry
	for i := range rapid.IntRange(0, 60).Draw(r, "records") {
		switch rapid.IntRange(0, 19).Draw(r, "clock") {
		case 0:
			at -= rapid.Int64Range(0, 10_000).Draw(r, "disorder")
		case 1:
			at -= rapid.Int64Range(10_000, 3_600_000).Draw(r, "set back")
		case 2:
			at += rapid.Int64Range(0, 40_000_000).Draw(r, "leap")
		default:
			at += rapid.Int64Range(0, 4_000).Draw(r, "later")
		}
		value := rapid.SampledFrom([]string{"1", "2", "-3", "0.1", "1e16", "-1e16", "0.3", "9223372036854775807", "null", `"text"`, "7.25", "true"}).Draw(r, "value")
		data := fmt.Sprintf(`{"sensor":%s,"value":%s}`, rapid.SampledFrom([]string{`"a"`, `"b"`, "1", "1.0", "null"}).Draw(r, "sensor"), value)
		switch rapid.IntRange(0, 19).Draw(r, "form") {
		case 0:
			data = "no JSON"
		case 1:
			data = strings.Replace(data, "{", `{"skip":1,`, 1)
		case 2:
			data = "{}"
		}
		list = append(list, buffer.Entry{Stream: "i", Shard: id, Sequence: buffer.Sequence(i + 1),
			Record: buffer.Record{PartitionKey: "k", Data: []byte(data), Arrival: time.UnixMilli(at)}})
	}
	return list
}

// naive is a group as a plain reader of QUERIES.md would make it.
type naive struct {
	epoch, start int64
	rank         int
	sensor       any
	n, m         int64
	shards       map[int][]any // values
}

// reference makes the rows without windows that open or close.
func reference(shards [][]buffer.Entry) []string {
	groups := map[string]*naive{}
	for id, entries := range shards {
		epoch, clock := int64(0), int64(-1)
		for _, e := range entries {
			at := e.Arrival.UnixMilli()
			if at < clock-10_000 {
				epoch, clock = epoch+1, at
			}
			clock = max(clock, at)
			d := json.NewDecoder(bytes.NewReader(e.Data))
			d.UseNumber()
			var m map[string]any
			if d.Decode(&m) != nil || m["skip"] != nil {
				continue
			}
			g := naive{epoch: epoch, start: clock / 10_000 * 10_000, sensor: m["sensor"]}
			switch s := m["sensor"].(type) {
			case json.Number:
				g.rank, g.sensor = 1, "1" // 1 and 1.0 are one number
			case string:
				g.rank, g.sensor = 2, `"`+s+`"`
			case nil:
				g.sensor = "null"
			}
			key := fmt.Sprint(g.epoch, g.start, g.rank, g.sensor)
			if groups[key] == nil {
				g.shards = map[int][]any{}
				groups[key] = &g
			}
			groups[key].n++
			if v := m["value"]; v != nil {
				groups[key].m++
				groups[key].shards[id] = append(groups[key].shards[id], v)
			}
		}
	}
	list := slices.SortedFunc(maps.Values(groups), func(a, b *naive) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.start, b.start), cmp.Compare(a.rank, b.rank), strings.Compare(a.sensor.(string), b.sensor.(string)))
	})
	var rows []string
	for _, g := range list {
		rows = append(rows, g.row(len(shards)))
	}
	return rows
}

func (g *naive) row(shards int) string {
	var whole int64
	var broken float64
	float, count := false, 0
	addInt := func(i int64) {
		if s := whole + i; (s > whole) != (i > 0) {
			broken, float, whole = broken+float64(whole), true, i
		} else {
			whole = s
		}
	}
	var least, most any
	for id := range shards {
		var w int64
		var f float64
		for _, v := range g.shards[id] {
			n, ok := v.(json.Number)
			if !ok {
				continue
			}
			count++
			x, _ := n.Float64()
			if i, err := n.Int64(); err == nil {
				if s := w + i; (s > w) != (i > 0) {
					f, float, w = f+float64(w), true, i
				} else {
					w = s
				}
			} else {
				f, float = f+x, true
			}
			least, most = better(least, v, -1), better(most, v, 1)
		}
		broken += f
		addInt(w)
	}
	for id := range shards {
		for _, v := range g.shards[id] {
			if s, ok := v.(string); ok {
				least, most = better(least, s, -1), better(most, s, 1)
			}
		}
	}
	sum, avg := any(nil), any(nil)
	if count > 0 {
		sum, avg = whole, (broken+float64(whole))/float64(count)
		if float {
			sum = broken + float64(whole)
		}
	}
	text, _ := json.Marshal([]any{g.n, g.m, sum, avg, least, most})
	var parts []json.RawMessage
	_ = json.Unmarshal(text, &parts)
	return fmt.Sprintf(`%d {"sensor":%s,"window_start":"%s","n":%s,"m":%s,"sum":%s,"avg":%s,"min":%s,"max":%s}`, g.epoch, g.sensor,
		time.UnixMilli(g.start).UTC().Format("2006-01-02T15:04:05.000Z"), parts[0], parts[1], parts[2], parts[3], parts[4], parts[5])
}

// better is the extreme of two; a text only if there is no number.
func better(best, v any, sign int) any {
	if best == nil {
		if n, ok := v.(json.Number); ok {
			return normal(n)
		}
		return v
	}
	n, ok := v.(json.Number)
	if !ok {
		return best
	}
	x, _ := n.Float64()
	y := 0.0
	switch b := best.(type) {
	case int64:
		y = float64(b)
	case float64:
		y = b
	}
	if cmp.Compare(x, y) == sign {
		return normal(n)
	}
	return best
}

func normal(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, _ := n.Float64()
	return f
}

// TestModel: whatever the order of reading, the size of batches, the moments
// of commits and the crashes between them, the rows are those of a plain
// reading of the whole.
func TestModel(t *testing.T) {
	plan, err := Compile(modelQuery)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		shards := make([][]buffer.Entry, rapid.IntRange(1, 3).Draw(r, "shards"))
		for id := range shards {
			shards[id] = drawShard(r, buffer.ShardID(id))
		}
		d := &driver{rapid: r, plan: plan, shards: shards, next: make([]int, len(shards))}
		d.restore(nil)
		d.commit()
		for !d.done() {
			d.step()
		}
		want := reference(shards)
		for i := range max(len(want), len(d.rows)) {
			if i >= len(want) || i >= len(d.rows) || want[i] != d.rows[i] {
				r.Fatalf("of %d rows, want %d, number %d is\n%s\nwant\n%s", len(d.rows), len(want), i, at(d.rows, i), at(want, i))
			}
		}
	})
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "none"
}

// driver is a runner whose every choice is drawn.
type driver struct {
	rapid  *rapid.T
	plan   *Plan
	shards [][]buffer.Entry
	*Analyzer
	next []int
	rows []string
	kept struct {
		state []byte
		next  []int
		rows  int
	}
}

func (d *driver) restore(state []byte) {
	d.Analyzer = d.plan.Analyzer(Options{Name: "q", IdleGrace: 5 * time.Second, MaxGroups: 1000})
	if again, err := d.Restore(state); err != nil || len(again) > 0 {
		d.rapid.Fatalf("restore: %v, %v", again, err)
	}
	for id := range d.shards {
		d.analyze(analytics.Batch{Shard: buffer.ShardID(id)})
	}
}

func (d *driver) analyze(b analytics.Batch) {
	b.Now = time.UnixMilli(4_000_000_000_000)
	if err := d.Analyze(b); err != nil {
		d.rapid.Fatal(err)
	}
}

func (d *driver) commit() {
	state, err := d.State()
	if err != nil {
		d.rapid.Fatal(err)
	}
	d.kept.state, d.kept.next, d.kept.rows = state, slices.Clone(d.next), len(d.rows)
}

func (d *driver) take() {
	limit := analytics.Limit{MaxRecords: d.int("rows", 1, 9), MaxBytes: d.int("bytes", 1, 2000)}
	for _, row := range d.Rows(limit) {
		id := strings.Split(row.Attribute(AttrRowID), "/")
		d.rows = append(d.rows, id[2]+" "+string(row.Data))
	}
	d.commit()
}

func (d *driver) int(name string, low, high int) int {
	return rapid.IntRange(low, high).Draw(d.rapid, name)
}

func (d *driver) step() {
	switch what := d.int("what", 0, 11); what {
	case 0, 1:
		d.take()
	case 2:
		d.commit()
	case 3:
		d.rows = d.rows[:d.kept.rows]
		d.next = slices.Clone(d.kept.next)
		d.restore(d.kept.state)
	default:
		id := d.int("shard", 0, len(d.shards)-1)
		if what > 7 {
			id = int(d.Progress().Behind)
		}
		left := d.shards[id][d.next[id]:]
		n := min(d.int("page", 0, 20), len(left))
		d.next[id] += n
		d.analyze(analytics.Batch{Shard: buffer.ShardID(id), Entries: left[:n], AtEnd: n == len(left)})
	}
}

// done says whether all was read, and looks once more at every shard then.
func (d *driver) done() bool {
	for id, n := range d.next {
		if n < len(d.shards[id]) {
			return false
		}
	}
	for range 2 {
		for id := range d.shards {
			d.analyze(analytics.Batch{Shard: buffer.ShardID(id), AtEnd: true})
		}
	}
	for d.Progress().Ready > 0 {
		d.take()
	}
	if p := d.Progress(); p.Windows > 0 || p.Groups > 0 || d.groups != 0 || len(d.panes) != 0 {
		d.rapid.Fatalf("all is read, and %+v is left", p)
	}
	return true
}
