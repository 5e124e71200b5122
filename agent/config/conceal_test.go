package config

import (
	"strings"
	"testing"
)

// TestConceal: packages are asked not to repeat what may be secret; where one
// does, the loader takes it out.
func TestConceal(t *testing.T) {
	c := newCollector()
	c.files = []string{"weir.yaml"}
	c.inserted = []string{"hunter2 & co", "abc"}
	itself := place{path: "a.url", node: &node{
		kind: scalar, placeholders: []string{"${A}", "${file:b}"}, inserted: []string{"hunter2 & co", "abc"},
	}}
	elsewhere := place{path: "a"}
	const hidden = "what ${A} and ${file:b} stands for is not accepted here (its text is not shown)"
	for _, test := range []struct {
		at            place
		message, want string
	}{
		{itself, "it is no address", "it is no address"},
		{itself, `"hunter2 & co" is no address`, hidden},
		{itself, "cut to hunt", hidden},
		{itself, "escaped as %26+co", hidden},
		{itself, "short: abc", hidden},
		{elsewhere, `url "hunter2 & co" is no address`, `url "***" is no address`},
		{elsewhere, "escaped as hunter2+%26+co", "escaped as ***"},
		{elsewhere, "escaped as hunter2%20&%20co", "escaped as ***"},
		{elsewhere, "abc is in many words", "abc is in many words"},
		{elsewhere, `parse "nats://u:pass@word@host:4222/x": bad`, `parse "nats://***@host:4222/x": bad`},
		{elsewhere, "two\nlines\r\n\x00and more", "two lines and more"},
	} {
		c.fault(test.at, "%s", test.message)
		if got := c.faults[len(c.faults)-1].fault.Message; got != test.want {
			t.Errorf("%q at %s is told as %q, want %q", test.message, test.at.path, got, test.want)
		}
	}
	c.warn(elsewhere, "hunter2 & co")
	if text := sorted(c.warnings)[0].String(); strings.Contains(text, "hunter2") {
		t.Errorf("a warning says %s", text)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"name", "url", "max_bytes", "max_records", "tls", "on_full"}
	for key, want := range map[string]string{
		"nmae": "name", "naem": "name", "Name": "name", "ulr": "url", "uri": "url", "max-bytes": "max_bytes", "maxbytes": "max_bytes",
		"max_record": "max_records", "tsl": "tls", "colour": "", "x": "", "": "", "onfull": "on_full", strings.Repeat("name", 20): "",
	} {
		if got := nearest(key, known); got != want {
			t.Errorf("%q is like %q, want %q", key, got, want)
		}
	}
}
