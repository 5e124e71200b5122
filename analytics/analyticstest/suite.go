// Package analyticstest is the contract of an analyzer, and of the runner that
// feeds it, as a suite: what QUERIES.md promises of rows, crashes and idle
// shards, checked on any implementation. The main function is Run.
//
// The suite has one undisturbed run over a log in memory, and then disturbs it:
// small pages, shards that answer out of turn, a kill before and after each
// commit, a log that is full or says nothing sensible. The output must be the
// same each time, byte for byte.
//
// Log is the log it does that with, for tests of an analyzer's own.
package analyticstest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
)

// Harness makes what the suite checks.
type Harness struct {
	// New makes an analyzer, each time the same.
	New func(t testing.TB) analytics.Analyzer
	// Record is the n-th record of the input. The suite sets its arrival. Its
	// partition key should take a few values.
	Record func(n int) buffer.Record
	// Rows is the least number of rows that Records records make, which arrive
	// within ten minutes.
	Rows int
}

// Records is how many records the suite appends.
const Records = 300

const (
	input  = "input"
	output = "output"
)

// Run checks every promise on analyzers that h makes.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*suite){
		"size of pages":           (*suite).pages,
		"order of shards":         (*suite).interleaving,
		"kill before each commit": func(s *suite) { s.kills(false) },
		"kill after each commit":  func(s *suite) { s.kills(true) },
		"stop and go":             (*suite).stops,
		"unknown outcome":         (*suite).unknown,
		"log is broken":           (*suite).broken,
		"log is full":             (*suite).full,
		"stop while full":         (*suite).stopFull,
		"idle shards":             (*suite).idle,
		"late stream":             (*suite).lateStream,
		"missed records":          (*suite).missed,
		"state":                   (*suite).state,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &suite{T: t, harness: h}
				log := s.filled(3)
				s.finish(log)
				s.want = Output(t, log, output)
				if len(s.want) < h.Rows {
					t.Fatalf("%d rows of an undisturbed run, want at least %d", len(s.want), h.Rows)
				}
				test(s)
			})
		})
	}
}

type suite struct {
	*testing.T
	harness Harness
	want    []string
}

// record is the n-th with its arrival: two a second, now and then a little
// out of order, all in the past.
func (s *suite) record(n int, end time.Time) buffer.Record {
	r := s.harness.Record(n)
	r.Arrival = end.Add(time.Duration(n-Records)*2*time.Second + time.Duration(n*7919%1500)*time.Millisecond)
	return r
}

// start is what the arrivals are reckoned from, so that all logs have the same.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// filled is a log with all records.
func (s *suite) filled(shards int) *Log {
	s.Helper()
	c := buffer.DefaultStreamConfig(buffer.Data)
	c.Shards = shards
	log := NewLog(map[string]buffer.StreamConfig{input: c})
	for n := range Records {
		if _, err := log.Append(s.Context(), input, s.record(n, start)); err != nil {
			s.Fatal(err)
		}
	}
	return log
}

func (s *suite) runner(log analytics.Log) *analytics.Runner {
	s.Helper()
	r, err := analytics.New(analytics.Options{
		Name: "q", Input: input, Output: output, Analyzer: s.harness.New(s.T), Log: log, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// finish runs a new runner until everything is read and emitted.
func (s *suite) finish(log analytics.Log) analytics.Status {
	s.Helper()
	r := s.runner(log)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	settled := func() bool {
		st := r.Status()
		return st.State == analytics.Live && st.Windows == 0 && st.Commits > 0
	}
	for range 10_000 {
		time.Sleep(time.Second)
		if settled() {
			break
		}
	}
	status := r.Status()
	if !settled() {
		s.Fatalf("it is not through after hours: %+v", status)
	}
	cancel()
	if err := <-done; err != nil {
		s.Fatal(err)
	}
	return status
}

func (s *suite) same(what string, log *Log) {
	s.Helper()
	got := Output(s.T, log, output)
	for i := range max(len(got), len(s.want)) {
		if i >= len(got) || i >= len(s.want) || got[i] != s.want[i] {
			s.Fatalf("%s: of %d rows, want %d, number %d is\n%s\nwant\n%s", what, len(got), len(s.want), i, at(got, i), at(s.want, i))
		}
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "none"
}

func (s *suite) pages() {
	for _, n := range []int{1, 7, 50} {
		log := s.filled(3)
		log.MaxRecords = n
		s.finish(log)
		s.same(fmt.Sprintf("pages of %d", n), log)
	}
}

func (s *suite) interleaving() {
	for seed := range 20 {
		log := s.filled(3)
		log.MaxRecords = 1 + seed*3
		log.Stall = func(n int) bool { return (n*n*31+n*seed*17+seed)%7 < 4 }
		s.finish(log)
		s.same(fmt.Sprintf("seed %d", seed), log)
	}
}

// slow lets reading take so long that there are many commits.
func slow(log *Log) {
	log.MaxRecords = 8
	log.ReadTakes = 120 * time.Millisecond
}

// kills kills the runner at its first commit, another one at its second, and
// so on, until one comes through. Each goes on with what the one before left.
func (s *suite) kills(after bool) {
	log := s.filled(3)
	slow(log)
	lives := 0
	for n := 1; ; n++ {
		log.Kill(n, after)
		err := s.life(log)
		if err == nil {
			break
		}
		if !errors.Is(err, buffer.ErrClosed) {
			s.Fatal(err)
		}
		if lives++; lives > 500 {
			s.Fatal("it does not come through")
		}
		log.Revive()
	}
	if lives < 4 {
		s.Fatalf("only %d kills", lives)
	}
	log.Revive()
	s.finish(log)
	s.same(fmt.Sprintf("%d kills", lives), log)
	for n := 1; n < lives; n++ { // and each kill alone
		log := s.filled(3)
		slow(log)
		log.Kill(n, after)
		if err := s.life(log); !errors.Is(err, buffer.ErrClosed) {
			s.Fatalf("kill at commit %d: %v", n, err)
		}
		log.Revive()
		s.finish(log)
		s.same(fmt.Sprintf("kill at commit %d", n), log)
	}
}

// life runs a runner until it is killed, or through.
func (s *suite) life(log *Log) error {
	r := s.runner(log)
	ctx, cancel := context.WithTimeout(s.Context(), 3*time.Minute)
	defer cancel()
	return r.Run(ctx)
}

// stops tells the runner to stop again and again, wherever it is.
func (s *suite) stops() {
	log := s.filled(3)
	slow(log)
	for n := range 40 {
		r := s.runner(log)
		ctx, cancel := context.WithTimeout(s.Context(), time.Duration(n*53%997)*time.Millisecond)
		err := r.Run(ctx)
		cancel()
		if err != nil {
			s.Fatal(err)
		}
	}
	s.finish(log)
	s.same("stops", log)
}

// unknown makes commits fail whose outcome is not told: half of them are done.
func (s *suite) unknown() {
	log := s.filled(3)
	slow(log)
	log.Trouble = func(n int) (done bool, err error) {
		if n%3 == 0 {
			return true, nil
		}
		return n%3 == 1, errors.New("the disk is gone")
	}
	if st := s.finish(log); st.Retries < 3 {
		s.Errorf("%d retries are told", st.Retries)
	}
	s.same("unknown outcomes", log)
}

// broken: commits that fail for an hour are tried with pauses that grow,
// though reading goes well all the time.
func (s *suite) broken() {
	log := s.filled(3)
	repaired := start.Add(2 * time.Hour)
	log.Trouble = func(int) (bool, error) {
		if time.Now().Before(repaired) {
			return false, errors.New("the disk is gone")
		}
		return true, nil
	}
	r := s.runner(log)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	time.Sleep(time.Hour)
	st := r.Status()
	if st.State != analytics.Failing || !strings.Contains(st.LastError, "the disk is gone") || st.Retries < 100 || st.Retries > 2000 || log.Reads() > 50_000 {
		s.Errorf("after an hour of failures and %d reads the status is %+v", log.Reads(), st)
	}
	time.Sleep(2 * time.Hour)
	if st := r.Status(); st.State != analytics.Live || st.LastError != "" || st.Rows != int64(len(s.want)) {
		s.Errorf("after the repair the status is %+v", st)
	}
	cancel()
	if err := <-done; err != nil {
		s.Error(err)
	}
	s.same("after the log was broken", log)
}

// full: nothing is lost while there is no room, and the status says so.
func (s *suite) full() {
	log := s.filled(3)
	log.Fail(fmt.Errorf("%w: no room", buffer.ErrFull))
	r := s.runner(log)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	time.Sleep(time.Hour)
	st := r.Status()
	if st.State != analytics.Failing || !strings.Contains(st.LastError, "no room") || st.FailingSince.IsZero() || st.Retries < 100 || st.Retries > 2000 || st.Rows > 0 {
		s.Errorf("after an hour without room the status is %+v", st)
	}
	log.Fail(nil)
	time.Sleep(time.Hour)
	if st := r.Status(); st.State != analytics.Live || st.LastError != "" || st.Rows != int64(len(s.want)) {
		s.Errorf("an hour after there was room the status is %+v", st)
	}
	cancel()
	if err := <-done; err != nil {
		s.Error(err)
	}
	s.same("after the log was full", log)
}

// stopFull: rows that were made and found no room are made again.
func (s *suite) stopFull() {
	log := s.filled(3)
	slow(log)
	for n := range 5 {
		log.Fail(buffer.ErrFull)
		ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
		err := s.runner(log).Run(ctx)
		cancel()
		if err != nil {
			s.Fatal(err)
		}
		log.Fail(nil)
		ctx, cancel = context.WithTimeout(s.Context(), time.Duration(n)*700*time.Millisecond)
		err = s.runner(log).Run(ctx)
		cancel()
		if err != nil {
			s.Fatal(err)
		}
	}
	s.finish(log)
	s.same("stops while the log was full", log)
}

// idle: shards that never get a record hold nothing back, and an idle query
// does next to nothing.
func (s *suite) idle() {
	log := s.filled(16)
	r := s.runner(log)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	time.Sleep(time.Minute)
	if st := r.Status(); st.State != analytics.Live || st.Windows != 0 || st.Rows == 0 {
		s.Errorf("after a minute the status is %+v", st)
	}
	reads, commits := log.Reads(), r.Status().Commits
	time.Sleep(time.Hour)
	if n := log.Reads() - reads; n > 16*800 {
		s.Errorf("an idle query reads %d times an hour", n)
	}
	if n := r.Status().Commits - commits; n > 0 {
		s.Errorf("an idle query commits %d times", n)
	}
	cancel()
	if err := <-done; err != nil {
		s.Error(err)
	}
	// Sums of floating point may differ in their last bit between 16 shards and 3.
	if got := Output(s.T, log, output); len(got) != len(s.want) {
		s.Errorf("%d rows of 16 shards, %d of 3", len(got), len(s.want))
	}
}

// lateStream: a stream that is not there is waited for.
func (s *suite) lateStream() {
	log := NewLog(nil)
	r := s.runner(log)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	time.Sleep(time.Minute)
	if st := r.Status(); st.State != analytics.Waiting {
		s.Errorf("without a stream the status is %+v", st)
	}
	for n := range Records {
		if _, err := log.Append(s.Context(), input, s.record(n, time.Now())); err != nil {
			s.Fatal(err)
		}
	}
	time.Sleep(time.Hour)
	if st := r.Status(); st.State != analytics.Live || st.Records != Records || int(st.Rows) < s.harness.Rows {
		s.Errorf("with a stream the status is %+v", st)
	}
	cancel()
	if err := <-done; err != nil {
		s.Error(err)
	}
}

// missed: what retention took is counted, and the rest is read.
func (s *suite) missed() {
	log := s.filled(1)
	slow(log)
	log.Kill(3, true)
	if err := s.life(log); !errors.Is(err, buffer.ErrClosed) {
		s.Fatal(err)
	}
	log.Revive()
	place, err := log.Checkpoint("query.q")
	if err != nil {
		s.Fatal(err)
	}
	next := place.Positions[buffer.ShardKey{Stream: input}]
	log.DropBefore(input, 0, next+40, buffer.GapRetention)
	st := s.finish(log)
	if st.MissedRecords != 40 || st.Gaps != 1 || st.Records != Records-int64(next-1)-40 {
		s.Errorf("40 records are gone from %s on, and the status is %+v", next, st)
	}
}

// state: what cannot be read is an error, and changes nothing.
func (s *suite) state() {
	log := s.filled(3)
	slow(log)
	log.Kill(4, true)
	if err := s.life(log); !errors.Is(err, buffer.ErrClosed) {
		s.Fatal(err)
	}
	log.Revive()
	place, err := log.Checkpoint("query.q")
	if err != nil {
		s.Fatal(err)
	}
	a := s.harness.New(s.T)
	for n := range len(place.State) {
		for _, bad := range [][]byte{place.State[:n], append(slices.Clone(place.State[:n]), place.State[n]^0x55)} {
			if _, err := a.Restore(bad); err == nil && len(bad) > 0 {
				s.Fatalf("%d bytes of a state of %d are taken for one", len(bad), len(place.State))
			}
		}
	}
	if again, err := a.Restore(place.State); err != nil || len(again) > 0 {
		s.Fatalf("%v, %v", again, err)
	}
	got, err := a.State()
	if err != nil || string(got) != string(place.State) {
		s.Errorf("a state of %d bytes becomes one of %d, %v", len(place.State), len(got), err)
	}
	// A damaged one does not keep the query from going on.
	if err := log.Commit(s.Context(), buffer.Commit{Consumer: "query.q", State: []byte("rubbish")}); err != nil {
		s.Fatal(err)
	}
	s.finish(log)
	if got := Output(s.T, log, output); len(got) < s.harness.Rows/4 {
		s.Errorf("%d rows after a damaged state", len(got))
	}
}

// Output is everything in a stream, by shard: key, data and attributes.
func Output(t testing.TB, log buffertest.Log, stream string) []string {
	t.Helper()
	info, err := log.Stream(stream)
	if errors.Is(err, buffer.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, shard := range info.Shards {
		at := buffer.Position{Shard: shard.ID}
		for {
			page, err := log.Read(t.Context(), stream, at, buffer.Limit{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Entries {
				list = append(list, fmt.Sprintf("%s %s %v", e.PartitionKey, e.Data, e.Attributes))
			}
			if at.Sequence = page.Next; page.AtEnd {
				break
			}
		}
	}
	return list
}
