package brokertest

import (
	"slices"
)

// malformed is a packet that is wrong, and what a broker may say before it
// closes the connection. The table is of bytes and not of our own writer.
type malformed struct {
	name      string
	statement string
	versions  int
	first     bool // it is the first packet of the connection
	bytes     []byte
	codes     []byte // of version 5; nil: 0x81 malformed or 0x82 protocol error
}

// raw joins pieces: bytes as numbers, texts as they are, with their length if
// they are of type text.
func raw(parts ...any) (b []byte) {
	for _, part := range parts {
		switch part := part.(type) {
		case int:
			b = append(b, byte(part))
		case string:
			b = append(b, part...)
		case []byte:
			b = append(b, part...)
		case text:
			b = appendText(b, string(part))
		}
	}
	return b
}

type text string

// of writes a packet with its right length.
func of(first int, parts ...any) []byte {
	body := raw(parts...)
	return append(appendVariable([]byte{byte(first)}, len(body)), body...)
}

func connectTable() []malformed {
	three := raw(text("MQTT"), 4)
	fiveHead := raw(text("MQTT"), 5)
	return []malformed{
		{"CONNECT with flags in its header", "2.2.2-2", v311, true, of(0x11, three, 2, 0, 60, text("m")), nil},
		{"CONNECT with a reserved flag", "3.1.2-3", v311, true, of(0x10, three, 3, 0, 60, text("m")), nil},
		{"CONNECT with a reserved flag 5", "3.1.2-3", v5, true, of(0x10, fiveHead, 3, 0, 60, 0, text("m")), nil},
		{"CONNECT with a will QoS of 3", "3.1.2-14 | 3.1.2-12", v311, true, of(0x10, three, 0x1e, 0, 60, text("m"), text("w"), text("x")), nil},
		{"CONNECT with a will QoS of 3 5", "3.1.2-12", v5, true, of(0x10, fiveHead, 0x1e, 0, 60, 0, text("m"), 0, text("w"), text("x")), nil},
		{"CONNECT with a will QoS and no will", "3.1.2-13 | 3.1.2-11", v311, true, of(0x10, three, 0x0a, 0, 60, text("m")), nil},
		{"CONNECT with will retain and no will", "3.1.2-15 | 3.1.2-13", v311, true, of(0x10, three, 0x22, 0, 60, text("m")), nil},
		{"CONNECT with no body", "2.2.3", both, true, of(0x10), nil},
		{"CONNECT that ends in the name", "1.5.3", both, true, of(0x10, 0, 4, "MQ"), nil},
		{"CONNECT that ends before its flags", "3.1.2", both, true, of(0x10, three), nil},
		{"CONNECT that ends before keep alive", "3.1.2", v311, true, of(0x10, three, 2), nil},
		{"CONNECT without a client id", "3.1.3-3", v311, true, of(0x10, three, 2, 0, 60), nil},
		{"CONNECT with a client id that is short", "1.5.3", v311, true, of(0x10, three, 2, 0, 60, 0, 9, "m"), nil},
		{"CONNECT with a client id that is no UTF-8", "1.5.3-1 | 1.5.4-1", v311, true, of(0x10, three, 2, 0, 60, text("a\xff\xfeb")), nil},
		{"CONNECT with a client id that is half a surrogate", "1.5.3-1 | 1.5.4-1", v311, true, of(0x10, three, 2, 0, 60, text("a\xed\xa0\x80")), nil},
		{"CONNECT with a client id that has NUL", "1.5.3-2 | 1.5.4-2", v311, true, of(0x10, three, 2, 0, 60, text("a\x00b")), nil},
		{"CONNECT with a user name that is no UTF-8", "3.1.3-11", v311, true, of(0x10, three, 0x82, 0, 60, text("m"), text("\xc0\x80")), nil},
		{"CONNECT without its user name", "3.1.3.4", v311, true, of(0x10, three, 0x82, 0, 60, text("m")), nil},
		{"CONNECT without its password", "3.1.3.5", v311, true, of(0x10, three, 0xc2, 0, 60, text("m"), text("u")), nil},
		{"CONNECT without its will", "3.1.2-9", v311, true, of(0x10, three, 0x06, 0, 60, text("m")), nil},
		{"CONNECT with a will topic with a wildcard", "4.7.1-1 | 4.7.0-1", v311, true, of(0x10, three, 0x06, 0, 60, text("m"), text("a/#"), text("x")), nil},
		{"CONNECT with an empty will topic", "4.7.3-1", v311, true, of(0x10, three, 0x06, 0, 60, text("m"), text(""), text("x")), nil},
		{"CONNECT with bytes left over", "2.2.3", v311, true, of(0x10, three, 2, 0, 60, text("m"), "rest"), nil},
		{"CONNECT with a remaining length of five bytes", "2.2.3", both, true, raw(0x10, 0x80, 0x80, 0x80, 0x80, 0x01, three), nil},
		{"CONNECT with properties that do not end", "2.2.2", v5, true, of(0x10, fiveHead, 2, 0, 60, 0xff, 0xff, 0xff, 0xff, 0x7f), nil},
		{"CONNECT with properties that are short", "2.2.2", v5, true, of(0x10, fiveHead, 2, 0, 60, 100, text("m")), nil},
		{"CONNECT with an unknown property", "2.2.2", v5, true, of(0x10, fiveHead, 2, 0, 60, 2, 0x7f, 1, text("m")), nil},
		{"CONNECT with a property of another packet", "2.2.2", v5, true, of(0x10, fiveHead, 2, 0, 60, 3, propTopicAlias, 0, 1, text("m")), nil},
		{"CONNECT with a property twice", "3.1.2.11", v5, true, of(0x10, fiveHead, 2, 0, 60, 10, propSessionExpiry, 0, 0, 0, 1, propSessionExpiry, 0, 0, 0, 1, text("m")), nil},
		{"CONNECT with a receive maximum of 0", "3.1.2.11.3", v5, true, of(0x10, fiveHead, 2, 0, 60, 3, propReceiveMaximum, 0, 0, text("m")), nil},
		{"CONNECT with a maximum packet size of 0", "3.1.2.11.4", v5, true, of(0x10, fiveHead, 2, 0, 60, 5, propMaximumPacketSize, 0, 0, 0, 0, text("m")), nil},
		{"CONNECT with authentication data and no method", "3.1.2.11.10", v5, true, of(0x10, fiveHead, 2, 0, 60, 4, propAuthData, text("x"), text("m")), []byte{0x81, 0x82, 0x8c}},
		{"CONNECT with a problem information of 2", "3.1.2.11.7", v5, true, of(0x10, fiveHead, 2, 0, 60, 2, propRequestProblem, 2, text("m")), nil},
		{"CONNECT with a user property that is no UTF-8", "1.5.4-1", v5, true, of(0x10, fiveHead, 2, 0, 60, 7, propUserProperty, text("\xff"), text("x"), text("m")), nil},
		{"a packet of type 0 first", "2.2.1", both, true, of(0x00, "x"), nil},
		{"AUTH first", "3.1.0-1", both, true, of(0xf0), nil},
		{"HTTP", "3.1.0-1", both, true, []byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"), nil},
	}
}

func publishTable() []malformed {
	return []malformed{
		{"PUBLISH with QoS 3", "3.3.1-4", v311, false, of(0x36, text("brokertest/m"), 0, 1, "x"), nil},
		{"PUBLISH with QoS 3 5", "3.3.1-4", v5, false, of(0x36, text("brokertest/m"), 0, 1, 0, "x"), nil},
		{"PUBLISH with DUP and QoS 0", "3.3.1-2", v311, false, of(0x38, text("brokertest/m"), "x"), nil},
		{"PUBLISH with DUP and QoS 0 5", "3.3.1-2", v5, false, of(0x38, text("brokertest/m"), 0, "x"), nil},
		{"PUBLISH with a + in its topic", "3.3.2-2", v311, false, of(0x30, text("brokertest/+/m"), "x"), []byte{0x81, 0x82, 0x90}},
		{"PUBLISH with a # in its topic 5", "3.3.2-2", v5, false, of(0x30, text("brokertest/#"), 0, "x"), []byte{0x81, 0x82, 0x90}},
		{"PUBLISH with an empty topic", "4.7.3-1", v311, false, of(0x30, text(""), "x"), nil},
		{"PUBLISH with an empty topic and no alias", "3.3.2-8", v5, false, of(0x30, text(""), 0, "x"), []byte{0x81, 0x82, 0x90}},
		{"PUBLISH with NUL in its topic", "4.7.3-2", v311, false, of(0x30, text("brokertest/\x00"), "x"), []byte{0x81, 0x82, 0x90}},
		{"PUBLISH with a topic that is no UTF-8", "3.3.2-1", v311, false, of(0x30, text("brokertest/\xc3\x28"), "x"), nil},
		{"PUBLISH with a topic that is too long UTF-8", "1.5.3-1", v311, false, of(0x30, text("brokertest/\xc0\xaf"), "x"), nil},
		{"PUBLISH with packet id 0", "2.3.1-1 | 2.2.1-3", v311, false, of(0x32, text("brokertest/m"), 0, 0, "x"), nil},
		{"PUBLISH with packet id 0 5", "2.2.1-3", v5, false, of(0x34, text("brokertest/m"), 0, 0, 0, "x"), nil},
		{"PUBLISH without its packet id", "2.3.1-1", v311, false, of(0x32, text("brokertest/m"), 0), nil},
		{"PUBLISH with no body", "3.3.2", both, false, of(0x30), nil},
		{"PUBLISH with a topic that is short", "1.5.3", both, false, of(0x30, 0, 200, "brokertest/m"), nil},
		{"PUBLISH with properties that are short", "2.2.2", v5, false, of(0x30, text("brokertest/m"), 90, "x"), nil},
		{"PUBLISH with an unknown property", "2.2.2", v5, false, of(0x30, text("brokertest/m"), 2, 0x00, 0x00), nil},
		{"PUBLISH with a subscription identifier", "3.3.4-6", v5, false, of(0x30, text("brokertest/m"), 2, propSubscriptionID, 1, "x"), nil},
		{"PUBLISH with a topic alias of 0", "3.3.2-8", v5, false, of(0x30, text("brokertest/m"), 3, propTopicAlias, 0, 0, "x"), []byte{0x81, 0x82, 0x94}},
		{"PUBLISH with a response topic with a wildcard", "3.3.2-14", v5, false, of(0x30, text("brokertest/m"), 6, propResponseTopic, text("a/#"), "x"), []byte{0x81, 0x82, 0x90}},
		{"PUBLISH with an expiry twice", "3.3.2.3.3", v5, false, of(0x30, text("brokertest/m"), 10, propMessageExpiry, 0, 0, 0, 9, propMessageExpiry, 0, 0, 0, 9, "x"), nil},
		{"PUBACK with flags", "2.2.2-2", both, false, of(0x41, 0, 1), nil},
		{"PUBACK that is short", "3.4.2", both, false, of(0x40, 0), nil},
		{"PUBREL with flags 0", "3.6.1-1", both, false, of(0x60, 0, 1), nil},
		{"PUBREL with packet id 0", "2.3.1-1 | 2.2.1-3", both, false, of(0x62, 0, 0), nil},
	}
}

func otherTable() []malformed {
	return []malformed{
		{"SUBSCRIBE with flags 0", "3.8.1-1", v311, false, of(0x80, 0, 1, text("brokertest/m"), 0), nil},
		{"SUBSCRIBE with flags 0 5", "3.8.1-1", v5, false, of(0x80, 0, 1, 0, text("brokertest/m"), 0), nil},
		{"SUBSCRIBE with no filter", "3.8.3-3 | 3.8.3-2", v311, false, of(0x82, 0, 1), nil},
		{"SUBSCRIBE with no filter 5", "3.8.3-2", v5, false, of(0x82, 0, 1, 0), nil},
		{"SUBSCRIBE with packet id 0", "2.3.1-1", v311, false, of(0x82, 0, 0, text("brokertest/m"), 0), nil},
		{"SUBSCRIBE with QoS 3", "3-8.3-4", v311, false, of(0x82, 0, 1, text("brokertest/m"), 3), nil},
		{"SUBSCRIBE with reserved bits", "3-8.3-4", v311, false, of(0x82, 0, 1, text("brokertest/m"), 4), nil},
		{"SUBSCRIBE with reserved bits 5", "3.8.3-5", v5, false, of(0x82, 0, 1, 0, text("brokertest/m"), 0xc0), nil},
		{"SUBSCRIBE with a retain handling of 3", "3.8.3.1", v5, false, of(0x82, 0, 1, 0, text("brokertest/m"), 0x30), nil},
		{"SUBSCRIBE without its QoS", "3.8.3", v311, false, of(0x82, 0, 1, text("brokertest/m")), nil},
		{"SUBSCRIBE with an empty filter", "4.7.3-1", v311, false, of(0x82, 0, 1, text(""), 0), nil},
		{"SUBSCRIBE with a filter that is no UTF-8", "3.8.3-1", v311, false, of(0x82, 0, 1, text("\xff"), 0), nil},
		{"SUBSCRIBE with NUL in its filter", "4.7.3-2", v311, false, of(0x82, 0, 1, text("a\x00"), 0), nil},
		{"SUBSCRIBE with a # that is not last", "4.7.1-2 | 4.7.1-1", v311, false, of(0x82, 0, 1, text("a/#/b"), 0), nil},
		{"SUBSCRIBE with a # in a name", "4.7.1-2 | 4.7.1-1", v5, false, of(0x82, 0, 1, 0, text("a/b#"), 0), []byte{0x81, 0x82, 0x8f}},
		{"SUBSCRIBE with a + in a name", "4.7.1-3 | 4.7.1-2", v311, false, of(0x82, 0, 1, text("a/b+"), 0), nil},
		{"SUBSCRIBE with a subscription identifier of 0", "3.8.2.1.2", v5, false, of(0x82, 0, 1, 2, propSubscriptionID, 0, text("brokertest/m"), 0), nil},
		{"SUBSCRIBE with no local and shared", "3.8.3-4", v5, false, of(0x82, 0, 1, 0, text("$share/g/brokertest/m"), 4), nil},
		{"SUBSCRIBE with an empty group", "4.8.2-1", v5, false, of(0x82, 0, 1, 0, text("$share//brokertest/m"), 0), []byte{0x81, 0x82, 0x8f}},
		{"SUBSCRIBE with a wildcard in its group", "4.8.2-2", v5, false, of(0x82, 0, 1, 0, text("$share/g+/brokertest/m"), 0), []byte{0x81, 0x82, 0x8f}},
		{"UNSUBSCRIBE with flags 0", "3.10.1-1", v311, false, of(0xa0, 0, 1, text("brokertest/m")), nil},
		{"UNSUBSCRIBE with no filter", "3.10.3-2", v311, false, of(0xa2, 0, 1), nil},
		{"UNSUBSCRIBE with no filter 5", "3.10.3-2", v5, false, of(0xa2, 0, 1, 0), nil},
		{"UNSUBSCRIBE with packet id 0", "2.3.1-1", v311, false, of(0xa2, 0, 0, text("brokertest/m")), nil},
		{"PINGREQ with flags", "2.2.2-2", both, false, of(0xc1), nil},
		{"PINGREQ with a body", "3.12", both, false, of(0xc0, 0), nil},
		{"DISCONNECT with flags", "3.14.1-1", both, false, of(0xe1), nil},
		{"DISCONNECT with a property that does not exist", "2.2.2", v5, false, of(0xe0, 0, 2, 0x7f, 0), nil},
		{"a CONNACK from a client", "3.2", both, false, of(0x20, 0, 0), nil},
		{"a SUBACK from a client", "3.9", both, false, of(0x90, 0, 1, 0), nil},
		{"a PINGRESP from a client", "3.13", both, false, of(0xd0), nil},
		{"a packet of type 0", "2.2.1", both, false, of(0x00), nil},
		{"a packet of type 15", "2.2.1", v311, false, of(0xf0), nil},
		{"AUTH without a method", "3.15.1-1, 4.12.0-1", v5, false, of(0xf0), nil},
		{"AUTH with flags", "3.15.1-1", v5, false, of(0xf1), nil},
		{"a remaining length of five bytes", "2.2.3", both, false, raw(0x30, 0xff, 0xff, 0xff, 0xff, 0x7f), nil},
	}
}

// malformedChecks makes a check of each line: it ends its own connection, and
// no other.
func malformedChecks() (list []check) {
	for _, m := range slices.Concat(connectTable(), publishTable(), otherTable()) {
		list = append(list, check{m.name, m.statement, m.versions, m.run})
	}
	return list
}

func (m malformed) run(t *trial) {
	other := t.join("other")
	var c *client
	if m.first {
		c = t.dial()
	} else {
		c = t.join("m")
	}
	c.send(m.bytes)
	if slices.Contains(m.codes, 0x8f) {
		// A filter that is none may be refused alone.
		f, err := c.read(t.limit)
		if a, fault := f.answer(t.version); err == nil && fault == nil && f.kind == kindSuback && a.code == 0x8f {
			return
		}
		if err == nil && f.kind == kindSuback {
			t.Fatalf("it is answered with %v", f)
		}
		if err == nil {
			m.check(t, f)
		}
		other.ping()
		return
	}
	if f, sent := c.closed(); sent {
		m.check(t, f)
	}
	other.ping()
}

// check looks at what the broker says before it closes the connection.
func (m malformed) check(t *trial, f frame) {
	kind := byte(kindDisconnect)
	if m.first {
		kind = kindConnack
	}
	a, err := f.answer(t.version)
	switch {
	case t.version == version311 && (!m.first || f.kind != kind || a.code == 0):
		// Version 3.1.1 has a word for it only in CONNACK.
		t.Fatalf("before it closes the broker sends %v", f)
	case t.version == version311:
		return
	}
	codes := m.codes
	if codes == nil {
		codes = []byte{0x81, 0x82}
	}
	if m.first { // it may not see what the bytes were meant to be
		codes = append(slices.Clone(codes), 0x84, 0x85)
	}
	if err != nil || f.kind != kind && f.kind != kindDisconnect || !slices.Contains(codes, a.code) {
		t.Fatalf("before it closes the broker sends %v, want %s with one of %#x", f, kindNames[kind], codes)
	}
}
