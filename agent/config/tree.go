package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file. They bound memory and stack before the parser runs.
const (
	maxFileBytes = 1 << 20
	maxDepth     = 32
	// maxColumn bounds how deep blocks can be nested in a file whose depth is
	// not yet known: each level is at least one column further right.
	maxColumn = 256
	// maxEntries are the keys and elements of lists in a file, for the parser's
	// time grows with the square of the keys. Five hundred cameras with all that can
	// be said of them have half as many.
	maxEntries = 10_000
)

type kind int

const (
	null kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"empty", "a single value", "a list", "a mapping of keys"}[k]
}

// node is a YAML value. weir has its own tree so that drop-ins can be merged,
// positions kept and everything it does not know refused, in one place.
type node struct {
	kind    kind
	at      position // a scalar's own place; else that of its key
	text    string   // of a scalar, as written but for quotes and escapes
	literal bool     // the scalar is an unquoted true or false
	entries []entry  // of a mapping, in the file's order, keys unique
	index   map[string]int
	items   []*node // of a list

	// Set when the scalar was expanded; see expand.go.
	placeholders []string
	inserted     []string
	unresolved   bool

	broken bool // it has a fault of form, and no value
}

type entry struct {
	key   string
	at    position
	value *node
}

// parse makes the tree of one file. It returns nil if the text is not YAML; of
// such faults only the first is known, for nothing after it can be trusted.
func (c *collector) parse(file int, data []byte) *node {
	top := place{at: position{file: file}}
	switch {
	case len(data) > maxFileBytes:
		c.fault(top, "the file is larger than 1MiB")
		return nil
	case !utf8.Valid(data):
		top.at.line = 1 + strings.Count(string(data[:validPrefix(data)]), "\n")
		c.fault(top, "the text is not UTF-8")
		return nil
	}
	document, err := parseDocument(data)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil && syntax.GetToken().Position != nil {
			top.at = placeOf(file, syntax.GetToken())
			c.fault(top, "not YAML: %s%s", syntax.GetMessage(), tabHint(data, top.at.line))
		} else {
			c.fault(top, "not YAML: %s", firstLine(err.Error()))
		}
		return nil
	}
	top.at.line = 1
	if document == nil {
		return &node{at: top.at}
	}
	b := builder{collector: c, file: file}
	n := b.build(document, top, 0)
	if n.kind != mapping && n.kind != null {
		c.fault(top, "a configuration is a mapping of keys such as node, buffer, streams; this is %s", n.kind)
		return nil
	}
	return n
}

// tabHint says what is wrong with a line that is indented with tabs.
func tabHint(data []byte, line int) string {
	text := ""
	for range line {
		text, data, _ = cutLine(data)
	}
	if indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]; strings.Contains(indent, "\t") {
		return "; the line is indented with a tab, and YAML wants spaces"
	}
	return ""
}

func cutLine(data []byte) (string, []byte, bool) {
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	return string(line), rest, ok
}

func validPrefix(data []byte) int {
	n := 0
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		n += size
	}
	return n
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// parseDocument returns the one document of data, nil if there is none. The
// parser is another's code: should it panic on some text, that text is not
// YAML.
func parseDocument(data []byte) (body ast.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, errors.New("the parser cannot read it")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if err := checkSize(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	for _, document := range file.Docs {
		if document.Body == nil {
			continue
		}
		if body != nil {
			return nil, &yaml.SyntaxError{Message: "a second document (after ---) is not read; put it in a file of its own", Token: document.Body.GetToken()}
		}
		body = document.Body
	}
	return body, nil
}

// checkSize refuses what nests too deep or has too much in it, before the
// recursive parser sees it.
func checkSize(tokens token.Tokens) error {
	depth, run, entries := 0, 0, 0
	for _, t := range tokens {
		deep := false
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
			deep = depth > maxDepth
		case token.SequenceEndType, token.MappingEndType:
			depth = max(depth-1, 0)
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			deep = depth == 0 && t.Position.Column > maxColumn
		}
		switch t.Type {
		case token.MappingValueType, token.SequenceEntryType, token.CollectEntryType:
			entries++
		}
		if entries > maxEntries {
			return &yaml.SyntaxError{Message: fmt.Sprintf("it has more than %d keys and elements of lists", maxEntries), Token: t}
		}
		// Tags, anchors and the like nest without a bracket or a column.
		switch t.Type {
		case token.TagType, token.AnchorType, token.MappingKeyType, token.AliasType, token.DirectiveType:
			run++
			deep = deep || run > maxDepth
		}
		if deep {
			return &yaml.SyntaxError{Message: fmt.Sprintf("it nests deeper than %d levels", maxDepth), Token: t}
		}
	}
	return nil
}

// builder turns the parser's tree into ours.
type builder struct {
	*collector
	file int
}

func placeOf(file int, t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{file: file, line: 1}
	}
	return position{file: file, line: t.Position.Line, column: t.Position.Column}
}

// build converts one node. p has its path and a position to fall back on; it
// returns a null node after a fault.
func (b *builder) build(from ast.Node, p place, depth int) *node {
	n := &node{at: p.at}
	if depth > maxDepth {
		b.fault(p, "it nests deeper than %d levels", maxDepth)
		return n
	}
	switch v := from.(type) {
	case nil, *ast.NullNode:
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.LiteralNode:
		n.kind, n.text = scalar, textOf(from)
		_, n.literal = from.(*ast.BoolNode)
		if at := placeOf(b.file, from.GetToken()); at.column > 0 {
			n.at = at
		}
	case *ast.SequenceNode:
		n.kind = list
		for i, value := range v.Values {
			item := p.item(i)
			if t := firstToken(value); t != nil {
				item.at = placeOf(b.file, t)
			}
			n.items = append(n.items, b.build(value, item, depth+1))
		}
	case *ast.MappingNode:
		n.kind = mapping
		b.buildEntries(n, v.Values, p, depth)
	case *ast.MappingValueNode:
		n.kind = mapping
		b.buildEntries(n, []*ast.MappingValueNode{v}, p, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		p.at = placeOf(b.file, from.GetToken())
		b.fault(p, "anchors (&name) and aliases (*name) are not supported; write the value out")
	case *ast.TagNode:
		p.at = placeOf(b.file, from.GetToken())
		b.fault(p, "tags (!name) are not supported; a text that looks like something else is put in quotes")
	default:
		b.fault(p, "this form of YAML is not supported")
	}
	n.broken = n.kind == null && b.at[p.path]
	return n
}

func (b *builder) buildEntries(n *node, values []*ast.MappingValueNode, p place, depth int) {
	n.index = make(map[string]int, len(values))
	for _, v := range values {
		key, ok := b.keyOf(v.Key, p)
		if !ok {
			continue
		}
		at := placeOf(b.file, v.Key.GetToken())
		child := place{path: join(p.path, key), at: at}
		if i, ok := n.index[key]; ok {
			b.fault(child, "duplicate key; it is already in line %d", n.entries[i].at.line)
			continue
		}
		n.add(entry{key: key, at: at, value: b.build(v.Value, child, depth+1)})
	}
}

// keyOf returns the text of a mapping's key.
func (b *builder) keyOf(from ast.MapKeyNode, p place) (string, bool) {
	if from == nil {
		b.fault(p, "a key is missing")
		return "", false
	}
	p.at = placeOf(b.file, from.GetToken())
	if from.IsMergeKey() {
		b.fault(p, "merge keys (<<) are not supported; write the keys out")
		return "", false
	}
	switch from.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
	default:
		b.fault(p, "a key must be plain text")
		return "", false
	}
	key := textOf(from)
	if key == "" || len(key) > 256 || unprintable.MatchString(key) {
		b.fault(p, "a key must be 1 to 256 printable characters")
		return "", false
	}
	return key, true
}

// textOf returns a scalar as it is written, so that 0123 stays that where text
// is wanted.
func textOf(from ast.Node) string {
	switch v := from.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		if v.Value == nil {
			return ""
		}
		return v.Value.Value
	}
	if t := from.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

// firstToken is where a person would say that a value begins.
func firstToken(n ast.Node) *token.Token {
	switch v := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if len(v.Values) > 0 && v.Values[0].Key != nil {
			return v.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		if v.Key != nil {
			return v.Key.GetToken()
		}
	}
	return n.GetToken()
}

// merge adds a drop-in to n: mappings key by key, lists by appending, and a
// single value takes the place of the one before.
func (n *node) merge(more *node) {
	switch {
	case more.kind == null:
	case n.kind == mapping && more.kind == mapping:
		for _, e := range more.entries {
			if i, known := n.index[e.key]; known {
				n.entries[i].value.merge(e.value)
			} else {
				n.add(e)
			}
		}
	case n.kind == list && more.kind == list:
		n.items = append(n.items, more.items...)
	default:
		*n = *more
	}
}

func (n *node) add(e entry) {
	n.index[e.key] = len(n.entries)
	n.entries = append(n.entries, e)
}
