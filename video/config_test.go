package video_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/video"
)

func TestConfigFaults(t *testing.T) {
	good := video.CameraConfig{Name: "dock", URL: "rtp://0.0.0.0:5004", Codec: "h264"}
	with := func(change func(*video.CameraConfig)) video.CameraConfig {
		c := good
		change(&c)
		return c
	}
	for _, test := range []struct {
		camera video.CameraConfig
		want   string
	}{
		{good, ""},
		{with(func(c *video.CameraConfig) { c.URL, c.Codec = "rtp://[::]:5004", "" }), ""},
		{with(func(c *video.CameraConfig) { c.Allow = []string{"192.0.2.7", "2001:db8::/32"} }), ""},
		{with(func(c *video.CameraConfig) { c.SPS, c.PPS = "Z0LADdoFB+wEQAAAAwBAAAAHg8UKqA==", "68ce0fc8" }), ""},
		{with(func(c *video.CameraConfig) { c.Name = "" }), "name: missing; name the camera, such as front"},
		{with(func(c *video.CameraConfig) { c.Name = "a/b" }), "name: invalid: name \"a/b\" must be"},
		{with(func(c *video.CameraConfig) { c.URL = "" }), "url: missing; use rtp://ADDRESS:PORT"},
		{with(func(c *video.CameraConfig) { c.URL = "rtsp://user:secret@192.0.2.21/stream1" }), "url: rtsp is not supported yet; use rtp://ADDRESS:PORT and let the camera send RTP there"},
		{with(func(c *video.CameraConfig) { c.URL = "whip:" }), "url: whip is not supported yet;"},
		{with(func(c *video.CameraConfig) { c.URL = "user:secret@192.0.2.21" }), "url: user is not supported yet;"},
		{with(func(c *video.CameraConfig) { c.URL = "rtp://user:secret@192.0.2.21:5004" }), "url: this is not rtp://ADDRESS:PORT"},
		{with(func(c *video.CameraConfig) { c.URL = "rtp://front.example:5004" }), `url: "front.example" is not an IP address of this machine; 0.0.0.0 listens on all`},
		{with(func(c *video.CameraConfig) { c.URL = "rtp://239.1.2.3:5004" }), "url: multicast (239.1.2.3) is not supported yet"},
		{with(func(c *video.CameraConfig) { c.URL = "rtp://0.0.0.0" }), "url: the port is missing or not between 0 and 65535; use rtp://ADDRESS:PORT"},
		{with(func(c *video.CameraConfig) { c.URL = "rtp://0.0.0.0:70000" }), "url: the port is missing or not between 0 and 65535"},
		{with(func(c *video.CameraConfig) { c.Codec = "h265" }), `codec: "h265" is not supported yet; h264 is`},
		{with(func(c *video.CameraConfig) { c.Retention = value.Duration(time.Second) }), "retention: 1s is not between 1m and 8760h"},
		{with(func(c *video.CameraConfig) { c.MaxBytes = 9 }), "max_bytes: 9B is too small"},
		{with(func(c *video.CameraConfig) { c.Priority = 10 }), "priority: 10 is not between 0 and 9"},
		{with(func(c *video.CameraConfig) { c.Allow = []string{"10.0.0.0/8", "all"} }), `allow[1]: "all" is not an address or a prefix; write it as 192.0.2.0/24`},
		{with(func(c *video.CameraConfig) { c.SPS = "Z0LADdoFB+wEQAAAAwBAAAAHg8UKqA==" }), "sps: sps and pps belong together; set both or neither"},
		{with(func(c *video.CameraConfig) { c.SPS, c.PPS = "68ce0fc8", "?" }), "sps: this is NAL unit type 8, not 7\npps: this is neither base64 nor hex"},
		{with(func(c *video.CameraConfig) { c.ReorderDelay = value.Duration(time.Minute) }), "reorder_delay: 1m0s is not between 1ms and 2s"},
	} {
		got := ""
		if err := test.camera.Validate(); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%+v:\n%s\nexpected\n%s", test.camera, got, test.want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("a secret is told: %s", got)
		}
	}
	err := video.Config{Cameras: []video.CameraConfig{good, {Name: "dock", URL: "rtp://0.0.0.0:5004", Codec: "x"}}}.Validate()
	want := "cameras[1].codec: \"x\" is not supported yet; h264 is\n" +
		"cameras[1].name: \"dock\" is the name of cameras[0] too\ncameras[1].url: cameras[0] listens on 0.0.0.0:5004 too"
	if err == nil || err.Error() != want {
		t.Errorf("two cameras:\n%v\nexpected\n%s", err, want)
	}
}

func TestAllowedByDefault(t *testing.T) {
	for url, want := range map[string]string{
		"rtp://127.0.0.1:5004": "127.0.0.0/8 ::1/128",
		"rtp://0.0.0.0:5004":   "127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10",
	} {
		prefixes, err := video.CameraConfig{Name: "a", URL: url}.Allowed()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range prefixes {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}

func TestWallAndMediaAreInverse(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := video.Fragment{MediaStart: 1 << 40, MediaEnd: 1<<40 + 900000, Start: start, End: start.Add(10*time.Second + 4*time.Millisecond)}
	for media := f.MediaStart; media <= f.MediaEnd; media += 997 {
		if got := f.Media(f.Wall(media)); got != media {
			t.Fatalf("%d becomes %d", media, got)
		}
	}
	if !f.Wall(f.MediaEnd).Equal(f.End) || !f.Wall(f.MediaStart).Equal(f.Start) {
		t.Errorf("from %v to %v", f.Wall(f.MediaStart), f.Wall(f.MediaEnd))
	}
}
