package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/buffer"
)

// putCommand is `weir put`.
type putCommand struct {
	online
	Stream string `arg:"" help:"The stream to append to."`
	Key    string `default:"put" help:"Partition key of all records (${default}); one key is one shard, in order."`
	JSON   bool   `help:"Print JSON."`
}

// Bounds of what put holds while a request runs.
const (
	putBatchRecords = 5_000
	putBatchBytes   = 1 << 20
)

func (p *putCommand) Run(ctx context.Context, c *console) error {
	if err := buffer.CheckName(p.Stream); err != nil {
		return usage(err, "")
	}
	if p.Key == "" {
		return usage(errors.New("--key is empty"), "a record needs a partition key")
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	lines := newLineBatches()
	go lines.read(c.stdin) // ends with standard input, at the latest with the program
	durable := 0
	for {
		batch, n, err := lines.next(ctx)
		if err == nil && n > 0 {
			err = p.send(ctx, client, batch)
		}
		if err != nil {
			return putFailed(durable, err)
		}
		if n == 0 {
			break
		}
		durable += n
	}
	if p.JSON {
		return c.printJSON(map[string]any{"stream": p.Stream, "appended": durable})
	}
	return nil
}

// putFailed says how far put came.
func putFailed(durable int, err error) error {
	f := asFailure(err)
	return &failure{code: f.code, err: fmt.Errorf("%w; the first %d records are durable", f.err, durable), hint: f.hint}
}

// send returns when all lines of batch are durable.
func (p *putCommand) send(ctx context.Context, client *client, batch []byte) error {
	target := client.base + "/api/v1/streams/" + url.PathEscape(p.Stream) + "/records?" + url.Values{"partition_key": {p.Key}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(batch))
	if err != nil {
		return usage(err, "")
	}
	request.Header.Set("Content-Type", "text/plain")
	response, err := client.do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer api.Appended
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return failed(fmt.Errorf("read the answer of %s: %w", client.base, err), "")
	}
	if want := bytes.Count(batch, []byte("\n")); answer.Appended != want {
		return failed(fmt.Errorf("%s stored %d of %d records", client.base, answer.Appended, want), "")
	}
	return nil
}

// lineBatches collects lines while a request runs, so that a slow producer's
// line goes at once and a fast one's go together. Reading stops while a batch
// is full.
type lineBatches struct {
	mu      sync.Mutex
	pending bytes.Buffer // whole lines, each with its newline
	lines   int
	err     error         // why reading ended; io.EOF at the end
	changed chan struct{} // closed and replaced when any of the above changes
}

func newLineBatches() *lineBatches { return &lineBatches{changed: make(chan struct{})} }

// signal wakes who waits. The caller holds mu.
func (l *lineBatches) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// read fills l from in until its end.
func (l *lineBatches) read(in io.Reader) {
	reader := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := readLine(reader)
		if len(line) > 0 {
			l.add(line)
		}
		if err != nil {
			l.mu.Lock()
			l.err = err
			l.signal()
			l.mu.Unlock()
			return
		}
	}
}

// readLine returns a line with its newline; it adds one to a last line that
// has none.
func readLine(reader *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := reader.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= buffer.MaxRecordBytes:
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("a line is over %d MiB, the most a record can hold", buffer.MaxRecordBytes>>20)
		case errors.Is(err, io.EOF) && len(line) > 0:
			return append(line, '\n'), err
		default:
			return nil, err
		}
	}
}

// add waits for room and adds line.
func (l *lineBatches) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.lines > 0 && (l.lines >= putBatchRecords || l.pending.Len()+len(line) > putBatchBytes) {
		changed := l.changed
		l.mu.Unlock()
		<-changed
		l.mu.Lock()
	}
	l.pending.Write(line)
	l.lines++
	l.signal()
}

// next waits for lines and takes all there are; 0 lines at the end.
func (l *lineBatches) next(ctx context.Context) ([]byte, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.lines == 0 && l.err == nil {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return nil, 0, failed(errors.New("interrupted"), "")
		}
	}
	if l.lines == 0 {
		if errors.Is(l.err, io.EOF) {
			return nil, 0, nil
		}
		return nil, 0, failed(fmt.Errorf("read standard input: %w", l.err), "")
	}
	batch, lines := bytes.Clone(l.pending.Bytes()), l.lines
	l.pending.Reset()
	l.lines = 0
	l.signal()
	return batch, lines, nil
}
