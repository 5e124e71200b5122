package video_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/receiver"
	"github.com/weir-edge/weir/video/recording"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ffmpeg runs ffmpeg or ffprobe and returns what it printed. Warnings are an
// error.
func ffmpeg(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: apt-get install ffmpeg", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	var out, warnings bytes.Buffer
	command.Stdout, command.Stderr = &out, &warnings
	err := command.Run()
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, warnings.String())
	}
	return out.String()
}

// makeClip encodes a test picture. args say how.
func makeClip(t *testing.T, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "source.mp4")
	ffmpeg(t, "ffmpeg", append(append([]string{"-v", "warning", "-y", "-f", "lavfi"}, args...), "-pix_fmt", "yuv420p", file)...)
	return file
}

// frame is a decoded picture: when it is shown, and its hash.
type frame struct{ pts, hash string }

// frames decodes file and returns what it shows. Times are relative to the
// first one.
func frames(t *testing.T, file string) []frame {
	t.Helper()
	out := ffmpeg(t, "ffmpeg", "-v", "warning", "-i", file, "-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "framemd5", "-")
	var list []frame
	var first int64
	for line := range strings.Lines(out) {
		field := strings.Split(line, ",")
		if strings.HasPrefix(line, "#") || len(field) < 6 {
			continue
		}
		var pts int64
		if _, err := fmt.Sscan(field[2], &pts); err != nil {
			t.Fatalf("line of framemd5 %q: %v", line, err)
		}
		if len(list) == 0 {
			first = pts
		}
		list = append(list, frame{fmt.Sprint(pts - first), strings.TrimSpace(field[5])})
	}
	return list
}

// camera runs a receiver; stop ends it and waits.
type camera struct {
	*receiver.Receiver
	log  *memLog // where it records, unless the test gave another
	read recording.Log
	addr string
	stop func()
}

// store is a log to record into and to read from.
type store interface {
	receiver.Appender
	recording.Log
}

func startCamera(t *testing.T, config video.CameraConfig) *camera {
	t.Helper()
	log := newMemLog()
	c := startCameraOn(t, config, log)
	c.log = log
	return c
}

func startCameraOn(t *testing.T, config video.CameraConfig, log store) *camera {
	t.Helper()
	config.Name = "front"
	if config.URL == "" {
		config.URL = "rtp://127.0.0.1:0"
	}
	r, err := receiver.New(config, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	c := &camera{Receiver: r, read: log, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}}
	t.Cleanup(c.stop)
	address, err := r.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.addr = address.String()
	return c
}

// clip cuts [from, to) into a file.
func (c *camera) clip(t *testing.T, from, to time.Time) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clip.mp4")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := recording.Clip(t.Context(), out, c.read, recording.Span{Camera: "front", From: from, To: to}); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// parameterSets returns SPS and PPS of a file in base64, from the SDP that
// ffmpeg would hand to a player.
func parameterSets(t *testing.T, file string) (sps, pps string) {
	t.Helper()
	sdp := filepath.Join(t.TempDir(), "session.sdp")
	ffmpeg(t, "ffmpeg", "-v", "error", "-i", file, "-an", "-c", "copy", "-t", "0.1", "-f", "rtp", "-sdp_file", sdp, "rtp://127.0.0.1:9")
	text, err := os.ReadFile(sdp)
	if err != nil {
		t.Fatal(err)
	}
	_, sets, _ := strings.Cut(string(text), "sprop-parameter-sets=")
	sets, _, _ = strings.Cut(sets, ";")
	sps, pps, ok := strings.Cut(sets, ",")
	if !ok {
		t.Fatalf("no parameter sets in %s", text)
	}
	return sps, pps
}

// send plays file to the camera with ffmpeg, in real time.
func send(t *testing.T, c *camera, file string, filter string) {
	t.Helper()
	args := []string{"-v", "error", "-re", "-i", file, "-an", "-c", "copy"}
	if filter != "" {
		args = append(args, "-bsf:v", filter)
	}
	ffmpeg(t, "ffmpeg", append(args, "-f", "rtp", "rtp://"+c.addr)...)
}

var wholeDay = 24 * time.Hour

// TestClipIsWhatWasSent plays files with a real ffmpeg as a camera would, cuts a
// clip of all of it, and compares every frame and its time with the source.
func TestClipIsWhatWasSent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		encode []string
		filter string
		given  bool // parameter sets from the configuration
	}{
		"in band": {
			encode: []string{"-i", "testsrc=size=320x240:rate=25:duration=3", "-c:v", "libx264", "-g", "25", "-bf", "0"},
			filter: "h264_mp4toannexb",
		},
		"parameter sets from the configuration": {
			encode: []string{"-i", "testsrc=size=320x240:rate=30:duration=3", "-c:v", "libx264", "-g", "15", "-bf", "0"},
			given:  true,
		},
		"B-frames": {
			encode: []string{"-i", "testsrc2=size=320x240:rate=30:duration=3", "-c:v", "libx264", "-g", "30", "-bf", "3", "-b_strategy", "0", "-x264-params", "b-pyramid=strict"},
			filter: "h264_mp4toannexb",
		},
		"large frames, one keyframe": {
			encode: []string{"-i", "nullsrc=size=480x360:rate=10:duration=3,geq=random(1)*255:128:128", "-c:v", "libx264", "-qp", "18", "-preset", "ultrafast", "-g", "1000"},
			filter: "h264_mp4toannexb",
		},
		"a slice for each row": {
			encode: []string{"-i", "testsrc=size=320x240:rate=25:duration=2", "-c:v", "libx264", "-g", "25", "-x264-params", "slices=15:aud=1"},
			filter: "h264_mp4toannexb",
		},
		"interlaced": {
			encode: []string{"-i", "testsrc=size=320x240:rate=25:duration=2", "-c:v", "libx264", "-g", "25", "-flags", "+ildct+ilme", "-bf", "2", "-x264-params", "weightp=0"},
			filter: "h264_mp4toannexb",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := makeClip(t, test.encode...)
			var config video.CameraConfig
			if test.given {
				config.SPS, config.PPS = parameterSets(t, source)
			}
			c := startCamera(t, config)
			begin := time.Now()
			send(t, c, source, test.filter)
			c.stop()
			clip := c.clip(t, begin.Add(-wholeDay), begin.Add(wholeDay))
			compare(t, frames(t, source), frames(t, clip))
			if out := ffmpeg(t, "ffprobe", "-v", "warning", "-show_streams", "-count_packets", clip); !strings.Contains(out, "codec_name=h264") {
				t.Errorf("ffprobe: %s", out)
			}
			if s := c.Stats(); s.LostPackets > 0 || s.BadPackets > 0 || s.DroppedFrames > 0 || s.Frames == 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}

func compare(t *testing.T, want, got []frame) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%d frames of %d", len(got), len(want))
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("frame %d is %v, was %v", i, got[i], want[i])
		}
	}
}
