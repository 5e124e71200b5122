// Package analytics lets the gateway work on what it has stored: it holds the
// contract of an analyzer and the runner that feeds one from the log.
//
// A Runner is a consumer of the log: it reads every shard of one stream, hands
// the records to an Analyzer, and appends what that makes to another stream.
// What was made, the analyzer's state and the position in the input are one
// commit of the log, so a crash repeats nothing and loses nothing. What is
// promised, how time is taken, and what a crash at each point does is written in
// QUERIES.md beside this file.
//
// An Analyzer is pure: it takes records and the wall time, and returns records.
// It opens nothing, starts nothing and waits for nothing. Each kind of it has a
// folder (analytics/sql); package analyticstest holds the contract as a suite.
//
// The package does not choose an analyzer from a configuration: the daemon
// does.
package analytics
