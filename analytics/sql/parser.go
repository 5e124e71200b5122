package sql

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
)

const (
	// maxDepth bounds how deep an expression is nested, a chain of operators
	// included.
	maxDepth = 500
	// maxItems bounds the lists of SELECT and GROUP BY.
	maxItems = 256
	// maxPath bounds the parts of a column.
	maxPath = 32
)

// Parse reads the text of a query. An error is an *Error with the place of the
// first fault: what was expected there, or what the dialect has and this
// version has not.
func Parse(query string) (*Statement, error) {
	tokens, err := lex(query)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	s, fault := p.statement()
	if fault != nil {
		return nil, fault
	}
	return s, nil
}

type parser struct {
	tokens []token // the last one is endOfText
	at     int
	depth  int // of calls of expression
}

func (p *parser) peek() token { return p.tokens[p.at] }

// ahead is the token n behind the next one.
func (p *parser) ahead(n int) token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	p.at = min(p.at+1, len(p.tokens)-1)
	return t
}

// accept takes the next token if it is s.
func (p *parser) accept(s string) bool {
	if p.peek().is(s) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expected(what string) *Error {
	return errorAt(p.peek().Pos, "expected %s, found %s", what, p.peek().shown())
}

func (p *parser) expect(s string) *Error {
	if p.accept(s) {
		return nil
	}
	return p.expected(s)
}

func notYet(t Pos, what string) *Error {
	return errorAt(t, "%s: not supported yet", what)
}

// laterStatements begin statements that the dialect has.
var laterStatements = []string{"CREATE", "SELECT", "DROP", "ALTER", "WITH", "VALUES", "UPDATE", "DELETE", "EXPLAIN"}

func (p *parser) statement() (*Statement, *Error) {
	if t := p.peek(); t.kind == word && slices.Contains(laterStatements, strings.ToUpper(t.text)) {
		return nil, notYet(t.Pos, "a statement that begins with "+strings.ToUpper(t.text)+" (INSERT INTO does)")
	}
	if !p.peek().is("INSERT") || !p.ahead(1).is("INTO") {
		return nil, p.expected("INSERT INTO")
	}
	p.next()
	p.next()
	s := &Statement{}
	var err *Error
	if s.Into, err = p.stream(); err != nil {
		return nil, err
	}
	if p.peek().is("(") {
		return nil, notYet(p.peek().Pos, "a list of columns after the stream")
	}
	if p.peek().is("VALUES") {
		return nil, notYet(p.peek().Pos, "VALUES")
	}
	if err = p.expect("SELECT"); err != nil {
		return nil, err
	}
	if err = p.items(s); err != nil {
		return nil, err
	}
	if err = p.from(s); err != nil {
		return nil, err
	}
	if err = p.clauses(s); err != nil {
		return nil, err
	}
	p.accept(";")
	if p.peek().kind != endOfText {
		return nil, p.expected("the end")
	}
	return s, nil
}

// stream reads the name of a stream.
func (p *parser) stream() (Name, *Error) {
	t := p.peek()
	if t.kind != word && t.kind != quotedName || t.kind == word && reserved(t.text) {
		return Name{}, p.expected("the name of a stream")
	}
	if err := buffer.CheckName(t.text); err != nil {
		return Name{}, errorAt(t.Pos, "%s", strings.TrimPrefix(err.Error(), buffer.ErrInvalid.Error()+": "))
	}
	p.next()
	if p.peek().is(".") {
		return Name{}, errorAt(p.peek().Pos, "a name with dots is written in double quotes, as \"a.b\"")
	}
	return Name{t.text, t.kind == quotedName, t.Pos}, nil
}

// items reads what stands behind SELECT.
func (p *parser) items(s *Statement) *Error {
	if t := p.peek(); t.is("DISTINCT") || t.is("STREAM") || t.is("ALL") {
		// Followed by a name, a number or a parenthesis it is no column.
		n := p.ahead(1)
		if n.kind == quotedName || n.kind == number || n.kind == text || n.is("*") || n.kind == word && !reserved(n.text) {
			return notYet(t.Pos, "SELECT "+strings.ToUpper(t.text))
		}
	}
	for {
		t := p.peek()
		if t.is("*") {
			return notYet(t.Pos, "SELECT *")
		}
		if len(s.Items) == maxItems {
			return errorAt(t.Pos, "more than %d columns", maxItems)
		}
		e, err := p.expression()
		if err != nil {
			return err
		}
		item := Item{Expr: e}
		if err := p.alias(&item); err != nil {
			return err
		}
		s.Items = append(s.Items, item)
		if !p.accept(",") {
			return nil
		}
	}
}

// alias reads AS and a name, or the name alone.
func (p *parser) alias(item *Item) *Error {
	if t := p.peek(); t.is("OVER") && p.ahead(1).is("(") {
		return notYet(t.Pos, "OVER")
	}
	as := p.accept("AS")
	t := p.peek()
	if t.kind == quotedName || t.kind == word && (as || !reserved(t.text)) {
		item.Alias = Name{t.text, t.kind == quotedName, t.Pos}
		if t.kind == word && reserved(t.text) {
			return p.expected("a name; in double quotes it may be any")
		}
		p.next()
		return nil
	}
	if as {
		return p.expected("a name")
	}
	return nil
}

func (p *parser) from(s *Statement) (err *Error) {
	if !p.peek().is("FROM") {
		return p.expected("a comma or FROM")
	}
	p.next()
	if t := p.peek(); t.is("(") {
		return notYet(t.Pos, "a query within FROM")
	}
	if t := p.peek(); p.ahead(1).is("(") && t.kind == word {
		return notYet(t.Pos, strings.ToUpper(t.text)+" within FROM")
	}
	if s.From, err = p.stream(); err != nil {
		return err
	}
	t := p.peek()
	switch {
	case t.is(","):
		return notYet(t.Pos, "a second stream")
	case t.is("JOIN"), t.is("INNER"), t.is("LEFT"), t.is("RIGHT"), t.is("FULL"), t.is("CROSS"), t.is("NATURAL"):
		return notYet(t.Pos, "JOIN")
	case t.is("AS"), t.kind == quotedName, t.kind == word && !reserved(t.text) && !isClause(t.text):
		return notYet(t.Pos, "another name for a stream")
	}
	return nil
}

// laterClauses begin clauses that the dialect has.
var laterClauses = []string{"WINDOW", "WINDOWED", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT", "EMIT", "OVER", "QUALIFY", "FETCH", "OFFSET"}

func isClause(s string) bool {
	s = strings.ToUpper(s)
	return s == "WHERE" || s == "GROUP" || s == "HAVING" || slices.Contains(laterClauses, s)
}

func (p *parser) later() *Error {
	if t := p.peek(); t.kind == word && slices.Contains(laterClauses, strings.ToUpper(t.text)) {
		name := strings.ToUpper(t.text)
		if name == "ORDER" || name == "WINDOWED" {
			name += " BY"
		}
		return notYet(t.Pos, name)
	}
	return nil
}

// clauses reads WHERE, GROUP BY and HAVING.
func (p *parser) clauses(s *Statement) (err *Error) {
	if err = p.later(); err != nil {
		return err
	}
	if p.accept("WHERE") {
		if s.Where, err = p.expression(); err != nil {
			return err
		}
	}
	if err = p.later(); err != nil {
		return err
	}
	if !p.peek().is("GROUP") {
		if p.peek().kind == endOfText || p.peek().is(";") || p.peek().is("HAVING") {
			return errorAt(p.peek().Pos, "expected GROUP BY with a TUMBLE; a query without a window is not supported yet")
		}
		if s.Where != nil {
			return p.expected("an operator or GROUP BY")
		}
		return p.expected("WHERE or GROUP BY")
	}
	p.next()
	if err = p.expect("BY"); err != nil {
		return err
	}
	for {
		if len(s.Group) == maxItems {
			return errorAt(p.peek().Pos, "more than %d expressions in GROUP BY", maxItems)
		}
		e, err := p.grouping()
		if err != nil {
			return err
		}
		s.Group = append(s.Group, e)
		if !p.accept(",") {
			break
		}
	}
	if p.accept("HAVING") {
		if s.Having, err = p.expression(); err != nil {
			return err
		}
	}
	return p.later()
}

// laterWindows are windows that the dialect has.
var laterWindows = []string{"HOP", "SESSION", "CUMULATE", "STEP", "STAGGER", "FLOOR", "ROLLUP", "CUBE"}

// grouping reads one expression of GROUP BY, or the window.
func (p *parser) grouping() (Expr, *Error) {
	t := p.peek()
	if t.kind != word || !p.ahead(1).is("(") {
		return p.expression()
	}
	name := strings.ToUpper(t.text)
	if slices.Contains(laterWindows, name) {
		return nil, notYet(t.Pos, name+" in GROUP BY")
	}
	if name != "TUMBLE" {
		return p.expression()
	}
	p.next()
	p.next()
	w := &Tumble{Pos: t.Pos}
	column := p.peek()
	if column.is("TABLE") {
		return nil, notYet(column.Pos, "TUMBLE(TABLE …)")
	}
	if column.kind != word || reserved(column.text) {
		return nil, p.expected("the time of a record, which is arrival")
	}
	if column.text != "arrival" && !strings.EqualFold(column.text, "ROWTIME") {
		return nil, notYet(column.Pos, "a window over another time than arrival")
	}
	p.next()
	w.Time = Name{Text: column.text, Pos: column.Pos}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	var err *Error
	if w.Interval, err = p.interval(); err != nil {
		return nil, err
	}
	if t := p.peek(); t.is(",") {
		return nil, notYet(t.Pos, "an offset of the window")
	}
	return w, p.closing()
}

// closing expects the parenthesis. It is typed so that nil is nil.
func (p *parser) closing() *Error { return p.expect(")") }

var units = []struct {
	name string
	unit time.Duration
}{{"SECOND", time.Second}, {"MINUTE", time.Minute}, {"HOUR", time.Hour}, {"DAY", 24 * time.Hour}}

func (p *parser) interval() (Interval, *Error) {
	i := Interval{Pos: p.peek().Pos}
	if err := p.expect("INTERVAL"); err != nil {
		return i, err
	}
	t := p.peek()
	if t.kind != text {
		return i, p.expected("a number in quotes, such as '60'")
	}
	i.Text = t.text
	if n := digits(t.text); n == 0 || n < len(t.text) && (t.text[n] != '.' || digits(t.text[n+1:]) != len(t.text)-n-1 || len(t.text) == n+1) {
		return i, errorAt(t.Pos, "%s is not a number such as '60' or '0.5'", t.shown())
	}
	p.next()
	unit := p.peek()
	for _, u := range units {
		if unit.is(u.name) {
			i.Unit = u.name
		}
	}
	if i.Unit == "" {
		if unit.is("MONTH") || unit.is("YEAR") {
			return i, errorAt(unit.Pos, "a window of a %s has no fixed length; use DAY", strings.ToUpper(unit.text))
		}
		return i, p.expected("SECOND, MINUTE, HOUR or DAY")
	}
	p.next()
	if t := p.peek(); t.is("TO") || t.is("(") {
		return i, notYet(t.Pos, "an interval of two units or with a precision")
	}
	d, ok := i.duration()
	if !ok || d < time.Millisecond || d > 366*24*time.Hour {
		return i, errorAt(t.Pos, "a window must be whole milliseconds, from 1 ms to 366 days")
	}
	return i, nil
}

// duration is the length, and whether it is whole milliseconds and not too
// long to tell.
func (i Interval) duration() (time.Duration, bool) {
	whole, part, _ := strings.Cut(i.Text, ".")
	unit := time.Duration(0)
	for _, u := range units {
		if u.name == i.Unit {
			unit = u.unit
		}
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > 1e12 || len(part) > 12 {
		return 0, false
	}
	// In milliseconds: at most 1e12 × 86,400,000 would not fit, so look first.
	ms := int64(unit / time.Millisecond)
	if n > int64(400*24*time.Hour/time.Millisecond)/ms {
		return 0, false
	}
	total, scale := n*ms, int64(1)
	fraction := int64(0)
	for _, c := range strings.TrimRight(part, "0") {
		if scale >= 1e9 {
			return 0, false
		}
		fraction, scale = fraction*10+int64(c-'0'), scale*10
	}
	if fraction*ms%scale != 0 {
		return 0, false
	}
	return time.Duration(total+fraction*ms/scale) * time.Millisecond, true
}
