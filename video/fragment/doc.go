// Package fragment makes fragments of access units: it decides where one
// begins and ends, keeps the producer clock of a camera (TIME.md), and hands the
// result out in pieces of bounded size as the bytes come (FRAGMENT.md).
//
// Builder is the main type; it is an h264.Sink. It is pure: the time it knows
// is what the access units carry, and where its parts go is an Out.
//
// It does not append to the log: video/receiver does.
package fragment
