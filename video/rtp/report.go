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

// report is the pinned sender's last report: one media time and its wall time.
type report struct {
	timestamp uint32
	wall      time.Time
}

// PushRTCP takes a datagram of the RTCP port.
func (s *Session) PushRTCP(now time.Time, raw []byte) {
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
			if s.pinned && p.SSRC == s.ssrc && p.NTPTime>>32 != 0 {
				s.report = report{p.RTPTime, ntpTime(p.NTPTime)}
				s.stats.Reports++
			}
		case *rtcp.Goodbye:
			for _, ssrc := range p.Sources {
				if s.pinned && ssrc == s.ssrc {
					// The next sender need not wait for the timeout.
					s.lastSeen = now.Add(-s.options.SenderTimeout - 1)
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
