package http

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// template is a partition key with placeholders, in pieces. The empty one
// makes no key.
type template []piece

type piece struct {
	text string // literal, when kind is 0
	kind byte   // 'j' a JSON field, 'c' the client's name
	path []string
}

// parseTemplate reads a partition key as the configuration has it.
func parseTemplate(text string) (template, error) {
	var t template
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
		name := text[open+1 : open+end]
		field, isField := strings.CutPrefix(name, "json.")
		switch {
		case name == "client":
			t = append(t, piece{kind: 'c'})
		case isField && field != "":
			t = append(t, piece{kind: 'j', path: strings.Split(field, ".")})
		default:
			return nil, fmt.Errorf("placeholder {%s} is not one of {json.FIELD}, {client}", name)
		}
		text = text[open+end+1:]
	}
	return t, nil
}

func (t template) wantsClient() bool {
	for _, p := range t {
		if p.kind == 'c' {
			return true
		}
	}
	return false
}

// expand makes the partition key of one record. valid says that data is known
// to be JSON.
func (t template) expand(client string, data []byte, valid bool) (string, error) {
	var b strings.Builder
	for _, p := range t {
		switch p.kind {
		case 'c':
			b.WriteString(client)
		case 'j':
			if !valid {
				if err := checkJSON(data); err != nil {
					return "", fmt.Errorf("the key is made of the field %s, and the record is not JSON; or send Weir-Partition-Key", strings.Join(p.path, "."))
				}
				valid = true
			}
			text, err := scalarAt(data, p.path)
			if err != nil {
				return "", err
			}
			b.WriteString(text)
		default:
			b.WriteString(p.text)
		}
	}
	return b.String(), nil
}

var errNoKey = errors.New("there is no partition key; send the header Weir-Partition-Key, or ?partition_key= in the address")

// checkKey applies the log's rules before the log does, so that the answer can
// name the place.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the partition key is empty")
	case !utf8.ValidString(key):
		return errors.New("the partition key is not UTF-8")
	case len(key) > buffer.MaxPartitionKeyChars && utf8.RuneCountInString(key) > buffer.MaxPartitionKeyChars:
		return fmt.Errorf("the partition key has over %d characters", buffer.MaxPartitionKeyChars)
	}
	return nil
}

// plainText says whether text is UTF-8 without control characters, as
// CloudEvents wants its strings (1.0.2, section 3.1).
func plainText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f })
}
