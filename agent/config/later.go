package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/weir-edge/weir/uplink"
)

// notSupported is told of what has a name in weir and no code yet.
const notSupported = "not supported by this version"

// later returns, for each section, the keys of parts that are not built.
func later() map[reflect.Type][]string {
	return map[reflect.Type][]string{
		reflect.TypeFor[Config](): {"kinesis"},
	}
}

// laterUplinks are the types of uplink that are not built.
func laterUplinks() []string {
	types := []string{
		"kinesis", "kafka", "nats", "mqtt", "http", "s3", "redshift", "opensearch", "splunk", "datadog", "newrelic",
		"mongodb", "firehose", "kvs", "whip", "file",
	}
	return slices.DeleteFunc(types, func(t string) bool { return slices.Contains(uplink.Supported(), t) })
}

// laterCameras are the schemes of cameras' URLs that are not built.
func laterCameras() []string {
	return []string{"rtsp", "rtsps", "whip", "whep", "onvif", "rtmp", "rtmps", "srt", "http", "https", "v4l2", "file"}
}

// skipUplink refuses an uplink of another type than those that are built. Its
// other keys are not read, for nobody knows them.
func (d *decoder) skipUplink(p place) bool {
	if p.node.kind != mapping {
		return false
	}
	typ := p.key("type")
	if typ.node == nil || typ.node.kind != scalar || slices.Contains(uplink.Supported(), typ.node.text) {
		return false
	}
	supported := strings.Join(uplink.Supported(), ", ")
	switch name := typ.node.text; {
	case strings.Contains(name, "${"):
		d.fault(typ, "a type cannot come from a placeholder; supported: %s", supported)
	case slices.Contains(laterUplinks(), name):
		d.fault(typ, "%s is %s; supported: %s", name, notSupported, supported)
	default:
		d.fault(typ, "%q is not a type of uplink; supported: %s", shorten(name), supported)
	}
	d.spoil(p.path)
	return true
}

// skipCamera refuses a camera of a kind that is not built, whatever its other
// keys are.
func (d *decoder) skipCamera(p place) bool {
	url := p.key("url")
	if url.node == nil || url.node.kind != scalar {
		return false
	}
	scheme, _, ok := strings.Cut(url.node.text, ":")
	if !ok || !slices.Contains(laterCameras(), strings.ToLower(scheme)) {
		return false
	}
	d.fault(url, "%s is %s; supported: rtp", strings.ToLower(scheme), notSupported)
	d.spoil(p.path)
	return true
}
