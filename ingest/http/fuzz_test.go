package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/weir-edge/weir/buffer"
)

// check takes a body as a request does and checks what no body may break.
func check(t *testing.T, f form, body []byte, h http.Header) []buffer.Record {
	t.Helper()
	taken := 0
	in := &intake{form: f, client: "c", common: []buffer.Attribute{{Key: "weir.source", Value: "http"}}, grow: func(n int) error {
		if taken += n; n <= 0 {
			t.Fatalf("%d bytes of memory are asked for", n)
		}
		return nil
	}}
	err := in.take(body, h)
	var p *problem
	if err != nil && !errors.As(err, &p) {
		t.Fatalf("%v is not an answer", err)
	}
	if p != nil {
		if codes[p.reason] < 400 || p.detail == "" || p.index >= len(body)+1 {
			t.Fatalf("answer %+v", p)
		}
		return nil
	}
	if most := 64<<10 + len(body)*(2+recordOverhead+eventOverhead); taken > most {
		t.Fatalf("%d bytes of memory for a body of %d", taken, len(body))
	}
	for i := range in.records {
		r := &in.records[i]
		if err := checkKey(r.PartitionKey); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if err := checkAttributes(r.Attributes); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		for _, a := range r.Attributes {
			if !plainText(a.Key) || !plainText(a.Value) {
				t.Fatalf("record %d: attribute %q: %q", i, a.Key, a.Value)
			}
		}
	}
	return in.records
}

// FuzzJSON compares arrays and fields with encoding/json.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1}`, `[1,2]`, `[]`, ` [ {"a":"x,]\"}"} , [] , null ] `, `"x"`, `{"a":{"b":"\u00e9\n"}}`, `{"a":1,"a":2,"\u0061":3}`, "[\"\xff\"]", `[1`, `{"a":[{"b":[]}]}`,
		`{"a":-1.5e+10}`, `[[[[[[]]]]]]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		records := check(t, form{kind: kindJSON, key: "k"}, body, nil)
		var list []json.RawMessage
		switch trimmed := bytes.TrimSpace(body); {
		case records == nil:
			return
		case trimmed[0] == '[':
			if err := json.Unmarshal(body, &list); err != nil {
				t.Fatal(err)
			}
		default:
			list = []json.RawMessage{trimmed}
		}
		if len(list) != len(records) {
			t.Fatalf("%d records, want %d", len(records), len(list))
		}
		for i, r := range records {
			if !bytes.Equal(r.Data, list[i]) {
				t.Fatalf("record %d is %q, want %q", i, r.Data, list[i])
			}
		}
		key, err := scalarAt(body, []string{"a"})
		var object map[string]any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if d.Decode(&object) != nil || object == nil {
			return
		}
		want, ok := object["a"].(string)
		if n, isNumber := object["a"].(json.Number); isNumber {
			want, ok = n.String(), true
		} else if b, isBool := object["a"].(bool); isBool {
			want, ok = map[bool]string{true: "true", false: "false"}[b], true
		}
		if ok != (err == nil) || ok && key != want {
			t.Fatalf("the field is %q, %v; want %q", key, err, want)
		}
	})
}

func FuzzLines(f *testing.F) {
	for _, seed := range []string{"1\n2\n", "{\"a\":1}\r\n\n{\"a\":2}", "\n", "{\n}", "\"\xff\"\n", "1\r2\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		records := check(t, form{kind: kindLines, key: "k"}, body, nil)
		if records == nil {
			return
		}
		var got, want []string
		for _, r := range records {
			got = append(got, string(r.Data))
		}
		for _, line := range strings.Split(string(body), "\n") {
			if line = strings.Trim(line, " \t\r"); line != "" {
				want = append(want, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}

// FuzzEvents reads structured events and batches.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"p","data":{"a":1},"time":"2026-01-31T12:00:00Z"}`), false)
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"p","data_base64":"AP8=","n":5,"b":true,"u":null}`), false)
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"p","datacontenttype":"text/xml","data":"<a\/>"}`), false)
	f.Add([]byte(`[{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"p"}]`), true)
	f.Add([]byte(`[]`), true)
	f.Add([]byte(`[1,{}]`), true)
	f.Fuzz(func(t *testing.T, body []byte, batch bool) {
		kind := kindEvent
		if batch {
			kind = kindBatch
		}
		for i, r := range check(t, form{kind: kind}, body, nil) {
			for _, name := range []string{"ce-id", "ce-source", "ce-type", "ce-partitionkey"} {
				if r.Attribute(name) == "" {
					t.Fatalf("event %d has no %s: %v", i, name, r.Attributes)
				}
			}
			if r.PartitionKey != r.Attribute("ce-partitionkey") {
				t.Fatalf("event %d has key %q: %v", i, r.PartitionKey, r.Attributes)
			}
		}
	})
}

// FuzzHeaders reads events in binary mode; each line is a header.
func FuzzHeaders(f *testing.F) {
	f.Add("Ce-Specversion: 1.0\nCe-Id: 1\nCe-Source: /s\nCe-Type: t\nCe-Foo: a%20b\nContent-Type: text/plain", []byte("x"))
	f.Add("Ce-Specversion: 1.0\nCe-Id: \"a \\\" b\"\nCe-Source: /s\nCe-Type: t\nCe-Partitionkey: %C3%A9", []byte("{}"))
	f.Add("Ce-Id: %", []byte(""))
	f.Add("Ce-Specversion: 1.0\nCe-Id: \"\nCe-Source: \"\\\"\nCe-Type: t", []byte(""))
	f.Fuzz(func(t *testing.T, head string, body []byte) {
		h := http.Header{}
		for line := range strings.SplitSeq(head, "\n") {
			name, text, _ := strings.Cut(line, ": ")
			h.Add(name, text)
		}
		kind, p := kindOf(h)
		if p != nil || kind != kindHeads {
			return
		}
		for _, r := range check(t, form{kind: kind, key: "k"}, body, h) {
			if !bytes.Equal(r.Data, body) || r.Attribute("ce-id") == "" {
				t.Fatalf("record %+v", r)
			}
		}
	})
}

// FuzzTemplate expands partition keys of any configuration over any record.
func FuzzTemplate(f *testing.F) {
	f.Add("{client}/{json.a.b}", []byte(`{"a":{"b":1}}`))
	f.Add("a{json.}", []byte(`1`))
	f.Add("{", []byte(``))
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		tpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		key, err := tpl.expand("c", data, false)
		if err == nil && !strings.Contains(text, "{") && key != text {
			t.Fatalf("%q, want %q", key, text)
		}
	})
}
