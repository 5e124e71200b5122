// Package crashtest is a disk in memory that can be cut off from power after
// any operation. FS behaves as a disk.FS and writes down every operation; its
// CrashAt returns a new FS with what a disk may hold if the power went, or the
// process was killed, right after one of them. A test runs a history once,
// notes at which operation what was acknowledged (Mark), and then opens what it
// finds at every cut from 0 to Ops.
//
// The disk it stands for is one with a volatile cache below a journalling file
// system: ext4 in its default mode, XFS, btrfs, F2FS.
//
//   - File.Sync makes the bytes, the blocks and the size of that file durable,
//     not its name. SyncDir makes the creates, renames and removes in that
//     directory durable, and what they depend on: earlier ones of the same file
//     or the same name. A rename is one step, durable with either directory.
//   - Directory operations that were not synced survive as a prefix in their
//     order, over the whole tree. A file whose creation did not survive is not
//     there, whatever of it was synced. One whose name survived may be empty.
//   - Bytes not synced survive by sectors of 512 bytes. A sector that survives
//     is as it was in the page cache after that write: with the bytes of earlier
//     writes to it, and with what was durable in it. So a durable byte is lost
//     only to a write over that byte, never to its neighbour.
//   - Truncations and allocations that were not synced survive as a prefix, for
//     each file. Without one that shrinks, nothing written behind it survives.
//   - The size reaches as far as writes to the file survived, and a hole reads as
//     zeros, as do blocks that were allocated and not written. A recycled file
//     (renamed, overwritten) keeps what was durable in it.
//   - A sync that failed leaves the page cache as it is and clean, as Linux does:
//     a later sync that succeeds does not write those pages, unless they were
//     written again.
//   - Blocks are 4 KiB. A removed file gives its blocks back at its last Close.
//     After a cut there may be more on the disk than it has room for, because a
//     removal did not survive; then nothing is free.
//
// What it leaves out: a disk that lies about a sync, damage to what is durable
// (a test flips bytes itself), a file system that goes read-only, memory maps.
// Badger keeps its files by itself; KV takes its place, a store in memory whose
// writes are operations of the same history.
package crashtest
