package http

import (
	"context"
	"errors"
	nethttp "net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest"
)

// AttrClient names the client on a record, if it has a name.
const AttrClient = "http.client"

// errStopping is the cause of a request's end when the source stops.
var errStopping = errors.New("weir stops")

// exchange is one request and its answer.
type exchange struct {
	source  *Source
	w       nethttp.ResponseWriter
	r       *nethttp.Request
	control *nethttp.ResponseController
	lease   lease
	stream  string
	client  *client
	form    form
	encoded bool // the body is gzip
	read    bool // the body was read to its end
}

// serve is the handler of everything.
func (s *Source) serve(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.state.began()
	defer s.state.ended()
	e := &exchange{source: s, w: w, r: r, control: nethttp.NewResponseController(w), lease: lease{room: s.room}}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if !s.flights.begin() {
		e.refuse(refuse(Stopping, "weir stops; send it again").after(soon()))
		return
	}
	defer s.flights.end()
	defer e.lease.release()
	defer func() {
		if fault := recover(); fault != nil {
			s.logger.Error("a request panicked", "fault", fault, "stack", string(debug.Stack()))
			e.refuse(refuse(Internal, "a fault of weir's; see its log"))
		}
	}()
	if p := e.run(); p != nil {
		e.refuse(p)
	}
}

// run takes the request through; what it returns is the answer.
func (e *exchange) run() *problem {
	var p *problem
	if e.client, p = e.source.admit(e.r); p != nil {
		return p
	}
	if p = e.route(); p != nil {
		return p
	}
	if p = e.heads(); p != nil {
		return p
	}
	body, p := e.body()
	if p != nil {
		return p
	}
	records, p := e.records(body)
	if p != nil {
		return p
	}
	e.source.state.received(len(records), len(body))
	return e.append(records)
}

// route finds the stream.
func (e *exchange) route() *problem {
	rest, ok := strings.CutPrefix(e.r.URL.Path, "/v1/streams/")
	name, last := strings.CutSuffix(rest, "/records")
	if !ok || !last || name == "" || strings.Contains(name, "/") {
		return refuse(NotFound, "nothing is here; records go to /v1/streams/STREAM/records")
	}
	key, known := e.source.streams[name]
	if !known {
		return refuse(NotFound, "stream %.140q takes nothing by this way; it is not under streams of the source %s", name, e.source.config.Name)
	}
	if !e.client.may(name) {
		return refuse(Forbidden, "client %s may not write stream %s", e.client.name, name)
	}
	if e.r.Method != nethttp.MethodPost {
		p := refuse(BadMethod, "method %.20q is not allowed here; use POST", e.r.Method)
		p.header = [2]string{"Allow", nethttp.MethodPost}
		return p
	}
	e.stream, e.form.template = name, key
	return nil
}

// heads checks what is known before the body is read.
func (e *exchange) heads() *problem {
	query, err := parseQuery(e.r.URL.RawQuery)
	if err != nil {
		return refuse(BadRequest, "%v", err)
	}
	e.form.key = query
	if list := e.r.Header.Values("Weir-Partition-Key"); len(list) > 0 {
		e.form.key = list[0]
		if len(list) > 1 || query != "" {
			return refuse(BadRequest, "the partition key is given twice; send one for all records of the request")
		}
		if e.form.key == "" {
			return refuse(BadRequest, "Weir-Partition-Key is empty")
		}
	}
	if e.form.key != "" {
		if err := checkKey(e.form.key); err != nil {
			return refuse(BadRequest, "%v", err)
		}
	}
	var p *problem
	if e.encoded, p = encodingOf(e.r.Header); p != nil {
		return p
	}
	if e.form.kind, p = kindOf(e.r.Header); p != nil {
		return p
	}
	if limit := int64(e.source.config.MaxBodyBytes); e.r.ContentLength > limit {
		return e.tooLong()
	}
	return nil
}

func (e *exchange) tooLong() *problem {
	return refuse(TooLarge, "the body is over max_body_bytes (%s); send it in several requests", e.source.config.MaxBodyBytes)
}

// append stores the records and answers.
func (e *exchange) append(records []buffer.Record) *problem {
	s := e.source
	positions, p := []buffer.Position(nil), (*problem)(nil)
	if len(records) > 0 { // an empty batch is allowed
		if positions, p = e.store(records); p != nil {
			return p
		}
	}
	answer := make([]byte, 0, 64+64*len(positions))
	answer = append(answer, `{"stream":`...)
	answer = strconv.AppendQuote(answer, e.stream) // its characters need no escapes
	answer = append(answer, `,"records":`...)
	answer = strconv.AppendInt(answer, int64(len(positions)), 10)
	answer = append(answer, `,"positions":[`...)
	for i, at := range positions {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = append(answer, `{"shard":"`...)
		answer = append(answer, at.Shard.String()...)
		answer = append(answer, `","sequence":"`...)
		answer = strconv.AppendUint(answer, uint64(at.Sequence), 10)
		answer = append(answer, `"}`...)
	}
	answer = append(answer, "]}\n"...)
	e.w.Header().Set("Content-Type", "application/json")
	e.w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	e.deadline()
	if _, err := e.w.Write(answer); err != nil {
		return nil // the client has gone; it will send them again
	}
	s.state.acknowledged(len(positions))
	return nil
}

func (e *exchange) store(records []buffer.Record) ([]buffer.Position, *problem) {
	s := e.source
	ctx, cancel := context.WithTimeout(e.r.Context(), s.config.RequestTimeout.Std())
	defer cancel()
	positions, err := s.log.Append(ctx, e.stream, records...)
	if err != nil {
		p := ofLog(e.r.Context(), err)
		if p.reason == Full || p.reason == LogAway {
			s.state.logged(e.stream, err, s.logger)
		}
		return nil, p
	}
	var size int64
	for i := range records {
		size += int64(len(records[i].Data))
	}
	s.state.logged(e.stream, nil, s.logger)
	s.state.appended(len(records), size)
	return positions, nil
}

// refuse answers with a problem. If the body was not read, the connection ends
// with the answer: nothing else tells the client to stop sending.
func (e *exchange) refuse(p *problem) {
	e.source.state.refused(p, e.r.RemoteAddr, e.source.logger)
	if !e.read && e.r.ContentLength != 0 {
		e.w.Header().Set("Connection", "close")
		// net/http reads on for up to 256 KiB after the answer, so that a client
		// that is still sending gets it, and without this for as long as it likes.
		_ = e.control.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	e.deadline()
	p.write(e.w)
}

// stopping says that the request ends because the source does.
func (e *exchange) stopping() bool { return errors.Is(context.Cause(e.r.Context()), errStopping) }

// deadline is for the answer. A recorder of a test has none; nothing to do
// then.
func (e *exchange) deadline() { _ = e.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// attributes are those of every record of the request.
func (e *exchange) attributes() []buffer.Attribute {
	list := []buffer.Attribute{{Key: ingest.AttrSource, Value: e.source.config.Name}}
	if e.client.name != "" {
		list = append(list, buffer.Attribute{Key: AttrClient, Value: e.client.name})
	}
	return list
}
