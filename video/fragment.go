package video

import (
	"encoding/json"
	"fmt"
	"time"
)

// Limits of a fragment; FRAGMENT.md gives the reasons.
const (
	MaxFragmentDuration = 10 * time.Second
	MaxFragmentBytes    = 8 << 20
	MaxTableBytes       = 64 << 10 // of its encoded sample table
	MaxGaps             = 4        // told by one fragment; more are summed up in the last
)

// Fragment is the metadata of a stored fragment, enough to list and to choose
// it without reading its bytes.
type Fragment struct {
	Version    int         `json:"v"`
	Camera     string      `json:"camera"`
	Epoch      int64       `json:"epoch"`
	Number     uint64      `json:"n"`
	Key        bool        `json:"key"`
	KeyStart   time.Time   `json:"key_start,omitzero"`
	MediaStart int64       `json:"media_start"`
	MediaEnd   int64       `json:"media_end"`
	Start      time.Time   `json:"start"`
	End        time.Time   `json:"end"`
	Clock      ClockSource `json:"clock"`
	Codec      string      `json:"codec"`
	Parameters string      `json:"parameters"`
	Width      int         `json:"width"`
	Height     int         `json:"height"`
	Frames     int         `json:"frames"`
	Bytes      int64       `json:"bytes"`
	Packets    int64       `json:"packets"`
	Lost       int64       `json:"lost"`
	Gaps       []Gap       `json:"gaps,omitempty"`
}

// Cause says why frames are missing.
type Cause string

const (
	CauseStart         Cause = "start"
	CauseLoss          Cause = "rtp-loss"
	CauseDamaged       Cause = "damaged"
	CauseRestart       Cause = "sender-restart"
	CauseTimestampJump Cause = "timestamp-jump"
	CauseClockStep     Cause = "clock-step"
	CauseLogFull       Cause = "log-full"
	CauseBackpressure  Cause = "backpressure"
	CauseNoParameters  Cause = "no-parameters"
)

// Gap is what is missing right before a fragment.
type Gap struct {
	Cause   Cause     `json:"cause"`
	From    time.Time `json:"from,omitzero"` // end of the last frame before it; zero: not known
	To      time.Time `json:"to,omitzero"`   // first frame after it
	Packets int64     `json:"packets,omitempty"`
	Frames  int64     `json:"frames,omitempty"` // received and dropped
}

// AddGap adds g to f. Beyond MaxGaps the counts go to the last one.
func (f *Fragment) AddGap(g Gap) {
	if len(f.Gaps) < MaxGaps {
		f.Gaps = append(f.Gaps, g)
		return
	}
	last := &f.Gaps[len(f.Gaps)-1]
	last.To = g.To
	last.Packets += g.Packets
	last.Frames += g.Frames
}

// Follows says whether f goes on where before ends, with nothing missing.
func (f *Fragment) Follows(before *Fragment) bool {
	return f.Epoch == before.Epoch && f.Number == before.Number+1 && len(f.Gaps) == 0
}

// Wall returns the wall time of a media time of this fragment, by the line
// between its ends; outside it the line is continued.
func (f *Fragment) Wall(media int64) time.Time {
	length := f.MediaEnd - f.MediaStart
	if length <= 0 {
		return f.Start
	}
	stretch := f.End.Sub(f.Start) - Ticks(length) // slewed over the whole fragment
	part := float64(media-f.MediaStart) / float64(length)
	return f.Start.Add(Ticks(media-f.MediaStart) + time.Duration(part*float64(stretch)))
}

// Media returns the media time of a wall time; it undoes Wall to a tick.
func (f *Fragment) Media(wall time.Time) int64 {
	length, span := f.MediaEnd-f.MediaStart, f.End.Sub(f.Start)
	if length <= 0 || span <= 0 {
		return f.MediaStart
	}
	since := wall.Sub(f.Start)
	stretch := span - Ticks(length)
	return f.MediaStart + ToTicks(since-time.Duration(float64(since)/float64(span)*float64(stretch)))
}

// Encode returns f as JSON, the value of its closing record's index.
func (f *Fragment) Encode() ([]byte, error) { return json.Marshal(f) }

// DecodeFragment is the inverse of Encode. It refuses what a newer version
// wrote and what cannot be.
func DecodeFragment(value []byte) (Fragment, error) {
	var f Fragment
	if err := json.Unmarshal(value, &f); err != nil {
		return f, fmt.Errorf("decode fragment metadata: %w", err)
	}
	switch {
	case f.Version != 1:
		return f, fmt.Errorf("decode fragment metadata: version %d is not known", f.Version)
	case f.MediaEnd < f.MediaStart || f.End.Before(f.Start) || f.Frames <= 0 || f.Bytes < 0:
		return f, fmt.Errorf("decode fragment metadata: its times or counts contradict each other")
	}
	return f, nil
}
