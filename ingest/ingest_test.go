package ingest

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

func TestRefusedRecord(t *testing.T) {
	r := Refused{
		Source: "plant", Stream: "telemetry", Reason: strings.Repeat("ä", 400), Size: 100_000, Data: make([]byte, 100_000),
		Attributes: []buffer.Attribute{{Key: "mqtt.topic", Value: "a\xff" + strings.Repeat("ö", 2000)}},
	}.Record()
	if len(r.Data) != MaxAsideBytes || r.Attribute(AttrSize) != "100000" || r.PartitionKey != "plant" {
		t.Errorf("%d bytes, size %s, key %s", len(r.Data), r.Attribute(AttrSize), r.PartitionKey)
	}
	if r.Attribute(AttrSource) != "plant" || r.Attribute(AttrStream) != "telemetry" {
		t.Errorf("attributes %v", r.Attributes)
	}
	size := 0
	for _, a := range r.Attributes {
		if !utf8.ValidString(a.Value) {
			t.Errorf("attribute %s is not UTF-8", a.Key)
		}
		size += len(a.Key) + len(a.Value)
	}
	if size > buffer.MaxAttributeBytes {
		t.Errorf("attributes of %d bytes, which the log refuses", size)
	}
	small := Refused{Source: "plant", Reason: "why", Size: 3, Data: []byte("abc")}.Record()
	if len(small.Attributes) != 2 || string(small.Data) != "abc" {
		t.Errorf("%+v", small)
	}
}

func FuzzCutText(f *testing.F) {
	f.Add("straße", 5)
	f.Add("a\xffb", 2)
	f.Add("\U0001F600\U0001F600", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit &= 1<<12 - 1
		got := CutText(text, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Fatalf("%q of %q, limit %d", got, text, limit)
		}
		if utf8.ValidString(text) && !strings.HasPrefix(text, got) {
			t.Fatalf("%q is not the beginning of %q", got, text)
		}
	})
}
