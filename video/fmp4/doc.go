// Package fmp4 is the layout of stored fragments and the MP4 made of them:
// Table collects the samples of a fragment and becomes, with EncodeClosing, the
// data of its closing record; DecodeClosing reads that back as a Stored.
// Movie lays several Stored out as one progressive MP4 (ISO 14496-12, 14496-15)
// with the index in front, frames untouched.
//
// The layout of the closing record is FRAGMENT.md's. The boxes are written
// here, not by mediacommon's pmp4, which holds one parameter set and every
// sample in memory and has 32-bit offsets; its reader and ffmpeg check ours in
// the tests.
//
// The package is pure: bytes in, bytes out. video/recording reads the log.
package fmp4
