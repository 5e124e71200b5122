package users

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file. They bound memory and stack before the parser runs.
const (
	MaxFileBytes = 4 << 20 // MaxFileBytes of a users file are read
	MaxUsers     = 10_000  // MaxUsers of one file
	MaxNameBytes = 256     // MaxNameBytes of a user's name

	maxDepth   = 8
	maxColumn  = 64
	maxEntries = 100_000 // keys and elements of lists, together
	maxFaults  = 100     // are told of one file
)

// document is what a file says.
type document struct {
	defaults rules
	users    []*entry

	path string
	list *ast.SequenceNode // of users; nil: there is none
	told Faults
	more int // faults beyond those told
}

// rules are the lists of a user, or of defaults; nil: there is none.
type rules struct{ publish, subscribe *patterns }

// patterns are a list as it is written and as it is understood.
type patterns struct {
	text   []string
	parsed []pattern
	line   []int
}

// entry is one of the users.
type entry struct {
	name        string
	hash        *phc
	certificate bool
	rules
	line int
}

// account joins e with the defaults.
func (e *entry) account(d *document) *account {
	a := &account{hash: e.hash, certificate: e.certificate}
	if r := e.effective(d); r.publish != nil {
		a.publish = r.publish.parsed
	}
	if r := e.effective(d); r.subscribe != nil {
		a.subscribe = r.subscribe.parsed
	}
	return a
}

func (e *entry) effective(d *document) rules {
	r := e.rules
	if r.publish == nil {
		r.publish = d.defaults.publish
	}
	if r.subscribe == nil {
		r.subscribe = d.defaults.subscribe
	}
	return r
}

// warnings tell of users who may do nothing.
func (d *document) warnings() (list []string) {
	for _, e := range d.users {
		a := e.account(d)
		if len(a.publish) > 0 || len(a.subscribe) > 0 {
			continue
		}
		if len(list) == maxFaults {
			return append(list, d.path+": and more users who may do nothing")
		}
		list = append(list, fmt.Sprintf("%s:%d: user %q may neither publish nor subscribe; give the entry, or defaults, a list", d.path, e.line, e.name))
	}
	return list
}

// Fault is one thing that is wrong with a file, and where.
type Fault struct {
	File    string
	Line    int    // from 1; 0: the whole file
	Path    string // as users[2].publish[0]; empty: the file's form
	Message string // in one line; no hash and no password is in it
}

// String is FILE:LINE: PATH: MESSAGE.
func (f Fault) String() string {
	text := f.File
	if f.Line > 0 {
		text = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	if f.Path != "" {
		text += ": " + f.Path
	}
	return text + ": " + f.Message
}

// Faults is the error of Load and Reload for what is wrong with the text: all
// of it, in the order of the lines but for what only the whole shows.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// fault notes what is wrong at a key. Line 0 is the whole file.
func (d *document) fault(line int, key, format string, args ...any) {
	if len(d.told) == maxFaults {
		d.more++
		return
	}
	d.told = append(d.told, Fault{d.path, line, oneLine(key), oneLine(fmt.Sprintf(format, args...))})
}

func (d *document) err() error {
	switch {
	case len(d.told) == 0:
		return nil
	case d.more > 0:
		return append(d.told, Fault{File: d.path, Message: fmt.Sprintf("%d more faults", d.more)})
	}
	return d.told
}

func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// parse reads a whole file, or tells all that is wrong with it.
func parse(path string, text []byte) (*document, error) {
	d := &document{path: path}
	top, err := tree(text)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			// The message may quote the file, but not beyond the first line of it.
			message, _, _ := strings.Cut(syntax.GetMessage(), "\n")
			line := lineOf(syntax.GetToken())
			d.fault(line, "", "not YAML: %s%s", message, hint(text, line))
		} else {
			d.fault(0, "", "%v", err)
		}
		return nil, d.err()
	}
	for _, v := range d.mapping(top, "", 1, "users", "defaults") {
		switch v.key {
		case "defaults":
			for _, v := range d.mapping(v.value, "defaults", v.line, "publish", "subscribe") {
				d.rule(&d.defaults, v)
			}
		case "users":
			d.readUsers(v)
		}
	}
	d.check()
	if err := d.err(); err != nil {
		return nil, err
	}
	return d, nil
}

// hint says what is usually wrong with a line that is not YAML.
func hint(text []byte, line int) string {
	lines := strings.SplitN(string(text), "\n", line+1)
	if line < 1 || line > len(lines) {
		return ""
	}
	switch l := lines[line-1]; {
	case strings.Contains(l, "{user}") || strings.Contains(l, "{client_id}"):
		return `; a filter with braces or a # in a list [ ] is put in quotes: "devices/{user}/#"`
	case strings.Contains(l[:len(l)-len(strings.TrimLeft(l, " \t"))], "\t"):
		return "; the line is indented with a tab, and YAML wants spaces"
	}
	return ""
}

// tree returns the one document of a file, nil if it is empty. The parser is
// another's code: should it panic on some text, that text is not YAML.
func tree(text []byte) (body ast.Node, err error) {
	switch {
	case len(text) > MaxFileBytes:
		return nil, fmt.Errorf("the file is larger than %d MiB", MaxFileBytes>>20)
	case !utf8.Valid(text):
		return nil, errors.New("the text is not UTF-8")
	}
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, errors.New("not YAML: the parser cannot read it")
		}
	}()
	tokens := lexer.Tokenize(string(text))
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
			return nil, &yaml.SyntaxError{Message: "a second document (after ---) is not read", Token: document.Body.GetToken()}
		}
		body = document.Body
	}
	return body, nil
}

// checkSize refuses what nests too deep or has too much in it, before the
// recursive parser sees it, and all that a users file has no need of.
func checkSize(tokens token.Tokens) error {
	depth, entries := 0, 0
	for _, t := range tokens {
		deep := false
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
			deep = depth > maxDepth
		case token.SequenceEndType, token.MappingEndType:
			depth = max(depth-1, 0)
		case token.SequenceEntryType, token.MappingValueType:
			deep = depth == 0 && t.Position.Column > maxColumn
			entries++
		case token.CollectEntryType:
			entries++
		case token.TagType, token.AnchorType, token.AliasType, token.MappingKeyType, token.MergeKeyType, token.DirectiveType:
			return &yaml.SyntaxError{Message: "tags, anchors, aliases, merge keys and ? are not supported; write the values out", Token: t}
		}
		if deep {
			return &yaml.SyntaxError{Message: "it nests too deep", Token: t}
		}
		if entries > maxEntries {
			return &yaml.SyntaxError{Message: fmt.Sprintf("it has more than %d keys and elements of lists", maxEntries), Token: t}
		}
	}
	return nil
}

func lineOf(t *token.Token) int {
	if t == nil || t.Position == nil {
		return 0
	}
	return t.Position.Line
}

// keyed is an entry of a mapping.
type keyed struct {
	key   string
	path  string // of the key, from the top
	line  int
	value ast.Node
}

// mapping returns the entries of a mapping, without those that are unknown or
// doubled. An empty value has none.
func (d *document) mapping(n ast.Node, path string, line int, known ...string) (list []keyed) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return nil
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		d.fault(line, path, "it needs keys of its own: %s", strings.Join(known, ", "))
		return nil
	}
	seen := map[string]int{}
	for _, v := range values {
		key := ""
		if v.Key != nil && v.Key.GetToken() != nil {
			key, line = v.Key.GetToken().Value, lineOf(v.Key.GetToken())
		}
		e := keyed{key: key, path: strings.TrimPrefix(path+"."+key, "."), line: line, value: v.Value}
		switch at := seen[key]; {
		case at > 0:
			d.fault(line, e.path, "duplicate key; it is already in line %d", at)
		case !contains(known, key):
			d.fault(line, strings.TrimPrefix(path+"."+shorten(key), "."), "unknown key; known here are %s", strings.Join(known, ", "))
		default:
			seen[key] = line
			list = append(list, e)
		}
	}
	return list
}

func contains(list []string, text string) bool {
	for _, s := range list {
		if s == text {
			return true
		}
	}
	return false
}

// shorten bounds how much of a text a message repeats.
func shorten(text string) string {
	if runes := []rune(text); len(runes) > 64 {
		return string(runes[:64]) + "…"
	}
	return text
}

// text returns a value that is text. It may look like a number.
func (d *document) text(v keyed) (string, bool) {
	switch n := v.value.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	case nil, *ast.NullNode:
		d.fault(v.line, v.path, "it has no value")
	default:
		d.fault(v.line, v.path, "it is not a text; put it in quotes")
	}
	return "", false
}

func (d *document) readUsers(v keyed) {
	switch list := v.value.(type) {
	case nil, *ast.NullNode:
	case *ast.SequenceNode:
		d.list = list
		if len(list.Values) > MaxUsers {
			d.fault(v.line, v.path, "%d users are more than %d", len(list.Values), MaxUsers)
			return
		}
		for i, item := range list.Values {
			line := v.line
			if t := firstToken(item); t != nil {
				line = lineOf(t)
			}
			d.readUser(item, fmt.Sprintf("users[%d]", i), line)
		}
	default:
		d.fault(v.line, v.path, "it needs a list: a line with a dash for each user")
	}
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

func (d *document) readUser(n ast.Node, path string, line int) {
	e := &entry{line: line}
	keys := d.mapping(n, path, line, "name", "password", "certificate", "publish", "subscribe")
	// What has a fault counts as there: one fault is enough.
	named, credentials := false, false
	for _, v := range keys {
		switch v.key {
		case "name":
			named = true
			d.name(e, v)
		case "password":
			credentials = true
			if text, ok := d.text(v); ok {
				hash, err := parsePHC(text)
				if err != nil {
					d.fault(v.line, v.path, "%v", err)
				}
				e.hash = hash
			}
		case "certificate":
			if b, ok := v.value.(*ast.BoolNode); ok {
				e.certificate = b.Value
				credentials = credentials || b.Value
			} else {
				credentials = true
				d.fault(v.line, v.path, "it is not true or false")
			}
		default:
			d.rule(&e.rules, v)
		}
	}
	if !named {
		d.fault(line, path+".name", "missing; name the user")
	}
	if !credentials {
		d.fault(line, path, "it has neither a password nor certificate: true, so nobody can be this user; weir passwd sets one")
	}
	d.users = append(d.users, e)
}

func (d *document) name(e *entry, v keyed) {
	text, ok := d.text(v)
	if !ok {
		return
	}
	if err := checkName(text); err != nil {
		d.fault(v.line, v.path, "%v", err)
		return
	}
	e.name, e.line = text, v.line
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("the name has %d bytes; at most %d are accepted", len(name), MaxNameBytes)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the name has characters that do not print")
	}
	return nil
}

// rule reads publish or subscribe.
func (d *document) rule(r *rules, v keyed) {
	p := &patterns{}
	if v.key == "publish" {
		r.publish = p
	} else {
		r.subscribe = p
	}
	list, ok := v.value.(*ast.SequenceNode)
	switch {
	case !ok:
		d.fault(v.line, v.path, "it needs a list of filters such as [devices/{user}/#]; [] allows nothing")
		return
	case len(list.Values) > maxPatterns:
		d.fault(v.line, v.path, "%d filters are more than %d", len(list.Values), maxPatterns)
		return
	}
	for i, item := range list.Values {
		at := keyed{path: fmt.Sprintf("%s[%d]", v.path, i), line: v.line, value: item}
		if t := firstToken(item); t != nil {
			at.line = lineOf(t)
		}
		text, ok := d.text(at)
		if !ok {
			continue
		}
		parsed, err := parsePattern(text)
		if err != nil {
			d.fault(at.line, at.path, "%v", err)
			continue
		}
		p.text, p.parsed, p.line = append(p.text, text), append(p.parsed, parsed), append(p.line, at.line)
	}
}

// check looks at what only the whole can show.
func (d *document) check() {
	seen := map[string]int{}
	for i, e := range d.users {
		path := fmt.Sprintf("users[%d]", i)
		if e.name == "" {
			continue // told already
		}
		if at := seen[e.name]; at > 0 {
			d.fault(e.line, path+".name", "user %q is already in line %d", shorten(e.name), at)
		} else {
			seen[e.name] = e.line
		}
		if fits(e.name) {
			continue
		}
		r := e.effective(d)
		for _, list := range []*patterns{r.publish, r.subscribe} {
			for j := range list.length() {
				if list.parsed[j].uses('u') {
					d.fault(e.line, path+".name", "the pattern of line %d has {user}, which cannot stand for a name with / + or #: name the topics in a list of this user", list.line[j])
				}
			}
		}
	}
}

func (p *patterns) length() int {
	if p == nil {
		return 0
	}
	return len(p.parsed)
}
