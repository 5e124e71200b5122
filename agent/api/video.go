package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// maxRecordings bounds one listing; a client asks again from its last end.
const maxRecordings = 1000

// maxClip bounds what one request cuts.
const maxClip = 24 * time.Hour

func (s *Server) cameras(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Cameras []Camera `json:"cameras"`
	}{notNil(s.node.Parts().Cameras)})
}

func (s *Server) listRecordings(w http.ResponseWriter, r *http.Request) {
	span, err := timeSpan(r, time.Now())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	list, err := s.recordings.List(r.Context(), r.PathValue("camera"), span, maxRecordings)
	if err != nil {
		writeLogError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Recordings []Recording `json:"recordings"`
	}{notNil(list)})
}

// timeSpan reads ?start= and ?end=; they default to the beginning of time and
// to now.
func timeSpan(r *http.Request, now time.Time) (span Span, err error) {
	query := r.URL.Query()
	span.To = now
	if text := query.Get("start"); text != "" {
		if span.From, err = ParseTime(text, now); err != nil {
			return span, fmt.Errorf("start: %w", err)
		}
	}
	if text := query.Get("end"); text != "" {
		if span.To, err = ParseTime(text, now); err != nil {
			return span, fmt.Errorf("end: %w", err)
		}
	}
	if !span.From.Before(span.To) {
		return span, fmt.Errorf("start %s is not before end %s", span.From.Format(time.RFC3339), span.To.Format(time.RFC3339))
	}
	return span, nil
}

// clip cuts an MP4 and streams it. Once bytes have gone out an error can only
// be told by breaking the connection off, which the client sees.
func (s *Server) clip(w http.ResponseWriter, r *http.Request) {
	camera, ok := strings.CutSuffix(r.PathValue("file"), ".mp4")
	if !ok || camera == "" {
		writeError(w, http.StatusNotFound, "a clip is named CAMERA.mp4", "weir video list shows the cameras")
		return
	}
	if r.URL.Query().Get("start") == "" || r.URL.Query().Get("end") == "" {
		writeError(w, http.StatusBadRequest, "start and end are needed", "such as ?start=5m&end=0s, or times as 2026-01-31T12:00:00Z")
		return
	}
	span, err := timeSpan(r, time.Now())
	if err == nil && span.To.Sub(span.From) > maxClip {
		err = fmt.Errorf("a clip is at most %s long", maxClip)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	out := &clipWriter{w: w, control: http.NewResponseController(w), camera: camera}
	err = s.recordings.Clip(r.Context(), out, camera, span)
	switch {
	case err == nil && out.started:
	case err == nil:
		writeError(w, http.StatusNotFound, "nothing is recorded there", "weir video list "+camera+" shows what is")
	case !out.started && errors.Is(err, buffer.ErrNotFound):
		writeError(w, http.StatusNotFound, err.Error(), "weir video list shows the cameras and what they recorded")
	case !out.started:
		writeLogError(w, err)
	default:
		s.logger.Warn("clip broke off", "camera", camera, "error", err)
		// With a deadline in the past the answer cannot be ended properly: the
		// client sees a broken one, not a short clip.
		_ = out.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// clipWriter sends the header with the first byte and gives each write its
// own deadline.
type clipWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	camera  string
	started bool
}

func (c *clipWriter) Write(p []byte) (int, error) {
	if !c.started {
		c.started = true
		header := c.w.Header()
		header.Set("Content-Type", "video/mp4")
		header.Set("Content-Disposition", fmt.Sprintf("inline; filename=%q", c.camera+".mp4"))
	}
	// A recorder of a test has no deadlines; nothing to do then.
	_ = c.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return c.w.Write(p)
}
