package http

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http/httptrace"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// TestRefusals: what is wrong is told with its place and what would be right,
// and nothing of the request is stored.
func TestRefusals(t *testing.T) {
	const (
		nd  = "application/x-ndjson"
		js  = "application/json"
		ce  = "application/cloudevents+json"
		bat = "application/cloudevents-batch+json"
	)
	heads := func(list ...string) []string {
		return append([]string{"Ce-Specversion", "1.0", "Ce-Id", "7", "Ce-Source", "/s", "Ce-Type", "t", "Weir-Partition-Key", "k"}, list...)
	}
	key := func(list ...string) []string { return append(list, aKey...) }
	long := strings.Repeat("é", 257)
	for _, test := range []struct {
		request
		code   int
		detail string
		index  int // -1: none
	}{
		{request{path: "/"}, 404, "/v1/streams/STREAM/records", -1},
		{request{path: "/v1/streams/a/b/records"}, 404, "/v1/streams/STREAM/records", -1},
		{request{path: "/v1/streams/other/records"}, 404, `stream "other" takes nothing`, -1},
		{request{method: "GET"}, 405, "use POST", -1},
		{request{method: "OPTIONS"}, 405, "use POST", -1},
		{request{body: "x", header: aKey}, 415, `content type "" is not one of application/json, application/x-ndjson`, -1},
		{request{kind: "text/html", body: "x", header: aKey}, 415, `"text/html" is not one of`, -1},
		{request{kind: "application/cloudevents+xml", body: "x", header: heads()}, 415, "is not one of", -1},
		{request{kind: "application/json; charset=latin1", body: "1", header: aKey}, 415, `"latin1" is not utf-8`, -1},
		{request{kind: js, body: "1", header: key("Content-Encoding", "br")}, 415, `"br" is not gzip`, -1},
		{request{kind: js, body: "1", header: key("Content-Encoding", "gzip, gzip")}, 415, "is not gzip", -1},
		{request{kind: js, body: "1"}, 400, "there is no partition key; send the header Weir-Partition-Key", 0},
		{request{kind: js, body: `[{"id":1},{"x":1}]`, path: "/v1/streams/keyed/records"}, 400, "[1]: the key is made of the field id, which the record has not", 1},
		{request{kind: js, body: `{"id":{}}`, path: "/v1/streams/keyed/records"}, 400, "the field id, which is not text", 0},
		{request{kind: js, body: `{"id":""}`, path: "/v1/streams/keyed/records"}, 400, "partition key is empty", 0},
		{request{kind: js, body: `{"id":"` + long + `"}`, path: "/v1/streams/keyed/records"}, 400, "over 256 characters", 0},
		{request{kind: "text/plain", body: "x", path: "/v1/streams/keyed/records"}, 400, "the record is not JSON", 0},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?key=x"}, 400, `"key" is not known`, -1},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?partition_key="}, 400, "partition_key is empty", -1},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?partition_key=a&partition_key=b"}, 400, "given twice", -1},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?partition_key=a", header: aKey}, 400, "given twice", -1},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?partition_key=%zz"}, 400, "does not decode", -1},
		{request{kind: js, body: "1", path: "/v1/streams/telemetry/records?partition_key=%ff"}, 400, "not UTF-8", -1},
		{request{kind: js, body: "1", header: []string{"Weir-Partition-Key", long}}, 400, "over 256 characters", -1},
		{request{kind: js, header: aKey}, 400, "it is empty", -1},
		{request{kind: js, body: `{"a":1`, header: aKey}, 400, "not JSON at byte 6", -1},
		{request{kind: js, body: "{\"a\":\"\xff\"}", header: aKey}, 400, "not UTF-8", -1},
		{request{kind: js, body: strings.Repeat("[", 20_000), header: aKey}, 400, "not JSON at byte", -1},
		{request{kind: nd, body: "{}\n\n{]\n{}", header: aKey}, 400, "line 3: not JSON at byte 2", 1},
		{request{kind: nd, body: "\n \n", header: aKey}, 400, "the body is empty", -1},
		{request{kind: nd, body: strings.Repeat("1\n", 10_001), header: aKey}, 413, "over 10000 records", -1},
		{request{kind: "text/plain", header: aKey}, 400, "the body is empty", -1},
		{request{kind: "text/plain", body: strings.Repeat("x", 1<<20+1), header: aKey}, 413, "max_body_bytes (1MiB)", -1},
		{request{kind: ce, body: `[]`, header: aKey}, 400, "send it as application/cloudevents-batch+json", -1},
		{request{kind: ce, body: `1`, header: aKey}, 400, "an event is an object", 0},
		{request{kind: bat, body: `{}`, header: aKey}, 400, "not an array of events", -1},
		{request{kind: bat, body: `[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"1.0","id":"","source":"/s","type":"t"}]`, header: aKey}, 400, "[1]: id: missing or empty", 1},
		{request{kind: ce, body: `{"id":"1","source":"/s","type":"t"}`, header: aKey}, 400, "specversion: missing; send 1.0", 0},
		{request{kind: ce, body: `{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, header: aKey}, 400, `specversion: "0.3" is not 1.0`, 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s"}`, header: aKey}, 400, "type: missing", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`}, 400, "or the extension partitionkey", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","Temp":1}`, header: aKey}, 400, "Temp: the name of an attribute is of the characters a-z 0-9", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","n":1.5}`, header: aKey}, 400, "n: it is not a whole number", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","o":{}}`, header: aKey}, 400, "o: it is not text", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}`, header: aKey}, 400, "id: it is given twice", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"yesterday"}`, header: aKey}, 400, `time: "yesterday" is not a time`, 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"%zz","type":"t"}`, header: aKey}, 400, "source: ", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1\u0007","source":"/s","type":"t"}`, header: aKey}, 400, "id: it has a control character", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":""}`, header: aKey}, 400, "subject: it is empty", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":""}`, header: aKey}, 400, "data_base64: there is data, too", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"?"}`, header: aKey}, 400, "data_base64: it is not base64", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/xml","data":{}}`, header: aKey}, 400, "data: it is not text", 0},
		{request{kind: ce, body: `{"specversion":"1.0","id":"` + strings.Repeat("x", 5000) + `","source":"/s","type":"t"}`, header: aKey}, 413, "bytes are over the limit of 4096", 0},
		{request{kind: ce, body: many(31), header: aKey}, 413, "attributes are over the limit of 32", 0},
		{request{kind: ce, body: many(100), header: aKey}, 400, "over 35 members", 0},
		{request{body: "x", header: []string{"Ce-Id", "1", "Weir-Partition-Key", "k"}}, 400, "ce-specversion: missing", 0},
		{request{body: "x", header: heads("Ce-Foo", "a", "Ce-Foo", "b")}, 400, "ce-foo: it is given twice", 0},
		{request{body: "x", header: heads("Ce-Foo", "%C0%A0")}, 400, "ce-foo: it does not decode to UTF-8", 0},
		{request{body: "x", header: heads("Ce-Foo", "100%")}, 400, "ce-foo: a % is not followed", 0},
		{request{body: "x", header: heads("Ce-Foo-Bar", "1")}, 400, "ce-foo-bar: the name of an attribute", 0},
		{request{body: "x", header: heads("Ce-Data", "1")}, 400, "ce-data: no attribute may have this name", 0},
		{request{body: "x", header: heads("Ce-Datacontenttype", "a/b")}, 400, "send it as Content-Type", 0},
		{request{kind: js, body: "123456789012345", header: key("Content-Encoding", "gzip")}, 400, "the body is not gzip", -1},
		{request{kind: js, body: packed(t, "[1,2,3]")[:20], header: key("Content-Encoding", "gzip")}, 400, "ended before its end", -1},
		{request{kind: js, body: packed(t, numbers(300_000)), header: key("Content-Encoding", "gzip")}, 413, "max_body_bytes (1MiB)", -1},
		{request{kind: js, body: "1", header: key("Origin", "http://evil.example")}, 403, "web page", -1},
		{request{kind: js, body: "1", header: key("Origin", "null")}, 403, "web page", -1},
		{request{kind: js, body: "1", header: key("Sec-Fetch-Site", "cross-site")}, 403, "web page", -1},
		{request{kind: js, body: "1", header: key("Host", "evil.example:8081")}, 403, "host \"evil.example:8081\" is not this machine", -1},
	} {
		log := ingesttest.NewLog()
		c := open(Stream{Stream: "telemetry"}, Stream{Stream: "keyed", PartitionKey: "{json.id}"})
		c.MaxBodyBytes = 1 << 20
		s, stop := startSource(t, c, log)
		a := send(t, s, test.request).want(t, test.code, test.detail)
		if test.index < 0 && a.Index != nil || test.index >= 0 && (a.Index == nil || *a.Index != test.index) {
			t.Errorf("the index is not %d: %s", test.index, a.body)
		}
		if test.code == 405 && a.header.Get("Allow") != "POST" {
			t.Error("405 without Allow")
		}
		stop()
		st := s.Status()
		if log.Entries("telemetry") != nil || log.Entries("keyed") != nil || st.Appended != 0 || st.Refused[a.Reason] != 1 || st.LastRefusal != a.Detail || st.InflightBytes != 0 {
			t.Errorf("status %+v", st)
		}
	}
}

// many is an event with n extensions.
func many(n int) string {
	var b strings.Builder
	b.WriteString(`{"specversion":"1.0","id":"1","source":"/s","type":"t"`)
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":1`, i)
	}
	return b.String() + "}"
}

// numbers are lines that do not pack too well.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func packed(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGzip: packed bodies are taken, those out of proportion are not.
func TestGzip(t *testing.T) {
	log := ingesttest.NewLog()
	s, _ := startSource(t, open(), log)
	gz := append([]string{"Content-Encoding", "gzip"}, aKey...)
	var lines strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&lines, "{\"n\":%d,\"temperature\":21.%d}\n", i, i%10)
	}
	send(t, s, request{kind: "application/x-ndjson", body: packed(t, lines.String()), header: gz}).want(t, 200, "")
	if list := log.Entries("telemetry"); len(list) != 5000 || string(list[4999].Data) != `{"n":4999,"temperature":21.9}` {
		t.Errorf("%d records", len(list))
	}
	// Two members are one body (RFC 1952, section 2.2).
	send(t, s, request{kind: "application/x-ndjson", body: packed(t, "1\n") + packed(t, "2\n"), header: gz}).want(t, 200, "")
	if got := len(log.Entries("telemetry")); got != 5002 {
		t.Errorf("%d records", got)
	}
	send(t, s, request{kind: "text/plain", body: packed(t, strings.Repeat("x", 7<<20)), header: gz}).want(t, 413, "unpacks to over 100 times")
}

// TestLogRefuses: what only the log can know is told in the words of HTTP.
func TestLogRefuses(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "log"), 0)
	s, _ := startSource(t, open(), l)
	send(t, s, request{kind: "application/json", body: `[1,"` + strings.Repeat("x", 2<<20) + `"]`, header: aKey}).want(t, 413, "record 1: too large")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a := send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 503, "log is closed")
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	log := ingesttest.NewLog()
	log.Refuse(func(string, *buffer.Record) error { return errors.New("disk is on fire") })
	s, _ = startSource(t, open(), log)
	send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 503, "disk is on fire")
	if st := s.Status(); !strings.Contains(st.LogError, "disk is on fire") {
		t.Errorf("status %+v", st)
	}
	log.Refuse(nil)
	send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 200, "")
	if st := s.Status(); st.LogError != "" {
		t.Errorf("status %+v", st)
	}
}

// TestFull: a full log is 429, says when to come again, and keeps nothing.
func TestFull(t *testing.T) {
	log := ingesttest.NewLog()
	log.Fill(true)
	s, _ := startSource(t, open(), log)
	a := send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 429, "log is full")
	if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 || n > 5 {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	if st := s.Status(); st.Refused[Full] != 1 || st.LogError == "" {
		t.Errorf("status %+v", st)
	}
	log.Fill(false)
	send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 200, "")
	if got := shown(log.Entries("telemetry")); got != "k=1" {
		t.Errorf("the log holds %s", got)
	}
}

// TestSlowLog: a log that does not answer is 503 after the timeout.
func TestSlowLog(t *testing.T) {
	log := ingesttest.NewLog()
	defer log.Hold()()
	c := open()
	c.RequestTimeout = value.Duration(time.Second)
	s, _ := startSource(t, c, log)
	send(t, s, request{kind: "application/json", body: `1`, header: aKey}).want(t, 503, "did not answer in time")
}

// TestBusy: when requests hold the memory, others get 429 after a while, and
// their turn when it is free.
func TestBusy(t *testing.T) {
	log := ingesttest.NewLog()
	release := log.Hold()
	defer release()
	c := open()
	c.MaxBodyBytes, c.MaxInflightBytes = 1<<20, 1<<20
	s, _ := startSource(t, c, log)
	large := request{kind: "text/plain", body: strings.Repeat("x", 900<<10), header: aKey}
	first := make(chan answer, 1)
	go func() { first <- send(t, s, large) }()
	until(t, "the first is at the log", func() bool { return log.Waiting() == 1 })
	a := send(t, s, large).want(t, 429, "too many bytes")
	if a.header.Get("Retry-After") == "" || s.Status().InflightBytes > 1<<20+requestOverhead {
		t.Errorf("%v, status %+v", a.header, s.Status())
	}
	second := make(chan answer, 1)
	go func() { second <- send(t, s, large) }()
	until(t, "the second waits", func() bool { return s.Status().Inflight == 2 })
	release()
	(<-first).want(t, 200, "")
	(<-second).want(t, 200, "")
	until(t, "all is given back", func() bool { return s.Status().InflightBytes == 0 })
	if st := s.Status(); st.Refused[Busy] != 1 || st.Acknowledged != 2 {
		t.Errorf("status %+v", st)
	}
}

// TestKeepAlive: an answer to a body that was read keeps the connection, also
// when it is a refusal.
func TestKeepAlive(t *testing.T) {
	s, _ := startSource(t, open(), ingesttest.NewLog())
	client := newHTTPClient(t)
	for i, test := range []struct {
		body   string
		code   int
		reused bool
	}{{"1", 200, false}, {"{", 400, true}, {"2", 200, true}} {
		r := request{kind: "application/json", body: test.body, header: aKey}.build(t, s)
		var reused bool
		trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }}
		a := roundTrip(t, client, r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		if a.code != test.code || reused != test.reused {
			t.Errorf("request %d: %d, the connection was used before: %t", i, a.code, reused)
		}
	}
	r := request{kind: "text/html", body: "x"}.build(t, s)
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if !got.Close {
		t.Error("the connection stays after a body that was not read")
	}
}
