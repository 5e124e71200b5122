package http

import (
	"bytes"
	"encoding/json"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-edge/weir/ingest/ingesttest"
)

// program returns the path of a program that the test needs.
func program(t *testing.T, name, from string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; get it with: apt-get install %s", name, from)
	}
	return path
}

// TestCurl posts as people do it by hand.
func TestCurl(t *testing.T) {
	curl := program(t, "curl", "curl")
	log := ingesttest.NewLog()
	c := guarded()
	c.Streams[0].PartitionKey = ""
	a := newAuthority(t)
	a.server()
	c.TLS = TLSConfig{CertFile: a.file("server.pem"), KeyFile: a.file("server.key")}
	s, _ := startSource(t, c, log)
	large := filepath.Join(t.TempDir(), "large.ndjson")
	if err := os.WriteFile(large, []byte(numbers(9000)), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "https://" + s.Address() + "/v1/streams/telemetry/records"
	auth := "Authorization: Bearer " + token
	for _, test := range []struct {
		args []string
		code string
		n    int // records after it
	}{
		{[]string{url, "-H", auth, "-H", "Weir-Partition-Key: k", "--json", `{"a":1}`}, "200", 1},
		{[]string{url + "?partition_key=k%201", "-H", auth, "-H", "Content-Type: text/plain", "--data-binary", "hello"}, "200", 2},
		{[]string{url, "-H", auth, "-H", "Weir-Partition-Key: k", "-H", "Content-Type: application/x-ndjson", "-H", "Expect: 100-continue", "--data-binary", "@" + large}, "200", 9002},
		{[]string{url, "-H", auth, "-H", "Weir-Partition-Key: k", "-H", "Content-Type: application/x-ndjson", "-H", "Transfer-Encoding: chunked", "--data-binary", "@" + large}, "200", 18002},
		{[]string{url, "-H", "Authorization: Bearer nothing", "-H", "Content-Type: application/x-ndjson", "--data-binary", "@" + large}, "401", 18002},
		{[]string{url, "-H", auth, "-d", "a=1"}, "415", 18002}, // curl's own content type is a form's
		{[]string{url, "-H", auth}, "405", 18002},
	} {
		args := append([]string{"-sS", "--max-time", "20", "--cacert", a.file("ca.pem"), "-o", "/dev/stdout", "-w", "\n%{http_code}"}, test.args...)
		out, err := exec.Command(curl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v\n%s", test.args, err, out)
		}
		if got := string(out[bytes.LastIndexByte(out, '\n')+1:]); got != test.code {
			t.Errorf("curl %v: %s\nwant %s", test.args, out, test.code)
		}
		if got := len(log.Entries("telemetry")); got != test.n {
			t.Errorf("%d records, want %d", got, test.n)
		}
	}
	if list := log.Entries("telemetry"); list[0].PartitionKey != "k" || string(list[0].Data) != `{"a":1}` || list[1].PartitionKey != "k 1" || string(list[1].Data) != "hello" {
		t.Errorf("the log holds %s", shown(list[:2]))
	}
}

// sent is what send.mjs sends. In binary mode the SDK names a charset.
const sent = `key b1={"temperature":21.5,"place":"Straße"} ce-id:b1 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-subject:door 7 open ce-datacontenttype:application/json; charset=utf-8 ce-comexamplecount:5 ce-comexampleyes:true ce-partitionkey:key b1
key b2=<a b="é"/> ce-id:b2 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:text/xml ce-partitionkey:key b2
key b3=` + "\x00\xff\x01\xfe" + ` ce-id:b3 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:application/octet-stream ce-partitionkey:key b3
key s1={"temperature":21.5,"place":"Straße"} ce-id:s1 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-subject:door 7 → open ce-datacontenttype:application/json ce-dataschema:https://example.com/s.json ce-comexamplecount:5 ce-comexampleyes:true ce-partitionkey:key s1
key s2=<a b="é"/> ce-id:s2 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:text/xml ce-partitionkey:key s2
key s3=` + "\x00\xff\x01\xfe" + ` ce-id:s3 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:application/octet-stream ce-partitionkey:key s3
key l1={"temperature":21.5,"place":"Straße"} ce-id:l1 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:application/json ce-partitionkey:key l1
key l2=` + "\x00\xff\x01\xfe" + ` ce-id:l2 ce-source:/plant/3 ce-type:com.example.reading ce-time:2026-01-31T12:00:00.500Z ce-datacontenttype:application/octet-stream ce-partitionkey:key l2`

// TestCloudEventsSDK: events of the CloudEvents SDK for JavaScript arrive as
// they were made, in all three modes.
func TestCloudEventsSDK(t *testing.T) {
	dir := installPeers(t)
	log := ingesttest.NewLog()
	c := open()
	s, _ := startSource(t, c, log)
	cmd := exec.Command(program(t, "node", "nodejs"), "send.mjs", "http://"+s.Address()+"/v1/streams/telemetry/records")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("send.mjs: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var a struct {
			Status int
			Body   string
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Status != nethttp.StatusOK {
			t.Errorf("the SDK got %s", line)
		}
	}
	if got := shown(log.Entries("telemetry")); got != sent {
		t.Errorf("the log holds\n%s\nwant\n%s", got, sent)
	}
}

// installPeers copies testdata/peers and has npm install what its lock names.
func installPeers(t *testing.T) string {
	t.Helper()
	npm := program(t, "npm", "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/peers")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}
