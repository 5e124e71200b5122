package broker

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/weir-edge/weir/ingest"
)

// State says what a broker is doing.
type State string

// The states of a broker.
const (
	Starting  State = "starting"
	Listening State = "listening"
	Stopped   State = "stopped"
)

// Status is a broker at one moment. Counts are since it was made.
type Status struct {
	Name          string           `json:"name"`
	Address       string           `json:"address,omitempty"` // host:port
	State         State            `json:"state"`
	Since         time.Time        `json:"since"`
	Clients       int64            `json:"clients"`
	Sessions      int64            `json:"sessions"`
	Subscriptions int64            `json:"subscriptions"`
	Retained      int64            `json:"retained"`
	QueuedBytes   int64            `json:"queued_bytes"` // that wait for subscribers
	Connects      int64            `json:"connects"`
	Refused       map[string]int64 `json:"refused"` // connections, by reason
	Denied        int64            `json:"denied"`  // messages that their client may not send
	Received      int64            `json:"received"`
	ReceivedBytes int64            `json:"received_bytes"`
	Appended      int64            `json:"appended"`
	Acknowledged  int64            `json:"acknowledged"`
	Repeated      int64            `json:"repeated"` // delivered again, not appended again
	SetAside      int64            `json:"set_aside"`
	Lost          int64            `json:"lost"`    // that could not even be set aside
	Dropped       int64            `json:"dropped"` // for a subscriber that was full, or not retained for want of room
	Inflight      int64            `json:"inflight"`
	BadState      int64            `json:"bad_state"` // records of StateStream that could not be read
	Panics        int64            `json:"panics"`
	LogError      string           `json:"log_error,omitempty"` // why the log takes nothing at the moment
}

// state is the mutable status.
type state struct {
	mu         sync.Mutex
	status     Status
	complained map[string]time.Time // when something was last logged
	trouble    ingest.Trouble
}

// Status returns a snapshot.
func (b *Broker) Status() Status {
	b.state.mu.Lock()
	out := b.state.status
	out.Refused = maps.Clone(out.Refused)
	b.state.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	out.Sessions, out.Retained, out.QueuedBytes = int64(len(b.sessions)), int64(len(b.retained)), b.queuedBytes
	for _, s := range b.sessions {
		out.Subscriptions += int64(len(s.subs))
	}
	return out
}

func (s *state) change(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// once says whether something of that kind was not logged for a minute. mu is
// held.
func (s *state) once(kind string) bool {
	if s.complained == nil {
		s.complained = map[string]time.Time{}
	}
	if last := s.complained[kind]; !last.IsZero() && time.Since(last) < time.Minute {
		return false
	}
	s.complained[kind] = time.Now()
	return true
}

func (s *state) listening(address string) {
	s.change(func(st *Status) { st.State, st.Since, st.Address = Listening, time.Now(), address })
}

func (s *state) stopped() {
	s.change(func(st *Status) { st.State, st.Since, st.Address = Stopped, time.Now(), "" })
}

func (s *state) connected() {
	s.change(func(st *Status) { st.Clients++; st.Connects++ })
}

func (s *state) disconnected() { s.change(func(st *Status) { st.Clients-- }) }

func (s *state) turnedAway(reason string) { s.change(func(st *Status) { st.Refused[reason]++ }) }

// turnedAwayClient counts a connection that was not let in; of those that come
// without the right to, one a minute is logged.
func (s *state) turnedAwayClient(err error, logger *slog.Logger) {
	reason := "connect"
	if away, ok := err.(*turnedAway); ok {
		reason = away.reason
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refused[reason]++
	if s.once("refused " + reason) {
		logger.Warn("a connection was refused", "reason", err, "so_far", s.status.Refused[reason])
	}
}

func (s *state) failedAccept(err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refused["accept"]++
	if s.once("accept") {
		logger.Error("a connection could not be taken", "error", err)
	}
}

func (s *state) refusedPublish() { s.change(func(st *Status) { st.Denied++ }) }

func (s *state) panicked() { s.change(func(st *Status) { st.Panics++ }) }

func (s *state) badState() { s.change(func(st *Status) { st.BadState++ }) }

func (s *state) received(it *inbound) {
	s.change(func(st *Status) {
		st.Inflight++
		st.Received++
		st.ReceivedBytes += int64(len(it.message.Payload))
	})
}

func (s *state) handled(n int) { s.change(func(st *Status) { st.Inflight -= int64(n) }) }

func (s *state) repeated() { s.change(func(st *Status) { st.Repeated++ }) }

func (s *state) lost() { s.change(func(st *Status) { st.Lost++ }) }

func (s *state) acknowledged(appended, acknowledged int) {
	s.change(func(st *Status) {
		st.Appended += int64(appended)
		st.Acknowledged += int64(acknowledged)
	})
}

func (s *state) aside(reason string, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.SetAside++
	if s.once("aside") {
		logger.Warn("a message was set aside", "reason", reason, "stream", ingest.Aside, "so_far", s.status.SetAside)
	}
}

// droppedFor counts a message that a subscriber does not get.
func (s *state) droppedFor(client string, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Dropped++
	if s.once("dropped") {
		logger.Warn("a message was dropped for want of room; the log is not concerned", "client", client, "so_far", s.status.Dropped)
	}
}

// logged notes whether the log took an append.
func (s *state) logged(stream string, err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble.Note(stream, err, logger)
	s.status.LogError = s.trouble.Text()
}
