package sql

import (
	"strconv"
	"strings"
)

// Statement is a query as it was written. String gives it back in one form, so
// that two texts that differ in blanks, comments and capitals of keywords are
// the same query.
type Statement struct {
	Into   Name
	Items  []Item
	From   Name
	Where  Expr // nil: all
	Group  []Expr
	Having Expr // nil: all
}

// Name is a stream, a column, or a part of a column's path.
type Name struct {
	Text   string
	Quoted bool
	Pos    Pos
}

// Item is an expression of SELECT.
type Item struct {
	Expr  Expr
	Alias Name // Text "": none
}

// Expr is an expression.
type Expr interface {
	// At is where it begins.
	At() Pos
	String() string
}

type (
	// Column is a field of the record, or a field of a field.
	Column struct{ Path []Name }
	// Literal is a number, a string, TRUE, FALSE or NULL.
	Literal struct {
		Value datum
		Pos   Pos
	}
	// Unary is NOT or the minus.
	Unary struct {
		Op  string
		X   Expr
		Pos Pos
	}
	// Binary is an operator between two. Op is in capitals.
	Binary struct {
		Op   string
		L, R Expr
	}
	// IsNull is IS NULL and IS NOT NULL.
	IsNull struct {
		X   Expr
		Not bool
	}
	// Call is an aggregate. Name is in capitals.
	Call struct {
		Name string
		Star bool // COUNT(*)
		Arg  Expr
		Pos  Pos
	}
	// Tumble is the window.
	Tumble struct {
		Time     Name
		Interval Interval
		Pos      Pos
	}
	// Interval is a length of time as SQL writes it.
	Interval struct {
		Text string // the number
		Unit string // in capitals
		Pos  Pos
	}
)

// At is where the first part begins.
func (c *Column) At() Pos { return c.Path[0].Pos }

// At is where it begins.
func (l *Literal) At() Pos { return l.Pos }

// At is where the operator is.
func (u *Unary) At() Pos { return u.Pos }

// At is where the left side begins.
func (b *Binary) At() Pos { return b.L.At() }

// At is where the operand begins.
func (n *IsNull) At() Pos { return n.X.At() }

// At is where the name is.
func (c *Call) At() Pos { return c.Pos }

// At is where the name is.
func (t *Tumble) At() Pos { return t.Pos }

func (n Name) String() string {
	if n.Quoted {
		return quote(n.Text)
	}
	return n.Text
}

func (s *Statement) String() string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + s.Into.String() + " SELECT ")
	for i, item := range s.Items {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(item.Expr.String())
		if item.Alias.Text != "" {
			b.WriteString(" AS " + item.Alias.String())
		}
	}
	b.WriteString(" FROM " + s.From.String())
	if s.Where != nil {
		b.WriteString(" WHERE " + s.Where.String())
	}
	for i, g := range s.Group {
		b.WriteString([]string{" GROUP BY ", ", "}[min(i, 1)])
		b.WriteString(g.String())
	}
	if s.Having != nil {
		b.WriteString(" HAVING " + s.Having.String())
	}
	return b.String()
}

func (c *Column) String() string {
	parts := make([]string, len(c.Path))
	for i, p := range c.Path {
		parts[i] = p.String()
	}
	return strings.Join(parts, ".")
}

func (l *Literal) String() string {
	switch v := l.Value; v.kind {
	case kindText:
		return "'" + strings.ReplaceAll(string(v.s), "'", "''") + "'"
	case kindBool:
		return strings.ToUpper(strconv.FormatBool(v.i != 0))
	case kindInt:
		return strconv.FormatInt(v.i, 10)
	case kindFloat:
		// The exponent keeps it a number that is not whole.
		return strconv.FormatFloat(v.f, 'e', -1, 64)
	}
	return "NULL"
}

// within writes an operand: in parentheses if it is made of others.
func within(e Expr) string {
	switch e.(type) {
	case *Column, *Literal, *Call, *Tumble:
		return e.String()
	}
	return "(" + e.String() + ")"
}

func (u *Unary) String() string {
	if u.Op == "NOT" {
		return "NOT " + within(u.X)
	}
	return u.Op + within(u.X)
}

func (b *Binary) String() string { return within(b.L) + " " + b.Op + " " + within(b.R) }

func (n *IsNull) String() string {
	if n.Not {
		return within(n.X) + " IS NOT NULL"
	}
	return within(n.X) + " IS NULL"
}

func (c *Call) String() string {
	if c.Star {
		return c.Name + "(*)"
	}
	return c.Name + "(" + c.Arg.String() + ")"
}

func (t *Tumble) String() string {
	return "TUMBLE(" + t.Time.String() + ", " + t.Interval.String() + ")"
}

func (i Interval) String() string {
	return "INTERVAL '" + i.Text + "' " + i.Unit
}
