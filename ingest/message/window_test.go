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
