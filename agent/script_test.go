package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weir": main})
}

// TestScripts runs weir as its user meets it. Besides testscript's commands
// there are:
//
//	daemon FILE          starts weir run -c FILE, waits until it is ready, sets WEIR_API
//	kill-daemon SIGNAL   TERM waits for its end, which must be in time and without error; HUP does not
//	wait-log REGEXP      waits until the daemon logs it
//	exits CODE CMD...    is exec for a command that must end with CODE
//	damage DIR           flips a bit in the middle of DIR's largest segment
//	unprivileged CMD...  runs CMD as a user who owns nothing
func TestScripts(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireUniqueNames: true,
		// A daemon that starts where it should refuse is found in minutes.
		Deadline: time.Now().Add(3 * time.Minute),
		Setup: func(env *testscript.Env) error {
			d := &background{}
			env.Values[backgroundKey{}] = d
			env.Defer(d.end)
			// Nothing answers there, so that a script that forgot to start a daemon
			// does not find one of someone else's.
			env.Setenv("WEIR_API", "http://127.0.0.1:9")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": startDaemon, "kill-daemon": killDaemon, "wait-log": waitLog, "exits": exits, "damage": damage, "unprivileged": unprivileged,
		},
	})
}

type backgroundKey struct{}

// background is the daemon of a script.
type background struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and log is complete

	mu      sync.Mutex
	log     bytes.Buffer
	changed chan struct{} // closed and replaced when log grows
	err     error         // of the process, once done is closed
}

func (b *background) end() {
	if b.cmd == nil {
		return
	}
	select {
	case <-b.done:
		return
	default:
	}
	// It may have ended a moment ago; then there is nothing to kill.
	_ = b.cmd.Process.Kill()
	<-b.done
}

func weirPath(ts *testscript.TestScript) string {
	first, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	return filepath.Join(first, "weir")
}

func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: daemon FILE [FLAG...]")
	}
	b, ok := ts.Value(backgroundKey{}).(*background)
	if !ok {
		ts.Fatalf("the script has no place for a daemon")
	}
	b.end()
	b.cmd = exec.Command(weirPath(ts), append([]string{"run", "-c", ts.MkAbs(args[0])}, args[1:]...)...)
	b.cmd.Dir = ts.Getenv("WORK")
	stderr, err := b.cmd.StderrPipe()
	ts.Check(err)
	b.done, b.changed = make(chan struct{}), make(chan struct{})
	b.log.Reset()
	ts.Check(b.cmd.Start())
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			b.mu.Lock()
			b.log.WriteString(lines.Text() + "\n")
			close(b.changed)
			b.changed = make(chan struct{})
			b.mu.Unlock()
		}
		b.err = b.cmd.Wait()
		close(b.done)
	}()
	b.await(ts, `"msg":"weir is ready"`)
	for line := range strings.Lines(b.text()) {
		var entry struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "api listens" {
			ts.Setenv("WEIR_API", "http://"+entry.Address)
		}
	}
}

func (b *background) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// await returns when the log matches pattern.
func (b *background) await(ts *testscript.TestScript, pattern string) {
	re, err := regexp.Compile(pattern)
	ts.Check(err)
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		found, changed := re.Match(b.log.Bytes()), b.changed
		b.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-b.done:
			if re.MatchString(b.text()) {
				return
			}
			ts.Fatalf("the daemon ended (%v) without logging %s:\n%s", b.err, pattern, b.text())
		case <-deadline.C:
			ts.Fatalf("the daemon did not log %s:\n%s", pattern, b.text())
		}
	}
}

func killDaemon(ts *testscript.TestScript, neg bool, args []string) {
	b, ok := ts.Value(backgroundKey{}).(*background)
	if neg || len(args) != 1 || !ok || b.cmd == nil {
		ts.Fatalf("usage: kill-daemon TERM|HUP|KILL, after daemon")
	}
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}
	ts.Check(b.cmd.Process.Signal(signals[args[0]]))
	if args[0] == "HUP" {
		return
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	select {
	case <-b.done:
	case <-deadline.C:
		ts.Fatalf("the daemon did not end in 10 s:\n%s", b.text())
	}
	if args[0] == "TERM" && b.err != nil {
		ts.Fatalf("the daemon ended with %v:\n%s", b.err, b.text())
	}
}

func waitLog(ts *testscript.TestScript, neg bool, args []string) {
	b, ok := ts.Value(backgroundKey{}).(*background)
	if neg || len(args) != 1 || !ok || b.cmd == nil {
		ts.Fatalf("usage: wait-log REGEXP, after daemon")
	}
	b.await(ts, args[0])
}

func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage DIR")
	}
	var largest string
	var data []byte // without the room that is only allocated
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if text = bytes.TrimRight(text, "\x00"); len(text) > len(data) {
			largest, data = path, text
		}
		return err
	}))
	if len(data) == 0 {
		ts.Fatalf("there is no segment in %s", args[0])
	}
	file, err := os.OpenFile(largest, os.O_WRONLY, 0)
	ts.Check(err)
	middle := len(data) / 2
	_, err = file.WriteAt([]byte{data[middle] ^ 1}, int64(middle))
	ts.Check(errors.Join(err, file.Close()))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := 0
	var ended *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("the exit code is %d, want %s", code, args[0])
	}
}

// unprivileged runs weir as nobody if the test runs as root, for whom
// permissions do not count. It works like exec: neg means that it must fail.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || args[0] != "weir" {
		ts.Fatalf("usage: unprivileged weir ARG...")
	}
	cmd := exec.Command(weirPath(ts), args[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		for _, path := range []string{cmd.Path, cmd.Dir} {
			for dir := filepath.Dir(path); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
				ts.Check(os.Chmod(dir, 0o755))
			}
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if _, writeErr := ts.Stderr().Write(stderr.Bytes()); writeErr != nil {
		ts.Check(writeErr)
	}
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "stderr.txt"), stderr.Bytes(), 0o644))
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "code.txt"), fmt.Appendf(nil, "%d\n", cmd.ProcessState.ExitCode()), 0o644))
	if (err != nil) != neg {
		ts.Fatalf("weir ended with %v: %s", err, stderr.String())
	}
}
