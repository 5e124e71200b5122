// Package rtp turns datagrams into one camera's packets in order: RTP (RFC
// 3550) with loss, reordering, duplicates, restarts and garbage in, packets
// with unwrapped numbers and times out.
//
// Session is the main type. It pins the first sender (SSRC) that shows two
// packets in sequence, waits a bounded time in bounded memory for a missing
// packet, counts what does not come, and maps media time to the sender's wall
// time by its RTCP reports.
//
// The package is pure: no socket, no clock; every call takes now. It knows
// nothing of codecs. Headers are parsed by pion/rtp and pion/rtcp. The reorder
// buffer is ours because the known ones (pion's sample builder and jitter
// buffer, gortsplib's receiver) bound neither bytes nor time, or keep the last
// packet back.
package rtp
