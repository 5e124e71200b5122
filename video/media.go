package video

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// ClockRate is the unit of media time: ticks a second, as RTP has it for video
// (RFC 6184, 8.2.1).
const ClockRate = 90000

// Ticks converts media time to a duration, rounded down to the nanosecond.
func Ticks(n int64) time.Duration {
	return time.Duration(n/ClockRate)*time.Second + time.Duration(n%ClockRate)*time.Second/ClockRate
}

// ToTicks converts a duration to media time, rounded to the nearest tick.
func ToTicks(d time.Duration) int64 {
	seconds, rest := int64(d/time.Second), int64(d%time.Second)
	half := int64(time.Second / 2)
	if rest < 0 {
		half = -half
	}
	return seconds*ClockRate + (rest*ClockRate+half)/int64(time.Second)
}

// ClockSource says where a wall time came from.
type ClockSource string

const (
	ClockRTCP    ClockSource = "rtcp"    // the sender's report
	ClockArrival ClockSource = "arrival" // weir's clock when the first packet arrived
)

// AccessUnit describes one frame without its bytes.
type AccessUnit struct {
	PTS        int64       // presentation time, media time unwrapped
	Keyframe   bool        // decoding can start here
	Arrival    time.Time   // of its first packet, with the monotonic part
	Sender     time.Time   // the sender's wall time of PTS; zero if it reported none
	Parameters *Parameters // in force; nil if none are known yet. Never changed once made
}

// Parameters are what a decoder needs before the first frame. A value is
// immutable: a change makes a new one.
type Parameters struct {
	Codec         string // "h264"
	SPS, PPS      [][]byte
	Width, Height int
}

// Reference names the parameters: equal ones have the same.
func (p *Parameters) Reference() string {
	h := sha256.New()
	for _, sets := range [][][]byte{p.SPS, p.PPS} {
		for _, set := range sets {
			h.Write([]byte{byte(len(set) >> 8), byte(len(set))})
			h.Write(set)
		}
		h.Write([]byte{0xff, 0xff})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
