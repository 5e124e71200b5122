// Package video holds the nouns of media: AccessUnit (a frame), Parameters (what
// a decoder needs before the first of them), Fragment (a stored run of frames
// that starts at a keyframe), Gap (what is missing and why), and the
// configuration of cameras. TIME.md says what time is here, FRAGMENT.md how a
// fragment is stored.
//
// The work is done below it. Pure, bytes in and values out, without sockets and
// without a clock: video/rtp (order, loss, sender reports), video/h264
// (depacketising, parameter sets), video/fragment (access units to fragments),
// video/fmp4 (the sample table and MP4). With sockets: video/receiver takes a
// camera's RTP into the log, video/rtpsend plays a clip as a camera would.
// video/recording is the read side.
//
// Frames are passed through: nothing here decodes or encodes a picture.
package video
