package mqtt

import (
	"log/slog"
	"sync"
	"time"

	"github.com/weir-edge/weir/ingest"
)

// State says what a source is doing.
type State string

// The states of a source.
const (
	Connecting State = "connecting"
	Connected  State = "connected" // and subscribed
	Away       State = "away"      // waiting before it tries again
	Stopped    State = "stopped"
)

// Status is a source at one moment. Counts are since it was made.
type Status struct {
	Name           string    `json:"name"`
	URL            string    `json:"url"`
	State          State     `json:"state"`
	Since          time.Time `json:"since"`
	LastError      string    `json:"last_error,omitempty"`
	SessionPresent bool      `json:"session_present"` // the broker had our session at the last connect
	Connects       int64     `json:"connects"`
	Received       int64     `json:"received"`
	ReceivedBytes  int64     `json:"received_bytes"`
	Appended       int64     `json:"appended"`
	Acknowledged   int64     `json:"acknowledged"`
	Repeated       int64     `json:"repeated"` // delivered again, not appended again
	SetAside       int64     `json:"set_aside"`
	Lost           int64     `json:"lost"` // that could not even be set aside
	Inflight       int64     `json:"inflight"`
	LogError       string    `json:"log_error,omitempty"` // why the log takes nothing at the moment
}

// state is the mutable status.
type state struct {
	mu         sync.Mutex
	status     Status
	failures   int       // since the last success
	complained time.Time // when a failure was last logged
	asideAt    time.Time // when setting aside was last logged
	trouble    ingest.Trouble
}

// Status returns a snapshot.
func (s *Source) Status() Status {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	return s.state.status
}

// Ready says that the source has begun its work: it is subscribed, or its
// broker is away and it tries again.
func (s *Source) Ready() bool {
	st := s.Status().State
	return st == Connected || st == Away
}

func (s *state) set(to State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == Away && to == Connecting {
		return // still away as far as anybody can see
	}
	if s.status.State != to {
		s.status.State, s.status.Since = to, time.Now()
	}
	if err != nil {
		s.status.LastError = err.Error()
	}
}

// away notes a lost or failed connection. It is logged once, then at most
// once a minute with the number of tries.
func (s *state) away(err error, pause time.Duration, logger *slog.Logger) {
	s.set(Away, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	if s.failures > 1 && time.Since(s.complained) < time.Minute {
		return
	}
	s.complained = time.Now()
	logger.Warn("the broker is away; trying again", "error", err, "tries", s.failures, "pause", pause.Round(time.Millisecond))
}

func (s *state) connected(logger *slog.Logger) {
	s.set(Connected, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Connects++
	s.status.LastError = ""
	s.failures = 0
	logger.Info("connected and subscribed", "session_present", s.status.SessionPresent)
}

func (s *state) session(present bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.SessionPresent = present
}

func (s *state) received(it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Inflight++
	if !it.newSession {
		s.status.Received++
		s.status.ReceivedBytes += int64(max(len(it.payload), it.size))
	}
}

func (s *state) handled(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Inflight -= int64(n)
}

func (s *state) repeated() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Repeated++
}

func (s *state) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Lost++
}

func (s *state) acknowledged(appended, acknowledged int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Appended += int64(appended)
	s.status.Acknowledged += int64(acknowledged)
}

func (s *state) aside(reason string, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.SetAside++
	if time.Since(s.asideAt) < time.Minute {
		return
	}
	s.asideAt = time.Now()
	logger.Warn("a message was set aside", "reason", reason, "stream", ingest.Aside, "so_far", s.status.SetAside)
}

// logged notes whether the log took an append.
func (s *state) logged(stream string, err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble.Note(stream, err, logger)
	s.status.LogError = s.trouble.Text()
}
