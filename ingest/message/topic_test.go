package message

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestMatches: the examples of MQTT 3.1.1, section 4.7.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player2", false},
		{"#", "anything/at/all", true},
		{"sport/#", "sport", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/broker/load", false},
		{"+/monitor/clients", "$SYS/monitor/clients", false},
		{"$SYS/#", "$SYS/broker/load", true},
		{"$SYS/monitor/+", "$SYS/monitor/clients", true},
		{"$share/group/sensors/+", "sensors/a", true},
		{"$share/group/sensors/+", "sensors/a/b", false},
		{"a/b", "a/b/c", false},
		{"a/b/c", "a/b", false},
		{"ACCOUNTS", "Accounts", false},
	} {
		if got := Matches(c.filter, c.topic); got != c.want {
			t.Errorf("filter %s, topic %s: %v", c.filter, c.topic, got)
		}
	}
}

// TestMatchesModel compares with a slow definition, level by level.
func TestMatchesModel(t *testing.T) {
	var model func(f, topic []string) bool
	model = func(f, topic []string) bool {
		switch {
		case len(f) > 0 && f[0] == "#":
			return true
		case len(topic) == 0:
			return len(f) == 0
		case len(f) == 0:
			return false
		}
		return (f[0] == "+" || f[0] == topic[0]) && model(f[1:], topic[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "+"}), 1, 4).Draw(t, "filter")
		if rapid.Bool().Draw(t, "all below") {
			f = append(f, "#")
		}
		topic := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", ""}), 1, 5).Draw(t, "topic")
		if err := CheckFilter(strings.Join(f, "/")); err != nil && strings.Join(f, "/") != "" {
			t.Fatal(err)
		}
		if got, want := Matches(strings.Join(f, "/"), strings.Join(topic, "/")), model(f, topic); got != want {
			t.Fatalf("%q %q: %v", f, topic, got)
		}
	})
}

func TestExpand(t *testing.T) {
	const payload = `{"id":"x1","n":123456789012345678,"f":1.5,"ok":true,"null":null,"deep":{"er":"y"},"list":[1],"empty":""}`
	for _, c := range []struct{ template, want, fault string }{
		{"{topic}", "site/3/temp", ""},
		{"{topic[0]}", "site", ""},
		{"{topic[1]}-{topic[2]}", "3-temp", ""},
		{"{topic[3]}", "", "topic has no level 3"},
		{"{client_id}", "me", ""},
		{"{json.id}", "x1", ""},
		{"{json.n}", "123456789012345678", ""},
		{"{json.f}/{json.ok}", "1.5/true", ""},
		{"{json.deep.er}", "y", ""},
		{"{json.deep}", "", "field deep of the payload is not text, a number or true or false"},
		{"{json.list}", "", "field list of the payload is not text, a number or true or false"},
		{"{json.null}", "", "payload has no field null"},
		{"{json.id.more}", "", "payload has no field id.more"},
		{"{json.empty}", "", "partition key is empty"},
		{"fixed", "fixed", ""},
	} {
		parsed, err := ParseKey(c.template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Expand("site/3/temp", "me", []byte(payload))
		if got != c.want || fmt.Sprint(err) != c.fault && (err != nil || c.fault != "") {
			t.Errorf("%s: %q, %v", c.template, got, err)
		}
	}
}

// FuzzPlaceholders: no template and no payload panics, and a key that comes
// out is not empty.
func FuzzPlaceholders(f *testing.F) {
	for _, t := range []string{"{topic}", "{topic[1]}", "{json.a.b}", "{client_id}x{topic[0]}", "{", "}{", "{topic[-1]}", "{topic[99999999999999999999]}", "{json.}", "{json..}"} {
		f.Add(t, "a/b/c", []byte(`{"a":{"b":1}}`))
	}
	f.Add("{json.a}", "", []byte(strings.Repeat("[", 20_000)))
	f.Fuzz(func(t *testing.T, text, topic string, payload []byte) {
		parsed, err := ParseKey(text)
		if err != nil {
			return
		}
		key, err := parsed.Expand(topic, "me", payload)
		if (err == nil) == (key == "") {
			t.Fatalf("key %q with error %v", key, err)
		}
		if err == nil && utf8.ValidString(topic) && utf8.ValidString(text) && !utf8.ValidString(key) {
			t.Fatalf("key %q is not UTF-8", key)
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add("a/+/#", "a/b/c")
	f.Add("$share/g/#", "$SYS")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if CheckFilter(filter) != nil {
			return
		}
		if !strings.ContainsAny(filter, "+#$") && Matches(filter, topic) != (filter == topic) {
			t.Fatalf("filter %q without wildcards, topic %q", filter, topic)
		}
	})
}
