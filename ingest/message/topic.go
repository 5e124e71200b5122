package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// CheckFilter applies the rules of MQTT 3.1.1, section 4.7.
func CheckFilter(filter string) error {
	if filter == "" {
		return errors.New("missing; write a filter such as sensors/+/temperature or devices/#")
	}
	if len(filter) > 65535 || strings.ContainsRune(filter, 0) {
		return errors.New("it is too long or has a NUL character")
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		switch {
		case strings.Contains(level, "#") && (level != "#" || i != len(levels)-1):
			return fmt.Errorf("in %q the # must be the whole last level", filter)
		case strings.Contains(level, "+") && level != "+":
			return fmt.Errorf("in %q a + must be a whole level", filter)
		}
	}
	return nil
}

// Matches says whether topic is matched by filter (MQTT 3.1.1, section 4.7),
// which CheckFilter accepts. $share/GROUP/ before a filter is passed over.
func Matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	if group, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(group, "/")
	}
	for {
		f, restF, moreF := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, restT, moreT := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !moreF || !moreT {
			return moreF == moreT || moreF && restF == "#"
		}
		filter, topic = restF, restT
	}
}

// Key is a partition key with placeholders, in pieces. See ParseKey.
type Key []piece

type piece struct {
	text  string // literal, when kind is 0
	kind  byte   // 't' topic, 'l' a level of it, 'j' a JSON field, 'c' client id
	level int
	path  []string
}

// ParseKey reads a partition key as the configuration has it, with the
// placeholders {topic}, {topic[N]} (level N, from 0), {json.FIELD.FIELD} and
// {client_id}.
func ParseKey(text string) (Key, error) {
	if text == "" {
		return nil, errors.New("missing; write a key such as {topic} or {topic[1]}")
	}
	var t Key
	for text != "" {
		open := strings.IndexByte(text, '{')
		if open < 0 {
			return append(t, piece{text: text}), nil
		}
		if open > 0 {
			t = append(t, piece{text: text[:open]})
		}
		end := strings.IndexByte(text[open:], '}')
		if end < 0 {
			return nil, fmt.Errorf("the { in %q has no }", text)
		}
		p, err := parsePlaceholder(text[open+1 : open+end])
		if err != nil {
			return nil, err
		}
		t = append(t, p)
		text = text[open+end+1:]
	}
	return t, nil
}

func parsePlaceholder(name string) (piece, error) {
	switch {
	case name == "topic":
		return piece{kind: 't'}, nil
	case name == "client_id":
		return piece{kind: 'c'}, nil
	case strings.HasPrefix(name, "topic[") && strings.HasSuffix(name, "]"):
		n, err := strconv.Atoi(name[len("topic[") : len(name)-1])
		if err == nil && n >= 0 && n < 1000 {
			return piece{kind: 'l', level: n}, nil
		}
	case strings.HasPrefix(name, "json.") && len(name) > len("json."):
		return piece{kind: 'j', path: strings.Split(name[len("json."):], ".")}, nil
	}
	return piece{}, fmt.Errorf("placeholder {%s} is not one of {topic}, {topic[N]}, {json.FIELD}, {client_id}", name)
}

// Expand makes the partition key of one message; an error says which
// placeholder has nothing to stand for.
func (t Key) Expand(topic, clientID string, payload []byte) (string, error) {
	var b strings.Builder
	var document any
	for _, p := range t {
		switch p.kind {
		case 't':
			b.WriteString(topic)
		case 'c':
			b.WriteString(clientID)
		case 'l':
			levels := strings.Split(topic, "/")
			if p.level >= len(levels) {
				return "", fmt.Errorf("topic has no level %d", p.level)
			}
			b.WriteString(levels[p.level])
		case 'j':
			if document == nil {
				d := json.NewDecoder(bytes.NewReader(payload))
				d.UseNumber() // an identifier of 18 digits stays one
				if err := d.Decode(&document); err != nil {
					return "", errors.New("payload is not JSON")
				}
			}
			text, err := field(document, p.path)
			if err != nil {
				return "", err
			}
			b.WriteString(text)
		default:
			b.WriteString(p.text)
		}
	}
	if b.Len() == 0 {
		return "", errors.New("partition key is empty")
	}
	return b.String(), nil
}

func field(document any, path []string) (string, error) {
	for _, name := range path {
		object, ok := document.(map[string]any)
		if !ok || object[name] == nil {
			return "", fmt.Errorf("payload has no field %s", strings.Join(path, "."))
		}
		document = object[name]
	}
	switch v := document.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", fmt.Errorf("field %s of the payload is not text, a number or true or false", strings.Join(path, "."))
}
