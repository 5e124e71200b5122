package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-edge/weir/buffer"
)

// route is one way into the API.
type route struct {
	method  string
	pattern string // of the ServeMux
	doc     string // the path in openapi.yaml where it is not pattern
	long    bool   // takes as long as the client wants
	handle  http.HandlerFunc
}

// routes lists everything the API answers. openapi.yaml describes the same;
// a test compares them.
func (s *Server) routes() []route {
	return []route{
		{method: "GET", pattern: "/healthz", handle: s.health},
		{method: "GET", pattern: "/metrics", handle: promhttp.HandlerFor(s.registry(), promhttp.HandlerOpts{
			ErrorHandling: promhttp.ContinueOnError,
		}).ServeHTTP},
		{method: "GET", pattern: "/api/v1/openapi.yaml", handle: s.openAPI},
		{method: "GET", pattern: "/api/v1/status", handle: s.status},
		{method: "GET", pattern: "/api/v1/streams", handle: s.streams},
		{method: "GET", pattern: "/api/v1/streams/{stream}", handle: s.stream},
		{method: "GET", pattern: "/api/v1/streams/{stream}/records", handle: s.readRecords, long: true},
		{method: "POST", pattern: "/api/v1/streams/{stream}/records", handle: s.appendRecords},
		{method: "GET", pattern: "/api/v1/consumers", handle: s.consumers},
		{method: "GET", pattern: "/api/v1/video/cameras", handle: s.cameras},
		{method: "GET", pattern: "/api/v1/video/cameras/{camera}/recordings", handle: s.listRecordings},
		{method: "GET", pattern: "/clip/{file}", doc: "/clip/{camera}.mp4", handle: s.clip, long: true},
	}
}

func (s *Server) newHandler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.routes() {
		slots := s.short
		if route.long {
			slots = s.long
		}
		handle := s.limited(slots, route.handle)
		if route.pattern == "/healthz" {
			handle = route.handle // a full house is not an unhealthy one
		}
		mux.Handle(route.method+" "+route.pattern, handle)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { notFound(mux, w, r) })
	return s.guard(mux)
}

// notFound answers what no route takes: 405 if another method would, else 404.
func notFound(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here", "use "+strings.Join(allowed, " or "))
		return
	}
	writeError(w, http.StatusNotFound, "nothing is here", "the API is under /api/v1/; see /api/v1/openapi.yaml")
}

// Fault is the body of every answer that is not a success.
type Fault struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

func writeError(w http.ResponseWriter, code int, message, hint string) {
	writeJSON(w, code, Fault{Error: message, Hint: hint})
}

// writeJSON ignores errors of writing: the client has gone, and there is
// nobody left to tell.
func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body)
}

// writeLogError answers with what an error of the log means in HTTP.
func writeLogError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, buffer.ErrNotFound):
		writeError(w, http.StatusNotFound, err.Error(), "weir streams list shows the streams")
	case errors.Is(err, buffer.ErrInvalid):
		writeError(w, http.StatusBadRequest, err.Error(), "")
	case errors.Is(err, buffer.ErrTooLarge):
		writeError(w, http.StatusRequestEntityTooLarge, err.Error(), "send smaller records, or fewer at once")
	case errors.Is(err, buffer.ErrFull):
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusTooManyRequests, err.Error(), "weir status shows what fills it")
	case errors.Is(err, buffer.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, err.Error(), "the daemon stops")
	default:
		writeError(w, http.StatusInternalServerError, err.Error(), "see the daemon's log")
	}
}
