package sql

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// How strongly operators bind, weakest first.
const (
	bindOr = iota + 1
	bindAnd
	bindNot
	bindCompare
	bindAdd
	bindMultiply
	bindMinus
)

var binding = map[string]int{
	"OR": bindOr, "AND": bindAnd,
	"=": bindCompare, "<>": bindCompare, "!=": bindCompare, "<": bindCompare, "<=": bindCompare, ">": bindCompare, ">=": bindCompare,
	"IS": bindCompare, "+": bindAdd, "-": bindAdd, "*": bindMultiply, "/": bindMultiply, "%": bindMultiply,
}

// laterOperators are operators that the dialect has.
var laterOperators = []string{"||", "IN", "LIKE", "BETWEEN", "SIMILAR", "[", ":"}

// reserved words cannot be a column unless they are in quotes: where one may
// begin, they mean something else.
func reserved(s string) bool {
	return slices.Contains([]string{"SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "UNION", "AS", "AND", "OR", "NOT", "IS", "NULL",
		"TRUE", "FALSE", "IN", "LIKE", "BETWEEN", "CASE", "INTERVAL"}, strings.ToUpper(s))
}

// aggregates are what turns many values into one.
var aggregates = []string{"COUNT", "SUM", "AVG", "MIN", "MAX"}

// laterFunctions are functions that the dialect has.
var laterFunctions = []string{
	"ABS", "CEIL", "CEILING", "FLOOR", "ROUND", "SQRT", "POWER", "EXP", "LN", "LOG10", "MOD", "SIGN", "UPPER", "LOWER", "TRIM", "SUBSTRING",
	"CHAR_LENGTH", "POSITION", "OVERLAY", "INITCAP", "COALESCE", "NULLIF", "CAST", "EXTRACT", "STEP", "TO_TIMESTAMP", "UNIX_TIMESTAMP",
	"CURRENT_TIMESTAMP", "STDDEV_POP", "STDDEV_SAMP", "VAR_POP", "VAR_SAMP", "FIRST_VALUE", "LAST_VALUE", "LAG", "NTH_VALUE", "ROW_NUMBER",
	"APPROXIMATE_COUNT_DISTINCT", "HOP", "SESSION", "CUMULATE", "TUMBLE_START", "TUMBLE_END", "REGEX_REPLACE", "MONOTONIC", "EXP_AVG",
}

// expression reads a whole expression.
func (p *parser) expression() (Expr, *Error) {
	e, _, err := p.expr(0)
	return e, err
}

// expr reads an expression whose operators bind stronger than least (V. Pratt,
// Top Down Operator Precedence, 1973). It returns how deep it is nested.
func (p *parser) expr(least int) (Expr, int, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, 0, p.tooDeep()
	}
	defer func() { p.depth-- }()
	left, height, err := p.operand()
	for err == nil {
		t := p.peek()
		if t.kind != symbol && t.kind != word {
			break
		}
		op := strings.ToUpper(t.text)
		if slices.Contains(laterOperators, op) || op == "NOT" && least < bindCompare {
			if op == "NOT" {
				op += " " + strings.ToUpper(p.ahead(1).text)
				if !slices.Contains(laterOperators, strings.ToUpper(p.ahead(1).text)) {
					break
				}
			}
			return nil, 0, notYet(t.Pos, op)
		}
		power := binding[op]
		if power <= least {
			break
		}
		p.next()
		if left, height, err = p.infix(left, height, op); err == nil && height > maxDepth {
			err = p.tooDeep()
		}
	}
	return left, height, err
}

func (p *parser) tooDeep() *Error {
	return errorAt(p.peek().Pos, "the expression is nested deeper than %d", maxDepth)
}

// infix reads what stands behind an operator that was read.
func (p *parser) infix(left Expr, height int, op string) (Expr, int, *Error) {
	if op == "IS" {
		not := p.accept("NOT")
		if !p.accept("NULL") {
			if p.peek().is("TRUE") || p.peek().is("FALSE") || p.peek().is("DISTINCT") {
				return nil, 0, notYet(p.peek().Pos, "IS "+strings.ToUpper(p.peek().text))
			}
			return nil, 0, p.expected("NULL")
		}
		return &IsNull{left, not}, height + 1, nil
	}
	right, h, err := p.expr(binding[op])
	if err != nil {
		return nil, 0, err
	}
	if op == "!=" {
		op = "<>"
	}
	return &Binary{op, left, right}, max(height, h) + 1, nil
}

// operand reads what may begin an expression.
func (p *parser) operand() (Expr, int, *Error) {
	t := p.peek()
	switch {
	case t.kind == number:
		p.next()
		v, ok := parseNumber([]byte(t.text))
		if !ok {
			return nil, 0, errorAt(t.Pos, "%s is too large for a number", cut(t.text))
		}
		return &Literal{v, t.Pos}, 1, nil
	case t.kind == text:
		p.next()
		return &Literal{datum{kind: kindText, s: []byte(t.text)}, t.Pos}, 1, nil
	case t.is("("):
		return p.parentheses()
	case t.is("-"), t.is("+"):
		p.next()
		x, h, err := p.expr(bindMinus - 1)
		if err != nil || t.text == "+" {
			return x, h, err
		}
		return &Unary{"-", x, t.Pos}, h + 1, nil
	case t.kind == quotedName:
		return p.column()
	case t.kind == word:
		return p.word()
	}
	return nil, 0, p.expected("an expression")
}

func (p *parser) parentheses() (Expr, int, *Error) {
	open := p.next()
	if p.peek().is("SELECT") {
		return nil, 0, notYet(open.Pos, "a query within an expression")
	}
	e, h, err := p.expr(0)
	if err != nil {
		return nil, 0, err
	}
	if !p.accept(")") {
		return nil, 0, p.expected("an operator or )")
	}
	return e, h, nil
}

// word reads an operand that begins with one: a constant, NOT, a function or a
// column.
func (p *parser) word() (Expr, int, *Error) {
	t := p.peek()
	name := strings.ToUpper(t.text)
	switch name {
	case "NULL":
		p.next()
		return &Literal{datum{}, t.Pos}, 1, nil
	case "TRUE", "FALSE":
		p.next()
		return &Literal{boolean(name == "TRUE"), t.Pos}, 1, nil
	case "NOT":
		p.next()
		x, h, err := p.expr(bindNot - 1)
		return &Unary{"NOT", x, t.Pos}, h + 1, err
	case "CASE":
		return nil, 0, notYet(t.Pos, "CASE")
	case "INTERVAL":
		return nil, 0, notYet(t.Pos, "INTERVAL outside of TUMBLE")
	}
	if reserved(name) {
		return nil, 0, p.expected("an expression")
	}
	next := p.ahead(1)
	if next.kind == text && slices.Contains([]string{"DATE", "TIME", "TIMESTAMP"}, name) {
		return nil, 0, notYet(t.Pos, name+" '…'")
	}
	if next.is("(") {
		return p.call(name)
	}
	return p.column()
}

func (p *parser) call(name string) (Expr, int, *Error) {
	t := p.next()
	p.next()
	switch {
	case name == "TUMBLE":
		return nil, 0, errorAt(t.Pos, "TUMBLE belongs alone into GROUP BY; its bounds are window_start and window_end")
	case slices.Contains(laterFunctions, name):
		return nil, 0, notYet(t.Pos, name)
	case !slices.Contains(aggregates, name):
		return nil, 0, errorAt(t.Pos, "there is no function %s; there are %s", cut(name), strings.Join(aggregates, ", "))
	}
	c := &Call{Name: name, Pos: t.Pos}
	height := 0
	switch s := p.peek(); {
	case s.is("*") && name == "COUNT":
		p.next()
		c.Star = true
	case s.is("*"):
		return nil, 0, errorAt(s.Pos, "%s takes an expression; only COUNT takes *", name)
	case s.is("DISTINCT") && !p.ahead(1).is(")"):
		return nil, 0, notYet(s.Pos, name+"(DISTINCT …)")
	default:
		var err *Error
		if c.Arg, height, err = p.expr(0); err != nil {
			return nil, 0, err
		}
	}
	if s := p.peek(); s.is(",") {
		return nil, 0, errorAt(s.Pos, "%s takes one expression", name)
	}
	if !p.accept(")") {
		return nil, 0, p.expected("an operator or )")
	}
	if s := p.peek(); (s.is("OVER") || s.is("FILTER")) && (p.ahead(1).is("(") || p.ahead(1).kind == word) {
		return nil, 0, notYet(s.Pos, strings.ToUpper(s.text))
	}
	return c, height + 1, nil
}

func (p *parser) column() (Expr, int, *Error) {
	c := &Column{}
	for {
		t := p.peek()
		if t.kind != quotedName && (t.kind != word || reserved(t.text)) {
			return nil, 0, p.expected("the name of a field")
		}
		if len(c.Path) == maxPath {
			return nil, 0, errorAt(t.Pos, "more than %d fields within each other", maxPath)
		}
		p.next()
		c.Path = append(c.Path, Name{t.text, t.kind == quotedName, t.Pos})
		if !p.accept(".") {
			return c, 1, nil
		}
	}
}

// parseNumber reads a number as JSON and SQL write it: whole ones stay exact
// as far as 64 bits go. False: it is larger than any number.
func parseNumber(b []byte) (datum, bool) {
	if n, ok := parseInt(b); ok {
		return datum{kind: kindInt, i: n}, true
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsInf(f, 0) {
		return datum{}, false
	}
	return datum{kind: kindFloat, f: f}, true
}

// parseInt reads digits with at most a minus before them.
func parseInt(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}
