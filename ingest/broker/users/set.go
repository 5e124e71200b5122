package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Change is what Set makes of a user's entry. What is nil stays as it is.
type Change struct {
	Password    []byte // is hashed; it is not kept
	Certificate *bool
	Publish     *[]string // an empty list allows nothing
	Subscribe   *[]string
}

// Set adds the user to the file at path, or changes the entry there, and says
// which: added or not. A file that is missing is made with mode 0600. Comments
// and other entries keep their text; owner and mode stay, but that others lose
// what they may. The new file takes the place of the old one at once and is on
// the disk when Set returns.
//
// It refuses a file that has a fault, a result that would have one, and text it
// cannot edit without touching more, such as an entry in braces: the error says
// so, and the file is as before. Two at the same time may lose one's change.
func Set(path, name string, c Change) (added bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	var w wanted
	if c.Password != nil {
		text, err := Hash(c.Password)
		if err != nil {
			return false, err
		}
		w.password = &text
	}
	w.certificate = c.Certificate
	w.publish, w.subscribe = c.Publish, c.Subscribe
	e, err := open(path, true)
	if err != nil {
		return false, err
	}
	at := e.find(name)
	expected := slices.Clone(e.before)
	if added = at < 0; added {
		expected = append(expected, w.apply(plain{name: name}))
		err = e.add(name, w)
	} else {
		expected[at] = w.apply(expected[at])
		err = e.change(at, w)
	}
	if err != nil {
		return false, err
	}
	return added, e.save(expected)
}

// Delete takes the user out of the file at path, with the same care as Set. It
// is an error that wraps fs.ErrNotExist if there is no such user.
func Delete(path, name string) error {
	e, err := open(path, false)
	if err != nil {
		return err
	}
	at := e.find(name)
	if at < 0 {
		return fmt.Errorf("user %q in %s: %w", name, path, fs.ErrNotExist)
	}
	first, end := e.item(at)
	e.lines = slices.Delete(e.lines, first, end)
	if len(e.before) == 1 {
		// A list of nothing is written as such.
		e.lines = slices.Insert(e.lines, first, "  []")
	}
	return e.save(slices.Delete(slices.Clone(e.before), at, at+1))
}

// plain is what an entry says, for comparison.
type plain struct {
	name, password     string
	certificate        bool
	publish, subscribe *[]string
}

func plainOf(d *document) (list []plain) {
	for _, e := range d.users {
		p := plain{name: e.name, certificate: e.certificate, publish: e.publish.written(), subscribe: e.subscribe.written()}
		if e.hash != nil {
			p.password = e.hash.text
		}
		list = append(list, p)
	}
	return list
}

func (p *patterns) written() *[]string {
	if p == nil {
		return nil
	}
	list := append([]string{}, p.text...)
	return &list
}

// wanted are the keys to set.
type wanted struct {
	password           *string
	certificate        *bool
	publish, subscribe *[]string
}

func (w wanted) apply(p plain) plain {
	if w.password != nil {
		p.password = *w.password
	}
	if w.certificate != nil {
		p.certificate = *w.certificate
	}
	for _, l := range []struct {
		to   **[]string
		from *[]string
	}{{&p.publish, w.publish}, {&p.subscribe, w.subscribe}} {
		if l.from != nil {
			list := append([]string{}, *l.from...)
			*l.to = &list
		}
	}
	return p
}

// pairs are the keys with their values in YAML, in the order to write them.
func (w wanted) pairs() (list [][2]string) {
	if w.password != nil {
		list = append(list, [2]string{"password", strconv.Quote(*w.password)})
	}
	if w.certificate != nil {
		list = append(list, [2]string{"certificate", strconv.FormatBool(*w.certificate)})
	}
	if w.publish != nil {
		list = append(list, [2]string{"publish", flow(*w.publish)})
	}
	if w.subscribe != nil {
		list = append(list, [2]string{"subscribe", flow(*w.subscribe)})
	}
	return list
}

func flow(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes text in single quotes, which know one escape only.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// editor changes the text of a file by lines. It knows only how people write
// such files; save finds out if it was wrong.
type editor struct {
	path   string // behind symbolic links
	info   fs.FileInfo
	lines  []string
	first  []int // index of the line where each user begins
	before []plain
	rules  rules // of defaults, which must not change
}

// header opens a new file.
const header = `# Who may use the MQTT broker of weir. "weir passwd FILE USER" edits this file.
# What no list allows is denied; {user} and {client_id} stand for one level.
# Users without lists of their own have those of defaults:
# defaults:
#   publish: ["devices/{user}/#"]
#   subscribe: ["commands/{user}/#"]`

// open reads the file; missing ones are empty if create is set.
func open(path string, create bool) (*editor, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	text, stamp, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return &editor{path: path, lines: strings.Split(header, "\n")}, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	e := &editor{path: path, info: stamp.info, before: plainOf(d), rules: d.defaults}
	if body := strings.TrimSuffix(string(text), "\n"); body != "" {
		e.lines = strings.Split(body, "\n")
	}
	if d.list != nil {
		for _, item := range d.list.Values {
			e.first = append(e.first, lineOf(firstToken(item))-1)
		}
	}
	return e, nil
}

func (e *editor) find(name string) int {
	return slices.IndexFunc(e.before, func(p plain) bool { return p.name == name })
}

// errByHand: the text is sound YAML and not as an editor by lines knows it.
var errByHand = errors.New("this entry is written in a way that has to be edited by hand; give each user a dash and each key a line")

var (
	dashed  = regexp.MustCompile(`^( *)-( +)`)
	comment = regexp.MustCompile(`^\s*(#.*)?$`)
	listKey = regexp.MustCompile(`^(["']?users["']?\s*:)\s*(\[\s*\]|~|null)?\s*(#.*)?$`)
)

// indent is how far a line is indented.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// end returns the index after the last line of what begins at first and is
// indented by more than column; comments and blank lines after it are not its
// own.
func (e *editor) end(first, column int) int {
	last := first
	for i := first + 1; i < len(e.lines); i++ {
		if comment.MatchString(e.lines[i]) {
			continue
		}
		if indent(e.lines[i]) <= column {
			break
		}
		last = i
	}
	return last + 1
}

// item returns the lines of a user.
func (e *editor) item(at int) (first, end int) {
	first = e.first[at]
	return first, e.end(first, indent(e.lines[first]))
}

// change sets keys of the user at that place.
func (e *editor) change(at int, w wanted) error {
	first, end := e.item(at)
	m := dashed.FindStringSubmatch(e.lines[first])
	if m == nil || strings.HasPrefix(e.lines[first][len(m[0]):], "{") {
		return errByHand
	}
	column := len(m[0])
	for _, pair := range w.pairs() {
		key := regexp.MustCompile(fmt.Sprintf(`^( {%d}|%s)(["']?%s["']?\s*:)(\s.*)?$`, column, regexp.QuoteMeta(m[0]), pair[0]))
		i := slices.IndexFunc(e.lines[first:end], key.MatchString)
		if i < 0 {
			e.lines = slices.Insert(e.lines, end, strings.Repeat(" ", column)+pair[0]+": "+pair[1])
			end++
			continue
		}
		i += first
		part := key.FindStringSubmatch(e.lines[i])
		e.lines[i] = part[1] + part[2] + " " + pair[1] + trailing(part[3])
		stop := max(e.keyEnd(i, column), i+1)
		e.lines = slices.Delete(e.lines, i+1, stop)
		end -= stop - i - 1
	}
	return nil
}

// keyEnd is where the value of a key at that column ends. The elements of its
// list may stand at the column of the key.
func (e *editor) keyEnd(first, column int) int {
	last := first
	for i := first + 1; i < len(e.lines); i++ {
		line := e.lines[i]
		if comment.MatchString(line) {
			continue
		}
		if in := indent(line); in < column || in == column && !strings.HasPrefix(line[in:], "- ") {
			break
		}
		last = i
	}
	return last + 1
}

// trailing returns the comment at the end of a value.
func trailing(value string) string {
	quoted := byte(0)
	for i := 1; i < len(value); i++ {
		switch c := value[i]; {
		case quoted != 0:
			if c == quoted {
				quoted = 0
			}
		case (c == '"' || c == '\'') && strings.ContainsAny(value[i-1:i], " ,["):
			quoted = c
		case c == '#' && (value[i-1] == ' ' || value[i-1] == '\t'):
			return " " + value[i:]
		}
	}
	return ""
}

// add writes a new user after the last one.
func (e *editor) add(name string, w wanted) error {
	column, spaces, at := "  ", " ", 0
	if len(e.first) > 0 {
		_, at = e.item(len(e.first) - 1)
		m := dashed.FindStringSubmatch(e.lines[e.first[len(e.first)-1]])
		if m == nil {
			return errByHand
		}
		column, spaces = m[1], m[2]
	} else if i := slices.IndexFunc(e.lines, listKey.MatchString); i >= 0 {
		m := listKey.FindStringSubmatch(e.lines[i])
		e.lines[i] = strings.TrimRight(m[1]+" "+m[3], " ")
		at = i + 1
		if at < len(e.lines) && strings.TrimSpace(e.lines[at]) == "[]" {
			e.lines = slices.Delete(e.lines, at, at+1)
		}
	} else {
		e.lines = append(e.lines, "users:")
		at = len(e.lines)
	}
	text := []string{column + "-" + spaces + "name: " + quote(name)}
	for _, pair := range w.pairs() {
		text = append(text, column+" "+spaces+pair[0]+": "+pair[1])
	}
	e.lines = slices.Insert(e.lines, at, text...)
	return nil
}

// save writes the text if it says just what was expected.
func (e *editor) save(expected []plain) error {
	text := []byte(strings.Join(e.lines, "\n") + "\n")
	d, err := parse(e.path, text)
	if err != nil {
		return fmt.Errorf("with this change the file would not be right: %w", err)
	}
	sameLists := reflect.DeepEqual(d.defaults.publish.written(), e.rules.publish.written()) &&
		reflect.DeepEqual(d.defaults.subscribe.written(), e.rules.subscribe.written())
	if got := plainOf(d); !sameLists || len(got) != len(expected) || len(got) > 0 && !reflect.DeepEqual(got, expected) {
		return errByHand
	}
	return e.write(text)
}

// write replaces the file at once.
func (e *editor) write(text []byte) (err error) {
	dir := filepath.Dir(e.path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(e.path)+".*")
	if err != nil {
		return fmt.Errorf("write users file: %w", err)
	}
	renamed := false
	defer func() {
		if err != nil && !renamed {
			err = errors.Join(err, os.Remove(file.Name()))
		}
		if err != nil {
			err = fmt.Errorf("write users file: %w", err)
		}
	}()
	// A directory that hands its group down does so for a daemon that is to read
	// what is in it (systemd/README.md).
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(dir); err == nil && info.Mode()&fs.ModeSetgid != 0 {
		mode = 0o640
	}
	if e.info != nil {
		mode = e.info.Mode().Perm() & 0o640
		if owner, ok := e.info.Sys().(*syscall.Stat_t); ok && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
			err = file.Chown(int(owner.Uid), int(owner.Gid))
		}
	}
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), e.path); err != nil {
		return err
	}
	renamed = true
	return syncDir(dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
