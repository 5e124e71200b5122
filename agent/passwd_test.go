package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/ingest/broker/users"
)

// person sits at a terminal: types each line when the prompt for it shows.
type person struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	shown  bytes.Buffer
	lines  []string
}

func (p *person) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown.Write(b)
	if strings.HasSuffix(string(b), ": ") && len(p.lines) > 0 {
		if _, err := p.master.WriteString(p.lines[0]); err != nil {
			p.t.Error(err)
		}
		p.lines = p.lines[1:]
	}
	return len(b), nil
}

// terminal opens a pseudo terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestPasswdOnATerminal: it asks twice, shows nothing of what is typed, and
// turns echo on again.
func TestPasswdOnATerminal(t *testing.T) {
	for _, c := range []struct {
		name   string
		lines  []string
		code   int
		stderr string
	}{
		{"twice the same", []string{"hunter2\n", "hunter2\n"}, 0, ""},
		{"a typing error", []string{"hunter2\n", "hunter3\n"}, 2, "the two are not the same"},
		{"nothing", []string{"\n"}, 2, "the password is empty"},
		{"interrupted", nil, 1, "interrupted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := terminal(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := &person{t: t, master: master, lines: c.lines}
			if len(c.lines) == 0 {
				cancel()
				// What reads the terminal ends with the program, here with a line.
				t.Cleanup(func() {
					if _, err := master.WriteString("\n"); err != nil {
						t.Error(err)
					}
				})
			}
			file := filepath.Join(t.TempDir(), "users.yaml")
			var out bytes.Buffer
			code := execute(ctx, []string{"passwd", file, "a", "--publish=#"}, &console{stdin: slave, stdout: &out, stderr: p, getenv: os.Getenv})
			if code != c.code || !strings.Contains(p.shown.String(), c.stderr) {
				t.Errorf("code %d: %s%s", code, p.shown.String(), out.String())
			}
			settings, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if settings.Lflag&unix.ECHO == 0 {
				t.Error("the terminal does not show what is typed any more")
			}
			echoed := make([]byte, 256)
			if err := master.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, _ := master.Read(echoed) // a timeout is right: nothing came
			if strings.Contains(string(echoed[:n])+p.shown.String(), "hunter") {
				t.Errorf("the terminal shows %q", echoed[:n])
			}
			f, err := users.Load(file)
			if c.code != 0 {
				if err == nil {
					t.Error("the file is there")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Authenticate(t.Context(), "a", []byte("hunter2")); err != nil {
				t.Error(err)
			}
		})
	}
}
