package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hostileLimit is how long an attack lasts at most, whatever its context says.
const hostileLimit = time.Minute

// Attack is what Hostile does.
type Attack struct {
	target Target
	group  sync.WaitGroup
	opened atomic.Int64
	failed atomic.Int64
	bytes  atomic.Int64
}

// Hostile attacks the broker with n connections at once, each in one of the
// ways of hostileWays and again and again, until ctx ends and a minute at most.
// It comes as a stranger, whom the broker may let in. Wait has to be called.
func Hostile(ctx context.Context, address string, n int) *Attack {
	return attack(ctx, Target{Address: address}, n)
}

// attack is Hostile with the credentials of the target.
func attack(ctx context.Context, target Target, n int) *Attack {
	a := &Attack{target: target}
	ctx, cancel := context.WithTimeout(ctx, hostileLimit)
	var each sync.WaitGroup
	for i := range n {
		each.Go(func() { a.connection(ctx, i) })
	}
	a.group.Go(func() {
		defer cancel()
		each.Wait()
	})
	return a
}

// Wait waits for the end and says what was done: connections opened, those that
// the broker did not take, bytes sent.
func (a *Attack) Wait() (opened, refused, sent int64) {
	a.group.Wait()
	return a.opened.Load(), a.failed.Load(), a.bytes.Load()
}

// connection attacks in one way, with a new connection each time one ends.
func (a *Attack) connection(ctx context.Context, i int) {
	way := hostileWays[i%len(hostileWays)]
	for ctx.Err() == nil {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", a.target.Address)
		if err != nil {
			a.failed.Add(1)
			rest(ctx, 100*time.Millisecond)
			continue
		}
		a.opened.Add(1)
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		way.run(&attacker{ctx: ctx, conn: conn, attack: a, index: i})
		stop()
		conn.Close()
		rest(ctx, 20*time.Millisecond)
	}
}

// rest waits about as long, or until ctx ends; it says whether to go on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attacker is one connection of an attack.
type attacker struct {
	ctx    context.Context
	conn   net.Conn
	attack *Attack
	index  int
}

// write sends bytes and says whether the connection is still there.
func (a *attacker) write(b []byte) bool {
	if a.conn.SetWriteDeadline(time.Now().Add(5*time.Second)) != nil {
		return false
	}
	n, err := a.conn.Write(b)
	a.attack.bytes.Add(int64(n))
	return err == nil
}

// flood sends the same again and again, at most total bytes, and reads nothing.
func (a *attacker) flood(b []byte, total int) {
	for sent := 0; sent < total && a.write(b); sent += len(b) {
		if !rest(a.ctx, 2*time.Millisecond) {
			return
		}
	}
}

// hold waits until the broker ends the connection.
func (a *attacker) hold() {
	_, _ = io.Copy(io.Discard, a.conn) // any end will do
}

// enter connects; the broker may refuse.
func (a *attacker) enter(changes ...func(*connect)) bool {
	hello := connect{version: version311, id: fmt.Sprint("hostile", a.index), user: a.attack.target.Username, password: a.attack.target.Password}
	for _, change := range changes {
		change(&hello)
	}
	return a.write(hello.bytes())
}

// hostileWays are the ways to attack a broker.
var hostileWays = []struct {
	name string
	run  func(*attacker)
}{
	{"no CONNECT", func(a *attacker) { a.hold() }},
	{"half a CONNECT", func(a *attacker) {
		whole := connect{version: version5, id: "half"}.bytes()
		if a.write(whole[:len(whole)/2]) {
			a.hold()
		}
	}},
	{"a byte a second", func(a *attacker) {
		for _, b := range (connect{version: version311, id: strings.Repeat("slow", 100)}).bytes() {
			if !a.write([]byte{b}) || !rest(a.ctx, time.Second) {
				return
			}
		}
	}},
	{"a huge remaining length", func(a *attacker) {
		if a.write(appendVariable([]byte{kindConnect << 4}, maxRemaining)) {
			a.flood(make([]byte, 16<<10), 4<<20)
			a.hold()
		}
	}},
	{"a huge message", func(a *attacker) {
		if a.enter() && a.write(appendVariable([]byte{kindPublish << 4}, maxRemaining)) {
			a.flood(bytes.Repeat([]byte("x"), 16<<10), 4<<20)
			a.hold()
		}
	}},
	{"endless properties", func(a *attacker) {
		head := append(appendText(nil, protocolName), version5, 2, 0, 60)
		head = appendVariable(head, 200_000_000)
		if a.write(append(appendVariable([]byte{kindConnect << 4}, maxRemaining), head...)) {
			a.flood(bytes.Repeat(property{id: propUserProperty, text: "k", more: "v"}.append(nil), 1000), 4<<20)
			a.hold()
		}
	}},
	{"a TLS hello and garbage", func(a *attacker) {
		garbage := make([]byte, 4<<10)
		for i := range garbage {
			garbage[i] = byte(rand.Int())
		}
		if a.write(append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, garbage...)) {
			a.hold()
		}
	}},
	{"never reading", func(a *attacker) {
		if !a.enter() {
			return
		}
		a.write(subscribe(version311, 1, nil, subscription{"brokertest/#", 1}))
		a.flood(publish{topic: "brokertest/hostile", payload: strings.Repeat("x", 8<<10), qos: 1, id: 1}.bytes(version311), 4<<20)
		rest(a.ctx, 5*time.Second)
	}},
	{"a flood of PINGREQ", func(a *attacker) {
		if a.enter() {
			a.flood(bytes.Repeat(pingreq, 2000), 2<<20)
		}
	}},
	{"a flood of bad passwords", func(a *attacker) {
		a.enter(func(c *connect) { c.user, c.password = "tester", fmt.Sprint("wrong", rand.Int()) })
		a.hold()
	}},
	{"a flood of SUBSCRIBE", func(a *attacker) {
		if !a.enter() {
			return
		}
		for i := range 2000 {
			list := []subscription{{fmt.Sprintf("brokertest/hostile/%d/%d/+/#", a.index, i), 1}, {fmt.Sprintf("+/%d/#", i), 0}}
			if !a.write(subscribe(version311, uint16(i+1), nil, list...)) || !rest(a.ctx, time.Millisecond) {
				return
			}
		}
	}},
	{"a topic of 65535 bytes", func(a *attacker) {
		if a.enter() {
			long := "brokertest/" + strings.Repeat("x", 65535-len("brokertest/"))
			a.flood(publish{topic: long, payload: "x", qos: 1, id: 1}.bytes(version311), 2<<20)
		}
	}},
	{"a topic of 1000 levels", func(a *attacker) {
		if a.enter() {
			deep := "brokertest" + strings.Repeat("/x", 1000)
			a.write(subscribe(version311, 1, nil, subscription{"brokertest" + strings.Repeat("/+", 1000), 1}))
			a.flood(publish{topic: deep, payload: "x", qos: 1, id: 1, retain: true}.bytes(version311), 1<<20)
		}
	}},
	{"a flood of retained messages", func(a *attacker) {
		if !a.enter() {
			return
		}
		for i := range 2000 {
			p := publish{topic: fmt.Sprintf("brokertest/hostile/%d/%d", a.index, i), payload: strings.Repeat("x", 1024), qos: 1, id: uint16(i + 1), retain: true}
			if !a.write(p.bytes(version311)) || !rest(a.ctx, time.Millisecond) {
				return
			}
		}
	}},
	{"a session after another", func(a *attacker) {
		a.enter(func(c *connect) {
			c.version, c.id, c.persist = version5, fmt.Sprint("hostile", rand.Int()), true
			c.props = properties{{id: propSessionExpiry, n: 0xffffffff}}
		})
		a.write(slices.Concat(subscribe(version5, 1, nil, subscription{"brokertest/hostile/#", 2}), disconnect))
	}},
}

// Siege is an attack beside which good clients have to go on.
type Siege struct {
	Hostile  int           // connections
	Good     int           // clients
	Duration time.Duration // 30 s at most
	// Insider gives the attackers the credentials of Target.Username: devices that
	// went wrong, not strangers.
	Insider bool
}

// SiegeReport is how the good clients fared.
type SiegeReport struct {
	Messages int           // each acknowledged and received by its sender
	Slowest  time.Duration // from PUBLISH until it was both
	Opened   int64         // connections of the attack
}

// Run attacks the target while good clients publish with QoS 1 to a topic they
// subscribe to, each message after the last. It fails the test if one of them
// loses its connection or waits longer than ten seconds, and if the broker is
// not as good as new after the attack.
func (s Siege) Run(t testing.TB, target Target) SiegeReport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), min(s.Duration, 30*time.Second))
	defer cancel()
	var report SiegeReport
	var mu sync.Mutex
	var failed []error
	var good sync.WaitGroup
	who := Target{Address: target.Address}
	if s.Insider {
		who = target
	}
	siege := attack(ctx, who, s.Hostile)
	for i := range s.Good {
		good.Go(func() {
			err := try(target, []byte{version311, version5}[i%2], patience, func(t *trial) {
				c := t.join("good")
				c.subscribe(subscription{t.topic("x"), 1})
				for n := 0; ctx.Err() == nil; n++ {
					begin := time.Now()
					c.put(t.topic("x"), fmt.Sprint(n), 1)
					c.wants(t.topic("x"), fmt.Sprint(n), 1)
					mu.Lock()
					report.Messages++
					report.Slowest = max(report.Slowest, time.Since(begin))
					mu.Unlock()
					rest(ctx, 20*time.Millisecond)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
		})
	}
	good.Wait()
	report.Opened, _, _ = siege.Wait()
	failed = append(failed, try(target, version5, patience, func(t *trial) {
		c := t.join("after")
		c.subscribe(subscription{t.topic("x"), 1})
		c.put(t.topic("x"), "after", 1)
		c.wants(t.topic("x"), "after", 1)
	}))
	if err := errors.Join(failed...); err != nil {
		t.Errorf("good clients beside %d hostile connections: %v", s.Hostile, err)
	}
	return report
}
