// Package bench measures what the shard log costs on a disk: bytes that reach
// the block device for each byte of payload (write amplification), and how
// fast durable appends are beside a plain write and fdatasync of the same
// bytes on the same disk in the same run. `weir bench log` prints it.
//
// Start with Log. The figures are of the whole log: segments, their headers,
// the index in Badger, the meta chain, and what the file system writes for
// them. The block device is shared, so other writers on it are counted too:
// measure on a quiet machine, or on a disk of its own.
package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-edge/weir/buffer"
)

// Report is what `weir bench log --json` prints.
type Report struct {
	// Write amplification: bytes written to the block device per byte of
	// payload (data and partition keys), by the size of a commit, when the log
	// has been round its budget once and overwrites its segments.
	WA4KiB   float64 `json:"write_amplification_4KiB"`
	WA64KiB  float64 `json:"write_amplification_64KiB"`
	WA256KiB float64 `json:"write_amplification_256KiB"`
	WA1MiB   float64 `json:"write_amplification_1MiB"`
	// The same while the log still fills new segments.
	First4KiB   float64 `json:"write_amplification_first_fill_4KiB"`
	First64KiB  float64 `json:"write_amplification_first_fill_64KiB"`
	First256KiB float64 `json:"write_amplification_first_fill_256KiB"`
	First1MiB   float64 `json:"write_amplification_first_fill_1MiB"`
	// Throughput of durable appends of one client over that of write and
	// fdatasync; the median of pairs.
	OverRaw4KiB   float64 `json:"append_over_raw_4KiB"`
	OverRaw64KiB  float64 `json:"append_over_raw_64KiB"`
	OverRaw256KiB float64 `json:"append_over_raw_256KiB"`
	OverRaw1MiB   float64 `json:"append_over_raw_1MiB"`
	// MB/s of the append side of those pairs.
	Append1MiBPerSecond float64 `json:"append_1MiB_MB_per_second"`
	// SingleOverRaw is the latency of one durable record of 256 bytes over a
	// write and fdatasync of the same; the median.
	SingleOverRaw float64 `json:"single_record_over_raw"`
	// ReplayPerSecond and ReplayRecords: one consumer reading from the page
	// cache, MB/s and records/s.
	ReplayPerSecond float64 `json:"replay_MB_per_second"`
	ReplayRecords   float64 `json:"replay_records_per_second"`
	// Counted says where the block device's bytes come from.
	Counted string `json:"counted"`
}

const recordBytes = 256

// size is one commit size to measure.
type size struct {
	bytes, commits  int
	first, wa, over *float64
	records         []buffer.Record
	payload         int64 // of one commit
}

// Log measures the log in a new directory below dir, which it removes again.
// It writes about 700 MB and needs 300 MiB of disk: ten seconds on an SSD, half
// a minute on a card.
func Log(ctx context.Context, dir string) (report Report, err error) {
	work, err := os.MkdirTemp(dir, "weir-bench-")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	counter, err := deviceOf(work)
	if err != nil {
		return report, err
	}
	report.Counted = counter.name
	r := &run{dir: filepath.Join(work, "log"), counter: counter}
	if err := r.measure(ctx, &report); err != nil {
		return report, err
	}
	return report, nil
}

// run is one measurement.
type run struct {
	dir     string
	counter counter
	log     *buffer.Log
}

func (r *run) measure(ctx context.Context, report *Report) (err error) {
	if err := r.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.log.Close()) }()
	sizes := []*size{
		{bytes: 4 << 10, commits: 2000, first: &report.First4KiB, wa: &report.WA4KiB, over: &report.OverRaw4KiB},
		{bytes: 64 << 10, commits: 200, first: &report.First64KiB, wa: &report.WA64KiB, over: &report.OverRaw64KiB},
		{bytes: 256 << 10, commits: 60, first: &report.First256KiB, wa: &report.WA256KiB, over: &report.OverRaw256KiB},
		{bytes: 1 << 20, commits: 32, first: &report.First1MiB, wa: &report.WA1MiB, over: &report.OverRaw1MiB},
	}
	for _, s := range sizes {
		s.records, s.payload = payload(s.bytes)
		if *s.first, err = r.amplification(ctx, s); err != nil {
			return err
		}
	}
	// Go round the budget, so that segments are overwritten from now on.
	fill, _ := payload(1 << 20)
	for filled := 0; filled < ringBytes; filled += 1 << 20 {
		if _, err := r.log.Append(ctx, "bench", fill...); err != nil {
			return err
		}
	}
	for _, s := range sizes {
		if *s.wa, err = r.amplification(ctx, s); err != nil {
			return err
		}
		pairs, err := r.pairs(ctx, s)
		if err != nil {
			return err
		}
		*s.over = median(pairs.ratio)
		report.Append1MiBPerSecond = median(pairs.speed) // of the last, the largest
	}
	if report.SingleOverRaw, err = r.single(ctx, sizes[0]); err != nil {
		return err
	}
	return r.replay(ctx, report)
}

// ringBytes is the disk budget of the log that is measured: segments of 8 MiB.
const ringBytes = 128 << 20

func (r *run) open(ctx context.Context) (err error) {
	config := buffer.DefaultConfig()
	config.Dir, config.MaxBytes, config.ReserveBytes = r.dir, ringBytes, 1
	config.Commit.MaxDelay = 0
	stream := buffer.DefaultStreamConfig(buffer.Data)
	stream.Compression = buffer.NoCompression // the payload is random
	r.log, err = buffer.Open(ctx, config, buffer.Options{Streams: map[string]buffer.StreamConfig{"bench": stream}})
	return err
}

// payload makes records of 256 bytes that together have about size bytes.
func payload(size int) ([]buffer.Record, int64) {
	n := max(1, size/recordBytes)
	data := make([]byte, n*recordBytes)
	_, _ = rand.Read(data) // never fails (crypto/rand)
	records := make([]buffer.Record, n)
	total := int64(0)
	for i := range records {
		records[i] = buffer.Record{
			PartitionKey: "sensor-" + strconv.Itoa(i%200),
			Data:         data[i*recordBytes : (i+1)*recordBytes],
		}
		total += int64(len(records[i].PartitionKey) + recordBytes)
	}
	return records, total
}

// amplification appends the commits and counts what reaches the device.
func (r *run) amplification(ctx context.Context, s *size) (float64, error) {
	if err := settle(r.dir); err != nil {
		return 0, err
	}
	before, err := r.counter.read()
	if err != nil {
		return 0, err
	}
	for range s.commits {
		if _, err := r.log.Append(ctx, "bench", s.records...); err != nil {
			return 0, err
		}
	}
	if err := settle(r.dir); err != nil {
		return 0, err
	}
	after, err := r.counter.read()
	return float64(after-before) / float64(s.payload*int64(s.commits)), err
}

// settle lets the file system write what it holds back, so that it is counted.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	return errors.Join(err, f.Close())
}

type pairs struct{ ratio, speed []float64 }

// pairs times appends and plain writes in turn.
func (r *run) pairs(ctx context.Context, s *size) (p pairs, err error) {
	file, err := os.OpenFile(r.dir+".raw", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	commits := max(8, s.commits/8)
	raw := make([]byte, s.payload)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	for round := range 9 {
		plain, err := plainWrites(file, raw, commits)
		if err != nil {
			return p, err
		}
		start := time.Now()
		for range commits {
			if _, err := r.log.Append(ctx, "bench", s.records...); err != nil {
				return p, err
			}
		}
		took := time.Since(start)
		if round == 0 {
			continue // the plain file was new
		}
		p.ratio = append(p.ratio, plain.Seconds()/took.Seconds())
		p.speed = append(p.speed, float64(s.payload)*float64(commits)/1e6/took.Seconds())
	}
	return p, nil
}

// plainWrites overwrites a file the way the log overwrites its segments.
func plainWrites(file *os.File, b []byte, n int) (time.Duration, error) {
	start := time.Now()
	for i := range n {
		if _, err := file.WriteAt(b, int64(i)*int64(len(b))); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func (r *run) single(ctx context.Context, s *size) (float64, error) {
	file, err := os.OpenFile(r.dir+".single", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	one := s.records[:1]
	var ratios []float64
	for round := range 200 {
		plain, err := plainWrites(file, one[0].Data, 1)
		if err != nil {
			return 0, errors.Join(err, file.Close())
		}
		start := time.Now()
		if _, err := r.log.Append(ctx, "bench", one...); err != nil {
			return 0, errors.Join(err, file.Close())
		}
		if took := time.Since(start); round > 0 {
			ratios = append(ratios, took.Seconds()/plain.Seconds())
		}
	}
	return median(ratios), file.Close()
}

// replay reads everything the log holds, as one consumer does.
func (r *run) replay(ctx context.Context, report *Report) error {
	var speeds, rates []float64
	for range 5 {
		var bytes, records int64
		at := buffer.Position{}
		start := time.Now()
		for {
			page, err := r.log.Read(ctx, "bench", at, buffer.Limit{MaxRecords: 10_000, MaxBytes: 4 << 20})
			if err != nil {
				return err
			}
			records += int64(len(page.Entries))
			for i := range page.Entries {
				bytes += int64(len(page.Entries[i].Data) + len(page.Entries[i].PartitionKey))
			}
			if at.Sequence = page.Next; page.AtEnd {
				break
			}
		}
		took := time.Since(start).Seconds()
		speeds = append(speeds, float64(bytes)/1e6/took)
		rates = append(rates, float64(records)/took)
	}
	report.ReplayPerSecond, report.ReplayRecords = median(speeds), median(rates)
	return nil
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// counter reads how many bytes were written so far.
type counter struct {
	name string
	read func() (int64, error)
}

// deviceOf finds the counter of the block device that holds dir. Where there
// is none (an overlay, a network file system) the kernel's account of what
// this process wrote takes its place, which leaves out the file system's
// journal.
func deviceOf(dir string) (counter, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return counter{}, fmt.Errorf("stat %s: %w", dir, err)
	}
	path := fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(path); err == nil {
		return counter{path, func() (int64, error) { return sectorsWritten(path) }}, nil
	}
	const own = "/proc/self/io"
	if _, err := processWrote(own); err != nil {
		return counter{}, fmt.Errorf("no count of written bytes for %s: %w", dir, err)
	}
	return counter{own, func() (int64, error) { return processWrote(own) }}, nil
}

// sectorsWritten reads the seventh field of a block device's stat file: 512
// byte sectors written (Linux, Documentation/block/stat.rst).
func sectorsWritten(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 7 {
		return 0, fmt.Errorf("%s has %d fields, not 7 or more", path, len(fields))
	}
	n, err := strconv.ParseInt(fields[6], 10, 64)
	return n * 512, err
}

func processWrote(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no write_bytes", path)
}
