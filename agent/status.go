package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// statusCommand is `weir status`.
type statusCommand struct {
	online
	JSON bool `help:"Print JSON."`
}

func (s *statusCommand) Run(ctx context.Context, c *console) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	var status api.Status
	if err := client.getJSON(ctx, "/api/v1/status", nil, &status); err != nil {
		return err
	}
	if s.JSON {
		return c.printJSON(status)
	}
	return printStatus(c, &status)
}

func printStatus(c *console, s *api.Status) error {
	health := "healthy"
	if !s.Health.OK {
		health = "not healthy"
	}
	clock := "clock synchronized"
	if !s.Node.ClockSet {
		clock = "clock not synchronized"
	}
	now := s.Node.Now
	lines := []string{
		fmt.Sprintf("node %s: %s, weir %s, up %s, %s", s.Node.ID, health, s.Node.Version, durationText(now.Sub(s.Node.Started)), clock),
		fmt.Sprintf("log: %s on disk, %s free, %d records in %d commits, last commit %s",
			sizeText(s.Log.DiskBytes), sizeText(s.Log.DiskFreeBytes), s.Log.AppendedRecords, s.Log.Commits, agoText(s.Log.LastCommit, now)),
	}
	if s.Log.Full != "" {
		lines = append(lines, "log refuses appends: "+printable(s.Log.Full))
	}
	if s.Network.Error != "" {
		lines = append(lines, "network: "+printable(s.Network.Error))
	}
	for _, p := range s.Health.Problems {
		lines = append(lines, "problem: "+p.Part+": "+printable(p.Reason))
	}
	if _, err := fmt.Fprintln(c.stdout, strings.Join(lines, "\n")); err != nil {
		return err
	}
	tables := []*table{
		sourceTable(s.Sources), cameraTable(s.Cameras, now), streamTable(s.Streams),
		queryTable(s.Queries, now), consumerTable(s.Consumers), sinkTable(s.Sinks, now), interfaceTable(s.Network.Interfaces),
	}
	for _, t := range tables {
		if len(t.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(c.stdout); err != nil {
			return err
		}
		if err := t.print(c); err != nil {
			return err
		}
	}
	return nil
}

func sourceTable(sources []api.Source) *table {
	t := &table{header: []string{"SOURCE", "TYPE", "STATE", "MESSAGES", "APPENDED", "DUPLICATES", "SET ASIDE", "REFUSED", "INFLIGHT", "AT"}}
	for _, s := range sources {
		if s.Error == "" {
			s.Error = s.LogError
		}
		t.add(s.Name, s.Type, stateText(s.Part), number(s.Messages), number(s.Appended), number(s.Duplicates),
			number(s.SetAside), number(s.Refused), number(s.Inflight), s.URL)
	}
	return t
}

func queryTable(queries []api.Query, now time.Time) *table {
	t := &table{header: []string{"QUERY", "STATE", "FROM", "INTO", "RECORDS", "ROWS", "OPEN GROUPS", "LATE", "BAD", "COMPLETE UP TO"}}
	for _, q := range queries {
		t.add(q.Name, stateText(q.Part), q.Input, q.Output, number(q.Records), number(q.Rows), number(q.Groups),
			number(q.Late), number(q.BadRecords+q.BadValues), agoText(q.Watermark, now))
	}
	return t
}

// consumerTable shows the sum of a consumer's lags a stream.
func consumerTable(consumers []api.ConsumerStatus) *table {
	t := &table{header: []string{"CONSUMER", "STREAM", "LAG RECORDS", "LAG SIZE", "BEHIND"}}
	for _, c := range consumers {
		for i := 0; i < len(c.Lags); {
			stream := c.Lags[i].Stream
			var records, size int64
			var behind float64
			for ; i < len(c.Lags) && c.Lags[i].Stream == stream; i++ {
				records += c.Lags[i].Records
				size += c.Lags[i].Bytes
				behind = max(behind, c.Lags[i].BehindSeconds)
			}
			t.add(c.Name, stream, number(records), sizeText(size), durationText(time.Duration(behind*float64(time.Second))))
		}
	}
	return t
}

func sinkTable(sinks []api.Sink, now time.Time) *table {
	t := &table{header: []string{"SINK", "TYPE", "STATE", "SENT", "SIZE", "RETRIES", "SET ASIDE", "LAST"}}
	for _, s := range sinks {
		t.add(s.Name, s.Type, stateText(s.Part), number(s.SentRecords), sizeText(s.SentBytes), number(s.Retries),
			number(s.SetAside), agoText(s.LastSent, now))
	}
	return t
}

func interfaceTable(interfaces []api.Interface) *table {
	t := &table{header: []string{"INTERFACE", "STATE", "ADDRESSES"}}
	for _, i := range interfaces {
		state := "down"
		if i.Up {
			state = "up"
		}
		t.add(printable(i.Name), state, strings.Join(i.Addresses, " "))
	}
	return t
}

// stateText is the state with the reason for it.
func stateText(p api.Part) string {
	if p.Error == "" {
		return string(p.State)
	}
	reason := printable(strings.ReplaceAll(p.Error, "\t", " "))
	if runes := []rune(reason); len(runes) > 60 {
		reason = string(runes[:59]) + "…"
	}
	return string(p.State) + ": " + reason
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
