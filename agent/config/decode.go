package config

import (
	"encoding"
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-edge/weir/configs/value"
)

// decoder fills Go values from the tree. It goes on after a fault, so that all
// of them are told.
type decoder struct {
	*expander
	defaults map[reflect.Type]reflect.Value // what an element or entry starts from
	later    map[reflect.Type][]string      // keys of a struct that this version knows of but has no part for
	skip     map[reflect.Type]func(place) bool
	written  map[string]string // path -> text with placeholders, for Redacted
	literals []place           // secrets that stand in the file itself
}

var (
	secretType = reflect.TypeFor[value.Secret]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// decode sets v from what is at p.
func (d *decoder) decode(p place, v reflect.Value) {
	if p.node.broken {
		return
	}
	if v.Kind() == reflect.Pointer {
		if p.node.kind == null {
			return // its keys may be commented out: then it is not there
		}
		if v.IsNil() {
			v.Set(d.fresh(v.Type().Elem()).Addr())
		}
		v = v.Elem()
	}
	if skip := d.skip[v.Type()]; skip != nil && skip(p) {
		return
	}
	if v.Addr().Type().Implements(textType) {
		d.decodeText(p, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if d.expect(p, mapping, "keys of its own: "+strings.Join(keysOf(v.Type()), ", ")) {
			d.decodeStruct(p, v)
		}
	case reflect.Map:
		if d.expect(p, mapping, "names with their values, NAME: VALUE") {
			d.decodeMap(p, v)
		}
	case reflect.Slice:
		if d.expect(p, list, "a list, [A, B] or a line with a dash for each") {
			d.decodeList(p, v)
		}
	default:
		d.decodeScalar(p, v)
	}
}

// expect says whether the node is of the wanted kind. An empty one sets
// nothing and is no fault: its keys may be commented out.
func (d *decoder) expect(p place, want kind, needs string) bool {
	if p.node.kind != want && p.node.kind != null {
		d.fault(p, "it is %s and needs %s", p.node.kind, needs)
	}
	return p.node.kind == want
}

// fresh returns an addressable value of a type with its defaults.
func (d *decoder) fresh(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	if initial, ok := d.defaults[t]; ok {
		v.Set(initial)
	}
	return v
}

func (d *decoder) decodeStruct(p place, v reflect.Value) {
	fields := map[string]reflect.Value{}
	collectFields(v, fields)
	for _, e := range p.node.entries {
		child := place{path: join(p.path, e.key), node: e.value, at: e.value.at}
		if field, ok := fields[e.key]; ok {
			d.decode(child, field)
			continue
		}
		child.at = e.at
		if slices.Contains(d.later[v.Type()], e.key) {
			d.fault(child, notSupported)
			continue
		}
		d.unknown(child, e.key, p, keysOf(v.Type()))
	}
}

// unknown tells of a key that does not exist and which one may be meant.
func (d *decoder) unknown(p place, key string, outer place, known []string) {
	meant := nearest(key, known)
	if meant == "" {
		d.fault(p, "unknown key; known here are %s", strings.Join(known, ", "))
		return
	}
	d.fault(p, "unknown key; did you mean %s?", meant)
	if outer.key(meant).node == nil {
		d.spoil(join(outer.path, meant)) // that it is missing need not be told, too
	}
}

// yamlName returns a field's key; inline says that the fields of a struct
// stand beside those of the outer one.
func yamlName(f reflect.StructField) (name string, inline bool) {
	tag := f.Tag.Get("yaml")
	name, options, _ := strings.Cut(tag, ",")
	if !f.IsExported() || name == "-" {
		return "", false
	}
	return name, options == "inline"
}

func collectFields(v reflect.Value, fields map[string]reflect.Value) {
	for i := range v.NumField() {
		switch name, inline := yamlName(v.Type().Field(i)); {
		case inline:
			collectFields(v.Field(i), fields)
		case name != "":
			fields[name] = v.Field(i)
		}
	}
}

// keysOf are the keys of a struct, in the order of its fields.
func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		switch name, inline := yamlName(t.Field(i)); {
		case inline:
			keys = append(keys, keysOf(t.Field(i).Type)...)
		case name != "" && !slices.Contains(keys, name):
			keys = append(keys, name)
		}
	}
	return keys
}

func (d *decoder) decodeMap(p place, v reflect.Value) {
	v.Set(reflect.MakeMapWithSize(v.Type(), len(p.node.entries)))
	for _, e := range p.node.entries {
		element := d.fresh(v.Type().Elem())
		d.decode(place{path: join(p.path, e.key), node: e.value, at: e.value.at}, element)
		v.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), element)
	}
}

func (d *decoder) decodeList(p place, v reflect.Value) {
	v.Set(reflect.MakeSlice(v.Type(), 0, len(p.node.items)))
	for i := range p.node.items {
		element := d.fresh(v.Type().Elem())
		d.decode(p.item(i), element)
		v.Set(reflect.Append(v, element))
	}
}

// scalar returns the expanded text at p. ok is false after a fault, and where
// a placeholder is not resolved and its text is of no use.
func (d *decoder) scalar(p place, useful bool) (text string, ok bool) {
	switch p.node.kind {
	case null:
		d.fault(p, "it has no value; leave the key out for its default")
		return "", false
	case list, mapping:
		d.fault(p, "it is %s and needs a single value", p.node.kind)
		return "", false
	}
	text, ok = d.expand(p)
	if len(p.node.placeholders) > 0 {
		d.written[p.path] = p.node.text
	}
	return text, ok && (useful || !p.node.unresolved)
}

func (d *decoder) decodeText(p place, v reflect.Value) {
	text, ok := d.scalar(p, v.Type() == secretType)
	if !ok {
		return
	}
	if p.node.literal && v.Type() == secretType {
		d.fault(p, "%s is not text; put it in quotes", text)
		return
	}
	u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		return // cannot be: the caller looked
	}
	if v.Type() == secretType && len(p.node.placeholders) == 0 && text != "" {
		d.literals = append(d.literals, p)
	}
	if err := u.UnmarshalText([]byte(text)); err != nil {
		d.fault(p, "%v", err)
	}
}

func (d *decoder) decodeScalar(p place, v reflect.Value) {
	text, ok := d.scalar(p, v.Kind() == reflect.String)
	if !ok {
		return
	}
	var err error
	switch {
	case v.Kind() == reflect.String:
		if p.node.literal {
			d.fault(p, "%s is not text; put it in quotes", text)
			return
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		err = setBool(v, text)
	case v.CanInt():
		var n int64
		if n, err = strconv.ParseInt(text, 10, v.Type().Bits()); err == nil {
			v.SetInt(n)
		}
	case v.CanUint():
		var n uint64
		if n, err = strconv.ParseUint(text, 10, v.Type().Bits()); err == nil {
			v.SetUint(n)
		}
	case v.CanFloat():
		var n float64
		if n, err = strconv.ParseFloat(text, v.Type().Bits()); err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
			err = strconv.ErrSyntax
		}
		if err == nil {
			v.SetFloat(n)
		}
	default:
		d.fault(p, "weir has a field of kind %s here, which no file can set", v.Kind())
	}
	if err != nil {
		d.fault(p, "%s", wrongScalar(v, text, err))
	}
}

func setBool(v reflect.Value, text string) error {
	switch text {
	case "true", "True", "TRUE":
		v.SetBool(true)
	case "false", "False", "FALSE":
		v.SetBool(false)
	default:
		return strconv.ErrSyntax
	}
	return nil
}

// wrongScalar says what would be right.
func wrongScalar(v reflect.Value, text string, err error) string {
	want := "a whole number"
	switch {
	case v.Kind() == reflect.Bool:
		want = "true or false"
	case v.CanFloat():
		want = "a number"
	case v.CanUint():
		want = "a whole number from 0 on"
	}
	if errors.Is(err, strconv.ErrRange) {
		want += " that can be held"
	}
	return strconv.Quote(shorten(text)) + " is not " + want
}

// shorten bounds how much of a text a message repeats.
func shorten(text string) string {
	if runes := []rune(text); len(runes) > 64 {
		return string(runes[:64]) + "…"
	}
	return text
}

// nearest returns the known key that is most like the given one, or "" if none
// is like it.
func nearest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, least := "", 1+max(1, min(len(key)/3, 3))
	for _, k := range known {
		if d := distance(strings.ToLower(strings.ReplaceAll(key, "-", "_")), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of characters to insert, delete, replace or swap with
// the next one to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
