// Package nats is the uplink's sink for NATS JetStream.
//
// A Sink publishes each stream of a node to one subject, weir.NODE.STREAM by
// default, with the record's id as Nats-Msg-Id and its CloudEvents headers.
// Every message says which message of the subject must come before it, so that
// the server stores a beginning of what is sent and never anything twice,
// whatever becomes of connections in between; ../DELIVERY.md tells why. The
// tail of a subject is read back through a short-lived consumer, headers only.
//
// Messages go as a chain of foretold sequences, or, where the stream allows it
// and the chain does not do well, as an atomic batch.
//
// A connection is never resumed by the client library. When it breaks, all
// that was in flight on it is of unknown outcome, and the next call dials anew;
// how often is the pump's decision, which waits between its calls.
//
// The package makes a missing stream if it is told to, but never changes one.
package nats
