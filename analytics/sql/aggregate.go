package sql

// maxText is the longest text that a state keeps of a value, in bytes: so one
// sender cannot use up the room of all.
const maxText = 1 << 10

// aggregate is one that a query asks for.
type aggregate struct {
	name string // COUNT, SUM, AVG, MIN, MAX
	arg  node   // nil: COUNT(*)
}

// total is what an aggregate has come to. Totals of the shards are kept apart
// and joined in the order of the shards, so that a sum of floating point does
// not depend on how the shards were interleaved.
type total struct {
	n    int64   // values
	i    int64   // sum of the whole ones; the extreme, if it is whole
	f    float64 // sum of the others; the extreme
	kind kind    // of the sum: whole or not; of the extreme
	s    string  // the extreme, if it is a text
}

// add takes a value in.
func (a *aggregate) add(t *total, e *env) {
	if a.arg == nil {
		t.n++
		return
	}
	d := a.arg.eval(e)
	switch {
	case d.kind == kindNull:
	case a.name == "COUNT":
		t.n++
	case a.name == "MIN" || a.name == "MAX":
		if d.kind == kindText && len(d.s) > maxText {
			e.bad = "a text is too long for " + a.name
		} else if !d.isNumber() && d.kind != kindText {
			e.bad = a.name + " of a value that is neither a number nor a text"
		} else {
			a.extreme(t, d)
		}
	case !d.isNumber():
		e.bad = a.name + " of a value that is not a number"
	default:
		t.n++
		if d.kind == kindInt {
			t.addInt(d.i)
		} else {
			t.f += d.f
			t.kind = kindFloat
		}
	}
}

func (t *total) addInt(i int64) {
	sum, ok := addInt(t.i, i)
	if !ok {
		t.f += float64(t.i)
		t.kind, sum = kindFloat, i
	}
	t.i = sum
}

// extreme takes a value in. A number comes before every text, whichever end is
// asked for: so a stray text does not hide the numbers.
func (a *aggregate) extreme(t *total, d datum) {
	best := t.best()
	c, ok := compare(d, best)
	switch {
	case best.kind == kindNull:
	case !ok && d.kind == kindText:
		return
	case ok && (c == 0 || (c < 0) != (a.name == "MIN")):
		return
	}
	t.n, t.kind, t.i, t.f, t.s = 1, d.kind, d.i, d.f, string(d.s)
}

func (t *total) best() datum {
	if t.n == 0 {
		return datum{}
	}
	return datum{kind: t.kind, i: t.i, f: t.f, s: []byte(t.s)}
}

// join takes in what another shard has come to.
func (a *aggregate) join(t *total, o *total) {
	if a.name == "MIN" || a.name == "MAX" {
		if o.n > 0 {
			a.extreme(t, o.best())
		}
		return
	}
	t.n += o.n
	t.f += o.f
	if o.kind == kindFloat {
		t.kind = kindFloat
	}
	t.addInt(o.i)
}

// result is the value of the whole group.
func (a *aggregate) result(t *total) datum {
	switch {
	case a.name == "COUNT":
		return datum{kind: kindInt, i: t.n}
	case t.n == 0:
		return datum{}
	case a.name == "MIN" || a.name == "MAX":
		return t.best()
	case a.name == "AVG":
		return float((t.f + float64(t.i)) / float64(t.n))
	case t.kind == kindFloat:
		return float(t.f + float64(t.i))
	}
	return datum{kind: kindInt, i: t.i}
}
