package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a daemon whose answers a test decides.
type node struct {
	health api.Health
	parts  api.Parts
}

func (n *node) Health() api.Health { return n.health }
func (n *node) Parts() api.Parts   { return n.parts }

// archive is a recorder of one camera, front, with one recording.
type archive struct{ start, end time.Time }

func (a archive) List(_ context.Context, camera string, span api.Span, _ int) ([]api.Recording, error) {
	if camera != "front" {
		return nil, fmt.Errorf("camera %s: %w", camera, buffer.ErrNotFound)
	}
	if !a.start.Before(span.To) || !span.From.Before(a.end) {
		return nil, nil
	}
	return []api.Recording{{Start: a.start, End: a.end, Fragments: 3, Bytes: 1000}}, nil
}

func (a archive) Clip(_ context.Context, w io.Writer, camera string, _ api.Span) error {
	switch {
	case camera == "broken":
		if _, err := io.WriteString(w, strings.Repeat("half", 50_000)); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	case camera != "front":
		return fmt.Errorf("camera %s: %w", camera, buffer.ErrNotFound)
	}
	_, err := io.WriteString(w, "an mp4")
	return err
}

// openLog opens a log that is closed at the end of the test.
func openLog(t *testing.T) *buffer.Log {
	t.Helper()
	cfg := buffer.DefaultConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "log")
	cfg.MaxBytes = 128 << 20
	log, err := buffer.Open(t.Context(), cfg, buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

// bench is an API over a log, on a real socket.
type bench struct {
	*testing.T
	log    *buffer.Log
	node   *node
	server *httptest.Server
}

func newBench(t *testing.T, change func(*api.Config)) *bench {
	t.Helper()
	b := &bench{T: t, log: openLog(t), node: &node{health: api.Health{OK: true}}}
	b.node.parts = api.Parts{ID: "gw-17", Sources: []api.Source{
		{Part: api.Part{Name: "plant", Type: "mqtt", State: api.Running}, Messages: 7, Appended: 6},
	}}
	cfg := api.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	hour := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	server := api.New(api.Options{
		Config: cfg, Log: api.LogOf(b.log), Node: b.node, Version: "v0.1.0", Recordings: archive{hour, hour.Add(time.Minute)},
	})
	b.server = httptest.NewServer(server.Handler())
	t.Cleanup(b.server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return b
}

func (b *bench) append(stream string, records ...string) {
	b.Helper()
	for i, data := range records {
		if _, err := b.log.Append(b.Context(), stream, buffer.Record{PartitionKey: "k", Data: []byte(data),
			Attributes: []buffer.Attribute{{Key: "n", Value: fmt.Sprint(i)}}}); err != nil {
			b.Fatal(err)
		}
	}
}

// call sends a request; change may turn it into a bad one.
func (b *bench) call(method, path, body string, change func(*http.Request)) (int, string) {
	b.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(b.Context(), method, b.server.URL+path, content)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if change != nil {
		change(request)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// expect checks the status code and a part of the answer.
func (b *bench) expect(method, path, body string, code int, part string) string {
	b.Helper()
	got, answer := b.call(method, path, body, nil)
	if got != code || !strings.Contains(answer, part) {
		b.Fatalf("%s %s answers %d %s\nwant %d with %s", method, path, got, answer, code, part)
	}
	if code >= 400 && !strings.HasPrefix(path, "/healthz") {
		var fault api.Fault
		if err := json.Unmarshal([]byte(answer), &fault); err != nil || fault.Error == "" {
			b.Fatalf("%s %s answers %s, which is not an error as JSON", method, path, answer)
		}
	}
	return answer
}

func TestHealth(t *testing.T) {
	b := newBench(t, nil)
	b.expect("GET", "/healthz", "", 200, `{"ok":true,"problems":[]}`)
	b.node.health = api.Health{Problems: []api.Problem{{Part: "camera front", Reason: "port in use"}}}
	b.expect("GET", "/healthz", "", 503, `{"part":"camera front","reason":"port in use"}`)
}

func TestStatusAndLists(t *testing.T) {
	b := newBench(t, nil)
	b.append("telemetry", "one", "two")
	if err := b.log.Commit(b.Context(), buffer.Commit{Consumer: "uplink.central",
		Positions: map[buffer.ShardKey]buffer.Sequence{{Stream: "telemetry"}: 2}}); err != nil {
		t.Fatal(err)
	}
	var status api.Status
	if err := json.Unmarshal([]byte(b.expect("GET", "/api/v1/status", "", 200, `"gw-17"`)), &status); err != nil {
		t.Fatal(err)
	}
	if status.Node.Version != "v0.1.0" || len(status.Sources) != 1 || status.Sources[0].Appended != 6 || !status.Health.OK {
		t.Fatalf("status is %+v", status)
	}
	b.expect("GET", "/api/v1/streams", "", 200, `"name":"telemetry"`)
	b.expect("GET", "/api/v1/streams/telemetry", "", 200, `"first":"1","next":"3"`)
	b.expect("GET", "/api/v1/streams/nosuch", "", 404, "not found")
	b.expect("GET", "/api/v1/consumers", "", 200, `"position":"2","records":1`)
	b.expect("GET", "/api/v1/openapi.yaml", "", 200, "openapi: 3.1.0")
	b.expect("GET", "/nothing", "", 404, "nothing is here")
	b.expect("POST", "/api/v1/status", `{}`, 405, "use GET")
}

func TestMetrics(t *testing.T) {
	b := newBench(t, nil)
	b.append("telemetry", "one", "two")
	b.expect("GET", "/healthz", "", 200, "ok")
	text := b.expect("GET", "/metrics", "", 200, "")
	for _, line := range []string{
		`weir_build_info{version="v0.1.0"} 1`, "weir_healthy 1", "weir_log_appended_records_total 2",
		`weir_source_messages_total{source="plant",type="mqtt"} 7`,
		`weir_part_running{kind="source",name="plant",type="mqtt"} 1`,
		`weir_stream_shards{stream="telemetry"} 1`, "go_goroutines", "process_resident_memory_bytes",
		`weir_http_requests_total{code="200",route="GET /healthz"} 1`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestReadRecords(t *testing.T) {
	b := newBench(t, nil)
	b.append("telemetry", "one", "\xff\x00", "three <&>")
	text := b.expect("GET", "/api/v1/streams/telemetry/records?from=trim-horizon", "", 200, "")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 3 {
		t.Fatalf("3 records are answered as\n%s", text)
	}
	var first map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	arrival, ok := first["arrival"].(string)
	delete(first, "arrival")
	want := `map[attributes:map[n:0] data:one partition_key:k sequence:1 shard:shardId-000000000000 stream:telemetry]`
	if fmt.Sprint(first) != want {
		t.Errorf("a record is %v\nwant %s", first, want)
	}
	if at, err := time.Parse("2006-01-02T15:04:05.000Z", arrival); !ok || err != nil || time.Since(at) > time.Minute {
		t.Errorf("arrival is %v", arrival)
	}
	for i, part := range []string{`"data":"one"`, `"data_base64":"/wA="`, `"data":"three <&>"`} {
		if !strings.Contains(lines[i], part) {
			t.Errorf("record %d is %s, want %s in it", i+1, lines[i], part)
		}
	}
	path := "/api/v1/streams/telemetry/records"
	for query, count := range map[string]int{
		"": 3, "?max=2": 2, "?from=latest": 0, "?from=0:2": 2, "?from=shardId-000000000000:3&shard=0": 1, "?shard=0": 3,
		"?from=2020-01-01T00:00:00Z": 3, "?from=1h": 3, "?from=2999-01-01T00:00:00Z": 0,
	} {
		if got := strings.Count(b.expect("GET", path+query, "", 200, ""), "\n"); got != count {
			t.Errorf("%s answers %d records, want %d", query, got, count)
		}
	}
	for query, part := range map[string]string{
		"?from=yesterday": "SHARD:SEQUENCE", "?from=x:1": "SHARD:SEQUENCE", "?max=0": "max", "?max=x": "max", "?follow=maybe": "follow",
		"?shard=x": "shard", "?from=0:1&shard=1": "shard", "?colour=red": "unknown",
	} {
		b.expect("GET", path+query, "", 400, part)
	}
	b.expect("GET", path+"?shard=7", "", 404, "not found")
	b.expect("GET", "/api/v1/streams/nosuch/records", "", 404, "not found")
}

// TestFollow reads what comes after the request.
func TestFollow(t *testing.T) {
	b := newBench(t, nil)
	b.append("telemetry", "old")
	request, err := http.NewRequestWithContext(t.Context(), "GET", b.server.URL+"/api/v1/streams/telemetry/records?follow=true&from=latest&max=2", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for _, data := range []string{"new", "newer"} {
		b.append("telemetry", data)
		if !lines.Scan() || !strings.Contains(lines.Text(), `"data":"`+data+`"`) {
			t.Fatalf("following gives %q, %v; want %s", lines.Text(), lines.Err(), data)
		}
	}
	if lines.Scan() {
		t.Fatalf("after max there is %q", lines.Text())
	}
}

// TestMerge reads two shards in the order of arrival.
func TestMerge(t *testing.T) {
	b := newBench(t, nil)
	config := buffer.DefaultStreamConfig(buffer.Data)
	config.Shards = 2
	if err := b.log.CreateStream(t.Context(), "two", config); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Hour)
	shards := map[buffer.ShardID]bool{}
	for i := range 100 {
		positions, err := b.log.Append(t.Context(), "two", buffer.Record{PartitionKey: fmt.Sprint("key", i),
			Data: []byte(fmt.Sprintf("%03d", i)), Arrival: begin.Add(time.Duration(i) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		shards[positions[0].Shard] = true
	}
	if len(shards) != 2 {
		t.Fatalf("100 keys went to %d shards", len(shards))
	}
	text := b.expect("GET", "/api/v1/streams/two/records", "", 200, "")
	last := ""
	for line := range strings.Lines(text) {
		var record api.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if data := string(record.Bytes()); data <= last {
			t.Fatalf("%s comes after %s", data, last)
		} else {
			last = data
		}
	}
	if last != "099" {
		t.Fatalf("the last record is %q", last)
	}
}

func TestAppend(t *testing.T) {
	b := newBench(t, nil)
	path := "/api/v1/streams/telemetry/records"
	b.expect("POST", path, `{"partition_key":"a","data":"one"}`+"\n"+`{"partition_key":"a","data_base64":"/wA=","attributes":{"x":"y"}}`,
		200, `{"appended":2,"records":[{"shard":"shardId-000000000000","sequence":"1"},{"shard":"shardId-000000000000","sequence":"2"}]}`)
	b.expect("POST", path, `[{"partition_key":"a","data":"three"},{"partition_key":"a","data":""}]`, 200, `"appended":2`)
	raw := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	if code, answer := b.call("POST", path+"?partition_key=k", "five\n\nseven", raw); code != 200 || !strings.Contains(answer, `"appended":3`) {
		t.Fatalf("raw lines: %d %s", code, answer)
	}
	text := b.expect("GET", path, "", 200, "")
	var got []string
	for line := range strings.Lines(text) {
		var record api.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		got = append(got, record.PartitionKey+"="+string(record.Bytes()))
	}
	if want := "a=one a=\xff\x00 a=three a= k=five k= k=seven"; strings.Join(got, " ") != want {
		t.Errorf("the log holds %q\nwant %q", strings.Join(got, " "), want)
	}
	for body, part := range map[string]string{
		`{"data":"x"}`: "partition_key is missing", `{"partition_key":"a"}`: "data is missing", `[]`: "no record",
		`{"partition_key":"a","data":"x","data_base64":"eA=="}`: "both", `{"partition_key":"a","data":"x","sequence":"9"}`: "decided by the log",
		`{"partition_key":"a","data":"x","colour":"red"}`: "colour", `nonsense`: "record 1", `{"partition_key":"a","data":"x"} {`: "record 2",
		`{"partition_key":"a","data":"x","arrival":"noon"}`: "arrival", `7`: "record 1",
	} {
		b.expect("POST", path, body, 400, part)
	}
	b.expect("POST", "/api/v1/streams/bad%20name/records", `{"partition_key":"a","data":"x"}`, 400, "name")
	form := func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }
	if code, answer := b.call("POST", path, "a=b", form); code != 400 || !strings.Contains(answer, "content type") {
		t.Errorf("a form: %d %s", code, answer)
	}
	if code, answer := b.call("POST", path, "line", raw); code != 400 || !strings.Contains(answer, "partition_key") {
		t.Errorf("lines without a key: %d %s", code, answer)
	}
}

func TestAppendLimits(t *testing.T) {
	b := newBench(t, nil)
	path := "/api/v1/streams/telemetry/records?partition_key=k"
	raw := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	if code, answer := b.call("POST", path, strings.Repeat("x", 17<<20), raw); code != 413 {
		t.Errorf("17 MiB: %d %.200s", code, answer)
	}
	chunked := func(r *http.Request) { raw(r); r.ContentLength = -1 }
	if code, answer := b.call("POST", path, strings.Repeat("x", 17<<20), chunked); code != 413 {
		t.Errorf("17 MiB of unknown length: %d %.200s", code, answer)
	}
	if code, answer := b.call("POST", path, strings.Repeat("\n", 10_001), raw); code != 413 {
		t.Errorf("10001 lines: %d %.200s", code, answer)
	}
	if code, answer := b.call("POST", path, strings.Repeat("x", 11<<20), raw); code != 413 {
		t.Errorf("a record of 11 MiB: %d %.200s", code, answer)
	}
	if err := b.log.CreateStream(t.Context(), "video.front", buffer.DefaultStreamConfig(buffer.Video)); err != nil {
		t.Fatal(err)
	}
	b.expect("POST", "/api/v1/streams/video.front/records", `{"partition_key":"a","data":"x"}`, 409, "belongs to a camera")
	if code, answer := b.call("GET", "/api/v1/streams", "a body", nil); code != 400 {
		t.Errorf("GET with a body: %d %.200s", code, answer)
	}
}

func TestVideo(t *testing.T) {
	b := newBench(t, nil)
	b.node.parts.Cameras = []api.Camera{{Part: api.Part{Name: "front", Type: "rtp", State: api.Running}, Codec: "h264", Frames: 9}}
	b.expect("GET", "/api/v1/video/cameras", "", 200, `"name":"front"`)
	b.expect("GET", "/api/v1/video/cameras/front/recordings", "", 200, `"fragments":3`)
	b.expect("GET", "/api/v1/video/cameras/front/recordings?start=2026-02-01T00:00:00Z", "", 200, `"recordings":[]`)
	b.expect("GET", "/api/v1/video/cameras/front/recordings?start=noon", "", 400, "start")
	b.expect("GET", "/api/v1/video/cameras/back/recordings", "", 404, "not found")
	span := "?start=2026-01-31T12:00:00Z&end=2026-01-31T12:00:10Z"
	b.expect("GET", "/clip/front.mp4"+span, "", 200, "an mp4")
	b.expect("GET", "/clip/back.mp4"+span, "", 404, "not found")
	b.expect("GET", "/clip/front.mkv"+span, "", 404, "CAMERA.mp4")
	b.expect("GET", "/clip/front.mp4", "", 400, "start and end")
	b.expect("GET", "/clip/front.mp4?start=2026-01-31T12:00:00Z&end=2026-01-31T11:00:00Z", "", 400, "not before")
	b.expect("GET", "/clip/front.mp4?start=2026-01-01T12:00:00Z&end=2026-01-31T11:00:00Z", "", 400, "at most")
}

// TestBrokenClip: half a clip must not look like a whole one.
func TestBrokenClip(t *testing.T) {
	b := newBench(t, nil)
	response, err := http.Get(b.server.URL + "/clip/broken.mp4?start=10s&end=0s")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Fatal("half a clip looks like a whole one")
	}
}

// TestLoopbackGuard: pages of other origins and rebound names are refused.
func TestLoopbackGuard(t *testing.T) {
	b := newBench(t, nil)
	host := strings.TrimPrefix(b.server.URL, "http://")
	header := func(name, text string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, text) }
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		code   int
	}{
		{"rebound name", func(r *http.Request) { r.Host = "evil.example" }, 403},
		{"rebound name with port", func(r *http.Request) { r.Host = "evil.example:8080" }, 403},
		{"loopback in a name", func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 403},
		{"another machine's address", func(r *http.Request) { r.Host = "192.0.2.1" }, 403},
		{"localhost", func(r *http.Request) { r.Host = "localhost:8080" }, 200},
		{"IPv6 loopback", func(r *http.Request) { r.Host = "[::1]:8080" }, 200},
		{"another origin", header("Origin", "http://evil.example"), 403},
		{"another port's origin", header("Origin", "http://127.0.0.1:1"), 403},
		{"no origin worth the name", header("Origin", "null"), 403},
		{"its own origin", header("Origin", "http://"+host), 200},
		{"an image in a foreign page", header("Sec-Fetch-Site", "cross-site"), 403},
		{"the address bar", header("Sec-Fetch-Site", "none"), 200},
	} {
		for _, path := range []string{"/api/v1/streams", "/healthz", "/metrics"} {
			if code, answer := b.call("GET", path, "", c.change); code != c.code {
				t.Errorf("%s: GET %s answers %d %s, want %d", c.name, path, code, answer, c.code)
			}
		}
	}
	if code, _ := b.call("POST", "/api/v1/streams/s/records", `{"partition_key":"a","data":"x"}`, header("Origin", "http://evil.example")); code != 403 {
		t.Errorf("a foreign page may append: %d", code)
	}
}

// TestToken: off loopback, every route but /healthz wants the token.
func TestToken(t *testing.T) {
	const token = "correct horse battery"
	b := newBench(t, func(c *api.Config) { c.Listen, c.Token = "0.0.0.0:8080", value.NewSecret(token) })
	b.append("s", "x")
	b.node.health = api.Health{Problems: []api.Problem{{Part: "sink central", Reason: "central.example refuses"}}}
	paths := []string{"/metrics", "/api/v1/openapi.yaml", "/api/v1/status", "/api/v1/streams", "/api/v1/streams/s",
		"/api/v1/streams/s/records", "/api/v1/consumers", "/api/v1/video/cameras", "/api/v1/video/cameras/front/recordings",
		"/clip/front.mp4?start=1h&end=0s", "/nothing"}
	for _, path := range paths {
		for _, given := range []string{"", "Bearer wrong", "Bearer " + token + "x", "Basic " + token, token, "Bearer"} {
			code, answer := b.call("GET", path, "", func(r *http.Request) {
				if given != "" {
					r.Header.Set("Authorization", given)
				}
			})
			if code != 401 || strings.Contains(answer, token) {
				t.Errorf("GET %s with %q answers %d %s", path, given, code, answer)
			}
		}
		if code, answer := b.call("GET", path, "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }); code == 401 {
			t.Errorf("GET %s with the token answers %d %s", path, code, answer)
		}
	}
	if code, answer := b.call("GET", "/healthz", "", nil); code != 503 || strings.Contains(answer, "central") {
		t.Errorf("healthz without the token answers %d %s", code, answer)
	}
}

// TestServerLimitsHeaders: a header over the limit costs only its connection.
func TestServerLimitsHeaders(t *testing.T) {
	cfg := api.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	server := api.New(api.Options{Config: cfg, Log: api.LogOf(openLog(t)), Node: &node{health: api.Health{OK: true}}, Recordings: archive{}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	listening := server.Listening()
	go func() { ended <- server.Run(ctx) }()
	select {
	case <-listening:
	case err := <-ended:
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+server.Address()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB answers %d", response.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestStopWhileFollowing: a follower does not keep the server from ending,
// and learns that this is not the end of the stream.
func TestStopWhileFollowing(t *testing.T) {
	cfg := api.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	log := openLog(t)
	if _, err := log.Append(t.Context(), "s", buffer.Record{PartitionKey: "k", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	server := api.New(api.Options{Config: cfg, Log: api.LogOf(log), Node: &node{health: api.Health{OK: true}}, Recordings: archive{}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	listening := server.Listening()
	go func() { ended <- server.Run(ctx) }()
	select {
	case <-listening:
	case err := <-ended:
		t.Fatal(err)
	}
	response, err := http.Get("http://" + server.Address() + "/api/v1/streams/s/records?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"data":"x"`) {
		t.Fatalf("the first line is %q, %v", lines.Text(), lines.Err())
	}
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("ending took %s", took)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "stops") {
		t.Errorf("the last line is %q", lines.Text())
	}
	http.DefaultClient.CloseIdleConnections()
}
