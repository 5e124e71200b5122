package sql

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is the longest text of a query, in bytes: the limit of Kinesis Data
// Analytics.
const MaxText = 100 << 10

// Pos is a place in the text of a query: line and column in characters, from 1.
type Pos struct{ Line, Column int }

func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// Error is a fault of a query, with its place.
type Error struct {
	Pos
	Message string
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Message }

func errorAt(p Pos, format string, args ...any) *Error {
	return &Error{p, fmt.Sprintf(format, args...)}
}

type tokenKind uint8

const (
	endOfText tokenKind = iota
	word                // a name or a keyword: which, the parser knows
	quotedName
	number
	text
	symbol
)

// token is a piece of a query. No word is a keyword by itself: day, second,
// value, table and window are ordinary columns where a column may stand.
type token struct {
	kind tokenKind
	text string // of a string or a quoted name: what is within
	Pos
}

// is says whether t is this keyword, in capitals, or this symbol.
func (t token) is(s string) bool {
	return t.kind == symbol && t.text == s || t.kind == word && strings.EqualFold(t.text, s)
}

// shown is t in a message.
func (t token) shown() string {
	switch t.kind {
	case endOfText:
		return "the end"
	case text:
		return "'" + cut(strings.ReplaceAll(t.text, "'", "''")) + "'"
	case quotedName:
		return quote(cut(t.text))
	}
	return cut(t.text)
}

func cut(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// lexer cuts a text into tokens.
type lexer struct {
	rest string
	Pos
}

// lex returns all tokens, the last one endOfText.
func lex(query string) ([]token, error) {
	if len(query) > MaxText {
		return nil, errorAt(Pos{1, 1}, "a query of %d bytes is over the limit of %d", len(query), MaxText)
	}
	l := lexer{query, Pos{1, 1}}
	var list []token
	for {
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
		if t.kind == endOfText {
			return list, nil
		}
	}
}

// take moves n bytes on.
func (l *lexer) take(n int) string {
	s := l.rest[:n]
	l.rest = l.rest[n:]
	for _, r := range s {
		if r == '\n' {
			l.Line, l.Column = l.Line+1, 1
		} else {
			l.Column++
		}
	}
	return s
}

// space passes over blanks and comments.
func (l *lexer) space() error {
	for {
		n := len(l.rest) - len(strings.TrimLeftFunc(l.rest, unicode.IsSpace))
		l.take(n)
		switch {
		case strings.HasPrefix(l.rest, "--"):
			n = strings.IndexByte(l.rest+"\n", '\n')
			l.take(n)
		case strings.HasPrefix(l.rest, "/*"):
			n = strings.Index(l.rest[2:], "*/")
			if n < 0 {
				return errorAt(l.Pos, "a comment that begins with /* must end with */")
			}
			l.take(n + 4)
		default:
			return nil
		}
	}
}

func isNameStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }

func isNamePart(r rune) bool { return isNameStart(r) || r == '$' || unicode.IsDigit(r) }

func (l *lexer) next() (token, error) {
	if err := l.space(); err != nil {
		return token{}, err
	}
	at := l.Pos
	if l.rest == "" {
		return token{endOfText, "", at}, nil
	}
	r, size := utf8.DecodeRuneInString(l.rest)
	switch {
	case r == utf8.RuneError && size == 1:
		return token{}, errorAt(at, "the text is not UTF-8")
	case isNameStart(r):
		return token{word, l.take(l.span(isNamePart)), at}, nil
	case r == '\'' || r == '"':
		return l.quoted(byte(r), at)
	case isDigit(l.rest[0]) || r == '.' && len(l.rest) > 1 && isDigit(l.rest[1]):
		return l.number(at)
	}
	for _, s := range []string{"<>", "<=", ">=", "!=", "||"} {
		if strings.HasPrefix(l.rest, s) {
			return token{symbol, l.take(2), at}, nil
		}
	}
	if !strings.ContainsRune("()[],.;+-*/%=<>:?", r) {
		return token{}, errorAt(at, "%q has no meaning here", r)
	}
	return token{symbol, l.take(size), at}, nil
}

// span is how many bytes from here belong to ok.
func (l *lexer) span(ok func(rune) bool) int {
	return len(l.rest) - len(strings.TrimLeftFunc(l.rest, ok))
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// quoted reads a string or a quoted name; the quote doubled stands for itself.
func (l *lexer) quoted(q byte, at Pos) (token, error) {
	kind, what := text, "a string"
	if q == '"' {
		kind, what = quotedName, "a quoted name"
	}
	var b strings.Builder
	l.take(1)
	for {
		n := strings.IndexByte(l.rest, q)
		if n < 0 {
			return token{}, errorAt(at, "%s must end with %c", what, q)
		}
		part := l.rest[:n]
		if !utf8.ValidString(part) {
			return token{}, errorAt(at, "the text is not UTF-8")
		}
		b.WriteString(l.take(n))
		l.take(1)
		if l.rest == "" || l.rest[0] != q {
			break
		}
		b.WriteString(l.take(1))
	}
	if kind == quotedName && b.Len() == 0 {
		return token{}, errorAt(at, "a quoted name must not be empty")
	}
	return token{kind, b.String(), at}, nil
}

// number reads 1, 1.5, .5 and 1e-3.
func (l *lexer) number(at Pos) (token, error) {
	n := digits(l.rest)
	if n < len(l.rest) && l.rest[n] == '.' {
		n++
		n += digits(l.rest[n:])
	}
	if n < len(l.rest) && (l.rest[n] == 'e' || l.rest[n] == 'E') {
		m := n + 1
		if m < len(l.rest) && (l.rest[m] == '+' || l.rest[m] == '-') {
			m++
		}
		if d := digits(l.rest[m:]); d > 0 {
			n = m + d
		}
	}
	t := token{number, l.take(n), at}
	if r, _ := utf8.DecodeRuneInString(l.rest); isNamePart(r) {
		return token{}, errorAt(at, "%s is not a number", cut(t.text+l.rest[:l.span(isNamePart)]))
	}
	return t, nil
}

func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// quote writes a quoted name.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
