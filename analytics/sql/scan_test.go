package sql

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

// scanAll reads the columns a, a.b, x.y.z and "e" of a record.
func scanAll(data []byte) ([]datum, bool, string) {
	root, n := field{column: -1}, 0
	for _, path := range []string{"a", "a.b", "x.y.z", "e"} {
		root.add(strings.Split(path, "."), &n)
	}
	s := scanner{columns: make([]datum, n)}
	ok := s.record(data, &root)
	return s.columns, ok, s.why
}

func shown(list []datum) string {
	var b []byte
	for i, d := range list {
		if i > 0 {
			b = append(b, ' ')
		}
		b = d.appendJSON(b)
	}
	return string(b)
}

func TestScan(t *testing.T) {
	for data, want := range map[string]string{
		`{}`:                        "null null null null",
		` { "a" : 1 , "e" : "x" } `: `1 null null "x"`,
		`{"a":{"b":2.50, "c":[1,{"b":9}]},"e":true}`:          `{"b":2.50,"c":[1,{"b":9}]} 2.5 null true`,
		`{"a":{"b":2},"a":3}`:                                 `3 null null null`,
		`{"a":{"b":2},"a":{"c":1}}`:                           `{"c":1} null null null`,
		`{"x":{"y":{"z":-0}},"x":{"y":1}}`:                    `null null null null`,
		`{"x":[{"y":1}],"x":{"w":{},"y":{"q":0,"z":"u"}}}`:    `null null "u" null`,
		`{"\u0061":"\u00e4\n\"\\\/","e":"\ud83d\ude00"}`:      `"ä\n\"\\/" null null "😀"`,
		"{\"e\":\"\xff\",\"a\":[\"\xfe\"]}":                   "[\"\uFFFD\"] null null \"\uFFFD\"",
		`{"e":9223372036854775807,"a":9223372036854775808}`:   `9223372036854776000 null null 9223372036854775807`,
		`{"e":-9223372036854775808,"a":1e999}`:                `1e999 null null -9223372036854775808`,
		`{"e":1e3,"a":0.1}`:                                   `0.1 null null 1000`,
		`{"b":[[],[[1,2],{"a":1}],"]"],"c":{"e":1},"e":null}`: `null null null null`,
	} {
		if columns, ok, why := scanAll([]byte(data)); !ok || shown(columns) != want {
			t.Errorf("%s is %s, %v %s; want %s", data, shown(columns), ok, why, want)
		}
	}
	for data, want := range map[string]string{
		"": "it is not a JSON object", "[1]": "it is not a JSON object", `"a"`: "it is not a JSON object", "\xff\xd8": "it is not a JSON object", "null": "it is not a JSON object",
		"{} {}": "something stands behind the JSON object", "{": badJSON, `{"a"}`: badJSON, `{"a":}`: badJSON, `{"a":1,}`: badJSON, `{a:1}`: badJSON,
		`{"a":01}`: badJSON, `{"a":.5}`: badJSON, `{"a":1.}`: badJSON, `{"a":-}`: badJSON, `{"a":1e}`: badJSON, `{"a":nul}`: badJSON, `{"a":"\x"}`: badJSON,
		`{"a":"\u12g4"}`: badJSON, "{\"a\":\"\n\"}": badJSON, `{"a":[1 2]}`: badJSON, `{"a":[}`: badJSON, `{"a":"`: badJSON, `{"a":"\`: badJSON, `{"a":NaN}`: badJSON,
		`{"a":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`: "its JSON is nested too deep",
	} {
		if _, ok, why := scanAll([]byte(data)); ok || why != want {
			t.Errorf("%.60s: %v, %q; want %q", data, ok, why, want)
		}
	}
}

// FuzzScan compares the scanner with encoding/json.
func FuzzScan(f *testing.F) {
	for _, data := range []string{
		`{"a":{"b":2.50,"c":[1,{"b":9}]},"e":true}`, `{"a":{"b":2},"a":3}`, `{"\u0061":"\u00e4\n\"","e":"\ud83d"}`, "{\"e\":\"\xff\"}", `{"e":1e999,"a":-0.0}`, `{"x":{"y":{"z":[]}}}`, "[", "{\"a\":1}x",
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		columns, ok, why := scanAll(data)
		object := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if ok != object && why != "its JSON is nested too deep" {
			t.Fatalf("%q: %v %s, and encoding/json says %v", data, ok, why, object)
		}
		if !ok {
			return
		}
		var m map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		a, _ := m["a"].(map[string]any)
		x, _ := m["x"].(map[string]any)
		y, _ := x["y"].(map[string]any)
		for i, want := range []any{m["a"], a["b"], y["z"], m["e"]} {
			same(t, data, columns[i], want)
		}
	})
}

func same(t *testing.T, data []byte, got datum, want any) {
	ok := false
	switch w := want.(type) {
	case nil:
		ok = got.kind == kindNull
	case bool:
		ok = got.kind == kindBool && (got.i == 1) == w
	case string:
		ok = got.kind == kindText && string(got.s) == w
	case json.Number:
		if n, err := w.Int64(); err == nil && !strings.ContainsAny(w.String(), ".eE") {
			ok = got.kind == kindInt && got.i == n
		} else if x, err := w.Float64(); err == nil {
			ok = got.kind == kindFloat && got.f == x
		} else {
			ok = got.kind == kindJSON && string(got.s) == w.String()
		}
	default:
		var again any
		ok = got.kind == kindJSON && json.Unmarshal(got.s, &again) == nil && utf8.Valid(got.s)
	}
	if !ok {
		t.Fatalf("%q: %d %s is not %v", data, got.kind, got.appendJSON(nil), want)
	}
}

// FuzzKey: keys of groups come back, and sort as their values do.
func FuzzKey(f *testing.F) {
	f.Add("a", "a\x00b", int64(1), 1.5)
	f.Add("", "\x00\xff", int64(-1<<63), math.Copysign(0, -1))
	f.Fuzz(func(t *testing.T, a, b string, i int64, x float64) {
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		list := []datum{{}, boolean(true), {kind: kindInt, i: i}, float(x), {kind: kindText, s: []byte(a)}, {kind: kindText, s: []byte(b)}, {kind: kindJSON, s: []byte(a)}}
		var key []byte
		for _, d := range list {
			key = appendKey(key, d)
		}
		for _, d := range list {
			var got datum
			var err error
			if got, key, err = decodeKey(key); err != nil || !bytes.Equal(got.appendJSON(nil), wholeIfWhole(d).appendJSON(nil)) {
				t.Fatalf("%s is read as %s, %v", d.appendJSON(nil), got.appendJSON(nil), err)
			}
		}
		for _, pair := range [][2]datum{{list[4], list[5]}, {list[2], list[3]}} {
			order, ok := compare(pair[0], pair[1])
			keys := bytes.Compare(appendKey(nil, pair[0]), appendKey(nil, pair[1]))
			// A whole number and one with a fraction may be the same as floating point.
			if ok && order != 0 && order != keys {
				t.Fatalf("%s and %s compare as %d, their keys as %d", pair[0].appendJSON(nil), pair[1].appendJSON(nil), order, keys)
			}
		}
	})
}
