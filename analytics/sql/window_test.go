package sql

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
)

// bench is a query under test with shards that are fed by hand.
type bench struct {
	testing.TB
	*Analyzer
	next map[buffer.ShardID]buffer.Sequence
}

var day = time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)

func newBench(t testing.TB, sql string, shards int) *bench {
	t.Helper()
	plan, err := Compile(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	b := &bench{t, plan.Analyzer(Options{Name: "q", IdleGrace: 5 * time.Second, MaxGroups: 100}), map[buffer.ShardID]buffer.Sequence{}}
	for id := range shards {
		b.feed(analytics.Batch{Shard: buffer.ShardID(id)})
	}
	return b
}

func (b *bench) feed(batch analytics.Batch) {
	b.Helper()
	if err := b.Analyze(batch); err != nil {
		b.Fatal(err)
	}
}

// put gives a shard a record that arrives after as long from 11:00.
func (b *bench) put(id buffer.ShardID, after time.Duration, data string) {
	b.Helper()
	b.next[id]++
	b.feed(analytics.Batch{Shard: id, Entries: []buffer.Entry{{Stream: "i", Shard: id, Sequence: b.next[id],
		Record: buffer.Record{PartitionKey: "k", Data: []byte(data), Arrival: day.Add(after)}}}})
}

// look finds shards at their end when as long from 11:00 has passed.
func (b *bench) look(after time.Duration, shards ...buffer.ShardID) {
	b.Helper()
	for _, id := range shards {
		b.feed(analytics.Batch{Shard: id, AtEnd: true, Now: day.Add(after)})
	}
}

// rows takes what is ready.
func (b *bench) rows() []string {
	var list []string
	for _, r := range b.Rows(analytics.Limit{MaxRecords: 1000, MaxBytes: 1 << 20}) {
		if !json.Valid(r.Data) {
			b.Errorf("%s is no JSON", r.Data)
		}
		list = append(list, string(r.Data))
	}
	return list
}

func (b *bench) want(rows ...string) {
	b.Helper()
	if got := b.rows(); !slices.Equal(got, rows) {
		b.Errorf("the rows are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(rows, "\n"))
	}
}

const counting = "INSERT INTO o SELECT window_start, COUNT(*) AS n FROM i GROUP BY TUMBLE(arrival, INTERVAL '60' SECOND)"

func counted(minute string, n int) string {
	return fmt.Sprintf(`{"window_start":"2026-11-24T%s:00.000Z","n":%d}`, minute, n)
}

// TestTumbling is the worked example of the guide of Kinesis Data Analytics:
// of four records three have one minute of their own time, and tumbling windows
// over the arrival take them apart: 2, 1, 1.
func TestTumbling(t *testing.T) {
	b := newBench(t, "INSERT INTO o SELECT minute, COUNT(*) AS n FROM i GROUP BY minute, TUMBLE(arrival, INTERVAL '1' MINUTE)", 1)
	b.put(0, 20*time.Second, `{"minute":"11:00"}`)
	b.put(0, 30*time.Second, `{"minute":"11:00"}`)
	b.want()
	b.put(0, 65*time.Second, `{"minute":"11:00"}`)
	b.want(`{"minute":"11:00","n":2}`)
	b.put(0, 75*time.Second, `{"minute":"11:01"}`)
	b.look(124*time.Second, 0)
	b.want()
	b.look(125*time.Second, 0)
	b.want(`{"minute":"11:00","n":1}`, `{"minute":"11:01","n":1}`)
}

// TestIdle: a shard that is at its end does not hold the others back, one that
// is not does; and what comes late after all counts in the next window.
func TestIdle(t *testing.T) {
	b := newBench(t, counting, 2)
	b.put(0, 10*time.Second, "{}")
	b.put(0, 70*time.Second, "{}")
	b.want() // shard 1 was never read
	b.look(64*time.Second, 1)
	b.want()
	if due := b.Progress().Due; !due.Equal(day.Add(65 * time.Second)) {
		t.Errorf("it is due at %s", due)
	}
	b.look(65*time.Second, 1)
	b.want(counted("11:00", 1))
	b.put(1, 58*time.Second, "{}")
	b.put(1, 61*time.Second, "{}")
	if p := b.Progress(); p.Late != 1 || p.Setbacks != 0 || p.Groups != 1 {
		t.Errorf("%+v", p)
	}
	b.look(200*time.Second, 0, 1)
	b.want(counted("11:01", 3))
	// A shard that was at its end and is not now holds on to its time.
	b.put(1, 200*time.Second, "{}")
	b.put(0, 300*time.Second, "{}")
	b.look(400*time.Second, 0)
	b.want()
	if p := b.Progress(); p.Behind != 1 || p.Windows != 2 {
		t.Errorf("%+v", p)
	}
}

// TestClock: a clock that is set back begins anew and loses nothing, and one
// that was far ahead leaves nothing open.
func TestClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	b := newBench(t, counting, 2)
	b.put(0, 10*time.Second, "{}")
	b.put(1, 11*time.Second, "{}")
	b.put(0, year, "{}") // the clock leaps
	b.want()
	b.put(1, year+time.Second, "{}")
	b.want(counted("11:00", 2))
	b.put(0, 20*time.Second, "{}") // and comes back
	b.want()
	b.put(1, 21*time.Second, "{}")
	b.want(`{"window_start":"2027-11-24T11:00:00.000Z","n":2}`)
	b.put(0, 15*time.Second, "{}") // disorder, no setting
	b.put(0, 70*time.Second, "{}")
	b.put(1, 70*time.Second, "{}")
	if p := b.Progress(); p.Setbacks != 2 || p.Late != 0 {
		t.Errorf("%+v", p)
	}
	rows := b.Rows(analytics.Limit{MaxRecords: 10, MaxBytes: 1 << 20})
	if len(rows) != 1 || string(rows[0].Data) != counted("11:00", 3) {
		t.Fatalf("%v", rows)
	}
	if id := rows[0].Attribute(AttrRowID); !strings.HasPrefix(id, "q/2026-11-24T11:00:00.000Z/1/") {
		t.Errorf("the id of a further row is %s", id)
	}
	// Only one shard sees the clock leap and come back; the other one has no
	// record of it and joins when it is found at its end.
	b.put(0, year, "{}")
	b.put(0, 80*time.Second, "{}")
	b.want()
	b.look(81*time.Second, 1)
	b.want(counted("11:01", 2), `{"window_start":"2027-11-24T11:00:00.000Z","n":1}`)
	b.put(1, 82*time.Second, "{}")
	b.look(130*time.Second, 0, 1)
	b.want(counted("11:01", 2))
	if p := b.Progress(); p.Windows != 0 || p.Groups != 0 {
		t.Errorf("%+v is left", p)
	}
}

// TestBefore1970: a clock that was never set.
func TestBefore1970(t *testing.T) {
	b := newBench(t, counting, 1)
	b.put(0, time.UnixMilli(-1).Sub(day), "{}")
	b.put(0, time.UnixMilli(0).Sub(day), "{}")
	b.want(`{"window_start":"1969-12-31T23:59:00.000Z","n":1}`)
	b.put(0, 0, "{}")
	b.want(`{"window_start":"1970-01-01T00:00:00.000Z","n":1}`)
}

// value is what an expression over a record comes to.
func evaluated(t *testing.T, expr, data string) (string, *bench) {
	t.Helper()
	b := newBench(t, "INSERT INTO o SELECT "+expr+" AS x FROM i GROUP BY "+expr+", TUMBLE(arrival, INTERVAL '1' MINUTE)", 1)
	b.put(0, 0, data)
	b.look(time.Hour, 0)
	rows := b.rows()
	if len(rows) != 1 {
		t.Fatalf("%s of %s: %v", expr, data, rows)
	}
	return strings.TrimSuffix(strings.TrimPrefix(rows[0], `{"x":`), "}"), b
}

func TestExpressions(t *testing.T) {
	const data = `{"i":7,"f":2.5,"t":"abc","y":true,"n":false,"o":{"p":{"q":-3}},"l":[1, 2],"big":9223372036854775807,"z":0,
		"arrival":"mine","second":1,"ä b":2,"null":null,"telemetry":{"x":5},"i2":{"x":6}}`
	for expr, want := range map[string]string{
		"i": "7", "f": "2.5", "t": `"abc"`, "y": "true", "o.p.q": "-3", "o.p": `{"q":-3}`, "l": "[1,2]", "missing": "null", "o.p.q.r": "null", "t.x": "null",
		"i + 1": "8", "i - 10": "-3", "i * 3": "21", "i / 2": "3.5", "i / 7": "1", "i % 4": "3", "-i % 4": "-3", "f % 2": "0.5", "-f": "-2.5", "i + f": "9.5",
		"-(-i)": "7", "2 + 3 * i": "23", "(2 + 3) * i": "35", "big + 1": "9223372036854776000", "big - -1": "9223372036854776000", "-big - 2": "-9223372036854776000",
		"big * 2": "18446744073709552000", "big * big * big * big * big": "6.674959487252844e+94", "big": "9223372036854775807",
		"i / z": "null", "i % z": "null", "i + missing": "null", "i + t": "null", "-t": "null", "f * y": "null",
		"i = 7": "true", "i = 7.0": "true", "i <> 7": "false", "i < 8": "true", "i <= 6": "false", "i > f": "true", "f >= 2.5": "true", "t = 'abc'": "true", "t < 'b'": "true",
		"t = 7": "null", "missing = 7": "null", "y = n": "false", "y = TRUE": "true", "l = l": "null", "t <> 'x'": "true",
		"y AND n": "false", "y OR n": "true", "NOT y": "false", "missing AND n": "false", "n AND missing": "false", "missing AND y": "null", "y AND missing": "null",
		"missing OR y": "true", "missing OR n": "null", "NOT missing": "null", "i AND y": "null", "missing IS NULL": "true", "\"null\" IS NULL": "true", "i IS NOT NULL": "true",
		"(i = t) IS NULL": "true", "y = n IS NULL": "false", "NOT y OR y": "true",
		"arrival": `"2026-11-24T11:00:00.000Z"`, "\"arrival\"": `"mine"`, "partition_key": `"k"`, "sequence": "1", "shard": `"shardId-000000000000"`, "stream": `"i"`,
		"second + 1": "2", "\"ä b\"": "2", "i.f": "2.5", "\"i\".f": "null", "i2.x": "6", "i.arrival": `"2026-11-24T11:00:00.000Z"`, "telemetry.x": "5",
	} {
		got, b := evaluated(t, expr, data)
		if got != want {
			t.Errorf("%s is %s, want %s", expr, got, want)
		}
		bad := want == "null" && slices.Contains([]string{"i / z", "i % z", "i + t", "-t", "f * y", "t = 7", "l = l", "i AND y"}, expr) || expr == "(i = t) IS NULL"
		if p := b.Progress(); (p.BadValue == 1) != bad || p.BadRecord != 0 || bad && !strings.HasPrefix(p.LastBad, "shardId-000000000000 1 of stream i: ") {
			t.Errorf("%s: %+v", expr, p)
		}
	}
}

// TestAggregates: NULL, what is no number, and sums beyond 64 bits.
func TestAggregates(t *testing.T) {
	const all = "COUNT(*) AS c, COUNT(v) AS n, SUM(v) AS s, AVG(v) AS a, MIN(v) AS l, MAX(v) AS h"
	for values, want := range map[string]string{
		"1 2 3":                   `3,3,6,2,1,3`,
		"null":                    `1,0,null,null,null,null`,
		"null 5":                  `2,1,5,5,5,5`,
		"1 0.5":                   `2,2,1.5,0.75,0.5,1`,
		`"x" 4 "y"`:               `3,3,4,4,4,4`,
		`"x" "y"`:                 `2,2,null,null,"x","y"`,
		"true [1] {}":             `3,3,null,null,null,null`,
		"9223372036854775807 1":   `2,2,9223372036854776000,4611686018427388000,1,9223372036854775807`,
		"-9223372036854775808 -1": `2,2,-9223372036854776000,-4611686018427388000,-9223372036854775808,-1`,
		"1e308 1e308":             `2,2,null,null,1e+308,1e+308`,
		"1e400 2":                 `2,2,2,2,2,2`,
		"9007199254740993 0":      `2,2,9007199254740993,4503599627370496,0,9007199254740993`,
	} {
		b := newBench(t, "INSERT INTO o SELECT "+all+" FROM i GROUP BY TUMBLE(arrival, INTERVAL '1' MINUTE)", 1)
		for _, v := range strings.Fields(values) {
			b.put(0, 0, `{"v":`+v+`}`)
		}
		b.look(time.Hour, 0)
		var got []string
		d := json.NewDecoder(strings.NewReader(strings.Join(b.rows(), "\n")))
		d.UseNumber()
		for d.More() {
			if tok, err := d.Token(); err != nil {
				t.Fatal(err)
			} else if s := fmt.Sprint(tok); len(s) > 0 && !strings.ContainsAny(s, "{}") {
				text, _ := json.Marshal(tok)
				got = append(got, string(text))
			}
		}
		var flat []string
		for i := 1; i < len(got); i += 2 {
			flat = append(flat, got[i])
		}
		if s := strings.Join(flat, ","); s != want {
			t.Errorf("of %s: %s, want %s", values, s, want)
		}
	}
}

// TestClauses: WHERE before, HAVING behind, keys of several values.
func TestClauses(t *testing.T) {
	b := newBench(t, `INSERT INTO o SELECT MAX(v) - MIN(v) AS spread, site.line, window_end, sensor FROM i WHERE v IS NOT NULL AND NOT ignore
		OR keep = 1 GROUP BY sensor, TUMBLE(ROWTIME, INTERVAL '0.5' SECOND), site.line HAVING COUNT(*) > 1 AND window_start < '2027'`, 1)
	for _, data := range []string{
		`{"sensor":"b","site":{"line":2},"v":1,"ignore":false}`, `{"sensor":"b","site":{"line":2},"v":4,"ignore":false}`,
		`{"sensor":"a","v":1,"ignore":false}`, `{"sensor":"a","v":9,"ignore":false}`, `{"sensor":"a","v":100,"ignore":true}`, `{"sensor":"a","v":100}`,
		`{"sensor":"c","v":1,"ignore":false}`, `{"sensor":"d","keep":1}`, `{"sensor":"d","keep":1,"v":3}`,
	} {
		b.put(0, 100*time.Millisecond, data)
	}
	b.put(0, 500*time.Millisecond, `{}`)
	if ready := b.Progress().Ready; ready != 4 {
		t.Errorf("%d are ready", ready)
	}
	rows := b.Rows(analytics.Limit{MaxRecords: 100, MaxBytes: 1 << 20})
	want := []string{
		`a/null {"spread":8,"line":null,"window_end":"2026-11-24T11:00:00.500Z","sensor":"a"}`,
		`b/2 {"spread":3,"line":2,"window_end":"2026-11-24T11:00:00.500Z","sensor":"b"}`,
		`d/null {"spread":0,"line":null,"window_end":"2026-11-24T11:00:00.500Z","sensor":"d"}`,
	}
	if len(rows) != len(want) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		if got := r.PartitionKey + " " + string(r.Data); got != want[i] {
			t.Errorf("row %d is %s, want %s", i, got, want[i])
		}
	}
}

// TestKeys: whatever a device sends as its name, the log takes the row.
func TestKeys(t *testing.T) {
	b := newBench(t, "INSERT INTO o SELECT a, b FROM i GROUP BY a, b, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	long := strings.Repeat("ä", 200)
	for _, data := range []string{`{"a":""}`, `{"a":"","b":""}`, `{"a":"` + long + `","b":"` + long + `"}`, `{"a":"` + long + `","b":"` + long + `x"}`,
		"{\"a\":\"\xff\\ud800\\u0000\",\"b\":{\"c\" : \"\xff\"}}", `{"a":1.0,"b":true}`} {
		b.put(0, 0, data)
	}
	b.put(0, 0, `{"a":"`+strings.Repeat("x", 2000)+`"}`)
	if p := b.Progress(); p.BadRecord != 1 || !strings.Contains(p.LastBad, "longer than 1024 bytes") {
		t.Errorf("%+v", p)
	}
	b.look(time.Hour, 0)
	rows := b.Rows(analytics.Limit{MaxRecords: 100, MaxBytes: 1 << 20})
	if len(rows) != 6 {
		t.Fatalf("%d rows", len(rows))
	}
	log := newLog(t)
	if _, err := log.Append(t.Context(), "o", rows...); err != nil {
		t.Errorf("the log does not take the rows: %v", err)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if !json.Valid(r.Data) || seen[r.PartitionKey] || seen[r.Attribute(AttrRowID)] {
			t.Errorf("%s %s %v", r.PartitionKey, r.Data, r.Attributes)
		}
		seen[r.PartitionKey], seen[r.Attribute(AttrRowID)] = true, true
	}
	if rows[0].PartitionKey != "1/true" || rows[1].PartitionKey != "/null" {
		t.Errorf("the keys are %q, %q", rows[0].PartitionKey, rows[1].PartitionKey)
	}
	b = newBench(t, "INSERT INTO o SELECT a FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	b.put(0, 0, `{"a":""}`)
	b.look(time.Hour, 0)
	if rows := b.Rows(analytics.Limit{MaxRecords: 1}); rows[0].PartitionKey != "q" {
		t.Errorf("an empty key becomes %q", rows[0].PartitionKey)
	}
}

// TestLimits: what is taken at once is bounded, and too many groups are an
// error that tells what to do, but not those of windows that are closed.
func TestLimits(t *testing.T) {
	b := newBench(t, "INSERT INTO o SELECT a FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	for i := range 300 {
		b.put(0, time.Duration(i/90)*time.Second, fmt.Sprintf(`{"a":%d}`, i))
	}
	var got []int
	for b.Progress().Ready > 0 {
		got = append(got, len(b.Rows(analytics.Limit{MaxRecords: 40, MaxBytes: 1 << 20})))
	}
	if !slices.Equal(got, []int{40, 40, 40, 40, 40, 40, 30}) {
		t.Errorf("the rows came in %v", got)
	}
	b = newBench(t, "INSERT INTO o SELECT a FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	for i := range 5 {
		b.put(0, 0, fmt.Sprintf(`{"a":%d}`, i))
	}
	b.look(time.Hour, 0)
	if n := len(b.Rows(analytics.Limit{MaxRecords: 100, MaxBytes: 1})); n != 1 {
		t.Errorf("%d rows of one byte", n)
	}
	b = newBench(t, "INSERT INTO o SELECT a FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = b.Analyze(analytics.Batch{Entries: []buffer.Entry{{Sequence: buffer.Sequence(i + 1), Record: buffer.Record{Arrival: day, Data: fmt.Appendf(nil, `{"a":%d}`, i)}}}})
	}
	const want = "100 groups are open in 1 windows, and max_groups is 100: use shorter windows, a key with fewer values, or raise it"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestStateTooLarge: the error names what takes the room.
func TestStateTooLarge(t *testing.T) {
	b := newBench(t, "INSERT INTO o SELECT a FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)", 1)
	b.o.MaxGroups = 10_000
	noise := uint64(88172645463325252)
	for range 1000 {
		var text bytes.Buffer
		for range 60 {
			noise ^= noise << 13
			noise ^= noise >> 7
			noise ^= noise << 17
			fmt.Fprintf(&text, "%016x", noise)
		}
		b.put(0, 0, fmt.Sprintf(`{"a":%q}`, text.String()))
	}
	if _, err := b.State(); err == nil || !strings.HasPrefix(err.Error(), "the state of 1000 groups in 1 windows takes ") ||
		!strings.HasSuffix(err.Error(), " bytes, and the log keeps 524288: use shorter windows or a key with fewer values") {
		t.Errorf("%v", err)
	}
}

// TestChangedQuery: another text begins at the oldest record that was not
// settled, so that its first window is whole; another stream begins anew.
func TestChangedQuery(t *testing.T) {
	old := newBench(t, counting, 2)
	old.put(0, 10*time.Second, "{}")
	old.put(0, 70*time.Second, "{}")
	old.put(0, 80*time.Second, "{}")
	old.put(1, 5*time.Second, "{}")
	old.put(1, 20*time.Second, "{}")
	old.put(1, 65*time.Second, "{}")
	state := func() []byte {
		s, err := old.State()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	waiting := state() // the first window is closed, but not taken
	old.want(counted("11:00", 3))
	plan, err := Compile(strings.Replace(counting, "COUNT(*)", "COUNT(v)", 1))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		state []byte
		want  string
	}{{waiting, "map[0:1 1:1]"}, {state(), "map[0:2 1:3]"}} {
		a := plan.Analyzer(Options{Name: "q", MaxGroups: 10})
		again, err := a.Restore(c.state)
		if err != nil || fmt.Sprintf("%d", again) != c.want {
			t.Errorf("%d: it begins at %v, %v; want %s", i, again, err, c.want)
		}
		if p := a.Progress(); p.Windows != 0 || p.Ready != 0 || !p.Watermark.Equal(day.Add(time.Duration(i)*time.Minute)) {
			t.Errorf("%d: %+v", i, p)
		}
	}
	same, err := Compile(strings.ToLower(strings.ReplaceAll(counting, " ", " \n ")))
	if err != nil {
		t.Fatal(err)
	}
	a := same.Analyzer(Options{Name: "q", MaxGroups: 10})
	if again, err := a.Restore(state()); err != nil || len(again) != 0 || a.Progress().Groups != 1 {
		t.Errorf("the same query in other blanks begins at %v, %v", again, err)
	}
	other, err := Compile(strings.Replace(counting, "FROM i", "FROM j", 1))
	if err != nil {
		t.Fatal(err)
	}
	a = other.Analyzer(Options{Name: "q", MaxGroups: 10})
	if again, err := a.Restore(state()); err != nil || len(again) != 0 || len(a.shards) != 0 {
		t.Errorf("another stream begins at %v, %v", again, err)
	}
}

// TestForeignStates: each has its own message.
func TestForeignStates(t *testing.T) {
	b := newBench(t, counting, 1)
	b.put(0, 0, "{}")
	state, err := b.State()
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Clone(state)
	newer[3]++
	torn := slices.Clone(state)
	torn[len(torn)-1] ^= 1
	for want, s := range map[string][]byte{
		"the state is not that of a query":                               []byte(`{"marks":{}}`),
		"the state has the form 2, and this version knows 1":             newer,
		"the state of the query is damaged: its checksum does not match": torn,
	} {
		if _, err := b.Restore(s); err == nil || err.Error() != want || len(b.shards) > 0 || len(b.panes) > 0 {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// FuzzState: what is not a state is an error; what is taken for one is written
// the same again, and rows can be made of it.
func FuzzState(f *testing.F) {
	const sql = "INSERT INTO o SELECT a, COUNT(*) AS c, SUM(v) AS s, MIN(v) AS l, MAX(t) AS h FROM i GROUP BY a, TUMBLE(arrival, INTERVAL '1' SECOND)"
	b := newBench(f, sql, 2)
	for i := range 6 {
		f.Add(b.appendState(nil))
		b.put(buffer.ShardID(i%2), time.Duration(i)*700*time.Millisecond, fmt.Sprintf(`{"a":%d.5,"v":%d,"t":"x%d"}`, i, i, i))
		b.put(buffer.ShardID(i%2), time.Duration(i)*700*time.Millisecond, `{"a":"t","v":0.5,"t":null}`)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := b.plan.Analyzer(Options{Name: "q", MaxGroups: 100})
		_, _ = a.Restore(raw)
		again, err := a.decode(raw)
		if err != nil || len(again) > 0 || len(a.shards) == 0 && len(a.panes) == 0 {
			return
		}
		first := a.appendState(nil)
		c := b.plan.Analyzer(Options{Name: "q", MaxGroups: 100})
		if _, err := c.decode(first); err != nil {
			t.Fatalf("%x is written as %x, and that is %v", raw, first, err)
		}
		if second := c.appendState(nil); !bytes.Equal(first, second) {
			t.Fatalf("%x is written as %x and then as %x", raw, first, second)
		}
		if _, err := a.State(); err != nil {
			t.Fatal(err)
		}
		for _, s := range a.shards {
			s.clock.epoch = 1<<32 - 1
		}
		for _, r := range a.Rows(analytics.Limit{MaxRecords: 1000, MaxBytes: 1 << 30}) {
			if !json.Valid(r.Data) {
				t.Fatalf("%s is no JSON", r.Data)
			}
		}
	})
}
