package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"
)

// The functions of this file cut JSON into pieces that share its memory. What
// they get was checked before with checkJSON, but for that they look no
// further than the pieces need.

// checkJSON says what is wrong with text as one JSON value (RFC 8259).
func checkJSON(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	if json.Valid(text) {
		return nil
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("not JSON: it is empty")
	}
	// It stops at the fault, before it makes anything.
	var none json.RawMessage
	err := json.Unmarshal(text, &none)
	if err == nil {
		err = errors.New("of no known kind")
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON at byte %d: %s", syntax.Offset, syntax)
	}
	return fmt.Errorf("not JSON: %w", err)
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// trim takes JSON's white space away, and no other.
func trim(text []byte) []byte {
	for len(text) > 0 && isSpace(text[0]) {
		text = text[1:]
	}
	for len(text) > 0 && isSpace(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	return text
}

// valueEnd returns how long the value is with which text begins.
func valueEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += stringEnd(text[i:]) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i // of what is around it
			}
			depth--
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue // of a number or a word, which ends at one of those above
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(text)
}

// stringEnd returns how long the string is with which text begins.
func stringEnd(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// next skips white space and one separator.
func next(text []byte) []byte {
	text = trim(text)
	if len(text) > 0 && (text[0] == ',' || text[0] == ':') {
		text = trim(text[1:])
	}
	return text
}

// inside returns what is between the brackets of an array or an object.
func inside(text []byte) []byte {
	text = trim(text)
	if len(text) < 2 {
		return nil
	}
	return trim(text[1 : len(text)-1])
}

// elements yields the elements of an array.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := inside(array); len(rest) > 0; {
			n := valueEnd(rest)
			if n == 0 || !yield(rest[:n:n]) {
				return
			}
			rest = next(rest[n:])
		}
	}
}

// members yields the names, as text, and the values of an object.
func members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rest := inside(object); len(rest) > 0; {
			n := stringEnd(rest)
			name := unquote(rest[:n])
			rest = next(rest[n:])
			n = valueEnd(rest)
			if n == 0 || !yield(name, rest[:n:n]) {
				return
			}
			rest = next(rest[n:])
		}
	}
}

// unquote returns the text of a string.
func unquote(quoted []byte) string {
	if len(quoted) >= 2 && bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return "" // not what checkJSON let through
	}
	return text
}

// scalarAt returns the text of the string, number, true or false that the path
// leads to. Of two members of a name the last counts.
func scalarAt(text []byte, path []string) (string, error) {
	text = trim(text)
	for _, name := range path {
		var found []byte
		if len(text) > 0 && text[0] == '{' {
			for member, value := range members(text) {
				if member == name {
					found = value
				}
			}
		}
		if found == nil || string(found) == "null" {
			return "", fmt.Errorf("the key is made of the field %s, which the record has not; add it, or send Weir-Partition-Key", strings.Join(path, "."))
		}
		text = found
	}
	switch {
	case len(text) == 0 || text[0] == '{' || text[0] == '[':
		return "", fmt.Errorf("the key is made of the field %s, which is not text, a number or true or false", strings.Join(path, "."))
	case text[0] == '"':
		return unquote(text), nil
	}
	return string(text), nil
}
