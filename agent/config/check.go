package config

import (
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-edge/weir/analytics/sql"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest"
	"github.com/weir-edge/weir/ingest/broker"
)

// invalid is what the text of an error may begin with that says nothing here.
var invalid = buffer.ErrInvalid.Error() + ": "

// checker asks every package whether it accepts its part, and checks what only
// the whole can show.
type checker struct{ *collector }

func (c checker) check(cfg *Config, top place) {
	c.node(cfg, top.key("node"))
	c.validate(top.key("buffer"), cfg.Buffer.Validate())
	streams := top.key("streams")
	for _, name := range sortedKeys(cfg.Streams) {
		stream := streams.key(name)
		if err := buffer.CheckName(name); err != nil {
			c.fault(stream, "%s", strings.TrimPrefix(err.Error(), invalid))
		}
		c.validate(stream, cfg.Streams[name].Validate())
	}
	sources := top.key("ingest").key("mqtt")
	for i, source := range cfg.Ingest.MQTT {
		c.validate(sources.item(i), source.Validate())
	}
	c.validate(top.key("video"), cfg.Video.Validate())
	if cfg.Ingest.Broker != nil {
		c.validate(top.find("ingest.broker"), cfg.Ingest.Broker.Validate())
		c.advise(top.find("ingest.broker"), cfg.Ingest.Broker.Warnings())
	}
	if cfg.Ingest.HTTP != nil {
		c.validate(top.find("ingest.http"), cfg.Ingest.HTTP.Validate())
		c.advise(top.find("ingest.http"), cfg.Ingest.HTTP.Warnings())
	}
	c.validate(top.key("analytics"), cfg.Analytics.Validate())
	uplinks := top.key("uplink")
	for i, u := range cfg.Uplink {
		c.validate(uplinks.item(i), u.Validate())
	}
	c.validate(top.key("api"), cfg.API.Validate())

	c.names(cfg, top)
	c.brokerState(cfg, top)
	c.sessions(cfg, sources)
	c.cameraStreams(cfg, top)
	c.ports(cfg, top)
}

// validate notes the faults that a package's Validate has found in the part at
// p: each text begins with the path from there. What is not resolved is not
// judged, and what has a fault already is not told of twice.
func (c checker) validate(p place, err error) {
	var found []func() // noted together, so that two at one place are both told
	for _, fault := range leaves(err) {
		path, message, ok := strings.Cut(fault.Error(), ": ")
		at := p
		if ok && relative.MatchString(path) {
			at = p.find(path)
		} else {
			message = fault.Error()
		}
		message = strings.TrimPrefix(message, invalid)
		if !c.judges(at) {
			continue
		}
		found = append(found, func() { c.fault(at, "%s", message) })
	}
	for _, note := range found {
		note()
	}
}

// advise notes a package's warnings about the part at p; each begins with the path
// from there.
func (c checker) advise(p place, warnings []string) {
	for _, warning := range warnings {
		if path, message, ok := strings.Cut(warning, ": "); ok {
			c.warn(p.find(path), "%s", message)
		}
	}
}

// judges says whether a fault at p would be one: its text is known, and nothing
// is told of it yet.
func (c checker) judges(p place) bool {
	return (p.node == nil || !p.node.unresolved) && !c.told(p.path)
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, leaves(e)...)
	}
	return out
}

var (
	nodeID    = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	notNodeID = regexp.MustCompile(`[^a-zA-Z0-9_-]`)
	labelKey  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]{0,62}$`)
)

// Bounds of labels.
const (
	maxLabels  = 32
	labelBytes = 256
)

// node checks the section and fills in the host's name.
func (c checker) node(cfg *Config, p place) {
	id := p.key("id")
	if id.node == nil {
		host, err := os.Hostname()
		cfg.Node.ID = notNodeID.ReplaceAllString(host, "-")
		if err != nil || !nodeID.MatchString(cfg.Node.ID) {
			c.fault(id, "missing, and the host's name does not serve instead; name this machine")
		}
	} else if c.judges(id) && !nodeID.MatchString(cfg.Node.ID) {
		c.fault(id, "%q must be 1 to 64 of the characters a-z A-Z 0-9 _ -", shorten(cfg.Node.ID))
	}
	labels := p.key("labels")
	if n := len(cfg.Node.Labels); n > maxLabels {
		c.fault(labels, "%d labels are more than %d", n, maxLabels)
	}
	for _, key := range sortedKeys(cfg.Node.Labels) {
		at, text := labels.key(key), cfg.Node.Labels[key]
		switch {
		case !labelKey.MatchString(key):
			c.fault(at, "a label's name begins with a letter or _ and has up to 63 of the characters a-z A-Z 0-9 _ . -")
		case len(text) > labelBytes || unprintable.MatchString(text):
			c.fault(at, "a label's value has at most %d bytes and no line breaks", labelBytes)
		}
	}
}

// named is a name in the file.
type named struct {
	at   place // of the part
	name string
}

// names finds what is named twice.
func (c checker) names(cfg *Config, top place) {
	var sources, uplinks []named
	for i, source := range cfg.Ingest.MQTT {
		sources = append(sources, named{top.find("ingest.mqtt").item(i), source.Name})
	}
	if cfg.Ingest.Broker != nil {
		sources = append(sources, named{top.find("ingest.broker"), cfg.Ingest.Broker.Name})
	}
	if cfg.Ingest.HTTP != nil {
		sources = append(sources, named{top.find("ingest.http"), cfg.Ingest.HTTP.Name})
	}
	for i, u := range cfg.Uplink {
		uplinks = append(uplinks, named{top.key("uplink").item(i), u.Name})
	}
	c.unique(sources)
	c.unique(uplinks)
}

func (c checker) unique(list []named) {
	first := map[string]place{}
	for _, n := range list {
		at := n.at.key("name")
		if n.name == "" || !c.judges(at) {
			continue
		}
		if other, ok := first[n.name]; ok {
			c.fault(at, "%s is the name of %s, too; give each its own", n.name, other.path)
			continue
		}
		first[n.name] = n.at
	}
}

// sessions finds sources that would throw each other out of their broker.
func (c checker) sessions(cfg *Config, list place) {
	first := map[[2]string]int{}
	for i, source := range cfg.Ingest.MQTT {
		at := list.item(i).key("client_id")
		if source.ClientID == "" || !c.judges(at) {
			continue
		}
		session := [2]string{source.URL, source.ClientID}
		if j, ok := first[session]; ok {
			c.fault(at, "%s has the same at the same broker, which keeps only one of them; give each its own", list.item(j).path)
			continue
		}
		first[session] = i
	}
}

// cameraStreams finds cameras whose stream would be one of data: they are kept
// in different ways.
func (c checker) cameraStreams(cfg *Config, top place) {
	data := map[string]string{ingest.Aside: "the stream of what is set aside", broker.StateStream: "the broker's own stream"}
	for _, n := range streamsNamed(cfg, top) {
		if _, ok := data[n.name]; !ok {
			data[n.name] = "the stream of " + n.at.path
		}
	}
	for name := range cfg.Streams {
		data[name] = "a stream under streams"
	}
	for i, camera := range cfg.Video.Cameras {
		at := top.find("video.cameras").item(i).key("name")
		if what, ok := data[camera.Name]; ok && camera.Name != "" && c.judges(at) {
			c.fault(at, "%s is %s, and a camera's video needs one of its own; name the camera otherwise", camera.Name, what)
		}
	}
}

// streamsNamed are the streams of data that parts fill, or queries read.
func streamsNamed(cfg *Config, top place) (list []named) {
	for i, source := range cfg.Ingest.MQTT {
		for j, topic := range source.Topics {
			list = append(list, named{top.find("ingest.mqtt").item(i).key("topics").item(j), topic.Stream})
		}
	}
	if cfg.Ingest.Broker != nil {
		for j, topic := range cfg.Ingest.Broker.Topics {
			list = append(list, named{top.find("ingest.broker.topics").item(j), topic.Stream})
		}
	}
	if cfg.Ingest.HTTP != nil {
		for j, stream := range cfg.Ingest.HTTP.Streams {
			list = append(list, named{top.find("ingest.http.streams").item(j), stream.Stream})
		}
	}
	for i, query := range cfg.Analytics.Queries {
		if plan, err := sql.Compile(query.SQL); err == nil { // else its fault is told
			at := top.find("analytics.queries").item(i)
			list = append(list, named{at, plan.Input()}, named{at, plan.Output()})
		}
	}
	return list
}

// brokerState finds what would write the broker's own stream, or set a policy
// that it does not take.
func (c checker) brokerState(cfg *Config, top place) {
	refuse := func(at place, name string) {
		if name == broker.StateStream && c.judges(at) {
			c.fault(at, "%s is the broker's own stream", name)
		}
	}
	for name := range cfg.Streams {
		refuse(top.key("streams").key(name), name)
	}
	for i, source := range cfg.Ingest.MQTT {
		for j, topic := range source.Topics {
			refuse(top.find("ingest.mqtt").item(i).key("topics").item(j).key("stream"), topic.Stream)
		}
	}
	if cfg.Ingest.HTTP != nil {
		for j, stream := range cfg.Ingest.HTTP.Streams {
			refuse(top.find("ingest.http.streams").item(j).key("stream"), stream.Stream)
		}
	}
	for i, query := range cfg.Analytics.Queries {
		if plan, err := sql.Compile(query.SQL); err == nil {
			refuse(top.find("analytics.queries").item(i).key("sql"), plan.Output())
		}
	}
}

// listener is where a part will listen.
type listener struct {
	at      place
	network string
	address netip.AddrPort
}

// ports finds parts that would listen at the same place.
func (c checker) ports(cfg *Config, top place) {
	var all []listener
	for i, camera := range cfg.Video.Cameras {
		if address, err := camera.Listen(); err == nil {
			all = append(all, listener{top.find("video.cameras").item(i).key("url"), "udp", address})
		}
	}
	if cfg.Ingest.Broker != nil {
		if hostPort, _, err := cfg.Ingest.Broker.Address(); err == nil {
			if address, ok := addressOf(hostPort); ok {
				all = append(all, listener{top.find("ingest.broker.listen"), "tcp", address})
			}
		}
	}
	if cfg.Ingest.HTTP != nil {
		if address, ok := addressOf(cfg.Ingest.HTTP.Listen); ok {
			all = append(all, listener{top.find("ingest.http.listen"), "tcp", address})
		}
	}
	if address, ok := addressOf(cfg.API.Listen); ok {
		all = append(all, listener{top.find("api.listen"), "tcp", address})
	}
	for i, later := range all {
		for _, earlier := range all[:i] {
			if clash(earlier, later) && c.judges(later.at) {
				c.fault(later.at, "%s port %d is taken by %s", later.network, later.address.Port(), earlier.at.path)
			}
		}
	}
}

func clash(a, b listener) bool {
	x, y := a.address.Addr().Unmap(), b.address.Addr().Unmap()
	return a.network == b.network && a.address.Port() == b.address.Port() && a.address.Port() != 0 &&
		(x == y || x.IsUnspecified() || y.IsUnspecified())
}

// addressOf reads host:port; an empty host is every address, a name other than
// localhost is not looked up.
func addressOf(text string) (netip.AddrPort, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	address, err := netip.ParseAddr(host)
	number, portErr := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(address, uint16(number)), err == nil && portErr == nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
