//go:build boot

package boottest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The Debian the tests boot, unless DEBIAN_SUITE names another. Its packages are
// pinned by the suite; the tree is made anew after a month, for its updates.
const (
	bookworm  = "bookworm"
	included  = "systemd,systemd-sysv,dbus,libnss-systemd,mosquitto,mosquitto-clients"
	staleTree = 30 * 24 * time.Hour
)

// debian returns the tree, which nobody may change.
func debian() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	suite := cmp.Or(os.Getenv("DEBIAN_SUITE"), bookworm)
	key := sha256.Sum256([]byte(suite + included + runtime.GOARCH))
	tree := filepath.Join(cache, "weir-test", fmt.Sprintf("%s-%x", suite, key[:6]))
	if info, err := os.Stat(filepath.Join(tree, "etc/made")); err == nil && time.Since(info.ModTime()) < staleTree {
		return tree, nil
	}
	fresh := tree + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(filepath.Dir(fresh), 0o755)); err != nil {
		return "", err
	}
	args := []string{"--variant=minbase", "--include=" + included, suite, fresh}
	if mirror := os.Getenv("DEBIAN_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	if out, err := exec.Command("debootstrap", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("debootstrap %s: %w\n%s", suite, err, out[max(0, len(out)-2000):])
	}
	return tree, errors.Join(
		os.WriteFile(filepath.Join(fresh, "etc/made"), nil, 0o644),
		os.RemoveAll(tree), os.Rename(fresh, tree),
	)
}

// machine is a Debian in a container. It has no network but its loopback.
type machine struct {
	t      *testing.T
	root   string // as seen from outside
	binds  []string
	leader int // its first process, as seen from outside
	cmd    *exec.Cmd
}

// newMachine makes a machine and does not boot it. binds are OUTSIDE:INSIDE.
func newMachine(t *testing.T, binds ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, root: filepath.Join(dir, "root"), binds: binds}
	for _, name := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", made.debian, dir, dir)
	if err := unix.Mount("overlay", m.root, "overlay", 0, options); err != nil {
		t.Fatal("mount an overlay: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(m.root, unix.MNT_DETACH); err != nil {
			t.Error("unmount the overlay: ", err)
		}
	})
	m.furnish()
	return m
}

// boot starts the machine and returns when systemd has started everything.
func (m *machine) boot() {
	t := m.t
	t.Helper()
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	cgroup := m.memoryCgroup()
	name := fmt.Sprintf("boottest-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	// Should the test be killed, the machine still ends.
	args := []string{"-c", `[ -z "$0" ] || echo $$ >"$0/cgroup.procs"; exec timeout --kill-after=10 900 "$@"`, cgroup,
		"systemd-nspawn", "-q", "-M", name, "-D", m.root, "--keep-unit", "--register=no", "--private-network", "--console=pipe"}
	for _, b := range m.binds {
		args = append(args, "--bind="+b)
	}
	m.cmd = exec.Command("sh", append(args, "-b")...)
	m.cmd.Stdout, m.cmd.Stderr = console, console
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.powerOff()
		// nspawn leaves it where /run is on a disk and the machine had to be killed.
		if err := os.Remove("/run/systemd/nspawn/propagate/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := console.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(console.Name()) // for people; the test has failed already
			t.Logf("the console ends with:\n%s", text[max(0, len(text)-2000):])
		}
	})
	m.until(30*time.Second, "systemd runs", func() bool {
		m.leader = child(child(m.cmd.Process.Pid))
		return m.up()
	})
	if cgroup != "" {
		// nspawn gives a machine version 1 of the controllers to read only, and then
		// its systemd limits no memory.
		m.run("mount", "-o", "remount,rw,bind", "/sys/fs/cgroup/memory")
		m.run("systemctl", "daemon-reexec")
		m.until(10*time.Second, "systemd runs again", m.up)
	}
}

// up says whether systemd has started everything.
func (m *machine) up() bool {
	state, err := m.try("systemctl", "is-system-running") // it fails until systemd listens
	return err == nil && state == "running"
}

// memoryCgroup makes a cgroup for the machine, below which its systemd makes
// its own, and removes all of them in the end. It returns "" where the kernel
// has version 2 only, which nspawn delegates itself.
func (m *machine) memoryCgroup() string {
	const root = "/sys/fs/cgroup/memory"
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "memory" {
			continue
		}
		dir, err := os.MkdirTemp(filepath.Join(root, fields[2]), "boottest-")
		if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() {
			if out, err := exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput(); err != nil || len(out) > 0 {
				m.t.Errorf("remove the machine's cgroups: %v: %s", err, out)
			}
		})
		return dir
	}
	return ""
}

// powerOff ends the machine in good order, or else at once.
func (m *machine) powerOff() {
	ended := make(chan error, 1)
	go func() { ended <- m.cmd.Wait() }()
	if _, err := m.try("systemctl", "poweroff"); err != nil {
		m.t.Log("power off: ", err)
	}
	select {
	case <-ended:
		return
	case <-time.After(30 * time.Second):
		m.t.Error("the machine does not power off")
	}
	for _, pid := range []int{m.leader, child(m.cmd.Process.Pid), m.cmd.Process.Pid} {
		if pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
		}
	}
	<-ended
}

// child returns the first child of a process, 0 if there is none.
func child(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil || len(text) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(strings.Fields(string(text))[0]) // the kernel's own number
	return n
}

// try runs a program inside and returns what it printed, trimmed.
func (m *machine) try(args ...string) (string, error) { return m.feed("", args...) }

// feed is try with a standard input.
func (m *machine) feed(stdin string, args ...string) (string, error) {
	if m.leader < 2 {
		return "", errors.New("the machine does not run")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.leader), "-a", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(out.String()), err
}

// run is try for what must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatal(err, out)
	}
	return out
}

// write makes a file inside, with the directories above it.
func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
		m.t.Fatal(err)
	}
}

// copy copies a file from outside to a place inside.
func (m *machine) copy(from, to string, mode os.FileMode) {
	m.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(to, string(text), mode)
}

// property asks systemd for one of the unit's.
func (m *machine) property(name string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "-p", name, "weir.service")
}

// journal is what the unit and systemd said about it, since the boot.
func (m *machine) journal() string {
	m.t.Helper()
	return m.run("journalctl", "--no-pager", "-b", "-o", "cat", "-u", "weir.service")
}

// until polls with a deadline.
func (m *machine) until(limit time.Duration, what string, ok func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			said, _ := m.try("journalctl", "--no-pager", "-b", "-n", "40", "-u", "weir.service") // for people
			m.t.Fatalf("not within %s: %s\n%s", limit, what, said)
		}
		<-tick.C
	}
}

// DialContext connects to an address of the machine's own network.
func (m *machine) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 1)
	go func() {
		// The thread is in the wrong network after that: it ends with the goroutine,
		// which never unlocks it.
		runtime.LockOSThread()
		space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader))
		if err != nil {
			results <- result{nil, err}
			return
		}
		err = unix.Setns(int(space.Fd()), unix.CLONE_NEWNET)
		if err = errors.Join(err, space.Close()); err != nil {
			results <- result{nil, err}
			return
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		results <- result{conn, err}
	}()
	r := <-results
	return r.conn, r.err
}

// Dial is DialContext as NATS' client wants it.
func (m *machine) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.DialContext(ctx, network, address)
}
