package sql

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
)

// benchmark feeds pages of a thousand small records of fifty sensors, a
// thousand a second, and takes the rows as they come.
func benchmark(b *testing.B, a *Analyzer) {
	const page = 1000
	entries := make([]buffer.Entry, page)
	start := time.UnixMilli(1_790_000_000_000)
	bytes := 0
	for i := range entries {
		data := fmt.Appendf(nil, `{"sensor":"s-%02d","value":%d.%d,"unit":"C","seq":%d}`, i%50, 20+i%7, i%10, 1_000_000+i)
		bytes += len(data)
		entries[i] = buffer.Entry{Stream: "telemetry", Record: buffer.Record{PartitionKey: "k", Data: data}}
	}
	b.ReportAllocs()
	b.SetBytes(int64(bytes / page))
	b.ResetTimer()
	n, rows := 0, 0
	for n < b.N {
		for i := range entries {
			entries[i].Sequence = buffer.Sequence(n + i + 1)
			entries[i].Arrival = start.Add(time.Duration(n+i) * time.Millisecond)
		}
		list := entries[:min(page, b.N-n)]
		if err := a.Analyze(analytics.Batch{Entries: list, Now: start}); err != nil {
			b.Fatal(err)
		}
		rows += len(a.Rows(analytics.Limit{MaxRecords: 5000, MaxBytes: 1 << 20}))
		n += len(list)
	}
	b.StopTimer()
	b.ReportMetric(float64(rows), "rows")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkAnalyze(b *testing.B) {
	plan, err := Compile(contract)
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, plan.Analyzer(Options{Name: "q", MaxGroups: 1000}))
}

// BenchmarkState packs and unpacks what a state of many groups is.
func BenchmarkState(b *testing.B) {
	plan, err := Compile(contract)
	if err != nil {
		b.Fatal(err)
	}
	for _, groups := range []int{50, 1000, 10_000} {
		b.Run(fmt.Sprint(groups), func(b *testing.B) {
			a := plan.Analyzer(Options{Name: "q", MaxGroups: groups})
			for i := range groups {
				data := fmt.Appendf(nil, `{"sensor":"plant-3/line-%d/s-%05d","value":%d.%d}`, i%7, i, 20+i%7, i*7919%1000)
				e := buffer.Entry{Sequence: buffer.Sequence(i + 1), Record: buffer.Record{Data: data, Arrival: time.UnixMilli(1_790_000_000_000)}}
				if err := a.Analyze(analytics.Batch{Entries: []buffer.Entry{e}}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			var state []byte
			for b.Loop() {
				if state, err = a.State(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(state))/float64(groups), "bytes/group")
		})
	}
}

// BenchmarkBacklog is a query that catches up on a log on the disk: read,
// analyze, commit.
func BenchmarkBacklog(b *testing.B) {
	const records = 200_000
	log := openLog(b, b.TempDir())
	defer func() {
		if err := log.Close(); err != nil {
			b.Error(err)
		}
	}()
	begin := time.Now().Add(-2 * time.Hour)
	for n := 0; n < records; n += 5000 {
		list := make([]buffer.Record, 5000)
		for i := range list {
			list[i] = buffer.Record{PartitionKey: fmt.Sprint("k", i%50), Arrival: begin.Add(time.Duration(n+i) * 30 * time.Millisecond),
				Data: fmt.Appendf(nil, `{"sensor":"s-%02d","value":%d.%d,"unit":"C","seq":%d}`, i%50, 20+i%7, i%10, n+i)}
		}
		if _, err := log.Append(b.Context(), "telemetry", list...); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		n++
		finish(b, named(fmt.Sprint("q", n), contract), log)
	}
	b.ReportMetric(float64(records*n)/b.Elapsed().Seconds(), "records/s")
}
