package sql

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
)

// maxKey bounds a group's key as it is written in the state, in bytes.
const maxKey = 1 << 10

// maxArrival bounds times, in ms since 1970 and before: 70,000 years leave
// room to reckon in.
const maxArrival = 1 << 51

// Options are what an Analyzer needs besides its plan.
type Options struct {
	Name      string        // of the query
	IdleGrace time.Duration // how far behind the wall clock a shard without records is taken to be
	MaxGroups int           // in open windows
}

// Analyzer is a plan at work: tumbling windows over the time of arrival. It is
// an analytics.Analyzer.
type Analyzer struct {
	plan *Plan
	o    Options

	shards  clocks
	panes   map[moment]*pane // by the start of the window
	groups  int              // in all panes
	scanner scanner
	env     env
	key     []byte
	counts  analytics.Progress // its counters
	coder   coder
}

var _ analytics.Analyzer = (*Analyzer)(nil)

// pane is a window that has groups.
type pane struct {
	window moment
	groups map[string]*group
	sorted []string // keys, once it is taken apart
}

// group is what each shard has come to; sorted by shard.
type group struct{ parts []part }

type part struct {
	shard  buffer.ShardID
	totals []total
}

// Analyzer makes the plan work.
func (p *Plan) Analyzer(o Options) *Analyzer {
	a := &Analyzer{plan: p, o: o}
	a.forget()
	a.scanner.columns = make([]datum, p.columns)
	a.env.columns = a.scanner.columns
	return a
}

func (a *Analyzer) forget() {
	a.shards, a.panes, a.groups = nil, make(map[moment]*pane), 0
}

// Analyze takes a batch. See analytics.Analyzer.
func (a *Analyzer) Analyze(b analytics.Batch) error {
	s := a.shards.find(b.Shard)
	if s == nil {
		s = a.shards.add(b.Shard)
	}
	for i := range b.Entries {
		if err := a.entry(s, &b.Entries[i]); err != nil {
			return err
		}
	}
	if s.atEnd = b.AtEnd; s.atEnd {
		a.shards.looked(s, b.Now.UnixMilli())
		a.idle()
	}
	a.settle()
	return nil
}

// entry counts one record.
func (a *Analyzer) entry(s *shard, e *buffer.Entry) error {
	at := min(max(e.Arrival.UnixMilli(), -maxArrival), maxArrival)
	if s.arrive(at) {
		a.counts.Setbacks++
	}
	window := moment{s.clock.epoch, a.start(s.clock.at)}
	if a.start(at) != window.at {
		a.counts.Late++
	}
	if n := len(s.marks); n == 0 || s.marks[n-1].window != window {
		s.marks = append(s.marks, mark{window, e.Sequence})
	}
	if !a.read(e) {
		return nil
	}
	a.env.bad = ""
	if a.plan.where != nil {
		if v, _ := truth(a.plan.where.eval(&a.env), &a.env); !v {
			a.badValue(e)
			return nil
		}
	}
	a.key = a.key[:0]
	for _, n := range a.plan.keys {
		a.key = appendKey(a.key, n.eval(&a.env))
	}
	if len(a.key) > maxKey {
		a.badRecord(e, fmt.Sprintf("the values that it is grouped by are longer than %d bytes", maxKey))
		return nil
	}
	g, err := a.group(window)
	if err != nil {
		return err
	}
	totals := g.of(s.id, len(a.plan.totals))
	for i := range totals {
		a.plan.totals[i].add(&totals[i], &a.env)
	}
	a.badValue(e)
	return nil
}

// start of the window that holds an instant.
func (a *Analyzer) start(at int64) int64 {
	size := a.plan.size.Milliseconds()
	n := at % size
	if n < 0 {
		n += size
	}
	return at - n
}

// read takes the columns of a record.
func (a *Analyzer) read(e *buffer.Entry) bool {
	clear(a.env.columns)
	if !a.scanner.record(e.Data, &a.plan.root) {
		a.badRecord(e, a.scanner.why)
		return false
	}
	for _, x := range a.plan.extras {
		d := datum{kind: kindText}
		switch x.name {
		case "arrival":
			d.s = appendTime(nil, e.Arrival.UnixMilli())
		case "partition_key":
			d.s = []byte(e.PartitionKey)
		case "sequence":
			d = datum{kind: kindInt, i: int64(e.Sequence)}
		case "shard":
			d.s = []byte(e.Shard.String())
		case "stream":
			d.s = []byte(e.Stream)
		}
		a.env.columns[x.column] = d
	}
	return true
}

func (a *Analyzer) badRecord(e *buffer.Entry, why string) {
	a.counts.BadRecord++
	a.counts.LastBad = place(e) + why
}

func (a *Analyzer) badValue(e *buffer.Entry) {
	if a.env.bad != "" {
		a.counts.BadValue++
		a.counts.LastBad = place(e) + a.env.bad
	}
}

func place(e *buffer.Entry) string {
	return fmt.Sprintf("%s %s of stream %s: ", e.Shard, e.Sequence, e.Stream)
}

// group finds or makes the group of a.key.
func (a *Analyzer) group(window moment) (*group, error) {
	p := a.panes[window]
	if p == nil {
		p = &pane{window: window, groups: make(map[string]*group)}
		a.panes[window] = p
	}
	g := p.groups[string(a.key)]
	if g != nil {
		return g, nil
	}
	if a.groups >= a.o.MaxGroups {
		if open := a.groups - a.ready(); open >= a.o.MaxGroups {
			return nil, fmt.Errorf("%d groups are open in %d windows, and max_groups is %d: use shorter windows, a key with fewer values, or raise it",
				open, a.open(), a.o.MaxGroups)
		}
	}
	g = &group{}
	p.groups[string(a.key)] = g
	a.groups++
	return g, nil
}

// of is the part of a shard.
func (g *group) of(id buffer.ShardID, totals int) []total {
	for i := range g.parts {
		if g.parts[i].shard == id {
			return g.parts[i].totals
		}
	}
	at := 0
	for at < len(g.parts) && g.parts[at].shard < id {
		at++
	}
	g.parts = slices.Insert(g.parts, at, part{id, make([]total, totals)})
	return g.parts[at].totals
}

// end of a window.
func (a *Analyzer) end(window moment) moment {
	return moment{window.epoch, window.at + a.plan.size.Milliseconds()}
}

// closed says whether nothing more can come for a window.
func (a *Analyzer) closed(window, watermark moment) bool {
	return a.end(window).compare(watermark) <= 0
}

// idle lets shards that are at their end follow the wall clock, as far as that
// closes a window and no further: a record that comes after all is then late
// only if its window has closed.
func (a *Analyzer) idle() {
	watermark, reach := a.shards.watermark(), a.shards.reachable(a.o.IdleGrace)
	to := watermark
	for window := range a.panes {
		if end := a.end(window); end.compare(reach) <= 0 && end.compare(to) > 0 {
			to = end
		}
	}
	if to.compare(watermark) > 0 {
		a.shards.advance(to)
	}
}

// settle forgets where windows began whose rows are all taken.
func (a *Analyzer) settle() {
	watermark := a.shards.watermark()
	for _, s := range a.shards {
		n := 0
		for n < len(s.marks) && a.closed(s.marks[n].window, watermark) && a.panes[s.marks[n].window] == nil {
			n++
		}
		s.marks = slices.Delete(s.marks, 0, n)
	}
}

// ready is how many groups are in closed windows.
func (a *Analyzer) ready() int {
	n, watermark := 0, a.shards.watermark()
	for window, p := range a.panes {
		if a.closed(window, watermark) {
			n += len(p.groups)
		}
	}
	return n
}

func (a *Analyzer) open() int {
	n, watermark := 0, a.shards.watermark()
	for window := range a.panes {
		if !a.closed(window, watermark) {
			n++
		}
	}
	return n
}

// Progress tells how far it is. See analytics.Analyzer.
func (a *Analyzer) Progress() analytics.Progress {
	p := a.counts
	watermark := a.shards.watermark()
	var first *pane
	for window, pane := range a.panes {
		if a.closed(window, watermark) {
			p.Ready += len(pane.groups)
			continue
		}
		p.Windows++
		p.Groups += len(pane.groups)
		if first == nil || window.compare(first.window) < 0 {
			first = pane
		}
	}
	if first != nil {
		p.Due = time.UnixMilli(a.end(first.window).at).Add(a.o.IdleGrace)
	}
	if watermark.at != unset {
		p.Watermark = time.UnixMilli(watermark.at).UTC()
	}
	s := a.shards.behind(func(s *shard) bool { return !s.atEnd })
	if s == nil && len(a.shards) > 0 {
		s = a.shards[0]
	}
	if s != nil {
		p.Behind = s.id
	}
	return p
}

// Rows takes rows out. See analytics.Analyzer. They come in the order of their
// windows and then of their keys.
func (a *Analyzer) Rows(limit analytics.Limit) []buffer.Record {
	var rows []buffer.Record
	bytes, watermark := 0, a.shards.watermark()
	for _, window := range slices.SortedFunc(maps.Keys(a.panes), moment.compare) {
		if !a.closed(window, watermark) {
			break
		}
		p := a.panes[window]
		if p.sorted == nil {
			p.sorted = slices.Sorted(maps.Keys(p.groups))
		}
		for len(p.sorted) > 0 {
			key := p.sorted[0]
			row, ok := a.row(p.window, key, p.groups[key])
			size := recordBytes(&row)
			if ok && len(rows) > 0 && (len(rows) >= limit.MaxRecords || bytes+size > limit.MaxBytes) {
				return rows
			}
			p.sorted = p.sorted[1:]
			delete(p.groups, key)
			a.groups--
			if ok {
				rows, bytes = append(rows, row), bytes+size
			}
		}
		delete(a.panes, window)
	}
	a.settle()
	return rows
}

func recordBytes(r *buffer.Record) int {
	n := len(r.Data) + len(r.PartitionKey)
	for _, a := range r.Attributes {
		n += len(a.Key) + len(a.Value)
	}
	return n
}

// NewRunner is the query as a part of a daemon: its Analyzer with the runner
// that feeds it from the log. logger may be nil.
func NewRunner(q Query, log analytics.Log, logger *slog.Logger) (*analytics.Runner, error) {
	plan, err := Compile(q.SQL)
	if err != nil {
		return nil, fmt.Errorf("query %s: sql: %w", strings.TrimSpace(q.Name), err)
	}
	return analytics.New(analytics.Options{
		Name: q.Name, Input: plan.Input(), Output: plan.Output(), Log: log, Logger: logger,
		Analyzer: plan.Analyzer(Options{Name: q.Name, IdleGrace: q.IdleGrace.Std(), MaxGroups: q.MaxGroups}),
	})
}

// appendTime writes an instant as rows have it: RFC 3339 in UTC with
// milliseconds.
func appendTime(b []byte, ms int64) []byte {
	// The years that RFC 3339 can write; arrivals beyond them do not exist.
	const last = 253402300799999
	ms = min(max(ms, math.MinInt32*1000), last)
	return time.UnixMilli(ms).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}
