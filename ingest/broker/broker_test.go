package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer/buffertest"
	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// both runs a test with each version of the protocol.
func both(t *testing.T, test func(t *testing.T, version byte)) {
	for name, version := range map[string]byte{"3.1.1": packet.V311, "5": packet.V5} {
		t.Run(name, func(t *testing.T) { test(t, version) })
	}
}

func TestAcknowledgesWhatIsDurable(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := ingesttest.NewLog()
		b, _ := start(t, configuration(), log)
		c := plain(t, b, version, "dev")
		release := log.Hold()
		for i := range 10 {
			c.publish("sensors/k", strconv.Itoa(i), 1, uint16(i+1))
		}
		c.quiet() // the reader is not blocked by the log, and nothing is acknowledged
		release()
		for i := range 10 {
			if ack := expect[*packet.Ack](c); ack.Kind != packet.PUBACK || ack.ID != uint16(i+1) {
				t.Fatalf("acknowledgement %d is %+v", i, ack)
			}
		}
		entries := log.Entries(ingesttest.Stream)
		if len(entries) != 10 || entries[9].PartitionKey != "k" || string(entries[9].Data) != "9" ||
			entries[9].Attribute("mqtt.client_id") != "dev" || entries[9].Attribute("mqtt.topic") != "sensors/k" {
			t.Errorf("the log holds %+v", entries)
		}
	})
}

// TestInflight: who has too many messages that are not acknowledged is not read
// until there is room; MQTT 5 clients that do not keep to the limit too.
func TestInflight(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := ingesttest.NewLog()
		config := configuration()
		config.MaxInflight = 5
		b, _ := start(t, config, log)
		c := plain(t, b, version, "dev")
		release := log.Hold()
		for i := range 6 {
			c.publish("sensors/k", "x", 1, uint16(i+1))
		}
		until(t, "five are taken", func() bool { return b.Status().Received == 5 })
		release()
		for range 6 {
			expect[*packet.Ack](c)
		}
		if version != packet.V5 {
			return
		}
		for i := range 6 { // and none of them is released
			c.publish("sensors/k", "x", 2, uint16(i+1))
			if i < 5 {
				expect[*packet.Ack](c)
			}
		}
		if code := c.closed(); code != packet.ReceiveMaximumExceeded {
			t.Errorf("ended with 0x%02x", byte(code))
		}
	})
}

func TestQoS2(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := ingesttest.NewLog()
		b, _ := start(t, configuration(), log)
		c := plain(t, b, version, "dev")
		send := func(dup bool) {
			c.send(&packet.Publish{Topic: "sensors/k", Payload: []byte("x"), QoS: 2, ID: 7, Dup: dup})
			if ack := expect[*packet.Ack](c); ack.Kind != packet.PUBREC || ack.ID != 7 {
				t.Fatalf("got %+v", ack)
			}
		}
		send(false)
		send(true)
		for _, want := range []packet.Code{packet.Success, packet.PacketIDNotFound} {
			c.send(&packet.Ack{Kind: packet.PUBREL, ID: 7})
			if ack := expect[*packet.Ack](c); ack.Kind != packet.PUBCOMP || version == packet.V5 && ack.Code != want {
				t.Fatalf("got %+v", ack)
			}
		}
		send(false)
		if n := len(log.Entries(ingesttest.Stream)); n != 2 {
			t.Errorf("the log holds %d", n)
		}
	})
}

// TestRedelivery: what is sent again after a break is not appended again.
func TestRedelivery(t *testing.T) {
	log := ingesttest.NewLog()
	c := configuration()
	b, stop := start(t, c, log)
	dev := plain(t, b, packet.V311, "dev")
	dev.publish("sensors/k", "x", 1, 1)
	expect[*packet.Ack](dev)
	again := func(b *Broker, id, payload string, dup bool) {
		r := plain(t, b, packet.V311, id)
		r.send(&packet.Publish{Topic: "sensors/k", Payload: []byte(payload), QoS: 1, ID: 1, Dup: dup})
		expect[*packet.Ack](r)
	}
	holds := func(n int) {
		t.Helper()
		if got := len(log.Entries(ingesttest.Stream)); got != n {
			t.Fatalf("the log holds %d, not %d", got, n)
		}
	}
	again(b, "dev", "x", true)
	holds(1)
	again(b, "dev", "y", true)
	holds(2)
	again(b, "other", "y", true)
	holds(3)
	stop()
	b, _ = start(t, c, log)
	again(b, "other", "y", true)
	holds(3)
	again(b, "other", "y", false)
	holds(4)
	if b.Status().Repeated != 1 {
		t.Errorf("%d repeated", b.Status().Repeated)
	}
}

func TestSubscribers(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		for qos := range byte(3) {
			t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
				log := ingesttest.NewLog()
				b, _ := start(t, configuration(), log)
				sub := plain(t, b, version, "sub")
				sub.subscribe("+/k", qos)
				pub := plain(t, b, version, "pub")
				for i := range 50 {
					pub.publish("sensors/k", strconv.Itoa(i), 2, uint16(i+1))
				}
				released := 0
				release := func(a *packet.Ack) {
					if a.Kind != packet.PUBREL {
						t.Fatalf("got %+v", a)
					}
					released++
					sub.send(&packet.Ack{Kind: packet.PUBCOMP, ID: a.ID})
				}
				for i := range 50 {
					p := expect[packet.Packet](sub)
					for p.Type() == packet.PUBREL {
						release(p.(*packet.Ack))
						p = expect[packet.Packet](sub)
					}
					got := p.(*packet.Publish)
					if got.QoS != qos || string(got.Payload) != strconv.Itoa(i) || got.Topic != "sensors/k" || got.Retain || got.Dup {
						t.Fatalf("message %d is %+v", i, got)
					}
					switch qos {
					case 1:
						sub.send(&packet.Ack{Kind: packet.PUBACK, ID: got.ID})
					case 2:
						sub.send(&packet.Ack{Kind: packet.PUBREC, ID: got.ID})
					}
				}
				for qos == 2 && released < 50 {
					release(expect[*packet.Ack](sub))
				}
				sub.quiet()
				until(t, "nothing waits", func() bool { return b.Status().QueuedBytes == 0 })
			})
		}
	})
}

// TestOtherTraffic: what no route matches goes to subscribers and not to the
// log.
func TestOtherTraffic(t *testing.T) {
	log := ingesttest.NewLog()
	b, _ := start(t, configuration(), log)
	sub := plain(t, b, packet.V5, "sub")
	sub.subscribe("commands/#", 1)
	pub := plain(t, b, packet.V5, "pub")
	pub.publish("commands/dev", "open", 1, 1)
	if ack := expect[*packet.Ack](pub); ack.Kind != packet.PUBACK {
		t.Fatalf("got %+v", ack)
	}
	if got := expect[*packet.Publish](sub); string(got.Payload) != "open" {
		t.Fatalf("got %+v", got)
	}
	if len(log.Entries(ingesttest.Stream)) != 0 || len(log.Entries("aside")) != 0 {
		t.Error("the log has it")
	}
}

func TestRetained(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := buffertest.NewLog(nil)
		c := configuration()
		b, stop := start(t, c, log)
		pub := plain(t, b, version, "pub")
		retain := func(topic, payload string) {
			pub.send(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, ID: 1, Retain: true})
			expect[*packet.Ack](pub)
		}
		retain("sensors/a", "1")
		retain("sensors/a", "2")
		retain("sensors/b", "1")
		retain("sensors/b", "")
		retain("other/c", "3")
		check := func(b *Broker, id string) {
			t.Helper()
			sub := plain(t, b, version, id)
			sub.subscribe("#", 1)
			got := map[string]string{}
			for range 2 {
				p := expect[*packet.Publish](sub)
				if !p.Retain {
					t.Errorf("%+v is not marked", p)
				}
				got[p.Topic] = string(p.Payload)
				sub.send(&packet.Ack{Kind: packet.PUBACK, ID: p.ID})
			}
			sub.quiet()
			if len(got) != 2 || got["sensors/a"] != "2" || got["other/c"] != "3" {
				t.Errorf("retained are %v", got)
			}
		}
		check(b, "one")
		stop()
		b, _ = start(t, c, log)
		check(b, "two")
	})
}

func TestRetainHandling(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	pub := plain(t, b, packet.V5, "pub")
	pub.send(&packet.Publish{Topic: "a", Payload: []byte("1"), QoS: 1, ID: 1, Retain: true})
	expect[*packet.Ack](pub)
	sub := plain(t, b, packet.V5, "sub")
	sub.subscribeWith(packet.Subscription{Filter: "a", RetainHandling: 2}, 0)
	sub.quiet()
	sub.subscribeWith(packet.Subscription{Filter: "a", RetainHandling: 1}, 0)
	sub.quiet()
	sub.subscribeWith(packet.Subscription{Filter: "a", RetainHandling: 0, RetainAsPublished: true}, 9)
	if p := expect[*packet.Publish](sub); !p.Retain || !slices.Equal(p.Properties.SubscriptionIDs, []uint32{9}) {
		t.Errorf("got %+v", p)
	}
	pub.send(&packet.Publish{Topic: "a", Payload: []byte("2"), Retain: true})
	if p := expect[*packet.Publish](sub); !p.Retain {
		t.Errorf("got %+v", p)
	}
}

func TestPersistentSession(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := buffertest.NewLog(nil)
		c := configuration()
		b, stop := start(t, c, log)
		hour := uint32(3600)
		join := func(b *Broker, present bool) *raw {
			t.Helper()
			p := packet.Connect{Version: version, ClientID: "sub"}
			if version == packet.V5 {
				p.Properties.SessionExpiry = &hour
			}
			r, ack := connect(t, b, p)
			if ack.Code != packet.Success || ack.SessionPresent != present {
				t.Fatalf("CONNACK %+v", ack)
			}
			return r
		}
		sub := join(b, false)
		sub.subscribe("sensors/#", 1)
		sub.send(&packet.Disconnect{})
		sub.closed()
		pub := plain(t, b, version, "pub")
		send := func(pub *raw, first, last int) {
			for i := first; i <= last; i++ {
				pub.publish("sensors/k", strconv.Itoa(i), 1, uint16(i))
				expect[*packet.Ack](pub)
			}
		}
		receive := func(sub *raw, first, last int, ack bool) {
			t.Helper()
			for i := first; i <= last; i++ {
				got := expect[*packet.Publish](sub)
				if string(got.Payload) != strconv.Itoa(i) {
					t.Fatalf("got %s instead of %d", got.Payload, i)
				}
				if ack {
					sub.send(&packet.Ack{Kind: packet.PUBACK, ID: got.ID})
				}
			}
		}
		send(pub, 1, 5)
		sub = join(b, true)
		receive(sub, 1, 5, false)
		sub.conn.Close()
		until(t, "it is gone", func() bool { return b.Status().Clients == 1 })
		sub = join(b, true)
		receive(sub, 1, 5, true)
		sub.quiet()
		sub.send(&packet.Disconnect{})
		sub.closed()
		until(t, "it is gone", func() bool { return b.Status().Clients == 1 })
		send(pub, 6, 9)
		stop()

		b, stop = start(t, c, log)
		sub = join(b, true)
		receive(sub, 6, 9, true)
		sub.quiet()
		send(plain(t, b, version, "pub"), 10, 10) // its subscription is there too
		receive(sub, 10, 10, true)
		until(t, "nothing waits", func() bool { return b.Status().QueuedBytes == 0 })
		sub.send(&packet.Disconnect{})
		sub.closed()
		// The second start finds what was delivered as delivered, once that is
		// written.
		until(t, "it is written", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			s := b.sessions["sub"]
			return s.stored == s.serial
		})
		stop()
		b, _ = start(t, c, log)
		sub = join(b, true)
		sub.quiet()
		clean := plain(t, b, version, "sub") // takes over and begins anew
		if code := sub.closed(); version == packet.V5 && code != packet.SessionTakenOver {
			t.Errorf("ended with 0x%02x", byte(code))
		}
		pub = plain(t, b, version, "pub2")
		send(pub, 11, 11)
		clean.quiet()
	})
}

func TestWill(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		log := ingesttest.NewLog()
		b, _ := start(t, configuration(), log)
		sub := plain(t, b, version, "sub")
		sub.subscribe("sensors/+", 1)
		dev := func() *raw {
			r, _ := connect(t, b, packet.Connect{Version: version, ClientID: "dev", CleanStart: true,
				Will: &packet.Will{Topic: "sensors/gone", Payload: []byte("dev"), QoS: 1}})
			return r
		}
		d := dev()
		d.send(&packet.Disconnect{})
		d.closed()
		until(t, "it is gone", func() bool { return b.Status().Clients == 1 })
		sub.quiet()
		dev().conn.Close()
		if p := expect[*packet.Publish](sub); string(p.Payload) != "dev" || p.QoS != 1 {
			t.Errorf("got %+v", p)
		}
		if e := log.Entries(ingesttest.Stream); len(e) != 1 || string(e[0].Data) != "dev" {
			t.Errorf("the log holds %+v", e)
		}
	})
}

func TestWillDelay(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	sub := plain(t, b, packet.V5, "sub")
	sub.subscribe("gone", 0)
	minute, second := uint32(60), uint32(1)
	dev := func(delay *uint32) *raw {
		will := &packet.Will{Topic: "gone", Payload: []byte(strconv.Itoa(int(*delay)))}
		will.Properties.WillDelay = delay
		r, _ := connect(t, b, packet.Connect{Version: packet.V5, ClientID: "dev", Will: will, Properties: packet.Properties{SessionExpiry: &minute}})
		return r
	}
	dev(&minute).conn.Close()
	until(t, "it is gone", func() bool { return b.Status().Clients == 1 })
	d := dev(&second) // in time: no will
	sub.quiet()
	d.conn.Close()
	if p := expect[*packet.Publish](sub); string(p.Payload) != "1" {
		t.Errorf("got %s", p.Payload)
	}
}

func TestSharedSubscription(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	var members []*raw
	for i := range 3 {
		m := plain(t, b, packet.V5, fmt.Sprint("m", i))
		m.subscribe("$share/g/work/+", 0)
		members = append(members, m)
	}
	pub := plain(t, b, packet.V5, "pub")
	for i := range 30 {
		pub.publish("work/x", strconv.Itoa(i), 0, 0)
	}
	pub.publish("work/x", "last", 1, 1)
	expect[*packet.Ack](pub)
	total := 0
	for _, m := range members {
		m.send(&packet.Pingreq{})
		n := 0
		for {
			if err := m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			p, err := m.next()
			if err != nil {
				t.Fatal(err)
			}
			if _, over := p.(*packet.Pingresp); over {
				break
			}
			n++
		}
		if n < 10 || n > 11 {
			t.Errorf("a member got %d of 31", n)
		}
		total += n
	}
	if total != 31 {
		t.Errorf("%d of 31 were delivered", total)
	}
}

func TestProperties(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	sub := plain(t, b, packet.V5, "sub")
	sub.subscribeWith(packet.Subscription{Filter: "a/#", QoS: 1}, 5)
	sub.subscribeWith(packet.Subscription{Filter: "a/+", NoLocal: true}, 6)
	pub := plain(t, b, packet.V5, "pub")
	text, expiry, alias := "text/plain", uint32(100), uint16(1)
	p := &packet.Publish{Topic: "a/b", Payload: []byte("x"), QoS: 1, ID: 1}
	p.Properties = packet.Properties{
		ContentType: &text, MessageExpiry: &expiry, TopicAlias: &alias, CorrelationData: []byte("c"), User: []packet.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "w"}},
	}
	pub.send(p)
	expect[*packet.Ack](pub)
	got := expect[*packet.Publish](sub)
	ids := got.Properties.SubscriptionIDs
	slices.Sort(ids)
	if *got.Properties.ContentType != text || *got.Properties.MessageExpiry > 100 || len(got.Properties.User) != 2 || got.Properties.User[1].Value != "w" ||
		string(got.Properties.CorrelationData) != "c" || got.Properties.TopicAlias != nil || !slices.Equal(ids, []uint32{5, 6}) || got.QoS != 1 {
		t.Errorf("got %+v", got)
	}
	pub.send(&packet.Publish{Payload: []byte("y"), Properties: packet.Properties{TopicAlias: &alias}})
	if got := expect[*packet.Publish](sub); got.Topic != "a/b" || string(got.Payload) != "y" {
		t.Errorf("by alias: %+v", got)
	}
	other := uint16(2)
	pub.send(&packet.Publish{Properties: packet.Properties{TopicAlias: &other}})
	if code := pub.closed(); code != packet.ProtocolError {
		t.Errorf("an alias for nothing: 0x%02x", byte(code))
	}
	sub.publish("a/c", "own", 0, 0)
	if got := expect[*packet.Publish](sub); !slices.Equal(got.Properties.SubscriptionIDs, []uint32{5}) {
		t.Errorf("its own: %+v", got)
	}
}

// TestSlowSubscriber costs neither the publisher nor the log anything.
func TestSlowSubscriber(t *testing.T) {
	log := ingesttest.NewLog()
	c := configuration()
	c.MaxQueued = 20
	b, _ := start(t, c, log)
	one := uint16(1)
	slow, _ := connect(t, b, packet.Connect{Version: packet.V5, ClientID: "slow", CleanStart: true, Properties: packet.Properties{ReceiveMaximum: &one}})
	slow.subscribe("sensors/#", 1)
	pub := plain(t, b, packet.V311, "pub")
	for i := range 200 {
		pub.publish("sensors/k", strconv.Itoa(i), 1, uint16(i+1))
	}
	for range 200 {
		expect[*packet.Ack](pub)
	}
	if n := len(log.Entries(ingesttest.Stream)); n != 200 {
		t.Errorf("the log holds %d", n)
	}
	// Twenty wait, and one is on its way, unless all came before it went.
	kept := 200 - int(b.Status().Dropped)
	if kept != 20 && kept != 21 {
		t.Errorf("%d kept", kept)
	}
	for i := range kept {
		got := expect[*packet.Publish](slow)
		// The last place may have become free only when some were dropped already.
		if n, err := strconv.Atoi(string(got.Payload)); err != nil || n != i && (i < 20 || n < i) {
			t.Fatalf("got %s instead of %d", got.Payload, i)
		}
		slow.send(&packet.Ack{Kind: packet.PUBACK, ID: got.ID})
	}
	slow.quiet()
}

func TestKeepAlive(t *testing.T) {
	both(t, func(t *testing.T, version byte) {
		b, _ := start(t, configuration(), ingesttest.NewLog())
		c, _ := connect(t, b, packet.Connect{Version: version, ClientID: "dev", CleanStart: true, KeepAlive: 1})
		began := time.Now()
		code := c.closed()
		if took := time.Since(began); took < time.Second || took > 5*time.Second {
			t.Errorf("ended after %s", took)
		}
		if version == packet.V5 && code != packet.KeepAliveTimeout {
			t.Errorf("ended with 0x%02x", byte(code))
		}
	})
}

// TestRefusedFirst: whatever comes first and is no proper CONNECT ends the
// connection.
func TestRefusedFirst(t *testing.T) {
	c := configuration()
	c.ConnectTimeout = 300 * 1e6
	b, _ := start(t, c, ingesttest.NewLog())
	for name, first := range map[string]string{
		"nothing":            "",
		"HTTP":               "GET / HTTP/1.1\r\n\r\n",
		"PINGREQ":            "\xc0\x00",
		"half a CONNECT":     "\x10\x10\x00\x04MQTT",
		"a huge CONNECT":     "\x10\xff\xff\xff\x7f",
		"a large CONNECT":    "\x10\x81\x80\x01" + strings.Repeat("x", 100),
		"an endless length":  "\x10\xff\xff\xff\xff\xff",
		"TLS":                "\x16\x03\x01\x02\x00\x01\x00",
		"another version":    "\x10\x0d\x00\x04MQTT\x06\x02\x00\x0a\x00\x01a",
		"empty id, kept":     "\x10\x0c\x00\x04MQTT\x04\x00\x00\x0a\x00\x00",
		"a long id":          "\x10\x8d\x04\x00\x04MQTT\x04\x02\x00\x0a\x02\x01" + strings.Repeat("x", 513),
		"reserved connect":   "\x10\x0d\x00\x04MQTT\x04\x03\x00\x0a\x00\x01a",
		"a second one later": "\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a",
	} {
		t.Run(name, func(t *testing.T) {
			r := dial(t, b, packet.V311)
			if _, err := r.conn.Write([]byte(first)); err != nil {
				t.Fatal(err)
			}
			r.closed()
		})
	}
	plain(t, b, packet.V5, "good").quiet()
	if b.Status().Panics != 0 {
		t.Error("there was a panic")
	}
}

func TestMaxClients(t *testing.T) {
	c := configuration()
	c.MaxClients = 2
	b, _ := start(t, c, ingesttest.NewLog())
	one := plain(t, b, packet.V5, "one")
	plain(t, b, packet.V5, "two")
	dial(t, b, packet.V5).closed()
	one.send(&packet.Disconnect{})
	one.closed()
	until(t, "there is room", func() bool { return b.Status().Clients == 1 })
	plain(t, b, packet.V5, "three").quiet()
	if b.Status().Refused["max_clients"] == 0 {
		t.Errorf("%+v", b.Status())
	}
}
