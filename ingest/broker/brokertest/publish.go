package brokertest

import (
	"fmt"
	"slices"
	"strings"
)

// publishChecks are about sections 3.3 to 3.7, 4.3 and 4.6.
var publishChecks = []check{
	{"qos 0 1 2 arrive", "4.3.1-1, 4.3.2-2, 4.3.3-2", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("#"), 2})
		for qos := range byte(3) {
			pub.put(t.topic("x"), fmt.Sprintf("qos %d", qos), qos)
			sub.wants(t.topic("x"), fmt.Sprintf("qos %d", qos), qos)
		}
	}},
	{"the lower qos counts", "3.8.4-6 | 3.8.4-8", both, func(t *trial) {
		pub := t.join("pub")
		for granted := range byte(3) {
			sub := t.join(fmt.Sprint("sub", granted))
			sub.subscribe(subscription{t.topic("x"), granted})
			for qos := range byte(3) {
				pub.put(t.topic("x"), "x", qos)
				sub.wants(t.topic("x"), "x", min(qos, granted))
			}
		}
	}},
	{"an empty payload", "3.3.3", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "", 1)
		c.wants(t.topic("x"), "", 1)
	}},
	{"a payload is any bytes", "3.3.3", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 1})
		payload := "\x00\xff\xfe" + strings.Repeat("\x80\r\n", 20_000)
		c.put(t.topic("x"), payload, 1)
		c.wants(t.topic("x"), payload, 1)
	}},
	{"a topic is any text", "4.7.3", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("#"), 1})
		for _, name := range []string{" ", "ä/é/日本", "a//b", "x/", "/", strings.Repeat("long", 100), "$in the middle", "\u00a0"} {
			c.put(t.topic(name), "x", 1)
			c.wants(t.topic(name), "x", 1)
		}
	}},
	{"the id of a QoS 1 message can be used again", "2.3.1-4 | 2.2.1-4", both, func(t *trial) {
		c := t.join("a")
		for range 3 {
			c.send(publish{topic: t.topic("x"), payload: "x", qos: 1, id: 65535}.bytes(t.version))
			if a := c.expect(kindPuback); a.id != 65535 {
				t.Fatalf("the id is %d", a.id)
			}
		}
	}},
	{"a QoS 2 message comes once", "4.3.3-2 | 4.3.3-10", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("x"), 2})
		p := publish{topic: t.topic("x"), payload: "once", qos: 2, id: 9}
		pub.send(p.bytes(t.version))
		pub.expect(kindPubrec)
		p.dup = true
		pub.send(p.bytes(t.version))
		pub.expect(kindPubrec)
		for range 2 { // the second is of a message that is done
			pub.send(ack(kindPubrel, 9))
			if a := pub.expect(kindPubcomp); a.id != 9 || a.code != 0 && a.code != 0x92 {
				t.Fatalf("PUBCOMP of %d with %#x", a.id, a.code)
			}
		}
		sub.wants(t.topic("x"), "once", 2)
		sub.only(pub, t.topic("x"))
	}},
	{"a QoS 2 message comes once over a break", "4.3.3-2 | 4.3.3-10", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub", persistent)
		sub.subscribe(subscription{t.topic("x"), 2})
		p := publish{topic: t.topic("x"), payload: "once", qos: 2, id: 9}
		pub.send(p.bytes(t.version))
		pub.expect(kindPubrec)
		pub.drop()
		pub = t.join("pub", persistent)
		p.dup = true
		pub.send(p.bytes(t.version))
		pub.expect(kindPubrec)
		pub.send(ack(kindPubrel, 9))
		pub.expect(kindPubcomp)
		sub.wants(t.topic("x"), "once", 2)
		sub.only(pub, t.topic("x"))
	}},
	{"many in flight", "4.6.0-2, 4.6.0-5", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("x"), 1})
		const n = 20
		var all []byte
		for i := range n {
			all = append(all, publish{topic: t.topic("x"), payload: fmt.Sprint(i), qos: 1, id: uint16(i + 1)}.bytes(t.version)...)
		}
		pub.send(all)
		for i := range n {
			if a := pub.expect(kindPuback); a.id != uint16(i+1) {
				t.Fatalf("PUBACK %d has id %d: they must come in order", i+1, a.id)
			}
		}
		for i := range n {
			sub.wants(t.topic("x"), fmt.Sprint(i), 1)
		}
	}},
	{"order of every qos", "4.6.0-6", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("0"), 0}, subscription{t.topic("1"), 1}, subscription{t.topic("2"), 2})
		const n = 30
		for i := range n {
			pub.put(t.topic(fmt.Sprint(i%3)), fmt.Sprint(i), byte(i%3))
		}
		last := map[string]int{}
		for range n {
			p := sub.message()
			i := 0
			if _, err := fmt.Sscan(p.payload, &i); err != nil || i < last[p.topic] {
				t.Fatalf("%s: %q comes after %d", p.topic, p.payload, last[p.topic])
			}
			last[p.topic] = i
		}
	}},
	{"dup is not passed on", "3.3.1-3", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 1})
		c.send(publish{topic: t.topic("x"), payload: "x", qos: 1, id: 3, dup: true}.bytes(t.version))
		c.expect(kindPuback)
		if p := c.wants(t.topic("x"), "x", 1); p.dup {
			t.Errorf("the message is marked as sent before")
		}
	}},
	{"nobody subscribed", "3.3.5", both, func(t *trial) {
		c := t.join("a")
		for qos := range byte(3) {
			if code := c.publish(publish{topic: t.topic("x"), payload: "x", qos: qos}); code != 0 && code != 0x10 {
				t.Errorf("QoS %d is answered with %#x", qos, code)
			}
		}
	}},
	{"a retained message is set, replaced and cleared", "3.3.1-5, 3.3.1-6, 3.3.1-10", both, func(t *trial) {
		pub := t.join("pub")
		look := func(name string) *client {
			c := t.join(name)
			c.subscribe(subscription{t.topic("r"), 1})
			return c
		}
		for i, payload := range []string{"first", "second"} {
			pub.publish(publish{topic: t.topic("r"), payload: payload, qos: 1, retain: true})
			if p := look(fmt.Sprint("s", i)).wants(t.topic("r"), payload, 1); !p.retain {
				t.Errorf("the message is not marked as retained")
			}
		}
		pub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
		look("s2").only(pub, t.topic("r"))
	}},
	{"a retained message of qos 0", "3.3.1-7 | 3.3.1-5", both, func(t *trial) {
		pub := t.join("pub")
		pub.publish(publish{topic: t.topic("r"), payload: "zero", retain: true})
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("r"), 2})
		if p := sub.wants(t.topic("r"), "zero", 0); !p.retain {
			t.Errorf("the message is not marked as retained")
		}
		pub.publish(publish{topic: t.topic("r"), retain: true})
	}},
	{"a clearing message is passed on and not kept", "3.3.1-10, 3.3.1-11", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		pub.publish(publish{topic: t.topic("r"), payload: "x", qos: 1, retain: true})
		sub.subscribe(subscription{t.topic("r"), 1})
		sub.wants(t.topic("r"), "x", 1)
		pub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
		sub.wants(t.topic("r"), "", 1)
		late := t.join("late")
		late.subscribe(subscription{t.topic("r"), 1})
		late.only(pub, t.topic("r"))
	}},
	{"who is subscribed gets it without the mark", "3.3.1-9 | 3.3.1-12", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		sub.subscribe(subscription{t.topic("r"), 1})
		pub.publish(publish{topic: t.topic("r"), payload: "x", qos: 1, retain: true})
		if p := sub.wants(t.topic("r"), "x", 1); p.retain {
			t.Errorf("the message is marked as retained")
		}
		pub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
	{"a message that is not retained replaces none", "3.3.1-12 | 3.3.1-8", both, func(t *trial) {
		pub := t.join("pub")
		pub.publish(publish{topic: t.topic("r"), payload: "kept", qos: 1, retain: true})
		pub.put(t.topic("r"), "passing", 1)
		sub := t.join("sub")
		sub.subscribe(subscription{t.topic("r"), 1})
		sub.wants(t.topic("r"), "kept", 1)
		pub.publish(publish{topic: t.topic("r"), qos: 1, retain: true})
	}},
	{"retained messages of a wildcard", "3.3.1-6 | 3.3.1-9", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		var want []string
		for i := range 5 {
			topic := t.topic(fmt.Sprintf("r/%d/v", i))
			pub.publish(publish{topic: topic, payload: "x", qos: 1, retain: true})
			want = append(want, topic)
		}
		sub.subscribe(subscription{t.topic("r/+/v"), 1})
		var got []string
		for range want {
			got = append(got, sub.message().topic)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		for _, topic := range want {
			pub.publish(publish{topic: topic, qos: 1, retain: true})
		}
	}},
	{"a broker's own topics are not a client's", "4.7.2", both, func(t *trial) {
		c := t.join("a")
		c.send(publish{topic: "$SYS/brokertest/" + t.name, payload: "forged", qos: 1, id: 1}.bytes(t.version))
		// It may be denied, or be dropped and acknowledged; it must not be retained as the broker's.
		_, _ = c.read(t.limit)
		sub := t.join("sub")
		sub.send(subscribe(t.version, 1, nil, subscription{"$SYS/brokertest/#", 1}))
		sub.expect(kindSuback)
		sub.ping()
		if len(sub.inbox) > 0 {
			t.Errorf("%q is retained", sub.inbox[0].topic)
		}
	}},
	{"too large a packet", "3.1.2-24", both, func(t *trial) {
		c := t.join("a")
		c.send(publish{topic: t.topic("x"), payload: strings.Repeat("x", t.target.MaxPacketBytes+1), qos: 1, id: 1}.bytes(t.version))
		c.refused(kindDisconnect, 0x95)
	}},
}
