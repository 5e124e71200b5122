package brokertest

import (
	"fmt"
	"strings"
)

// subscribeChecks are about sections 3.8 to 3.11 and 4.7.
var subscribeChecks = []check{
	{"filters match", "4.5.0-1, 4.7.1-2, 4.7.1-3", both, func(t *trial) {
		pub := t.join("pub")
		topics := []string{"a", "a/b", "a/b/c", "a/", "/a", "b", "a/$x", "ab", "A"}
		for i, c := range []struct {
			filter string
			want   string
		}{
			{"a", "a"}, {"a/b", "a/b"}, {"a/+", "a/b a/ a/$x"}, {"a/#", "a a/b a/b/c a/ a/$x"}, {"+", "a b ab A"}, {"+/+", "a/b a/ /a a/$x"}, {"+/b/+", "a/b/c"}, {"a/+/#", "a/b a/b/c a/ a/$x"}, {"/+", "/a"}, {"+/#", strings.Join(topics, " ")},
		} {
			sub := t.join(fmt.Sprint("sub", i))
			sub.subscribe(subscription{t.topic(c.filter), 0}, subscription{t.topic("end"), 0})
			for _, topic := range topics {
				pub.put(t.topic(topic), "x", 1)
			}
			pub.put(t.topic("end"), "", 1)
			var got []string
			for p := sub.message(); p.topic != t.topic("end"); p = sub.message() {
				got = append(got, strings.TrimPrefix(p.topic, t.topic("")))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s matches %v, want %s", c.filter, got, c.want)
			}
			sub.leave()
		}
	}},
	{"a wildcard does not reach $SYS", "4.7.2-1", both, func(t *trial) {
		pub := t.join("pub")
		for i, filter := range []string{"#", "+/#", "+/broker/+"} {
			sub := t.join(fmt.Sprint("sub", i))
			sub.subscribe(subscription{filter, 0}, subscription{t.topic("mark"), 0})
			pub.put(t.topic("mark"), "mark", 1)
			for {
				p := sub.message()
				if strings.HasPrefix(p.topic, "$") {
					t.Fatalf("%s matches %s", filter, p.topic)
				}
				if p.topic == t.topic("mark") {
					break
				}
			}
			sub.leave()
		}
	}},
	{"a SUBACK has a code for each filter", "3.8.4-2, 3.8.4-5, 3.9.3-1", both, func(t *trial) {
		c := t.join("a")
		c.send(subscribe(t.version, 4711, nil, subscription{t.topic("0"), 0}, subscription{t.topic("2"), 2}, subscription{t.topic("1"), 1}))
		if a := c.expect(kindSuback); a.id != 4711 || string(a.codes) != "\x00\x02\x01" {
			t.Errorf("id %d, codes %x", a.id, a.codes)
		}
	}},
	{"a filter twice in one SUBSCRIBE", "3.8.4-4 | 3.8.4-5", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("x"), 0}, subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "once", 1)
		c.wants(t.topic("x"), "once", 1)
		c.only(c, t.topic("x"))
	}},
	{"a new SUBSCRIBE replaces the old", "3.8.4-3", both, func(t *trial) {
		c := t.join("a")
		c.publish(publish{topic: t.topic("x"), payload: "kept", qos: 1, retain: true})
		for _, qos := range []byte{2, 0, 1} {
			c.subscribe(subscription{t.topic("x"), qos})
			c.wants(t.topic("x"), "kept", min(qos, 1)) // retained ones are sent again
		}
		c.put(t.topic("x"), "once", 2)
		c.wants(t.topic("x"), "once", 1)
		c.only(c, t.topic("x"))
		c.publish(publish{topic: t.topic("x"), qos: 1, retain: true})
	}},
	{"overlapping subscriptions", "3.3.5-1 | 3.3.4-2", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("x"), 0}, subscription{t.topic("+"), 2}, subscription{t.topic("end"), 0})
		pub.put(t.topic("x"), "x", 2)
		pub.put(t.topic("end"), "", 1)
		best, n := byte(0), 0
		for p := sub.message(); p.topic == t.topic("x"); p = sub.message() {
			best, n = max(best, p.qos), n+1
		}
		if best != 2 || n > 2 {
			t.Errorf("%d messages, the best with QoS %d", n, best)
		}
	}},
	{"UNSUBSCRIBE", "3.10.4-1, 3.10.4-2, 3.10.4-4", both, func(t *trial) {
		sub, pub := t.join("sub"), t.join("pub")
		sub.subscribe(subscription{t.topic("x"), 1}, subscription{t.topic("y"), 1}, subscription{t.topic("#"), 1})
		if a := sub.unsubscribe(t.topic("#"), t.topic("x")); t.version == version5 && string(a.codes) != "\x00\x00" {
			t.Errorf("codes %x", a.codes)
		}
		pub.put(t.topic("x"), "x", 1)
		sub.only(pub, t.topic("y"))
	}},
	{"UNSUBSCRIBE of what is not subscribed", "3.10.4-5", both, func(t *trial) {
		c := t.join("a")
		c.subscribe(subscription{t.topic("+"), 1})
		if a := c.unsubscribe(t.topic("x")); t.version == version5 && a.code != 0x11 {
			t.Errorf("the code is %#x, want 0x11", a.code)
		}
		c.put(t.topic("x"), "still", 1) // x is not +, character by character
		c.wants(t.topic("x"), "still", 1)
	}},
	{"a subscription ends with a clean session", "3.1.2-6", both, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		sub.subscribe(subscription{t.topic("x"), 1}, subscription{t.topic("y"), 1})
		sub.leave()
		sub = t.join("sub")
		sub.subscribe(subscription{t.topic("y"), 1})
		pub.put(t.topic("x"), "x", 1)
		sub.only(pub, t.topic("y"))
	}},
	{"many filters in one SUBSCRIBE", "3.8.4-4 | 3.8.4-5", both, func(t *trial) {
		c := t.join("a")
		var list []subscription
		for i := range 50 {
			list = append(list, subscription{t.topic(fmt.Sprint("s", i)), 1})
		}
		c.subscribe(list...)
		for i := range 50 {
			c.put(t.topic(fmt.Sprint("s", i)), "x", 1)
			c.wants(t.topic(fmt.Sprint("s", i)), "x", 1)
		}
	}},
	{"a shared subscription", "4.8.2", v5, func(t *trial) {
		pub, other := t.join("pub"), t.join("other")
		one, two := t.join("one"), t.join("two")
		for _, c := range []*client{one, two} {
			c.subscribe(subscription{"$share/g/" + t.topic("x"), 1}, subscription{t.topic("end"), 1})
		}
		other.subscribe(subscription{t.topic("x"), 1})
		const n = 40
		seen, took := map[string]int{}, map[*client]int{}
		for i := range n {
			pub.put(t.topic("x"), fmt.Sprint(i), 1)
			other.wants(t.topic("x"), fmt.Sprint(i), 1)
		}
		pub.put(t.topic("end"), "", 1)
		for _, c := range []*client{one, two} {
			for p := c.message(); p.topic != t.topic("end"); p = c.message() {
				seen[p.payload]++
				took[c]++
			}
		}
		for i := range n {
			if seen[fmt.Sprint(i)] != 1 {
				t.Fatalf("message %d came %d times", i, seen[fmt.Sprint(i)])
			}
		}
		if took[one] == 0 || took[two] == 0 {
			t.Errorf("the members took %d and %d", took[one], took[two])
		}
	}},
	{"two shared groups", "4.8.2", v5, func(t *trial) {
		pub, one, two := t.join("pub"), t.join("one"), t.join("two")
		one.subscribe(subscription{"$share/g/" + t.topic("+"), 1})
		two.subscribe(subscription{"$share/h/" + t.topic("+"), 1})
		pub.put(t.topic("x"), "x", 1)
		one.wants(t.topic("x"), "x", 1)
		two.wants(t.topic("x"), "x", 1)
	}},
	{"a shared group loses a member", "4.8.2-4, 4.8.2-5", v5, func(t *trial) {
		pub, one, two := t.join("pub"), t.join("one"), t.join("two")
		for _, c := range []*client{one, two} {
			c.subscribe(subscription{"$share/g/" + t.topic("x"), 1})
		}
		one.leave()
		for i := range 10 {
			pub.put(t.topic("x"), fmt.Sprint(i), 1)
			two.wants(t.topic("x"), fmt.Sprint(i), 1)
		}
	}},
	{"a shared group gets no retained messages", "4.8.2", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		pub.publish(publish{topic: t.topic("x"), payload: "kept", qos: 1, retain: true})
		sub.subscribe(subscription{"$share/g/" + t.topic("x"), 1})
		sub.only(pub, t.topic("x"))
		pub.publish(publish{topic: t.topic("x"), qos: 1, retain: true})
	}},
	{"a shared subscription ends", "3.10.4-1", v5, func(t *trial) {
		pub, sub := t.join("pub"), t.join("sub")
		sub.subscribe(subscription{"$share/g/" + t.topic("x"), 1}, subscription{t.topic("y"), 1})
		if a := sub.unsubscribe("$share/g/" + t.topic("x")); a.code != 0 {
			t.Errorf("the code is %#x", a.code)
		}
		pub.put(t.topic("x"), "x", 1)
		sub.only(pub, t.topic("y"))
	}},
}
