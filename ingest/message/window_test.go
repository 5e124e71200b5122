package message

import "testing"

// TestWindow: the depth ends where identifiers come round.
func TestWindow(t *testing.T) {
	w := NewWindow(WindowSize)
	w.Note(1, Seen{Hash: 7, Epoch: 1})
	w.Note(2, Seen{Hash: 7, Epoch: 1, Exact: true})
	for i := range WindowSize {
		if !w.Holds(1, 7, 2) && i < WindowSize-3 {
			t.Fatalf("forgotten after %d", i)
		}
		w.Note(uint16(i%30_000+3), Seen{Hash: 8, Epoch: 1})
	}
	if w.Holds(1, 7, 2) {
		t.Error("a QoS 1 message is recognised beyond the window")
	}
	if !w.Holds(2, 7, 2) {
		t.Error("a QoS 2 message is not recognised although its identifier is still its own")
	}
	if w.Holds(2, 7, 1) {
		t.Error("a message is compared with one of the same connection")
	}
	w.NewSession(2)
	if w.Holds(2, 7, 2) || w.Len() != 0 {
		t.Error("a new session recognises what was before it")
	}
}

// TestWindowForgets: it holds no more than its depth.
func TestWindowForgets(t *testing.T) {
	w := NewWindow(256)
	for id := 1; id <= 65535; id++ {
		w.Note(uint16(id), Seen{Hash: uint64(id)})
	}
	if w.Len() != 256 || !w.Holds(65535, 65535, 1) || w.Holds(65535-256, 65535-256, 1) {
		t.Errorf("%d are held", w.Len())
	}
	w.Note(7, Seen{Hash: 7, Exact: true})
	for id := 1000; id < 2000; id++ {
		w.Note(uint16(id), Seen{})
	}
	if !w.Holds(7, 7, 1) {
		t.Error("a QoS 2 message is forgotten")
	}
}
