package packet

import "slices"

// Properties are those of one packet (2.2.2). A nil pointer or slice means that
// it is not there.
type Properties struct {
	PayloadFormat      *byte   // 0: bytes, 1: UTF-8
	MessageExpiry      *uint32 // seconds
	ContentType        *string
	ResponseTopic      *string
	CorrelationData    []byte // not nil: there, also when empty
	SubscriptionIDs    []uint32
	SessionExpiry      *uint32 // seconds; 0xffffffff: never
	AssignedClientID   *string
	ServerKeepAlive    *uint16 // seconds
	AuthMethod         *string
	AuthData           []byte
	RequestProblemInfo *byte
	WillDelay          *uint32 // seconds
	RequestResponse    *byte   // request response information
	ResponseInfo       *string
	ServerReference    *string
	ReasonString       *string
	ReceiveMaximum     *uint16
	TopicAliasMaximum  *uint16
	TopicAlias         *uint16
	MaximumQoS         *byte
	RetainAvailable    *byte
	User               []UserProperty
	MaximumPacketSize  *uint32
	WildcardAvailable  *byte
	SubIDsAvailable    *byte
	SharedAvailable    *byte
}

// UserProperty is a name and a value of the sender's own; names may be there
// more than once, and their order counts.
type UserProperty struct{ Key, Value string }

// will stands for the properties of a will among the types (3.1.3.2).
const will Type = 0

// property is one line of the table of 2.2.2.2: where it may be, and its field,
// of which exactly one is set.
type property struct {
	id       byte
	name     string
	in       []Type
	byte     func(*Properties) **byte
	uint16   func(*Properties) **uint16
	uint32   func(*Properties) **uint32
	text     func(*Properties) **string
	data     func(*Properties) *[]byte
	nonzero  bool // 0 is a protocol error
	boolean  bool // more than 1 is one
	repeated bool // subscription identifiers and user properties, which have code of their own
}

const (
	idSubscription = 0x0b
	idUser         = 0x26
)

// acks are the packets that may carry a reason string and user properties.
var acks = []Type{CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH}

var table = []property{
	{id: 0x01, name: "payload format indicator", in: []Type{PUBLISH, will}, byte: func(p *Properties) **byte { return &p.PayloadFormat }, boolean: true},
	{id: 0x02, name: "message expiry interval", in: []Type{PUBLISH, will}, uint32: func(p *Properties) **uint32 { return &p.MessageExpiry }},
	{id: 0x03, name: "content type", in: []Type{PUBLISH, will}, text: func(p *Properties) **string { return &p.ContentType }},
	{id: 0x08, name: "response topic", in: []Type{PUBLISH, will}, text: func(p *Properties) **string { return &p.ResponseTopic }},
	{id: 0x09, name: "correlation data", in: []Type{PUBLISH, will}, data: func(p *Properties) *[]byte { return &p.CorrelationData }},
	{id: idSubscription, name: "subscription identifier", in: []Type{PUBLISH, SUBSCRIBE}, repeated: true},
	{id: 0x11, name: "session expiry interval", in: []Type{CONNECT, CONNACK, DISCONNECT}, uint32: func(p *Properties) **uint32 { return &p.SessionExpiry }},
	{id: 0x12, name: "assigned client identifier", in: []Type{CONNACK}, text: func(p *Properties) **string { return &p.AssignedClientID }},
	{id: 0x13, name: "server keep alive", in: []Type{CONNACK}, uint16: func(p *Properties) **uint16 { return &p.ServerKeepAlive }},
	{id: 0x15, name: "authentication method", in: []Type{CONNECT, CONNACK, AUTH}, text: func(p *Properties) **string { return &p.AuthMethod }},
	{id: 0x16, name: "authentication data", in: []Type{CONNECT, CONNACK, AUTH}, data: func(p *Properties) *[]byte { return &p.AuthData }},
	{id: 0x17, name: "request problem information", in: []Type{CONNECT}, byte: func(p *Properties) **byte { return &p.RequestProblemInfo }, boolean: true},
	{id: 0x18, name: "will delay interval", in: []Type{will}, uint32: func(p *Properties) **uint32 { return &p.WillDelay }},
	{id: 0x19, name: "request response information", in: []Type{CONNECT}, byte: func(p *Properties) **byte { return &p.RequestResponse }, boolean: true},
	{id: 0x1a, name: "response information", in: []Type{CONNACK}, text: func(p *Properties) **string { return &p.ResponseInfo }},
	{id: 0x1c, name: "server reference", in: []Type{CONNACK, DISCONNECT}, text: func(p *Properties) **string { return &p.ServerReference }},
	{id: 0x1f, name: "reason string", in: acks, text: func(p *Properties) **string { return &p.ReasonString }},
	{id: 0x21, name: "receive maximum", in: []Type{CONNECT, CONNACK}, uint16: func(p *Properties) **uint16 { return &p.ReceiveMaximum }, nonzero: true},
	{id: 0x22, name: "topic alias maximum", in: []Type{CONNECT, CONNACK}, uint16: func(p *Properties) **uint16 { return &p.TopicAliasMaximum }},
	{id: 0x23, name: "topic alias", in: []Type{PUBLISH}, uint16: func(p *Properties) **uint16 { return &p.TopicAlias }},
	{id: 0x24, name: "maximum QoS", in: []Type{CONNACK}, byte: func(p *Properties) **byte { return &p.MaximumQoS }, boolean: true},
	{id: 0x25, name: "retain available", in: []Type{CONNACK}, byte: func(p *Properties) **byte { return &p.RetainAvailable }, boolean: true},
	{id: idUser, name: "user property", in: append([]Type{CONNECT, PUBLISH, will, SUBSCRIBE, UNSUBSCRIBE}, acks...), repeated: true},
	{id: 0x27, name: "maximum packet size", in: []Type{CONNECT, CONNACK}, uint32: func(p *Properties) **uint32 { return &p.MaximumPacketSize }, nonzero: true},
	{id: 0x28, name: "wildcard subscription available", in: []Type{CONNACK}, byte: func(p *Properties) **byte { return &p.WildcardAvailable }, boolean: true},
	{id: 0x29, name: "subscription identifiers available", in: []Type{CONNACK}, byte: func(p *Properties) **byte { return &p.SubIDsAvailable }, boolean: true},
	{id: 0x2a, name: "shared subscription available", in: []Type{CONNACK}, byte: func(p *Properties) **byte { return &p.SharedAvailable }, boolean: true},
}

// byID finds a line of the table; none is nil.
var byID = func() (lines [0x40]*property) {
	for i := range table {
		lines[table[i].id] = &table[i]
	}
	return lines
}()

// properties reads the properties of a packet of type in.
func (r *reader) properties(in Type, p *Properties) {
	n := r.length("the length of the properties")
	section := reader{rest: r.take(n, "the properties")}
	for len(section.rest) > 0 {
		id := section.byte("a property")
		if int(id) >= len(byID) || byID[id] == nil {
			section.fail(malformed("there is no property 0x%02x", id))
			break
		}
		line := byID[id]
		if !slices.Contains(line.in, in) {
			where := in.String()
			if in == will {
				where = "a will"
			}
			section.fail(violation("%s does not belong into %s", line.name, where))
			break
		}
		section.property(line, in, p)
	}
	if section.err != nil {
		r.fail(section.err)
	}
}

// property reads one.
func (r *reader) property(line *property, in Type, p *Properties) {
	once := func(there bool) {
		if there {
			r.fail(violation("%s is there twice", line.name))
		}
	}
	value := uint64(1)
	switch {
	case line.id == idUser:
		p.User = append(p.User, UserProperty{r.text("a user property"), r.text("a user property")})
	case line.id == idSubscription:
		n := r.length(line.name)
		once(in == SUBSCRIBE && len(p.SubscriptionIDs) > 0)
		if n == 0 {
			r.fail(violation("%s is 0", line.name))
		}
		p.SubscriptionIDs = append(p.SubscriptionIDs, uint32(n))
	case line.byte != nil:
		once(*line.byte(p) != nil)
		n := r.byte(line.name)
		*line.byte(p), value = &n, uint64(n)
	case line.uint16 != nil:
		once(*line.uint16(p) != nil)
		n := r.uint16(line.name)
		*line.uint16(p), value = &n, uint64(n)
	case line.uint32 != nil:
		once(*line.uint32(p) != nil)
		n := r.uint32(line.name)
		*line.uint32(p), value = &n, uint64(n)
	case line.text != nil:
		once(*line.text(p) != nil)
		s := r.text(line.name)
		*line.text(p) = &s
	default:
		once(*line.data(p) != nil)
		*line.data(p) = r.binary(line.name)
	}
	if r.err == nil && (line.nonzero && value == 0 || line.boolean && value > 1) {
		r.fail(violation("%s may not be %d", line.name, value))
	}
}

// properties appends those that are set, whatever the packet.
func (w *writer) properties(p *Properties) {
	section := writer{}
	for i := range table {
		section.property(&table[i], p)
	}
	if section.err != nil {
		w.err = section.err
	}
	w.b = appendLength(w.b, len(section.b))
	w.b = append(w.b, section.b...)
}

func (w *writer) property(line *property, p *Properties) {
	put := func() { w.b = append(w.b, line.id) }
	switch {
	case line.id == idUser:
		for _, u := range p.User {
			put()
			w.text(u.Key)
			w.text(u.Value)
		}
	case line.id == idSubscription:
		for _, id := range p.SubscriptionIDs {
			put()
			w.b = appendLength(w.b, int(id))
		}
	case line.byte != nil && *line.byte(p) != nil:
		put()
		w.b = append(w.b, **line.byte(p))
	case line.uint16 != nil && *line.uint16(p) != nil:
		put()
		w.uint16(**line.uint16(p))
	case line.uint32 != nil && *line.uint32(p) != nil:
		put()
		w.uint32(**line.uint32(p))
	case line.text != nil && *line.text(p) != nil:
		put()
		w.text(**line.text(p))
	case line.data != nil && *line.data(p) != nil:
		put()
		w.binary(*line.data(p))
	}
}
