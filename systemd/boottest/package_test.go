//go:build boot

package boottest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPackage is the package's life with an administrator: install, edit,
// upgrade, remove, install again, purge.
func TestPackage(t *testing.T) {
	m := newMachine(t)
	m.copy(changedSample(t), "/root/new.deb", 0o644)
	m.boot()

	m.run("dpkg", "-i", "/root/old.deb")
	if got := m.run("systemctl", "is-enabled", "weir") + " " + m.property("ActiveState"); got != "enabled active" {
		t.Fatalf("after the installation weir is %s\n%s", got, m.journal())
	}
	if s := m.status(); !s.Health.OK {
		t.Errorf("the sample is not healthy: %+v", s.Health)
	}
	record := func(n string) {
		t.Helper()
		if _, err := m.feed(n+"\n", "weir", "put", "notes", "--key", "k"); err != nil {
			t.Fatal(err)
		}
	}
	records := func() string { t.Helper(); return m.run("weir", "tail", "notes", "--from", "trim-horizon", "--raw") }
	record("one")

	// The administrator edits the sample. A fault neither stops dpkg nor ends
	// weir for good, and the journal says where it is.
	const mine = "# mine\nnode: {id: mine}\nbuffer: {dir: /var/lib/weir}\n"
	m.edit(mine + "nonsense: 1\n")
	_, _ = m.try("systemctl", "restart", "weir") // it must fail, which is seen in the journal
	m.until(10*time.Second, "the journal names the fault", func() bool { return strings.Contains(m.journal(), "weir.yaml:4: nonsense") })
	m.run("dpkg", "-i", "/root/old.deb")
	m.edit(mine)
	m.until(20*time.Second, "weir is back without a hand on it", func() bool { return m.property("ActiveState") == "active" })

	// An upgrade brings another sample; what was edited stays, and weir runs anew.
	before := m.property("MainPID")
	m.run("dpkg", "--force-confdef", "-i", "/root/new.deb")
	if got := m.run("cat", "/etc/weir/weir.yaml"); got != strings.TrimSpace(mine) {
		t.Errorf("the configuration is now %s", got)
	}
	if got := m.run("tail", "-n", "1", "/etc/weir/weir.yaml.dpkg-dist"); got != "# of the new version" {
		t.Errorf("the new sample ends with %s", got)
	}
	if got := m.property("ActiveState"); got != "active" || m.property("MainPID") == before {
		t.Errorf("after the upgrade weir is %s, process %s as before", got, before)
	}
	if s := m.status(); s.Node.ID != "mine" || !s.Health.OK {
		t.Errorf("after the upgrade: %+v %+v", s.Node, s.Health)
	}
	record("two")
	if got := records(); got != "one\ntwo" {
		t.Errorf("after the upgrade the log has %q", got)
	}
	// What is switched off stays off.
	m.run("systemctl", "disable", "--now", "weir")
	m.run("dpkg", "-i", "/root/new.deb")
	if got, _ := m.try("systemctl", "is-enabled", "weir"); got != "disabled" || m.property("ActiveState") != "inactive" {
		t.Errorf("weir was off; after an upgrade it is %s, %s", got, m.property("ActiveState"))
	}
	m.run("systemctl", "enable", "--now", "weir")

	m.run("dpkg", "-r", "weir")
	if got := m.property("ActiveState") + " " + m.property("LoadState"); got != "inactive not-found" {
		t.Errorf("after the removal the unit is %s", got)
	}
	m.run("test", "-d", "/var/lib/private/weir/data")
	m.run("grep", "-q", "^# mine", "/etc/weir/weir.yaml")
	m.run("dpkg", "-i", "/root/new.deb")
	m.until(20*time.Second, "weir runs again", func() bool { return m.property("ActiveState") == "active" })
	if got := records(); got != "one\ntwo" {
		t.Errorf("after a removal and an installation the log has %q", got)
	}

	m.run("dpkg", "-P", "weir")
	left := m.run("find", "/etc", "/var/lib", "/usr", "/lib/systemd", "/run/systemd", "-xdev", "-name", "*weir*", "-not", "-path", "/etc/weir.credentials*")
	if left != "" {
		t.Errorf("after the purge there are still\n%s", left)
	}
	if failed := m.run("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// changedSample makes the new package once more, with another sample in it.
func changedSample(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if out, err := exec.Command("dpkg-deb", "-R", deb(t, "new"), dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	file, err := os.OpenFile(filepath.Join(dir, "etc/weir/weir.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("# of the new version\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "-b", dir, dir+".deb").CombinedOutput(); err != nil {
		t.Fatalf("pack: %v: %s", err, out)
	}
	return dir + ".deb"
}

// TestLintian: Debian's own checker finds no error.
func TestLintian(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(made.dir, "old", "*.deb"))
	if err != nil || len(files) != 2 {
		t.Fatalf("packages are %v, %v", files, err)
	}
	for _, file := range files {
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0", file).CombinedOutput()
		if err != nil {
			t.Errorf("lintian %s: %v", filepath.Base(file), err)
		}
		t.Logf("%s:\n%s", filepath.Base(file), out)
	}
}

// TestReproducible makes the packages once more, in another directory, with
// another time zone and other permissions of new files.
func TestReproducible(t *testing.T) {
	dir := t.TempDir()
	copied := filepath.Join(dir, "elsewhere", "weir")
	if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "../..", copied).CombinedOutput(); err != nil {
		t.Fatalf("copy the repository: %v: %s", err, out)
	}
	t.Setenv("TZ", "Pacific/Auckland")
	t.Setenv("TMPDIR", dir)
	cmd := exec.Command("sh", "-c", "umask 077 && exec systemd/package/build \"$@\"", "sh", filepath.Join(dir, "out"), "amd64", "arm64")
	cmd.Dir = copied
	cmd.Env = append(os.Environ(), "VERSION="+oldVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make package: %v: %s", err, out)
	}
	first, err1 := os.ReadFile(filepath.Join(made.dir, "old", "SHA256SUMS"))
	second, err2 := os.ReadFile(filepath.Join(dir, "out", "SHA256SUMS"))
	if err := errors.Join(err1, err2); err != nil || string(first) != string(second) || len(strings.Split(strings.TrimSpace(string(first)), "\n")) != 6 {
		t.Errorf("%v; the hashes are\n%sand then\n%s", err, first, second)
	}
}

// TestArm64 runs the program for the Raspberry Pi, by emulation.
func TestArm64(t *testing.T) {
	dir := t.TempDir()
	archives, err := filepath.Glob(filepath.Join(made.dir, "old", "*-arm64.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives are %v, %v", archives, err)
	}
	if out, err := exec.Command("tar", "-C", dir, "--strip-components=1", "-xzf", archives[0]).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	cmd := exec.Command("qemu-aarch64-static", filepath.Join(dir, "weir"), "demo", "--for", "20s", "--dir", filepath.Join(dir, "data"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("weir demo: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
	if _, err := os.Stat(filepath.Join(dir, "data")); errors.Is(err, fs.ErrNotExist) {
		t.Error("the demo left no data")
	}
}
