package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Reason says why a request was refused, in its answer, in Status and in
// metrics.
type Reason string

// The reasons.
const (
	BadRequest   Reason = "bad_request"  // 400: the body, the key or the address
	Unauthorized Reason = "unauthorized" // 401: no token, or a wrong one
	Forbidden    Reason = "forbidden"    // 403: not this client's stream
	BadHost      Reason = "host"         // 403: a name that is not this machine's
	BadOrigin    Reason = "origin"       // 403: from a web page
	NotFound     Reason = "not_found"    // 404: no such place, or no such stream
	BadMethod    Reason = "method"       // 405: not POST
	Timeout      Reason = "timeout"      // 408: the body took too long
	TooLarge     Reason = "too_large"    // 413: a limit, which is named
	Unsupported  Reason = "media_type"   // 415: content type or encoding
	Full         Reason = "full"         // 429: the log has no room
	Busy         Reason = "busy"         // 429: requests have no room
	Throttled    Reason = "throttled"    // 429: too many wrong tokens
	Internal     Reason = "internal"     // 500: a fault of weir's
	LogAway      Reason = "log"          // 503: the log takes nothing, or did not answer in time
	Stopping     Reason = "stopping"     // 503: weir stops
	Gone         Reason = "gone"         // no answer: the client went away
	TurnedAway   Reason = "per_address"  // no answer: too many connections of one address
)

var codes = map[Reason]int{
	BadRequest: nethttp.StatusBadRequest, Unauthorized: nethttp.StatusUnauthorized, Forbidden: nethttp.StatusForbidden,
	BadHost: nethttp.StatusForbidden, BadOrigin: nethttp.StatusForbidden, NotFound: nethttp.StatusNotFound,
	BadMethod: nethttp.StatusMethodNotAllowed, Timeout: nethttp.StatusRequestTimeout, TooLarge: nethttp.StatusRequestEntityTooLarge,
	Unsupported: nethttp.StatusUnsupportedMediaType, Full: nethttp.StatusTooManyRequests, Busy: nethttp.StatusTooManyRequests,
	Throttled: nethttp.StatusTooManyRequests, Internal: nethttp.StatusInternalServerError,
	LogAway: nethttp.StatusServiceUnavailable, Stopping: nethttp.StatusServiceUnavailable, Gone: nethttp.StatusBadRequest,
}

// problem is an answer that is not a success (RFC 9457), and an error on the
// way there.
type problem struct {
	reason     Reason
	detail     string
	index      int // of the record in the request; -1: not of one
	retryAfter time.Duration
	header     [2]string // one more, such as Allow
}

func (p *problem) Error() string { return p.detail }

func refuse(reason Reason, format string, args ...any) *problem {
	return &problem{reason: reason, detail: fmt.Sprintf(format, args...), index: -1}
}

func (p *problem) after(d time.Duration) *problem {
	p.retryAfter = d
	return p
}

func (p *problem) at(index int) *problem {
	p.index = index
	return p
}

func (p *problem) challenge() *problem {
	p.header = [2]string{"WWW-Authenticate", `Bearer realm="weir"`}
	return p
}

// soon is when to come again, spread so that devices that were refused
// together do not come back together.
func soon() time.Duration { return time.Second + rand.N(4*time.Second) }

// write answers. Retry-After is in whole seconds, rounded up.
func (p *problem) write(w nethttp.ResponseWriter) {
	code := codes[p.reason]
	body := struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Reason Reason `json:"reason"`
		Index  *int   `json:"index,omitempty"`
	}{"about:blank", nethttp.StatusText(code), code, p.detail, p.reason, nil}
	if p.index >= 0 {
		body.Index = &p.index
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	if p.header[0] != "" {
		h.Set(p.header[0], p.header[1])
	}
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body) // the client has gone, and there is nobody left to tell
}

// ofLog makes a problem of an error of Append during the request of ctx.
func ofLog(ctx context.Context, err error) *problem {
	switch {
	case errors.Is(err, buffer.ErrFull):
		return refuse(Full, "%v; nothing was stored, send it again", err).after(soon())
	case errors.Is(err, buffer.ErrTooLarge):
		return refuse(TooLarge, "%v; nothing was stored, and sending it again does not help", err)
	case errors.Is(err, buffer.ErrInvalid):
		return refuse(BadRequest, "%v; nothing was stored, and sending it again does not help", err)
	case errors.Is(err, buffer.ErrClosed):
		return refuse(Stopping, "%v; nothing was stored, send it again", err).after(soon())
	case errors.Is(context.Cause(ctx), errStopping):
		return refuse(Stopping, "weir stops, and whether the records were stored is not known; send them again").after(soon())
	case ctx.Err() != nil:
		return refuse(Gone, "the client went away")
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(LogAway, "the log did not answer in time, and whether the records were stored is not known; send them again").after(soon())
	}
	return refuse(LogAway, "the log takes nothing: %v; send it again", err).after(soon())
}
