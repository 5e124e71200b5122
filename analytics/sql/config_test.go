package sql

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
)

func named(name, sql string) Query {
	q := DefaultQuery()
	q.Name, q.SQL = name, sql
	return q
}

func from(in, out string) string {
	return "INSERT INTO " + out + " SELECT COUNT(*) AS n FROM " + in + " GROUP BY TUMBLE(arrival, INTERVAL '1' MINUTE)"
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	good := Config{Queries: []Query{named("minute-average", contract), named("b", from("averages", "x")), named("c", from("telemetry", "x")), named("d", from("x", "y"))}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if c := good.Queries[0].Consumer(); c != "query.minute-average" {
		t.Errorf("the consumer is %s", c)
	}
	slow := named("a", contract)
	slow.IdleGrace, slow.MaxGroups = value.Duration(2*time.Hour), 0
	for want, queries := range map[string][]Query{
		"queries[0].name: \"\" must be 1 to 100 of the characters a-z A-Z 0-9 _ . -":                                                                             {named("", contract)},
		"queries[0].name: \"a b\" must be 1 to 100 of the characters a-z A-Z 0-9 _ . -\nqueries[0].sql: missing; write INSERT INTO … SELECT … FROM … GROUP BY …": {named("a b", " ")},
		"queries[0].name: \"" + strings.Repeat("x", 101) + "\" must be 1 to 100 of the characters a-z A-Z 0-9 _ . -":                                             {named(strings.Repeat("x", 101), contract)},
		"queries[0].sql: 1:1: expected INSERT INTO, found SELEKT":                                                                                                {named("a", "SELEKT")},
		"queries[0].sql: 1:41: the query would read what it writes, the stream s":                                                                                {named("a", from("s", "s"))},
		"queries[0].idle_grace: 2h0m0s is over 1h\nqueries[0].max_groups: 0 is not between 1 and 1000000":                                                        {slow},
		"queries[1].name: a is the name of another query":                                                                                                        {named("a", contract), named("a", contract)},
		"queries[1].sql: 1:49: with the queries before it reads what it writes: averages -> telemetry -> averages":                                               {named("a", contract), named("b", from("averages", "telemetry"))},
		"queries[2].sql: 1:41: with the queries before it reads what it writes: y -> s -> x -> y":                                                                {named("a", from("x", "y")), named("b", from("s", "x")), named("c", from("y", "s"))},
		"queries[0].sql: 1:1: expected INSERT INTO, found -\nqueries[1].sql: 1:1: expected INSERT INTO, found nope":                                              {named("a", "-"), named("b", "nope")},
	} {
		err := Config{Queries: queries}.Validate()
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if err := named("a", "x").Validate(); err == nil || err.Error() != "sql: 1:1: expected INSERT INTO, found x" {
		t.Errorf("%v", err)
	}
	if _, err := NewRunner(named("a", "x"), nil, nil); err == nil || err.Error() != "query a: sql: 1:1: expected INSERT INTO, found x" {
		t.Errorf("%v", err)
	}
}
