package uplink

import (
	"log/slog"
	"sync"
	"time"
)

// Status is a snapshot of an uplink. Counters are since New.
type Status struct {
	Name              string    `json:"name"`
	Type              string    `json:"type"`
	Consumer          string    `json:"consumer"`
	URL               string    `json:"url,omitempty"` // without credentials
	Connected         bool      `json:"connected"`     // for a sink without a connection: the last try succeeded
	Since             time.Time `json:"since,omitzero"`
	Connects          int64     `json:"connects"`
	LastError         string    `json:"last_error,omitempty"` // while something fails
	FailingSince      time.Time `json:"failing_since,omitzero"`
	SentRecords       int64     `json:"sent_records"` // acknowledged
	SentBytes         int64     `json:"sent_bytes"`   // their data, keys and attributes
	Batches           int64     `json:"batches"`      // with at least one record acknowledged
	Retries           int64     `json:"retries"`      // failures after which something was tried again
	DuplicatesSkipped int64     `json:"duplicates_skipped"`
	SetAside          int64     `json:"set_aside"`      // refused for good
	MissedRecords     int64     `json:"missed_records"` // gone from the log before they were sent
	Foreign           int64     `json:"foreign"`        // times the destination held other records under our ids
	InFlight          int64     `json:"in_flight"`      // records handed to the sink
	LastSent          time.Time `json:"last_sent,omitzero"`
}

// failing is what goes wrong with one stream.
type failing struct {
	since, logged time.Time
	err           error
	count         int64 // since logged
}

// status collects what Status tells.
type status struct {
	mu         sync.Mutex
	now        Status
	failing    map[string]failing
	lastFailed string // stream
	asideAt    time.Time
	asideCount int64
}

// Status returns a snapshot. It is safe at any time.
func (p *Pump) Status() Status {
	s := &p.status
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.now
	out.Name, out.Type, out.Consumer = p.config.Name, p.config.Type, p.consumer
	for _, f := range s.failing {
		if out.FailingSince.IsZero() || f.since.Before(out.FailingSince) {
			out.FailingSince = f.since
		}
	}
	if f, ok := s.failing[s.lastFailed]; ok {
		out.LastError = f.err.Error()
	} else {
		for _, f := range s.failing {
			out.LastError = f.err.Error()
		}
	}
	out.Connected = len(s.failing) == 0 && !out.LastSent.IsZero()
	if linked, ok := p.sink.(Linked); ok {
		link := linked.Link()
		out.URL, out.Connected, out.Since, out.Connects = link.URL, link.Connected, link.Since, link.Connects
	}
	return out
}

// fail notes a failure of a stream; it is logged once, then once a minute.
func (s *status) fail(stream string, err error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.now.Retries++
	s.lastFailed = stream
	f := s.failing[stream]
	if f.since.IsZero() {
		f.since = now
	}
	f.err = err
	f.count++
	if f.logged.IsZero() || now.Sub(f.logged) >= time.Minute {
		logger.Warn("uplink fails, it is tried again", "stream", stream, "error", err, "failures", f.count,
			"since", f.since.Format(time.RFC3339))
		f.logged, f.count = now, 0
	}
	s.failing[stream] = f
}

// works ends the failing of a stream.
func (s *status) works(stream string, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.failing[stream]; ok {
		delete(s.failing, stream)
		logger.Info("uplink works again", "stream", stream, "after", time.Since(f.since).Round(time.Millisecond))
	}
}

func (s *status) sent(records, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.SentRecords += int64(records)
	s.now.SentBytes += int64(bytes)
	s.now.Batches++
	s.now.LastSent = time.Now()
}

func (s *status) sending(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.InFlight += int64(n)
}

func (s *status) skipped(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.DuplicatesSkipped += n
}

func (s *status) missed(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.MissedRecords += n
}

func (s *status) foreign() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Foreign++
}

// setAside counts a refused record; logged at most once a minute.
func (s *status) setAside(id string, why error, logger *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.SetAside++
	s.asideCount++
	if now := time.Now(); s.asideAt.IsZero() || now.Sub(s.asideAt) >= time.Minute {
		logger.Error("the destination refuses a record for good, it is set aside", "id", id, "error", why, "count", s.asideCount)
		s.asideAt, s.asideCount = now, 0
	}
}
