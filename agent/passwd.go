package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/ingest/broker/users"
)

// passwdCommand is `weir passwd`. A password is never an argument: those are
// seen by every user of the machine.
type passwdCommand struct {
	File        string   `arg:"" help:"The file that ingest.broker.users_file names; it is made if it is missing."`
	User        string   `arg:"" help:"The user to add or to change."`
	Publish     []string `sep:"none" placeholder:"FILTER" help:"What the user may publish to; may be repeated. {user} and {client_id} stand for one level; '' alone allows nothing."`
	Subscribe   []string `sep:"none" placeholder:"FILTER" help:"What the user may subscribe to; likewise."`
	Certificate bool     `help:"The user comes with a client certificate that has this common name; no password is read."`
	Keep        bool     `help:"Leave the password as it is; none is read."`
	Delete      bool     `help:"Take the user out of the file."`
}

// Help says where the password comes from.
func (*passwdCommand) Help() string {
	return "The password is one line of standard input; on a terminal it is asked for twice and not shown. The file keeps its argon2id hash."
}

func (p *passwdCommand) Run(ctx context.Context, c *console) error {
	if p.Delete {
		return p.remove(c)
	}
	change := users.Change{Publish: filters(p.Publish), Subscribe: filters(p.Subscribe)}
	if p.Certificate {
		change.Certificate = &p.Certificate
	}
	if !p.Certificate && !p.Keep {
		password, err := readPassword(ctx, c)
		if err != nil {
			return err
		}
		defer clear(password)
		change.Password = password
	}
	added, err := users.Set(p.File, p.User, change)
	if err != nil {
		return passwdFailed(err)
	}
	did := "changed user %s in %s\n"
	if added {
		did = "added user %s to %s\n"
	}
	if _, err := fmt.Fprintf(c.stdout, did, printable(p.User), p.File); err != nil {
		return err
	}
	return p.warn(c)
}

func (p *passwdCommand) remove(c *console) error {
	if p.Certificate || p.Keep || len(p.Publish)+len(p.Subscribe) > 0 {
		return usage(errors.New("--delete goes with no other flag"), "")
	}
	if err := users.Delete(p.File, p.User); err != nil {
		return passwdFailed(err)
	}
	_, err := fmt.Fprintf(c.stdout, "deleted user %s from %s\n", printable(p.User), p.File)
	return err
}

// warn tells what is doubtful about the file and this user.
func (p *passwdCommand) warn(c *console) error {
	file, err := users.Load(p.File)
	if err != nil {
		return passwdFailed(err)
	}
	for _, warning := range file.Warnings() {
		if strings.Contains(warning, "user ") && !strings.Contains(warning, fmt.Sprintf("user %q ", p.User)) {
			continue // of another user
		}
		fmt.Fprintln(c.stderr, "weir: warning: "+warning)
	}
	return nil
}

// filters is the list that flags mean; nil: they do not say.
func filters(flags []string) *[]string {
	switch {
	case len(flags) == 0:
		return nil
	case len(flags) == 1 && flags[0] == "":
		return &[]string{}
	}
	return &flags
}

func passwdFailed(err error) error {
	var faults users.Faults
	switch {
	case errors.As(err, &faults):
		return &failure{code: exitUsage, err: err, each: true}
	case errors.Is(err, fs.ErrPermission):
		return failed(err, "use the account that owns the file")
	}
	return failed(err, "")
}

// readPassword reads one line of standard input, or asks twice on a terminal.
func readPassword(ctx context.Context, c *console) ([]byte, error) {
	terminal, ok := c.stdin.(*os.File)
	if ok && isTerminal(terminal) {
		return askPassword(ctx, c, terminal)
	}
	password, err := readSecret(bufio.NewReaderSize(c.stdin, users.MaxPasswordBytes+2))
	if err == nil && len(password) == 0 {
		err = usage(errors.New("standard input has no password"), "printf '%s\\n' PASSWORD | weir passwd FILE USER, or run it on a terminal")
	}
	return password, err
}

// readSecret reads one line, bounded.
func readSecret(reader *bufio.Reader) ([]byte, error) {
	line, err := reader.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, usage(fmt.Errorf("the password is longer than %d bytes", users.MaxPasswordBytes), "")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, failed(fmt.Errorf("read password: %w", err), "")
	}
	password := bytes.Clone(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")))
	clear(line)
	return password, nil
}

// askPassword asks twice without echo, which it turns on again in any case.
func askPassword(ctx context.Context, c *console, terminal *os.File) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, failed(fmt.Errorf("ask for password: %w", err), "")
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, failed(fmt.Errorf("ask for password: %w", err), "")
	}
	type answer struct {
		password []byte
		err      error
	}
	answers := make(chan answer, 1)
	reader := bufio.NewReaderSize(terminal, users.MaxPasswordBytes+2)
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(c.stderr, prompt)
		defer fmt.Fprintln(c.stderr)
		go func() { // ends with a line, at the latest with the program
			password, err := readSecret(reader)
			answers <- answer{password, err}
		}()
		select {
		case a := <-answers:
			if a.err == nil && len(a.password) == 0 {
				a.err = usage(errors.New("the password is empty"), "")
			}
			return a.password, a.err
		case <-ctx.Done():
			return nil, failed(errors.New("interrupted"), "")
		}
	}
	first, err := ask("Password: ")
	var second []byte
	if err == nil {
		second, err = ask("The same again: ")
	}
	if restoreErr := unix.IoctlSetTermios(fd, unix.TCSETSF, before); restoreErr != nil && err == nil {
		err = failed(fmt.Errorf("turn echo on: %w", restoreErr), "stty echo does it")
	}
	if err == nil && !bytes.Equal(first, second) {
		err = usage(errors.New("the two are not the same"), "nothing was changed")
	}
	clear(second)
	return first, err
}
