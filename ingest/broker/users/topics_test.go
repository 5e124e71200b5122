package users

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func user(t testing.TB, name string, publish, subscribe []string) *User {
	t.Helper()
	u, a := &User{Name: name}, &account{}
	for _, l := range []struct {
		from []string
		to   *[]pattern
	}{{publish, &a.publish}, {subscribe, &a.subscribe}} {
		for _, text := range l.from {
			p, err := parsePattern(text)
			if err != nil {
				t.Fatal(err)
			}
			*l.to = append(*l.to, p)
		}
	}
	u.account.Store(a)
	return u
}

func TestMayPublish(t *testing.T) {
	for _, c := range []struct {
		pattern, user, client, topic string
		want                         bool
	}{
		{"a/b", "u", "c", "a/b", true},
		{"a/b", "u", "c", "a/b/c", false},
		{"a/b", "u", "c", "a", false},
		{"a/b", "u", "c", "a/bc", false},
		{"a/b", "u", "c", "A/b", false},
		{"a/+", "u", "c", "a/", true},
		{"a/+", "u", "c", "a", false},
		{"a/+/c", "u", "c", "a/b/c", true},
		{"a/#", "u", "c", "a", true},
		{"a/#", "u", "c", "a/b/c", true},
		{"a/#", "u", "c", "ab", false},
		{"#", "u", "c", "a/b", true},
		{"/a", "u", "c", "/a", true},
		{"/a", "u", "c", "a", false},
		// The broker's own topics are not in a wildcard.
		{"#", "u", "c", "$SYS/a", false},
		{"+/a", "u", "c", "$SYS/a", false},
		{"$SYS/#", "u", "c", "$SYS/a", true},
		{"a/+", "u", "c", "a/$b", true},
		{"{user}/a", "$SYS", "c", "$SYS/a", false},
		{"x/{user}", "$SYS", "c", "x/$SYS", true},
		// Placeholders are one level.
		{"d/{user}/#", "press", "c", "d/press/x", true},
		{"d/{user}/#", "press", "c", "d/other/x", false},
		{"d/{user}/#", "press", "c", "d/{user}/x", false},
		{"d/{user}-{client_id}", "u", "c", "d/u-c", true},
		{"d/x{client_id}y", "u", "c", "d/xcy", true},
		{"d/x{client_id}y", "u", "c", "d/xcyz", false},
		{"d/{client_id}/a", "u", "", "d//a", false},
		{"d/{client_id}/a", "u", "+", "d/x/a", false},
		{"d/{client_id}", "u", "#", "d/x", false},
		{"d/{client_id}/a", "u", "x/y", "d/x/y/a", false},
		{"d/{client_id}", "u", "x/y", "d/x", false},
		{"d/{client_id}", "u", "x\x00", "d/x", false},
		{"d/{user}", "a/b", "c", "d/a/b", false},
		// What is no topic is never allowed.
		{"#", "u", "c", "", false},
		{"#", "u", "c", "a/+", false},
		{"#", "u", "c", "a/#", false},
		{"#", "u", "c", "a\x00", false},
		{"#", "u", "c", "a\xff", false},
		{"#", "u", "c", strings.Repeat("a", 65536), false},
		{"#", "u", "c", strings.Repeat("a", 65535), true},
	} {
		u := user(t, c.user, []string{"none", c.pattern}, nil)
		if got := u.MayPublish(c.client, c.topic); got != c.want {
			t.Errorf("%s, user %q, client %q: publish to %.40q %v", c.pattern, c.user, c.client, c.topic, got)
		}
		if u.MaySubscribe(c.client, c.topic) {
			t.Errorf("%s: what may be published to may be subscribed", c.topic)
		}
	}
}

func TestMaySubscribe(t *testing.T) {
	for _, c := range []struct {
		pattern, filter string
		want            bool
	}{
		{"a/#", "a/#", true}, {"a/#", "a", true}, {"a/#", "a/+/b", true}, {"a/#", "+/b", false}, {"a/#", "#", false},
		{"a/+", "a/+", true}, {"a/+", "a/b", true}, {"a/+", "a/#", false}, {"a/+", "a/+/b", false}, {"a/+", "+/+", false},
		{"a/b", "a/+", false}, {"a/b", "a/b", true}, {"a/b", "a/#", false}, {"a/b/#", "a/#", false}, {"a/+/#", "a/#", false}, {"a/+/#", "a/+/+/#", true},
		{"+/b", "+/b", true}, {"+/b", "a/b", true}, {"+/+", "+/b", true}, {"#", "+", true}, {"#", "#", true}, {"+", "#", false},
		{"#", "$SYS/#", false}, {"+/a", "$SYS/a", false}, {"$SYS/#", "$SYS/+", true}, {"$SYS/#", "#", false}, {"$SYS/#", "+/a", false},
		{"a/#", "$share/g/a/+", true}, {"a/#", "$share/g/b", false}, {"#", "$share/g/$SYS/a", false}, {"a/#", "$share//a/b", false},
		{"a/#", "$share/g+/a", false}, {"a/#", "$share/g", false}, {"a/#", "$share/g/", false}, {"#", "$share/a", false},
		{"c/{client_id}/+", "c/me/+", true}, {"c/{client_id}/+", "c/+/+", false}, {"c/{client_id}/+", "c/you/+", false},
		{"#", "a/#/b", false}, {"#", "a+", false}, {"#", "", false},
	} {
		u := user(t, "u", nil, []string{"none", c.pattern})
		if got := u.MaySubscribe("me", c.filter); got != c.want {
			t.Errorf("%s: subscribe to %q %v", c.pattern, c.filter, got)
		}
	}
	if (&User{}).MayPublish("", "a") || (&User{}).MaySubscribe("", "a") {
		t.Error("the zero user may do something")
	}
}

// matches is section 4.7 of MQTT in its plainest form, by levels.
func matches(filter, topic []string) bool {
	if len(filter) == 0 {
		return len(topic) == 0
	}
	switch {
	case filter[0] == "#":
		return true
	case len(topic) == 0:
		return false
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && matches(filter[1:], topic[1:])
}

func modelMatches(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	return matches(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

// topics are all topics of up to four levels of a small alphabet; z stands for
// every name that no pattern has.
func topics() (list []string) {
	level := []string{"a", "b", "z", "$s", ""}
	grown := level
	for range 4 {
		list = append(list, grown...)
		var next []string
		for _, t := range grown {
			for _, l := range level {
				next = append(next, t+"/"+l)
			}
		}
		grown = next
	}
	return slices.DeleteFunc(list, func(t string) bool { return t == "" })
}

func drawFilter(t *rapid.T, name string) string {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "$s", "", "+", "+"}), 1, 3).Draw(t, name)
	if rapid.Bool().Draw(t, name+" ends in #") {
		levels = append(levels, "#")
		levels = levels[rapid.IntRange(0, len(levels)-1).Draw(t, name+" from"):]
	}
	f := strings.Join(levels, "/")
	if f == "" {
		return "a"
	}
	return f
}

// TestContainment holds MaySubscribe against the meaning of filters: what it
// allows reaches no topic that no pattern matches, and with one pattern it
// refuses only what does.
func TestContainment(t *testing.T) {
	all := topics()
	rapid.Check(t, func(t *rapid.T) {
		filter := drawFilter(t, "filter")
		patterns := []string{drawFilter(t, "pattern")}
		if rapid.Bool().Draw(t, "two") {
			patterns = append(patterns, drawFilter(t, "second pattern"))
		}
		u := &User{Name: "u"}
		a := &account{}
		for _, text := range patterns {
			p, err := parsePattern(text)
			if err != nil {
				t.Fatal(err)
			}
			a.publish, a.subscribe = append(a.publish, p), append(a.subscribe, p)
		}
		u.account.Store(a)
		allowed := u.MaySubscribe("c", filter)
		reaches := ""
		for _, topic := range all {
			covered := slices.ContainsFunc(patterns, func(p string) bool { return modelMatches(p, topic) })
			if u.MayPublish("c", topic) != covered {
				t.Fatalf("%v: publish to %q must be %v", patterns, topic, covered)
			}
			if !covered && modelMatches(filter, topic) {
				reaches = topic
			}
		}
		if allowed && reaches != "" {
			t.Fatalf("%v allow %q, which reaches %q", patterns, filter, reaches)
		}
		// +/# is # by another name, and # and +/# are not compared.
		if !allowed && reaches == "" && len(patterns) == 1 && !(filter == "#" && patterns[0] == "+/#") {
			t.Fatalf("%v refuse %q, which reaches nothing else", patterns, filter)
		}
		if shared := u.MaySubscribe("c", "$share/g/"+filter); shared != allowed {
			t.Fatalf("%q shared is %v, alone %v", filter, shared, allowed)
		}
	})
}

// TestNothingWidens: whatever a client calls itself, it reaches only topics
// that have its name as one level.
func TestNothingWidens(t *testing.T) {
	all := topics()
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "b", "/", "+", "#", "$s", "\x00", "{user}", ""})
		id := strings.Join(rapid.SliceOfN(part, 0, 4).Draw(t, "client id"), "")
		p, err := parsePattern("b/{client_id}/a")
		if err != nil {
			t.Fatal(err)
		}
		first, err := parsePattern("{client_id}/a")
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range all {
			levels := strings.Split(topic, "/")
			if p.covers(topic, client{"u", id}) && (len(levels) != 3 || levels[0] != "b" || levels[1] != id || levels[2] != "a") {
				t.Fatalf("client %q reaches %q", id, topic)
			}
			if first.covers(topic, client{"u", id}) && (len(levels) != 2 || levels[0] != id || levels[1] != "a" || topic[0] == '$') {
				t.Fatalf("client %q reaches %q", id, topic)
			}
		}
	})
}

func FuzzPermission(f *testing.F) {
	f.Add("a/{user}/#", "u", "c", "a/u/+")
	f.Add("{client_id}/+", "u", "$share", "$share/g/$SYS/#")
	f.Add("+/#", "u", "+", "#")
	f.Fuzz(func(t *testing.T, text, name, id, filter string) {
		p, err := parsePattern(text)
		if err != nil {
			return
		}
		u := &User{Name: name}
		u.account.Store(&account{publish: []pattern{p}, subscribe: []pattern{p}})
		if u.MayPublish(id, filter) && !u.MaySubscribe(id, filter) && !strings.HasPrefix(filter, "$share/") {
			t.Errorf("%q allows to publish to %q and not to subscribe", text, filter)
		}
		if (u.MayPublish(id, filter) || u.MaySubscribe(id, filter)) && (p.uses('u') && !fits(name) || p.uses('c') && !fits(id)) {
			t.Errorf("%q allows %q for user %q, client %q", text, filter, name, id)
		}
	})
}
