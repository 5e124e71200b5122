package video_test

import (
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/recording"
)

// TestThroughTheLogOnDisk records into a log on disk, opens it again and cuts
// a clip from what is there.
func TestThroughTheLogOnDisk(t *testing.T) {
	t.Parallel()
	config := buffer.DefaultConfig()
	config.Dir = t.TempDir()
	streams := map[string]buffer.StreamConfig{"front": video.CameraConfig{Name: "front"}.StreamConfig()}
	open := func() *buffer.Log {
		log, err := buffer.Open(t.Context(), config, buffer.Options{Streams: streams})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	source := makeClip(t, "-i", "testsrc2=size=640x480:rate=25:duration=3", "-c:v", "libx264", "-g", "30", "-bf", "2", "-qp", "12")
	log := open()
	c := startCameraOn(t, video.CameraConfig{}, log)
	begin := time.Now()
	send(t, c, source, "h264_mp4toannexb")
	c.stop()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.FragmentBytes < 3*buffer.MaxPartBytes || s.Fragments != 3 || s.DroppedFrames > 0 {
		t.Errorf("stats: %+v", s)
	}
	log = open()
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	c.read = log
	list, err := recording.List(t.Context(), log, recording.Span{Camera: "front", From: begin.Add(-time.Minute), To: begin.Add(time.Minute)}, 0)
	if err != nil || len(list) != 1 || list[0].Frames != 75 || list[0].Start.Before(begin) || list[0].End.After(time.Now()) {
		t.Errorf("recordings: %+v, %v", list, err)
	}
	compare(t, frames(t, source), frames(t, c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay))))
}
