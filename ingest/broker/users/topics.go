package users

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of the lists.
const (
	maxPatterns     = 100  // of a list
	maxPatternBytes = 1024 // of one
)

// pattern is a topic filter with the placeholders {user} and {client_id}, by
// level.
type pattern []level

// level is "+", "#", or pieces of text that make up one level.
type level struct {
	wildcard byte // 0: it has none
	pieces   []piece
}

// piece is literal text, or what stands for the user or the client.
type piece struct {
	text string
	kind byte // 0 literal, 'u' user, 'c' client id
}

// parsePattern reads a pattern. Its rules are those of MQTT 5, section 4.7;
// braces are for placeholders alone.
func parsePattern(text string) (pattern, error) {
	switch {
	case text == "":
		return nil, errors.New("it is empty; write a filter such as devices/{user}/#")
	case len(text) > maxPatternBytes:
		return nil, fmt.Errorf("it has %d bytes; at most %d are accepted", len(text), maxPatternBytes)
	case strings.HasPrefix(text, "$share/"):
		return nil, errors.New("$share/GROUP/ is not part of a pattern: what may be subscribed may be shared")
	}
	if err := checkFilter(text); err != nil {
		return nil, err
	}
	var p pattern
	for name := range strings.SplitSeq(text, "/") {
		l := level{}
		if name == "+" || name == "#" {
			l.wildcard = name[0]
		} else if pieces, err := parseLevel(name); err != nil {
			return nil, err
		} else {
			l.pieces = pieces
		}
		p = append(p, l)
	}
	return p, nil
}

func parseLevel(text string) ([]piece, error) {
	var list []piece
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if strings.Contains(before, "}") {
			return nil, fmt.Errorf("the } in %q has no {", text)
		}
		if before != "" {
			list = append(list, piece{text: before})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return nil, fmt.Errorf("the { in %q has no }", text)
		case name == "user":
			list = append(list, piece{kind: 'u'})
		case name == "client_id":
			list = append(list, piece{kind: 'c'})
		default:
			return nil, fmt.Errorf("placeholder {%s} is not one of {user}, {client_id}", name)
		}
		text = after
	}
	return list, nil
}

// checkFilter applies MQTT 5, section 4.7.1 and 4.7.3.
func checkFilter(filter string) error {
	switch {
	case filter == "":
		return errors.New("it is empty")
	case len(filter) > 65535:
		return errors.New("it is longer than 65535 bytes")
	case strings.ContainsRune(filter, 0) || !utf8.ValidString(filter):
		return errors.New("it is not UTF-8 without NUL")
	}
	for name, rest, more := strings.Cut(filter, "/"); ; name, rest, more = strings.Cut(rest, "/") {
		switch {
		case strings.Contains(name, "#") && (name != "#" || more):
			return fmt.Errorf("in %q the # must be the whole last level", filter)
		case strings.Contains(name, "+") && name != "+":
			return fmt.Errorf("in %q a + must be a whole level", filter)
		}
		if !more {
			return nil
		}
	}
}

// uses says whether p has a placeholder of that kind.
func (p pattern) uses(kind byte) bool {
	for _, l := range p {
		for _, piece := range l.pieces {
			if piece.kind == kind {
				return true
			}
		}
	}
	return false
}

// client is whom placeholders stand for.
type client struct{ user, id string }

// value returns what a placeholder stands for. What could reach beyond its
// level, or could be a wildcard, stands for nothing: the pattern then allows
// nothing at all. The same goes for $ at the very beginning of a topic, which
// opens the broker's own topics.
func (c client) value(kind byte, begins bool) (string, bool) {
	value := c.user
	if kind == 'c' {
		value = c.id
	}
	return value, fits(value) && (!begins || value[0] != '$')
}

// fits says whether text may stand for a placeholder.
func fits(text string) bool { return text != "" && !strings.ContainsAny(text, "/+#\x00") }

// is says whether l, which is no wildcard, is just this text.
func (l level) is(text string, c client, first bool) bool {
	for i, p := range l.pieces {
		piece := p.text
		if p.kind != 0 {
			var ok bool
			if piece, ok = c.value(p.kind, first && i == 0); !ok {
				return false
			}
		}
		var ok bool
		if text, ok = strings.CutPrefix(text, piece); !ok {
			return false
		}
	}
	return text == ""
}

// covers says whether p matches every topic that filter matches; filter may be
// a topic, and checkFilter accepts it. Wildcards do not match a first level that
// begins with $ (section 4.7.2).
func (p pattern) covers(filter string, c client) bool {
	if p[0].wildcard != 0 && filter[0] == '$' {
		return false
	}
	for i, l := range p {
		if l.wildcard == '#' {
			return true
		}
		name, rest, more := strings.Cut(filter, "/")
		switch {
		case name == "#":
			return false
		case l.wildcard == 0 && (name == "+" || !l.is(name, c, i == 0)):
			return false
		case !more:
			// The # after the last level stands for the level above it, too.
			return i == len(p)-1 || i == len(p)-2 && p[i+1].wildcard == '#'
		}
		filter = rest
	}
	return false
}

// MayPublish says whether the user may publish to topic with a connection of
// that client identifier. A topic that is none is refused.
func (u *User) MayPublish(clientID, topic string) bool {
	a := u.account.Load()
	if a == nil || strings.ContainsAny(topic, "+#") || checkFilter(topic) != nil {
		return false
	}
	return anyCovers(a.publish, topic, client{u.Name, clientID})
}

// MaySubscribe says whether the user may subscribe to filter with a connection
// of that client identifier: one pattern of the list must match every topic that
// filter can match. Of $share/GROUP/FILTER only FILTER counts. A filter that is
// none is refused.
func (u *User) MaySubscribe(clientID, filter string) bool {
	a := u.account.Load()
	if a == nil {
		return false
	}
	if shared, ok := strings.CutPrefix(filter, "$share/"); ok {
		var group string
		group, filter, _ = strings.Cut(shared, "/")
		if !fits(group) {
			return false
		}
	}
	return checkFilter(filter) == nil && anyCovers(a.subscribe, filter, client{u.Name, clientID})
}

func anyCovers(list []pattern, filter string, c client) bool {
	for _, p := range list {
		if p.covers(filter, c) {
			return true
		}
	}
	return false
}
