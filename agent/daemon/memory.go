package daemon

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare of the cgroup's limit is Go's; the rest is for the kernel's
// share of it: page cache of the log, sockets.
const memoryShare = 0.75

// LimitMemory makes Go's collector respect the memory limit of the cgroup, if that
// is lower than what GOMEMLIMIT says: who lowers the one may forget the other. A
// process without a limit keeps Go's default.
func LimitMemory(logger *slog.Logger) {
	limit, ok := cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup")
	if !ok {
		return
	}
	share := int64(float64(limit) * memoryShare)
	if debug.SetMemoryLimit(-1) <= share { // -1 only asks
		return
	}
	debug.SetMemoryLimit(share)
	logger.Info("memory is limited", "cgroup_bytes", limit, "go_bytes", share)
}

// cgroupMemory returns the lowest memory limit on the way from this process'
// cgroup to the root, in versions 2 and 1 of the interface.
func cgroupMemory(self, root string) (limit int64, ok bool) {
	lines, err := os.ReadFile(self)
	if err != nil {
		return 0, false
	}
	limit = math.MaxInt64
	for line := range strings.Lines(string(lines)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		base, file := root, "memory.max"
		switch {
		case fields[1] == "memory":
			base, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		case fields[0] != "0":
			continue
		}
		for dir := filepath.Clean("/" + fields[2]); ; dir = filepath.Dir(dir) {
			if n, found := readLimit(filepath.Join(base, dir, file)); found {
				limit = min(limit, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	// Version 1 writes "no limit" as a number near the largest there is.
	return limit, limit < 1<<50
}

func readLimit(name string) (int64, bool) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n > 0 // "max" is no number
}
