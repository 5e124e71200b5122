package analytics

import (
	"log/slog"
	"sync"
	"time"
)

// State says what a runner does.
type State string

const (
	Waiting    State = "waiting"     // the input stream is not there yet
	CatchingUp State = "catching-up" // there is more to read
	Live       State = "live"        // everything was read
	Failing    State = "failing"     // the log refuses; it is tried again
	Stopped    State = "stopped"     // it does not run
)

// Status is a snapshot of a runner. Counters are since New.
type Status struct {
	Name          string    `json:"name"`
	State         State     `json:"state"`
	Since         time.Time `json:"since,omitzero"` // of the state
	Consumer      string    `json:"consumer"`       // its lag stands in the log
	Input         string    `json:"input"`
	Output        string    `json:"output"`
	Records       int64     `json:"records"`            // read and analyzed; after a failure some are read again
	Rows          int64     `json:"rows"`               // appended to the output
	Commits       int64     `json:"commits"`            // all, with rows and without
	Late          int64     `json:"late"`               // counted in a later window than that of their arrival
	Setbacks      int64     `json:"setbacks"`           // times the clock was set back, by shard
	BadRecords    int64     `json:"bad_records"`        // not what the query reads
	BadValues     int64     `json:"bad_values"`         // records with a value that counted as NULL
	LastBad       string    `json:"last_bad,omitempty"` // what was wrong
	MissedRecords int64     `json:"missed_records"`     // gone from the log before they were read
	Gaps          int64     `json:"gaps"`               // runs of them
	Retries       int64     `json:"retries"`            // failures of the log after which it was tried again
	Windows       int       `json:"windows"`            // open
	Groups        int       `json:"groups"`             // in open windows
	StateBytes    int       `json:"state_bytes"`        // at the last commit
	Watermark     time.Time `json:"watermark,omitzero"`
	LastRow       time.Time `json:"last_row,omitzero"`   // when rows were last appended
	LastError     string    `json:"last_error,omitzero"` // of the log, while it fails; or why it stopped
	FailingSince  time.Time `json:"failing_since,omitzero"`
}

// status collects what Status tells.
type status struct {
	mu     sync.Mutex
	now    Status
	logged time.Time // the failure
	failed int64     // times since then
	told   time.Time // the last bad record
	last   Progress  // as it was last told
}

func (s *status) get() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *status) change(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
}

// enter says what the runner does, unless it is failing: that ends with works.
func (s *status) enter(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.State != state && s.now.FailingSince.IsZero() {
		s.now.State, s.now.Since = state, time.Now()
	}
}

// fail notes a failure of the log; it is logged once, then once a minute.
func (s *status) fail(err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.now.Retries++
	s.failed++
	s.now.LastError = err.Error()
	if s.now.FailingSince.IsZero() {
		s.now.FailingSince = now
	}
	if s.now.State != Failing {
		s.now.State, s.now.Since = Failing, now
	}
	if s.logged.IsZero() || now.Sub(s.logged) >= time.Minute {
		logger.Warn("the log refuses, it is tried again", "error", err, "failures", s.failed, "since", s.now.FailingSince.Format(time.RFC3339))
		s.logged, s.failed = now, 0
	}
}

// works ends a failing.
func (s *status) works(logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.FailingSince.IsZero() {
		return
	}
	logger.Info("the log works again", "after", time.Since(s.now.FailingSince).Round(time.Millisecond))
	s.now.LastError, s.now.FailingSince, s.logged, s.failed = "", time.Time{}, time.Time{}, 0
}

// progress takes over what the analyzer says; what is bad is logged at most
// once a minute.
func (s *status) progress(p Progress, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.now
	n.Late, n.Setbacks, n.BadRecords, n.BadValues, n.LastBad = p.Late, p.Setbacks, p.BadRecord, p.BadValue, p.LastBad
	n.Windows, n.Groups, n.Watermark = p.Windows, p.Groups, p.Watermark
	if p.BadRecord+p.BadValue == s.last.BadRecord+s.last.BadValue {
		return
	}
	if now := time.Now(); s.told.IsZero() || now.Sub(s.told) >= time.Minute {
		logger.Warn("records have what the query cannot use", "last", p.LastBad,
			"bad_records", p.BadRecord, "bad_values", p.BadValue)
		s.told, s.last = now, p
	}
}
