package systemd_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/systemd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager plays systemd: it returns what the notifier sends.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	messages, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 4096)
		for {
			n, err := conn.Read(packet)
			if err != nil {
				return
			}
			messages <- string(packet[:n])
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return messages
}

func expect(t *testing.T, messages <-chan string, want string) {
	t.Helper()
	select {
	case got := <-messages:
		if got != want {
			t.Fatalf("systemd was told %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("systemd was not told %q", want)
	}
}

func TestNotify(t *testing.T) {
	messages := manager(t)
	var n systemd.Notifier
	for _, step := range []struct {
		err  error
		want string
	}{{n.Ready(), "READY=1"}, {n.Status("two\nlines"), "STATUS=two lines"}, {n.Stopping(), "STOPPING=1"}} {
		if step.err != nil {
			t.Fatal(step.err)
		}
		expect(t, messages, step.want)
	}
}

func TestOutsideOfSystemdNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var n systemd.Notifier
	if err := n.Ready(); err != nil {
		t.Fatal(err)
	}
	if interval, err := n.WatchdogInterval(); interval != 0 || err != nil {
		t.Fatalf("watchdog is on: %v %v", interval, err)
	}
}

// TestWatchdogStarvesWithoutProgress feeds while the probe answers and not
// while it fails or hangs; when that does not end, systemd is asked to act.
func TestWatchdogStarvesWithoutProgress(t *testing.T) {
	messages := manager(t)
	answers := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		systemd.Notifier{}.KeepAlive(ctx, 3*time.Second, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
			select {
			case err := <-answers:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	answers <- nil
	expect(t, messages, "WATCHDOG=1")
	answers <- errors.New("the committer does not answer")
	answers <- nil
	expect(t, messages, "WATCHDOG=1")
	// Nobody answers any more: not fed, and then triggered.
	expect(t, messages, "WATCHDOG=trigger")
	cancel()
	<-ended
}
