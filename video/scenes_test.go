package video_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/receiver"
	"github.com/weir-edge/weir/video/recording"
	"github.com/weir-edge/weir/video/rtpsend"
)

// TestParametersChange sends a stream whose picture size changes on the way.
func TestParametersChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var joined []byte
	for i, size := range []string{"320x240", "160x128", "320x240"} {
		file := filepath.Join(dir, fmt.Sprint(i, ".h264"))
		ffmpeg(t, "ffmpeg", "-v", "warning", "-f", "lavfi", "-i", "testsrc=rate=25:duration=1:size="+size, "-c:v", "libx264", "-bf", "0",
			"-pix_fmt", "yuv420p", file)
		part, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		joined = append(joined, part...)
	}
	raw, source := filepath.Join(dir, "joined.h264"), filepath.Join(dir, "source.ts")
	if err := os.WriteFile(raw, joined, 0o600); err != nil {
		t.Fatal(err)
	}
	ffmpeg(t, "ffmpeg", "-v", "error", "-framerate", "25", "-i", raw, "-c", "copy", source)
	c := startCamera(t, video.CameraConfig{})
	begin := time.Now()
	send(t, c, source, "")
	c.stop()
	clip := c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay))
	compare(t, frames(t, source), frames(t, clip))
	if s := c.Stats(); s.Fragments != 3 || s.DroppedFrames != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// play sends an MP4 with our own sender, once.
func play(t *testing.T, c *camera, file string) {
	t.Helper()
	clip, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&rtpsend.Sender{Clip: clip, Addr: c.addr, Once: true}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestCut cuts in the middle of groups of pictures: the clip begins with the
// frame that was to be seen then, and ends before the end.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, encode := range map[string][]string{
		"no B-frames": {"-i", "testsrc=size=320x240:rate=25:duration=4", "-c:v", "libx264", "-g", "25", "-bf", "0"},
		"B-frames":    {"-i", "testsrc2=size=320x240:rate=25:duration=4", "-c:v", "libx264", "-g", "25", "-bf", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := makeClip(t, encode...)
			c := startCamera(t, video.CameraConfig{})
			send(t, c, source, "h264_mp4toannexb")
			c.stop()
			list, err := recording.List(t.Context(), c.log, recording.Span{Camera: "front", From: time.Time{}, To: time.Now().Add(wholeDay)}, 0)
			if err != nil || len(list) != 1 || list[0].Frames != 100 {
				t.Fatalf("recordings: %+v, %v", list, err)
			}
			start := list[0].Start
			all := frames(t, source)
			for _, cut := range []struct{ from, to, first, last int }{
				{0, 4000, 0, 99}, {10, 3999, 0, 99}, {500, 2990, 12, 74}, {1010, 1990, 25, 49}, {1010, 2010, 25, 50}, {1110, 1130, 27, 28}, {3980, 9000, 99, 99},
			} {
				from, to := start.Add(time.Duration(cut.from)*time.Millisecond), start.Add(time.Duration(cut.to)*time.Millisecond)
				got := frames(t, c.clip(t, from, to))
				want := all[cut.first : cut.last+1]
				if len(got) != len(want) {
					t.Errorf("cut %v has %d frames, not %d", cut, len(got), len(want))
					continue
				}
				for i := range want {
					if got[i].hash != want[i].hash {
						t.Errorf("cut %v: frame %d is not frame %d of the source", cut, i, cut.first+i)
						break
					}
				}
			}
			var nothing bytes.Buffer
			err = recording.Clip(t.Context(), &nothing, c.log, recording.Span{Camera: "front", From: start.Add(-time.Hour), To: start})
			if !errors.Is(err, buffer.ErrNotFound) || nothing.Len() > 0 {
				t.Errorf("a clip of nothing: %v, %d bytes", err, nothing.Len())
			}
		})
	}
}

// TestSender plays with our own sender; twice, so that the sender's restart and
// its reports are seen.
func TestSender(t *testing.T) {
	t.Parallel()
	source := makeClip(t, "-i", "testsrc=size=320x240:rate=25:duration=1", "-c:v", "libx264", "-g", "10", "-bf", "0")
	c := startCamera(t, video.CameraConfig{})
	begin := time.Now()
	play(t, c, source)
	// Its BYE comes over a port of its own and may be read after the next
	// sender's first packets; silence is what frees the place for certain.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(c.Stats().LastPacket) < 3*time.Second {
		<-tick.C
	}
	play(t, c, source)
	c.stop()
	once := frames(t, source)
	got := frames(t, c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay)))
	if len(got) != 2*len(once) {
		t.Fatalf("%d frames of %d: %+v", len(got), 2*len(once), c.Stats())
	}
	for i := range got {
		if got[i].hash != once[i%len(once)].hash {
			t.Fatalf("frame %d is another one", i)
		}
	}
	list, err := recording.List(t.Context(), c.log, recording.Span{Camera: "front", From: time.Time{}, To: begin.Add(wholeDay)}, 0)
	if err != nil || len(list) != 2 || len(list[1].Gaps) != 1 || list[1].Gaps[0].Cause != video.CauseRestart {
		t.Errorf("recordings: %+v, %v", list, err)
	}
	if s := c.Stats(); s.Restarts != 1 || s.Reports < 2 {
		t.Errorf("stats: %+v", s)
	}
	for _, r := range list {
		if r.Clock != "rtcp" && r.Clock != "arrival" || r.Start.Before(begin.Add(-time.Second)) || r.End.After(time.Now().Add(time.Second)) {
			t.Errorf("recording %+v is not of this time", r)
		}
	}
}

// TestDemoClipLoops plays the demo's clip for a while, as the demo does.
func TestDemoClipLoops(t *testing.T) {
	t.Parallel()
	c := startCamera(t, video.CameraConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&rtpsend.Sender{Clip: rtpsend.DemoClip(), Addr: c.addr}).Run(ctx) }()
	deadline := time.After(20 * time.Second)
	for {
		n, news := c.log.fragments()
		if n >= 3 {
			break
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatal("three fragments did not come in 20 s")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.stop()
	if s := c.Stats(); s.Frames < 45 || s.DroppedFrames > 0 || s.BadPackets > 0 {
		t.Errorf("stats: %+v", s)
	}
}

// TestGarbage floods the port while a camera sends: it costs counters.
func TestGarbage(t *testing.T) {
	t.Parallel()
	source := makeClip(t, "-i", "testsrc=size=320x240:rate=25:duration=2", "-c:v", "libx264", "-g", "25", "-bf", "0")
	c := startCamera(t, video.CameraConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan int)
	go func() { flooded <- flood(ctx, c.addr) }()
	begin := time.Now()
	play(t, c, source)
	cancel()
	sent := <-flooded
	c.stop()
	s := c.Stats()
	if s.BadPackets < 100 || sent < 100 {
		t.Errorf("%d datagrams of garbage sent, %d counted", sent, s.BadPackets)
	}
	if s.Frames != 50 || s.DroppedFrames > 0 || s.AppendErrors > 0 {
		t.Errorf("stats: %+v", s)
	}
	compare(t, frames(t, source), frames(t, c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay))))
}

// flood sends what looks like RTP, RTCP and nothing at all, 20 at a time.
func flood(ctx context.Context, addr string) int {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return 0
	}
	defer conn.Close()
	random := rand.New(rand.NewPCG(1, 2))
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	sent := 0
	for {
		select {
		case <-ctx.Done():
			return sent
		case <-ticker.C:
		}
		for range 20 {
			raw := make([]byte, random.IntN(1500)+1)
			for i := range raw {
				raw[i] = byte(random.Uint32())
			}
			if random.IntN(2) == 0 {
				raw[0] = 0x80
			}
			if _, err := conn.Write(raw); err == nil {
				sent++
			}
		}
	}
}

// TestNotAllowed: whoever is not on the list is not heard.
func TestNotAllowed(t *testing.T) {
	t.Parallel()
	source := makeClip(t, "-i", "testsrc=size=160x128:rate=25:duration=0.4", "-c:v", "libx264", "-bf", "0")
	c := startCamera(t, video.CameraConfig{Allow: []string{"192.0.2.0/24"}})
	play(t, c, source)
	c.stop()
	if s := c.Stats(); s.Refused < 10 || s.Packets != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// TestLogFull: the log refuses one append; the group of pictures it belongs to
// is dropped whole, and the next fragment says so.
func TestLogFull(t *testing.T) {
	t.Parallel()
	source := makeClip(t, "-i", "testsrc=size=320x240:rate=25:duration=2", "-c:v", "libx264", "-g", "10", "-bf", "0")
	c := startCamera(t, video.CameraConfig{})
	appends := 0
	c.log.refuse(func([]buffer.Record) error {
		if appends++; appends == 3 {
			return fmt.Errorf("append: %w", buffer.ErrFull)
		}
		return nil
	})
	begin := time.Now()
	play(t, c, source)
	c.stop()
	s := c.Stats()
	if s.Frames != 40 || s.DroppedFrames != 10 || s.Fragments != 4 || s.LostFragments != 1 || s.AppendErrors != 1 {
		t.Errorf("stats: %+v", s)
	}
	all := frames(t, source)
	got := frames(t, c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay)))
	compare(t, append(append([]frame{}, all[:20]...), all[30:]...), got)
	list, err := recording.List(t.Context(), c.log, recording.Span{Camera: "front", From: time.Time{}, To: begin.Add(wholeDay)}, 0)
	if err != nil || len(list) != 1 || len(list[0].Gaps) != 2 || list[0].Missing.Round(10*time.Millisecond) != 400*time.Millisecond {
		t.Fatalf("recordings: %+v, %v", list, err)
	}
	if g := list[0].Gaps[1]; g.Cause != video.CauseLogFull || g.Frames != 10 || g.To.Sub(g.From).Round(10*time.Millisecond) != 400*time.Millisecond {
		t.Errorf("gap: %+v", g)
	}
}

// TestNoParameters: without SPS and PPS nothing is recorded, and the status says
// why.
func TestNoParameters(t *testing.T) {
	t.Parallel()
	source := makeClip(t, "-i", "testsrc=size=160x128:rate=25:duration=0.4", "-c:v", "libx264", "-bf", "0")
	c := startCamera(t, video.CameraConfig{})
	send(t, c, source, "")
	c.stop()
	if s := c.Stats(); s.Waiting != string(video.CauseNoParameters) || s.Frames != 0 || s.DroppedFrames != 10 {
		t.Errorf("stats: %+v", s)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	c := startCamera(t, video.CameraConfig{})
	r, err := receiver.New(video.CameraConfig{Name: "other", URL: "rtp://" + c.addr}, c.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for camera other") {
		t.Errorf("a port that is taken: %v", err)
	}
}
