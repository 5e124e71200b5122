package rtp

import (
	"time"

	"github.com/pion/rtcp"
)

const (
	ntpEpochOffset = 2208988800 // seconds from 1900 to 1970
	maxRTCPBytes   = 2048
	clockRate      = 90000
)

// report is a sender's last report: one media time and its wall time.
type report struct {
	ssrc      uint32
	timestamp uint32
	wall      time.Time
}

// PushRTCP takes a datagram of the RTCP port.
func (s *Session) PushRTCP(raw []byte) {
	if len(raw) > maxRTCPBytes {
		s.stats.Malformed++
		return
	}
	packets, err := rtcp.Unmarshal(raw)
	if err != nil {
		s.stats.Malformed++
		return
	}
	for _, packet := range packets {
		switch p := packet.(type) {
		case *rtcp.SenderReport:
			if p.NTPTime>>32 == 0 {
				continue // a sender without a clock (RFC 3550, 6.4.1)
			}
			heard := report{p.SSRC, p.RTPTime, ntpTime(p.NTPTime)}
			if s.pinned && p.SSRC == s.ssrc {
				s.report = heard
				s.stats.Reports++
			} else {
				s.early = heard
			}
		case *rtcp.Goodbye:
			for _, ssrc := range p.Sources {
				if s.pinned && ssrc == s.ssrc {
					s.left = true // the next sender need not wait for the timeout
				}
			}
		}
	}
}

// ntpTime converts a 64-bit NTP timestamp (RFC 3550, 4).
func ntpTime(ntp uint64) time.Time {
	seconds, fraction := int64(ntp>>32)-ntpEpochOffset, ntp&0xffffffff
	return time.Unix(seconds, int64(fraction*1e9>>32)).UTC()
}

// SenderTime returns the sender's wall time of a media time, by its last
// report; zero if it reported none.
func (s *Session) SenderTime(timestamp int64) time.Time {
	if s.report.wall.IsZero() {
		return time.Time{}
	}
	ticks := int64(int32(uint32(timestamp) - s.report.timestamp))
	return s.report.wall.Add(time.Duration(ticks * int64(time.Second) / clockRate))
}
