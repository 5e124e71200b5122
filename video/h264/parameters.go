package h264

import (
	"bytes"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/bits"
	codec "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"

	"github.com/weir-edge/weir/video"
)

const (
	maxSetBytes = 4 << 10 // one parameter set
	maxSPS      = 8       // kept; the standard allows 32
	maxPPS      = 32      // kept; the standard allows 256
)

// set is one parameter set and what it says of itself.
type set struct {
	id, sps uint32 // sps: for a PPS, the SPS it belongs to
	nal     []byte
}

// parameterSets follows the parameter sets of a stream.
type parameterSets struct {
	sps, pps []set
	fields   bool              // a picture may be two fields
	current  *video.Parameters // nil while incomplete; replaced when anything changes
}

// Parameters returns what nals, SPS and PPS in any order, make together. It is
// an error if they do not parse or if one of the two is missing.
func Parameters(nals ...[]byte) (*video.Parameters, error) {
	var p parameterSets
	for _, nal := range nals {
		if err := p.add(nal); err != nil {
			return nil, err
		}
	}
	if p.current == nil {
		return nil, fmt.Errorf("parameter sets: there are %d SPS and %d PPS", len(p.sps), len(p.pps))
	}
	return p.current, nil
}

// add takes an SPS or PPS; nal is copied if it is new.
func (p *parameterSets) add(nal []byte) error {
	if len(nal) < 2 || len(nal) > maxSetBytes {
		return fmt.Errorf("parameter set of %d bytes", len(nal))
	}
	list, limit, parse := &p.pps, maxPPS, parsePPS
	if nal[0]&0x1f == typeSPS {
		list, limit, parse = &p.sps, maxSPS, parseSPS
	} else if nal[0]&0x1f != typePPS {
		return fmt.Errorf("NAL unit type %d is not a parameter set", nal[0]&0x1f)
	}
	for i := range *list {
		if bytes.Equal((*list)[i].nal, nal) {
			return nil
		}
	}
	s, err := parse(nal)
	if err != nil {
		return err
	}
	s.nal = bytes.Clone(nal)
	// The changed one goes to the end, so that over the limit the oldest goes.
	kept := make([]set, 0, len(*list)+1)
	for _, old := range *list {
		if old.id != s.id {
			kept = append(kept, old)
		}
	}
	if len(kept) >= limit {
		kept = kept[1:]
	}
	*list = append(kept, s)
	p.rebuild()
	return nil
}

// keep drops the sequence parameter sets that are not in ids, and the picture
// parameter sets that need them: a keyframe that brings its own SPS needs no
// other.
func (p *parameterSets) keep(ids []uint32) {
	has := func(id uint32) bool {
		for _, wanted := range ids {
			if wanted == id {
				return true
			}
		}
		return false
	}
	sps, pps := p.sps[:0:0], p.pps[:0:0]
	for _, s := range p.sps {
		if has(s.id) {
			sps = append(sps, s)
		}
	}
	for _, s := range p.pps {
		if has(s.sps) {
			pps = append(pps, s)
		}
	}
	if len(sps) != len(p.sps) || len(pps) != len(p.pps) {
		p.sps, p.pps = sps, pps
		p.rebuild()
	}
}

func (p *parameterSets) rebuild() {
	if len(p.sps) == 0 || len(p.pps) == 0 {
		p.current = nil
		return
	}
	next := &video.Parameters{Codec: "h264"}
	for _, s := range p.sps {
		next.SPS = append(next.SPS, s.nal)
	}
	for _, s := range p.pps {
		next.PPS = append(next.PPS, s.nal)
	}
	var sps codec.SPS
	if err := sps.Unmarshal(p.sps[len(p.sps)-1].nal); err == nil {
		next.Width, next.Height = sps.Width(), sps.Height()
		p.fields = !sps.FrameMbsOnlyFlag
	}
	p.current = next
}

func parseSPS(nal []byte) (set, error) {
	var sps codec.SPS
	if err := sps.Unmarshal(nal); err != nil {
		return set{}, fmt.Errorf("parse SPS: %w", err)
	}
	if w, h := sps.Width(), sps.Height(); w <= 0 || h <= 0 || w > 16384 || h > 16384 {
		return set{}, fmt.Errorf("parse SPS: a picture of %dx%d", w, h)
	}
	return set{id: sps.ID}, nil
}

// parsePPS reads the two numbers a PPS begins with (H.264, 7.3.2.2).
func parsePPS(nal []byte) (set, error) {
	rbsp := codec.EmulationPreventionRemove(nal[1:min(len(nal), 16)])
	position := 0
	id, err := bits.ReadGolombUnsigned(rbsp, &position)
	if err != nil {
		return set{}, fmt.Errorf("parse PPS: %w", err)
	}
	sps, err := bits.ReadGolombUnsigned(rbsp, &position)
	if err != nil {
		return set{}, fmt.Errorf("parse PPS: %w", err)
	}
	if id > 255 || sps > 31 {
		return set{}, fmt.Errorf("parse PPS: id %d of SPS %d", id, sps)
	}
	return set{id: id, sps: sps}, nil
}
