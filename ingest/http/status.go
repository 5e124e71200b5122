package http

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/weir-edge/weir/ingest"
)

// State says what a source is doing.
type State string

// The states of a source.
const (
	Starting  State = "starting"
	Listening State = "listening"
	Stopped   State = "stopped"
)

// Status is a source at one moment. Counts are since it was made.
type Status struct {
	Name          string           `json:"name"`
	Address       string           `json:"address,omitempty"` // host:port where it listens
	State         State            `json:"state"`
	Since         time.Time        `json:"since"`
	Requests      int64            `json:"requests"`               // that were complete enough to be answered
	Received      int64            `json:"received"`               // records that were read and given to the log
	ReceivedBytes int64            `json:"received_bytes"`         // of bodies, unpacked
	Appended      int64            `json:"appended"`               // records that are durable
	AppendedBytes int64            `json:"appended_bytes"`         // their data
	Acknowledged  int64            `json:"acknowledged"`           // records whose answer 200 was written
	Refused       map[Reason]int64 `json:"refused"`                // requests, and connections that were turned away
	LastRefusal   string           `json:"last_refusal,omitempty"` // the detail of the last answer that was not a success
	Inflight      int64            `json:"inflight"`               // requests that run
	InflightBytes int64            `json:"inflight_bytes"`         // memory they hold
	Connections   int              `json:"connections"`            // open at the moment
	LogError      string           `json:"log_error,omitempty"`    // why the log takes nothing at the moment
}

// state is the mutable status.
type state struct {
	mu         sync.Mutex
	status     Status
	complained map[Reason]time.Time // when a refusal was last logged
	trouble    ingest.Trouble
}

// Status returns a snapshot.
func (s *Source) Status() Status {
	s.room.mu.Lock()
	held := int64(s.room.used)
	s.room.mu.Unlock()
	s.mu.Lock()
	doors := s.doors
	s.mu.Unlock()
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	out := s.state.status
	out.Connections = doors.inside()
	out.Refused = maps.Clone(out.Refused)
	out.InflightBytes = held
	return out
}

func (s *state) set(to State) {
	if s.status.State != to {
		s.status.State, s.status.Since = to, time.Now()
	}
}

func (s *state) listening(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(Listening)
	s.status.Address = address
}

func (s *state) stopped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(Stopped)
	s.status.Address = ""
}

func (s *state) turnedAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refused[TurnedAway]++
}

func (s *state) began() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Requests++
	s.status.Inflight++
}

func (s *state) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Inflight--
}

func (s *state) received(records, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Received += int64(records)
	s.status.ReceivedBytes += int64(bytes)
}

func (s *state) appended(records int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Appended += int64(records)
	s.status.AppendedBytes += bytes
}

func (s *state) acknowledged(records int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Acknowledged += int64(records)
}

// refused counts and logs a refusal, once a minute a reason. Details may hold
// what a client sent, never a token.
func (s *state) refused(p *problem, from string, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refused[p.reason]++
	s.status.LastRefusal = p.detail
	if p.reason == Full || p.reason == LogAway {
		return // logged tells of these
	}
	if s.complained == nil {
		s.complained = make(map[Reason]time.Time)
	}
	if last, ok := s.complained[p.reason]; ok && time.Since(last) < time.Minute {
		return
	}
	s.complained[p.reason] = time.Now()
	logger.Warn("a request was refused", "reason", string(p.reason), "detail", p.detail, "from", from, "so_far", s.status.Refused[p.reason])
}

// logged notes whether the log took an append.
func (s *state) logged(stream string, err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble.Note(stream, err, logger)
	s.status.LogError = s.trouble.Text()
}
