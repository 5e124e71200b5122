package receiver

import "time"

// Stats is a snapshot of a Receiver. Counters are since New.
type Stats struct {
	Stream         string    `json:"stream"`
	Codec          string    `json:"codec"`
	Address        string    `json:"address,omitempty"` // where it listens
	Width          int       `json:"width,omitempty"`
	Height         int       `json:"height,omitempty"`
	Waiting        string    `json:"waiting,omitempty"` // why nothing is recorded at the moment: the cause of the gap
	LastPacket     time.Time `json:"last_packet,omitzero"`
	Packets        int64     `json:"packets"`
	Bytes          int64     `json:"bytes"`
	LostPackets    int64     `json:"lost_packets"`
	Reordered      int64     `json:"reordered_packets"`
	Duplicates     int64     `json:"duplicate_packets"`
	LatePackets    int64     `json:"late_packets"`
	BadPackets     int64     `json:"bad_packets"` // not RTP, not this sender's, not H.264, or not allowed
	Refused        int64     `json:"refused_packets"`
	Restarts       int64     `json:"restarts"`
	Reports        int64     `json:"sender_reports"`
	Frames         int64     `json:"frames"` // received whole and taken
	DroppedFrames  int64     `json:"dropped_frames"`
	FrozenFrames   int64     `json:"frozen_timestamp_frames"` // with the timestamp of the one before
	Fragments      int64     `json:"fragments"`               // durable in the log
	FragmentBytes  int64     `json:"fragment_bytes"`
	LostFragments  int64     `json:"lost_fragments"` // refused by the log
	AppendErrors   int64     `json:"append_errors"`
	LastFragment   time.Time `json:"last_fragment,omitzero"` // wall time of its end
	LastError      string    `json:"last_error,omitempty"`   // of an append
	PendingPieces  int       `json:"pending_pieces"`         // waiting to be appended
	refusedReports int64
	badReports     int64
}

// Stats returns a snapshot. Safe for concurrent use.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// publish copies the counters of the goroutines into the snapshot.
func (r *Receiver) publish(w *worker, s *spool) {
	session, units, built, spooled := w.session.Stats(), w.units.Stats(), w.builder.Stats(), s.snapshot()
	cause, waiting := w.builder.Waiting()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &r.stats
	out.Width, out.Height = built.Width, built.Height
	out.Waiting = ""
	if waiting {
		out.Waiting = string(cause)
	}
	out.LastPacket = w.session.LastSeen().Round(0)
	out.Packets, out.Bytes, out.LostPackets = session.Packets, session.Bytes, session.Lost
	out.Reordered, out.Duplicates, out.LatePackets = session.Reordered, session.Duplicates, session.Late
	out.Restarts, out.Reports = session.Restarts, session.Reports
	out.Refused = w.refused + out.refusedReports
	out.BadPackets = session.Malformed + session.Foreign + units.Damaged + out.Refused + out.badReports
	out.Frames, out.DroppedFrames = built.Frames-spooled.frames, built.Dropped+spooled.frames
	out.FrozenFrames = units.Frozen
	out.Fragments, out.FragmentBytes, out.LostFragments = spooled.fragments, spooled.bytes, spooled.lost
	out.AppendErrors, out.LastFragment, out.LastError = spooled.errors, spooled.last, spooled.lastError
	out.PendingPieces = spooled.pending
}
