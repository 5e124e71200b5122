package recording

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/fmp4"
)

// chosen is a fragment of a clip: where its records are.
type chosen struct {
	first, last buffer.Sequence
}

// Clip writes an MP4 of what a camera recorded in span to w, index first, so that
// w need not seek. It shows the frames from the one that was to be seen at
// span.From up to the last one before span.To; the frames a decoder needs before those
// are in the file and hidden by its edit list. Nothing is written if nothing
// was recorded there: the error is buffer.ErrNotFound then.
func Clip(ctx context.Context, w io.Writer, log Log, span Span) error {
	if err := clip(ctx, w, log, span); err != nil {
		return fmt.Errorf("cut clip of camera %s: %w", span.Camera, err)
	}
	return nil
}

func clip(ctx context.Context, w io.Writer, log Log, span Span) error {
	if !span.From.Before(span.To) {
		return fmt.Errorf("the start is not before the end: %w", buffer.ErrInvalid)
	}
	list, err := choose(ctx, log, span)
	if err != nil {
		return err
	}
	c := &cutter{from: span.From, to: span.To}
	parts := list[:0]
	for _, part := range list {
		stored, err := readClosing(ctx, log, span.Camera, part)
		if err != nil {
			return err
		}
		used, err := c.add(stored)
		if err != nil {
			return err
		}
		if used {
			parts = append(parts, part)
		}
	}
	if c.shownEnd <= c.shownStart || len(parts) == 0 {
		return fmt.Errorf("nothing is recorded from %s to %s: %w", span.From.Format(time.RFC3339Nano), span.To.Format(time.RFC3339Nano), buffer.ErrNotFound)
	}
	c.movie.Edit(c.shownStart, c.shownEnd)
	out := bufio.NewWriterSize(w, 64<<10)
	if err := c.movie.WriteHeader(out); err != nil {
		return err
	}
	for i, part := range parts {
		pieces := &pieceReader{ctx: ctx, log: log, stream: span.Camera, next: part.first, end: part.last}
		if err := c.movie.CopySamples(out, i, pieces); err != nil {
			return fmt.Errorf("fragment at %d: %w", part.last, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// choose lists the fragments of span, and before them those back to the
// keyframe that the first one needs.
func choose(ctx context.Context, log Log, span Span) ([]chosen, error) {
	var list []chosen
	var first *video.Fragment
	err := walk(ctx, log, span, func(c buffer.Closed, f video.Fragment) bool {
		if first == nil {
			first = &f
		}
		list = append(list, chosen{c.First, c.Last})
		return true
	})
	if err != nil {
		return nil, err
	}
	if first == nil || first.Key {
		return list, nil
	}
	var before []chosen
	err = walk(ctx, log, Span{span.Camera, first.KeyStart, span.To}, func(c buffer.Closed, f video.Fragment) bool {
		if c.Last >= list[0].last {
			return false
		}
		if f.Key {
			before = before[:0] // only back to the last keyframe
		}
		before = append(before, chosen{c.First, c.Last})
		return true
	})
	return append(before, list...), err
}

// readClosing reads the closing record of a fragment.
func readClosing(ctx context.Context, log Log, camera string, part chosen) (*fmp4.Stored, error) {
	page, err := log.Read(ctx, camera, buffer.Position{Sequence: part.last}, buffer.Limit{MaxRecords: 1})
	if err != nil {
		return nil, err
	}
	if len(page.Entries) == 0 || page.Entries[0].Sequence != part.last || page.Entries[0].Part != buffer.Closing {
		return nil, fmt.Errorf("fragment at %d: %w", part.last, errors.Join(errGone, buffer.ErrNotFound))
	}
	stored, err := fmp4.DecodeClosing(page.Entries[0].Data)
	if err != nil {
		return nil, fmt.Errorf("fragment at %d: %w", part.last, err)
	}
	return stored, nil
}

// cutter lays fragments out in a movie and finds what of it is shown.
type cutter struct {
	from, to             time.Time
	movie                fmp4.Movie
	last                 *video.Fragment
	lastAt               int64 // movie time of last
	decodable            bool  // the keyframe of the fragments added now is in the movie
	shownStart, shownEnd int64
	any                  bool
}

// add takes the next fragment, if it can be used: one whose keyframe is gone
// cannot.
func (c *cutter) add(s *fmp4.Stored) (bool, error) {
	f := &s.Fragment
	if f.Key {
		c.decodable = true
	} else if c.last != nil && !f.Follows(c.last) && (f.Epoch != c.last.Epoch || len(f.Gaps) > 0) {
		c.decodable = false
	}
	if !c.decodable {
		return false, nil
	}
	count, shownFrom, shownTo := shown(s, f.Media(c.from), f.Media(c.to))
	if count == 0 {
		return false, nil
	}
	at := int64(0)
	if c.last != nil {
		if f.Epoch == c.last.Epoch {
			at = c.lastAt + f.MediaStart - c.last.MediaStart
		} else {
			at = c.lastAt + video.ToTicks(f.Start.Sub(c.last.Start))
		}
	}
	at, err := c.movie.Add(s, at, count)
	if err != nil {
		return false, err
	}
	c.last, c.lastAt = f, at
	if shownTo > shownFrom {
		if !c.any {
			c.any, c.shownStart = true, shownFrom-f.MediaStart+at
		}
		c.shownEnd = shownTo - f.MediaStart + at
	}
	return true, nil
}

// shown returns how many samples, from the first on, are needed to show [first,
// behind) of media time, and what of it the fragment shows: from the frame
// that is on at first to the last one that begins before behind.
func shown(s *fmp4.Stored, first, behind int64) (count int, shownFrom, shownTo int64) {
	end := s.Fragment.MediaEnd
	shownFrom, shownTo = s.Fragment.MediaStart, end
	n := 0
	for sample := range s.Samples() {
		n++
		if sample.PTS < behind {
			count = n
		} else {
			shownTo = min(shownTo, sample.PTS)
		}
		if sample.PTS <= first {
			shownFrom = max(shownFrom, sample.PTS)
		}
	}
	if first >= end {
		shownFrom = end // all of it is before what was asked for
	}
	return count, shownFrom, shownTo
}

// pieceReader gives the bytes of a fragment's pieces.
type pieceReader struct {
	ctx    context.Context
	log    Log
	stream string
	next   buffer.Sequence
	end    buffer.Sequence // the closing record
	page   []buffer.Entry
	rest   []byte
}

// Read implements io.Reader.
func (r *pieceReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if err := r.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// advance goes to the next piece.
func (r *pieceReader) advance() error {
	if r.next >= r.end {
		return io.EOF
	}
	if len(r.page) == 0 {
		page, err := r.log.Read(r.ctx, r.stream, buffer.Position{Sequence: r.next},
			buffer.Limit{MaxRecords: int(min(r.end-r.next, 4)), MaxBytes: 512 << 10})
		if err != nil {
			return err
		}
		if len(page.Entries) == 0 {
			return errGone
		}
		r.page = page.Entries
	}
	entry := r.page[0]
	r.page = r.page[1:]
	if entry.Sequence != r.next || entry.Part != buffer.Piece {
		return fmt.Errorf("record %d: %w", r.next, errGone)
	}
	r.next++
	r.rest = entry.Data
	return nil
}
