// Package systemd tells the service manager how weir is doing: that it is
// ready, that it stops, what it does in a line, and, as long as it makes
// progress, that it is alive. weir.service beside this file is the unit that
// goes with it.
//
// Notifier is the main type; outside of systemd all its methods do nothing.
// KeepAlive is the watchdog: it feeds systemd only after a probe of the daemon
// has answered, so a daemon that hangs is restarted although its timers still
// fire. The package does not install units and knows nothing of what it probes.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier speaks sd_notify(3). The zero value speaks to the socket systemd
// named in the environment, if there is one; it is safe for concurrent use.
type Notifier struct{}

// Ready says that the daemon accepts data.
func (n Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Stopping says that the daemon ends.
func (n Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Status shows text in `systemctl status`.
func (n Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

func (n Notifier) send(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// WatchdogInterval returns WatchdogSec of the unit, 0 if there is none.
func (n Notifier) WatchdogInterval() (time.Duration, error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("read the watchdog's interval: %w", err)
	}
	return interval, nil
}

// KeepAlive feeds the watchdog after each probe that answers nil, six times an
// interval, until ctx is done. A probe that fails or hangs is not followed by a
// feeding. When that goes on for two thirds of an interval, systemd is told to act
// at once (WATCHDOG=trigger, systemd 243; an older one acts an interval after the
// last feeding): it ends the daemon and starts it anew; the reason is in the log
// by then. The probe's own patience comes on top.
func (n Notifier) KeepAlive(ctx context.Context, interval time.Duration, logger *slog.Logger, probe func(context.Context) error) {
	ticker := time.NewTicker(interval / 6)
	defer ticker.Stop()
	good := time.Now()
	for {
		err := answer(ctx, interval/6, probe)
		if ctx.Err() != nil {
			return
		}
		state := daemon.SdNotifyWatchdog
		switch stuck := time.Since(good); {
		case err == nil:
			good = time.Now()
		case stuck < 2*interval/3:
			logger.Error("no progress, the watchdog is not fed", "error", err)
			state = ""
		default:
			logger.Error("no progress, systemd is asked to end this process", "error", err, "for", stuck.Round(time.Second))
			state = "WATCHDOG=trigger"
		}
		if state != "" {
			if err := n.send(state); err != nil {
				logger.Warn("the watchdog cannot be told", "state", state, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// answer runs probe, which must return soon after its context is done.
func answer(ctx context.Context, timeout time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return probe(ctx)
}
