package crashtest

import "strings"

// Fault makes operations fail.
type Fault struct {
	Kind   Kind   // of operations it counts; Any: all but Read
	Prefix string // of the name they must have; "": all. A file goes by the name it was opened with
	Nth    int    // the operation of these that fails, from 1, from now on; 0 is 1
	Always bool   // and all of these after it
	Err    error  // what they return, wrapped in a *fs.PathError

	// Partial is how many bytes a write that fails has written, at most.
	Partial int
	// KeepDirty: a sync that fails leaves the pages to be written by the next
	// one. Otherwise they are lost, as on Linux, though they may have reached
	// the disk.
	KeepDirty bool

	seen int
}

// Fail adds a fault. Operations that could not be made anyway, of a file that
// is not there say, are not counted. If several faults fit an operation, the
// first one counts that is due. An operation that fails leaves nothing but
// what Partial and KeepDirty say.
func (f *FS) Fail(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault.seen = 0
	fault.Nth = max(fault.Nth, 1)
	f.faults = append(f.faults, &fault)
}

// FailNext makes the nth operation of a kind from now, 1 being the next one,
// return err, once.
func (f *FS) FailNext(kind Kind, n int, err error) { f.Fail(Fault{Kind: kind, Nth: n, Err: err}) }

// Heal takes all faults away.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Failed returns how many operations faults have made fail.
func (f *FS) Failed() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.failed
}

// fault returns the fault that the next operation meets, or nil. f.mu is held.
func (f *FS) fault(kind Kind, name string) *Fault {
	var due *Fault
	for _, x := range f.faults {
		if x.Kind != kind && (x.Kind != Any || kind == Read) || !strings.HasPrefix(name, x.Prefix) {
			continue
		}
		x.seen++
		if due == nil && (x.seen == x.Nth || x.Always && x.seen > x.Nth) {
			due = x
		}
	}
	if due != nil {
		f.failed++
	}
	return due
}
