package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/buffer"
)

// tailCommand is `weir tail`.
type tailCommand struct {
	online
	Stream string `arg:"" help:"The stream to read."`
	From   string `placeholder:"START" help:"trim-horizon, latest, a TIME (or 15m for that long ago), or SHARD:SEQUENCE. Default: trim-horizon, with --follow latest."`
	Max    int64  `placeholder:"N" help:"Stop after N records."`
	Follow bool   `short:"f" help:"Go on with new records."`
	Shard  string `placeholder:"SHARD" help:"Read only this shard."`
	Raw    bool   `xor:"form" help:"Print data and a newline, nothing else."`
	JSON   bool   `xor:"form" help:"Print a JSON document a record."`
}

func (t *tailCommand) Run(ctx context.Context, c *console) error {
	query, err := t.query()
	if err != nil {
		return err
	}
	client, err := t.client()
	if err != nil {
		return err
	}
	response, err := client.get(ctx, "/api/v1/streams/"+url.PathEscape(t.Stream)+"/records", query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	p := &recordPrinter{command: t, console: c, out: bufio.NewWriterSize(c.stdout, 64<<10)}
	err = p.copy(response.Body)
	if flushErr := p.out.Flush(); err == nil && flushErr != nil {
		err = failed(fmt.Errorf("write: %w", flushErr), "")
	}
	switch {
	case ctx.Err() != nil && t.Follow:
		return nil // that is how following ends
	case ctx.Err() != nil:
		return failed(errors.New("interrupted"), "")
	case err == nil && p.missing > 0:
		return failed(fmt.Errorf("incomplete: %d records of stream %s cannot be read", p.missing, t.Stream), "what is sound was printed")
	}
	return err
}

// query checks the flags, so that wrong usage is told without a daemon.
func (t *tailCommand) query() (url.Values, error) {
	if err := buffer.CheckName(t.Stream); err != nil {
		return nil, usage(err, "weir streams list shows the streams")
	}
	if t.Max < 0 {
		return nil, usage(fmt.Errorf("--max %d is negative", t.Max), "")
	}
	from := t.From
	switch {
	case from == "" && t.Follow:
		from = "latest"
	case from == "":
		from = "trim-horizon"
	}
	start, err := api.ParseStart(from, time.Now())
	if err != nil {
		return nil, usage(fmt.Errorf("--from: %w", err), "")
	}
	query := url.Values{"from": {from}}
	if t.Shard != "" {
		shard, err := api.ParseShard(t.Shard)
		if err != nil {
			return nil, usage(fmt.Errorf("--shard: %w", err), "")
		}
		if start.Shard != nil && *start.Shard != shard {
			return nil, usage(fmt.Errorf("--shard %s is not the shard of --from %s", t.Shard, from), "name it once")
		}
		query.Set("shard", t.Shard)
	}
	if t.Max > 0 {
		query.Set("max", strconv.FormatInt(t.Max, 10))
	}
	if t.Follow {
		query.Set("follow", "true")
	}
	return query, nil
}

// recordPrinter prints lines of the API.
type recordPrinter struct {
	command *tailCommand
	console *console
	out     *bufio.Writer
	missing uint64 // records that gaps took away
}

// copy prints all of body; it returns an error if body ends early.
func (p *recordPrinter) copy(body io.Reader) error {
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return failed(fmt.Errorf("the answer broke off: %w", err), "is weir still running?")
		}
		if err := p.line(line); err != nil {
			return err
		}
		if in.Buffered() == 0 {
			if err := p.out.Flush(); err != nil {
				return failed(fmt.Errorf("write: %w", err), "")
			}
		}
	}
}

func (p *recordPrinter) line(line []byte) error {
	if p.command.JSON && bytes.HasPrefix(line, []byte(`{"stream":`)) {
		_, err := p.out.Write(line)
		return err
	}
	var decoded api.Line
	if err := json.Unmarshal(line, &decoded); err != nil {
		return failed(fmt.Errorf("read a record: %w", err), "is it the API of weir?")
	}
	switch {
	case decoded.Error != "":
		return failed(fmt.Errorf("reading broke off: %s", decoded.Error), "what is sound was printed")
	case decoded.Gap != nil:
		return p.gap(decoded.Gap)
	}
	return p.record(&decoded.Record)
}

// gap tells of missing records on standard error. Numbers a failed write used
// up never were records.
func (p *recordPrinter) gap(gap *api.GapLine) error {
	if gap.Reason == string(buffer.GapWriteFailed) {
		return nil
	}
	from, fromErr := strconv.ParseUint(gap.From, 10, 64)
	to, toErr := strconv.ParseUint(gap.To, 10, 64)
	if err := errors.Join(fromErr, toErr); err != nil {
		return failed(fmt.Errorf("read a gap: %w", err), "is it the API of weir?")
	}
	p.missing += to - from + 1
	if err := p.out.Flush(); err != nil {
		return failed(fmt.Errorf("write: %w", err), "")
	}
	fmt.Fprintf(p.console.stderr, "weir: stream %s %s: records %s to %s are missing: %s\n", gap.Stream, gap.Shard, gap.From, gap.To, gap.Reason)
	return nil
}

func (p *recordPrinter) record(r *api.Record) error {
	if p.command.Raw {
		if _, err := p.out.Write(r.Bytes()); err != nil {
			return err
		}
		return p.out.WriteByte('\n')
	}
	if p.command.JSON {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	data := "base64:" + base64.StdEncoding.EncodeToString(r.DataBase64)
	if r.Data != nil {
		data = printable(*r.Data)
	}
	_, err := fmt.Fprintf(p.out, "%s  %s  %s  %s  %s\n", r.Arrival, r.Shard, r.Sequence, printable(r.PartitionKey), data)
	return err
}
