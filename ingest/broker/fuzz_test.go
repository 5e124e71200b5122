package broker

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// FuzzState: no record of the state stream panics, and whatever is restored
// keeps to the limits.
func FuzzState(f *testing.F) {
	message := &stored{Topic: "a", Payload: []byte("x"), QoS: 1, Retain: true}
	for _, c := range []change{
		{Kind: kindSession, Client: "c", Generation: 1, Session: &keptSession{Expiry: time.Hour, Subs: []subscription{{Filter: "a/#", QoS: 1}}}},
		{Kind: kindQueued, Message: message, For: []waits{{Client: "c", Generation: 1, Serial: 3, QoS: 2}}},
		{Kind: kindRetained, Message: message}, {Kind: kindDelivered, Client: "c", Generation: 1, UpTo: 2},
		{Kind: kindGone, Client: "c", Generation: 1}, {Kind: kindBegin}, {Kind: kindEnd},
	} {
		f.Add(c.record().Data, change{Kind: kindQueued, Message: message, For: []waits{{Client: "c", Generation: 1, Serial: 9}}}.record().Data)
	}
	f.Add([]byte(`{"v":1,"kind":"session","client":"c","session":{"expiry":3600000000000,"subs":[{"filter":"$share//+/#/x"}]}}`), []byte("{}"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		c := configuration()
		c.MaxQueued, c.MaxRetained, c.MaxSessions, c.MaxSubscriptions = 2, 1, 1, 1
		b, err := New(Options{Config: c, Log: ingesttest.NewLog()})
		if err != nil {
			t.Fatal(err)
		}
		r := &restorer{sessions: map[string]*restored{}, retained: map[string]*stored{}}
		for _, data := range [][]byte{one, two, one} {
			_ = r.apply(data) // bad ones are passed over
		}
		b.restore(r)
		if len(b.sessions) > 1 || len(b.retained) > 1 {
			t.Fatalf("%d sessions, %d retained", len(b.sessions), len(b.retained))
		}
		for _, s := range b.sessions {
			if len(s.queue) > 2 || len(s.subs) > 1 {
				t.Fatalf("%d wait, %d subscriptions", len(s.queue), len(s.subs))
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.targets(&publication{topic: "a/b", qos: 1}, nil)
		for _, s := range b.sessions {
			b.drop(s)
		}
		if b.queuedBytes != 0 || b.freshBytes != 0 || len(b.tree.root.below) != 0 {
			t.Fatalf("%d bytes and %d branches are left", b.queuedBytes, len(b.tree.root.below))
		}
	})
}

// FuzzFirst: whatever a connection begins with, it is refused or it is a CONNECT
// that can be answered.
func FuzzFirst(f *testing.F) {
	for _, p := range []packet.Connect{{Version: packet.V311, ClientID: "a", CleanStart: true}, {Version: packet.V5, HasUser: true, User: "u", Will: &packet.Will{Topic: "t"}}} {
		wire, err := p.Append(nil, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Add([]byte("\x10\xff\xff\xff\x7f"))
	c := configuration()
	b, err := New(Options{Config: c, Log: ingesttest.NewLog()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := readConnect(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		cl := &client{broker: b, version: p.Version}
		if no := cl.accept(p); no != nil {
			return
		}
		if cl.id == "" || len(cl.id) > maxClientID || cl.keepAlive <= 0 || cl.receiveMaximum == 0 {
			t.Fatalf("%+v", cl)
		}
	})
}
