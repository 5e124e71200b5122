// Package crashtest is a disk in memory that can be cut off from power after
// any operation. FS is a disk.FS that writes down every operation; its CrashAt
// returns a new FS with what a disk may hold if the power went, or the process
// was killed, right after one of them. A test runs a history once, notes what
// was acknowledged when (Mark), and opens what it finds at cuts from 0 to Ops.
//
// It stands for a disk with a volatile cache below a journalling file system
// (ext4 in its default mode, XFS, btrfs, F2FS), and is stricter where they differ:
//
//   - File.Sync makes bytes, blocks and size durable, not the name. SyncDir makes
//     the operations in that directory durable, and earlier ones on the same
//     files and names; others survive as a prefix, in order over the whole tree.
//     A rename is one step, durable with either directory.
//   - Bytes survive by sectors of 512, each as the page cache had it after a
//     write. A durable byte is lost only to a write over it, not beside it.
//   - Truncations and allocations survive as a prefix for each file. The size
//     reaches as far as writes survived; holes and unwritten blocks read as zeros.
//     A recycled file keeps what was durable in it.
//   - After a failed sync the pages are clean, as on Linux: a later sync does not
//     write them, unless they were written again.
//   - Blocks are 4 KiB; a removed file gives them back at its last Close. If a cut
//     brings back more than there is room for, nothing is free.
//
// What it leaves out: a disk that lies about a sync, damage to what is durable, a
// file system that goes read-only, memory maps. KV stands in for Badger: its
// writes are operations of the same history, durable at once.
package crashtest
