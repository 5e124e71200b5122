// Package receiver takes one camera's RTP over UDP into the log: the socket
// part of a camera. Receiver is its type; Run listens until its context is done.
//
// One goroutine reads the socket, orders packets (video/rtp), takes access
// units out of them (video/h264) and cuts fragments (video/fragment); a second
// one appends the parts to the log, so that a slow disk does not cost packets
// until a camera's memory, three pieces of 256 KiB, is used up. What then does
// not fit is dropped a whole group of pictures at a time, counted, and told as a
// gap by the next fragment. A third listens for RTCP on the next port.
//
// Only who is allowed (CIDR) is heard, and of those the first sender. All else
// is counted, logged at most once a minute, and has no other effect.
package receiver
