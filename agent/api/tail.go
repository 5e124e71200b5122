package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Line is one line of the answer to a read of records: a record, or, in its
// place, a gap or the error that ended the answer early.
type Line struct {
	Record
	Gap   *GapLine `json:"gap,omitempty"`
	Error string   `json:"error,omitempty"`
}

// GapLine tells of records that cannot be read any more.
type GapLine struct {
	Stream string    `json:"stream"`
	Shard  string    `json:"shard"`
	From   string    `json:"from"` // first missing
	To     string    `json:"to"`   // last missing
	Bytes  int64     `json:"bytes,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// readRequest is a parsed query of readRecords.
type readRequest struct {
	stream string
	start  Start
	max    int64 // 0: no limit
	follow bool
}

func parseReadRequest(stream string, query url.Values, now time.Time) (readRequest, error) {
	req := readRequest{stream: stream}
	for name := range query {
		switch name {
		case "from", "shard", "max", "follow":
		default:
			return req, fmt.Errorf("parameter %.40q is unknown; there are from, shard, max and follow", name)
		}
	}
	var err error
	if text := query.Get("follow"); text != "" {
		if req.follow, err = strconv.ParseBool(text); err != nil {
			return req, fmt.Errorf("follow: %.40q is not true or false", text)
		}
	}
	from := query.Get("from")
	if from == "" {
		from = "trim-horizon"
	}
	if req.start, err = ParseStart(from, now); err != nil {
		return req, fmt.Errorf("from: %w", err)
	}
	if text := query.Get("max"); text != "" {
		if req.max, err = strconv.ParseInt(text, 10, 64); err != nil || req.max < 1 {
			return req, fmt.Errorf("max: %.40q is not a number from 1 on", text)
		}
	}
	if text := query.Get("shard"); text != "" {
		shard, err := ParseShard(text)
		if err != nil {
			return req, fmt.Errorf("shard: %w", err)
		}
		if req.start.Shard != nil && *req.start.Shard != shard {
			return req, fmt.Errorf("shard: %s is not the shard of from=%s", shard, from)
		}
		req.start.Shard = &shard
	}
	return req, nil
}

// readRecords streams records as lines of JSON.
func (s *Server) readRecords(w http.ResponseWriter, r *http.Request) {
	req, err := parseReadRequest(r.PathValue("stream"), r.URL.Query(), time.Now())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	reading, err := s.open(req)
	if err != nil {
		writeLogError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := newLineWriter(w)
	if req.follow {
		out.flush() // the client learns at once that the stream is there
	}
	err = reading.run(r.Context(), out)
	switch {
	case errors.Is(err, context.Canceled): // the client has gone, or the daemon stops
		out.write(Fault{Error: "the daemon stops"})
	case err != nil:
		s.logger.Warn("read broke off", "stream", req.stream, "error", err)
		out.write(Fault{Error: err.Error()})
	}
	out.flush()
}

// open finds where req begins in each of its shards.
func (s *Server) open(req readRequest) (*reading, error) {
	info, err := s.log.Stream(req.stream)
	if err != nil {
		return nil, err
	}
	reading := &reading{log: s.log, request: req, news: s.log.News()}
	for _, shard := range info.Shards {
		if req.start.Shard != nil && *req.start.Shard != shard.ID {
			continue
		}
		first, err := s.log.Find(req.stream, shard.ID, req.start.Start)
		if err != nil {
			return nil, err
		}
		reading.cursors = append(reading.cursors, &cursor{shard: shard.ID, next: first, end: shard.Next})
	}
	if len(reading.cursors) == 0 {
		return nil, fmt.Errorf("shard %s of stream %s: %w", req.start.Shard, req.stream, buffer.ErrNotFound)
	}
	return reading, nil
}

// reading merges the shards of a stream by time of arrival, each in its own
// order, with one page a shard in memory.
type reading struct {
	log     buffer.Reader
	request readRequest
	news    <-chan struct{} // closed: the shards at their end may have more
	cursors []*cursor
	sent    int64
}

// cursor is a place in one shard.
type cursor struct {
	shard buffer.ShardID
	next  buffer.Sequence
	end   buffer.Sequence // where reading ends, unless it follows
	page  []buffer.Entry  // read and not sent yet
	idle  bool            // nothing more until there is news
}

// run sends until the end, the maximum, or, following, until ctx is done.
func (r *reading) run(ctx context.Context, out *lineWriter) error {
	for {
		if err := r.fill(ctx, out); err != nil {
			return err
		}
		if oldest := r.oldest(); oldest != nil {
			record := NewRecord(&oldest.page[0])
			oldest.page = oldest.page[1:]
			if out.write(record); out.err != nil {
				return nil // the client has gone
			}
			if r.sent++; r.sent == r.request.max {
				return nil
			}
			continue
		}
		if !r.request.follow {
			return nil
		}
		if out.flush(); out.err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.news:
			r.news = r.log.News()
			for _, c := range r.cursors {
				c.idle = false
			}
		}
	}
}

// fill reads a page for each cursor that has none.
func (r *reading) fill(ctx context.Context, out *lineWriter) error {
	for _, c := range r.cursors {
		for len(c.page) == 0 && !c.idle {
			if !r.request.follow && c.next >= c.end {
				c.idle = true
				break
			}
			page, err := r.log.Read(ctx, r.request.stream, buffer.Position{Shard: c.shard, Sequence: c.next}, r.limit())
			if err != nil {
				return err
			}
			for _, gap := range page.Gaps {
				out.write(gapOnly(gap))
			}
			c.page, c.next, c.idle = page.Entries, page.Next, page.AtEnd
			for !r.request.follow && len(c.page) > 0 && c.page[len(c.page)-1].Sequence >= c.end {
				c.page = c.page[:len(c.page)-1]
				c.idle = true
			}
		}
	}
	return nil
}

// limit shares a MiB among the shards.
func (r *reading) limit() buffer.Limit {
	limit := buffer.Limit{MaxRecords: 1000, MaxBytes: max(1<<20/len(r.cursors), 16<<10)}
	if left := r.request.max - r.sent; r.request.max > 0 && left < int64(limit.MaxRecords) {
		limit.MaxRecords = int(left)
	}
	return limit
}

// oldest returns the cursor whose next record arrived first, nil if none has
// one.
func (r *reading) oldest() *cursor {
	var oldest *cursor
	for _, c := range r.cursors {
		if len(c.page) > 0 && (oldest == nil || c.page[0].Arrival.Before(oldest.page[0].Arrival)) {
			oldest = c
		}
	}
	return oldest
}

// gapOnly is a Line without the fields of a record.
func gapOnly(gap buffer.Gap) any {
	return struct {
		Gap GapLine `json:"gap"`
	}{GapLine{
		Stream: gap.Stream, Shard: gap.Shard.String(), From: gap.From.String(), To: gap.To.String(),
		Bytes: gap.Bytes, Reason: string(gap.Reason), At: gap.At,
	}}
}

// lineWriter writes JSON lines through a buffer; the first error stays.
type lineWriter struct {
	control *http.ResponseController
	buffer  *bufio.Writer
	encoder *json.Encoder
	err     error
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	control := http.NewResponseController(w)
	buffered := bufio.NewWriterSize(&patientWriter{w, control}, 32<<10)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	return &lineWriter{control: control, buffer: buffered, encoder: encoder}
}

func (l *lineWriter) write(line any) {
	if l.err == nil {
		l.err = l.encoder.Encode(line)
	}
}

func (l *lineWriter) flush() {
	if l.err == nil {
		l.err = l.buffer.Flush()
	}
	if l.err == nil {
		l.err = l.control.Flush()
	}
}

// patientWriter gives each write its own deadline, so that a long answer may
// take as long as the client keeps reading.
type patientWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (p *patientWriter) Write(data []byte) (int, error) {
	// A recorder of a test has no deadlines; nothing to do then.
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return p.w.Write(data)
}
