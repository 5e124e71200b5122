package uplink_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
)

func TestHeaders(t *testing.T) {
	e := buffer.Entry{Stream: "telemetry", Shard: 3, Sequence: 42, ClockSynced: true, Record: buffer.Record{
		PartitionKey: "pump 7", Arrival: time.Date(2026, 11, 23, 11, 0, 0, 7_000_000, time.FixedZone("", 3600)),
		Attributes: []buffer.Attribute{
			{Key: "mqtt.topic", Value: "sensors/7/температура"}, {Key: "mqtt_topic", Value: "again"}, {Key: "mqttTopic", Value: "and again"},
			{Key: "ID", Value: "its own id"}, {Key: "Straße", Value: "a\r\nb"}, {Key: "…", Value: "100%"},
		},
	}}
	want := []uplink.Header{
		{"ce-specversion", "1.0"},
		{"ce-id", "gw-17/telemetry/shardId-000000000003/42"},
		{"ce-source", "weir://gw-17/telemetry"},
		{"ce-type", "weir.record"},
		{"ce-time", "2026-11-23T10:00:00.007Z"},
		{"ce-partitionkey", "pump%207"},
		{"ce-stream", "telemetry"},
		{"ce-shard", "shardId-000000000003"},
		{"ce-sequence", "42"},
		{"ce-mqtttopic", "sensors/7/%D1%82%D0%B5%D0%BC%D0%BF%D0%B5%D1%80%D0%B0%D1%82%D1%83%D1%80%D0%B0"},
		{"ce-attrmqtttopic", "again"},
		{"ce-attrmqtttopic2", "and%20again"},
		{"ce-attrid", "its%20own%20id"},
		{"ce-strae", "a%0D%0Ab"},
		{"ce-attr", "100%25"},
	}
	if diff := cmp.Diff(want, uplink.Headers("gw-17", &e)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	e.Part, e.ClockSynced, e.Attributes = buffer.Closing, false, nil
	got := uplink.Headers("gw-17", &e)[9:]
	if diff := cmp.Diff([]uplink.Header{{"ce-part", "closing"}, {"ce-clocksynced", "false"}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRecordID(t *testing.T) {
	e := buffer.Entry{Stream: "telemetry", Shard: 12, Sequence: 18446744073709551615}
	id := uplink.RecordID("site/gw 17", &e)
	node, stream, at, err := uplink.ParseRecordID(id)
	if err != nil || node != "site/gw 17" || stream != "telemetry" || at != (buffer.Position{Shard: 12, Sequence: e.Sequence}) {
		t.Errorf("parsed %q: %q %q %v %v", id, node, stream, at, err)
	}
	for _, bad := range []string{
		"", "a", "a/b/c", "a/b/shardId-000000000001/", "a/b/shardId-000000000001/x", "a/b/shardId-1/1", "a/b/shard-000000000001/1",
		"/b/shardId-000000000001/1", "a//shardId-000000000001/1", "a/b/shardId-000000000001/01", "a/b/shardId-000000000001/18446744073709551616",
	} {
		if _, _, _, err := uplink.ParseRecordID(bad); err == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

// FuzzHeaders: whatever a record holds, each header has a name of its own that
// is allowed, and a value that is one line of ASCII and decodes to what it was.
func FuzzHeaders(f *testing.F) {
	f.Add("key", "mqtt.topic", "a/b", "id", "x\r\nce-id: forged")
	f.Add("", "", "%", "\xff\xfe", "\x00")
	name := regexp.MustCompile(`^ce-[a-z0-9]+$`)
	value := regexp.MustCompile(`^[!-~]*$`)
	f.Fuzz(func(t *testing.T, key, name1, value1, name2, value2 string) {
		e := buffer.Entry{Stream: "s", Sequence: 1, Record: buffer.Record{PartitionKey: key, Attributes: []buffer.Attribute{
			{Key: name1, Value: value1}, {Key: name2, Value: value2}, {Key: name1, Value: value2},
		}}}
		seen := map[string]bool{}
		headers := uplink.Headers("gw-17", &e)
		for _, h := range headers {
			if !name.MatchString(h.Name) || !value.MatchString(h.Value) || strings.ContainsAny(h.Value, `"`) || seen[h.Name] {
				t.Errorf("header %q: %q (seen: %v)", h.Name, h.Value, seen[h.Name])
			}
			seen[h.Name] = true
		}
		for i, want := range []string{value1, value2, value2} {
			got, err := url.PathUnescape(headers[len(headers)-3+i].Value)
			if err != nil || got != want {
				t.Errorf("%q decodes to %q: %v", want, got, err)
			}
		}
	})
}

// FuzzParseRecordID: what is taken for an id is one.
func FuzzParseRecordID(f *testing.F) {
	f.Add("gw-17/telemetry/shardId-000000000000/42")
	f.Fuzz(func(t *testing.T, id string) {
		node, stream, at, err := uplink.ParseRecordID(id)
		if err != nil {
			return
		}
		e := buffer.Entry{Stream: stream, Shard: at.Shard, Sequence: at.Sequence}
		if again := uplink.RecordID(node, &e); again != id {
			t.Errorf("%q becomes %q", id, again)
		}
	})
}
