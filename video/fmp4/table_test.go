package fmp4

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/pmp4"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-edge/weir/video"
)

var (
	sps  = []byte("\x67\x42\xc0\x0d\xda\x05\x07\xec\x04\x40\x00\x00\x03\x00\x40\x00\x00\x07\x83\xc5\x0a\xa8")
	pps  = []byte("\x68\xce\x0f\xc8")
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
)

// stored encodes and decodes a fragment of samples, a frame every 3000 ticks.
func stored(t testing.TB, start int64, samples ...Sample) *Stored {
	s, err := DecodeClosing(closing(t, start, samples...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closing(t testing.TB, start int64, samples ...Sample) []byte {
	table := NewTable(start)
	f := video.Fragment{Version: 1, Camera: "front", Key: true, MediaStart: start, Codec: "h264", Width: 320, Height: 240, Start: noon}
	for _, s := range samples {
		f.Bytes += table.Add(s)
		f.MediaEnd = max(f.MediaEnd, s.PTS+3000)
	}
	f.End = noon.Add(video.Ticks(f.MediaEnd - start))
	f.Frames = table.Len()
	p := &video.Parameters{Codec: "h264", SPS: [][]byte{sps}, PPS: [][]byte{pps}, Width: 320, Height: 240}
	f.Parameters = p.Reference()
	data, meta, err := EncodeClosing(&f, p, table)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, meta) {
		t.Fatal("the metadata is not in the record")
	}
	return data
}

func collect(s *Stored) []Sample {
	var out []Sample
	for sample := range s.Samples() {
		sample.NALs = slices.Clone(sample.NALs)
		out = append(out, sample)
	}
	return out
}

// TestClosingRoundTrip: what is encoded is decoded, whatever the samples.
func TestClosingRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		start := rapid.Int64Range(-1<<40, 1<<40).Draw(r, "start")
		n := rapid.IntRange(1, 40).Draw(r, "n")
		var samples []Sample
		for i := range n {
			samples = append(samples, Sample{
				PTS: start + int64(rapid.IntRange(0, 1<<20).Draw(r, "pts"))*min(int64(i), 1), Key: rapid.Bool().Draw(r, "key"),
				NALs: rapid.SliceOfN(rapid.Uint32Range(1, 1<<22), 1, 9).Draw(r, "nals"),
			})
		}
		s := stored(t, start, samples...)
		if diff := cmp.Diff(samples, collect(s)); diff != "" {
			r.Fatal(diff)
		}
	})
}

func TestDecodeClosingRefuses(t *testing.T) {
	good := closing(t, 0, Sample{PTS: 0, Key: true, NALs: []uint32{5, 300}}, Sample{PTS: 3000, NALs: []uint32{7}})
	for n := range good {
		if _, err := DecodeClosing(good[:n]); err == nil {
			t.Errorf("the first %d bytes of %d are taken for all", n, len(good))
		}
	}
	for name, bad := range map[string][]byte{
		"more bytes":    append(bytes.Clone(good), 0),
		"a newer one":   bytes.Replace(good, []byte("wvf1"), []byte("wvf2"), 1),
		"newer in JSON": bytes.Replace(good, []byte(`"v":1`), []byte(`"v":2`), 1),
		"more frames":   bytes.Replace(good, []byte(`"frames":2`), []byte(`"frames":3`), 1),
		"more bytes in": bytes.Replace(good, []byte(`"bytes":312`), []byte(`"bytes":313`), 1),
	} {
		if _, err := DecodeClosing(bad); err == nil || !strings.HasPrefix(err.Error(), "decode closing record: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecodeClosing: no record, however damaged, does more than fail; one that
// is accepted can be laid out.
func FuzzDecodeClosing(f *testing.F) {
	f.Add(closing(f, 0, Sample{PTS: 0, Key: true, NALs: []uint32{5, 300}}, Sample{PTS: 6000, NALs: []uint32{7}}, Sample{PTS: 3000, NALs: []uint32{7}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeClosing(data)
		if err != nil {
			return
		}
		if n := len(collect(s)); n != s.Len() || n == 0 {
			t.Fatalf("%d samples of %d", n, s.Len())
		}
		var m Movie
		if _, err := m.Add(s, 0, s.Len()); err != nil {
			return
		}
		if err := m.WriteHeader(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

// TestMovieByAnotherReader lays three fragments out, one with B-frames and one
// with other parameters, and reads the MP4 with mediacommon.
func TestMovieByAnotherReader(t *testing.T) {
	fragments := []*Stored{
		stored(t, 90000, Sample{PTS: 90000, Key: true, NALs: []uint32{2, 3}}, Sample{PTS: 93000, NALs: []uint32{4}}),
		stored(t, 96000, Sample{PTS: 96000, Key: true, NALs: []uint32{5}}, Sample{PTS: 105000, NALs: []uint32{6}},
			Sample{PTS: 99000, NALs: []uint32{7}}, Sample{PTS: 102000, NALs: []uint32{8}}),
		stored(t, 200000, Sample{PTS: 200000, Key: true, NALs: []uint32{9}}),
	}
	var m Movie
	for i, at := range []int64{0, 6000, 110000} {
		if got, err := m.Add(fragments[i], at, fragments[i].Len()); err != nil || got != at {
			t.Fatalf("fragment %d is at %d, not %d: %v", i, got, at, err)
		}
	}
	var out bytes.Buffer
	if err := m.WriteHeader(&out); err != nil {
		t.Fatal(err)
	}
	for i := range fragments {
		pieces := bytes.NewReader(bytes.Repeat([]byte{byte('a' + i)}, 100))
		if err := m.CopySamples(&out, i, pieces); err != nil {
			t.Fatal(err)
		}
	}
	var read pmp4.Presentation
	if err := read.Unmarshal(bytes.NewReader(out.Bytes())); err != nil {
		t.Fatal(err)
	}
	track := read.Tracks[0]
	if codec := track.Codec.(*codecs.H264); !bytes.Equal(codec.SPS, sps) || !bytes.Equal(codec.PPS, pps) {
		t.Errorf("parameters: %x", codec)
	}
	want := []struct {
		delta  uint32
		offset int32
		sync   bool
		size   uint32
	}{
		{3000, 3000, true, 13}, {3000, 3000, false, 8},
		{3000, 3000, true, 9}, {3000, 9000, false, 10}, {3000, 0, false, 11}, {95000, 0, false, 12},
		{3000, 3000, true, 13},
	}
	if len(track.Samples) != len(want) || track.TimeScale != video.ClockRate {
		t.Fatalf("%d samples", len(track.Samples))
	}
	for i, s := range track.Samples {
		w := want[i]
		payload, err := s.GetPayload()
		if err != nil || uint32(len(payload)) != w.size || s.Duration != w.delta || s.PTSOffset != w.offset || s.IsNonSyncSample == w.sync {
			t.Errorf("sample %d: %+v of %d bytes, %v", i, s, len(payload), err)
		}
	}
	first, err := track.Samples[0].GetPayload()
	if err != nil || string(first) != "\x00\x00\x00\x02aa\x00\x00\x00\x03aaa" {
		t.Errorf("the first sample: %q, %v", first, err)
	}
}

func TestCopySamplesNeedsAllBytes(t *testing.T) {
	var m Movie
	if _, err := m.Add(stored(t, 0, Sample{Key: true, NALs: []uint32{9}}), 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := m.CopySamples(io.Discard, 0, strings.NewReader("short")); err == nil {
		t.Error("a fragment whose bytes are not there is copied")
	}
}
