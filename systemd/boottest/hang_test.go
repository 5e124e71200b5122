//go:build boot

package boottest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHang freezes the disk under the log: a file system in user space whose
// process is stopped. The writer of weir hangs in the kernel then, as it does
// on a card that stops answering. systemd must end weir by its watchdog, with
// the stacks in the journal, and after the disk answers again it must be back
// with everything that was acknowledged.
func TestHang(t *testing.T) {
	dir := t.TempDir()
	disk, mounted := filepath.Join(dir, "disk"), filepath.Join(dir, "mounted")
	for _, d := range []string{disk, mounted} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fuse := exec.Command("bindfs", "-f", disk, mounted)
	if err := fuse.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mounted).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v: %s", err, out)
		}
		if err := fuse.Wait(); err != nil {
			t.Error("bindfs: ", err)
		}
	})
	m := newMachine(t, mounted+":/var/lib/private/weir")
	m.until(10*time.Second, "bindfs has mounted", func() bool {
		text, err := os.ReadFile("/proc/self/mounts")
		return err == nil && strings.Contains(string(text), " "+mounted+" ")
	})
	m.boot()
	t.Cleanup(func() { _ = fuse.Process.Signal(syscall.SIGCONT) }) // should the test have failed: nothing ends while its disk hangs
	m.run("dpkg", "-i", "/root/old.deb")
	m.configure()
	m.run("systemctl", "restart", "weir")
	const half = 200
	m.publish(0, half)
	m.until(20*time.Second, "the first messages are in the log", func() bool { return len(m.stored()) >= half })

	if err := fuse.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	m.publish(half, half) // the broker keeps them
	m.until(90*time.Second, "systemd's watchdog ends weir", func() bool {
		// The probe noticed and asked for it, or nothing was heard for 30 s.
		return strings.Contains(m.journal(), "Watchdog request") || strings.Contains(m.journal(), "Watchdog timeout")
	})
	took := time.Since(frozen)
	t.Logf("the watchdog struck %s after the disk froze", took.Round(100*time.Millisecond))
	if took > 35*time.Second {
		t.Error("that is over 35 s")
	}
	// A thread that waits for the disk cannot be ended before the disk answers.
	m.until(10*time.Second, "the stacks are in the journal", func() bool {
		journal := m.journal()
		return strings.Contains(journal, "SIGABRT: abort") && strings.Contains(journal, "goroutine ")
	})
	if err := fuse.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	thawed := time.Now()
	m.until(30*time.Second, "weir is back with all messages", func() bool {
		return m.property("ActiveState") == "active" && len(m.stored()) >= 2*half
	})
	t.Logf("it was back %s after the disk answered", time.Since(thawed).Round(100*time.Millisecond))
	if got := m.property("NRestarts"); got != "1" {
		t.Errorf("weir was restarted %s times", got)
	}
	complete(t, "in the log", m.stored(), 2*half)
	if s := m.status(); !s.Health.OK {
		t.Errorf("health is %+v", s.Health)
	}
}
