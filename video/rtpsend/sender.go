// Package rtpsend plays an H.264 MP4 as a camera would: as RTP over UDP, in real
// time, in a loop, with RTCP sender reports. `weir demo` uses it, and tests.
//
// Sender is the type; DemoClip is a small clip of our own to play. It is not a
// way out of weir: what the log holds is not sent with it.
package rtpsend

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/pmp4"
	"github.com/pion/rtcp"
	pion "github.com/pion/rtp"
	pioncodecs "github.com/pion/rtp/codecs"

	"github.com/weir-edge/weir/video"
)

//go:embed demo.mp4
var demoClip string

// DemoClip returns the demo's clip, an MP4; README.md says how it was made.
func DemoClip() []byte { return []byte(demoClip) }

const (
	payloadType    = 96
	mtu            = 1400
	reportInterval = 5 * time.Second
	maxClipBytes   = 64 << 20
)

// Sender plays a clip to an address.
type Sender struct {
	// Clip is an MP4 with one H.264 track without B-frames.
	Clip []byte
	// Addr is where the receiver listens for RTP, as 127.0.0.1:5004; reports go
	// to the next port.
	Addr string
	// Once plays the clip one time only. Default: in a loop until ctx is done.
	Once bool
}

// unit is a frame of the clip, in Annex B.
type unit struct {
	data     []byte
	duration uint32 // ticks
}

// Run sends until ctx is done, or once. It returns nil then, and an error if the
// clip cannot be played or the socket cannot be made. A receiver that is not
// there is no error: UDP does not know.
func (s *Sender) Run(ctx context.Context) error {
	units, err := parse(s.Clip)
	if err != nil {
		return fmt.Errorf("play clip: %w", err)
	}
	to, err := netip.ParseAddrPort(s.Addr)
	if err != nil {
		return fmt.Errorf("play clip: %w", err)
	}
	media, err := dial(to)
	if err != nil {
		return fmt.Errorf("play clip: %w", err)
	}
	reports, err := dial(netip.AddrPortFrom(to.Addr(), to.Port()+1))
	if err != nil {
		return errors.Join(fmt.Errorf("play clip: %w", err), media.Close())
	}
	p := &player{media: media, reports: reports, ssrc: rand.Uint32()}
	p.packets = pion.NewPacketizer(mtu, payloadType, p.ssrc, &pioncodecs.H264Payloader{},
		pion.NewRandomSequencer(), video.ClockRate)
	p.play(ctx, units, s.Once)
	return errors.Join(media.Close(), reports.Close())
}

func dial(to netip.AddrPort) (*net.UDPConn, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
}

// player sends in real time.
type player struct {
	media, reports *net.UDPConn
	packets        pion.Packetizer
	ssrc           uint32
	sent, octets   uint32
	timestamp      uint32 // of the packets sent last
}

func (p *player) play(ctx context.Context, units []unit, once bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	var reported time.Time
	for i := 0; ; i = (i + 1) % len(units) {
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			p.goodbye()
			return
		case <-timer.C:
		}
		p.send(units[i])
		if now := time.Now(); now.Sub(reported) >= reportInterval {
			p.report(now)
			reported = now
		}
		next = next.Add(video.Ticks(int64(units[i].duration)))
		if behind := time.Since(next); behind > time.Second {
			next = next.Add(behind) // the machine slept; do not hurry after it
		}
		if once && i == len(units)-1 {
			p.goodbye()
			return
		}
	}
}

// send sends one frame. Errors of UDP (nobody listens yet) are the receiver's
// affair: a camera does not see them either.
func (p *player) send(u unit) {
	for _, packet := range p.packets.Packetize(u.data, u.duration) {
		p.timestamp = packet.Timestamp
		raw, err := packet.Marshal()
		if err != nil {
			continue
		}
		if _, err := p.media.Write(raw); err == nil {
			p.sent++
			p.octets += uint32(len(packet.Payload))
		}
	}
}

// report tells the receiver the wall time of the frame sent last.
func (p *player) report(now time.Time) {
	p.rtcp(&rtcp.SenderReport{SSRC: p.ssrc, NTPTime: ntp(now), RTPTime: p.timestamp, PacketCount: p.sent, OctetCount: p.octets},
		&rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{Source: p.ssrc,
			Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "weir"}}}}})
}

func (p *player) goodbye() {
	p.rtcp(&rtcp.ReceiverReport{SSRC: p.ssrc}, &rtcp.Goodbye{Sources: []uint32{p.ssrc}})
}

func (p *player) rtcp(packets ...rtcp.Packet) {
	if raw, err := rtcp.Marshal(packets); err == nil {
		_, _ = p.reports.Write(raw) // see send
	}
}

func ntp(t time.Time) uint64 {
	const epoch = 2208988800 // seconds from 1900 to 1970
	return uint64(t.Unix()+epoch)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// parse reads the clip's frames. Keyframes get the parameter sets in front.
func parse(clip []byte) ([]unit, error) {
	if len(clip) == 0 || len(clip) > maxClipBytes {
		return nil, fmt.Errorf("a file of %d bytes", len(clip))
	}
	var file pmp4.Presentation
	if err := file.Unmarshal(bytes.NewReader(clip)); err != nil {
		return nil, fmt.Errorf("parse MP4: %w", err)
	}
	for _, track := range file.Tracks {
		codec, ok := track.Codec.(*codecs.H264)
		if !ok {
			continue
		}
		if len(track.Samples) == 0 || track.TimeScale == 0 {
			return nil, errors.New("the H.264 track is empty")
		}
		return units(track, codec)
	}
	return nil, errors.New("there is no H.264 track")
}

func units(track *pmp4.Track, codec *codecs.H264) ([]unit, error) {
	var out []unit
	var elapsed, given int64
	for i, sample := range track.Samples {
		if sample.PTSOffset != track.Samples[0].PTSOffset {
			return nil, errors.New("the H.264 track has B-frames")
		}
		payload, err := sample.GetPayload()
		if err != nil {
			return nil, fmt.Errorf("read frame %d: %w", i, err)
		}
		var nals h264.AVCC
		if err := nals.Unmarshal(payload); err != nil {
			return nil, fmt.Errorf("read frame %d: %w", i, err)
		}
		if !sample.IsNonSyncSample {
			nals = append(h264.AVCC{codec.SPS, codec.PPS}, nals...)
		}
		data, err := h264.AnnexB(nals).Marshal()
		if err != nil {
			return nil, fmt.Errorf("read frame %d: %w", i, err)
		}
		// Rounded over the whole clip, so that the error does not add up.
		elapsed += int64(sample.Duration)
		until := elapsed * video.ClockRate / int64(track.TimeScale)
		out = append(out, unit{data, uint32(until - given)})
		given = until
	}
	return out, nil
}
