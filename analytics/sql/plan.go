package sql

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"
)

// Plan is a query that was understood. It does not change and may be shared.
type Plan struct {
	statement *Statement
	size      time.Duration
	where     node // nil: all
	keys      []node
	having    node // nil: all
	items     []output
	totals    []aggregate

	root    field // of the columns that are read from the data
	columns int
	extras  []extra
}

// output is a column of a row.
type output struct {
	name string // as JSON, with the colon
	node node
}

// extra is a column that does not come from the data.
type extra struct {
	name   string
	column int
}

// pseudo are the columns that every record has besides those in its data. In
// double quotes the names mean fields of the data.
var pseudo = []string{"arrival", "partition_key", "sequence", "shard", "stream"}

// Compile reads a query and checks it. An error is an *Error with its place.
func Compile(query string) (*Plan, error) {
	s, err := Parse(query)
	if err != nil {
		return nil, err
	}
	p := &Plan{statement: s, root: field{column: -1}}
	c := &compiler{Plan: p}
	if fault := c.statement(); fault != nil {
		return nil, fault
	}
	return p, nil
}

// Input is the stream that is read.
func (p *Plan) Input() string { return p.statement.From.Text }

// Output is the stream that rows go to.
func (p *Plan) Output() string { return p.statement.Into.Text }

// Window is the length of the windows.
func (p *Plan) Window() time.Duration { return p.size }

// String is the query in one form, whatever its blanks and comments were.
func (p *Plan) String() string { return p.statement.String() }

// fingerprint tells queries apart.
func (p *Plan) fingerprint() [16]byte {
	sum := sha256.Sum256([]byte("weir query 1\n" + p.String()))
	return [16]byte(sum[:16])
}

// compiler makes a plan of a statement.
type compiler struct {
	*Plan
	groups []string // of GROUP BY, as text
}

func (c *compiler) statement() *Error {
	s := c.Plan.statement
	for _, item := range s.Items {
		s.unqualify(item.Expr)
	}
	for _, e := range append(slices.Clone(s.Group), s.Where, s.Having) {
		s.unqualify(e)
	}
	if s.Into.Text == s.From.Text {
		return errorAt(s.From.Pos, "the query would read what it writes, the stream %s", s.From.Text)
	}
	if s.Where != nil {
		t, err := c.row(s.Where, &c.where)
		if err != nil {
			return err
		}
		if t != condition && t != unknown {
			return errorAt(s.Where.At(), "WHERE needs a condition, this is a %s", t)
		}
	}
	if err := c.grouping(); err != nil {
		return err
	}
	if s.Having != nil {
		t, err := c.group(s.Having, &c.having)
		if err != nil {
			return err
		}
		if t != condition && t != unknown {
			return errorAt(s.Having.At(), "HAVING needs a condition, this is a %s", t)
		}
	}
	return c.outputs()
}

func (c *compiler) grouping() *Error {
	var window *Tumble
	for _, g := range c.Plan.statement.Group {
		if w, ok := g.(*Tumble); ok {
			if window != nil {
				return errorAt(w.Pos, "there is a window already; a query has exactly one")
			}
			window = w
			continue
		}
		if l, ok := g.(*Literal); ok {
			return errorAt(l.Pos, "GROUP BY a constant makes no groups; name a column")
		}
		var n node
		if _, err := c.row(g, &n); err != nil {
			return err
		}
		c.keys = append(c.keys, n)
		c.groups = append(c.groups, g.String())
	}
	if window == nil {
		return errorAt(c.Plan.statement.Group[0].At(), "GROUP BY has no window such as TUMBLE(arrival, INTERVAL '60' SECOND); without one it is not supported yet")
	}
	c.size, _ = window.Interval.duration() // it was parsed
	return nil
}

func (c *compiler) outputs() *Error {
	var names []string
	for _, item := range c.Plan.statement.Items {
		name := item.Alias.Text
		if name == "" {
			switch e := item.Expr.(type) {
			case *Column:
				name = e.Path[len(e.Path)-1].Text
			case *Call:
				name = strings.ToLower(e.Name)
			default:
				return errorAt(e.At(), "name this column with AS")
			}
		}
		at := item.Expr.At()
		if item.Alias.Text != "" {
			at = item.Alias.Pos
		}
		if slices.Contains(names, name) {
			return errorAt(at, "two columns are named %s; name one with AS", cut(name))
		}
		names = append(names, name)
		var n node
		if _, err := c.group(item.Expr, &n); err != nil {
			return err
		}
		c.items = append(c.items, output{string(appendText(nil, name)) + ":", n})
	}
	return nil
}

// sort of a value as far as it is known beforehand: that of a field is not.
type sort uint8

const (
	unknown sort = iota
	condition
	numeric
	textual
)

func (s sort) String() string { return [...]string{"value", "condition", "number", "text"}[s] }

// row compiles an expression over a record.
func (c *compiler) row(e Expr, to *node) (sort, *Error) {
	switch e := e.(type) {
	case *Column:
		if bound(e) {
			return unknown, errorAt(e.At(), "%s is known when the window closes, not here", e.Path[0].Text)
		}
		return c.column(e, to)
	case *Call:
		return unknown, errorAt(e.Pos, "an aggregate such as %s cannot stand here; it belongs to SELECT or HAVING, and not into another one", e.Name)
	case *Tumble:
		return unknown, errorAt(e.Pos, "TUMBLE belongs alone into GROUP BY")
	}
	return c.operator(e, to, c.row)
}

// group compiles an expression over a group of a window.
func (c *compiler) group(e Expr, to *node) (sort, *Error) {
	if i := slices.Index(c.groups, e.String()); i >= 0 {
		*to = keyNode(i)
		return unknown, nil
	}
	switch e := e.(type) {
	case *Column:
		if !bound(e) {
			return unknown, errorAt(e.At(), "%s must stand in GROUP BY or within an aggregate such as MAX", cut(e.String()))
		}
		*to = boundNode(e.Path[0].Text == "window_end")
		return textual, nil
	case *Call:
		return c.aggregate(e, to)
	}
	return c.operator(e, to, c.group)
}

func bound(e *Column) bool {
	n := e.Path[0]
	return len(e.Path) == 1 && !n.Quoted && (n.Text == "window_start" || n.Text == "window_end")
}

// unqualify takes the name of the stream away from before the columns of e.
func (s *Statement) unqualify(e Expr) {
	switch e := e.(type) {
	case *Column:
		if n := e.Path[0]; len(e.Path) > 1 && !n.Quoted && n.Text == s.From.Text {
			e.Path = e.Path[1:]
		}
	case *Unary:
		s.unqualify(e.X)
	case *IsNull:
		s.unqualify(e.X)
	case *Binary:
		s.unqualify(e.L)
		s.unqualify(e.R)
	case *Call:
		s.unqualify(e.Arg)
	}
}

func (c *compiler) column(e *Column, to *node) (sort, *Error) {
	if n := e.Path[0]; len(e.Path) == 1 && !n.Quoted && slices.Contains(pseudo, n.Text) {
		i := slices.IndexFunc(c.extras, func(x extra) bool { return x.name == n.Text })
		if i < 0 {
			i = len(c.extras)
			c.extras = append(c.extras, extra{n.Text, c.columns})
			c.columns++
		}
		*to = columnNode(c.extras[i].column)
		if n.Text == "sequence" {
			return numeric, nil
		}
		return textual, nil
	}
	path := make([]string, len(e.Path))
	for i, n := range e.Path {
		path[i] = n.Text
	}
	*to = columnNode(c.root.add(path, &c.columns))
	return unknown, nil
}

func (c *compiler) aggregate(e *Call, to *node) (sort, *Error) {
	a := aggregate{name: e.Name}
	if !e.Star {
		s, err := c.row(e.Arg, &a.arg)
		if err != nil {
			return unknown, err
		}
		sums := e.Name == "SUM" || e.Name == "AVG"
		if sums && s != numeric && s != unknown || e.Name != "COUNT" && s == condition {
			return unknown, errorAt(e.Arg.At(), "%s needs a number, this is a %s", e.Name, s)
		}
	}
	*to = aggNode(len(c.totals))
	c.totals = append(c.totals, a)
	if e.Name == "MIN" || e.Name == "MAX" {
		return unknown, nil
	}
	return numeric, nil
}

// operator compiles what has operands, with sub for them.
func (c *compiler) operator(e Expr, to *node, sub func(Expr, *node) (sort, *Error)) (sort, *Error) {
	need := func(e Expr, to *node, want sort, op string) *Error {
		s, err := sub(e, to)
		if err == nil && s != want && s != unknown {
			err = errorAt(e.At(), "%s needs a %s, this is a %s", op, want, s)
		}
		return err
	}
	var x node
	switch e := e.(type) {
	case *Literal:
		*to = constNode{e.Value}
		return map[kind]sort{kindBool: condition, kindInt: numeric, kindFloat: numeric, kindText: textual}[e.Value.kind], nil
	case *Unary:
		want := map[string]sort{"NOT": condition, "-": numeric}[e.Op]
		err := need(e.X, &x, want, e.Op)
		*to = minusNode{x}
		if want == condition {
			*to = notNode{x}
		}
		return want, err
	case *IsNull:
		_, err := sub(e.X, &x)
		*to = nullNode{x, e.Not}
		return condition, err
	case *Binary:
		return c.binary(e, to, sub, need)
	}
	return unknown, errorAt(e.At(), "it cannot stand here")
}

func (c *compiler) binary(e *Binary, to *node, sub func(Expr, *node) (sort, *Error), need func(Expr, *node, sort, string) *Error) (sort, *Error) {
	var l, r node
	switch binding[e.Op] {
	case bindOr, bindAnd:
		if err := need(e.L, &l, condition, e.Op); err != nil {
			return unknown, err
		}
		err := need(e.R, &r, condition, e.Op)
		*to = logicNode{l, r, e.Op == "OR"}
		return condition, err
	case bindCompare:
		a, err := sub(e.L, &l)
		if err != nil {
			return unknown, err
		}
		b, err := sub(e.R, &r)
		if err == nil && a != unknown && b != unknown && a != b {
			err = errorAt(e.L.At(), "a %s is compared with a %s", a, b)
		}
		*to = compareNode{l, r, e.Op}
		return condition, err
	}
	if err := need(e.L, &l, numeric, e.Op); err != nil {
		return unknown, err
	}
	err := need(e.R, &r, numeric, e.Op)
	*to = mathNode{l, r, e.Op[0]}
	return numeric, err
}
