// Package packet is the wire format of MQTT 3.1.1 and 5.0: bytes in, values
// out, and back. ReadHeader reads the fixed header, Decode the rest, Append
// writes a packet.
//
// Decoding is strict. Whatever the standard calls a malformed packet or a
// protocol error that one packet shows by itself is an *Error with the reason
// code for it: reserved bits, strings that are not UTF-8 or hold a NUL, a
// property that is twice or does not belong there, bytes left over. What needs
// the state of a connection (a second CONNECT, an alias that is not known) is for
// the caller.
//
// Nothing is copied but strings: byte slices of a decoded packet are parts of the
// body that was given. Nothing is allocated by a length that a peer claims; the
// body's own length bounds everything.
//
// It is pure: no sockets, no clock. Section numbers are those of MQTT 5.0.
package packet

import "fmt"

// Type is the control packet type (2.1.2).
type Type byte

// The types of packets.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15 // MQTT 5 only
)

var typeNames = [...]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
	"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// String is the packet's name in the standard.
func (t Type) String() string { return typeNames[t&15] }

// The protocol's versions, as CONNECT names them (3.1.2.2).
const (
	V311 byte = 4
	V5   byte = 5
)

// Code is a reason code (2.4). Codes of CONNACK for MQTT 3.1.1 are the
// constants Refused….
type Code byte

// Reason codes that a server or a client of this package uses.
const (
	Success                 Code = 0x00 // also normal disconnection, granted QoS 0
	GrantedQoS1             Code = 0x01
	GrantedQoS2             Code = 0x02
	DisconnectWithWill      Code = 0x04
	NoMatchingSubscribers   Code = 0x10
	NoSubscriptionExisted   Code = 0x11
	Unspecified             Code = 0x80
	Malformed               Code = 0x81
	ProtocolError           Code = 0x82
	ImplementationSpecific  Code = 0x83
	UnsupportedVersion      Code = 0x84
	ClientIDNotValid        Code = 0x85
	BadUserNameOrPassword   Code = 0x86
	NotAuthorized           Code = 0x87
	ServerUnavailable       Code = 0x88
	ServerBusy              Code = 0x89
	Banned                  Code = 0x8a
	ServerShuttingDown      Code = 0x8b
	BadAuthenticationMethod Code = 0x8c
	KeepAliveTimeout        Code = 0x8d
	SessionTakenOver        Code = 0x8e
	TopicFilterInvalid      Code = 0x8f
	TopicNameInvalid        Code = 0x90
	PacketIDInUse           Code = 0x91
	PacketIDNotFound        Code = 0x92
	ReceiveMaximumExceeded  Code = 0x93
	TopicAliasInvalid       Code = 0x94
	PacketTooLarge          Code = 0x95
	MessageRateTooHigh      Code = 0x96
	QuotaExceeded           Code = 0x97
	AdministrativeAction    Code = 0x98
	PayloadFormatInvalid    Code = 0x99
	RetainNotSupported      Code = 0x9a
	QoSNotSupported         Code = 0x9b
	SharedNotSupported      Code = 0x9e
	ConnectionRateExceeded  Code = 0x9f
	SubscriptionIDsNotTaken Code = 0xa1
	WildcardsNotSupported   Code = 0xa2
	RefusedVersion          Code = 1 // CONNACK of MQTT 3.1.1 from here on (3.2.2.3 there)
	RefusedClientID         Code = 2
	RefusedUnavailable      Code = 3
	RefusedUserNamePassword Code = 4
	RefusedNotAuthorized    Code = 5
	SubscribeFailure311     Code = 0x80 // SUBACK of MQTT 3.1.1
)

// Error is why bytes are no packet.
type Error struct {
	Code   Code // Malformed, ProtocolError or what the standard names
	Reason string
}

// Error is the reason with its code.
func (e *Error) Error() string { return fmt.Sprintf("%s (reason code 0x%02x)", e.Reason, byte(e.Code)) }

func malformed(format string, args ...any) error {
	return &Error{Malformed, fmt.Sprintf(format, args...)}
}

func violation(format string, args ...any) error {
	return &Error{ProtocolError, fmt.Sprintf(format, args...)}
}

// Packet is one of the types below.
type Packet interface {
	// Type is what the fixed header says.
	Type() Type
	// Append appends the packet's bytes in the form of the given version
	// (V311 or V5). Properties are left out for V311. What does not fit the
	// format (a string over 65,535 bytes) is an error, and dst comes back as
	// it was.
	Append(dst []byte, version byte) ([]byte, error)
}

// Connect is CONNECT (3.1).
type Connect struct {
	Version    byte // V311 or V5
	CleanStart bool // MQTT 3.1.1: clean session
	KeepAlive  uint16
	ClientID   string
	Will       *Will
	// User and Password with whether they are there at all.
	HasUser     bool
	User        string
	HasPassword bool
	Password    []byte
	Properties  Properties
}

// Will is the message a server sends when the connection ends badly.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Connack is CONNACK (3.2).
type Connack struct {
	SessionPresent bool
	Code           Code
	Properties     Properties
}

// Publish is PUBLISH (3.3).
type Publish struct {
	Dup        bool
	QoS        byte
	Retain     bool
	Topic      string
	ID         uint16 // QoS 1 and 2
	Properties Properties
	Payload    []byte
}

// Ack is PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7).
type Ack struct {
	Kind       Type
	ID         uint16
	Code       Code // V311 has none
	Properties Properties
}

// Subscription is one filter of a SUBSCRIBE with its options (3.8.3.1).
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0: send what is retained, 1: only for a new subscription, 2: never
}

// Subscribe is SUBSCRIBE (3.8).
type Subscribe struct {
	ID            uint16
	Properties    Properties
	Subscriptions []Subscription
}

// Suback is SUBACK (3.9), one code a filter.
type Suback struct {
	ID         uint16
	Properties Properties
	Codes      []Code
}

// Unsubscribe is UNSUBSCRIBE (3.10).
type Unsubscribe struct {
	ID         uint16
	Properties Properties
	Filters    []string
}

// Unsuback is UNSUBACK (3.11). V311 has no codes.
type Unsuback struct {
	ID         uint16
	Properties Properties
	Codes      []Code
}

// Pingreq is PINGREQ (3.12), Pingresp the answer (3.13).
type (
	Pingreq  struct{}
	Pingresp struct{}
)

// Disconnect is DISCONNECT (3.14). V311 has no code.
type Disconnect struct {
	Code       Code
	Properties Properties
}

// Auth is AUTH (3.15), MQTT 5 only.
type Auth struct {
	Code       Code
	Properties Properties
}

// Type: see Packet.
func (*Connect) Type() Type { return CONNECT }

// Type: see Packet.
func (*Connack) Type() Type { return CONNACK }

// Type: see Packet.
func (*Publish) Type() Type { return PUBLISH }

// Type: see Packet.
func (p *Ack) Type() Type { return p.Kind }

// Type: see Packet.
func (*Subscribe) Type() Type { return SUBSCRIBE }

// Type: see Packet.
func (*Suback) Type() Type { return SUBACK }

// Type: see Packet.
func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }

// Type: see Packet.
func (*Unsuback) Type() Type { return UNSUBACK }

// Type: see Packet.
func (*Pingreq) Type() Type { return PINGREQ }

// Type: see Packet.
func (*Pingresp) Type() Type { return PINGRESP }

// Type: see Packet.
func (*Disconnect) Type() Type { return DISCONNECT }

// Type: see Packet.
func (*Auth) Type() Type { return AUTH }
