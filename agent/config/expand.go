package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// maxSecretBytes bounds a file that ${file:PATH} names.
const maxSecretBytes = 64 << 10

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expander replaces ${NAME} and ${file:PATH} in single values. Without
// resolve it only checks their form, and leaves the text as it is.
type expander struct {
	*collector
	resolve   bool
	lookupEnv func(string) (string, bool)
}

// expand returns the text of the scalar at p; false after a fault.
func (e *expander) expand(p place) (string, bool) {
	var out strings.Builder
	ok, rest := true, p.node.text
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			out.WriteString(rest)
			return out.String(), ok
		}
		if i > 0 && rest[i-1] == '$' { // $${ is a ${ that means itself
			out.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		out.WriteString(rest[:i])
		end := closing(rest[i:])
		if end < 0 {
			e.fault(p, "a ${ has no }; write $${ for these two characters themselves")
			return "", false
		}
		text, good := e.placeholder(p, rest[i:i+end+1])
		ok = ok && good
		out.WriteString(text)
		rest = rest[i+end+1:]
	}
}

// closing returns where the } stands that ends the ${ at the start of text;
// another placeholder may stand inside.
func closing(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], "${"):
			depth++
		case text[i] == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// placeholder returns what one placeholder stands for.
func (e *expander) placeholder(p place, text string) (string, bool) {
	name := text[len("${") : len(text)-1]
	path, isFile := strings.CutPrefix(name, "file:")
	var err error
	switch {
	case isFile:
		path, err = e.filePath(path)
	case !variable.MatchString(name):
		err = fmt.Errorf("${…} must hold NAME of an environment variable or file:PATH; write $${ for these two characters themselves")
	}
	if err != nil {
		e.fault(p, "%v", err)
		return "", false
	}
	p.node.placeholders = append(p.node.placeholders, text)
	if !e.resolve {
		p.node.unresolved = true
		return text, true
	}
	value := ""
	if isFile {
		value, err = e.readSecret(p, path)
	} else {
		value, err = e.variable(name)
	}
	if err != nil {
		e.fault(p, "%v", err)
		return "", false
	}
	p.node.inserted = append(p.node.inserted, value)
	e.inserted = append(e.inserted, value)
	return value, true
}

func (e *expander) variable(name string) (string, error) {
	value, ok := e.lookupEnv(name)
	switch {
	case !ok:
		return "", fmt.Errorf("environment variable %s is not set", name)
	case value == "":
		return "", fmt.Errorf("environment variable %s is empty", name)
	case len(value) > maxSecretBytes:
		return "", fmt.Errorf("environment variable %s is longer than 64KiB", name)
	}
	return value, nil
}

// inPath are the variables in the path of a file, such as systemd's
// CREDENTIALS_DIRECTORY.
var inPath = regexp.MustCompile(`\$\{([^}]*)\}`)

// filePath expands the variables in the PATH of ${file:PATH}.
func (e *expander) filePath(path string) (string, error) {
	if path == "" {
		return "", errors.New("${file:} names no file; write ${file:/etc/weir/name.pass}")
	}
	var err error
	path = inPath.ReplaceAllStringFunc(path, func(text string) string {
		name := text[len("${") : len(text)-1]
		if !variable.MatchString(name) {
			err = errors.New("the path in ${file:PATH} may hold ${NAME} of an environment variable, nothing else")
		}
		if err != nil || !e.resolve {
			return text
		}
		var value string
		value, err = e.variable(name)
		return value
	})
	return path, err
}

// readSecret reads a small regular file and cuts the line break at its end.
func (e *expander) readSecret(p place, path string) (value string, err error) {
	// A FIFO would hold the start up for ever without O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read file %s: %w", path, cause(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read file %s: %w", path, cause(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("read file %s: it is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", fmt.Errorf("read file %s: %w", path, cause(err))
	}
	if len(data) > maxSecretBytes {
		return "", fmt.Errorf("read file %s: it is larger than 64KiB", path)
	}
	value = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", fmt.Errorf("read file %s: it is empty", path)
	}
	if othersRead(info.Mode()) {
		e.warn(p, "every user of this machine can read %s; chmod 600 it", path)
	}
	return value, nil
}

func othersRead(mode fs.FileMode) bool { return mode.Perm()&0o004 != 0 }

// cause is the reason of a path error without the path, which is told already.
func cause(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// forms are the ways in which a value may be written in a message.
func forms(value string) []string {
	quoted := strconv.Quote(value)
	return []string{value, quoted[1 : len(quoted)-1], url.QueryEscape(value), url.PathEscape(value), url.UserPassword("", value).String()[1:]}
}

// shows says whether message has a piece of value in it that gives something
// away.
func shows(message, value string) bool {
	for _, form := range forms(value) {
		if len(form) <= minRun {
			if strings.Contains(message, form) {
				return true
			}
			continue
		}
		for i := 0; i+minRun <= len(form); i++ {
			if strings.Contains(message, form[i:i+minRun]) {
				return true
			}
		}
	}
	return false
}
