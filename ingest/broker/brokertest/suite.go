// Package brokertest is what an MQTT broker must do, as tests of a black box:
// it knows an address and speaks bytes. The embedded broker is held against it,
// and mosquitto, by which the suite itself is proven.
//
// Suite runs the statements of MQTT 3.1.1 and 5 by a raw client of its own, each
// check named with what it tests ([MQTT-3.1.0-1]), and a table of malformed
// packets. Peers drives the broker with other people's clients (mosquitto_pub
// and npm mqtt) while it is killed. Hostile does the worst that a hundred
// connections can do, and Load counts what a broker acknowledges.
//
// All topics begin with brokertest/. What a broker is known not to do is an
// exception with its reason, and an exception that is not needed any more is a
// failure.
package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Target is the broker under test.
type Target struct {
	Address string // host:port, TCP
	// Username and Password of one who may do everything; empty: none is needed.
	Username, Password string
	// Limited is a user whom the broker restricts; nil: it has no such thing.
	Limited *Limited
	// TLS is another listener of the same broker; nil: it has none.
	TLS *TLS
	// Kill ends the broker as a crash does, and Start starts it again with the
	// same address and data. Each returns when it is done. nil: no test kills.
	Kill, Start func() error
	// MaxPacketBytes is the broker's own limit; 0: it has none to be tested.
	MaxPacketBytes int
	// Exceptions are checks that this broker does not pass, by their names as
	// Suite prints them ("name" for all versions, "name/v5" for one), with the
	// reason.
	Exceptions map[string]string
}

// Limited is a user who may publish and subscribe brokertest/limited/# and
// nothing else.
type Limited struct{ Username, Password string }

// TLS is how to reach a listener with TLS.
type TLS struct {
	Address string // host:port; the certificate is good for the host
	CAFile  string // PEM
	// CertFile and KeyFile of a client, PEM; empty: no certificate is asked for.
	CertFile, KeyFile string
}

// The versions a check is for.
const (
	v311 = 1 << iota
	v5
	both = v311 | v5
)

// check is one statement of the standard.
type check struct {
	name      string
	statement string // as the standards number it; "3.1.1 | 5" where they differ
	versions  int
	run       func(*trial)
}

// Suite checks the broker that start returns: once for all checks, for each
// leaves it as it was.
func Suite(t *testing.T, start func(t *testing.T) Target) {
	target := start(t)
	for _, group := range []struct {
		name   string
		checks []check
	}{
		{"connect", connectChecks}, {"publish", publishChecks}, {"subscribe", subscribeChecks}, {"session", sessionChecks},
		{"will", willChecks}, {"properties", propertyChecks}, {"access", accessChecks}, {"malformed", malformedChecks()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.checks {
				runCheck(t, target, c)
			}
		})
	}
}

func runCheck(t *testing.T, target Target, c check) {
	for _, v := range []struct {
		bit     int
		version byte
		name    string
	}{{v311, version311, "v3"}, {v5, version5, "v5"}} {
		if c.versions&v.bit == 0 || !c.applies(target) {
			continue
		}
		t.Run(c.name+"/"+v.name, func(t *testing.T) {
			why, excepted := target.Exceptions[c.name+"/"+v.name]
			if !excepted {
				why, excepted = target.Exceptions[c.name]
			}
			limit := patience
			if excepted {
				limit = time.Second // what will not come need not be waited for
			}
			err := try(target, v.version, limit, c.run)
			switch {
			case err != nil && excepted:
				t.Logf("[MQTT-%s] is excepted (%s): %v", c.statement, why, err)
			case err != nil:
				t.Errorf("[MQTT-%s]: %v", c.statement, err)
			case excepted:
				t.Errorf("[MQTT-%s] holds now; take the exception away (%s)", c.statement, why)
			}
		})
	}
}

// applies: some checks need what a target may not have.
func (c check) applies(target Target) bool {
	switch {
	case strings.HasPrefix(c.name, "limited"):
		return target.Limited != nil
	case strings.HasPrefix(c.name, "password"):
		return target.Username != ""
	case strings.HasPrefix(c.name, "tls"):
		return target.TLS != nil
	case strings.HasPrefix(c.name, "restart"):
		return target.Kill != nil && target.Start != nil
	case strings.HasPrefix(c.name, "too large"):
		return target.MaxPacketBytes > 0
	}
	return true
}

// serial makes names that no other check uses.
var serial atomic.Int64

// trial is one run of a check. Its Fatalf ends the check; it can be expected.
type trial struct {
	target  Target
	version byte
	name    string        // no other trial has it
	limit   time.Duration // how long to wait for what must come
	err     error
	conns   []net.Conn
	kept    map[string]bool // topics that have a retained message
}

// try runs a check to its end and returns what is wrong. The retained messages
// of a check that ended early are cleared.
func try(target Target, version byte, limit time.Duration, run func(*trial)) error {
	t := &trial{target: target, version: version, limit: limit, name: fmt.Sprintf("bt%d", serial.Add(1)), kept: map[string]bool{}}
	t.run(run)
	if len(t.kept) > 0 {
		t.run(func(t *trial) {
			c := t.join("clear")
			for _, topic := range slices.Collect(maps.Keys(t.kept)) {
				c.publish(publish{topic: topic, qos: 1, retain: true})
			}
		})
	}
	return t.err
}

func (t *trial) run(check func(*trial)) {
	done := make(chan struct{})
	go func() { // so that Fatalf can end it
		defer close(done)
		defer t.end()
		check(t)
	}()
	<-done
}

func (t *trial) end() {
	for _, c := range t.conns {
		c.Close() // many are closed already
	}
	t.conns = nil
}

// Fatalf notes what is wrong and ends the check.
func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Errorf notes what is wrong.
func (t *trial) Errorf(format string, args ...any) {
	t.err = errors.Join(t.err, fmt.Errorf(format, args...))
}

// topic returns a topic of this trial.
func (t *trial) topic(name string) string { return "brokertest/" + t.name + "/" + name }

// five returns a value by version.
func five[T any](t *trial, old, five T) T {
	if t.version == version5 {
		return five
	}
	return old
}
