package packet_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-edge/weir/ingest/broker/packet"
)

func ptr[T any](v T) *T { return &v }

// whole is one of every packet, with every property where it may be.
func whole() []packet.Packet {
	user := []packet.UserProperty{{Key: "a", Value: "1"}, {Key: "a", Value: ""}}
	message := packet.Properties{
		PayloadFormat: ptr(byte(1)), MessageExpiry: ptr(uint32(60)), ContentType: ptr("text/plain"),
		ResponseTopic: ptr("back/here"), CorrelationData: []byte{}, User: user,
	}
	will, publish := message, message
	will.WillDelay = ptr(uint32(5))
	publish.SubscriptionIDs, publish.TopicAlias = []uint32{1, 268_435_455}, ptr(uint16(7))
	ack := packet.Properties{ReasonString: ptr("why"), User: user}
	list := []packet.Packet{
		&packet.Connect{Version: packet.V5, CleanStart: true, KeepAlive: 30, ClientID: "dev", HasUser: true, User: "u", HasPassword: true, Password: []byte{0, 1},
			Will: &packet.Will{Topic: "gone/dev", Payload: []byte("x"), QoS: 2, Retain: true, Properties: will},
			Properties: packet.Properties{SessionExpiry: ptr(uint32(9)), ReceiveMaximum: ptr(uint16(10)), MaximumPacketSize: ptr(uint32(1000)),
				TopicAliasMaximum: ptr(uint16(3)), RequestResponse: ptr(byte(1)), RequestProblemInfo: ptr(byte(0)), AuthMethod: ptr("m"), AuthData: []byte("d"), User: user}},
		&packet.Connack{SessionPresent: true, Properties: packet.Properties{
			SessionExpiry: ptr(uint32(1)), ReceiveMaximum: ptr(uint16(2)), MaximumQoS: ptr(byte(1)), RetainAvailable: ptr(byte(1)), MaximumPacketSize: ptr(uint32(5)),
			AssignedClientID: ptr("auto"), TopicAliasMaximum: ptr(uint16(1)), ReasonString: ptr(""), WildcardAvailable: ptr(byte(1)), SubIDsAvailable: ptr(byte(1)),
			SharedAvailable: ptr(byte(0)), ServerKeepAlive: ptr(uint16(20)), ResponseInfo: ptr("r"), ServerReference: ptr("s"), AuthMethod: ptr("m"), AuthData: []byte{1}, User: user}},
		&packet.Publish{Dup: true, QoS: 2, Retain: true, Topic: "a/b", ID: 65535, Properties: publish, Payload: []byte("payload")},
		&packet.Publish{Topic: "a", Payload: []byte{}},
		&packet.Subscribe{ID: 1, Properties: packet.Properties{SubscriptionIDs: []uint32{3}, User: user}, Subscriptions: []packet.Subscription{
			{Filter: "a/#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, {Filter: "+"}}},
		&packet.Suback{ID: 2, Properties: ack, Codes: []packet.Code{0, 1, 2, packet.NotAuthorized}},
		&packet.Unsubscribe{ID: 3, Properties: packet.Properties{User: user}, Filters: []string{"a/#", "+"}},
		&packet.Unsuback{ID: 4, Properties: ack, Codes: []packet.Code{0, 0x11}},
		&packet.Pingreq{}, &packet.Pingresp{},
		&packet.Disconnect{}, &packet.Disconnect{Code: packet.ServerShuttingDown},
		&packet.Disconnect{Code: packet.DisconnectWithWill, Properties: packet.Properties{SessionExpiry: ptr(uint32(0)), ServerReference: ptr("x"), ReasonString: ptr("r"), User: user}},
		&packet.Auth{Code: 0x18, Properties: packet.Properties{AuthMethod: ptr("m"), AuthData: []byte("d"), ReasonString: ptr("r"), User: user}},
	}
	for _, kind := range []packet.Type{packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP} {
		list = append(list, &packet.Ack{Kind: kind, ID: 5}, &packet.Ack{Kind: kind, ID: 6, Code: packet.PacketIDNotFound, Properties: ack})
	}
	return list
}

// decode reads one packet from the wire.
func decode(version byte, wire []byte) (packet.Packet, error) {
	r := bytes.NewReader(wire)
	h, err := packet.ReadHeader(r, 1<<20)
	if err != nil {
		return nil, err
	}
	return packet.Decode(version, h, wire[len(wire)-r.Len():])
}

func TestThereAndBack(t *testing.T) {
	for _, p := range whole() {
		prefix := []byte("before")
		wire, err := p.Append(prefix, packet.V5)
		if err != nil || !bytes.HasPrefix(wire, prefix) {
			t.Fatalf("%s: %v", p.Type(), err)
		}
		got, err := decode(packet.V5, wire[len(prefix):])
		if err != nil {
			t.Fatalf("%s: % x: %v", p.Type(), wire, err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p.Type(), diff)
		}
		if _, err := decode(packet.V5, wire[len(prefix):len(wire)-1]); err == nil {
			t.Errorf("%s is taken without its last byte", p.Type())
		}
	}
}

// TestPaho: what another implementation writes is read, and it reads what is
// written here (MQTT 3.1.1).
func TestPaho(t *testing.T) {
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion, connect.CleanSession, connect.Keepalive, connect.ClientIdentifier = "MQTT", 4, true, 30, "dev"
	connect.WillFlag, connect.WillTopic, connect.WillMessage, connect.WillQos, connect.WillRetain = true, "gone", []byte("x"), 1, true
	connect.UsernameFlag, connect.Username, connect.PasswordFlag, connect.Password = true, "u", true, []byte("p")
	publish := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	publish.TopicName, publish.Payload, publish.Qos, publish.MessageID, publish.Dup, publish.Retain = "a/b", []byte("payload"), 2, 77, true, true
	subscribe := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	subscribe.MessageID, subscribe.Topics, subscribe.Qoss = 9, []string{"a/#", "+"}, []byte{2, 0}
	unsubscribe := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	unsubscribe.MessageID, unsubscribe.Topics = 10, []string{"a/#"}
	puback := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	puback.MessageID = 11
	pubrel := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	pubrel.MessageID = 12
	for _, c := range []struct {
		theirs packets.ControlPacket
		want   packet.Packet
	}{
		{connect, &packet.Connect{Version: packet.V311, CleanStart: true, KeepAlive: 30, ClientID: "dev", HasUser: true, User: "u", HasPassword: true,
			Password: []byte("p"), Will: &packet.Will{Topic: "gone", Payload: []byte("x"), QoS: 1, Retain: true}}},
		{publish, &packet.Publish{Dup: true, QoS: 2, Retain: true, Topic: "a/b", ID: 77, Payload: []byte("payload")}},
		{subscribe, &packet.Subscribe{ID: 9, Subscriptions: []packet.Subscription{{Filter: "a/#", QoS: 2}, {Filter: "+"}}}},
		{unsubscribe, &packet.Unsubscribe{ID: 10, Filters: []string{"a/#"}}},
		{puback, &packet.Ack{Kind: packet.PUBACK, ID: 11}},
		{pubrel, &packet.Ack{Kind: packet.PUBREL, ID: 12}},
		{packets.NewControlPacket(packets.Pingreq), &packet.Pingreq{}},
		{packets.NewControlPacket(packets.Disconnect), &packet.Disconnect{}},
	} {
		var theirs bytes.Buffer
		if err := c.theirs.Write(&theirs); err != nil {
			t.Fatal(err)
		}
		got, err := decode(packet.V311, theirs.Bytes())
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.want.Type(), err, diff)
		}
		ours, err := c.want.Append(nil, packet.V311)
		if err != nil || !bytes.Equal(ours, theirs.Bytes()) {
			t.Errorf("%s: % x, not % x, %v", c.want.Type(), ours, theirs.Bytes(), err)
		}
	}
	for _, ours := range []packet.Packet{
		&packet.Connack{SessionPresent: true}, &packet.Suback{ID: 1, Codes: []packet.Code{1, 0x80}}, &packet.Unsuback{ID: 2},
		&packet.Ack{Kind: packet.PUBREC, ID: 3}, &packet.Ack{Kind: packet.PUBCOMP, ID: 4}, &packet.Pingresp{},
	} {
		wire, err := ours.Append(nil, packet.V311)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := packets.ReadPacket(bytes.NewReader(wire))
		if err != nil || !strings.HasPrefix(theirs.String(), ours.Type().String()) {
			t.Errorf("%s: they read %v, %v", ours.Type(), theirs, err)
		}
	}
}

// TestMalformed: each breaks one rule. The bytes are what follows the fixed
// header unless they begin with !.
func TestMalformed(t *testing.T) {
	connect := func(flags byte, rest string) string { return "\x00\x04MQTT\x04" + string(flags) + "\x00\x0a" + rest }
	for _, c := range []struct {
		name    string
		version byte
		first   byte
		body    string
		want    packet.Code
	}{
		{"type 0", 5, 0x00, "", packet.Malformed},
		{"AUTH in 3.1.1", 4, 0xf0, "", packet.Malformed},
		{"first is no CONNECT", 0, 0xc0, "", packet.ProtocolError},
		{"CONNECT with flags", 0, 0x11, connect(2, "\x00\x01a"), packet.Malformed},
		{"another protocol", 0, 0x10, "\x00\x04HTTP\x04\x02\x00\x0a\x00\x01a", packet.ProtocolError},
		{"MQTT 3.1", 0, 0x10, "\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x01a", packet.UnsupportedVersion},
		{"MQTT 6", 0, 0x10, "\x00\x04MQTT\x06\x02\x00\x0a\x00\x01a", packet.UnsupportedVersion},
		{"reserved connect flag", 0, 0x10, connect(3, "\x00\x01a"), packet.Malformed},
		{"will QoS 3", 0, 0x10, connect(0x1e, "\x00\x01a\x00\x01w\x00\x01x"), packet.Malformed},
		{"will QoS without will", 0, 0x10, connect(0x0a, "\x00\x01a"), packet.Malformed},
		{"will retain without will", 0, 0x10, connect(0x22, "\x00\x01a"), packet.Malformed},
		{"password without user", 0, 0x10, connect(0x42, "\x00\x01a\x00\x01p"), packet.Malformed},
		{"will topic with a wildcard", 0, 0x10, connect(0x06, "\x00\x01a\x00\x01#\x00\x01x"), packet.TopicNameInvalid},
		{"will topic empty", 0, 0x10, connect(0x06, "\x00\x01a\x00\x00\x00\x01x"), packet.ProtocolError},
		{"client id not UTF-8", 0, 0x10, connect(2, "\x00\x01\xff"), packet.Malformed},
		{"client id with NUL", 0, 0x10, connect(2, "\x00\x01\x00"), packet.Malformed},
		{"client id a surrogate", 0, 0x10, connect(2, "\x00\x03\xed\xa0\x80"), packet.Malformed},
		{"bytes left over", 0, 0x10, connect(2, "\x00\x01ab"), packet.Malformed},
		{"client id too short", 0, 0x10, connect(2, "\x00\x05ab"), packet.Malformed},
		{"authentication data alone", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x04\x16\x00\x01x\x00\x01a", packet.ProtocolError},
		{"receive maximum 0", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x00\x00\x01a", packet.ProtocolError},
		{"receive maximum twice", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x06\x21\x00\x01\x21\x00\x01\x00\x01a", packet.ProtocolError},
		{"request problem information 2", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x02\x17\x02\x00\x01a", packet.ProtocolError},
		{"a property of PUBLISH", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x03\x23\x00\x01\x00\x01a", packet.ProtocolError},
		{"a property that does not exist", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x02\x7f\x00\x00\x01a", packet.Malformed},
		{"properties longer than the packet", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x7f", packet.Malformed},
		{"properties of five bytes of length", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\xff\xff\xff\xff\x7f", packet.Malformed},
		{"length of properties padded", 0, 0x10, "\x00\x04MQTT\x05\x02\x00\x0a\x80\x00\x00\x01a", packet.Malformed},
		{"QoS 3", 4, 0x36, "\x00\x01a\x00\x01", packet.Malformed},
		{"DUP with QoS 0", 4, 0x38, "\x00\x01a", packet.Malformed},
		{"topic with +", 4, 0x30, "\x00\x03a/+", packet.TopicNameInvalid},
		{"topic with #", 4, 0x30, "\x00\x01#", packet.TopicNameInvalid},
		{"topic empty", 4, 0x30, "\x00\x00", packet.ProtocolError},
		{"topic with NUL", 4, 0x30, "\x00\x02a\x00", packet.Malformed},
		{"topic empty without alias", 5, 0x30, "\x00\x00\x00", packet.ProtocolError},
		{"topic alias 0", 5, 0x30, "\x00\x01a\x03\x23\x00\x00", packet.TopicAliasInvalid},
		{"payload format 2", 5, 0x30, "\x00\x01a\x02\x01\x02", packet.ProtocolError},
		{"response topic with a wildcard", 5, 0x30, "\x00\x01a\x04\x08\x00\x01#", packet.TopicNameInvalid},
		{"subscription identifier 0", 5, 0x30, "\x00\x01a\x02\x0b\x00", packet.ProtocolError},
		{"identifier 0", 4, 0x32, "\x00\x01a\x00\x00", packet.Malformed},
		{"identifier missing", 4, 0x32, "\x00\x01a", packet.Malformed},
		{"PUBREL without its flags", 4, 0x60, "\x00\x01", packet.Malformed},
		{"PUBACK with flags", 4, 0x42, "\x00\x01", packet.Malformed},
		{"PUBACK with a code in 3.1.1", 4, 0x40, "\x00\x01\x00", packet.Malformed},
		{"PUBACK with identifier 0", 4, 0x40, "\x00\x00", packet.Malformed},
		{"SUBSCRIBE without its flags", 4, 0x80, "\x00\x01\x00\x01a\x00", packet.Malformed},
		{"SUBSCRIBE without a filter", 4, 0x82, "\x00\x01", packet.ProtocolError},
		{"SUBSCRIBE with an empty filter", 4, 0x82, "\x00\x01\x00\x00\x00", packet.Malformed},
		{"SUBSCRIBE with QoS 3", 4, 0x82, "\x00\x01\x00\x01a\x03", packet.Malformed},
		{"SUBSCRIBE 3.1.1 with options of 5", 4, 0x82, "\x00\x01\x00\x01a\x04", packet.Malformed},
		{"SUBSCRIBE with reserved options", 5, 0x82, "\x00\x01\x00\x00\x01a\x40", packet.Malformed},
		{"SUBSCRIBE with retain handling 3", 5, 0x82, "\x00\x01\x00\x00\x01a\x30", packet.ProtocolError},
		{"SUBSCRIBE with two identifiers", 5, 0x82, "\x00\x01\x04\x0b\x01\x0b\x02\x00\x01a\x00", packet.ProtocolError},
		{"SUBSCRIBE without options", 4, 0x82, "\x00\x01\x00\x01a", packet.Malformed},
		{"UNSUBSCRIBE without a filter", 4, 0xa2, "\x00\x01", packet.ProtocolError},
		{"UNSUBSCRIBE with an empty filter", 4, 0xa2, "\x00\x01\x00\x00", packet.Malformed},
		{"PINGREQ with a body", 4, 0xc0, "x", packet.Malformed},
		{"DISCONNECT with a body in 3.1.1", 4, 0xe0, "\x00", packet.Malformed},
		{"DISCONNECT with flags", 4, 0xe1, "", packet.Malformed},
		{"a reason string twice", 5, 0xe0, "\x00\x08\x1f\x00\x01a\x1f\x00\x01b", packet.ProtocolError},
		{"session present in a refusal", 4, 0x20, "\x01\x05", packet.ProtocolError},
		{"SUBACK without codes", 4, 0x90, "\x00\x01", packet.ProtocolError},
	} {
		h := packet.Header{Type: packet.Type(c.first >> 4), Flags: c.first & 15, Length: len(c.body)}
		p, err := packet.Decode(c.version, h, []byte(c.body))
		var fault *packet.Error
		if !errors.As(err, &fault) || fault.Code != c.want {
			t.Errorf("%s: %+v, %v; want code 0x%02x", c.name, p, err, byte(c.want))
		}
	}
}

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		wire   string
		length int
		want   string
	}{
		{"\x30\x00", 0, ""},
		{"\x30\x7f", 127, ""},
		{"\x30\xff\xff\xff\x7f", packet.MaxLength, ""},
		{"\x30\x80\x00", 0, "fewest bytes"},
		{"\x30\xff\xff\xff\xff\x01", 0, "more than four bytes"},
		{"\x30\xff", 0, "unexpected EOF"},
		{"", 0, "EOF"},
	} {
		h, err := packet.ReadHeader(strings.NewReader(c.wire), packet.MaxLength)
		if c.want == "" && (err != nil || h.Length != c.length || h.Type != packet.PUBLISH) || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("% x: %+v, %v", c.wire, h, err)
		}
	}
	var fault *packet.Error
	if h, err := packet.ReadHeader(strings.NewReader("\x10\xff\x7f"), 16<<10-2); !errors.As(err, &fault) || fault.Code != packet.PacketTooLarge || h.Type != packet.CONNECT {
		t.Errorf("over the limit: %+v, %v", h, err)
	}
	if _, err := packet.ReadHeader(strings.NewReader(""), 1); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
}

func TestTooLong(t *testing.T) {
	before := []byte("before")
	got, err := (&packet.Publish{Topic: strings.Repeat("x", 65536)}).Append(before, packet.V311)
	if err == nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzDecode: nothing panics, and what is read is written and read alike.
func FuzzDecode(f *testing.F) {
	for _, p := range whole() {
		for _, version := range []byte{packet.V311, packet.V5} {
			if wire, err := p.Append(nil, version); err == nil {
				f.Add(version, wire)
			}
		}
	}
	f.Add(byte(0), []byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a"))
	f.Fuzz(func(t *testing.T, version byte, wire []byte) {
		if version != 0 {
			version = 4 + version&1
		}
		p, err := decode(version, wire)
		if err != nil {
			return
		}
		if c, ok := p.(*packet.Connect); ok {
			version = c.Version
		}
		again, err := p.Append(nil, version)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", p, err)
		}
		q, err := decode(version, again)
		if diff := cmp.Diff(p, q, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v: %s", err, diff)
		}
	})
}

// BenchmarkPublish: a QoS 1 message of 256 bytes, read and acknowledged.
func BenchmarkPublish(b *testing.B) {
	wire, err := (&packet.Publish{Topic: "devices/press-7/temperature", QoS: 1, ID: 7, Payload: make([]byte, 256)}).Append(nil, packet.V311)
	if err != nil {
		b.Fatal(err)
	}
	h := packet.Header{Type: packet.PUBLISH, Flags: wire[0] & 15, Length: len(wire) - 3}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		p, err := packet.Decode(packet.V311, h, wire[3:])
		if err != nil {
			b.Fatal(err)
		}
		if out, err = (&packet.Ack{Kind: packet.PUBACK, ID: p.(*packet.Publish).ID}).Append(out[:0], packet.V311); err != nil {
			b.Fatal(err)
		}
	}
}
