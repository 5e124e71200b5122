package brokertest

import (
	"fmt"
	"time"
)

// expiry sets how many seconds a session of version 5 outlives its connection.
func expiry(seconds uint32) func(*connect) {
	return func(c *connect) {
		c.persist = true
		c.props = properties{{id: propSessionExpiry, n: seconds}}
	}
}

// pause waits, for what the standard counts in seconds.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// sessionChecks are about sections 3.1.2.4, 4.1 and 4.4.
var sessionChecks = []check{
	{"messages wait for who is away", "3.1.2-5 | 4.1.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 2})
		sub.leave()
		const n = 60
		for i := range n {
			pub.put(t.topic("x"), fmt.Sprint(i), byte(1+i%2))
		}
		sub, a := t.connect("sub", persistent)
		if !a.present {
			t.Errorf("the session is not present")
		}
		for i := range n {
			sub.wants(t.topic("x"), fmt.Sprint(i), byte(1+i%2))
		}
		sub.only(pub, t.topic("x"))
	}},
	{"messages wait after a broken connection", "3.1.2-5 | 4.1.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1})
		sub.drop()
		pub.put(t.topic("x"), "x", 1)
		t.join("sub", persistent).wants(t.topic("x"), "x", 1)
	}},
	{"a clean session drops what waits", "3.1.2-6 | 3.1.2-4", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1})
		sub.leave()
		pub.put(t.topic("x"), "x", 1)
		sub, a := t.connect("sub")
		if a.present {
			t.Errorf("the session is present")
		}
		sub.subscribe(subscription{t.topic("y"), 1})
		sub.only(pub, t.topic("y"))
		pub.put(t.topic("x"), "x", 1) // the subscription is gone, too
		sub.only(pub, t.topic("y"))
	}},
	{"what was not acknowledged comes again", "4.4.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1})
		for i := range 5 {
			pub.put(t.topic("x"), fmt.Sprint(i), 1)
		}
		var ids []uint16
		for i := range 5 {
			p := sub.raw()
			if p.payload != fmt.Sprint(i) || p.dup {
				t.Fatalf("message %d is %q, dup %v", i, p.payload, p.dup)
			}
			ids = append(ids, p.id)
		}
		sub.send(ack(kindPuback, ids[0]), ack(kindPuback, ids[1]))
		sub.ping() // they are read
		sub.drop()
		sub = t.join("sub", persistent)
		for i := 2; i < 5; i++ {
			p := sub.message()
			if p.payload != fmt.Sprint(i) || !p.dup || p.id != ids[i] {
				t.Fatalf("got %q, dup %v, id %d; want %d again with id %d", p.payload, p.dup, p.id, i, ids[i])
			}
		}
		sub.only(pub, t.topic("x"))
	}},
	{"a QoS 2 delivery goes on after a break", "4.4.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 2})
		pub.put(t.topic("x"), "x", 2)
		p := sub.raw()
		sub.send(ack(kindPubrec, p.id))
		sub.expect(kindPubrel)
		sub.drop()
		sub = t.join("sub", persistent)
		if a := sub.expect(kindPubrel); a.id != p.id || len(sub.inbox) > 0 {
			t.Fatalf("PUBREL of %d, want %d; %d messages came again", a.id, p.id, len(sub.inbox))
		}
		sub.send(ack(kindPubcomp, p.id))
		sub.only(pub, t.topic("x"))
	}},
	{"subscriptions are part of the session", "4.1.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1}, subscription{t.topic("y/#"), 0})
		sub.unsubscribe(t.topic("x"))
		sub.leave()
		sub = t.join("sub", persistent)
		pub.put(t.topic("x"), "x", 1)
		pub.put(t.topic("y/z"), "y", 1)
		sub.wants(t.topic("y/z"), "y", 0)
	}},
	{"no session expiry, no session", "3.1.2-5", v5, func(t *trial) {
		c := t.join("a", expiry(0))
		c.leave()
		if _, a := t.connect("a", expiry(0)); a.present {
			t.Errorf("the session is present")
		}
	}},
	{"a session expires", "4.1.0-2", v5, func(t *trial) {
		c := t.join("a", expiry(1))
		c.leave()
		if c, a := t.connect("a", expiry(1)); !a.present {
			t.Errorf("the session is gone at once")
		} else {
			c.leave()
		}
		pause(4 * time.Second)
		if _, a := t.connect("a", expiry(1)); a.present {
			t.Errorf("the session is present after 4 s")
		}
	}},
	{"DISCONNECT changes the expiry", "3.14.2.2.2", v5, func(t *trial) {
		c := t.join("a", expiry(3600))
		c.send(packet(kindDisconnect, 0, properties{{id: propSessionExpiry, n: 0}}.append([]byte{0})))
		c.closed()
		if _, a := t.connect("a", expiry(3600)); a.present {
			t.Errorf("the session is present")
		}
	}},
	{"DISCONNECT cannot give an expiry where there was none", "3.14.2.2.2", v5, func(t *trial) {
		c := t.join("a", expiry(0))
		c.send(packet(kindDisconnect, 0, properties{{id: propSessionExpiry, n: 60}}.append([]byte{0})))
		c.refused(kindDisconnect, 0x82)
	}},
	{"clean start begins a session that stays", "3.1.2-4", v5, func(t *trial) {
		c := t.join("a", func(c *connect) { c.props = properties{{id: propSessionExpiry, n: 3600}} })
		c.leave()
		if _, a := t.connect("a", expiry(3600)); !a.present {
			t.Errorf("the session is gone")
		}
	}},
	{"a QoS 0 message is not kept for long", "4.3.1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		sub.subscribe(subscription{t.topic("x"), 1})
		sub.leave()
		pub.put(t.topic("x"), "zero", 0)
		pub.put(t.topic("x"), "one", 1)
		sub = t.join("sub", persistent)
		p := sub.message()
		if p.payload == "zero" { // a broker may keep it
			p = sub.message()
		}
		if p.payload != "one" {
			t.Errorf("got %q", p.payload)
		}
	}},
	{"restart keeps sessions and retained messages", "3.1.2-5 | 4.1.0-1", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub", persistent)
		pub.publish(publish{topic: t.topic("r"), payload: "kept", qos: 1, retain: true})
		sub.subscribe(subscription{t.topic("x"), 1})
		sub.leave()
		for i := range 5 {
			pub.put(t.topic("x"), fmt.Sprint(i), 1)
		}
		t.restart()
		sub, a := t.connect("sub", persistent)
		if !a.present {
			t.Fatalf("the session is gone")
		}
		for i := range 5 {
			sub.wants(t.topic("x"), fmt.Sprint(i), 1)
		}
		sub.subscribe(subscription{t.topic("r"), 1})
		sub.wants(t.topic("r"), "kept", 1)
		sub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
}

// willChecks are about sections 3.1.2.5 and 3.14.4.
var willChecks = []check{
	{"a will of a broken connection", "3.1.2-8", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 2})
		for qos := range byte(3) {
			c := t.join(fmt.Sprint("a", qos), withWill(publish{topic: t.topic("w"), payload: fmt.Sprint("gone ", qos), qos: qos}))
			c.drop()
			if p := sub.wants(t.topic("w"), fmt.Sprint("gone ", qos), qos); p.retain {
				t.Errorf("it is marked as retained")
			}
		}
	}},
	{"a will of an error", "3.1.2-8", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		c := t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}))
		c.send([]byte{0xf7, 0x00})
		c.closed()
		sub.wants(t.topic("w"), "gone", 1)
	}},
	{"a will of silence", "3.1.2-8", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}), func(c *connect) { c.keepAlive = 1 })
		sub.wants(t.topic("w"), "gone", 1)
	}},
	{"a will of a takeover", "3.1.4-3", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}))
		t.join("a")
		sub.wants(t.topic("w"), "gone", 1)
	}},
	{"no will after DISCONNECT", "3.1.2-10, 3.14.4-3", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1})).leave()
		sub.only(pub, t.topic("w"))
	}},
	{"a will is forgotten with its connection", "3.1.2-10", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", persistent, withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1})).leave()
		c := t.join("a", persistent)
		c.drop()
		sub.only(pub, t.topic("w"))
	}},
	{"a will that is retained", "3.1.2-17 | 3.1.2-15", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1, retain: true})).drop()
		sub.wants(t.topic("w"), "gone", 1)
		late := t.join("late")
		late.subscribe(subscription{t.topic("w"), 1})
		if p := late.wants(t.topic("w"), "gone", 1); !p.retain {
			t.Errorf("it is not marked as retained")
		}
		late.publish(publish{topic: t.topic("w"), qos: 1, retain: true})
	}},
	{"an empty will", "3.1.3.3", both, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), qos: 1})).drop()
		sub.wants(t.topic("w"), "", 1)
	}},
	{"DISCONNECT with will", "3.14.4-3", v5, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		c := t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}))
		c.send(packet(kindDisconnect, 0, []byte{0x04}))
		c.closed()
		sub.wants(t.topic("w"), "gone", 1)
	}},
	{"a will waits", "3.1.3-9", v5, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", persistent, withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}, property{id: propWillDelay, n: 2})).drop()
		begin := time.Now()
		sub.only(pub, t.topic("w"))
		sub.wants(t.topic("w"), "gone", 1)
		if d := time.Since(begin); d < 1500*time.Millisecond {
			t.Errorf("it came after %v, not 2 s", d)
		}
	}},
	{"a will that waits is forgotten when its client is back", "3.1.3-9", v5, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", persistent, withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}, property{id: propWillDelay, n: 2})).drop()
		t.join("a", persistent)
		pause(4 * time.Second)
		sub.only(pub, t.topic("w"))
	}},
	{"a will waits no longer than its session", "3.1.2-8", v5, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", expiry(1), withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}, property{id: propWillDelay, n: 3600})).drop()
		sub.wants(t.topic("w"), "gone", 1)
	}},
	{"the properties of a will", "3.1.3.2", v5, func(t *trial) {
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("w"), 1})
		t.join("a", withWill(publish{topic: t.topic("w"), payload: "gone", qos: 1}, property{id: propPayloadFormat, n: 1}, property{id: propContentType, text: "text/plain"},
			property{id: propResponseTopic, text: "a/b"}, property{id: propCorrelation, text: "\x00\x01"}, property{id: propUserProperty, text: "k", more: "v"})).drop()
		p := sub.wants(t.topic("w"), "gone", 1)
		if p.props.text(propContentType) != "text/plain" || p.props.text(propResponseTopic) != "a/b" || p.props.text(propCorrelation) != "\x00\x01" || p.props.text(propUserProperty) != "k" {
			t.Errorf("the properties are %v", p.props)
		}
	}},
}

// restart kills the broker and starts it again; connections are gone.
func (t *trial) restart() {
	if err := t.target.Kill(); err != nil {
		t.Fatalf("kill the broker: %v", err)
	}
	if err := t.target.Start(); err != nil {
		t.Fatalf("start the broker: %v", err)
	}
}
