package fragment

import (
	"time"

	"github.com/weir-edge/weir/video"
)

const (
	stepLimit   = 2 * time.Second // more is a step, less is slewed
	slewTime    = 10 * time.Second
	maxSlew     = 500e-6
	senderLimit = 10 * time.Second // a sender's clock further off is not believed
)

// clock is a camera's line from media time to wall time.
type clock struct {
	set   bool
	media int64     // end of the last fragment
	wall  time.Time // the same
	slew  float64   // of the fragment under way: wall time gained per media time
}

// observe chooses the best wall time of a unit.
func observe(u video.AccessUnit) (time.Time, video.ClockSource) {
	arrival := u.Arrival.Round(0) // wall time only: a step shall show
	if !u.Sender.IsZero() {
		if off := u.Sender.Sub(arrival); off < senderLimit && off > -senderLimit {
			return u.Sender, video.ClockRTCP
		}
	}
	return arrival, video.ClockArrival
}

// start returns the wall time of a fragment that starts at media time, given
// what was observed of it, and whether that is a step. Only a keyframe may
// step; observed is ignored otherwise.
func (c *clock) start(media int64, observed time.Time, key bool) (wall time.Time, step bool) {
	if !c.set {
		c.set, c.slew = true, 0
		return observed, false
	}
	predicted := c.wall.Add(video.Ticks(media - c.media))
	if !key {
		return predicted, false
	}
	off := observed.Sub(predicted)
	if off > stepLimit || off < -stepLimit {
		c.slew = 0
		return observed, true
	}
	c.slew = min(max(off.Seconds()/slewTime.Seconds(), -maxSlew), maxSlew)
	return predicted, false
}

// end returns the wall time of a fragment's end and remembers both.
func (c *clock) end(start time.Time, mediaStart, mediaEnd int64) time.Time {
	length := video.Ticks(mediaEnd - mediaStart)
	c.media = mediaEnd
	c.wall = start.Add(length + time.Duration(float64(length)*c.slew)).Truncate(time.Microsecond)
	return c.wall
}
