package brokertest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The control packets of MQTT, section 2.1.2 of version 5.
const (
	kindConnect     = 1
	kindConnack     = 2
	kindPublish     = 3
	kindPuback      = 4
	kindPubrec      = 5
	kindPubrel      = 6
	kindPubcomp     = 7
	kindSubscribe   = 8
	kindSuback      = 9
	kindUnsubscribe = 10
	kindUnsuback    = 11
	kindPingreq     = 12
	kindPingresp    = 13
	kindDisconnect  = 14
	kindAuth        = 15
)

var kindNames = [...]string{"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// The properties of version 5, section 2.2.2.2.
const (
	propPayloadFormat          = 0x01
	propMessageExpiry          = 0x02
	propContentType            = 0x03
	propResponseTopic          = 0x08
	propCorrelation            = 0x09
	propSubscriptionID         = 0x0b
	propSessionExpiry          = 0x11
	propAssignedClientID       = 0x12
	propServerKeepAlive        = 0x13
	propRequestProblem         = 0x17
	propWillDelay              = 0x18
	propReasonString           = 0x1f
	propReceiveMaximum         = 0x21
	propTopicAliasMaximum      = 0x22
	propTopicAlias             = 0x23
	propMaximumQoS             = 0x24
	propRetainAvailable        = 0x25
	propUserProperty           = 0x26
	propMaximumPacketSize      = 0x27
	propWildcardAvailable      = 0x28
	propSubscriptionIDs        = 0x29
	propSharedAvailable        = 0x2a
	propRequestResponse        = 0x19
	propResponseInfo           = 0x1a
	propServerReference        = 0x1c
	propAuthMethod             = 0x15
	propAuthData               = 0x16
	maxPacketBytes             = 1 << 20 // of what a broker sends to the rig
	maxRemaining               = 268_435_455
	protocolName               = "MQTT"
	version311            byte = 4
	version5              byte = 5
)

// property is one of version 5.
type property struct {
	id   byte
	n    uint32 // of numbers
	text string // of texts and binary data, and the name of a user property
	more string // the value of a user property
}

type properties []property

// form is how the value of a property is written: its bytes, or 'v' variable,
// 's' text or binary, 'p' a pair of texts.
func form(id byte) byte {
	switch id {
	case propPayloadFormat, propRequestProblem, propMaximumQoS, propRetainAvailable, propWildcardAvailable, propSubscriptionIDs, propSharedAvailable, propRequestResponse:
		return 1
	case propServerKeepAlive, propReceiveMaximum, propTopicAliasMaximum, propTopicAlias:
		return 2
	case propMessageExpiry, propSessionExpiry, propWillDelay, propMaximumPacketSize:
		return 4
	case propSubscriptionID:
		return 'v'
	case propContentType, propResponseTopic, propCorrelation, propAssignedClientID, propReasonString, propResponseInfo, propServerReference, propAuthMethod, propAuthData:
		return 's'
	case propUserProperty:
		return 'p'
	}
	return 0
}

func (p property) append(b []byte) []byte {
	b = append(b, p.id)
	switch form(p.id) {
	case 1:
		return append(b, byte(p.n))
	case 2:
		return binary.BigEndian.AppendUint16(b, uint16(p.n))
	case 4:
		return binary.BigEndian.AppendUint32(b, p.n)
	case 'v':
		return appendVariable(b, int(p.n))
	case 'p':
		return appendText(appendText(b, p.text), p.more)
	}
	return appendText(b, p.text)
}

// append writes the properties with their length.
func (p properties) append(b []byte) []byte {
	var inner []byte
	for _, one := range p {
		inner = one.append(inner)
	}
	return append(appendVariable(b, len(inner)), inner...)
}

func (p properties) number(id byte) (uint32, bool) {
	for _, one := range p {
		if one.id == id {
			return one.n, true
		}
	}
	return 0, false
}

func (p properties) text(id byte) string {
	for _, one := range p {
		if one.id == id {
			return one.text
		}
	}
	return ""
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

func appendVariable(b []byte, n int) []byte {
	for n >= 128 {
		b = append(b, byte(n)|128)
		n >>= 7
	}
	return append(b, byte(n))
}

// packet writes a whole control packet.
func packet(kind, flags byte, body []byte) []byte {
	return append(appendVariable([]byte{kind<<4 | flags}, len(body)), body...)
}

// connect is a CONNECT. Its zero value but for version and id is sound.
type connect struct {
	version   byte
	protocol  string // "": MQTT
	level     byte   // 0: version
	id        string
	persist   bool // not clean session, not clean start
	keepAlive uint16
	user      string
	password  string
	will      *publish
	willProps properties
	props     properties
	flip      byte // bits of the flags to flip, to make them wrong
}

func (c connect) bytes() []byte {
	name, level := c.protocol, c.level
	if name == "" {
		name = protocolName
	}
	if level == 0 {
		level = c.version
	}
	var flags byte
	if !c.persist {
		flags |= 2
	}
	if c.will != nil {
		flags |= 4 | c.will.qos<<3
		if c.will.retain {
			flags |= 32
		}
	}
	if c.user != "" {
		flags |= 128
	}
	if c.password != "" {
		flags |= 64
	}
	b := append(appendText(nil, name), level, flags^c.flip)
	b = binary.BigEndian.AppendUint16(b, c.keepAlive)
	if c.version == version5 {
		b = c.props.append(b)
	}
	b = appendText(b, c.id)
	if c.will != nil {
		if c.version == version5 {
			b = c.willProps.append(b)
		}
		b = appendText(appendText(b, c.will.topic), c.will.payload)
	}
	if c.user != "" {
		b = appendText(b, c.user)
	}
	if c.password != "" {
		b = appendText(b, c.password)
	}
	return packet(kindConnect, 0, b)
}

// publish is a PUBLISH, sent or received.
type publish struct {
	topic, payload string
	qos            byte
	id             uint16
	retain, dup    bool
	props          properties
}

func (p publish) bytes(version byte) []byte {
	flags := p.qos << 1
	if p.retain {
		flags |= 1
	}
	if p.dup {
		flags |= 8
	}
	b := appendText(nil, p.topic)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, p.id)
	}
	if version == version5 {
		b = p.props.append(b)
	}
	return packet(kindPublish, flags, append(b, p.payload...))
}

// subscription is one filter of a SUBSCRIBE with its options.
type subscription struct {
	filter string
	qos    byte // and above it the options of version 5
}

// The options of a subscription, section 3.8.3.1 of version 5.
const (
	noLocal           = 1 << 2
	retainAsPublished = 1 << 3
	retainIfNew       = 1 << 4
	retainNever       = 2 << 4
)

func subscribe(version byte, id uint16, props properties, list ...subscription) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if version == version5 {
		b = props.append(b)
	}
	for _, s := range list {
		b = append(appendText(b, s.filter), s.qos)
	}
	return packet(kindSubscribe, 2, b)
}

func unsubscribe(version byte, id uint16, filters ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if version == version5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = appendText(b, f)
	}
	return packet(kindUnsubscribe, 2, b)
}

// ack writes PUBACK, PUBREC, PUBREL or PUBCOMP.
func ack(kind byte, id uint16) []byte {
	flags := byte(0)
	if kind == kindPubrel {
		flags = 2
	}
	return packet(kind, flags, binary.BigEndian.AppendUint16(nil, id))
}

var (
	pingreq    = packet(kindPingreq, 0, nil)
	disconnect = packet(kindDisconnect, 0, nil)
)

// frame is a packet as it came.
type frame struct {
	kind, flags byte
	body        []byte
}

func (f frame) String() string {
	return fmt.Sprintf("%s (flags %x, %d bytes: %.40x)", kindNames[f.kind], f.flags, len(f.body), f.body)
}

// readFrame reads one packet of a broker.
func readFrame(r *bufio.Reader) (frame, error) {
	first, err := r.ReadByte()
	if err != nil {
		return frame{}, err
	}
	n, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return frame{}, unexpected(err)
		}
		n |= int(b&127) << shift
		if b < 128 {
			break
		}
		if shift += 7; shift > 21 {
			return frame{}, errors.New("the remaining length has more than four bytes")
		}
	}
	if n > maxPacketBytes {
		return frame{}, fmt.Errorf("a packet of %d bytes is over the rig's limit", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, unexpected(err)
	}
	return frame{kind: first >> 4, flags: first & 15, body: body}, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// cursor takes a packet's body apart. After the first fault it returns zero
// values; err says what it was.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || n > len(c.rest) {
		if c.err == nil {
			c.err = fmt.Errorf("it ends %d bytes early", n-len(c.rest))
		}
		return make([]byte, min(n, 4))
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) byte() byte     { return c.take(1)[0] }
func (c *cursor) number() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) text() string   { return strings.Clone(string(c.take(int(c.number())))) }

func (c *cursor) variable() int {
	n := 0
	for shift := 0; shift <= 21; shift += 7 {
		b := c.byte()
		n |= int(b&127) << shift
		if b < 128 {
			return n
		}
	}
	c.err = errors.New("a variable byte integer has more than four bytes")
	return 0
}

func (c *cursor) properties() (list properties) {
	inner := &cursor{rest: c.take(c.variable())}
	for len(inner.rest) > 0 && inner.err == nil {
		p := property{id: inner.byte()}
		switch form(p.id) {
		case 1:
			p.n = uint32(inner.byte())
		case 2:
			p.n = uint32(inner.number())
		case 4:
			p.n = binary.BigEndian.Uint32(inner.take(4))
		case 'v':
			p.n = uint32(inner.variable())
		case 's':
			p.text = inner.text()
		case 'p':
			p.text, p.more = inner.text(), inner.text()
		default:
			inner.err = fmt.Errorf("property %#x does not exist", p.id)
		}
		list = append(list, p)
	}
	if c.err == nil {
		c.err = inner.err
	}
	return list
}

// answer is what a broker says with a reason.
type answer struct {
	present bool   // of a CONNACK: the session is there
	id      uint16 // of the packet it answers
	code    byte   // the reason or return code; of a list the first
	codes   []byte // of SUBACK and UNSUBACK
	props   properties
}

// answer decodes all that is not a PUBLISH.
func (f frame) answer(version byte) (answer, error) {
	c, a := &cursor{rest: f.body}, answer{}
	switch f.kind {
	case kindConnack:
		a.present, a.code = c.byte() == 1, c.byte()
		if version == version5 {
			a.props = c.properties()
		}
	case kindPuback, kindPubrec, kindPubrel, kindPubcomp:
		a.id = c.number()
		if version == version5 && len(c.rest) > 0 {
			a.code = c.byte()
		}
		if version == version5 && len(c.rest) > 0 {
			a.props = c.properties()
		}
	case kindSuback, kindUnsuback:
		a.id = c.number()
		if version == version5 {
			a.props = c.properties()
		}
		a.codes, c.rest = c.rest, nil
		if len(a.codes) > 0 {
			a.code = a.codes[0]
		}
	case kindDisconnect, kindAuth:
		if version == version5 && len(c.rest) > 0 {
			a.code = c.byte()
		}
		if version == version5 && len(c.rest) > 0 {
			a.props = c.properties()
		}
	}
	if c.err == nil && len(c.rest) > 0 {
		c.err = fmt.Errorf("%d bytes are left over", len(c.rest))
	}
	return a, c.err
}

// publish decodes a PUBLISH.
func (f frame) publish(version byte) (publish, error) {
	c := &cursor{rest: f.body}
	p := publish{qos: f.flags >> 1 & 3, retain: f.flags&1 == 1, dup: f.flags&8 == 8, topic: c.text()}
	if p.qos > 0 {
		p.id = c.number()
	}
	if version == version5 {
		p.props = c.properties()
	}
	p.payload = string(c.rest)
	return p, c.err
}
