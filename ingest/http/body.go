package http

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// parseQuery returns the partition key of the address; a misspelt parameter is
// an error, for the key would be another one.
func parseQuery(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", errors.New("what is behind the ? of the address does not decode")
	}
	for name := range query {
		if name != "partition_key" {
			return "", fmt.Errorf("parameter %.60q is not known; there is partition_key", name)
		}
	}
	switch list := query["partition_key"]; {
	case len(list) > 1:
		return "", errors.New("partition_key is given twice; send one for all records of the request")
	case list[0] == "":
		return "", errors.New("partition_key is empty")
	default:
		return list[0], nil
	}
}

// encodingOf says whether the body is packed with gzip.
func encodingOf(h nethttp.Header) (bool, *problem) {
	text := strings.Join(h.Values("Content-Encoding"), ",")
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	}
	p := refuse(Unsupported, "content encoding %.60q is not gzip or identity", text)
	p.header = [2]string{"Accept-Encoding", "gzip"} // RFC 9110, section 12.5.3
	return false, p
}

// body reads the body into the request's part of the memory. What is taken
// grows with what came, so that a length that is only claimed holds nothing.
func (e *exchange) body() ([]byte, *problem) {
	if err := e.lease.grow(e.r.Context(), requestOverhead); err != nil {
		return nil, e.noRoom(err)
	}
	// A recorder of a test has no deadlines; nothing to do then.
	_ = e.control.SetReadDeadline(time.Now().Add(e.source.config.RequestTimeout.Std()))
	known := e.r.ContentLength
	in := io.Reader(e.r.Body)
	if e.encoded {
		if err := e.lease.grow(e.r.Context(), gzipOverhead); err != nil {
			return nil, e.noRoom(err)
		}
		defer e.lease.shrink(gzipOverhead)
		packed := &counter{in: in}
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return nil, e.unreadable(err)
		}
		in, known = &unpacker{in: unpacked, packed: packed}, -1
	}
	body, p := e.readAll(in, known)
	if p != nil {
		return nil, p
	}
	e.read = true
	// The deadline would otherwise end the request while it waits for the log.
	_ = e.control.SetReadDeadline(time.Time{})
	return body, nil
}

// readAll reads at most max_body_bytes. known is how much there should be, or
// negative.
func (e *exchange) readAll(in io.Reader, known int64) ([]byte, *problem) {
	limit := int(e.source.config.MaxBodyBytes)
	if known >= 0 {
		limit = int(known) // which heads has checked
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			grown, p := e.double(body, limit+1)
			if p != nil {
				return nil, p
			}
			body = grown
		}
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > limit:
			return nil, e.tooLong()
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, e.unreadable(err)
		}
	}
}

// double moves body to a larger place. The old one counts until it was copied.
func (e *exchange) double(body []byte, most int) ([]byte, *problem) {
	size := min(max(4<<10, 2*cap(body)), most)
	if err := e.lease.grow(e.r.Context(), size); err != nil {
		return nil, e.noRoom(err)
	}
	grown := make([]byte, len(body), size)
	copy(grown, body)
	e.lease.shrink(cap(body))
	return grown, nil
}

func (e *exchange) noRoom(err error) *problem {
	if errors.Is(err, errBusy) {
		return refuse(Busy, "%v; send it again", err).after(soon())
	}
	return e.unreadable(err)
}

var errRatio = fmt.Errorf("it unpacks to over %d times its size", maxGunzipRatio)

// unreadable says why the body could not be read.
func (e *exchange) unreadable(err error) *problem {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(Timeout, "the body did not come within request_timeout (%s)", e.source.config.RequestTimeout)
	case errors.Is(err, errRatio):
		return refuse(TooLarge, "%v; send it in several requests, or not packed", err)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt), e.encoded && errors.Is(err, io.EOF):
		return refuse(BadRequest, "the body is not gzip, as Content-Encoding says: %v", err)
	case e.stopping():
		return refuse(Stopping, "weir stops; send it again").after(soon())
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(BadRequest, "the body ended before its end")
	case e.r.Context().Err() != nil:
		return refuse(Gone, "the client went away")
	}
	return refuse(BadRequest, "read the body: %v", err)
}

// counter counts what is read through it.
type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

// unpacker stops when a body grows out of proportion: it is made to cost time.
type unpacker struct {
	in     io.Reader
	packed *counter
	n      int64
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	u.n += int64(n)
	if u.n > 1<<20 && u.n > maxGunzipRatio*u.packed.n {
		return 0, errRatio
	}
	return n, err
}

// lines yields the lines of text that are not blank, each with its number from
// 1 and without the white space around it.
func lines(text []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		number := 0
		for line := range bytes.Lines(text) {
			number++
			if line = trim(line); len(line) > 0 && !yield(number, line) {
				return
			}
		}
	}
}
