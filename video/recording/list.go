package recording

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
)

// Log is what this package needs of the log.
type Log interface {
	Read(ctx context.Context, stream string, from buffer.Position, limit buffer.Limit) (buffer.Page, error)
	Closings(stream string, shard buffer.ShardID, from, to time.Time, after buffer.Sequence, max int) ([]buffer.Closed, error)
}

// Span is a stretch of time of a camera, From included, To not.
type Span struct {
	Camera   string // and its stream
	From, To time.Time
}

// joinGap: what is missing for less than this does not end a recording.
const joinGap = 10 * time.Second

// closingsPage is how many index entries are taken at a time.
const closingsPage = 500

// Recording is a stretch of a camera's fragments in which nothing is missing
// for longer than ten seconds, and time is one line.
type Recording struct {
	Start     time.Time     `json:"start"`
	End       time.Time     `json:"end"`
	Fragments int           `json:"fragments"`
	Frames    int64         `json:"frames"`
	Bytes     int64         `json:"bytes"` // of the pictures
	Width     int           `json:"width"`
	Height    int           `json:"height"`
	Codec     string        `json:"codec"`
	Clock     string        `json:"clock"` // where the times come from: rtcp or arrival
	Lost      int64         `json:"lost_packets"`
	Missing   time.Duration `json:"missing_ns"`     // of the time between Start and End
	Gaps      []video.Gap   `json:"gaps,omitempty"` // before Start and inside, the first hundred
}

const maxListedGaps = 100

// List returns the recordings of a camera that have fragments in span,
// oldest first, at most max (0: all). The first and the last are whole
// fragments, so they may reach over. It is buffer.ErrNotFound if the camera has
// no stream.
func List(ctx context.Context, log Log, span Span, max int) ([]Recording, error) {
	var out []Recording
	var last video.Fragment
	err := walk(ctx, log, span, func(_ buffer.Closed, f video.Fragment) bool {
		n := len(out)
		joins := n > 0 && f.Epoch == last.Epoch && f.Start.Sub(last.End) < joinGap
		if !joins {
			if max > 0 && n == max {
				return false
			}
			out = append(out, Recording{Start: f.Start, Codec: f.Codec, Clock: string(f.Clock), Width: f.Width, Height: f.Height})
			n++
		} else if missing := f.Start.Sub(last.End); missing > 0 {
			out[n-1].Missing += missing
		}
		r := &out[n-1]
		r.End = f.End
		r.Fragments++
		r.Frames += int64(f.Frames)
		r.Bytes += f.Bytes
		r.Lost += f.Lost
		r.Gaps = append(r.Gaps, f.Gaps[:min(len(f.Gaps), maxListedGaps-len(r.Gaps))]...)
		last = f
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list recordings of camera %s: %w", span.Camera, err)
	}
	return out, nil
}

// walk calls do for each fragment of the camera that overlaps span, in
// the order they were recorded, until it returns false.
func walk(ctx context.Context, log Log, span Span, do func(buffer.Closed, video.Fragment) bool) error {
	var after buffer.Sequence
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The log keeps milliseconds: ask a little wider, then look closely.
		closed, err := log.Closings(span.Camera, 0, span.From.Add(-time.Millisecond), span.To.Add(time.Millisecond), after, closingsPage)
		if err != nil {
			return err
		}
		if len(closed) == 0 {
			return nil
		}
		for _, c := range closed {
			after = c.Last
			f, err := video.DecodeFragment(c.Value)
			if err != nil {
				return fmt.Errorf("fragment at %d: %w", c.Last, err)
			}
			if !f.Start.Before(span.To) || !f.End.After(span.From) {
				continue
			}
			if !do(c, f) {
				return nil
			}
		}
	}
}

// errGone: the log lost the fragment between two looks.
var errGone = errors.New("the fragment is not there any more")
