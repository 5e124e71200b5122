// Package h264 takes H.264 out of RTP packets (RFC 6184) without ever holding a
// whole frame: Assembler is fed packets in order and passes the bytes of each
// access unit on to a Sink as they come, telling it before the first picture
// byte whether the unit is a keyframe and which parameter sets are in force.
//
// Single NAL units, STAP-A and FU-A are taken, which is what packetization
// modes 0 and 1 send; interleaved mode (STAP-B, MTAP, FU-B) is counted as
// damaged. gortsplib's rtph264 and pion's codecs do the same job for whole
// frames: both collect an access unit of up to 8 MiB in memory before they
// return it, which a camera's 1 MiB does not allow. They are the second opinion
// in the tests. Parameter sets are parsed by mediacommon.
//
// The package is pure: no socket, no clock, no log.
package h264
