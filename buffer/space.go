package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/buffer/disk"
)

const (
	maxSpares         = 2
	minSegmentBytes   = 1 << 20
	dataSegmentBytes  = 16 << 20
	videoSegmentBytes = 64 << 20
	spaceInterval     = 15 * time.Second
)

// spare is a file that held a segment and waits to be overwritten.
type spare struct {
	path string
	size int64
}

// diskUse is what the directory takes, as last looked at. Segments are
// counted exactly as they come and go; the rest at every look.
type diskUse struct {
	segments int64 // data segments and spares
	rest     int64 // the index and the meta chain
	free     int64
	total    int64
}

// segmentBytes is how large the segments of a chain are: small enough that
// dropping one is a small part of its budget.
func (l *Log) segmentBytes(p chainPolicy) int64 {
	if l.fixed > 0 {
		return l.fixed
	}
	size, budget := int64(dataSegmentBytes), int64(l.config.MaxBytes)
	if p.kind == Video {
		size = videoSegmentBytes
	}
	if budget == 0 {
		budget = l.space.total
	}
	if p.maxBytes > 0 && (budget == 0 || p.maxBytes < budget) {
		budget = p.maxBytes
	}
	if budget > 0 {
		size = min(size, max(budget/16, minSegmentBytes))
	}
	return roundUp(size)
}

func roundUp(n int64) int64 { return (n + 4095) &^ 4095 }

// newSegment finds a file for a segment with room for need bytes: a spare, a
// new one where the disk budget allows, or that of the oldest segment there
// is to drop. ErrFull when nothing may be dropped.
func (l *Log) newSegment(c *chain, id segmentID, need int64) (*segment, disk.File, error) {
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	l.lookAtDisk()
	l.mu.RLock()
	policy := c.policy
	l.mu.RUnlock()
	g := &segment{id: id, path: path.Join(dataDir, c.name, segmentName(id.number)), size: max(l.segmentBytes(policy), roundUp(need))}
	for {
		err := l.keepOwnBudget(c, policy, g.size)
		if err != nil {
			return nil, nil, err
		}
		file, err := l.takeSpare(g)
		if file != nil || err != nil {
			return g, file, err
		}
		if l.hasRoom(g.size) {
			file, err := l.createSegment(g)
			if err == nil || !isNoSpace(err) {
				return g, file, err
			}
		}
		if len(l.spares) > 0 { // of another size
			if err := l.removeSpare(); err != nil {
				return nil, nil, err
			}
			continue
		}
		if !l.dropVictim(policy) {
			return nil, nil, fmt.Errorf("%w: no room on the disk for a segment of %d bytes of chain %s, and nothing that may be dropped", ErrFull, g.size, c.name)
		}
	}
}

// keepOwnBudget makes room within the byte budget of a stream of its own.
func (l *Log) keepOwnBudget(c *chain, p chainPolicy, size int64) error {
	if p.maxBytes == 0 {
		return nil
	}
	for {
		l.mu.RLock()
		used := int64(0)
		for _, g := range c.segments {
			used += g.size
		}
		n := len(c.segments)
		l.mu.RUnlock()
		if used+size <= p.maxBytes || n == 0 {
			return nil
		}
		if p.onFull == Reject {
			return fmt.Errorf("%w: stream %s has its %d bytes", ErrFull, p.own, p.maxBytes)
		}
		if err := l.dropOldest(c, GapRetention); err != nil {
			return err
		}
	}
}

// hasRoom says whether size more bytes keep the budget and the reserve.
// spaceMu is held.
func (l *Log) hasRoom(size int64) bool {
	used := l.space.segments + l.space.rest
	if limit := int64(l.config.MaxBytes); limit > 0 && used+size > limit {
		return false
	}
	return l.space.free-size >= l.reserveBytes()
}

func (l *Log) reserveBytes() int64 {
	if l.config.ReserveBytes > 0 {
		return int64(l.config.ReserveBytes)
	}
	return min(512<<20, l.space.total/10)
}

// createSegment makes a new file with its space. spaceMu is held.
func (l *Log) createSegment(g *segment) (disk.File, error) {
	file, err := l.files.OpenFile(g.path, disk.Create)
	if errors.Is(err, fs.ErrExist) {
		// Left by a failed attempt under this number; nothing of it was used.
		if err = l.files.Remove(g.path); err == nil {
			file, err = l.files.OpenFile(g.path, disk.Create)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create segment %s: %w", g.path, err)
	}
	err = file.Allocate(g.size)
	if err == nil {
		err = l.files.SyncDir(path.Dir(g.path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("allocate segment %s: %w", g.path, err), file.Close(), l.files.Remove(g.path))
	}
	l.space.segments += g.size
	l.space.free -= g.size
	return file, nil
}

// takeSpare turns a spare of the right size into the segment g; nil if there
// is none. spaceMu is held.
func (l *Log) takeSpare(g *segment) (disk.File, error) {
	for i, s := range l.spares {
		if s.size != g.size {
			continue
		}
		if err := l.files.Rename(s.path, g.path); err != nil {
			return nil, fmt.Errorf("reuse segment %s: %w", s.path, err)
		}
		l.spares = append(l.spares[:i:i], l.spares[i+1:]...)
		if err := l.files.SyncDir(path.Dir(g.path)); err != nil {
			return nil, fmt.Errorf("reuse segment %s: %w", g.path, err)
		}
		return l.files.OpenFile(g.path, disk.ReadWrite)
	}
	return nil, nil
}

func (l *Log) removeSpare() error {
	s := l.spares[0]
	l.spares = l.spares[1:]
	if err := l.files.Remove(s.path); err != nil {
		return fmt.Errorf("remove spare segment %s: %w", s.path, err)
	}
	l.space.segments -= s.size
	l.space.free += s.size
	return nil
}

// discardSegment gives back a segment that never held anything.
func (l *Log) discardSegment(g *segment, file disk.File) {
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	if err := file.Close(); err != nil {
		l.log.Warn("closing an unused segment", "segment", g.path, "error", err)
	}
	if err := l.retireLocked(g); err != nil {
		l.log.Warn("an unused segment stays", "segment", g.path, "error", err)
	}
}

// retire makes the file of a segment that holds nothing any more a spare, or
// removes it. Open calls it before anything else runs.
func (l *Log) retire(g *segment) error {
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	l.space.segments += g.size
	return l.retireLocked(g)
}

func (l *Log) retireLocked(g *segment) error {
	if len(l.spares) < maxSpares {
		to := path.Join(spareDir, fmt.Sprintf("%d-%s", g.id.chain, path.Base(g.path)))
		if err := l.files.Rename(g.path, to); err != nil {
			return fmt.Errorf("set segment %s by: %w", g.path, err)
		}
		l.spares = append(l.spares, spare{to, g.size})
		return nil
	}
	if err := l.files.Remove(g.path); err != nil {
		return fmt.Errorf("remove segment %s: %w", g.path, err)
	}
	l.space.segments -= g.size
	l.space.free += g.size
	return nil
}

// loadSpares finds the spares of an earlier run.
func (l *Log) loadSpares() {
	infos, err := l.files.ReadDir(spareDir)
	if err != nil {
		l.log.Warn("spare segments cannot be listed", "error", err)
		return
	}
	for _, info := range infos {
		s := spare{path.Join(spareDir, info.Name), info.Size}
		if len(l.spares) < maxSpares && !info.Dir {
			l.spares = append(l.spares, s)
			l.space.segments += s.size
		} else if err := l.files.Remove(s.path); err != nil {
			l.log.Warn("a spare segment stays", "file", s.path, "error", err)
		}
	}
}

// dropVictim drops the segment that is to go first under disk pressure: the
// oldest of the chains with the lowest priority, none above p's own. spaceMu
// is held.
func (l *Log) dropVictim(p chainPolicy) bool {
	l.mu.RLock()
	var victim *chain
	for _, c := range l.chains {
		if c.policy.onFull == Reject || c.policy.priority > p.priority || len(c.segments) == 0 || !c.segments[0].sealed {
			continue
		}
		if victim == nil || c.policy.priority < victim.policy.priority ||
			c.policy.priority == victim.policy.priority && c.segments[0].newest < victim.segments[0].newest {
			victim = c
		}
	}
	l.mu.RUnlock()
	if victim == nil {
		return false
	}
	if err := l.dropOldest(victim, GapDisk); err != nil {
		l.log.Error("the oldest segment cannot be dropped", "chain", victim.name, "error", err)
		return false
	}
	return true
}

// lookAtDisk brings l.space up to date. spaceMu is held.
func (l *Log) lookAtDisk() {
	if s, err := l.files.Space(); err == nil {
		l.space.free, l.space.total = s.FreeBytes, s.TotalBytes
	}
	var rest int64
	for _, dir := range []string{metaDir, indexDir} {
		infos, err := l.files.ReadDir(dir)
		if err != nil {
			continue // a look at sizes; the index directory is not there yet, or not ours to see
		}
		for _, info := range infos {
			rest += info.Allocated
		}
	}
	l.space.rest = rest
	l.mu.RLock()
	var segments int64
	for _, g := range l.segments {
		segments += g.size
	}
	l.mu.RUnlock()
	for _, s := range l.spares {
		segments += s.size
	}
	l.space.segments = segments
}

// keepSpace applies retention from time to time.
func (l *Log) keepSpace() {
	defer l.keepers.Done()
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case c := <-l.spaceDue:
			l.complain("segment", l.makeSpare(c))
		case <-tick.C:
			l.complain("retention", l.retain())
		}
	}
}

// prepareSpare asks for a file for the next segment of c, so that its
// committer need not wait for one.
func (l *Log) prepareSpare(c *chain) {
	select {
	case l.spaceDue <- c:
	default: // one asked for before is still under way
	}
}

// makeSpare sees to it that there is a spare for the next segment of c: by
// allocating one where the budget has room, else by dropping now what that
// segment would push out anyway.
func (l *Log) makeSpare(c *chain) error {
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	l.mu.RLock()
	policy := c.policy
	l.mu.RUnlock()
	size := l.segmentBytes(policy)
	for _, s := range l.spares {
		if s.size == size {
			return nil
		}
	}
	l.lookAtDisk()
	if !l.hasRoom(size) {
		if policy.maxBytes == 0 && policy.onFull == DropOldest {
			l.dropVictim(policy) // if there is none, the committer will say so
		}
		return nil
	}
	if len(l.spares) == maxSpares {
		return nil
	}
	l.spareNumber++
	g := &segment{path: path.Join(spareDir, fmt.Sprintf("new-%016x.seg", l.spareNumber)), size: size}
	file, err := l.createSegment(g)
	if err != nil {
		return err
	}
	l.spares = append(l.spares, spare{g.path, size})
	return file.Close()
}

func isNoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) }
