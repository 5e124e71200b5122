package broker

import (
	"slices"
	"strings"
)

// tree finds the subscriptions that match a topic, level by level. Its owner
// guards it.
type tree struct{ root branch }

type branch struct {
	below  map[string]*branch
	subs   map[*session]subscription
	groups map[string]*group // shared subscriptions, by the group's name
}

// subscription is what a session subscribed to with one filter.
type subscription struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	ID                uint32 `json:"id,omitempty"` // 0: none
}

// group shares messages among sessions (MQTT 5, section 4.8.2).
type group struct {
	members []member
	next    int
}

type member struct {
	session *session
	sub     subscription
}

// split takes $share/GROUP/ off a filter; name is "" for an ordinary one.
func split(filter string) (name, rest string) {
	if after, ok := strings.CutPrefix(filter, "$share/"); ok {
		name, rest, _ = strings.Cut(after, "/")
		return name, rest
	}
	return "", filter
}

// add notes a subscription, in place of one with the same filter.
func (t *tree) add(s *session, sub subscription) {
	name, filter := split(sub.Filter)
	at := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		if at.below == nil {
			at.below = map[string]*branch{}
		}
		next := at.below[level]
		if next == nil {
			next = &branch{}
			at.below[level] = next
		}
		at = next
	}
	if name == "" {
		if at.subs == nil {
			at.subs = map[*session]subscription{}
		}
		at.subs[s] = sub
		return
	}
	if at.groups == nil {
		at.groups = map[string]*group{}
	}
	g := at.groups[name]
	if g == nil {
		g = &group{}
		at.groups[name] = g
	}
	g.remove(s)
	g.members = append(g.members, member{s, sub})
}

func (g *group) remove(s *session) {
	g.members = slices.DeleteFunc(g.members, func(m member) bool { return m.session == s })
}

// remove forgets a subscription and what is empty then.
func (t *tree) remove(s *session, filter string) {
	name, rest := split(filter)
	t.root.remove(s, name, strings.Split(rest, "/"))
}

// remove says whether b is empty afterwards.
func (b *branch) remove(s *session, name string, levels []string) bool {
	if len(levels) > 0 {
		if next := b.below[levels[0]]; next != nil && next.remove(s, name, levels[1:]) {
			delete(b.below, levels[0])
		}
	} else if name == "" {
		delete(b.subs, s)
	} else if g := b.groups[name]; g != nil {
		if g.remove(s); len(g.members) == 0 {
			delete(b.groups, name)
		}
	}
	return len(b.below) == 0 && len(b.subs) == 0 && len(b.groups) == 0
}

// match calls fn for every subscription that a topic matches; with groups also
// for one member of each, in turn, one that is connected if there is one (4.7.2:
// $ at the beginning is matched by name only).
func (t *tree) match(topic string, groups bool, fn func(*session, subscription)) {
	w := walk{groups: groups, fn: fn}
	w.match(&t.root, topic, true, strings.HasPrefix(topic, "$"))
}

// walk is one search of the tree.
type walk struct {
	groups bool
	fn     func(*session, subscription)
}

// match matches what is left of a topic; more is false behind its last level.
func (w *walk) match(b *branch, rest string, more, special bool) {
	if all := b.below["#"]; all != nil && !special {
		w.tell(all)
	}
	if !more {
		w.tell(b)
		return
	}
	level, after, again := strings.Cut(rest, "/")
	if next := b.below[level]; next != nil && level != "#" && level != "+" {
		w.match(next, after, again, false)
	}
	if next := b.below["+"]; next != nil && !special {
		w.match(next, after, again, false)
	}
}

func (w *walk) tell(b *branch) {
	for s, sub := range b.subs {
		w.fn(s, sub)
	}
	if !w.groups {
		return
	}
	for _, g := range b.groups {
		if m := g.pick(); m != nil {
			w.fn(m.session, m.sub)
		}
	}
}

// pick chooses who is next.
func (g *group) pick() *member {
	var away *member
	for range g.members {
		g.next = (g.next + 1) % len(g.members)
		m := &g.members[g.next]
		if m.session.client != nil {
			return m
		}
		if away == nil {
			away = m
		}
	}
	return away
}
