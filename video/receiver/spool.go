package receiver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/fmp4"
	"github.com/weir-edge/weir/video/fragment"
)

const (
	pieceBuffers = 3 // of a camera: one filling, two on their way to the log
	bufferWait   = 250 * time.Millisecond
	spoolQueue   = 8 // parts; closings without data come on top of the pieces
)

// spool appends parts to the log, in a goroutine of its own. It is the
// fragment.Out of a Receiver.
type spool struct {
	stream string
	log    Appender
	logger *slog.Logger
	queue  chan fragment.Part
	free   chan []byte

	mu    sync.Mutex
	stats spoolStats

	// Of the goroutine alone.
	dead     int64 // serial of the fragment that failed
	waitKey  bool  // the group of pictures is broken: nothing until its next keyframe
	gap      *video.Gap
	failures limiter
	unsaid   int64
}

type spoolStats struct {
	fragments, bytes int64 // durable
	lost, frames     int64 // fragments refused, and their frames
	errors           int64
	last             time.Time
	lastError        string
	pending          int
}

func newSpool(stream string, log Appender, logger *slog.Logger) *spool {
	s := &spool{stream: stream, log: log, logger: logger,
		queue: make(chan fragment.Part, spoolQueue), free: make(chan []byte, pieceBuffers)}
	for range pieceBuffers {
		s.free <- nil // memory comes with the first use
	}
	return s
}

// Buffer implements fragment.Out. It waits a short time for the log, in which
// the socket's buffer in the kernel takes what comes: a keyframe of 4K arrives
// in one burst that is larger than all pieces together.
func (s *spool) Buffer() []byte {
	var b []byte
	select {
	case b = <-s.free:
	default:
		timer := time.NewTimer(bufferWait)
		defer timer.Stop()
		select {
		case b = <-s.free:
		case <-timer.C:
			return nil
		}
	}
	if b == nil {
		b = make([]byte, 0, 32<<10)
	}
	return b
}

// Put implements fragment.Out.
func (s *spool) Put(part fragment.Part) bool {
	select {
	case s.queue <- part:
		return true
	default:
		s.recycle(part.Data)
		return false
	}
}

// Drop implements fragment.Out.
func (s *spool) Drop(data []byte) { s.recycle(data) }

func (s *spool) recycle(data []byte) {
	if data == nil {
		return
	}
	select {
	case s.free <- data[:0]:
	default: // cannot be: there are never more buffers than places
	}
}

// close ends run when everything put before is appended.
func (s *spool) close() { close(s.queue) }

// run appends until close. When ctx is done what is left is given up.
func (s *spool) run(ctx context.Context) {
	for part := range s.queue {
		s.take(ctx, part)
		s.recycle(part.Data)
	}
}

// take appends one part, or drops it with the fragment it belongs to.
func (s *spool) take(ctx context.Context, part fragment.Part) {
	if part.Key && part.Serial != s.dead {
		s.waitKey = false
	}
	if part.Serial == s.dead || s.waitKey {
		s.dead = part.Serial
		s.lose(part)
		return
	}
	records, err := s.records(part)
	if err == nil {
		_, err = s.log.Append(ctx, s.stream, records...)
	}
	if err != nil {
		s.fail(part, err)
		return
	}
	if part.Closing == nil {
		return
	}
	s.gap = nil
	s.mu.Lock()
	s.stats.fragments++
	s.stats.bytes += part.Closing.Fragment.Bytes
	s.stats.last = part.Closing.Fragment.End
	s.stats.lastError = ""
	s.mu.Unlock()
}

// records are what the log is to hold for part.
func (s *spool) records(part fragment.Part) ([]buffer.Record, error) {
	var out []buffer.Record
	if len(part.Data) > 0 {
		out = append(out, buffer.Record{PartitionKey: s.stream, Data: part.Data, Arrival: part.Arrival, Part: buffer.Piece})
	}
	c := part.Closing
	if c == nil {
		return out, nil
	}
	if s.gap != nil {
		s.gap.To = c.Fragment.Start
		c.Fragment.AddGap(*s.gap)
	}
	data, meta, err := fmp4.EncodeClosing(&c.Fragment, c.Parameters, c.Table)
	if err != nil {
		return nil, err
	}
	return append(out, buffer.Record{
		PartitionKey: s.stream, Data: data, Arrival: part.Arrival, Part: buffer.Closing,
		Index: &buffer.Index{Start: c.Fragment.Start, End: c.Fragment.End, Pieces: c.Pieces, Value: meta},
	}), nil
}

// fail gives up the fragment of part, and what needs it.
func (s *spool) fail(part fragment.Part, err error) {
	s.dead, s.waitKey = part.Serial, true
	cause := video.CauseBackpressure
	if errors.Is(err, buffer.ErrFull) {
		cause = video.CauseLogFull
	}
	if s.gap == nil {
		s.gap = &video.Gap{Cause: cause}
	}
	s.mu.Lock()
	s.stats.errors++
	s.stats.lastError = err.Error()
	s.mu.Unlock()
	s.unsaid++
	if s.failures.allow(time.Now()) {
		s.logger.Error("append to the log, the group of pictures is dropped", "error", err, "failures", s.unsaid)
		s.unsaid = 0
	}
	s.lose(part)
}

// lose counts a fragment once, with its last part.
func (s *spool) lose(part fragment.Part) {
	if part.Closing == nil {
		return
	}
	f := &part.Closing.Fragment
	if s.gap == nil {
		s.gap = &video.Gap{Cause: video.CauseBackpressure}
	}
	if s.gap.From.IsZero() {
		s.gap.From = f.Start
	}
	s.gap.Frames += int64(f.Frames)
	s.mu.Lock()
	s.stats.lost++
	s.stats.frames += int64(f.Frames)
	s.mu.Unlock()
}

func (s *spool) snapshot() spoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.pending = len(s.queue)
	return out
}
