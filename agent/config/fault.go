package config

import (
	"cmp"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
)

// maxFaults are told of one configuration. A file with more is not a
// configuration, and nobody reads further.
const maxFaults = 500

// Fault is one thing that is wrong, and where. Message has no secret in it.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // from 1; 0: the whole file
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Path    string `json:"path,omitempty"`   // as uplink[2].batch.max_records; empty: the file's form
	Message string `json:"message"`
}

// String is FILE:LINE: PATH: MESSAGE, in one line.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults is the error of Load and Parse: everything that is wrong, in the
// order of the files and their lines.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// position is a place in one of the files; file counts them in reading order.
type position struct {
	file         int
	line, column int
}

// collector gathers faults and warnings while a configuration is read.
type collector struct {
	files    []string // by position.file
	faults   []placed
	warnings []placed
	at       map[string]bool // paths of the faults so far
	above    map[string]bool // and all that they lie beneath
	inserted []string        // what placeholders stood for: never to be seen
}

type placed struct {
	at    position
	fault Fault
}

func newCollector() *collector { return &collector{at: map[string]bool{}, above: map[string]bool{}} }

// fault notes what is wrong at p. Secrets are taken out of the text.
func (c *collector) fault(p place, format string, args ...any) {
	message := c.conceal(p, fmt.Sprintf(format, args...))
	c.faults = append(c.faults, c.place(p, message))
	c.spoil(p.path)
}

// spoil notes that what is at path has a fault.
func (c *collector) spoil(path string) {
	if path == "" {
		return
	}
	c.at[path] = true
	for outer := range ancestors(path) {
		c.above[outer] = true
	}
}

func (c *collector) warn(p place, format string, args ...any) {
	c.warnings = append(c.warnings, c.place(p, c.conceal(p, fmt.Sprintf(format, args...))))
}

func (c *collector) place(p place, message string) placed {
	return placed{p.at, Fault{
		File: c.files[p.at.file], Line: p.at.line, Column: p.at.column, Path: p.path, Message: message,
	}}
}

// told says whether a fault at path would only repeat one already noted there,
// above or beneath it.
func (c *collector) told(path string) bool {
	if c.at[path] || c.above[path] {
		return true
	}
	for outer := range ancestors(path) {
		if c.at[outer] {
			return true
		}
	}
	return false
}

// ancestors are the paths that path lies beneath: of a.b[2].c they are a.b[2],
// a.b and a.
func ancestors(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := len(path) - 1; i > 0; i-- {
			if (path[i] == '.' || path[i] == '[') && !yield(path[:i]) {
				return
			}
		}
	}
}

// err returns the faults in order, or nil.
func (c *collector) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	return Faults(sorted(c.faults))
}

// sorted orders by place, drops repetitions and bounds the number.
func sorted(list []placed) []Fault {
	slices.SortStableFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.line, b.at.line),
			cmp.Compare(a.at.column, b.at.column), cmp.Compare(a.fault.Path, b.fault.Path))
	})
	list = slices.CompactFunc(list, func(a, b placed) bool { return a.fault == b.fault })
	var out []Fault
	for i, p := range list {
		if i == maxFaults {
			out = append(out, Fault{File: p.fault.File, Message: fmt.Sprintf("%d more faults", len(list)-i)})
			break
		}
		out = append(out, p.fault)
	}
	return out
}

// userinfo is the part of an address that may hold a password.
var userinfo = regexp.MustCompile(`://[^\s"]*@`)

// line breaks and the like would break the rule of one line for each fault.
var unprintable = regexp.MustCompile(`[\x00-\x1f\x7f]+`)

// minRun is how many characters of a value in a message give too much of it
// away.
const minRun = 4

// conceal takes out of a message what must not be seen: what placeholders
// stood for, and users and passwords in addresses. A message about the very
// value that holds a placeholder is given up as a whole if it shows a piece of
// it, for a value may be cut or escaped in it in ways unknown here.
func (c *collector) conceal(p place, message string) string {
	message = unprintable.ReplaceAllString(userinfo.ReplaceAllString(message, "://***@"), " ")
	if p.node != nil && len(p.node.inserted) > 0 {
		for _, value := range p.node.inserted {
			if shows(message, value) {
				return fmt.Sprintf("what %s stands for is not accepted here (its text is not shown)", strings.Join(p.node.placeholders, " and "))
			}
		}
	}
	for _, value := range c.inserted {
		for _, form := range forms(value) {
			if len(form) >= minRun {
				message = strings.ReplaceAll(message, form, "***")
			}
		}
	}
	return message
}
