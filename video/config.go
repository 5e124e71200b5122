package video

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

// Config is the `video:` section of the configuration.
type Config struct {
	Cameras []CameraConfig `yaml:"cameras"`
}

// CameraConfig is one entry of `video.cameras:`. A zero field means its
// default; WithDefaults fills them in.
type CameraConfig struct {
	// Name of the camera, and of its stream in the log. No default.
	Name string `yaml:"name"`
	// URL says where it comes from: rtp://ADDRESS:PORT listens there for RTP
	// over UDP. Port 0 lets the system choose, which is of use in tests.
	URL string `yaml:"url"`
	// Codec of the video. Default h264, the only one yet.
	Codec string `yaml:"codec"`
	// Retention is how long fragments are kept. Default 24h.
	Retention value.Duration `yaml:"retention"`
	// MaxBytes bounds what the camera keeps in the log. Default 0: no bound of
	// its own.
	MaxBytes value.Bytes `yaml:"max_bytes"`
	// Priority, 0 to 9: when the disk decides, lower ones lose first. Default 0.
	Priority int `yaml:"priority"`
	// Allow names who may send, as CIDR prefixes or single addresses. Default
	// on loopback: loopback. Else: the private and link-local ranges, because
	// RTP has no other protection than who sends it.
	Allow []string `yaml:"allow"`
	// SPS and PPS, in base64 (as in sprop-parameter-sets) or hex, for a camera
	// that does not send them in band. Default none.
	SPS string `yaml:"sps"`
	PPS string `yaml:"pps"`
	// ReorderDelay is how long a missing packet is waited for. Default 100ms:
	// more than a network reorders by, less than a person notices.
	ReorderDelay value.Duration `yaml:"reorder_delay"`
}

const (
	defaultRetention    = value.Duration(24 * time.Hour)
	defaultReorderDelay = value.Duration(100 * time.Millisecond)
	maxParameterSet     = 4 << 10
)

// WithDefaults returns c with every unset field set.
func (c CameraConfig) WithDefaults() CameraConfig {
	if c.Codec == "" {
		c.Codec = "h264"
	}
	if c.Retention == 0 {
		c.Retention = defaultRetention
	}
	if c.ReorderDelay == 0 {
		c.ReorderDelay = defaultReorderDelay
	}
	return c
}

// Stream returns the name of the camera's stream.
func (c CameraConfig) Stream() string { return c.Name }

// StreamConfig returns the policy of the camera's stream.
func (c CameraConfig) StreamConfig() buffer.StreamConfig {
	s := buffer.DefaultStreamConfig(buffer.Video)
	s.Retention, s.MaxBytes, s.Priority = c.WithDefaults().Retention, c.MaxBytes, c.Priority
	return s
}

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	names := make(map[string]int)
	listeners := make(map[string]int)
	for i, camera := range c.Cameras {
		for _, err := range flatten(camera.Validate()) {
			faults = append(faults, fmt.Errorf("cameras[%d].%w", i, err))
		}
		if first, taken := names[camera.Name]; taken && camera.Name != "" {
			faults = append(faults, fmt.Errorf("cameras[%d].name: %q is the name of cameras[%d] too", i, camera.Name, first))
		} else {
			names[camera.Name] = i
		}
		listen, err := camera.Listen()
		if err != nil || listen.Port() == 0 {
			continue
		}
		if first, taken := listeners[listen.String()]; taken {
			faults = append(faults, fmt.Errorf("cameras[%d].url: cameras[%d] listens on %s too", i, first, listen))
		} else {
			listeners[listen.String()] = i
		}
	}
	return errors.Join(faults...)
}

// flatten takes a joined error apart.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// Validate returns every fault of c, joined; each begins with the key. Unset
// fields count as their defaults.
func (c CameraConfig) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("name: missing; name the camera, such as front")
	} else if err := buffer.CheckName(c.Name); err != nil {
		fault("name: %w", err)
	}
	if _, err := c.Listen(); err != nil {
		fault("url: %w", err)
	}
	if c.Codec != "h264" {
		fault("codec: %q is not supported yet; h264 is", c.Codec)
	}
	faults = append(faults, flatten(c.StreamConfig().Validate())...)
	for i, text := range c.Allow {
		if _, err := parsePrefix(text); err != nil {
			fault("allow[%d]: %w", i, err)
		}
	}
	for _, set := range []struct {
		key, text string
		kind      byte
	}{{"sps", c.SPS, 7}, {"pps", c.PPS, 8}} {
		if nal, err := DecodeParameterSet(set.text); err != nil {
			fault("%s: %w", set.key, err)
		} else if len(nal) > 0 && nal[0]&0x1f != set.kind {
			fault("%s: this is NAL unit type %d, not %d", set.key, nal[0]&0x1f, set.kind)
		}
	}
	if (c.SPS == "") != (c.PPS == "") {
		fault("sps: sps and pps belong together; set both or neither")
	}
	if d := c.ReorderDelay.Std(); d < time.Millisecond || d > 2*time.Second {
		fault("reorder_delay: %s is not between 1ms and 2s", c.ReorderDelay)
	}
	return errors.Join(faults...)
}

// Listen returns the address of URL. Its errors do not repeat the URL, which
// may hold a password.
func (c CameraConfig) Listen() (netip.AddrPort, error) {
	var none netip.AddrPort
	if c.URL == "" {
		return none, errors.New("missing; use rtp://ADDRESS:PORT")
	}
	scheme, _, _ := strings.Cut(c.URL, ":")
	if scheme != "rtp" {
		if len(scheme) > 20 || strings.ContainsAny(scheme, "/@") {
			scheme = "this"
		}
		return none, fmt.Errorf("%s is not supported yet; use rtp://ADDRESS:PORT and let the camera send RTP there", scheme)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return none, errors.New("this is not rtp://ADDRESS:PORT")
	}
	host := u.Hostname()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return none, fmt.Errorf("%q is not an IP address of this machine; 0.0.0.0 listens on all", u.Hostname())
	}
	if address.IsMulticast() {
		return none, fmt.Errorf("multicast (%s) is not supported yet", address)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return none, errors.New("the port is missing or not between 0 and 65535; use rtp://ADDRESS:PORT")
	}
	return netip.AddrPortFrom(address, uint16(port)), nil
}

// Allowed returns the prefixes of those who may send. c must be valid.
func (c CameraConfig) Allowed() ([]netip.Prefix, error) {
	texts := c.Allow
	if len(texts) == 0 {
		listen, err := c.Listen()
		if err != nil {
			return nil, err
		}
		texts = []string{"127.0.0.0/8", "::1"}
		if !listen.Addr().IsLoopback() {
			texts = append(texts, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
		}
	}
	var out []netip.Prefix
	for _, text := range texts {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		out = append(out, prefix)
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is not an address or a prefix; write it as 192.0.2.0/24", text)
	}
	return prefix.Masked(), nil
}

// DecodeParameterSet reads a parameter set in hex or base64, without a start
// code. An empty text gives nil.
func DecodeParameterSet(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	nal, err := hex.DecodeString(text)
	if err != nil {
		nal, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil {
		nal, err = base64.RawStdEncoding.DecodeString(text)
	}
	switch {
	case err != nil:
		return nil, errors.New("this is neither base64 nor hex")
	case len(nal) < 2 || len(nal) > maxParameterSet:
		return nil, fmt.Errorf("%d bytes is no length for a parameter set", len(nal))
	}
	for _, code := range []string{"\x00\x00\x00\x01", "\x00\x00\x01"} {
		if rest, ok := strings.CutPrefix(string(nal), code); ok {
			return []byte(rest), nil
		}
	}
	return nal, nil
}
