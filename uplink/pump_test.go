package uplink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/uplinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(streams ...string) uplink.Config {
	c := uplink.DefaultConfig()
	c.Name, c.Type, c.Streams = "central", "nats", streams
	return c
}

// start runs a pump; stop ends it and waits.
func start(t testing.TB, c uplink.Config, log *memLog, sink uplink.Sink) (pump *uplink.Pump, stop func()) {
	pump = uplink.New(uplink.Options{Config: c, Node: "gw-17", Sink: sink, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pump.Run(ctx) }()
	return pump, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("pump: %v", err)
		}
	}
}

// put appends numbered records over some keys.
func put(t testing.TB, log *memLog, stream string, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		r := buffer.Record{PartitionKey: fmt.Sprintf("key-%d", i%7), Data: fmt.Appendf(nil, "%d", i)}
		if _, err := log.Append(context.Background(), stream, r); err != nil {
			t.Fatal(err)
		}
	}
}

// once checks that the centre has exactly the records of the log, each shard's
// in order.
func once(t testing.TB, log *memLog, centre *uplinktest.Centre, streams ...string) {
	t.Helper()
	next := map[string]buffer.Sequence{}
	for _, s := range centre.Stored() {
		_, stream, at, err := uplink.ParseRecordID(s.ID)
		if err != nil {
			t.Fatal(err)
		}
		shard := stream + "/" + at.Shard.String()
		if next[shard]+1 != at.Sequence {
			t.Fatalf("%s comes after sequence %d", s.ID, next[shard])
		}
		next[shard] = at.Sequence
	}
	all := 0
	for _, stream := range streams {
		all += log.count(stream)
	}
	if got := len(centre.Stored()); got != all {
		t.Fatalf("%d records at the centre, %d in the log", got, all)
	}
	for _, fault := range centre.Faults() {
		t.Error(fault)
	}
}

func TestBatchWaitsForMoreButNotLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, centre := newMemLog(1, "telemetry"), &uplinktest.Centre{}
		_, stop := start(t, config("telemetry"), log, centre)
		began := time.Now()
		put(t, log, "telemetry", 0, 3)
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if n := len(centre.Stored()); n != 0 {
			t.Errorf("%d records sent before max_delay", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := len(centre.Stored()); n != 3 {
			t.Errorf("%d records sent after max_delay, want 3", n)
		}
		put(t, log, "telemetry", 3, 500)
		synctest.Wait()
		if n := len(centre.Stored()); n != 503 {
			t.Errorf("a full batch waits: %d records sent, want 503", n)
		}
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		stop()
		once(t, log, centre, "telemetry")
	})
}

func TestBatchIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1, "telemetry")
		var sizes []int
		centre := &uplinktest.Centre{Script: func(_ int, b uplink.Batch) uplinktest.Act {
			sizes = append(sizes, len(b.Entries))
			return uplinktest.OK()
		}}
		for range 10 {
			if _, err := log.Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "k", Data: make([]byte, 300<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		big := buffer.Record{PartitionKey: "k", Data: make([]byte, 5<<20)}
		if _, err := log.Append(t.Context(), "telemetry", big); err != nil {
			t.Fatal(err)
		}
		_, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(3 * time.Second)
		stop()
		if got := fmt.Sprint(sizes); got != "[3 3 3 1 1]" {
			t.Errorf("batches of %s records, want [3 3 3 1 1]", got)
		}
		once(t, log, centre, "telemetry")
	})
}

// A month without the centre: little is tried, nothing is kept in memory, and
// then everything goes.
func TestThirtyDaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const away = 30 * 24 * time.Hour
		log := newMemLog(4, "telemetry", "alerts")
		began := time.Now()
		centre := &uplinktest.Centre{}
		gone := func() bool { return time.Since(began) < away }
		centre.TailErr = func(int) error {
			if gone() {
				return errors.New("the centre is away")
			}
			return nil
		}
		pump, stop := start(t, config("telemetry", "alerts"), log, centre)
		for day := range 30 {
			put(t, log, "telemetry", day*1000, 1000)
			put(t, log, "alerts", day, 1)
			time.Sleep(24 * time.Hour)
		}
		synctest.Wait()
		status := pump.Status()
		// Two streams, on average two tries a minute at most, none closer than 500 ms.
		if tries := status.Retries; tries < 2*30*24*60 || tries > 2*30*24*60*4 {
			t.Errorf("%d tries in 30 days", tries)
		}
		if status.LastError == "" || status.SentRecords != 0 || time.Since(status.FailingSince) < away-time.Hour {
			t.Errorf("status: %+v", status)
		}
		log.mu.Lock()
		reads := log.reads
		log.mu.Unlock()
		if reads > 0 {
			t.Errorf("%d reads while nothing could be sent", reads)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		stop()
		once(t, log, centre, "telemetry", "alerts")
		if status := pump.Status(); status.LastError != "" || status.SentRecords != 30_030 || status.InFlight != 0 {
			t.Errorf("status: %+v", status)
		}
		if log.most > 500 || centre.MostEntries() > 500 {
			t.Errorf("read %d, sent %d records at once", log.most, centre.MostEntries())
		}
	})
}

func TestBackoffGrowsAndRetryAfterIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1, "telemetry")
		centre := &uplinktest.Centre{Script: func(call int, _ uplink.Batch) uplinktest.Act {
			switch {
			case call <= 40:
				return uplinktest.Act{Err: &uplink.PartialError{Failed: []uplink.Failure{{Index: 0, Err: errors.New("full")}}}}
			case call == 41:
				return uplinktest.Act{Err: &uplink.RetryAfterError{After: 10 * time.Minute, Err: errors.New("slow down")}}
			}
			return uplinktest.OK()
		}}
		put(t, log, "telemetry", 0, 1)
		_, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(2 * time.Hour)
		stop()
		times := centre.Times()
		if len(times) != 42 {
			t.Fatalf("%d sends, want 42", len(times))
		}
		var sum time.Duration
		for i := 1; i < 41; i++ {
			wait := times[i].Sub(times[i-1])
			if wait < 500*time.Millisecond || wait > time.Minute {
				t.Errorf("wait %d is %v", i, wait)
			}
			sum += wait
		}
		if sum < 3*time.Minute {
			t.Errorf("40 failures took %v together: it does not back off", sum)
		}
		if wait := times[41].Sub(times[40]); wait < 10*time.Minute || wait > 11*time.Minute {
			t.Errorf("came back after %v, asked for 10m", wait)
		}
	})
}

func TestRefusedRecordIsSetAsideAndBlocksNothing(t *testing.T) {
	for name, script := range map[string]func(int, uplink.Batch) uplinktest.Act{
		"the sink names it": func(int, uplink.Batch) uplinktest.Act {
			return uplinktest.Act{Store: -1, Refuse: func(e *buffer.Entry) bool { return e.Sequence%100 == 17 }}
		},
		"the sink refuses the batch": func(_ int, b uplink.Batch) uplinktest.Act {
			for i := range b.Entries {
				if b.Entries[i].Sequence%100 == 17 {
					return uplinktest.Act{Err: &uplink.PermanentError{Err: errors.New("refused")}}
				}
			}
			return uplinktest.OK()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog(1, "telemetry")
				centre := &uplinktest.Centre{Script: script}
				put(t, log, "telemetry", 0, 1000)
				pump, stop := start(t, config("telemetry"), log, centre)
				time.Sleep(10 * time.Second)
				stop()
				status := pump.Status()
				if status.SentRecords != 990 || status.SetAside != 10 || len(centre.Stored()) != 990 {
					t.Errorf("status: %+v, %d stored", status, len(centre.Stored()))
				}
				if got := log.count(uplink.Aside); got != 10 {
					t.Fatalf("%d records set aside", got)
				}
				first := log.streams[uplink.Aside][0][0]
				if first.Attribute("aside.id") != "gw-17/telemetry/shardId-000000000000/17" || string(first.Data) != "16" ||
					first.Attribute("aside.error") != "refused" || first.Attribute("aside.uplink") != "central" || first.PartitionKey != "key-2" {
					t.Errorf("set aside: %+v", first)
				}
				if sends := len(centre.Times()); sends > 10*20 {
					t.Errorf("%d sends for 10 refused records", sends)
				}
				last := log.place.Positions[buffer.ShardKey{Stream: "telemetry"}]
				if last != 1001 {
					t.Errorf("position %d, want 1001", last)
				}
			})
		})
	}
}

func TestSettingAsideWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1, "telemetry")
		centre := &uplinktest.Centre{Script: func(int, uplink.Batch) uplinktest.Act {
			return uplinktest.Act{Store: -1, Refuse: func(e *buffer.Entry) bool { return e.Sequence == 2 }}
		}}
		put(t, log, "telemetry", 0, 3)
		log.full = true
		_, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(time.Minute)
		log.mu.Lock()
		log.full = false
		log.mu.Unlock()
		time.Sleep(3 * time.Minute)
		stop()
		if log.count(uplink.Aside) != 1 || len(centre.Stored()) != 2 {
			t.Errorf("%d set aside, %d stored", log.count(uplink.Aside), len(centre.Stored()))
		}
	})
}

func TestGapsAreCountedOnceAndPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, centre := newMemLog(1, "telemetry"), &uplinktest.Centre{}
		put(t, log, "telemetry", 0, 10)
		_, stopFirst := start(t, config("telemetry"), log, centre)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		centre.Script = func(call int, _ uplink.Batch) uplinktest.Act {
			if call < 6 {
				return uplinktest.Away()
			}
			return uplinktest.OK()
		}
		stopFirst()
		centre.Reopen()
		put(t, log, "telemetry", 10, 90)
		log.drop(buffer.ShardKey{Stream: "telemetry"}, 61)
		pump, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(5 * time.Minute)
		stop()
		if s := pump.Status(); s.MissedRecords != 50 || s.SentRecords != 40 {
			t.Errorf("status: %+v", s)
		}
		if n := len(centre.Stored()); n != 50 {
			t.Errorf("%d records at the centre, want 50", n)
		}
	})
}

func TestStopGivesTheBatchInFlightABoundedTime(t *testing.T) {
	for _, test := range []struct {
		delay  time.Duration
		stored int
		took   time.Duration
	}{{time.Second, 5, time.Second}, {time.Hour, 0, 2 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			log := newMemLog(1, "telemetry")
			centre := &uplinktest.Centre{Script: func(int, uplink.Batch) uplinktest.Act {
				return uplinktest.Act{Delay: test.delay, Store: -1}
			}}
			put(t, log, "telemetry", 0, 5)
			c := config("telemetry")
			c.Batch.MaxDelay = 0
			_, stop := start(t, c, log, centre)
			synctest.Wait()
			began := time.Now()
			stop()
			if took := time.Since(began); took != test.took {
				t.Errorf("stopping took %v, want %v", took, test.took)
			}
			if n := len(centre.Stored()); n != test.stored {
				t.Errorf("%d stored, want %d", n, test.stored)
			}
			if got := log.place.Positions[buffer.ShardKey{Stream: "telemetry"}]; int(got) != test.stored+1 {
				t.Errorf("position %d with %d stored", got, test.stored)
			}
		})
	}
}

func TestOtherRecordsUnderOurIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		centre := &uplinktest.Centre{}
		old := newMemLog(1, "telemetry")
		put(t, old, "telemetry", 0, 50)
		_, stop := start(t, config("telemetry"), old, centre)
		time.Sleep(5 * time.Second)
		stop()
		centre.Reopen()
		// The disk was replaced, the node kept its id.
		log := newMemLog(1, "telemetry")
		put(t, log, "telemetry", 1000, 80)
		pump, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(5 * time.Second)
		stop()
		if s := pump.Status(); s.SentRecords != 80 || s.DuplicatesSkipped != 0 || s.Foreign == 0 {
			t.Errorf("status: %+v", s)
		}
		if n := len(centre.Stored()); n != 130 {
			t.Errorf("%d records at the centre, want 130", n)
		}
	})
}

func TestSickLogIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, centre := newMemLog(1, "telemetry"), &uplinktest.Centre{}
		put(t, log, "telemetry", 0, 5)
		log.broken = true
		pump, stop := start(t, config("telemetry"), log, centre)
		time.Sleep(time.Minute)
		if s := pump.Status(); !strings.Contains(s.LastError, "the disk is sick") {
			t.Errorf("status: %+v", s)
		}
		log.mu.Lock()
		log.broken = false
		log.mu.Unlock()
		time.Sleep(3 * time.Minute)
		stop()
		once(t, log, centre, "telemetry")
		if s := pump.Status(); s.LastError != "" {
			t.Errorf("status: %+v", s)
		}
	})
}

// Whatever the centre does, and wherever weir dies, each record arrives once
// and in order. The scripts and the crashes are random.
func TestOnceAndInOrderUnderAnyScript(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		acts := rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "ok", "away", "lose", "part", "hold", "slow", "later"}), 0, 60).Draw(r, "acts")
		crashes := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 5).Draw(r, "crashes")
		tails := rapid.SliceOfN(rapid.Bool(), 0, 20).Draw(r, "tails")
		synctest.Test(t, func(t *testing.T) { playScript(t, r, acts, tails, crashes) })
	})
}

func playScript(t *testing.T, r *rapid.T, acts []string, tails []bool, crashes []int) {
	log := newMemLog(3, "telemetry", "alerts")
	centre := &uplinktest.Centre{}
	centre.Script = func(call int, b uplink.Batch) uplinktest.Act {
		if call > len(acts) {
			return uplinktest.OK()
		}
		part := len(b.Entries) / 2
		switch acts[call-1] {
		case "away":
			return uplinktest.Away()
		case "lose":
			return uplinktest.LoseAck()
		case "part":
			return uplinktest.Act{Store: part, Err: errors.New("the connection broke")}
		case "hold":
			held := &uplink.PartialError{}
			for i := part; i < len(b.Entries); i++ {
				held.Failed = append(held.Failed, uplink.Failure{Index: i, Err: errors.New("full")})
			}
			return uplinktest.Act{Store: part, Err: held}
		case "slow":
			return uplinktest.Act{Delay: 20 * time.Second, Store: -1}
		case "later":
			return uplinktest.Act{Err: &uplink.RetryAfterError{After: time.Minute, Err: errors.New("later")}}
		}
		return uplinktest.OK()
	}
	centre.TailErr = func(call int) error {
		if call <= len(tails) && tails[call-1] {
			return errors.New("no answer")
		}
		return nil
	}
	c := config("telemetry", "alerts")
	c.Batch.MaxRecords = 20
	next := 0
	for _, commits := range append(crashes, 0) {
		_, stop := start(t, c, log, centre)
		for range 5 {
			put(t, log, "telemetry", next, 37)
			put(t, log, "alerts", next, 3)
			next += 37
			time.Sleep(time.Duration(rapid.IntRange(0, 5000).Draw(r, "ms")) * time.Millisecond)
		}
		stop()
		log.crash(commits)
		centre.Reopen()
	}
	_, stop := start(t, c, log, centre)
	time.Sleep(2 * time.Hour)
	stop()
	once(t, log, centre, "telemetry", "alerts")
}
