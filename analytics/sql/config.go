package sql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-edge/weir/analytics"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

// Config is the `analytics:` section as far as it is queries.
type Config struct {
	// Queries run each for itself. Default: none.
	Queries []Query `yaml:"queries"`
}

// Query is one entry of `analytics.queries:`.
type Query struct {
	// Name of the query; the consumer "query.NAME" of the log. No default.
	Name string `yaml:"name"`
	// SQL: INSERT INTO STREAM SELECT … FROM STREAM … GROUP BY …, TUMBLE(arrival,
	// INTERVAL '60' SECOND). No default.
	SQL string `yaml:"sql"`
	// IdleGrace: a shard without new records is taken to be this far behind the
	// wall clock, so that it does not hold back the others. Default 5s: as long
	// as an append may wait for room. A record that is appended later than that
	// counts in the window that is then open. 0 to 1h.
	IdleGrace value.Duration `yaml:"idle_grace"`
	// MaxGroups in open windows; with more the query stops and says so. Default
	// 20000: about what a state holds, and some MB of memory. 1 to 1000000.
	MaxGroups int `yaml:"max_groups"`
}

// DefaultConfig returns the defaults: no query.
func DefaultConfig() Config { return Config{} }

// DefaultQuery returns the defaults of a query.
func DefaultQuery() Query {
	return Query{IdleGrace: value.Duration(5 * time.Second), MaxGroups: 20_000}
}

// maxName leaves room for what a row id has besides, and for "query.".
const maxName = 100

// Validate returns every fault of q, joined; each begins with the key's path.
func (q Query) Validate() error {
	_, err := q.plan()
	return err
}

// plan is the query compiled, nil if it has a fault.
func (q Query) plan() (*Plan, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := buffer.CheckName(q.Name); err != nil || len(q.Name) > maxName {
		fault("name: %.120q must be 1 to %d of the characters a-z A-Z 0-9 _ . -", q.Name, maxName)
	}
	plan, err := Compile(q.SQL)
	switch {
	case strings.TrimSpace(q.SQL) == "":
		fault("sql: missing; write INSERT INTO … SELECT … FROM … GROUP BY …")
	case err != nil:
		fault("sql: %w", err)
	}
	if q.IdleGrace.Std() > time.Hour {
		fault("idle_grace: %s is over 1h", q.IdleGrace)
	}
	if q.MaxGroups < 1 || q.MaxGroups > 1_000_000 {
		fault("max_groups: %d is not between 1 and 1000000", q.MaxGroups)
	}
	return plan, errors.Join(faults...)
}

// Validate returns every fault of c, joined; each begins with the key's path.
// Queries that read, one through the other, what they write are refused: such
// a ring would never come to rest.
func (c Config) Validate() error {
	var faults []error
	plans := make([]*Plan, len(c.Queries))
	for i, q := range c.Queries {
		plan, err := q.plan()
		faults = append(faults, prefixed(fmt.Sprintf("queries[%d].", i), err)...)
		plans[i] = plan
		if slices.ContainsFunc(c.Queries[:i], func(o Query) bool { return o.Name == q.Name && q.Name != "" }) {
			faults = append(faults, fmt.Errorf("queries[%d].name: %s is the name of another query", i, q.Name))
		}
	}
	for i, p := range plans {
		if p == nil {
			continue
		}
		if ring := ring(plans[:i+1], p.Output(), p.Input()); ring != nil {
			faults = append(faults, fmt.Errorf("queries[%d].sql: %s: with the queries before it reads what it writes: %s",
				i, p.statement.From.Pos, strings.Join(append([]string{p.Input()}, ring...), " -> ")))
		}
	}
	return errors.Join(faults...)
}

// ring is a way from a stream through queries to another one, or nil.
func ring(plans []*Plan, from, to string) []string {
	back := map[string]string{from: ""} // how each stream was come to
	for list := []string{from}; len(list) > 0; list = list[1:] {
		for _, p := range plans {
			if p == nil || p.Input() != list[0] {
				continue
			}
			if _, seen := back[p.Output()]; !seen {
				back[p.Output()] = list[0]
				list = append(list, p.Output())
			}
		}
	}
	if _, there := back[to]; !there {
		return nil
	}
	var way []string
	for s := to; s != ""; s = back[s] {
		way = append([]string{s}, way...)
	}
	return way
}

func prefixed(prefix string, err error) []error {
	if err == nil {
		return nil
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range list.Unwrap() {
			out = append(out, fmt.Errorf("%s%w", prefix, e))
		}
		return out
	}
	return []error{fmt.Errorf("%s%w", prefix, err)}
}

// Consumer is the name of the query's consumer in the log.
func (q Query) Consumer() string { return analytics.Consumer(q.Name) }
