package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/weir-edge/weir/buffer/disk"
)

// segmentID names a segment: its chain and its number in it.
type segmentID struct {
	chain  uint32
	number uint64
}

// segment is what is known of a segment file that holds records. Fields are
// guarded by Log.mu once the segment is in Log.segments.
type segment struct {
	id     segmentID
	path   string
	size   int64  // allocated
	end    int64  // behind the last good frame
	prev   uint32 // header CRC of that frame
	sealed bool
	oldest time.Duration // age clock of the first frame
	newest time.Duration // and of the last
	shards map[shardNumber]*segmentShare
}

// segmentShare is what one shard has in a segment.
type segmentShare struct {
	First  Sequence      `json:"first"`
	Last   Sequence      `json:"last"`
	Bytes  int64         `json:"bytes"`
	Newest time.Duration `json:"newest"` // age clock of its last batch there
}

func (s *segment) add(h *frameHeader) {
	age := time.Duration(h.age)
	if s.shards == nil {
		s.shards = make(map[shardNumber]*segmentShare)
		s.oldest = age
	}
	s.newest = max(s.newest, age)
	if h.kind != frameBatch {
		return
	}
	key := shardNumber{h.stream, h.shard}
	share := s.shards[key]
	if share == nil {
		share = &segmentShare{First: h.first}
		s.shards[key] = share
	}
	share.Last = max(share.Last, h.last())
	share.Bytes += h.size()
	share.Newest = max(share.Newest, age)
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x.seg", number) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (uint64, bool) {
	var number uint64
	if _, err := fmt.Sscanf(name, "%016x.seg", &number); err != nil || segmentName(number) != name {
		return 0, false
	}
	return number, true
}

// segmentWriter appends to the open segment of a chain. One goroutine at a
// time.
type segmentWriter struct {
	file   disk.File
	id     segmentID
	size   int64  // allocated
	end    int64  // where the next frame goes
	synced int64  // durable up to here
	prev   uint32 // header CRC of the last frame
}

// startSegment writes the header of a new segment. It becomes durable with
// the first unit.
func startSegment(file disk.File, id segmentID, size int64, now time.Time) (*segmentWriter, error) {
	h := segmentHeader{chain: id.chain, number: id.number, created: now.UnixNano()}
	if _, err := file.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	return &segmentWriter{file: file, id: id, size: size, end: segmentHeaderSize}, nil
}

// write puts a finished unit at the end and makes it durable. After an error
// the writer is of no more use.
func (w *segmentWriter) write(unit []byte) error {
	if _, err := w.file.WriteAt(unit, w.end); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	w.end += int64(len(unit))
	w.synced = w.end
	return nil
}

func (w *segmentWriter) fits(n int) bool { return w.end+int64(n) <= w.size }

// scanStart is where a scan of a segment begins.
type scanStart struct {
	offset int64
	prev   uint32 // header CRC of the frame before offset; 0 at the first frame
}

// scanEnd is what a scan found out about a segment.
type scanEnd struct {
	end     int64  // behind the last frame of the last whole unit
	prev    uint32 // its header CRC
	last    frameHeader
	any     bool  // whether last holds a frame
	stale   int64 // > end: frames of units that never became whole lie up to here
	damaged []*CorruptError
}

// scanner walks over the frames of one segment file and keeps to whole units.
type scanner struct {
	file    disk.File
	id      segmentID
	path    string
	size    int64
	deliver func(h frameHeader, crc uint32, offset int64, body []byte) error
	bodies  func(h *frameHeader) bool // whose bodies deliver wants; others get nil

	unit []scanned
	out  scanEnd
}

type scanned struct {
	header frameHeader
	crc    uint32
	offset int64
	body   []byte
}

// scanSegment reads the segment from start on and calls deliver for every
// frame of every whole unit, in order. Damage before a frame that was written
// later and knew the place to be durable is reported and passed over; damage
// with nothing of that kind behind it is the end a crash left.
func (s *scanner) scan(start scanStart) (scanEnd, error) {
	size, err := s.file.Size()
	if err != nil {
		return s.out, fmt.Errorf("size of %s: %w", s.path, err)
	}
	s.size = size
	s.out.end, s.out.prev = start.offset, start.prev
	if start.offset == 0 {
		if err := s.header(); err != nil {
			return s.out, err
		}
		s.out.end = segmentHeaderSize
	}
	offset, prev, chained := s.out.end, s.out.prev, true
	for {
		f, err := s.frame(offset)
		if err == nil && chained && f.header.prev != prev {
			err = fmt.Errorf("it does not follow the frame before it")
			s.out.stale = max(s.out.stale, offset+f.header.size())
		}
		if err != nil {
			next, ok, rerr := s.resync(offset)
			if rerr != nil {
				return s.out, rerr
			}
			if !ok {
				return s.out, nil
			}
			s.out.damaged = append(s.out.damaged, &CorruptError{Segment: s.path, Offset: offset, Reason: err.Error()})
			// What came before it in its unit was durable too.
			if err := s.finishUnit(); err != nil {
				return s.out, err
			}
			offset, chained = next, false
			continue
		}
		prev, chained = f.crc, true
		offset += f.header.size()
		s.unit = append(s.unit, f)
		if f.header.flags&flagUnitEnd == 0 {
			continue
		}
		if err := s.finishUnit(); err != nil {
			return s.out, err
		}
	}
}

// finishUnit delivers the frames collected.
func (s *scanner) finishUnit() error {
	for i := range s.unit {
		f := &s.unit[i]
		if err := s.deliver(f.header, f.crc, f.offset, f.body); err != nil {
			return err
		}
		s.out.end, s.out.prev, s.out.last, s.out.any = f.offset+f.header.size(), f.crc, f.header, true
	}
	s.unit = s.unit[:0]
	return nil
}

func (s *scanner) header() error {
	b := make([]byte, segmentHeaderSize)
	if err := readFull(s.file, b, 0); err != nil {
		return &CorruptError{Segment: s.path, Reason: "segment header: " + err.Error()}
	}
	h, err := decodeSegmentHeader(b)
	if err != nil {
		return &CorruptError{Segment: s.path, Reason: err.Error()}
	}
	if (segmentID{h.chain, h.number}) != s.id {
		return &CorruptError{Segment: s.path, Reason: fmt.Sprintf("it says it is segment %d of chain %d", h.number, h.chain)}
	}
	return nil
}

// frame reads and checks the frame at offset. Bodies are read to check them,
// and kept where they are wanted.
func (s *scanner) frame(offset int64) (scanned, error) {
	f := scanned{offset: offset}
	if offset+frameHeaderSize > s.size {
		return f, errors.New("the segment ends there")
	}
	b := make([]byte, frameHeaderSize)
	if err := readFull(s.file, b, offset); err != nil {
		return f, err
	}
	var err error
	if f.header, f.crc, err = parseFrameHeader(b); err != nil {
		return f, err
	}
	if f.header.segment != s.id.number {
		return f, errors.New("it belongs to another segment")
	}
	if offset+f.header.size() > s.size {
		return f, errors.New("its body goes past the end of the segment")
	}
	body := make([]byte, f.header.stored)
	if err := readFull(s.file, body, offset+frameHeaderSize); err != nil {
		return f, err
	}
	if checksum(body) != f.header.bodyCRC {
		return f, errors.New("checksum of the body does not match")
	}
	if s.bodies(&f.header) {
		f.body = body
	}
	return f, nil
}

// resync looks behind a bad frame at bad for a good one that proves the place
// was durable. It notes how far frames of an unfinished unit reach.
func (s *scanner) resync(bad int64) (next int64, ok bool, err error) {
	const window = 1 << 20
	buf := make([]byte, window)
	first := int64(0)
	for base := bad; base+frameHeaderSize <= s.size; base += window - frameHeaderSize {
		n := min(int64(window), s.size-base)
		if err := readFull(s.file, buf[:n], base); err != nil {
			return 0, false, fmt.Errorf("read %s at %d: %w", s.path, base, err)
		}
		for i := int64(0); i+frameHeaderSize <= n; i++ {
			if buf[i] != 'W' || buf[i+1] != 'F' || buf[i+2] != 'R' || buf[i+3] != 'M' {
				continue
			}
			if base+i == bad {
				continue // the one that is bad
			}
			f, ferr := s.frame(base + i)
			if ferr != nil {
				continue
			}
			if first == 0 {
				first = base + i
			}
			if int64(f.header.synced) > bad {
				return first, true, nil
			}
			s.out.stale = max(s.out.stale, base+i+f.header.size())
		}
	}
	return 0, false, nil
}

// readFull reads exactly len(b) bytes.
func readFull(file io.ReaderAt, b []byte, offset int64) error {
	n, err := file.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// listSegments returns the numbers of the segment files in dir, ascending,
// and the names of other files there.
func listSegments(files disk.FS, dir string) (segments map[uint64]disk.Info, others []string, err error) {
	infos, err := files.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", dir, err)
	}
	segments = make(map[uint64]disk.Info)
	for _, info := range infos {
		if number, ok := parseSegmentName(info.Name); ok && !info.Dir {
			segments[number] = info
		} else {
			others = append(others, path.Join(dir, info.Name))
		}
	}
	return segments, others, nil
}
