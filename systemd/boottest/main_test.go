//go:build boot

package boottest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Versions of the packages the tests install; the second is higher.
const (
	oldVersion = "0.1.0~boot1"
	newVersion = "0.1.0~boot2"
)

// made is what is made once for all tests.
var made struct {
	debian string // the tree
	dir    string // with the packages
	centre string // nats-server
}

func TestMain(m *testing.M) {
	code := 1
	err := prepare()
	if err == nil {
		code = m.Run()
	}
	if made.dir != "" {
		err = errors.Join(err, os.RemoveAll(made.dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "boottest:", err)
		code = 1
	}
	os.Exit(code)
}

// prepare makes the Debian, the packages and the centre.
func prepare() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("booting a machine needs root; run make boot as root")
	}
	for _, program := range []string{"systemd-nspawn", "debootstrap", "bindfs", "qemu-aarch64-static", "lintian", "git", "nsenter", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing; get it with: .ci/install-test-tools boot", program)
		}
	}
	if made.dir, err = os.MkdirTemp("", "boottest-"); err != nil {
		return err
	}
	if made.debian, err = debian(); err != nil {
		return err
	}
	made.centre = filepath.Join(made.dir, "nats-server")
	build := exec.Command("go", "build", "-o", made.centre, "github.com/nats-io/nats-server/v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return errors.Join(
		pack("../..", filepath.Join(made.dir, "old"), oldVersion, "amd64", "arm64"),
		pack("../..", filepath.Join(made.dir, "new"), newVersion, runtime.GOARCH),
	)
}

// pack makes packages of the repository into dir.
func pack(repository, dir, version string, arch ...string) error {
	cmd := exec.Command("systemd/package/build", append([]string{dir}, arch...)...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "VERSION="+version)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make package %s: %w: %s", version, err, out)
	}
	return nil
}

// deb returns the package of this machine's architecture.
func deb(t *testing.T, which string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(made.dir, which, "weir_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages are %v, %v", found, err)
	}
	return found[0]
}

const password = "a-secret-of-the-test"

// furnish puts into a machine what stands around weir: a broker and a centre,
// both with a password, and the packages.
func (m *machine) furnish() {
	m.t.Helper()
	for which, name := range map[string]string{"old": "/root/old.deb", "new": "/root/new.deb"} {
		m.copy(deb(m.t, which), name, 0o644)
	}
	m.write("/etc/mosquitto/conf.d/boot.conf", "listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/users\n"+
		"max_queued_messages 0\nmax_inflight_messages 500\n", 0o644)
	m.write("/etc/mosquitto/users", "", 0o600)
	if out, err := exec.Command("chroot", m.root, "sh", "-c",
		"mosquitto_passwd -b /etc/mosquitto/users weir "+password+" && chown mosquitto /etc/mosquitto/users").CombinedOutput(); err != nil {
		m.t.Fatalf("make the broker's user: %v: %s", err, out)
	}
	m.copy(made.centre, "/usr/local/bin/nats-server", 0o755)
	m.write("/etc/centre.conf", strings.Join([]string{
		"listen: 127.0.0.1:4222", "jetstream: {store_dir: /var/lib/centre}",
		"authorization: {user: weir, password: " + password + "}", "",
	}, "\n"), 0o644)
	m.write("/etc/systemd/system/centre.service",
		"[Service]\nExecStart=/usr/local/bin/nats-server -c /etc/centre.conf\n[Install]\nWantedBy=multi-user.target\n", 0o644)
	if err := os.Symlink("../centre.service", filepath.Join(m.root, "etc/systemd/system/multi-user.target.wants/centre.service")); err != nil {
		m.t.Fatal(err)
	}
	// The journal stays in memory, as it is lost with the overlay.
	m.write("/etc/systemd/journald.conf.d/boot.conf", "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n", 0o644)
}

// configure gives weir the configuration of the tests, as the documents tell an
// administrator to: a file of a password beside it, and a credential.
func (m *machine) configure() {
	m.t.Helper()
	text, err := os.ReadFile("testdata/weir.yaml")
	if err != nil {
		m.t.Fatal(err)
	}
	m.edit(string(text))
	if _, err := m.feed(password, "install", "-m", "0640", "-g", "weir-config", "/dev/stdin", "/etc/weir/mqtt.pass"); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.feed(password+"\n", "weir", "passwd", "/etc/weir/mqtt-users.yaml", "press-7", "--publish", "devices/{user}/#"); err != nil {
		m.t.Fatal(err)
	}
	m.write("/etc/weir.credentials/nats.pass", password, 0o600)
	m.write("/etc/systemd/system/weir.service.d/credentials.conf",
		"[Service]\nLoadCredential=nats.pass:/etc/weir.credentials/nats.pass\n", 0o644)
	m.run("systemctl", "daemon-reload")
}

// edit replaces the configuration as an editor does that writes in place.
func (m *machine) edit(text string) {
	m.t.Helper()
	if _, err := m.feed(text, "dd", "status=none", "of=/etc/weir/weir.yaml"); err != nil {
		m.t.Fatal(err)
	}
}
