package video_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/pmp4"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/fmp4"
	"github.com/weir-edge/weir/video/fragment"
	weirh264 "github.com/weir-edge/weir/video/h264"
	"github.com/weir-edge/weir/video/recording"
)

// sink appends a Builder's parts to a memLog at once.
type sink struct {
	t   *testing.T
	log *memLog
}

func (s *sink) Buffer() []byte { return []byte{} }
func (s *sink) Drop([]byte)    {}

func (s *sink) Put(part fragment.Part) bool {
	var records []buffer.Record
	if len(part.Data) > 0 {
		records = append(records, buffer.Record{PartitionKey: "front", Data: part.Data, Part: buffer.Piece})
	}
	if c := part.Closing; c != nil {
		data, meta, err := fmp4.EncodeClosing(&c.Fragment, c.Parameters, c.Table)
		if err != nil {
			s.t.Fatal(err)
		}
		records = append(records, buffer.Record{PartitionKey: "front", Data: data, Part: buffer.Closing,
			Index: &buffer.Index{Start: c.Fragment.Start, End: c.Fragment.End, Pieces: c.Pieces, Value: meta}})
	}
	if _, err := s.log.Append(s.t.Context(), "front", records...); err != nil {
		s.t.Fatal(err)
	}
	return true
}

// replay puts an MP4 through everything but the socket, without waiting: each
// frame arrives when it is to be decoded. It returns the log and the time of
// the first frame.
func replay(t *testing.T, file string) (*memLog, time.Time) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var movie pmp4.Presentation
	if err := movie.Unmarshal(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	track := movie.Tracks[0]
	sets := track.Codec.(*codecs.H264)
	given, err := weirh264.Parameters(sets.SPS, sets.PPS)
	if err != nil {
		t.Fatal(err)
	}
	log := newMemLog()
	builder := fragment.NewBuilder(fragment.Options{Camera: "front", PieceBytes: buffer.MaxPartBytes}, &sink{t, log}, nil)
	units := weirh264.NewAssembler(builder, given)
	start := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	decoded := int64(0)
	for _, sample := range track.Samples {
		payload, err := sample.GetPayload()
		if err != nil {
			t.Fatal(err)
		}
		var nals h264.AVCC
		if err := nals.Unmarshal(payload); err != nil {
			t.Fatal(err)
		}
		scale := int64(video.ClockRate) / int64(track.TimeScale)
		for j, nal := range nals {
			units.Packet(weirh264.Packet{
				Timestamp: 1<<32 - 90000 + (decoded+int64(sample.PTSOffset-track.Samples[0].PTSOffset))*scale,
				Marker:    j == len(nals)-1, Payload: nal, Arrival: start.Add(video.Ticks(decoded * scale)),
			})
		}
		decoded += int64(sample.Duration)
	}
	units.Flush()
	builder.Close()
	return log, start
}

// TestLongGroupOfPictures records 25 s with one keyframe: it is cut into
// continuations, and a clip from the last of them goes back to the keyframe.
func TestLongGroupOfPictures(t *testing.T) {
	t.Parallel()
	for name, bframes := range map[string]string{"no B-frames": "0", "B-frames": "3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := makeClip(t, "-i", "testsrc2=size=160x128:rate=30:duration=25", "-c:v", "libx264", "-preset", "ultrafast",
				"-g", "1000", "-bf", bframes, "-b_strategy", "0", "-video_track_timescale", "30000")
			all := frames(t, source)
			log, start := replay(t, source)
			if n, _ := log.fragments(); n != 3 {
				t.Fatalf("%d fragments", n)
			}
			c := &camera{log: log, read: log}
			compare(t, all, frames(t, c.clip(t, start, start.Add(time.Minute))))
			list, err := recording.List(t.Context(), log, recording.Span{Camera: "front", From: start, To: start.Add(time.Minute)}, 0)
			if err != nil || len(list) != 1 || list[0].Fragments != 3 || list[0].Missing != 0 || list[0].Frames != 750 {
				t.Fatalf("recordings: %+v, %v", list, err)
			}
			// Only the last fragment, and there a second.
			got := frames(t, c.clip(t, start.Add(23*time.Second+10*time.Millisecond), start.Add(24*time.Second)))
			if len(got) != 30 || got[0].hash != all[690].hash || got[29].hash != all[719].hash {
				t.Errorf("%d frames, not the 30 asked for", len(got))
			}
			// Retention takes the keyframe: what needs it cannot be shown any more.
			log.forget(1)
			for _, from := range []time.Duration{0, 23 * time.Second} {
				err := recording.Clip(t.Context(), io.Discard, log, recording.Span{Camera: "front", From: start.Add(from), To: start.Add(time.Minute)})
				if !errors.Is(err, buffer.ErrNotFound) {
					t.Errorf("a clip from %v without its keyframe: %v", from, err)
				}
			}
		})
	}
}
