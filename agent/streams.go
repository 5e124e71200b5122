package main

import (
	"context"
	"strconv"

	"github.com/weir-edge/weir/agent/api"
)

// streamsCommand is `weir streams`.
type streamsCommand struct {
	List streamsListCommand `cmd:"" help:"List the streams."`
}

type streamsListCommand struct {
	online
	JSON bool `help:"Print JSON."`
}

func (s *streamsListCommand) Run(ctx context.Context, c *console) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	var answer struct {
		Streams []api.StreamStatus `json:"streams"`
	}
	if err := client.getJSON(ctx, "/api/v1/streams", nil, &answer); err != nil {
		return err
	}
	if s.JSON {
		return c.printJSON(answer.Streams)
	}
	return streamTable(answer.Streams).print(c)
}

func streamTable(streams []api.StreamStatus) *table {
	t := &table{header: []string{"STREAM", "KIND", "SHARDS", "RECORDS", "SIZE", "RETENTION", "OLDEST", "NEWEST"}}
	for _, s := range streams {
		var records uint64
		oldest, newest := "-", "-"
		for _, shard := range s.Shards {
			records += span(shard.First, shard.Next)
			if at := shard.FirstArrival; !at.IsZero() {
				oldest = earlier(oldest, at.UTC().Format(api.ArrivalLayout))
			}
			if at := shard.LastArrival; !at.IsZero() {
				newest = later(newest, at.UTC().Format(api.ArrivalLayout))
			}
		}
		t.add(s.Name, string(s.Config.Kind), strconv.Itoa(len(s.Shards)), strconv.FormatUint(records, 10),
			sizeText(s.Bytes), s.Config.Retention.String(), oldest, newest)
	}
	return t
}

// span is how many sequences lie in [first, next); 0 if they are not numbers.
func span(first, next string) uint64 {
	from, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0
	}
	to, err := strconv.ParseUint(next, 10, 64)
	if err != nil || to < from {
		return 0
	}
	return to - from
}

// earlier and later compare times written in the same zone and layout; "-" is
// none.
func earlier(a, b string) string {
	if a == "-" || b < a {
		return b
	}
	return a
}

func later(a, b string) string {
	if a == "-" || b > a {
		return b
	}
	return a
}
