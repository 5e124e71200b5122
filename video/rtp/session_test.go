package rtp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	pion "github.com/pion/rtp"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// wire is a packet as it is sent; its payload says its number.
func wire(ssrc uint32, sequence uint16, timestamp uint32) []byte {
	p := pion.Packet{
		Header:  pion.Header{Version: 2, PayloadType: 96, SequenceNumber: sequence, Timestamp: timestamp, SSRC: ssrc},
		Payload: []byte(fmt.Sprint(sequence)),
	}
	raw, err := p.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

// bench is a Session with a clock of its own.
type bench struct {
	*Session
	now time.Time
	out []string
}

func newBench() *bench {
	return &bench{Session: NewSession(Options{ReorderDelay: 100 * time.Millisecond, SenderTimeout: 2 * time.Second}), now: begin}
}

// push sends packets of sender 7, a millisecond apart, and notes what comes out.
func (b *bench) push(sequences ...int) {
	for _, n := range sequences {
		b.raw(wire(7, uint16(n), uint32(n)*3000))
	}
}

func (b *bench) raw(raw []byte) {
	b.Push(b.now, raw)
	b.pop()
	b.now = b.now.Add(time.Millisecond)
}

func (b *bench) pop() {
	for p, ok := b.Pop(b.now); ok; p, ok = b.Pop(b.now) {
		text := string(p.Payload)
		if p.Lost > 0 {
			text = fmt.Sprintf("-%d %s", p.Lost, text)
		}
		if p.Restart {
			text = "! " + text
		}
		b.out = append(b.out, text)
	}
}

func (b *bench) wait(d time.Duration) {
	b.now = b.now.Add(d)
	b.pop()
}

func (b *bench) expect(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(b.out, " "); got != want {
		t.Errorf("came out: %s\nexpected: %s", got, want)
	}
}

func TestInOrder(t *testing.T) {
	b := newBench()
	b.push(10, 11, 12)
	b.expect(t, "! 10 11 12")
}

func TestOneStrayPacketPinsNobody(t *testing.T) {
	b := newBench()
	b.raw(wire(99, 500, 1))
	b.raw(wire(98, 700, 1))
	b.push(10, 11)
	b.expect(t, "! 10 11")
	if s := b.Stats(); s.Foreign != 2 || s.Packets != 2 || s.Restarts != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestReorder(t *testing.T) {
	b := newBench()
	b.push(1, 2, 4, 5, 3, 6, 8, 7, 9)
	b.expect(t, "! 1 2 3 4 5 6 7 8 9")
	if s := b.Stats(); s.Lost != 0 || s.Reordered == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestLossIsWaitedForAndTold(t *testing.T) {
	b := newBench()
	b.push(1, 2, 5, 6)
	b.expect(t, "! 1 2")
	at, ok := b.Deadline()
	if want := begin.Add(102 * time.Millisecond); !ok || !at.Equal(want) {
		t.Errorf("deadline %v, %v; expected %v", at, ok, want)
	}
	b.wait(97 * time.Millisecond)
	b.expect(t, "! 1 2")
	b.wait(time.Millisecond)
	b.expect(t, "! 1 2 -2 5 6")
	b.push(3, 7)
	b.expect(t, "! 1 2 -2 5 6 7")
	if s := b.Stats(); s.Lost != 2 || s.Late != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestDuplicates(t *testing.T) {
	b := newBench()
	b.push(1, 2, 2, 4, 4, 3, 3, 5)
	b.expect(t, "! 1 2 3 4 5")
	if s := b.Stats(); s.Duplicates != 1 || s.Late != 2 {
		t.Errorf("stats: %+v", s)
	}
}

func TestBufferIsBounded(t *testing.T) {
	b := newBench()
	b.push(1, 2)
	for n := range 4 * maxHeldPackets {
		b.Push(b.now, wire(7, uint16(4+n), 1)) // 3 never comes, and no time passes
		b.pop()
		if len(b.order.held) > maxHeldPackets+1 || b.order.bytes > maxHeldBytes+MaxPacketBytes {
			t.Fatalf("%d packets, %d bytes are held", len(b.order.held), b.order.bytes)
		}
	}
	if s := b.Stats(); s.Lost != 1 || len(b.out) != 2+4*maxHeldPackets {
		t.Errorf("%d came out, stats: %+v", len(b.out), s)
	}
}

func TestNumbersAndTimesWrap(t *testing.T) {
	b := newBench()
	var last Packet
	timestamp := uint32(0xffffffff - 3*3000)
	for n := range 2 * 65536 {
		b.Push(b.now, wire(7, uint16(65530+n), timestamp+uint32(n*3000)))
		for p, ok := b.Pop(b.now); ok; p, ok = b.Pop(b.now) {
			if !p.Restart && (p.Sequence != last.Sequence+1 || p.Timestamp != last.Timestamp+3000 || p.Lost != 0) {
				t.Fatalf("after %+v came %+v", last, p)
			}
			last = p
		}
	}
	if want := int64(timestamp) + (2*65536-1)*3000; last.Timestamp != want || last.Sequence != 65530+2*65536-1 {
		t.Errorf("the last is %d at %d, not at %d", last.Sequence, last.Timestamp, want)
	}
}

func TestTimestampsGoBackForBFrames(t *testing.T) {
	b := newBench()
	for n, timestamp := range []uint32{5, 6, 0xfffffff0, 20} {
		b.Push(b.now, wire(7, uint16(n), timestamp))
		for p, ok := b.Pop(b.now); ok; p, ok = b.Pop(b.now) {
			if want := int64(int32(timestamp)); n > 1 && p.Timestamp != want {
				t.Errorf("packet %d is at %d, not %d", n, p.Timestamp, want)
			}
		}
	}
}

func TestAnotherSenderWaits(t *testing.T) {
	b := newBench()
	b.push(1, 2)
	b.raw(wire(8, 100, 1))
	b.raw(wire(8, 101, 1))
	b.push(3)
	b.expect(t, "! 1 2 3")
	b.wait(2 * time.Second)
	b.raw(wire(8, 102, 1))
	b.raw(wire(8, 103, 1))
	b.raw(wire(7, 4, 1)) // too late: another took its place
	b.expect(t, "! 1 2 3 ! 102 103")
	if s := b.Stats(); s.Foreign != 3 || s.Restarts != 1 || s.Lost != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestGoodbyeOpensThePlace(t *testing.T) {
	b := newBench()
	b.push(1, 2)
	raw, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 7}, &rtcp.Goodbye{Sources: []uint32{7}}})
	if err != nil {
		t.Fatal(err)
	}
	b.PushRTCP(raw)
	b.push(3)
	b.raw(wire(8, 100, 1))
	b.raw(wire(8, 101, 1))
	b.expect(t, "! 1 2 3 ! 100 101")
}

func TestSenderRestartsWithItsSSRC(t *testing.T) {
	b := newBench()
	b.push(40000, 40001, 20) // one packet far off may be a stray
	b.push(40002)
	b.expect(t, "! 40000 40001 40002")
	b.push(20, 21, 22)
	b.expect(t, "! 40000 40001 40002 ! 20 21 22")
	if s := b.Stats(); s.Restarts != 1 || s.Late != 1 || s.Lost != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestSenderReport(t *testing.T) {
	b := newBench()
	report := func(ssrc, timestamp uint32) []byte {
		raw, err := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: ssrc, NTPTime: 0xed000000<<32 | 1<<31, RTPTime: timestamp}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	b.PushRTCP(report(7, 6000)) // before its first packet: kept for it
	b.PushRTCP(report(7, 6000))
	b.push(1, 2)
	wall := time.Unix(0xed000000-ntpEpochOffset, 5e8)
	if got := b.SenderTime(6000); !got.Equal(wall) {
		t.Errorf("6000 is at %v, not %v", got, wall)
	}
	if got := b.SenderTime(6000 - 45000); !got.Equal(wall.Add(-time.Second / 2)) {
		t.Errorf("half a second before is %v", got)
	}
	b.PushRTCP(report(9, 0)) // somebody else's
	if got := b.SenderTime(6000); !got.Equal(wall) {
		t.Errorf("after a foreign report 6000 is at %v", got)
	}
	b.Push(b.now, report(7, 9000)) // multiplexed with RTP
	if got := b.SenderTime(9000); !got.Equal(wall) {
		t.Errorf("9000 is at %v, not %v", got, wall)
	}
}

func TestMalformed(t *testing.T) {
	b := newBench()
	for _, raw := range [][]byte{
		nil, {0x80}, make([]byte, 11), make([]byte, 12), make([]byte, MaxPacketBytes+1),
		append([]byte{0x8f}, make([]byte, 11)...),                              // 15 CSRCs that are not there
		append([]byte{0xa0}, make([]byte, 12)...),                              // padding of 0
		append(append([]byte{0xa0}, make([]byte, 11)...), 200),                 // more padding than packet
		append([]byte{0x90}, append(make([]byte, 11), 0, 0, 0xff, 0xff, 1)...), // an extension that is not there
		{0x80, 200, 0, 99}, // RTCP that is too short
	} {
		b.raw(raw)
	}
	if s := b.Stats(); s.Malformed != 10 || len(b.out) > 0 {
		t.Errorf("%v came out, stats: %+v", b.out, s)
	}
}

func TestPaddingAndExtensionAreNotPayload(t *testing.T) {
	b := newBench()
	for n := range uint16(2) {
		b.raw([]byte{0xb0, 96, 0, byte(n), 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 0x10, 1, 0, 0, 'x', 'y', 0, 2})
	}
	b.expect(t, "! xy xy")
}

// FuzzSession feeds datagrams of any kind; the first byte of each is its length
// and how much time passes.
func FuzzSession(f *testing.F) {
	var stream []byte
	for _, n := range []uint16{1, 2, 4, 3, 3, 9, 40000, 40001} {
		raw := wire(7, n, uint32(n)*3000)
		stream = append(append(stream, byte(len(raw))), raw...)
	}
	f.Add(stream)
	sr, err := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: 7, NTPTime: 1 << 40}, &rtcp.Goodbye{Sources: []uint32{7}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(append([]byte{byte(len(sr))}, sr...), stream...))
	f.Add([]byte{12, 0xbf, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewSession(Options{ReorderDelay: 10 * time.Millisecond, SenderTimeout: 50 * time.Millisecond})
		now := begin
		var last Packet
		out := int64(0)
		drain := func(pop func(time.Time) (Packet, bool)) {
			for p, ok := pop(now); ok; p, ok = pop(now) {
				if !p.Restart && p.Sequence != last.Sequence+1+p.Lost {
					t.Fatalf("after %d came %d with %d lost", last.Sequence, p.Sequence, p.Lost)
				}
				last = Packet{Sequence: p.Sequence}
				out++
			}
		}
		for len(data) > 0 {
			n := min(int(data[0]&0x7f), len(data)-1)
			now = now.Add(time.Duration(data[0]>>7) * 7 * time.Millisecond)
			s.Push(now, data[1:1+n])
			drain(s.Pop)
			if len(s.order.held) > maxHeldPackets+1 {
				t.Fatalf("%d packets are held", len(s.order.held))
			}
			data = data[1+n:]
		}
		drain(s.Drain)
		stats := s.Stats()
		if out > stats.Packets || stats.Foreign < 0 || stats.Late < 0 || stats.Lost < 0 {
			t.Fatalf("%d came out, stats %+v", out, stats)
		}
	})
}
