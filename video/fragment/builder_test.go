package fragment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/video"
)

var (
	noon   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	params = &video.Parameters{Codec: "h264", SPS: [][]byte{{0x67, 1, 2, 3}}, PPS: [][]byte{{0x68, 1}}, Width: 320, Height: 240}
)

// shelf takes parts; buffers is how many it lends.
type shelf struct {
	buffers int
	lent    int
	refuse  bool
	pieces  []Part
	closed  []*Closing
}

func (s *shelf) Buffer() []byte {
	if s.lent >= s.buffers {
		return nil
	}
	s.lent++
	return []byte{}
}

func (s *shelf) Drop([]byte) { s.lent-- }

func (s *shelf) Put(p Part) bool {
	s.lent--
	if s.refuse {
		return false
	}
	if len(p.Data) > 0 {
		s.pieces = append(s.pieces, p)
	}
	if p.Closing != nil {
		s.closed = append(s.closed, p.Closing)
	}
	return true
}

// rig is a Builder with a camera of 10 frames a second.
type rig struct {
	*Builder
	shelf   shelf
	pts     int64
	arrival time.Time
	sender  time.Duration // the sender's clock is this much off; 0: it has none
}

func newRig() *rig {
	r := &rig{shelf: shelf{buffers: 3}, arrival: noon, pts: 1000}
	r.Builder = NewBuilder(Options{Camera: "front", PieceBytes: 100}, &r.shelf, nil)
	return r
}

// frames sends one frame of 10 bytes for each letter: I, P, or x for one that
// breaks off.
func (r *rig) frames(kinds string) {
	for _, kind := range kinds {
		r.frame(kind == 'I', r.pts, 10, kind != 'x')
		r.pts += 9000
		r.arrival = r.arrival.Add(100 * time.Millisecond)
	}
}

func (r *rig) frame(key bool, pts int64, size int, whole bool) {
	u := video.AccessUnit{PTS: pts, Keyframe: key, Arrival: r.arrival, Parameters: params}
	if r.sender != 0 {
		u.Sender = r.arrival.Add(r.sender)
	}
	if !r.Begin(u) {
		return
	}
	r.Data(make([]byte, size))
	if whole {
		r.End([]uint32{uint32(size)})
	} else {
		r.Abort()
	}
}

// expect compares the fragments: "I3" is one with a keyframe and 3 frames, "+2"
// a continuation; gaps before it in brackets.
func (r *rig) expect(t *testing.T, want string) {
	t.Helper()
	var list []string
	for _, c := range r.shelf.closed {
		f := &c.Fragment
		text := fmt.Sprintf("I%d", f.Frames)
		if !f.Key {
			text = fmt.Sprintf("+%d", f.Frames)
		}
		for _, g := range f.Gaps {
			text += fmt.Sprintf("[%s %dp %df]", g.Cause, g.Packets, g.Frames)
		}
		list = append(list, text)
	}
	if got := strings.Join(list, " "); got != want {
		t.Errorf("fragments: %s\nexpected:  %s", got, want)
	}
	var last *video.Fragment
	for _, c := range r.shelf.closed {
		f := &c.Fragment
		if !f.End.After(f.Start) || f.MediaEnd <= f.MediaStart {
			t.Errorf("a fragment from %v to %v", f.Start, f.End)
		}
		if last != nil && last.Epoch == f.Epoch && (f.Start.Before(last.End) || f.MediaStart < last.MediaEnd) {
			t.Errorf("%v overlaps %v", f.Start, last.End)
		}
		last = f
	}
	if r.shelf.lent != 0 {
		t.Errorf("%d buffers are kept", r.shelf.lent)
	}
}

func TestFragmentsBeginAtKeyframes(t *testing.T) {
	r := newRig()
	r.frames("PPIPPPIPPI")
	r.Close()
	r.expect(t, "I4[start 0p 2f] I3 I1")
	for i, c := range r.shelf.closed {
		f := &c.Fragment
		if f.Number != uint64(i) || f.Epoch != r.shelf.closed[0].Fragment.Epoch || i > 0 && !f.Follows(&r.shelf.closed[i-1].Fragment) {
			t.Errorf("fragment %d: %+v", i, f)
		}
		if i > 0 && !f.Start.Equal(r.shelf.closed[i-1].Fragment.End) {
			t.Errorf("fragment %d starts at %v, the one before ends at %v", i, f.Start, r.shelf.closed[i-1].Fragment.End)
		}
	}
	if f := r.shelf.closed[0].Fragment; !f.Start.Equal(noon.Add(200*time.Millisecond)) || f.MediaStart != 1000+18000 || f.MediaEnd != f.MediaStart+36000 {
		t.Errorf("the first: %+v", f)
	}
}

func TestLossDropsToTheNextKeyframe(t *testing.T) {
	r := newRig()
	r.frames("IPPx")
	r.Break(video.CauseLoss, 3)
	r.frames("PPIP")
	r.Close()
	r.expect(t, "I3[start 0p 0f] I2[rtp-loss 3p 2f]")
	a, b := r.shelf.closed[0].Fragment, r.shelf.closed[1].Fragment
	if gap := b.Gaps[0]; !gap.From.Equal(a.End) || !gap.To.Equal(b.Start) || b.Start.Sub(a.Start) != 600*time.Millisecond || a.Epoch != b.Epoch {
		t.Errorf("gap %+v between %+v and %+v", gap, a, b)
	}
	if s := r.Stats(); s.Frames != 5 || s.Dropped != 3 {
		t.Errorf("stats: %+v", s)
	}
}

func TestLongGroupsAreContinued(t *testing.T) {
	r := newRig()
	r.frames("I" + strings.Repeat("P", 249) + "I")
	r.Close()
	r.expect(t, "I101[start 0p 0f] +101 +48 I1")
	for _, c := range r.shelf.closed[1:3] {
		if !c.Fragment.KeyStart.Equal(noon) {
			t.Errorf("key start: %v", c.Fragment.KeyStart)
		}
	}
}

func TestContinuationsDoNotTearBFramesApart(t *testing.T) {
	r := newRig()
	r.frame(true, 0, 10, true)
	// I P b b P b b …: the P is shown after the two that follow it.
	for n := int64(1); n < 150; n += 3 {
		for _, offset := range []int64{2, 0, 1} {
			r.arrival = noon.Add(video.Ticks((n + offset) * 9000))
			r.frame(false, (n+offset)*9000, 10, true)
		}
	}
	r.Close()
	if n := len(r.shelf.closed); n != 2 {
		t.Fatalf("%d fragments", n)
	}
	a, b := r.shelf.closed[0].Fragment, r.shelf.closed[1].Fragment
	if a.MediaEnd != b.MediaStart || !a.End.Equal(b.Start) || a.Frames%3 != 1 || b.Frames%3 != 0 {
		t.Errorf("cut between %+v and %+v", a, b)
	}
}

func TestSilenceClosesAndContinues(t *testing.T) {
	r := newRig()
	r.frames("IP")
	r.Close()
	r.Close()
	r.frames("PP")
	r.Close()
	r.expect(t, "I2[start 0p 0f] +2")
	if !r.shelf.closed[1].Fragment.Follows(&r.shelf.closed[0].Fragment) {
		t.Error("the continuation does not follow")
	}
}

func TestPiecesAreBounded(t *testing.T) {
	r := newRig()
	r.shelf.buffers = 1
	r.frame(true, 0, 250, true)
	r.frame(false, 9000, 60, true)
	r.frame(false, 18000, 240, false) // shipped in part before it broke off
	r.Break(video.CauseLoss, 1)
	sizes := ""
	for _, p := range r.shelf.pieces {
		sizes += fmt.Sprint(len(p.Data), " ")
	}
	if sizes != "100 100 100 100 100 " {
		t.Errorf("pieces of %s", sizes)
	}
	c := r.shelf.closed[0]
	if c.Fragment.Frames != 2 || c.Fragment.Bytes != 310 || c.Pieces != 5 {
		t.Errorf("closing: %+v", c)
	}
}

func TestNoMemoryDropsTheGroup(t *testing.T) {
	r := newRig()
	r.frames("IP")
	r.shelf.buffers = 0 // the log is stuck
	r.frame(false, r.pts, 200, true)
	r.frames("P")
	r.shelf.buffers = 3
	r.frames("PIP")
	r.Close()
	r.expect(t, "I2[backpressure 0p 5f]")
	if s := r.Stats(); s.Frames != 2 || s.Dropped != 5 {
		t.Errorf("stats: %+v", s)
	}
}

func TestFullQueueDropsTheGroup(t *testing.T) {
	r := newRig()
	r.frames("IPI")
	r.shelf.refuse = true
	r.frames("P")
	r.Close()
	r.shelf.refuse = false
	r.frames("PIP")
	r.Close()
	r.expect(t, "I2[start 0p 0f] I2[backpressure 0p 3f]")
}

func TestTimestampLeap(t *testing.T) {
	r := newRig()
	r.frames("IP")
	r.pts += 3600 * video.ClockRate
	r.frames("PIP")
	r.Close()
	r.expect(t, "I2[start 0p 0f] I2[timestamp-jump 0p 1f]")
	a, b := r.shelf.closed[0].Fragment, r.shelf.closed[1].Fragment
	if a.Epoch == b.Epoch || b.Start.Sub(a.Start) != 300*time.Millisecond {
		t.Errorf("%+v and %+v", a, b)
	}
}

func TestClockStepBeginsAnEpoch(t *testing.T) {
	r := newRig()
	r.frames("IPIP")
	// The wall clock is set an hour forward: media time goes on, and a monotonic
	// clock does not see it; arrival in the test has none, so it goes in steps.
	for range 600 {
		r.arrival = r.arrival.Add(6 * time.Second)
		r.frame(false, r.pts, 10, true)
		r.pts += 9000
	}
	r.frames("IP")
	r.Close()
	first, last := r.shelf.closed[0].Fragment, r.shelf.closed[len(r.shelf.closed)-1].Fragment
	if last.Epoch == first.Epoch || len(last.Gaps) != 1 || last.Gaps[0].Cause != video.CauseClockStep || last.Gaps[0].Frames != 0 {
		t.Errorf("the last: %+v", last)
	}
	if off := last.Start.Sub(r.arrival); off < -time.Second || off > time.Second {
		t.Errorf("it starts %v off", off)
	}
}

// TestDriftIsSlewed: a camera whose clock is 100 ppm fast stays within a few
// milliseconds of wall time, and no fragment overlaps another.
func TestDriftIsSlewed(t *testing.T) {
	r := newRig()
	for n := range 36000 {
		r.arrival = noon.Add(video.Ticks(int64(n) * 9000))
		r.frame(n%10 == 0, int64(float64(n)*9000*1.0001), 10, true)
	}
	r.Close()
	var last video.Fragment
	for i, c := range r.shelf.closed {
		f := c.Fragment
		if want := noon.Add(time.Duration(i) * time.Second); f.Start.Sub(want).Abs() > 5*time.Millisecond {
			t.Fatalf("fragment %d starts %v off", i, f.Start.Sub(want))
		}
		if i > 0 && !f.Start.Equal(last.End) {
			t.Fatalf("fragment %d starts at %v, the one before ends at %v", i, f.Start, last.End)
		}
		last = f
	}
}

func TestTheSendersClock(t *testing.T) {
	for off, want := range map[time.Duration]video.ClockSource{
		-time.Second: video.ClockRTCP, 5 * time.Second: video.ClockRTCP, time.Hour: video.ClockArrival, -30 * 365 * 24 * time.Hour: video.ClockArrival,
	} {
		r := newRig()
		r.sender = off
		r.frames("IP")
		r.Close()
		f := r.shelf.closed[0].Fragment
		start := noon
		if want == video.ClockRTCP {
			start = noon.Add(off)
		}
		if f.Clock != want || !f.Start.Equal(start) {
			t.Errorf("%v off: %v by %s", off, f.Start, f.Clock)
		}
	}
}

func TestNoParametersNoFragment(t *testing.T) {
	r := newRig()
	if r.Begin(video.AccessUnit{Keyframe: true, PTS: 1, Arrival: noon}) {
		t.Error("a unit without parameters is taken")
	}
	if cause, waiting := r.Waiting(); !waiting || cause != video.CauseNoParameters {
		t.Errorf("waiting for %q, %v", cause, waiting)
	}
	r.frames("IP")
	r.Close()
	r.expect(t, "I2[no-parameters 0p 1f]")
}
