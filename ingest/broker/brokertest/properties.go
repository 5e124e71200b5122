package brokertest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// propertyChecks are about what version 5 added.
var propertyChecks = []check{
	{"the properties of a message are passed on", "3.3.2-15, 3.3.2-17, 3.3.2-20", v5, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 1})
		sent := properties{{id: propPayloadFormat, n: 1}, {id: propContentType, text: "text/plain"}, {id: propResponseTopic, text: "a/b"}, {id: propCorrelation, text: "\x00\xff"},
			{id: propUserProperty, text: "k", more: "1"}, {id: propUserProperty, text: "k", more: "2"}, {id: propUserProperty, text: "a", more: ""}}
		c.publish(publish{topic: t.topic("x"), payload: "x", qos: 1, props: sent})
		p := c.wants(t.topic("x"), "x", 1)
		var users string
		for _, one := range p.props {
			if one.id == propUserProperty {
				users += one.text + one.more + " "
			}
		}
		if n, _ := p.props.number(propPayloadFormat); n != 1 || p.props.text(propContentType) != "text/plain" || p.props.text(propResponseTopic) != "a/b" || p.props.text(propCorrelation) != "\x00\xff" || users != "k1 k2 a " {
			t.Errorf("the properties are %v", p.props)
		}
	}},
	{"the properties of a retained message are kept", "3.3.2.3", v5, func(t *trial) {
		c := t.join("a")
		c.publish(publish{topic: t.topic("r"), payload: "x", qos: 1, retain: true, props: properties{{id: propContentType, text: "text/plain"}}})
		c.subscribe(subscription{t.topic("r"), 1})
		if p := c.wants(t.topic("r"), "x", 1); p.props.text(propContentType) != "text/plain" {
			t.Errorf("the properties are %v", p.props)
		}
		c.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
	{"no local", "3.8.3-3", v5, func(t *trial) {
		c, other := t.join("a"), t.join("b")
		c.subscribe(subscription{t.topic("x"), 1 | noLocal})
		c.put(t.topic("x"), "own", 1)
		c.only(other, t.topic("x"))
	}},
	{"retain as published", "3.3.1-13", v5, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("r"), 1 | retainAsPublished})
		c.publish(publish{topic: t.topic("r"), payload: "x", qos: 1, retain: true})
		if p := c.wants(t.topic("r"), "x", 1); !p.retain {
			t.Errorf("the message is not marked as retained")
		}
		c.put(t.topic("r"), "y", 1)
		if p := c.wants(t.topic("r"), "y", 1); p.retain {
			t.Errorf("the message is marked as retained")
		}
		c.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
	{"retain handling", "3.3.1-9, 3.3.1-10, 3.3.1-11", v5, func(t *trial) {
		c, pub := t.join("a"), t.join("pub")
		pub.publish(publish{topic: t.topic("r"), payload: "kept", qos: 1, retain: true})
		c.subscribe(subscription{t.topic("r"), 1 | retainNever})
		c.only(pub, t.topic("r"))
		c.subscribe(subscription{t.topic("r"), 1 | retainIfNew}) // it is there already
		c.only(pub, t.topic("r"))
		c.subscribe(subscription{t.topic("r"), 1})
		c.wants(t.topic("r"), "kept", 1)
		c.unsubscribe(t.topic("r"))
		c.subscribe(subscription{t.topic("r"), 1 | retainIfNew})
		c.wants(t.topic("r"), "kept", 1)
		pub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
	{"subscription identifiers", "3.3.4-3", v5, func(t *trial) {
		c := t.join("a")
		c.subscribeWith(properties{{id: propSubscriptionID, n: 268_435_455}}, subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "x", 1)
		if n, _ := c.wants(t.topic("x"), "x", 1).props.number(propSubscriptionID); n != 268_435_455 {
			t.Errorf("the identifier is %d", n)
		}
		c.subscribeWith(properties{{id: propSubscriptionID, n: 2}}, subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "x", 1)
		if n, _ := c.wants(t.topic("x"), "x", 1).props.number(propSubscriptionID); n != 2 {
			t.Errorf("the identifier is %d, want the new one", n)
		}
		c.subscribe(subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "x", 1)
		if n, ok := c.wants(t.topic("x"), "x", 1).props.number(propSubscriptionID); ok {
			t.Errorf("the identifier is %d, want none any more", n)
		}
	}},
	{"subscription identifiers of overlapping filters", "3.3.4-4, 3.3.4-5", v5, func(t *trial) {
		c := t.join("a")
		c.subscribeWith(properties{{id: propSubscriptionID, n: 1}}, subscription{t.topic("x"), 1})
		c.subscribeWith(properties{{id: propSubscriptionID, n: 2}}, subscription{t.topic("+"), 1}, subscription{t.topic("end"), 1})
		c.put(t.topic("x"), "x", 1)
		c.put(t.topic("end"), "", 1)
		seen := map[uint32]int{}
		for p := c.message(); p.topic == t.topic("x"); p = c.message() {
			for _, one := range p.props {
				if one.id == propSubscriptionID {
					seen[one.n]++
				}
			}
		}
		if seen[1] != 1 || seen[2] != 1 {
			t.Errorf("the identifiers came %v times", seen)
		}
	}},
	{"a message expires", "3.3.2-5", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1})
		sub.leave()
		pub.publish(publish{topic: t.topic("x"), payload: "short", qos: 1, props: properties{{id: propMessageExpiry, n: 1}}})
		pub.publish(publish{topic: t.topic("x"), payload: "long", qos: 1, props: properties{{id: propMessageExpiry, n: 100}}})
		pause(3 * time.Second)
		p := t.join("sub", persistent).message()
		if p.payload != "long" {
			t.Fatalf("got %q", p.payload)
		}
		if n, ok := p.props.number(propMessageExpiry); !ok || n < 80 || n > 98 {
			t.Errorf("[MQTT-3.3.2-6] %d seconds are left of 100 after 3", n)
		}
	}},
	{"a retained message expires", "3.3.2-5", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		pub.publish(publish{topic: t.topic("r"), payload: "short", qos: 1, retain: true, props: properties{{id: propMessageExpiry, n: 1}}})
		pause(3 * time.Second)
		sub.subscribe(subscription{t.topic("r"), 1})
		sub.only(pub, t.topic("r"))
	}},
	{"receive maximum of a client", "3.3.4-7, 3.3.4-9", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", with(property{id: propReceiveMaximum, n: 2}))
		sub.subscribe(subscription{t.topic("x"), 1}, subscription{t.topic("free"), 0})
		for i := range 6 {
			pub.put(t.topic("x"), fmt.Sprint(i), 1)
		}
		pub.put(t.topic("free"), "", 0)
		first, second := sub.raw(), sub.raw()
		if p := sub.raw(); p.qos != 0 {
			t.Fatalf("%q is the third without PUBACK", p.payload)
		}
		sub.acknowledge(first)
		sub.acknowledge(second)
		for i := 2; i < 6; i++ {
			sub.wants(t.topic("x"), fmt.Sprint(i), 1)
		}
	}},
	{"receive maximum of the broker", "3.3.4-8", v5, func(t *trial) {
		c, a := t.connect("a")
		n, ok := a.props.number(propReceiveMaximum)
		if !ok || n > 1000 {
			n = 20 // not told, or too many to overrun: those that any broker must take
			for i := range n {
				c.send(publish{topic: t.topic("x"), payload: "x", qos: 2, id: uint16(i + 1)}.bytes(version5))
			}
			for range n {
				c.expect(kindPubrec)
			}
			return
		}
		for i := range n {
			c.send(publish{topic: t.topic("x"), payload: "x", qos: 2, id: uint16(i + 1)}.bytes(version5))
		}
		for range n {
			c.expect(kindPubrec)
		}
		c.send(publish{topic: t.topic("x"), payload: "x", qos: 2, id: uint16(n + 1)}.bytes(version5))
		c.refused(kindDisconnect, 0x93)
	}},
	{"maximum packet size of a client", "3.1.2-24, 3.1.2-25", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", with(property{id: propMaximumPacketSize, n: 200}))
		sub.subscribe(subscription{t.topic("x"), 1})
		pub.put(t.topic("x"), strings.Repeat("x", 500), 1)
		sub.only(pub, t.topic("x"))
	}},
	{"topic aliases inbound", "3.3.2-7", v5, func(t *trial) {
		c, a := t.connect("a")
		if n, _ := a.props.number(propTopicAliasMaximum); n == 0 {
			return // the broker takes none; see the next check
		}
		c.subscribe(subscription{t.topic("#"), 1})
		alias := properties{{id: propTopicAlias, n: 1}}
		for _, step := range []struct{ topic, want string }{{t.topic("x"), t.topic("x")}, {"", t.topic("x")}, {t.topic("y"), t.topic("y")}, {"", t.topic("y")}} {
			c.publish(publish{topic: step.topic, payload: "x", qos: 1, props: alias})
			c.wants(step.want, "x", 1)
		}
		again := t.join("a") // aliases are of a connection
		again.send(publish{payload: "x", qos: 1, id: 1, props: alias}.bytes(version5))
		again.refused(kindDisconnect, 0x82, 0x94)
	}},
	{"a topic alias over the maximum", "3.3.2-9", v5, func(t *trial) {
		c, a := t.connect("a")
		n, _ := a.props.number(propTopicAliasMaximum)
		if n == 65535 {
			return // there is none over it
		}
		c.send(publish{topic: t.topic("x"), payload: "x", qos: 1, id: 1, props: properties{{id: propTopicAlias, n: n + 1}}}.bytes(version5))
		c.refused(kindDisconnect, 0x94)
	}},
	{"no topic alias to a client that takes none", "3.1.2-26, 3.1.2-27", v5, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 1})
		for range 3 {
			c.put(t.topic("x"), "x", 1)
			if p := c.wants(t.topic("x"), "x", 1); len(p.props) > 0 {
				t.Errorf("the properties are %v", p.props)
			}
		}
	}},
	{"a keep alive of the broker", "3.2.2-21", v5, func(t *trial) {
		c, a := t.connect("a", func(c *connect) { c.keepAlive = 65535 })
		if n, ok := a.props.number(propServerKeepAlive); ok && n == 0 {
			t.Errorf("the broker's keep alive is 0")
		}
		c.ping()
	}},
	{"CONNACK tells only what is right", "3.2.2-9", v5, func(t *trial) {
		c, a := t.connect("a")
		if n, ok := a.props.number(propMaximumQoS); ok && n > 1 {
			t.Errorf("maximum QoS is %d; without the property it is 2", n)
		}
		for _, id := range []byte{propReceiveMaximum, propMaximumPacketSize} {
			if n, ok := a.props.number(id); ok && n == 0 {
				t.Errorf("property %#x is 0", id)
			}
		}
		c.ping()
	}},
	{"extended authentication that is not supported", "4.12.0-1", v5, func(t *trial) {
		c, h := t.dial(), t.hello("a")
		h.props = properties{{id: propAuthMethod, text: "NONE-SUCH"}}
		c.send(h.bytes())
		c.refused(kindConnack, 0x8c, 0x87)
	}},
	{"no problem information", "3.1.2-29", v5, func(t *trial) {
		c := t.join("a", with(property{id: propRequestProblem, n: 0}))
		id := c.newID()
		c.send(publish{topic: t.topic("x"), payload: "x", qos: 1, id: id}.bytes(version5))
		if a := c.expect(kindPuback); len(a.props) > 0 {
			t.Errorf("PUBACK has the properties %v", a.props)
		}
	}},
}

// accessChecks are about who may come and what they may do.
var accessChecks = []check{
	{"password right and wrong", "3.1.4-2 | 3.1.4-2", both, func(t *trial) {
		for _, c := range [][2]string{{t.target.Username, t.target.Password + "x"}, {t.target.Username, "x"}, {"nobody", t.target.Password}, {"", ""}, {t.target.Username, ""}} {
			h, conn := t.hello("a"), t.dial()
			h.user, h.password = c[0], c[1]
			conn.send(h.bytes())
			a := conn.expect(kindConnack)
			if want := five(t, []byte{4, 5}, []byte{0x86, 0x87}); a.code != want[0] && a.code != want[1] || a.present {
				t.Errorf("user %q: the code is %#x, want one of %#x", c[0], a.code, want)
			}
			conn.closed()
		}
		t.join("a").ping()
	}},
	{"limited in publishing", "3.3.5", both, func(t *trial) {
		watch, c := t.join("watch"), t.limited("a")
		watch.subscribe(subscription{"brokertest/#", 1})
		c.put("brokertest/limited/x", "allowed", 1)
		watch.wants("brokertest/limited/x", "allowed", 1)
		for qos := byte(0); qos < 3; qos++ {
			c = t.limited(fmt.Sprint("b", qos))
			c.send(publish{topic: t.topic("x"), payload: "denied", qos: qos, id: uint16(qos)}.bytes(t.version))
			// It is answered or the connection ends; it must not go on.
			if f, err := c.read(time.Second); err == nil && t.version == version5 {
				if a, err := f.answer(version5); err != nil || a.code != 0x87 {
					t.Errorf("QoS %d is answered with %v", qos, f)
				}
			}
			watch.only(watch, "brokertest/limited/mark")
		}
	}},
	{"limited in subscribing", "3.8.4-5 | 3.9.3", both, func(t *trial) {
		c := t.limited("a")
		denied := five[byte](t, 0x80, 0x87)
		for _, filter := range []string{"#", "brokertest/#", "brokertest/+/x", "brokertest/other", "+/limited/#", "$SYS/#"} {
			id := c.newID()
			c.send(subscribe(t.version, id, nil, subscription{filter, 1}, subscription{"brokertest/limited/ok", 1}))
			a := c.expect(kindSuback)
			if len(a.codes) != 2 || a.codes[0] != denied || a.codes[1] != 1 {
				t.Errorf("%s is answered with %x, want %x01", filter, a.codes, denied)
			}
		}
		pub := t.join("pub")
		pub.put("brokertest/other", "denied", 1)
		pub.put("brokertest/limited/x", "not subscribed", 1)
		c.only(pub, "brokertest/limited/ok")
		c.subscribe(subscription{"brokertest/limited/#", 1})
	}},
	{"limited in a shared subscription", "4.8.2", v5, func(t *trial) {
		c := t.limited("a")
		c.send(subscribe(t.version, 1, nil, subscription{"$share/g/#", 1}, subscription{"$share/g/brokertest/other", 1}))
		if a := c.expect(kindSuback); string(a.codes) != "\x87\x87" {
			t.Errorf("it is answered with %x", a.codes)
		}
	}},
	{"limited in a will", "3.1.2-8", both, func(t *trial) {
		watch := t.join("watch")
		watch.subscribe(subscription{"brokertest/#", 1})
		h := t.hello("a")
		h.user, h.password = t.target.Limited.Username, t.target.Limited.Password
		h.will = &publish{topic: t.topic("w"), payload: "denied", qos: 1}
		c := t.dial()
		c.send(h.bytes())
		if f, err := c.read(t.limit); err == nil { // it may be refused now, or not be sent later
			if a, err := f.answer(t.version); f.kind != kindConnack || err != nil {
				t.Errorf("CONNECT is answered with %v, %v", f, a)
			}
		}
		c.drop()
		pause(300 * time.Millisecond) // the broker sees the end
		watch.only(watch, "brokertest/limited/mark")
	}},
	{"tls", "5.4.8", both, func(t *trial) {
		c := t.secure(nil)
		c.send(t.hello("a").bytes())
		if a := c.expect(kindConnack); a.code != 0 {
			t.Fatalf("the code is %#x", a.code)
		}
		c.subscribe(subscription{t.topic("x"), 2})
		c.put(t.topic("x"), strings.Repeat("x", 100_000), 2)
		c.wants(t.topic("x"), strings.Repeat("x", 100_000), 2)
	}},
	{"tls of old versions", "5.4.8", v311, func(t *trial) {
		config := t.tlsConfig()
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", t.target.TLS.Address, config); err == nil {
			conn.Close()
			t.Errorf("TLS 1.1 is accepted")
		}
	}},
	{"tls and plain bytes", "5.4.8", v311, func(t *trial) {
		conn, err := net.DialTimeout("tcp", t.target.TLS.Address, patience)
		if err != nil {
			t.Fatalf("dial: %v", err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatalf("set deadline: %v", err)
		}
		if _, err := conn.Write(t.hello("a").bytes()); err != nil {
			t.Fatalf("write: %v", err)
		}
		b := make([]byte, 64)
		for {
			n, err := conn.Read(b)
			if n > 0 && b[0] == kindConnack<<4 {
				t.Fatalf("a CONNECT without TLS is answered")
			}
			if err, ok := err.(net.Error); ok && err.Timeout() {
				t.Fatalf("the connection stays open")
			}
			if err != nil {
				return
			}
		}
	}},
}

// limited connects as the user with restrictions.
func (t *trial) limited(name string) *client {
	return t.join(name, func(c *connect) { c.user, c.password = t.target.Limited.Username, t.target.Limited.Password })
}

func (t *trial) tlsConfig() *tls.Config {
	config, err := t.target.TLS.config()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return config
}

func (t *TLS) config() (*tls.Config, error) {
	text, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", t.CAFile)
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// secure opens a connection with TLS.
func (t *trial) secure(config *tls.Config) *client {
	if config == nil {
		config = t.tlsConfig()
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", t.target.TLS.Address, config)
	if err != nil {
		t.Fatalf("dial with TLS: %v", err)
	}
	return t.over(conn)
}
