package buffertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Harness makes the logs that the suite checks.
type Harness struct {
	// Open makes an empty log with these streams; the suite closes it.
	Open func(t testing.TB, streams map[string]buffer.StreamConfig) Log
	// Reopen closes a log and opens it again; nil for one that keeps nothing.
	Reopen func(t testing.TB, l Log) Log
}

// Run checks every promise of the log on logs that h makes.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*suite){
		"order and routing":    (*suite).orderAndRouting,
		"appenders at once":    (*suite).appendersAtOnce,
		"all or nothing":       (*suite).allOrNothing,
		"what comes back":      (*suite).whatComesBack,
		"starts":               (*suite).starts,
		"pages":                (*suite).pages,
		"news":                 (*suite).news,
		"closed runs":          (*suite).closedRuns,
		"consumers":            (*suite).consumers,
		"one commit":           (*suite).oneCommit,
		"streams":              (*suite).streams,
		"closing":              (*suite).closing,
		"opening again":        (*suite).openingAgain,
		"cancelled beforehand": (*suite).cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			two, one := buffer.DefaultStreamConfig(buffer.Data), buffer.DefaultStreamConfig(buffer.Data)
			two.Shards = 2
			s := &suite{T: t, harness: h}
			s.log = h.Open(t, map[string]buffer.StreamConfig{"two": two, "one": one})
			defer func() {
				if err := s.log.Close(); err != nil && !errors.Is(err, buffer.ErrClosed) {
					t.Error(err)
				}
			}()
			test(s)
		})
	}
}

type suite struct {
	*testing.T
	harness Harness
	log     Log
}

func (s *suite) append(stream string, records ...buffer.Record) []buffer.Position {
	s.Helper()
	positions, err := s.log.Append(s.Context(), stream, records...)
	if err != nil {
		s.Fatal(err)
	}
	if len(positions) != len(records) {
		s.Fatalf("%d positions for %d records", len(positions), len(records))
	}
	return positions
}

// read reads a shard from a sequence to its end.
func (s *suite) read(stream string, from buffer.Position, limit buffer.Limit) (entries []buffer.Entry, pages int) {
	s.Helper()
	for {
		page, err := s.log.Read(s.Context(), stream, from, limit)
		if err != nil {
			s.Fatal(err)
		}
		if len(page.Gaps) > 0 {
			s.Fatalf("gaps %v", page.Gaps)
		}
		entries, pages = append(entries, page.Entries...), pages+1
		if from.Sequence = page.Next; page.AtEnd {
			return entries, pages
		}
		if len(page.Entries) == 0 {
			s.Fatal("an empty page that is not the end")
		}
	}
}

func simple(key string, n int) buffer.Record {
	return buffer.Record{PartitionKey: key, Data: fmt.Appendf(nil, "%s/%d", key, n)}
}

func (s *suite) orderAndRouting() {
	for n := range 20 {
		for k := range 10 {
			key := fmt.Sprint("key", k)
			p := s.append("two", simple(key, n))
			if want := route(key, 2); p[0].Shard != want {
				s.Fatalf("key %s is in %s, Kinesis puts it in %s", key, p[0].Shard, want)
			}
		}
	}
	total := 0
	for shard := range buffer.ShardID(2) {
		next := map[string]int{}
		entries, _ := s.read("two", buffer.Position{Shard: shard}, buffer.Limit{})
		for i, e := range entries {
			if e.Sequence != buffer.Sequence(i+1) || e.Stream != "two" || e.Shard != shard {
				s.Fatalf("entry %d is %s of %s %s", i, e.Sequence, e.Stream, e.Shard)
			}
			if want := simple(e.PartitionKey, next[e.PartitionKey]); string(e.Data) != string(want.Data) {
				s.Fatalf("%s where %s should be", e.Data, want.Data)
			}
			next[e.PartitionKey]++
		}
		total += len(entries)
	}
	if total != 200 {
		s.Fatalf("%d records of 200", total)
	}
}

func (s *suite) appendersAtOnce() {
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for n := range 25 {
				if _, err := s.log.Append(s.Context(), "one", simple(fmt.Sprint("w", w), 2*n), simple(fmt.Sprint("w", w), 2*n+1)); err != nil {
					s.Error(err)
				}
			}
		})
	}
	group.Wait()
	next := map[string]int{}
	entries, _ := s.read("one", buffer.Position{}, buffer.Limit{})
	for _, e := range entries {
		if want := simple(e.PartitionKey, next[e.PartitionKey]); string(e.Data) != string(want.Data) {
			s.Fatalf("%s where %s should be", e.Data, want.Data)
		}
		next[e.PartitionKey]++
	}
	if len(entries) != 400 {
		s.Fatalf("%d records of 400", len(entries))
	}
}

func (s *suite) allOrNothing() {
	ok := simple("k", 1)
	for name, c := range map[string]struct {
		bad  buffer.Record
		want error
	}{
		"no key":            {buffer.Record{Data: []byte("x")}, buffer.ErrInvalid},
		"key not UTF-8":     {buffer.Record{PartitionKey: "\xff"}, buffer.ErrInvalid},
		"long key":          {buffer.Record{PartitionKey: strings.Repeat("ä", 257)}, buffer.ErrTooLarge},
		"large record":      {buffer.Record{PartitionKey: "k", Data: make([]byte, buffer.DefaultRecordBytes)}, buffer.ErrTooLarge},
		"large piece":       {buffer.Record{PartitionKey: "k", Part: buffer.Piece, Data: make([]byte, buffer.MaxPartBytes+1)}, buffer.ErrTooLarge},
		"closing, no index": {buffer.Record{PartitionKey: "k", Part: buffer.Closing}, buffer.ErrInvalid},
		"index, not closed": {buffer.Record{PartitionKey: "k", Index: &buffer.Index{}}, buffer.ErrInvalid},
		"unknown part":      {buffer.Record{PartitionKey: "k", Part: 9}, buffer.ErrInvalid},
		"empty attribute":   {buffer.Record{PartitionKey: "k", Attributes: []buffer.Attribute{{}}}, buffer.ErrInvalid},
		"many attributes":   {buffer.Record{PartitionKey: "k", Attributes: slices.Repeat([]buffer.Attribute{{Key: "a"}}, 33)}, buffer.ErrTooLarge},
	} {
		if _, err := s.log.Append(s.Context(), "one", ok, c.bad); !errors.Is(err, c.want) {
			s.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
	if entries, _ := s.read("one", buffer.Position{}, buffer.Limit{}); len(entries) != 0 {
		s.Errorf("%d records are there although each append was refused", len(entries))
	}
	s.append("one", buffer.Record{PartitionKey: strings.Repeat("ä", 256)})
}

func (s *suite) whatComesBack() {
	at := time.UnixMilli(1_700_000_000_123)
	data := []byte{0, 1, 255, 'x'}
	r := buffer.Record{PartitionKey: "schlüssel", Data: data, Arrival: at,
		Attributes: []buffer.Attribute{{Key: "z", Value: ""}, {Key: "a", Value: "1"}, {Key: "z", Value: "twice"}}}
	before := time.Now()
	s.append("one", r, buffer.Record{PartitionKey: "k"}, buffer.Record{PartitionKey: "k", Data: bytes.Repeat([]byte("y"), buffer.DefaultRecordBytes-1)})
	data[0] = 99 // the caller may use its memory again
	entries, _ := s.read("one", buffer.Position{}, buffer.Limit{})
	e := entries[0]
	if e.PartitionKey != r.PartitionKey || !bytes.Equal(e.Data, []byte{0, 1, 255, 'x'}) || !e.Arrival.Equal(at) || !slices.Equal(e.Attributes, r.Attributes) {
		s.Errorf("%+v came back of %+v", e.Record, r)
	}
	if e := entries[1]; len(e.Data) != 0 || e.Arrival.Before(before.Add(-time.Second)) || e.Arrival.After(time.Now().Add(time.Second)) {
		s.Errorf("%+v", e.Record)
	}
	if n := len(entries[2].Data); n != buffer.DefaultRecordBytes-1 {
		s.Errorf("%d bytes of the largest record", n)
	}
}

func (s *suite) starts() {
	t0 := time.UnixMilli(1_700_000_000_000)
	for i := range 10 {
		r := simple("k", i)
		r.Arrival = t0.Add(time.Duration(i) * time.Second)
		s.append("one", r)
	}
	for _, c := range []struct {
		start buffer.Start
		want  buffer.Sequence
	}{
		{buffer.Start{Kind: buffer.TrimHorizon}, 1}, {buffer.Start{Kind: buffer.Latest}, 11},
		{buffer.Start{Kind: buffer.AtSequence, Sequence: 4}, 4}, {buffer.Start{Kind: buffer.AfterSequence, Sequence: 4}, 5},
		{buffer.Start{Kind: buffer.AtSequence, Sequence: 99}, 11}, {buffer.Start{Kind: buffer.AtSequence}, 1},
		{buffer.Start{Kind: buffer.AtTime, Time: t0.Add(-time.Hour)}, 1}, {buffer.Start{Kind: buffer.AtTime, Time: t0}, 1},
		{buffer.Start{Kind: buffer.AtTime, Time: t0.Add(time.Microsecond)}, 2}, {buffer.Start{Kind: buffer.AtTime, Time: t0.Add(9 * time.Second)}, 10},
		{buffer.Start{Kind: buffer.AtTime, Time: t0.Add(time.Hour)}, 11},
	} {
		if got, err := s.log.Find("one", 0, c.start); err != nil || got != c.want {
			s.Errorf("%+v is %s, %v; want %s", c.start, got, err, c.want)
		}
	}
	if _, err := s.log.Find("one", 1, buffer.Start{}); !errors.Is(err, buffer.ErrNotFound) {
		s.Errorf("a shard that is not there: %v", err)
	}
	if _, err := s.log.Find("none", 0, buffer.Start{}); !errors.Is(err, buffer.ErrNotFound) {
		s.Errorf("a stream that is not there: %v", err)
	}
}

func (s *suite) pages() {
	for i := range 100 {
		s.append("one", buffer.Record{PartitionKey: "k", Data: make([]byte, 100+i)})
	}
	entries, pages := s.read("one", buffer.Position{Sequence: 11}, buffer.Limit{MaxRecords: 7})
	if len(entries) != 90 || entries[0].Sequence != 11 || pages < 13 {
		s.Errorf("%d entries on %d pages", len(entries), pages)
	}
	if entries, pages = s.read("one", buffer.Position{}, buffer.Limit{MaxBytes: 1}); len(entries) != 100 || pages < 100 {
		s.Errorf("%d entries on %d pages of one byte: at least one record each", len(entries), pages)
	}
	page, err := s.log.Read(s.Context(), "one", buffer.Position{Sequence: 101}, buffer.Limit{})
	if err != nil || len(page.Entries) != 0 || !page.AtEnd || page.Next != 101 {
		s.Errorf("at the end: %+v, %v", page, err)
	}
	if _, err := s.log.Read(s.Context(), "none", buffer.Position{}, buffer.Limit{}); !errors.Is(err, buffer.ErrNotFound) {
		s.Errorf("a stream that is not there: %v", err)
	}
}

// news: who fetches, reads and then waits misses nothing.
func (s *suite) news() {
	const n = 50
	done := make(chan int)
	go func() {
		seen, at := 0, buffer.Position{}
		for seen < n {
			news := s.log.News()
			page, err := s.log.Read(s.Context(), "one", at, buffer.Limit{})
			if err != nil {
				s.Error(err)
				break
			}
			seen, at.Sequence = seen+len(page.Entries), page.Next
			if len(page.Entries) > 0 {
				continue
			}
			select {
			case <-news:
			case <-time.After(20 * time.Second):
				s.Error("news was missed")
				done <- seen
				return
			}
		}
		done <- seen
	}()
	for i := range n {
		s.append("one", simple("k", i))
	}
	if seen := <-done; seen != n {
		s.Errorf("%d of %d seen", seen, n)
	}
}

func (s *suite) closedRuns() {
	t0 := time.UnixMilli(1_700_000_000_000)
	piece := buffer.Record{PartitionKey: "k", Part: buffer.Piece, Data: make([]byte, buffer.MaxPartBytes)}
	for i := range 5 {
		s.append("one", piece, piece)
		s.append("one", buffer.Record{PartitionKey: "k", Part: buffer.Closing, Index: &buffer.Index{
			Start: t0.Add(time.Duration(i) * time.Second), End: t0.Add(time.Duration(i+1) * time.Second), Pieces: 2, Value: []byte{byte(i)},
		}})
	}
	s.append("one", piece) // never closed
	list := func(from, to time.Duration, after buffer.Sequence, limit int) (values []byte) {
		s.Helper()
		closed, err := s.log.Closings("one", 0, t0.Add(from), t0.Add(to), after, limit)
		if err != nil {
			s.Fatal(err)
		}
		for _, c := range closed {
			if c.Last != c.First+2 || c.Pieces != 2 {
				s.Errorf("%+v", c)
			}
			values = append(values, c.Value...)
		}
		return values
	}
	second := time.Second
	for _, c := range []struct {
		got  []byte
		want []byte
	}{
		{list(-second, 100*second, 0, 0), []byte{0, 1, 2, 3, 4}}, {list(second, 3*second, 0, 0), []byte{1, 2}},
		{list(1500*time.Millisecond, 2*second, 0, 0), []byte{1}}, {list(5*second, 9*second, 0, 0), nil},
		{list(0, 100*second, 6, 0), []byte{2, 3, 4}}, {list(0, 100*second, 3, 2), []byte{1, 2}},
	} {
		if !bytes.Equal(c.got, c.want) {
			s.Errorf("%v, want %v", c.got, c.want)
		}
	}
}

func (s *suite) consumers() {
	one := buffer.ShardKey{Stream: "one"}
	if _, err := s.log.Checkpoint("c"); !errors.Is(err, buffer.ErrNotFound) {
		s.Errorf("a consumer that never committed: %v", err)
	}
	for i := range 10 {
		s.append("one", simple("k", i))
	}
	commit := func(c buffer.Commit) {
		s.Helper()
		if err := s.log.Commit(s.Context(), c); err != nil {
			s.Fatal(err)
		}
	}
	commit(buffer.Commit{Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{one: 4}, State: []byte("state")})
	commit(buffer.Commit{Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{{Stream: "two", Shard: 1}: 1}})
	c, err := s.log.Checkpoint("c")
	if err != nil || c.Positions[one] != 4 || len(c.Positions) != 2 || string(c.State) != "state" {
		s.Errorf("%+v, %v", c, err)
	}
	infos := s.log.Consumers()
	if len(infos) != 1 || infos[0].Name != "c" || len(infos[0].Lags) != 2 {
		s.Fatalf("%+v", infos)
	}
	if lag := infos[0].Lags[0]; lag.Records != 7 || lag.Bytes <= 0 || lag.Behind <= 0 || lag.Position != 4 {
		s.Errorf("%+v", lag)
	}
	if lag := infos[0].Lags[1]; lag.Records != 0 || lag.Bytes != 0 || lag.Behind != 0 {
		s.Errorf("%+v", lag)
	}
	for _, bad := range []buffer.Commit{
		{Consumer: "a/b"}, {Consumer: ""}, {Consumer: "c", State: make([]byte, buffer.MaxStateBytes+1)},
		{Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{{Stream: "none"}: 1}},
	} {
		if err := s.log.Commit(s.Context(), bad); err == nil {
			s.Errorf("commit of %.20q with %d bytes of state and %v was taken", bad.Consumer, len(bad.State), bad.Positions)
		}
	}
	if err := s.log.DeleteConsumer(s.Context(), "c"); err != nil {
		s.Error(err)
	}
	if err := s.log.DeleteConsumer(s.Context(), "c"); !errors.Is(err, buffer.ErrNotFound) {
		s.Errorf("deleted twice: %v", err)
	}
}

func (s *suite) oneCommit() {
	one := buffer.ShardKey{Stream: "one"}
	s.append("one", simple("k", 1))
	if err := s.log.Commit(s.Context(), buffer.Commit{
		Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{one: 2}, State: []byte("1"),
		Appends: []buffer.Append{{Stream: "out", Records: []buffer.Record{simple("a", 1), simple("b", 2)}}},
	}); err != nil {
		s.Fatal(err)
	}
	if entries, _ := s.read("out", buffer.Position{}, buffer.Limit{}); len(entries) != 2 {
		s.Errorf("%d output records", len(entries))
	}
	bad := buffer.Commit{
		Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{one: 1}, State: []byte("2"),
		Appends: []buffer.Append{{Stream: "out", Records: []buffer.Record{{}}}},
	}
	if err := s.log.Commit(s.Context(), bad); !errors.Is(err, buffer.ErrInvalid) {
		s.Error(err)
	}
	if c, err := s.log.Checkpoint("c"); err != nil || c.Positions[one] != 2 || string(c.State) != "1" {
		s.Errorf("a refused commit moved the consumer: %+v, %v", c, err)
	}
}

func (s *suite) streams() {
	s.append("new", simple("k", 1)) // exists with the defaults from now on
	info, err := s.log.Stream("new")
	if err != nil || info.Config != buffer.DefaultStreamConfig(buffer.Data) || len(info.Shards) != 1 || info.Created.IsZero() {
		s.Errorf("%+v, %v", info, err)
	}
	if sh := info.Shards[0]; sh.First != 1 || sh.Next != 2 || sh.Bytes <= 0 || sh.FirstArrival.IsZero() || sh.LastArrival.IsZero() {
		s.Errorf("%+v", sh)
	}
	changed := info.Config
	changed.Priority, changed.Shards = 3, 5
	if err := s.log.CreateStream(s.Context(), "new", changed); err != nil {
		s.Error(err)
	}
	s.append("new", simple("k", 2))
	if info, err = s.log.Stream("new"); err != nil || info.Config.Priority != 3 || len(info.Shards) != 1 {
		s.Errorf("%+v, %v", info, err)
	}
	if entries, _ := s.read("new", buffer.Position{}, buffer.Limit{}); len(entries) != 2 {
		s.Errorf("%d records after the change", len(entries))
	}
	var names []string
	for _, info := range s.log.Streams() {
		names = append(names, info.Name)
	}
	if !slices.Equal(names, []string{"new", "one", "two"}) {
		s.Errorf("%v", names)
	}
	for _, name := range []string{"", "a/b", "..", strings.Repeat("x", 129)} {
		if _, err := s.log.Append(s.Context(), name, simple("k", 1)); !errors.Is(err, buffer.ErrInvalid) {
			s.Errorf("stream %.10q: %v", name, err)
		}
	}
	changed.Retention = 1
	if err := s.log.CreateStream(s.Context(), "new", changed); !errors.Is(err, buffer.ErrInvalid) {
		s.Errorf("a policy that is not valid: %v", err)
	}
	if _, err := s.log.Stream("none"); !errors.Is(err, buffer.ErrNotFound) {
		s.Error(err)
	}
}

func (s *suite) closing() {
	s.append("one", simple("k", 1))
	if err := s.log.Close(); err != nil {
		s.Fatal(err)
	}
	if err := s.log.Close(); !errors.Is(err, buffer.ErrClosed) {
		s.Errorf("closed twice: %v", err)
	}
	if _, err := s.log.Append(s.Context(), "one", simple("k", 1)); !errors.Is(err, buffer.ErrClosed) {
		s.Errorf("append: %v", err)
	}
	if _, err := s.log.Read(s.Context(), "one", buffer.Position{}, buffer.Limit{}); !errors.Is(err, buffer.ErrClosed) {
		s.Errorf("read: %v", err)
	}
	if err := s.log.Commit(s.Context(), buffer.Commit{Consumer: "c"}); !errors.Is(err, buffer.ErrClosed) {
		s.Errorf("commit: %v", err)
	}
}

func (s *suite) openingAgain() {
	if s.harness.Reopen == nil {
		return
	}
	for round := range 3 {
		for i := range 20 {
			s.append("two", simple(fmt.Sprint("k", i), round))
		}
		if err := s.log.Commit(s.Context(), buffer.Commit{
			Consumer: "c", Positions: map[buffer.ShardKey]buffer.Sequence{{Stream: "two"}: buffer.Sequence(round + 1)}, State: []byte{byte(round)},
		}); err != nil {
			s.Fatal(err)
		}
		s.log = s.harness.Reopen(s, s.log)
		total := 0
		for shard := range buffer.ShardID(2) {
			entries, _ := s.read("two", buffer.Position{Shard: shard}, buffer.Limit{})
			total += len(entries)
		}
		c, err := s.log.Checkpoint("c")
		if total != 20*(round+1) || err != nil || !bytes.Equal(c.State, []byte{byte(round)}) {
			s.Fatalf("round %d: %d records, %+v, %v", round, total, c, err)
		}
	}
}

func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	// Either it was too late, or nothing was appended.
	_, err := s.log.Append(ctx, "one", simple("k", 1))
	entries, _ := s.read("one", buffer.Position{}, buffer.Limit{})
	if (err == nil) != (len(entries) == 1) {
		s.Errorf("%v, and %d records", err, len(entries))
	}
}
