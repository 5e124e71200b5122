package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"
)

// guard wraps the routes with what holds for every request: it is counted,
// a panic costs only itself, it comes from a place that may ask, and nobody
// holds a connection with a slow body or a slow read.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &countingWriter{ResponseWriter: w}
		defer func() {
			if fault := recover(); fault != nil {
				s.counters.panics.Inc()
				s.logger.Error("api request panicked", "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
				if answer.code == 0 {
					writeError(answer, http.StatusInternalServerError, "internal error", "see the daemon's log")
				}
			}
			s.counters.request(r, answer.code)
		}()
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if !s.admit(answer, r) {
			return
		}
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			// A recorder of a test has no deadlines; nothing to do then.
			_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		next.ServeHTTP(answer, r)
	})
}

// admit answers and returns false if the request may not be served.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	refuse := func(reason string, code int, message, hint string) bool {
		s.counters.refused.WithLabelValues(reason).Inc()
		writeError(w, code, message, hint)
		return false
	}
	if s.config.Loopback() {
		if !isLoopback(hostOnly(r.Host)) {
			return refuse("host", http.StatusForbidden, fmt.Sprintf("host %.100q is not this machine", r.Host),
				"use http://127.0.0.1 or http://localhost")
		}
		if !sameOrigin(r) {
			return refuse("origin", http.StatusForbidden, "a page of another origin may not call this API", "")
		}
	}
	if !s.config.Token.IsZero() && r.URL.Path != "/healthz" && !s.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
		return refuse("token", http.StatusUnauthorized, "the token is missing or wrong", "send Authorization: Bearer TOKEN")
	}
	if r.Method != http.MethodPost && r.ContentLength != 0 {
		return refuse("body", http.StatusBadRequest, "this request takes no body", "")
	}
	return true
}

// authorized compares hashes, so that neither the content nor the length of
// the token shows in the time it takes.
func (s *Server) authorized(r *http.Request) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	have, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.config.Token.Reveal()))
	same := subtle.ConstantTimeCompare(have[:], want[:]) == 1
	return same && strings.EqualFold(scheme, "Bearer")
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// sameOrigin says whether r comes from a program, from this API's own pages,
// or from a person following a link.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// limited runs next while it finds a slot among slots, else answers 503.
func (s *Server) limited(slots chan struct{}, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next(w, r)
		default:
			s.counters.refused.WithLabelValues("busy").Inc()
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, "too many requests at once", "try again in a second")
		}
	}
}

// countingWriter remembers the status of an answer.
type countingWriter struct {
	http.ResponseWriter
	code int
}

func (w *countingWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
