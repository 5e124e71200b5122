package sql

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// query puts SELECT items into the simplest query.
func query(items string) string {
	return "INSERT INTO o SELECT " + items + " FROM i GROUP BY k, TUMBLE(arrival, INTERVAL '1' MINUTE)"
}

func where(condition string) string {
	return "INSERT INTO o SELECT k FROM i WHERE " + condition + " GROUP BY k, TUMBLE(arrival, INTERVAL '1' MINUTE)"
}

// TestParse: what a query means, written with every parenthesis it needs.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		contract: "INSERT INTO averages SELECT sensor, AVG(value) AS mean, COUNT(*) AS n, window_start FROM telemetry GROUP BY sensor, TUMBLE(arrival, INTERVAL '60' SECOND)",
		"insert into \"a-b.c\"\n select avg(x) mean -- the mean\n from /* it\nis */ telemetry where x>1 group by tumble ( RowTime , interval '0.5' day ) having count(*)>2;": "INSERT INTO \"a-b.c\" SELECT AVG(x) AS mean FROM telemetry WHERE x > 1 GROUP BY TUMBLE(RowTime, INTERVAL '0.5' DAY) HAVING COUNT(*) > 2",
		query(`a + b * c - d AS x`):                            query("(a + (b * c)) - d AS x"),
		query(`-a * -b % +c AS x`):                             query("((-a) * (-b)) % c AS x"),
		query(`- -1 AS x`):                                     query("-(-1) AS x"),
		query(`(a - (b - c)) / 2.50 AS x`):                     query("(a - (b - c)) / 2.5e+00 AS x"),
		where("a = 1 or b = 2 and not c is null"):              where("(a = 1) OR ((b = 2) AND (NOT (c IS NULL)))"),
		where("not a and b is not null or c != 'it''s'"):       where("((NOT a) AND (b IS NOT NULL)) OR (c <> 'it''s')"),
		where("a < b + 1 and true and null is null"):           where("((a < (b + 1)) AND TRUE) AND (NULL IS NULL)"),
		where("a.b.\"c d\".second > .5"):                       where(`a.b."c d".second > 5e-01`),
		query("day, second, value, table, window, year, row"):  query("day, second, value, table, window, year, row"),
		query("limit, end, time, date, tumble, count, stream"): query("limit, end, time, date, tumble, count, stream"),
		query("stream, k"):                                     query("stream, k"),
		query("distinct"):                                      query("distinct"),
		query(`"SELECT" AS "a""b"`):                            query(`"SELECT" AS "a""b"`),
		query("9223372036854775807 AS x"):                      query("9223372036854775807 AS x"),
		query("9223372036854775808 AS x"):                      query("9.223372036854776e+18 AS x"),
		query("größe AS Maß"):                                  query("größe AS Maß"),
		query("1e3 AS a, 1. AS b, 1E-2 AS c"):                  query("1e+03 AS a, 1e+00 AS b, 1e-02 AS c"),
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if s.String() != want {
			t.Errorf("%s\n is %s\nwant %s", text, s, want)
		}
	}
}

// TestFaults: each message, with its place, as a person gets it.
func TestFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                                         "1:1: expected INSERT INTO, found the end",
		"INSERT o":                                 "1:1: expected INSERT INTO, found INSERT",
		"INSERT INTO":                              "1:12: expected the name of a stream, found the end",
		"INSERT INTO SELECT a":                     "1:13: expected the name of a stream, found SELECT",
		"INSERT INTO o\nSELECT a, FROM i":          "2:11: expected an expression, found FROM",
		"INSERT INTO o SELECT FROM i":              "1:22: expected an expression, found FROM",
		"INSERT INTO o SELECT a b c FROM":          "1:26: expected a comma or FROM, found c",
		"INSERT INTO o SELECT a AS FROM":           "1:27: expected a name; in double quotes it may be any, found FROM",
		"INSERT INTO o SELECT a AS 1":              "1:27: expected a name, found 1",
		"INSERT INTO o SELECT a FROM":              "1:28: expected the name of a stream, found the end",
		"INSERT INTO o SELECT a FROM x.y":          "1:30: a name with dots is written in double quotes, as \"a.b\"",
		"INSERT INTO \"a b\" SELECT":               "1:13: name \"a b\" must be 1 to 128 of the characters a-z A-Z 0-9 _ . -",
		"INSERT INTO o SELECT a FROM i":            "1:30: expected GROUP BY with a TUMBLE; a query without a window is not supported yet",
		"INSERT INTO o SELECT a FROM i GROUP x":    "1:37: expected BY, found x",
		"INSERT INTO o SELECT k FROM i GROUP BY k": "1:40: GROUP BY has no window such as TUMBLE(arrival, INTERVAL '60' SECOND); without one it is not supported yet",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '1' HOUR), TUMBLE(arrival, INTERVAL '1' DAY)": "1:76: there is a window already; a query has exactly one",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, '60')":                                                 "1:56: expected INTERVAL, found '60'",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL 60 SECOND)":                                   "1:65: expected a number in quotes, such as '60', found 60",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '6x' SECOND)":                                 "1:65: '6x' is not a number such as '60' or '0.5'",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '-6' SECOND)":                                 "1:65: '-6' is not a number such as '60' or '0.5'",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '60' SECONDS)":                                "1:70: expected SECOND, MINUTE, HOUR or DAY, found SECONDS",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '1' MONTH)":                                   "1:69: a window of a MONTH has no fixed length; use DAY",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '0' SECOND)":                                  "1:65: a window must be whole milliseconds, from 1 ms to 366 days",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '0.0005' SECOND)":                             "1:65: a window must be whole milliseconds, from 1 ms to 366 days",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '367' DAY)":                                   "1:65: a window must be whole milliseconds, from 1 ms to 366 days",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '99999999999999999999' DAY)":                  "1:65: a window must be whole milliseconds, from 1 ms to 366 days",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '1:30' MINUTE TO SECOND)":                     "1:65: '1:30' is not a number such as '60' or '0.5'",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '1' DAY TO SECOND)":                           "1:73: an interval of two units or with a precision: not supported yet",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(event_time, INTERVAL '1' DAY)":                                  "1:47: a window over another time than arrival: not supported yet",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(TABLE i, DESCRIPTOR(t), INTERVAL '1' DAY)":                      "1:47: TUMBLE(TABLE …): not supported yet",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival INTERVAL '1' DAY)":                                      "1:55: expected ,, found INTERVAL",
		"INSERT INTO o SELECT k FROM i GROUP BY TUMBLE(arrival, INTERVAL '1' DAY":                                      "1:72: expected ), found the end",
		"INSERT INTO o SELECT k FROM i GROUP BY k, HOP(arrival, INTERVAL '1' DAY, INTERVAL '2' DAY)":                   "1:43: HOP in GROUP BY: not supported yet",
		"INSERT INTO o SELECT k FROM i GROUP BY k, STEP(i.ROWTIME BY INTERVAL '60' SECOND)":                            "1:43: STEP in GROUP BY: not supported yet",
		"INSERT INTO o SELECT k FROM i WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '1' MINUTE)":                 "1:31: WINDOWED BY: not supported yet",
		"INSERT INTO o SELECT k FROM i, j":                                                                             "1:30: a second stream: not supported yet",
		"INSERT INTO o SELECT k FROM i LEFT JOIN j":                                                                    "1:31: JOIN: not supported yet",
		"INSERT INTO o SELECT k FROM i AS t":                                                                           "1:31: another name for a stream: not supported yet",
		"INSERT INTO o SELECT k FROM (SELECT 1)":                                                                       "1:29: a query within FROM: not supported yet",
		"INSERT INTO o SELECT k FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM * FROM i)))":                         "1:29: TABLE within FROM: not supported yet",
		"INSERT INTO o SELECT k FROM i ORDER BY k":                                                                     "1:31: ORDER BY: not supported yet",
		query("k") + " LIMIT 5":                        "1:80: LIMIT: not supported yet",
		query("k") + " EMIT CHANGES":                   "1:80: EMIT: not supported yet",
		query("k") + " 5":                              "1:80: expected the end, found 5",
		query("k") + ";;":                              "1:80: expected the end, found ;",
		"INSERT INTO o (a) SELECT":                     "1:15: a list of columns after the stream: not supported yet",
		"INSERT INTO o VALUES (1)":                     "1:15: VALUES: not supported yet",
		"SELECT a FROM b":                              "1:1: a statement that begins with SELECT (INSERT INTO does): not supported yet",
		"CREATE OR REPLACE STREAM x":                   "1:1: a statement that begins with CREATE (INSERT INTO does): not supported yet",
		query("*"):                                     "1:22: SELECT *: not supported yet",
		query("STREAM *"):                              "1:22: SELECT STREAM: not supported yet",
		query("STREAM k, v"):                           "1:22: SELECT STREAM: not supported yet",
		query("DISTINCT a b"):                          "1:22: SELECT DISTINCT: not supported yet",
		query("COUNT(DISTINCT a)"):                     "1:28: COUNT(DISTINCT …): not supported yet",
		query("ROUND(a)"):                              "1:22: ROUND: not supported yet",
		query("frob(a)"):                               "1:22: there is no function FROB; there are COUNT, SUM, AVG, MIN, MAX",
		query("AVG(*)"):                                "1:26: AVG takes an expression; only COUNT takes *",
		query("AVG()"):                                 "1:26: expected an expression, found )",
		query("AVG(a, b)"):                             "1:27: AVG takes one expression",
		query("AVG(a"):                                 "1:28: expected an operator or ), found FROM",
		query("AVG(a) OVER (ROWS 3)"):                  "1:29: OVER: not supported yet",
		query("AVG(MAX(a))"):                           "1:26: an aggregate such as MAX cannot stand here; it belongs to SELECT or HAVING, and not into another one",
		query("SUM('1')"):                              "1:26: SUM needs a number, this is a text",
		query("MAX(a = 1)"):                            "1:26: MAX needs a number, this is a condition",
		query("AVG(window_start)"):                     "1:26: window_start is known when the window closes, not here",
		query("v"):                                     "1:22: v must stand in GROUP BY or within an aggregate such as MAX",
		query("a.b + 1 AS x"):                          "1:22: a.b must stand in GROUP BY or within an aggregate such as MAX",
		query("COUNT(*) + 1"):                          "1:22: name this column with AS",
		query("k, COUNT(*) AS k"):                      "1:37: two columns are named k; name one with AS",
		query("AVG(a), AVG(b)"):                        "1:30: two columns are named avg; name one with AS",
		query("CASE WHEN a THEN 1"):                    "1:22: CASE: not supported yet",
		query("TUMBLE(arrival, 1)"):                    "1:22: TUMBLE belongs alone into GROUP BY; its bounds are window_start and window_end",
		query("a || b"):                                "1:24: ||: not supported yet",
		query("a[0]"):                                  "1:23: [: not supported yet",
		query("a."):                                    "1:25: expected the name of a field, found FROM",
		query("1e999 AS x"):                            "1:22: 1e999 is too large for a number",
		query("12abc AS x"):                            "1:22: 12abc is not a number",
		"INSERT INTO o SELECT 'abc":                    "1:22: a string must end with '",
		query("\"abc"):                                 "1:22: a quoted name must end with \"",
		query("\"\""):                                  "1:22: a quoted name must not be empty",
		query("/* abc"):                                "1:22: a comment that begins with /* must end with */",
		query("a # b"):                                 "1:24: '#' has no meaning here",
		query("ü, \xff"):                               "1:25: the text is not UTF-8",
		query("'\xff'"):                                "1:22: the text is not UTF-8",
		query("a = (SELECT 1)"):                        "1:26: a query within an expression: not supported yet",
		query("(a + 1"):                                "1:29: expected an operator or ), found FROM",
		query("INTERVAL '1' DAY"):                      "1:22: INTERVAL outside of TUMBLE: not supported yet",
		query("TIMESTAMP '2026-01-01'"):                "1:22: TIMESTAMP '…': not supported yet",
		query("a IS TRUE"):                             "1:27: IS TRUE: not supported yet",
		query("a IS 5"):                                "1:27: expected NULL, found 5",
		where("a" + " IN (1, 2)"):                      "1:39: IN: not supported yet",
		where("a NOT LIKE 'x'"):                        "1:39: NOT LIKE: not supported yet",
		where("a BETWEEN 1 AND 2"):                     "1:39: BETWEEN: not supported yet",
		where("a > "):                                  "1:42: expected an expression, found GROUP",
		where("a > 1 b"):                               "1:43: expected an operator or GROUP BY, found b",
		where("a + 1"):                                 "1:37: WHERE needs a condition, this is a number",
		where("NOT 5"):                                 "1:41: NOT needs a condition, this is a number",
		where("a AND 'x'"):                             "1:43: AND needs a condition, this is a text",
		where("-'x' = 1"):                              "1:38: - needs a number, this is a text",
		where("1 + (a = 2) > 3"):                       "1:42: + needs a number, this is a condition",
		where("1 = 'x'"):                               "1:37: a number is compared with a text",
		where("COUNT(*) > 1"):                          "1:37: an aggregate such as COUNT cannot stand here; it belongs to SELECT or HAVING, and not into another one",
		query("k") + " HAVING k + 1":                   "1:87: HAVING needs a condition, this is a number",
		query("k") + " HAVING v > 1":                   "1:87: v must stand in GROUP BY or within an aggregate such as MAX",
		strings.Replace(query("k"), "BY k", "BY 1", 1): "1:40: GROUP BY a constant makes no groups; name a column",
		strings.Replace(query("k"), "FROM i", "FROM o", 1):               "1:29: the query would read what it writes, the stream o",
		where(strings.Repeat("(", 501) + "a" + strings.Repeat(")", 501)): "1:537: the expression is nested deeper than 500",
		where("a" + strings.Repeat(" OR a", 500)):                        "1:2539: the expression is nested deeper than 500",
		where(strings.Repeat("NOT ", 501) + "a"):                         "1:2037: the expression is nested deeper than 500",
		query(strings.Repeat("k, ", 256) + "k"):                          "1:790: more than 256 columns",
		query("a" + strings.Repeat(".a", 32)):                            "1:86: more than 32 fields within each other",
		strings.Repeat(" ", MaxText+1):                                   "1:1: a query of 102401 bytes is over the limit of 102400",
	} {
		_, err := Compile(text)
		var fault *Error
		switch {
		case err == nil:
			t.Errorf("%.120s: no error; want %s", text, want)
		case !errors.As(err, &fault):
			t.Errorf("%.120s: %T", text, err)
		case err.Error() != want:
			t.Errorf("%.120s\n is %s\nwant %s", text, err, want)
		}
	}
}

// TestInterval: every unit, and fractions.
func TestInterval(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"'60' SECOND": time.Minute, "'0.5' SECOND": 500 * time.Millisecond, "'0.001' SECOND": time.Millisecond, "'15' MINUTE": 15 * time.Minute,
		"'1.50' HOUR": 90 * time.Minute, "'366' day": 366 * 24 * time.Hour, "'0.25' DAY": 6 * time.Hour, "'007' SECOND": 7 * time.Second,
		"'1.000000000000' SECOND": time.Second,
	} {
		p, err := Compile(strings.Replace(contract, "'60' SECOND", text, 1))
		if err != nil || p.Window() != want {
			t.Errorf("%s is %v, %v; want %s", text, p, err, want)
		}
	}
}

// FuzzParse: no text brings it down, and what a query is written as is the
// same query.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		contract, where("a < 1 AND NOT (b.c IS NOT NULL OR d <> 'x')"), query("-(-a) * 2e-3 % \"b\" AS x, \"AVG\""), query("COUNT(*) + AVG(-a) / 2 AS x") + " HAVING MAX(a) > 5",
		"INSERT INTO o SELECT", "-- x", "/*", "'", "\"", "\xff", "INSERT INTO o SELECT a FROM i GROUP BY TUMBLE(ROWTIME, INTERVAL '.5' DAY)", query("stream s, k"),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if fault := new(Error); !errors.As(err, &fault) || fault.Line < 1 || fault.Column < 1 || fault.Message == "" {
				t.Fatalf("%q: %v is no fault with a place", text, err)
			}
			return
		}
		again, err := Parse(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is %q and then %v, %v", text, s, again, err)
		}
		plan, err := Compile(text)
		if err != nil {
			return
		}
		if p, err := Compile(plan.String()); err != nil || p.fingerprint() != plan.fingerprint() {
			t.Fatalf("%q compiles to %q, which does not: %v", text, plan, err)
		}
	})
}
