package buffer

import (
	"maps"
	"sync"
	"sync/atomic"
)

// counters count since Open.
type counters struct {
	records, bytes, commits, written, writeErrors, refused, corrupt atomic.Int64

	mu             sync.Mutex
	droppedRecords map[GapReason]int64
	droppedBytes   map[GapReason]int64
}

func (c *counters) appended(r *request) {
	for _, p := range r.parts {
		c.records.Add(int64(len(p.records)))
	}
	c.bytes.Add(r.bytes)
}

// wrote counts one unit: one write, one sync.
func (c *counters) wrote(n int) {
	c.commits.Add(1)
	c.written.Add(int64(n))
}

func (c *counters) drop(reason GapReason, records, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.droppedRecords == nil {
		c.droppedRecords, c.droppedBytes = map[GapReason]int64{}, map[GapReason]int64{}
	}
	c.droppedRecords[reason] += records
	c.droppedBytes[reason] += bytes
}

// Stats returns the log's figures. It takes the locks that the committers need
// for a moment, so an answer also means that they are not stuck on one, but it
// does not touch the disk: it answers while that hangs. The figures of the disk
// are those of the last look, up to 15 s old.
func (l *Log) Stats() Stats {
	s := Stats{
		AppendedRecords: l.counters.records.Load(), AppendedBytes: l.counters.bytes.Load(),
		Commits: l.counters.commits.Load(), Syncs: l.counters.commits.Load(),
		WrittenBytes: l.counters.written.Load(), WriteErrors: l.counters.writeErrors.Load(),
		RefusedAppends: l.counters.refused.Load(), CorruptBatches: l.counters.corrupt.Load(),
		IndexRebuilt: l.rebuilt, SetAside: l.setAside, RecoveredBatches: l.recovered,
	}
	l.counters.mu.Lock()
	s.DroppedRecords, s.DroppedBytes = maps.Clone(l.counters.droppedRecords), maps.Clone(l.counters.droppedBytes)
	l.counters.mu.Unlock()
	l.pendingMu.Lock()
	s.PendingBytes = l.pending
	l.pendingMu.Unlock()
	l.mu.Lock()
	s.LastCommit, s.Segments = l.lastCommit, int64(len(l.segments))
	for _, c := range l.chains {
		if c.trouble != "" {
			s.Full = c.trouble
		}
	}
	l.mu.Unlock()
	_, now := l.clock.now()
	s.ClockSynced = now.synced
	used := l.lastUse()
	s.DiskBytes, s.DiskFreeBytes = used.segments+used.rest, used.free
	return s
}

// lastUse is what the directory takes. While a decision about space is under
// way, which may wait for the disk, it is what was known before.
func (l *Log) lastUse() diskUse {
	if l.spaceMu.TryLock() {
		use := l.space
		l.spaceMu.Unlock()
		l.shown.Store(&use)
		return use
	}
	if use := l.shown.Load(); use != nil {
		return *use
	}
	return diskUse{}
}
