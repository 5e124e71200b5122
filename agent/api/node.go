package api

import (
	_ "embed"
	"net/http"
	"time"
)

//go:embed openapi.yaml
var openAPIFile []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPIFile)
}

// health answers 200 or 503. Off loopback the reasons are for those who have
// the token.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	health := s.currentHealth()
	if !s.config.Token.IsZero() && !s.authorized(r) {
		health.Problems = []Problem{}
	}
	code := http.StatusOK
	if !health.OK {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, health)
}

func (s *Server) currentHealth() Health {
	health := s.node.Health()
	if health.Problems == nil {
		health.Problems = []Problem{}
	}
	return health
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.snapshot())
}

// snapshot asks everyone once.
func (s *Server) snapshot() Status {
	parts, stats := s.node.Parts(), s.log.Stats()
	return Status{
		Node: NodeStatus{
			ID: parts.ID, Labels: parts.Labels, Version: s.version,
			Started: parts.Started, Now: time.Now(), ClockSet: stats.ClockSynced,
		},
		Health: s.currentHealth(), Network: currentNetwork(), Log: logStatus(stats),
		Streams: s.streamList(), Consumers: s.consumerList(),
		Sources: notNil(parts.Sources), Cameras: notNil(parts.Cameras),
		Queries: notNil(parts.Queries), Sinks: notNil(parts.Sinks),
	}
}

func (s *Server) streamList() []StreamStatus {
	out := []StreamStatus{}
	for _, info := range s.log.Streams() {
		out = append(out, streamStatus(info))
	}
	return out
}

func (s *Server) consumerList() []ConsumerStatus {
	out := []ConsumerStatus{}
	for _, info := range s.log.Consumers() {
		out = append(out, consumerStatus(info))
	}
	return out
}

func (s *Server) streams(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Streams []StreamStatus `json:"streams"`
	}{s.streamList()})
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	info, err := s.log.Stream(r.PathValue("stream"))
	if err != nil {
		writeLogError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, streamStatus(info))
}

func (s *Server) consumers(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Consumers []ConsumerStatus `json:"consumers"`
	}{s.consumerList()})
}

// notNil makes an empty list [] in JSON, not null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
