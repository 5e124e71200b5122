//go:build 386 || arm || mips || mipsle

package main

// On 32-bit platforms Badger v4 loses records: an overflow in the arena of
// ristretto's allocator (unfixed in v2.4.2) overwrites blocks at the first
// flush. buffer/FORMAT.md, "Who is the truth", says what weir keeps in it. So
// this does not compile there, and the next line is the message.
var _ = weir_needs_64_bit_because_badger_loses_records_on_32_bit
