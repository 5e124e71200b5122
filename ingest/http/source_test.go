package http

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open is a configuration without clients, that is for this machine.
func open(streams ...Stream) Config {
	c := DefaultConfig()
	c.Listen = "127.0.0.1:0"
	c.Streams = streams
	if len(streams) == 0 {
		c.Streams = []Stream{{Stream: "telemetry"}}
	}
	return c
}

func openLog(t testing.TB, dir string, delay time.Duration) *buffer.Log {
	t.Helper()
	config := buffer.DefaultConfig()
	config.Dir, config.Commit.MaxDelay = dir, value.Duration(delay)
	l, err := buffer.Open(t.Context(), config, buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// logWriter gives the source's log to the test.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// startSource runs a source and returns how to end it.
func startSource(t testing.TB, c Config, l ingest.Appender) (*Source, func()) {
	t.Helper()
	s, err := New(c, l, slog.New(slog.NewTextHandler(logWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, runSource(t, s)
}

func runSource(t testing.TB, s *Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	until(t, "it listens", s.Ready)
	return stop
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-tick.C
	}
}

// answer is what came back.
type answer struct {
	code   int
	header nethttp.Header
	body   string

	Stream    string
	Records   int
	Positions []struct{ Shard, Sequence string }
	Title     string
	Status    int
	Detail    string
	Reason    Reason
	Index     *int
}

func newHTTPClient(t testing.TB) *nethttp.Client {
	transport := &nethttp.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &nethttp.Client{Transport: transport, Timeout: 30 * time.Second}
}

// request is a POST to the stream telemetry with some of it changed.
type request struct {
	method, path, kind, body string
	header                   []string // name, value, …
}

func (r request) build(t testing.TB, s *Source) *nethttp.Request {
	t.Helper()
	if r.method == "" {
		r.method = nethttp.MethodPost
	}
	if r.path == "" {
		r.path = "/v1/streams/telemetry/records"
	}
	out, err := nethttp.NewRequestWithContext(t.Context(), r.method, "http://"+s.Address()+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.kind != "" {
		out.Header.Set("Content-Type", r.kind)
	}
	for i := 0; i+1 < len(r.header); i += 2 {
		if r.header[i] == "Host" {
			out.Host = r.header[i+1]
			continue
		}
		out.Header.Add(r.header[i], r.header[i+1])
	}
	return out
}

func send(t testing.TB, s *Source, r request) answer {
	t.Helper()
	return roundTrip(t, newHTTPClient(t), r.build(t, s))
}

func roundTrip(t testing.TB, c *nethttp.Client, r *nethttp.Request) answer {
	t.Helper()
	got, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	return readAnswer(t, got)
}

func readAnswer(t testing.TB, got *nethttp.Response) answer {
	t.Helper()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{code: got.StatusCode, header: got.Header, body: string(text)}
	if got.Request != nil && got.Request.Method == nethttp.MethodHead {
		return a
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("the answer %d is not JSON: %s", a.code, text)
	}
	kind := "application/problem+json"
	if a.code == nethttp.StatusOK {
		kind = "application/json"
	} else if a.Status != a.code || a.Title == "" || a.Detail == "" || a.Reason == "" {
		t.Errorf("the problem is not whole: %s", text)
	}
	if got := a.header.Get("Content-Type"); got != kind {
		t.Errorf("the content type of a %d is %s", a.code, got)
	}
	return a
}

func (a answer) want(t testing.TB, code int, detail string) answer {
	t.Helper()
	if a.code != code || !strings.Contains(a.Detail, detail) {
		t.Errorf("answer %d %s\nwant %d with %q", a.code, a.body, code, detail)
	}
	return a
}

// shown are records, a line each.
func shown(list []buffer.Entry) string {
	var lines []string
	for _, e := range list {
		line := e.PartitionKey + "=" + string(e.Data)
		for _, a := range e.Attributes {
			if a.Key != ingest.AttrSource {
				line += " " + a.Key + ":" + a.Value
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

var aKey = []string{"Weir-Partition-Key", "k"}

// TestFormats: what is sent in each form is in the log as it was sent.
func TestFormats(t *testing.T) {
	const ce = "application/cloudevents+json"
	heads := func(list ...string) []string {
		return append([]string{"Ce-Specversion", "1.0", "Ce-Id", "7", "Ce-Source", "/s", "Ce-Type", "t"}, list...)
	}
	for _, test := range []struct {
		name string
		request
		want string
	}{
		{"object", request{kind: "application/json", body: " {\"a\": 1.0}\n", header: aKey}, `k={"a": 1.0}`},
		{"charset", request{kind: "application/json; charset=UTF-8", body: `"ü"`, header: aKey}, `k="ü"`},
		{"array", request{kind: "application/json", body: `[{"a":"],"} , 2,[3,[4]],"x\"]"]`, header: aKey}, "k={\"a\":\"],\"}\nk=2\nk=[3,[4]]\nk=\"x\\\"]\""},
		{"empty array", request{kind: "application/json", body: `[]`, header: aKey}, ""},
		{"lines", request{kind: "application/x-ndjson", body: "{\"a\":1}\r\n\n  {\"a\": 2}  \n{\"a\":3}", header: aKey}, "k={\"a\":1}\nk={\"a\": 2}\nk={\"a\":3}"},
		{"jsonl", request{kind: "application/jsonl", body: "1\n2\n", header: aKey}, "k=1\nk=2"},
		{"text", request{kind: "text/plain", body: "a\nb\n", header: aKey}, "k=a\nb\n"},
		{"bytes", request{kind: "application/octet-stream", body: "\x00\xff", header: aKey}, "k=\x00\xff"},
		{"query", request{path: "/v1/streams/telemetry/records?partition_key=a%20%26", kind: "text/plain", body: "x"}, "a &=x"},
		{"template", request{path: "/v1/streams/keyed/records", kind: "application/x-ndjson", body: `{"id":1,"at":{"n":"x"}}` + "\n" + `{"at":{"n":"\u0079","n":true},"id":"é"}`}, "1/x={\"id\":1,\"at\":{\"n\":\"x\"}}\né/true={\"at\":{\"n\":\"\\u0079\",\"n\":true},\"id\":\"é\"}"},
		{"template of a number", request{path: "/v1/streams/keyed/records", kind: "text/plain", body: ` {"id":123456789012345678,"at":{"n":1.50}}`}, `123456789012345678/1.50= {"id":123456789012345678,"at":{"n":1.50}}`},
		{"key over template", request{path: "/v1/streams/keyed/records", kind: "text/plain", body: "x", header: aKey}, "k=x"},
		{"event", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t","partitionkey":"p","data":{"a": 1},"n":5,"yes":true,"unset":null,"time":"2026-01-31T12:00:00.5Z"}`},
			`p={"a": 1} ce-id:7 ce-source:/s ce-type:t ce-time:2026-01-31T12:00:00.5Z ce-datacontenttype:application/json ce-n:5 ce-partitionkey:p ce-yes:true`},
		{"event of text", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t","datacontenttype":"text/xml","data":"<a b=\"\u00e9\"/>","subject":"u","dataschema":"http://x/y"}`, header: aKey},
			`k=<a b="é"/> ce-id:7 ce-source:/s ce-type:t ce-subject:u ce-datacontenttype:text/xml ce-dataschema:http://x/y`},
		{"event of a JSON string", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t","data":"x"}`, header: aKey}, `k="x" ce-id:7 ce-source:/s ce-type:t ce-datacontenttype:application/json`},
		{"event of null", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t","data":null}`, header: aKey}, `k=null ce-id:7 ce-source:/s ce-type:t ce-datacontenttype:application/json`},
		{"event of bytes", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t","data_base64":"AP8="}`, header: aKey}, "k=\x00\xff ce-id:7 ce-source:/s ce-type:t"},
		{"event without data", request{kind: ce, body: `{"specversion":"1.0","id":"7","source":"/s","type":"t"}`, header: aKey}, "k= ce-id:7 ce-source:/s ce-type:t"},
		{"batch", request{kind: "application/cloudevents-batch+json", body: `[{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"a","data":1},{"specversion":"1.0","id":"2","source":"/s","type":"t","partitionkey":"b","data":2}]`},
			"a=1 ce-id:1 ce-source:/s ce-type:t ce-datacontenttype:application/json ce-partitionkey:a\nb=2 ce-id:2 ce-source:/s ce-type:t ce-datacontenttype:application/json ce-partitionkey:b"},
		{"empty batch", request{kind: "application/cloudevents-batch+json", body: " []\n"}, ""},
		{"binary event", request{kind: "image/png", body: "\x89PNG", header: heads("Ce-Partitionkey", "Euro%20%E2%82%AC%20%f0%9f%98%80", "Ce-Subject", `"a \"b\" %25"`)},
			"Euro € 😀=\x89PNG ce-id:7 ce-source:/s ce-type:t ce-subject:a \"b\" % ce-datacontenttype:image/png ce-partitionkey:Euro € 😀"},
		{"binary event without data", request{header: heads(aKey...)}, "k= ce-id:7 ce-source:/s ce-type:t"},
		{"binary event of JSON lines", request{kind: "application/x-ndjson", body: "1\n2\n", header: heads(aKey...)}, "k=1\n2\n ce-id:7 ce-source:/s ce-type:t ce-datacontenttype:application/x-ndjson"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := ingesttest.NewLog()
			s, stop := startSource(t, open(Stream{Stream: "telemetry"}, Stream{Stream: "keyed", PartitionKey: "{json.id}/{json.at.n}"}), log)
			stream := "telemetry"
			if strings.Contains(test.path, "keyed") {
				stream = "keyed"
			}
			a := send(t, s, test.request).want(t, nethttp.StatusOK, "")
			list := log.Entries(stream)
			if got := shown(list); got != test.want {
				t.Errorf("the log holds\n%s\nwant\n%s", got, test.want)
			}
			if a.Stream != stream || a.Records != len(list) || len(a.Positions) != len(list) {
				t.Errorf("the answer is %s", a.body)
			}
			for i, e := range list {
				if a.Positions[i].Sequence != e.Sequence.String() || a.Positions[i].Shard != "shardId-000000000000" || e.Attribute(ingest.AttrSource) != "http" {
					t.Errorf("position %d of %s, record %v", i, a.body, e)
				}
			}
			stop()
			n := int64(len(list))
			if st := s.Status(); st.Received != n || st.Appended != n || st.Acknowledged != n || st.Requests != 1 || st.Inflight != 0 || st.InflightBytes != 0 || st.State != Stopped {
				t.Errorf("the status is %+v", st)
			}
		})
	}
}

// TestPositions: a real log with four shards has each record where the answer
// says.
func TestPositions(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "log"), 0)
	defer l.Close()
	policy := buffer.DefaultStreamConfig(buffer.Data)
	policy.Shards = 4
	if err := l.CreateStream(t.Context(), "telemetry", policy); err != nil {
		t.Fatal(err)
	}
	s, stop := startSource(t, open(Stream{Stream: "telemetry", PartitionKey: "{json.k}"}), l)
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, "{\"k\":%d,\"n\":%d}\n", i%20, i)
	}
	a := send(t, s, request{kind: "application/x-ndjson", body: body.String()}).want(t, nethttp.StatusOK, "")
	stop()
	if len(a.Positions) != 1000 {
		t.Fatalf("the answer is %s", a.body)
	}
	byPlace := map[string]string{}
	for shard := range 4 {
		for _, e := range read(t, l, "telemetry", buffer.ShardID(shard)) {
			byPlace[e.Shard.String()+"/"+e.Sequence.String()] = string(e.Data)
		}
	}
	for i, p := range a.Positions {
		if got, want := byPlace[p.Shard+"/"+p.Sequence], fmt.Sprintf(`{"k":%d,"n":%d}`, i%20, i); got != want {
			t.Fatalf("record %d at %v is %s", i, p, got)
		}
	}
}

// read returns all records of a shard.
func read(t testing.TB, l *buffer.Log, stream string, shard buffer.ShardID) (list []buffer.Entry) {
	t.Helper()
	at := buffer.Position{Shard: shard, Sequence: 1}
	for {
		page, err := l.Read(t.Context(), stream, at, buffer.Limit{MaxRecords: 5000, MaxBytes: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Gaps) > 0 {
			t.Fatalf("gaps: %v", page.Gaps)
		}
		list = append(list, page.Entries...)
		if at.Sequence = page.Next; page.AtEnd {
			return list
		}
	}
}
