// Package uplink sends what the log holds to destinations far away, and holds
// the contract that each kind of destination fulfils.
//
// A Pump is a consumer of the log: it reads a stream, makes batches of records
// of one shard, hands them to a Sink, and moves its durable position when the
// sink has acknowledged. The backlog of an outage stays in the log; the pump
// keeps at most a batch of each shard in memory. What it promises, and what a
// crash at each point does, is written in DELIVERY.md beside this file.
//
// A Sink is only a protocol: it sends one batch and says with its error what
// became of it (PartialError, RetryAfterError, PermanentError, or anything
// else: not known). A sink that can read back what the destination holds is a
// Resumer as well, and with it nothing arrives twice.
//
// The package does not choose a sink from a configuration (the daemon does),
// and does not know any destination's SDK: those live in the folders below.
// Package uplinktest holds the contract as a test suite.
package uplink
