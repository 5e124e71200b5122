package bench

import "strconv"

// Figure is one measured number beside what it should be.
type Figure struct {
	Name    string
	Value   float64
	AtMost  float64 // 0: no goal of this kind
	AtLeast float64 // 0: no goal of this kind
}

// Goal is the goal as people read it.
func (f Figure) Goal() string {
	switch {
	case f.AtMost > 0:
		return "<= " + strconv.FormatFloat(f.AtMost, 'g', -1, 64)
	case f.AtLeast > 0:
		return ">= " + strconv.FormatFloat(f.AtLeast, 'f', -1, 64)
	}
	return "-"
}

// Verdict is "met", "short" or, without a goal, "".
func (f Figure) Verdict() string {
	switch {
	case f.AtMost > 0 && f.Value > f.AtMost, f.AtLeast > 0 && f.Value < f.AtLeast:
		return "short"
	case f.AtMost > 0 || f.AtLeast > 0:
		return "met"
	}
	return ""
}

// Figures are the numbers of a report with the goals of the log.
func (r Report) Figures() []Figure {
	return []Figure{
		{Name: "write amplification, commits of 4 KiB", Value: r.WA4KiB, AtMost: 2.5},
		{Name: "write amplification, commits of 64 KiB", Value: r.WA64KiB, AtMost: 1.15},
		{Name: "write amplification, commits of 256 KiB", Value: r.WA256KiB, AtMost: 1.05},
		{Name: "write amplification, commits of 1 MiB", Value: r.WA1MiB, AtMost: 1.05},
		{Name: "the same while the log first fills, 4 KiB", Value: r.First4KiB},
		{Name: "the same while the log first fills, 64 KiB", Value: r.First64KiB},
		{Name: "the same while the log first fills, 256 KiB", Value: r.First256KiB},
		{Name: "the same while the log first fills, 1 MiB", Value: r.First1MiB},
		{Name: "append over write+fdatasync, 4 KiB", Value: r.OverRaw4KiB},
		{Name: "append over write+fdatasync, 64 KiB", Value: r.OverRaw64KiB},
		{Name: "append over write+fdatasync, 256 KiB", Value: r.OverRaw256KiB},
		{Name: "append over write+fdatasync, 1 MiB", Value: r.OverRaw1MiB, AtLeast: 0.8},
		{Name: "append of 1 MiB, MB/s", Value: r.Append1MiBPerSecond},
		{Name: "latency of one record over write+fdatasync", Value: r.SingleOverRaw, AtMost: 1.5},
		{Name: "replay from the page cache, MB/s", Value: r.ReplayPerSecond, AtLeast: 1000},
		{Name: "replay from the page cache, records/s", Value: r.ReplayRecords, AtLeast: 2_000_000},
	}
}
