// Package buffer is the shard log, the one place all of weir's data goes
// through: sources append to it, and everything else reads it at its own pace.
//
// A Log holds streams; a stream is split into shards by the MD5 of the
// partition key, as Kinesis does it; a shard is a sequence of records. Append
// returns when the records are durable. Consumers have names and keep their
// places here. Only retention deletes, and tells every reader who comes too
// late what is gone.
//
// The bytes are in append-only segment files, the index and the consumers'
// places in Badger, which can be rebuilt from the segments: FORMAT.md draws
// both and says who is the truth for what, CRASH.md goes through what a power
// cut leaves at each point.
//
// Start with Open, Log.Append, Log.Read. The interfaces in info.go are the
// contract; package buffertest checks it.
//
// The package knows nothing of MQTT, video or sinks, imports nothing of weir
// but its value types, and is the only one that imports Badger.
package buffer
