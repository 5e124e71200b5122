// Package message is what the sources that speak MQTT share (ingest/mqtt reads a
// broker, ingest/broker is one): how a message becomes a record. Router finds
// the stream and the partition key by the configured topics and puts the
// message's own description beside the data; Window recognises what is delivered
// a second time, and Recall fills it again after a restart from what the log
// holds.
//
// It is pure but for Recall, which reads the log. It opens no connections and
// acknowledges nothing.
package message

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest"
)

// Attributes of a record that came by MQTT.
const (
	AttrTopic    = "mqtt.topic"
	AttrQoS      = "mqtt.qos"
	AttrRetained = "mqtt.retained"  // "true", or absent
	AttrDup      = "mqtt.dup"       // "true", or absent
	AttrPacketID = "mqtt.packet_id" // QoS 1 and 2
	AttrClientID = "mqtt.client_id" // of the device, where it is known
	attrHash     = "mqtt.hash"      // of a message that was set aside cut short
)

// MaxTopicBytes of a message that becomes a record; MQTT allows 65,535.
const MaxTopicBytes = 2048

// Message is a PUBLISH on its way to the log.
type Message struct {
	Topic    string
	Payload  []byte // maybe only its beginning; see Size
	Size     int    // bytes of the whole payload if Payload is cut short, else 0
	QoS      byte
	ID       uint16 // the packet identifier; QoS 1 and 2
	Dup      bool
	Retained bool
	ClientID string // who sent it; "" when a broker does not say
	Hash     uint64 // Fingerprint of the whole; QoS 1 and 2
}

// attributes describe m on its record.
func (m *Message) attributes() []buffer.Attribute {
	list := []buffer.Attribute{{Key: AttrTopic, Value: m.Topic}, {Key: AttrQoS, Value: strconv.Itoa(int(m.QoS))}}
	if m.Retained {
		list = append(list, buffer.Attribute{Key: AttrRetained, Value: "true"})
	}
	if m.Dup {
		list = append(list, buffer.Attribute{Key: AttrDup, Value: "true"})
	}
	if m.QoS > 0 {
		list = append(list, buffer.Attribute{Key: AttrPacketID, Value: strconv.Itoa(int(m.ID))})
	}
	if m.ClientID != "" {
		list = append(list, buffer.Attribute{Key: AttrClientID, Value: m.ClientID})
	}
	return list
}

// Route says where the messages of some topics go.
type Route struct {
	Filter       string // as MQTT has it, with + and #
	Stream       string
	PartitionKey string // as ParseKey reads it
}

// Faults are what is wrong with r; each begins with the key's name.
func (r Route) Faults() []error {
	var faults []error
	if err := CheckFilter(r.Filter); err != nil {
		faults = append(faults, fmt.Errorf("filter: %w", err))
	}
	if r.Stream == "" {
		faults = append(faults, errors.New("stream: missing; name the stream the messages go to"))
	} else if err := buffer.CheckName(r.Stream); err != nil {
		faults = append(faults, fmt.Errorf("stream: %w", err))
	}
	if _, err := ParseKey(r.PartitionKey); err != nil {
		faults = append(faults, fmt.Errorf("partition_key: %w", err))
	}
	return faults
}

// Router turns messages into records. It is made with NewRouter and safe for
// concurrent use.
type Router struct {
	config RouterConfig
	keys   []Key
}

// RouterConfig is what a router has to know.
type RouterConfig struct {
	Source   string      // the source's name
	Routes   []Route     // the first that matches a message counts
	MaxBytes value.Bytes // a larger payload is refused
	ClientID string      // stands for {client_id} of messages that do not say who sent them
}

// NewRouter returns a router, or the faults of its routes.
func NewRouter(config RouterConfig) (*Router, error) {
	config.Routes = slices.Clone(config.Routes)
	r := &Router{config: config}
	for i, route := range config.Routes {
		if err := errors.Join(route.Faults()...); err != nil {
			return nil, fmt.Errorf("route %d: %w", i, err)
		}
		key, err := ParseKey(route.PartitionKey)
		if err != nil {
			return nil, err
		}
		r.keys = append(r.keys, key)
	}
	return r, nil
}

// Routed is where a message goes, and as what.
type Routed struct {
	Stream string
	Record buffer.Record // its Arrival is not set; Data is the message's Payload
	// Refused says why the message goes to ingest.Aside instead of the stream
	// it was meant for; nil if it does not.
	Refused error
}

// errNoRoute: no route matches.
var errNoRoute = errors.New("no configured topic matches")

// Match returns the stream of the first route that matches topic, and false
// when none does.
func (r *Router) Match(topic string) (stream string, ok bool) {
	for _, route := range r.config.Routes {
		if Matches(route.Filter, topic) {
			return route.Stream, true
		}
	}
	return "", false
}

// Record says which record m becomes, and where it goes. It never fails: what
// cannot become a record of its stream is one of ingest.Aside.
func (r *Router) Record(m *Message) Routed {
	stream, key, err := r.route(m)
	if err == nil && len(m.Topic) > MaxTopicBytes {
		err = fmt.Errorf("topic is longer than %d bytes", MaxTopicBytes)
	}
	if err == nil && !utf8.ValidString(m.Topic) {
		err = errors.New("topic is not UTF-8")
	}
	attributes := m.attributes()
	if err != nil {
		return Routed{Stream: ingest.Aside, Refused: err, Record: ingest.Refused{
			Source: r.config.Source, Stream: stream, Reason: err.Error(), Size: max(m.Size, len(m.Payload)), Data: m.Payload,
			Attributes: append(attributes, hashAttribute(m.Hash)),
		}.Record()}
	}
	return Routed{Stream: stream, Record: buffer.Record{
		PartitionKey: key, Data: m.Payload,
		Attributes: append(attributes, buffer.Attribute{Key: ingest.AttrSource, Value: r.config.Source}),
	}}
}

// route finds the stream and the partition key.
func (r *Router) route(m *Message) (stream, key string, err error) {
	for i, route := range r.config.Routes {
		if !Matches(route.Filter, m.Topic) {
			continue
		}
		if size := max(m.Size, len(m.Payload)); size > int(r.config.MaxBytes) || size > len(m.Payload) {
			return route.Stream, "", fmt.Errorf("payload of %d bytes is over the limit of %s", size, r.config.MaxBytes)
		}
		key, err := r.keys[i].Expand(m.Topic, cmp.Or(m.ClientID, r.config.ClientID), m.Payload)
		if n := utf8.RuneCountInString(key); err == nil && n > buffer.MaxPartitionKeyChars {
			err = fmt.Errorf("partition key of %d characters is over the limit of %d", n, buffer.MaxPartitionKeyChars)
		}
		return route.Stream, key, err
	}
	return "", "", errNoRoute
}

// SetAside is for a record of Router.Record that the log itself refused: what
// goes to ingest.Aside in its place. Its Arrival is that of record.
func (r *Router) SetAside(stream string, record buffer.Record, why error) buffer.Record {
	aside := ingest.Refused{
		Source: r.config.Source, Stream: stream, Reason: why.Error(), Size: len(record.Data), Data: record.Data,
		Attributes: keep(record.Attributes, AttrTopic, AttrQoS, AttrRetained, AttrDup, AttrPacketID, AttrClientID),
	}.Record()
	aside.Attributes = append(aside.Attributes, hashAttribute(Fingerprint(record.Attribute(AttrTopic), record.Data)))
	aside.Arrival = record.Arrival
	return aside
}

// Streams are those the router may name, ingest.Aside first.
func (r *Router) Streams() []string {
	list := []string{ingest.Aside}
	for _, route := range r.config.Routes {
		if !slices.Contains(list, route.Stream) {
			list = append(list, route.Stream)
		}
	}
	return list
}

func keep(attributes []buffer.Attribute, keys ...string) []buffer.Attribute {
	var list []buffer.Attribute
	for _, a := range attributes {
		if slices.Contains(keys, a.Key) {
			list = append(list, a)
		}
	}
	return list
}

func hashAttribute(hash uint64) buffer.Attribute {
	return buffer.Attribute{Key: attrHash, Value: strconv.FormatUint(hash, 16)}
}

// Arrivals gives out times of arrival by whose order a restart can tell which
// message came first: a small step back of the clock does not show, a large one
// is a new beginning. One goroutine at a time; the zero value is ready.
type Arrivals struct{ last time.Time }

// Next returns the time to store for what arrived at t.
func (a *Arrivals) Next(t time.Time) time.Time {
	if ahead := a.last.Sub(t); ahead <= 0 || ahead > time.Second {
		a.last = t
	}
	return a.last
}
