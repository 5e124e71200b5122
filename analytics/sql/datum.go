package sql

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
)

// kind of a value. A record has no schema, so each value has its own.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindFloat
	kindText
	kindJSON // an object or an array, as it was written
)

// datum is a value. Bytes may belong to the record that is read.
type datum struct {
	kind kind
	i    int64 // of kindInt; 1 is true of kindBool
	f    float64
	s    []byte
}

func boolean(b bool) datum {
	if b {
		return datum{kind: kindBool, i: 1}
	}
	return datum{kind: kindBool}
}

// float makes a number that has no place in JSON NULL.
func float(f float64) datum {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return datum{}
	}
	return datum{kind: kindFloat, f: f}
}

func (d datum) isNumber() bool { return d.kind == kindInt || d.kind == kindFloat }

func (d datum) float() float64 {
	if d.kind == kindInt {
		return float64(d.i)
	}
	return d.f
}

// compare orders two values of one sort; false: they cannot be compared.
func compare(a, b datum) (int, bool) {
	switch {
	case a.kind == kindInt && b.kind == kindInt, a.kind == kindBool && b.kind == kindBool:
		return cmp.Compare(a.i, b.i), true
	case a.isNumber() && b.isNumber():
		return cmp.Compare(a.float(), b.float()), true
	case a.kind == kindText && b.kind == kindText:
		return bytes.Compare(a.s, b.s), true
	}
	return 0, false
}

// appendJSON writes d as JSON.
func (d datum) appendJSON(b []byte) []byte {
	switch d.kind {
	case kindText:
		return appendText(b, d.s)
	case kindNull:
		return append(b, "null"...)
	}
	return d.appendPlain(b)
}

// appendPlain writes d as JSON does, texts without quotes.
func (d datum) appendPlain(b []byte) []byte {
	switch d.kind {
	case kindBool:
		return strconv.AppendBool(b, d.i != 0)
	case kindInt:
		return strconv.AppendInt(b, d.i, 10)
	case kindFloat:
		// As ECMAScript and encoding/json write numbers.
		if a := math.Abs(d.f); a != 0 && (a < 1e-6 || a >= 1e21) {
			return strconv.AppendFloat(b, d.f, 'e', -1, 64)
		}
		return strconv.AppendFloat(b, d.f, 'f', -1, 64)
	case kindText, kindJSON:
		return append(b, d.s...)
	}
	return append(b, "null"...)
}

// appendText writes a string of JSON. s is UTF-8.
func appendText[T []byte | string](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// Keys of groups are written so that their bytes sort as their values do, and
// so that no two lists of values have the same bytes. First NULL, then false
// and true, numbers, texts, JSON.
const (
	keyNull = iota + 1
	keyBool
	keyNumber
	keyText
	keyJSON
)

// appendKey writes a value of a group's key. A number that is whole is the same
// however it was written.
func appendKey(b []byte, d datum) []byte {
	switch d.kind {
	case kindBool:
		return append(b, keyBool, byte(d.i))
	case kindInt, kindFloat:
		d = wholeIfWhole(d)
		bits := math.Float64bits(d.float())
		if bits>>63 == 1 {
			bits = ^bits
		} else {
			bits |= 1 << 63
		}
		b = binary.BigEndian.AppendUint64(append(b, keyNumber), bits)
		if d.kind == kindFloat {
			return append(b, 0)
		}
		return binary.BigEndian.AppendUint64(append(b, 1), uint64(d.i)^1<<63)
	case kindText, kindJSON:
		b = append(b, keyText+byte(d.kind-kindText))
		rest := d.s
		for {
			n := bytes.IndexByte(rest, 0)
			if n < 0 {
				return append(append(b, rest...), 0, 1)
			}
			b = append(append(b, rest[:n]...), 0, 0xff)
			rest = rest[n+1:]
		}
	}
	return append(b, keyNull)
}

func wholeIfWhole(d datum) datum {
	if d.kind == kindFloat && d.f == math.Trunc(d.f) && math.Abs(d.f) < 1<<53 {
		return datum{kind: kindInt, i: int64(d.f)}
	}
	return d
}

var errKey = errors.New("the key of a group does not decode")

// decodeKey reads one value of a key and returns the rest.
func decodeKey(b []byte) (datum, []byte, error) {
	if len(b) == 0 {
		return datum{}, nil, errKey
	}
	tag, b := b[0], b[1:]
	switch {
	case tag == keyNull:
		return datum{}, b, nil
	case tag == keyBool && len(b) >= 1 && b[0] <= 1:
		return boolean(b[0] == 1), b[1:], nil
	case tag == keyNumber && len(b) >= 9:
		bits := binary.BigEndian.Uint64(b)
		if bits>>63 == 1 {
			bits &^= 1 << 63
		} else {
			bits = ^bits
		}
		d, isInt, b := datum{kind: kindFloat, f: math.Float64frombits(bits)}, b[8], b[9:]
		if isInt == 0 && !math.IsNaN(d.f) && !math.IsInf(d.f, 0) {
			return d, b, nil
		}
		if isInt != 1 || len(b) < 8 {
			return datum{}, nil, errKey
		}
		return datum{kind: kindInt, i: int64(binary.BigEndian.Uint64(b) ^ 1<<63)}, b[8:], nil
	case tag == keyText || tag == keyJSON:
		return decodeKeyText(kindText+kind(tag-keyText), b)
	}
	return datum{}, nil, errKey
}

func decodeKeyText(k kind, b []byte) (datum, []byte, error) {
	d := datum{kind: k, s: []byte{}}
	for {
		n := bytes.IndexByte(b, 0)
		if n < 0 || n+1 >= len(b) {
			return datum{}, nil, errKey
		}
		d.s = append(d.s, b[:n]...)
		mark := b[n+1]
		b = b[n+2:]
		if mark == 1 {
			break
		}
		if mark != 0xff {
			return datum{}, nil, errKey
		}
		d.s = append(d.s, 0)
	}
	if !utf8.Valid(d.s) {
		return datum{}, nil, errKey
	}
	return d, b, nil
}
