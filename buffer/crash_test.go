package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer/crashtest"
	"github.com/weir-edge/weir/configs/value"
)

// ack is what the workload was promised, and when.
type ack struct {
	op       int // operations on the disk when the promise was made
	stream   string
	position Position
	data     string
	horizon  Sequence // the shard's trim horizon at that moment
}

// promise of a consumer's place.
type place struct {
	op       int
	position Sequence
	state    string
}

// workload is a history on a disk that remembers, and what was promised in it.
type workload struct {
	t      *testing.T
	disk   *crashtest.FS
	clock  *fakeClock
	random *rand.Rand
	log    *Log
	acks   []ack
	places []place
	drops  map[ShardKey][]dropped
	serial int
}

// dropped says that before op the horizon was not above first.
type dropped struct {
	op    int
	first Sequence
}

func crashOptions(d *crashtest.FS, clock *fakeClock) (Config, Options) {
	config := DefaultConfig()
	config.Dir, config.Commit.MaxDelay = "memory", 0
	config.MaxBytes, config.ReserveBytes = 16<<20, 1
	config.AppendWait = value.Duration(time.Second)
	o := Options{files: d, clock: clock.read, quiet: true, segmentBytes: 64 << 10}
	o.pause = func(int) time.Duration { return time.Millisecond }
	o.kv = func(rebuild bool) (kv, error) {
		if rebuild {
			return d.NewKV("index"), nil
		}
		return d.OpenKV("index"), nil
	}
	return config, o
}

func (w *workload) open() {
	w.t.Helper()
	config, options := crashOptions(w.disk, w.clock)
	two, cam := DefaultStreamConfig(Data), DefaultStreamConfig(Video)
	two.Shards, two.Retention = 2, value.Duration(time.Hour)
	options.Streams = map[string]StreamConfig{"two": two, "cam": cam}
	l, err := Open(w.t.Context(), config, options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = l
}

func (w *workload) record(size int) Record {
	w.serial++
	data := fmt.Appendf(nil, "%d:", w.serial)
	for len(data) < size {
		data = append(data, byte(w.random.Uint32()))
	}
	return Record{PartitionKey: fmt.Sprint("key", w.random.IntN(7)), Data: data}
}

func (w *workload) note(stream string, records []Record, positions []Position) {
	for i, p := range positions {
		info, err := w.log.Stream(stream)
		if err != nil {
			w.t.Fatal(err)
		}
		w.acks = append(w.acks, ack{w.disk.Ops(), stream, p, string(records[i].Data), info.Shards[p.Shard].First})
	}
}

func (w *workload) append(stream string, records ...Record) {
	w.t.Helper()
	positions, err := w.log.Append(w.t.Context(), stream, records...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.note(stream, records, positions)
}

// step does one random thing.
func (w *workload) step() {
	w.t.Helper()
	switch n := w.random.IntN(100); {
	case n < 45:
		var records []Record
		for range 1 + w.random.IntN(4) {
			records = append(records, w.record(20+w.random.IntN(3000)))
		}
		w.append("two", records...)
	case n < 60:
		w.append("one", w.record(100+w.random.IntN(8000)))
	case n < 72: // a fragment in parts
		pieces := 1 + w.random.IntN(3)
		for range pieces {
			r := w.record(1000 + w.random.IntN(9000))
			r.PartitionKey, r.Part = "cam", Piece
			w.append("cam", r)
		}
		r := w.record(50)
		at := w.clock.read().wall
		r.PartitionKey, r.Part, r.Index = "cam", Closing, &Index{Start: at, End: at.Add(time.Second), Pieces: uint32(pieces), Value: []byte("v")}
		w.append("cam", r)
	case n < 80: // an analyzer's commit: output, state and place at once
		r := w.record(200)
		info, err := w.log.Stream("one")
		if err != nil {
			w.append("one", w.record(10))
			return
		}
		state := fmt.Sprint("state", w.serial)
		if err := w.log.Commit(w.t.Context(), Commit{
			Consumer: "c", Positions: map[ShardKey]Sequence{{Stream: "one"}: info.Shards[0].Next}, State: []byte(state),
			Appends: []Append{{Stream: "derived", Records: []Record{r}}},
		}); err != nil {
			w.t.Fatal(err)
		}
		w.places = append(w.places, place{w.disk.Ops(), info.Shards[0].Next, state})
	case n < 86:
		if err := w.log.flushIndex(); err != nil {
			w.t.Fatal(err)
		}
	case n < 90:
		if err := errors.Join(w.log.flushConsumers(), w.log.copyConsumers()); err != nil {
			w.t.Fatal(err)
		}
	case n < 94:
		w.clock.pass(time.Duration(w.random.IntN(15)) * time.Minute)
		if err := w.log.retain(); err != nil {
			w.t.Fatal(err)
		}
	case n < 96:
		c := DefaultStreamConfig(Data)
		c.Shards, c.Retention, c.Priority = 2, value.Duration(time.Hour), w.random.IntN(2)
		if err := w.log.CreateStream(w.t.Context(), "two", c); err != nil {
			w.t.Fatal(err)
		}
	case n < 98:
		for _, c := range w.log.chains {
			if err := w.log.makeSpare(c); err != nil {
				w.t.Fatal(err)
			}
			break
		}
	default:
		if err := w.log.Close(); err != nil {
			w.t.Fatal(err)
		}
		w.open()
	}
}

// check opens the log on the disk that a cut left and holds it against what
// was promised before the cut.
func (w *workload) check(image *crashtest.FS, cut int, rebuild bool) error {
	if rebuild {
		image.NewKV("index")
	}
	config, options := crashOptions(image, w.clock)
	l, err := Open(w.t.Context(), config, options)
	if err != nil {
		return fmt.Errorf("does not open: %w", err)
	}
	defer l.Close()
	found := map[string]map[Position]string{}
	first := map[string]map[ShardID]Sequence{}
	for _, info := range l.Streams() {
		found[info.Name], first[info.Name] = map[Position]string{}, map[ShardID]Sequence{}
		for _, shard := range info.Shards {
			first[info.Name][shard.ID] = shard.First
			at := Position{Shard: shard.ID}
			next := shard.First
			for {
				page, err := l.Read(w.t.Context(), info.Name, at, Limit{})
				if err != nil {
					return err
				}
				for _, g := range page.Gaps {
					if g.To >= shard.First {
						return fmt.Errorf("gap %+v", g)
					}
				}
				for _, e := range page.Entries {
					if e.Sequence != next {
						return fmt.Errorf("stream %s shard %d: sequence %d where %d should be", info.Name, shard.ID, e.Sequence, next)
					}
					next++
					found[info.Name][Position{shard.ID, e.Sequence}] = string(e.Data)
				}
				if at.Sequence = page.Next; page.AtEnd {
					break
				}
			}
		}
	}
	for _, a := range w.acks {
		if a.op > cut {
			break
		}
		got, ok := found[a.stream][a.position]
		switch {
		case ok && got != a.data:
			return fmt.Errorf("stream %s %v holds something else", a.stream, a.position)
		case !ok && a.position.Sequence >= first[a.stream][a.position.Shard]:
			return fmt.Errorf("stream %s %v was acknowledged and is not there", a.stream, a.position)
		case !ok && a.position.Sequence >= w.horizonAt(a.stream, a.position.Shard, cut):
			return fmt.Errorf("stream %s %v is below the horizon %d, which was not that far", a.stream, a.position, first[a.stream][a.position.Shard])
		}
	}
	return w.checkPlaces(l, cut)
}

// horizonAt is the highest trim horizon the log may have had at a cut: that of
// the first moment noted after it.
func (w *workload) horizonAt(stream string, shard ShardID, cut int) Sequence {
	for _, d := range w.drops[ShardKey{stream, shard}] {
		if d.op > cut {
			return d.first
		}
	}
	return ^Sequence(0)
}

func (w *workload) checkPlaces(l *Log, cut int) error {
	var want place
	for _, p := range w.places {
		if p.op <= cut {
			want = p
		}
	}
	if want.op == 0 {
		return nil
	}
	c, err := l.Checkpoint("c")
	if err != nil {
		return err
	}
	if got := c.Positions[ShardKey{Stream: "one"}]; got < want.position {
		return fmt.Errorf("the consumer is at %d, it was at %d", got, want.position)
	}
	// Output and place ride in one unit: there are as many output records as
	// commits up to the state, no matter whether they were acknowledged.
	info, err := l.Stream("derived")
	if err != nil {
		return err
	}
	for i, p := range w.places {
		if p.state == string(c.State) && info.Shards[0].Next != Sequence(i+2) {
			return fmt.Errorf("the consumer has the state of commit %d, its output stream has %d records", i+1, info.Shards[0].Next-1)
		}
	}
	return nil
}

// TestCrashPoints cuts the power after each operation of random histories.
func TestCrashPoints(t *testing.T) {
	histories, steps := 2, 170
	if os.Getenv("WEIR_CRASH") == "full" {
		histories, steps = 8, 300
	}
	cuts := 0
	for seed := range histories {
		w := &workload{t: t, disk: crashtest.New(1 << 30), clock: newFakeClock(), random: rand.New(rand.NewPCG(uint64(seed), 1)), drops: map[ShardKey][]dropped{}}
		w.open()
		for range steps {
			w.step()
			for _, info := range w.log.Streams() {
				for _, shard := range info.Shards {
					key := ShardKey{info.Name, shard.ID}
					w.drops[key] = append(w.drops[key], dropped{w.disk.Ops(), shard.First})
				}
			}
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
		for cut := 0; cut <= w.disk.Ops(); cut++ {
			for _, mode := range crashtest.Modes() {
				cuts++
				image := w.disk.CrashAt(cut, crashtest.Tear{Mode: mode, Seed: uint64(cuts)})
				if err := w.check(image, cut, cuts%13 == 0); err != nil {
					t.Fatalf("history %d, cut after operation %d of %d, %s, seed %d: %v; the operations before it:\n%s",
						seed, cut, w.disk.Ops(), mode, cuts, err, w.disk.Describe(cut-5, cut))
				}
			}
		}
	}
	t.Logf("%d cuts, nothing acknowledged lost", cuts)
}
