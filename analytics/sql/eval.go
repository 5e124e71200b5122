package sql

import (
	"math"
	"math/bits"
)

// env is what an expression sees: a record, or a group of a window that
// closed.
type env struct {
	columns    []datum
	keys       []datum
	aggregates []datum
	start, end []byte // of the window
	bad        string // what could not be used, of the last expression that had such
}

// node is a compiled expression.
type node interface{ eval(*env) datum }

type (
	constNode  struct{ v datum }
	columnNode int
	keyNode    int
	aggNode    int
	boundNode  bool // true: the end
	notNode    struct{ x node }
	minusNode  struct{ x node }
	logicNode  struct {
		l, r node
		or   bool
	}
	compareNode struct {
		l, r node
		op   string
	}
	mathNode struct {
		l, r node
		op   byte
	}
	nullNode struct {
		x   node
		not bool
	}
)

func (n constNode) eval(*env) datum    { return n.v }
func (n columnNode) eval(e *env) datum { return e.columns[n] }
func (n keyNode) eval(e *env) datum    { return e.keys[n] }
func (n aggNode) eval(e *env) datum    { return e.aggregates[n] }

func (n boundNode) eval(e *env) datum {
	if n {
		return datum{kind: kindText, s: e.end}
	}
	return datum{kind: kindText, s: e.start}
}

// truth of a value: what is no boolean is unknown.
func truth(d datum, e *env) (value, known bool) {
	if d.kind != kindBool && d.kind != kindNull {
		e.bad = "a value that is not true or false stands for a condition"
	}
	return d.i != 0, d.kind == kindBool
}

func (n notNode) eval(e *env) datum {
	if v, known := truth(n.x.eval(e), e); known {
		return boolean(!v)
	}
	return datum{}
}

// eval: a side that decides does so also when the other is not known.
func (n logicNode) eval(e *env) datum {
	l, lKnown := truth(n.l.eval(e), e)
	if lKnown && l == n.or {
		return boolean(n.or)
	}
	r, rKnown := truth(n.r.eval(e), e)
	switch {
	case rKnown && r == n.or:
		return boolean(n.or)
	case lKnown && rKnown:
		return boolean(!n.or)
	}
	return datum{}
}

func (n nullNode) eval(e *env) datum { return boolean((n.x.eval(e).kind == kindNull) != n.not) }

func (n compareNode) eval(e *env) datum {
	l, r := n.l.eval(e), n.r.eval(e)
	if l.kind == kindNull || r.kind == kindNull {
		return datum{}
	}
	c, ok := compare(l, r)
	if !ok {
		e.bad = "values of different kinds are compared"
		return datum{}
	}
	switch n.op {
	case "=":
		return boolean(c == 0)
	case "<>":
		return boolean(c != 0)
	case "<":
		return boolean(c < 0)
	case "<=":
		return boolean(c <= 0)
	case ">":
		return boolean(c > 0)
	}
	return boolean(c >= 0)
}

func (n minusNode) eval(e *env) datum {
	switch x := n.x.eval(e); {
	case x.kind == kindInt && x.i != math.MinInt64:
		return datum{kind: kindInt, i: -x.i}
	case x.isNumber():
		return float(-x.float())
	case x.kind != kindNull:
		e.bad = "a value that is not a number is reckoned with"
	}
	return datum{}
}

func (n mathNode) eval(e *env) datum {
	l, r := n.l.eval(e), n.r.eval(e)
	if l.kind == kindNull || r.kind == kindNull {
		return datum{}
	}
	if !l.isNumber() || !r.isNumber() {
		e.bad = "a value that is not a number is reckoned with"
		return datum{}
	}
	if (n.op == '/' || n.op == '%') && r.float() == 0 {
		e.bad = "division by zero"
		return datum{}
	}
	if l.kind == kindInt && r.kind == kindInt {
		if i, ok := whole(n.op, l.i, r.i); ok {
			return datum{kind: kindInt, i: i}
		}
	}
	a, b := l.float(), r.float()
	switch n.op {
	case '+':
		return float(a + b)
	case '-':
		return float(a - b)
	case '*':
		return float(a * b)
	case '/':
		return float(a / b)
	}
	return float(math.Mod(a, b))
}

// whole reckons with whole numbers; false: the result is none, or too large.
func whole(op byte, a, b int64) (int64, bool) {
	switch op {
	case '+':
		return addInt(a, b)
	case '-':
		s := a - b
		return s, (a >= b) == (s >= 0)
	case '*':
		return multiplyInt(a, b)
	case '%':
		if b == -1 {
			return 0, true
		}
		return a % b, true
	}
	return 0, false
}

func addInt(a, b int64) (int64, bool) {
	s := a + b
	return s, (s > a) == (b > 0)
}

func multiplyInt(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	p := a * b
	return p, hi == 0 && lo < 1<<63 && (p == 0 || (p < 0) == ((a < 0) != (b < 0)))
}

func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}
