package sql

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// maxNesting of a record's objects and arrays.
const maxNesting = 1000

// field is a part of the columns' paths: where a column ends, its number.
type field struct {
	name   string
	column int // -1: none ends here
	fields []*field
}

// add notes a path and returns its column's number.
func (f *field) add(path []string, columns *int) int {
	for _, name := range path {
		child := f.child(name)
		if child == nil {
			child = &field{name: name, column: -1}
			f.fields = append(f.fields, child)
		}
		f = child
	}
	if f.column < 0 {
		f.column = *columns
		*columns++
	}
	return f.column
}

func (f *field) child(name string) *field {
	for _, c := range f.fields {
		if c.name == name {
			return c
		}
	}
	return nil
}

// clear forgets what was read below f.
func (f *field) clear(columns []datum) {
	for _, c := range f.fields {
		if c.column >= 0 {
			columns[c.column] = datum{}
		}
		c.clear(columns)
	}
}

// scanner reads JSON (RFC 8259) in one pass and keeps the columns. Of a name
// that comes twice the later one counts, as for most readers.
type scanner struct {
	data    []byte
	at      int
	columns []datum
	why     string // what is wrong
}

// record reads a record that must be an object. The columns it does not have
// stay as they are. They share memory with data.
func (s *scanner) record(data []byte, root *field) bool {
	s.data, s.at, s.why = data, 0, ""
	s.space()
	if s.at == len(data) || data[s.at] != '{' {
		return s.bad("it is not a JSON object")
	}
	if !s.object(root, 0) {
		return false
	}
	s.space()
	if s.at < len(data) {
		return s.bad("something stands behind the JSON object")
	}
	return true
}

func (s *scanner) bad(why string) bool {
	if s.why == "" {
		s.why = why
	}
	return false
}

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek is the next byte that is no blank, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.at == len(s.data) {
		return 0
	}
	return s.data[s.at]
}

const badJSON = "it is not valid JSON"

// object reads an object whose { is next. f may be nil: nothing is kept.
func (s *scanner) object(f *field, depth int) bool {
	if depth > maxNesting {
		return s.bad("its JSON is nested too deep")
	}
	s.at++
	if s.peek() == '}' {
		s.at++
		return true
	}
	for {
		if s.peek() != '"' {
			return s.bad(badJSON)
		}
		raw, plain, ok := s.text()
		if !ok || s.peek() != ':' {
			return s.bad(badJSON)
		}
		s.at++
		var child *field
		if f != nil && len(f.fields) > 0 {
			child = find(f.fields, raw, plain)
		}
		if !s.value(child, depth) {
			return false
		}
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return true
		default:
			return s.bad(badJSON)
		}
	}
}

func find(fields []*field, raw []byte, plain bool) *field {
	if !plain {
		raw = unescape(raw)
	}
	for _, c := range fields {
		if string(raw) == c.name {
			return c
		}
	}
	return nil
}

func (s *scanner) array(depth int) bool {
	if depth > maxNesting {
		return s.bad("its JSON is nested too deep")
	}
	s.at++
	if s.peek() == ']' {
		s.at++
		return true
	}
	for {
		if !s.value(nil, depth) {
			return false
		}
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return true
		default:
			return s.bad(badJSON)
		}
	}
}

// value reads a value and keeps it where f says.
func (s *scanner) value(f *field, depth int) bool {
	var d datum
	c := s.peek()
	begin, ok := s.at, false
	if f != nil && len(f.fields) > 0 {
		f.clear(s.columns)
	}
	keep := f != nil && f.column >= 0
	switch {
	case c == '"':
		raw, plain, fine := s.text()
		if ok = fine; ok && keep {
			d = datum{kind: kindText, s: raw}
			if !plain || !utf8.Valid(raw) {
				d.s = unescape(raw)
			}
		}
	case c == '{':
		ok = s.object(f, depth+1)
		d = datum{kind: kindJSON}
	case c == '[':
		ok = s.array(depth + 1)
		d = datum{kind: kindJSON}
	case c == '-' || isDigit(c):
		if ok = s.number(); ok && keep {
			if d, keep = parseNumber(s.data[begin:s.at]); !keep {
				// Larger than any number: a value, but of no use.
				d, keep = datum{kind: kindJSON}, true
			}
		}
	case c == 't':
		ok, d = s.word("true"), boolean(true)
	case c == 'f':
		ok, d = s.word("false"), boolean(false)
	case c == 'n':
		ok = s.word("null")
	}
	if !ok {
		return s.bad(badJSON)
	}
	if keep {
		if d.kind == kindJSON {
			d.s = compact(s.data[begin:s.at])
		}
		s.columns[f.column] = d
	}
	return true
}

// compact makes JSON the same whatever blanks are in it, and UTF-8.
func compact(raw []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return []byte("null") // it was scanned, so it is valid
	}
	return bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD"))
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) digits() bool {
	begin := s.at
	for s.at < len(s.data) && isDigit(s.data[s.at]) {
		s.at++
	}
	return s.at > begin
}

func (s *scanner) next(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) number() bool {
	s.next('-')
	if !s.next('0') && !s.digits() {
		return false
	}
	if s.next('.') && !s.digits() {
		return false
	}
	if s.next('e') || s.next('E') {
		if !s.next('+') {
			s.next('-')
		}
		return s.digits()
	}
	return true
}

// text reads a string whose quote is next, and returns what is within. plain:
// there is no escape in it.
func (s *scanner) text() (raw []byte, plain, ok bool) {
	s.at++
	begin := s.at
	plain = true
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return s.data[begin : s.at-1], plain, true
		case c == '\\':
			plain = false
			if !s.escape() {
				return nil, false, false
			}
		case c < ' ':
			return nil, false, false
		}
	}
	return nil, false, false
}

// escape moves to the last byte of an escape.
func (s *scanner) escape() bool {
	s.at++
	if s.at == len(s.data) {
		return false
	}
	switch s.data[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			s.at++
			if s.at == len(s.data) || !isHex(s.data[s.at]) {
				return false
			}
		}
		return true
	}
	return false
}

func isHex(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// unescape makes a string's text of what stands between its quotes.
func unescape(raw []byte) []byte {
	var s string
	if err := json.Unmarshal(append(append([]byte{'"'}, raw...), '"'), &s); err != nil {
		return bytes.ToValidUTF8(raw, []byte("\uFFFD")) // it was scanned, so it is valid
	}
	return []byte(s)
}
