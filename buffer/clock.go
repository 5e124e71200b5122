package buffer

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// instant is one reading of every clock there is.
type instant struct {
	wall      time.Time
	monotonic time.Duration // since boot, suspended time included
	boot      uint32        // which boot that counts from
	synced    bool          // the wall clock is known to be right
}

// ageClock is the clock by which records grow old (FORMAT.md, "Sequence
// numbers and time"). It never goes back and never believes a jump.
type ageClock struct {
	read func() instant

	mu   sync.Mutex
	last instant
	age  time.Duration
}

// seen is the newest stamp a recovery found in the segments.
type seen struct {
	age  time.Duration
	when instant
	ok   bool
}

// startAgeClock goes on from the newest stamp found.
func startAgeClock(read func() instant, s seen) *ageClock {
	now := read()
	c := &ageClock{read: read, last: now}
	if !s.ok {
		return c
	}
	c.age = s.age
	switch passed := now.wall.Sub(s.when.wall); {
	case now.boot == s.when.boot && now.monotonic >= s.when.monotonic:
		c.age += now.monotonic - s.when.monotonic
	case now.synced && s.when.synced && passed > 0:
		c.age += passed
	}
	return c
}

// now returns the age and the reading it belongs to.
func (c *ageClock) now() (time.Duration, instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.read()
	if passed := r.monotonic - c.last.monotonic; passed > 0 {
		c.age += passed
	}
	c.last = r
	return c.age, r
}

// systemClock reads the machine's clocks.
func systemClock() func() instant {
	boot := bootID()
	var (
		mu      sync.Mutex
		checked time.Time
		synced  bool
	)
	return func() instant {
		now := time.Now()
		mu.Lock()
		if checked.IsZero() || now.Sub(checked) > 10*time.Second {
			checked, synced = now, clockSynced()
		}
		ok := synced
		mu.Unlock()
		return instant{wall: now, monotonic: bootTime(), boot: boot, synced: ok}
	}
}

// bootTime is the time since boot; it also runs while the machine sleeps.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// bootID tells one boot from another. The environment variable is for
// sandboxes that hide /proc/sys (a unit can pass %b).
func bootID() uint32 {
	text := os.Getenv("WEIR_BOOT_ID")
	if text == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return 0
		}
		text = string(b)
	}
	return checksum([]byte(strings.ReplaceAll(strings.TrimSpace(text), "-", "")))
}

// clockSynced asks the kernel, and where a sandbox forbids that, timesyncd.
func clockSynced() bool {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	}
	_, err := os.Stat("/run/systemd/timesync/synchronized")
	return err == nil
}
