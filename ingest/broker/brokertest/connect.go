package brokertest

import (
	"slices"
	"strings"
	"time"
)

// connectChecks are about sections 3.1, 3.2, 3.12 and 3.14.
var connectChecks = []check{
	{"a first packet that is no CONNECT", "3.1.0-1", both, func(t *trial) {
		for _, b := range [][]byte{pingreq, publish{topic: "brokertest/x", payload: "x"}.bytes(t.version), disconnect, subscribe(t.version, 1, nil, subscription{filter: "#"})} {
			c := t.dial()
			c.send(b)
			if f, sent := c.closed(); sent && f.kind != kindDisconnect {
				t.Fatalf("it is answered with %v", f)
			}
		}
	}},
	{"a second CONNECT", "3.1.0-2", both, func(t *trial) {
		c := t.join("a")
		c.send(t.hello("a").bytes())
		c.refused(kindDisconnect, 0x82)
	}},
	{"another protocol name", "3.1.2-1", both, func(t *trial) {
		for _, name := range []string{"MQTX", "mqtt", "MQ", "HTTP/1.1"} {
			c, h := t.dial(), t.hello("a")
			h.protocol = name
			c.send(h.bytes())
			c.version = version311 // which form the answer has, the broker cannot know
			c.refused(kindConnack, 0x01, 0x84)
		}
	}},
	{"a level that does not exist", "3.1.2-2", both, func(t *trial) {
		for _, level := range []byte{2, 6, 7, 0x7f} {
			c, h := t.dial(), t.hello("a")
			h.level = level
			c.send(h.bytes())
			c.version = version311 // which form the answer has, the broker cannot know
			c.refused(kindConnack, 0x01, 0x84)
		}
	}},
	{"the answer to a level that does not exist", "3.1.2-2", v311, func(t *trial) {
		c, h := t.dial(), t.hello("a")
		h.level = 6
		c.send(h.bytes())
		if a := c.expect(kindConnack); a.code != 0x01 && a.code != 0x84 || a.present {
			t.Fatalf("the code is %#x, session present %v", a.code, a.present)
		}
		c.closed()
	}},
	{"an empty client id", "3.1.3-6", both, func(t *trial) {
		c, a := t.connect("", func(c *connect) { c.id = "" })
		if id := a.props.text(propAssignedClientID); t.version == version5 && id == "" {
			t.Errorf("no client id is assigned")
		}
		c.ping()
	}},
	{"an empty client id is assigned", "3.2.2-16", v5, func(t *trial) {
		_, one := t.connect("", func(c *connect) { c.id = "" })
		_, two := t.connect("", func(c *connect) { c.id = "" })
		a, b := one.props.text(propAssignedClientID), two.props.text(propAssignedClientID)
		if a == "" || a == b {
			t.Errorf("the ids are %q and %q", a, b)
		}
	}},
	{"an assigned client id has a session", "3.1.3-7", v5, func(t *trial) {
		c, a := t.connect("", func(c *connect) { c.id = ""; persistent(c) })
		id := a.props.text(propAssignedClientID)
		c.leave()
		if _, again := t.connect("", func(c *connect) { c.id = id; persistent(c) }); !again.present {
			t.Errorf("the session of %q is gone", id)
		}
	}},
	{"an empty client id without clean session", "3.1.3-8", v311, func(t *trial) {
		c, h := t.dial(), t.hello("")
		h.id, h.persist = "", true
		c.send(h.bytes())
		if a := c.expect(kindConnack); a.code != 2 || a.present {
			t.Fatalf("the code is %#x, session present %v", a.code, a.present)
		}
		c.closed()
	}},
	{"a client id that is long", "3.1.3-5", both, func(t *trial) {
		c := t.join(strings.Repeat("x", 60))
		c.ping()
	}},
	{"a session is present or not", "3.2.2-1", both, func(t *trial) {
		for i, step := range []struct{ persist, present bool }{{true, false}, {true, true}, {false, false}, {true, false}, {false, false}, {false, false}} {
			c, a := t.connect("a", func(c *connect) {
				if step.persist {
					persistent(c)
				}
			})
			if a.present != step.present {
				t.Fatalf("step %d: session present is %v", i+1, a.present)
			}
			c.leave()
		}
	}},
	{"a takeover", "3.1.4-2 | 3.1.4-3", both, func(t *trial) {
		first := t.join("a")
		second := t.join("a")
		f, sent := first.closed()
		if t.version == version5 {
			if !sent {
				t.Fatalf("the first is told nothing, want DISCONNECT with 0x8e")
			}
			if a, err := f.answer(version5); f.kind != kindDisconnect || err != nil || a.code != 0x8e {
				t.Errorf("the first is told %v, want DISCONNECT with 0x8e", f)
			}
		}
		second.ping()
	}},
	{"a takeover keeps the session", "3.1.2-4 | 3.1.2-5", both, func(t *trial) {
		first := t.join("a", persistent)
		first.subscribe(subscription{t.topic("x"), 1})
		second, a := t.connect("a", persistent)
		first.closed()
		if !a.present {
			t.Errorf("the session is not present")
		}
		t.join("b").put(t.topic("x"), "1", 1)
		second.wants(t.topic("x"), "1", 1)
	}},
	{"keep alive", "3.1.2-24 | 3.1.2-22", both, func(t *trial) {
		c := t.join("a", func(c *connect) { c.keepAlive = 1 })
		begin := time.Now()
		c.refused(kindDisconnect, 0x8d)
		if d := time.Since(begin); d < time.Second || d > 9*time.Second {
			t.Errorf("the connection ends after %v; 1.5 s is right", d)
		}
	}},
	{"any packet keeps alive", "3.1.2-23 | 3.1.2-20", both, func(t *trial) {
		c := t.join("a", func(c *connect) { c.keepAlive = 2 })
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for i := range 5 {
			<-tick.C
			if i%2 == 0 {
				c.ping()
			} else {
				c.send(publish{topic: t.topic("x"), payload: "x"}.bytes(t.version))
			}
		}
		c.ping()
	}},
	{"keep alive 0", "3.1.2.10", both, func(t *trial) {
		c := t.join("a", func(c *connect) { c.keepAlive = 0 })
		timer := time.NewTimer(3 * time.Second)
		defer timer.Stop()
		<-timer.C
		c.ping()
	}},
	{"a ping", "3.12.4-1", both, func(t *trial) {
		c := t.join("a")
		for range 3 {
			c.ping()
		}
	}},
	{"pings in one write", "3.12.4-1", both, func(t *trial) {
		c := t.join("a")
		c.send(slices.Concat(pingreq, pingreq, pingreq))
		for range 3 {
			c.expect(kindPingresp)
		}
	}},
	{"a packet in pieces", "2.2", both, func(t *trial) {
		c := t.dial()
		for _, b := range t.hello("a").bytes() {
			c.send([]byte{b})
		}
		if a := c.expect(kindConnack); a.code != 0 {
			t.Fatalf("the code is %#x", a.code)
		}
		for _, b := range (publish{topic: t.topic("x"), payload: "piecemeal", qos: 1, id: 5}).bytes(t.version) {
			c.send([]byte{b})
		}
		c.expect(kindPuback)
	}},
	{"packets right behind CONNECT", "3.1.4-5 | 3.1.4-6", both, func(t *trial) {
		c := t.dial()
		c.send(slices.Concat(t.hello("a").bytes(), subscribe(t.version, 1, nil, subscription{t.topic("x"), 0}), publish{topic: t.topic("x"), payload: "early", qos: 1, id: 2}.bytes(t.version)))
		c.expect(kindConnack)
		c.expect(kindSuback)
		c.expect(kindPuback)
		c.wants(t.topic("x"), "early", 0)
	}},
	{"a DISCONNECT ends the connection", "3.14.4-1", both, func(t *trial) {
		c := t.join("a")
		c.send(disconnect)
		if f, sent := c.closed(); sent {
			t.Errorf("it is answered with %v", f)
		}
	}},
	{"a password without a user name", "3.1.2-22", v311, func(t *trial) {
		h := t.hello("a")
		h.user, h.password = "", "secret"
		c := t.dial()
		c.send(h.bytes())
		if f, sent := c.closed(); sent {
			if a, err := f.answer(t.version); f.kind != kindConnack || err != nil || a.code == 0 {
				t.Errorf("it is answered with %v", f)
			}
		}
	}},
	{"both versions at once", "3.1.2.2", v5, func(t *trial) {
		five := t.join("five")
		t.version = version311
		three := t.join("three")
		five.subscribe(subscription{t.topic("#"), 1})
		three.subscribe(subscription{t.topic("#"), 1})
		three.put(t.topic("x"), "of three", 1)
		five.wants(t.topic("x"), "of three", 1)
		three.wants(t.topic("x"), "of three", 1)
		if code := five.publish(publish{topic: t.topic("y"), payload: "of five", qos: 1, props: properties{{id: propUserProperty, text: "a", more: "b"}}}); code >= 0x80 {
			t.Fatalf("PUBLISH is answered with %#x", code)
		}
		three.wants(t.topic("y"), "of five", 1)
		five.wants(t.topic("y"), "of five", 1)
	}},
}
