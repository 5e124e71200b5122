// Package sql is continuous queries: SQL over a stream of the log, whose rows
// go to another stream.
//
//	INSERT INTO averages
//	SELECT sensor, AVG(value) AS mean, COUNT(*) AS n, window_start
//	FROM telemetry GROUP BY sensor, TUMBLE(arrival, INTERVAL '60' SECOND)
//
// Compile reads a query and says, with line and column, what is wrong with it.
// Plan.Analyzer is the query at work: an analytics.Analyzer. NewRunner puts both
// together for a daemon. Config is the list of queries in a configuration.
//
// What is supported, how values are taken from records, how time is taken, and
// the form of the rows is written in QUERIES.md in the folder above. The package
// reads records of JSON with a scanner of its own, which decodes only the
// columns that a query names.
package sql
