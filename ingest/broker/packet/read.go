package packet

import (
	"encoding/binary"
	"unicode/utf8"
)

// reader takes a body apart. After the first fault it returns zero values, and
// err is that fault.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

func (r *reader) take(n int, what string) []byte {
	if len(r.rest) < n {
		r.fail(malformed("the packet ends within %s", what))
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte(what string) byte {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// length reads a variable byte integer (1.5.5).
func (r *reader) length(what string) int {
	n := 0
	for shift := 0; shift <= 21; shift += 7 {
		c := r.byte(what)
		n |= int(c&0x7f) << shift
		if c&0x80 != 0 {
			continue
		}
		if c == 0 && shift > 0 {
			r.fail(malformed("%s is not written in the fewest bytes", what))
		}
		return n
	}
	r.fail(malformed("%s has more than four bytes", what))
	return 0
}

// binary reads binary data (1.5.6); not nil unless there was a fault.
func (r *reader) binary(what string) []byte {
	b := r.take(int(r.uint16(what)), what)
	if b == nil && r.err == nil {
		b = []byte{}
	}
	return b
}

// text reads a UTF-8 string (1.5.4). Surrogates are no UTF-8 to Go either.
func (r *reader) text(what string) string {
	b := r.binary(what)
	if !validText(b) {
		r.fail(malformed("%s is not UTF-8 or has a NUL in it", what))
		return ""
	}
	return string(b)
}

func validText(b []byte) bool {
	for _, c := range b {
		if c == 0 {
			return false
		}
	}
	return utf8.Valid(b)
}

// id reads a packet identifier (2.2.1), which is not 0.
func (r *reader) id() uint16 {
	id := r.uint16("the packet identifier")
	if id == 0 {
		r.fail(malformed("the packet identifier is 0"))
	}
	return id
}

// end wants nothing to be left.
func (r *reader) end() {
	if len(r.rest) > 0 {
		r.fail(malformed("%d bytes are left over", len(r.rest)))
	}
}

// writer builds a body. What does not fit the format is noted in err.
type writer struct {
	b   []byte
	err error
}

func (w *writer) uint16(n uint16) { w.b = binary.BigEndian.AppendUint16(w.b, n) }
func (w *writer) uint32(n uint32) { w.b = binary.BigEndian.AppendUint32(w.b, n) }

func (w *writer) binary(b []byte) {
	if len(b) > 65535 {
		w.err = malformed("%d bytes are more than the 65535 of a string", len(b))
		b = nil
	}
	w.uint16(uint16(len(b)))
	w.b = append(w.b, b...)
}

func (w *writer) text(s string) {
	if len(s) > 65535 {
		w.err = malformed("%d bytes are more than the 65535 of a string", len(s))
		s = ""
	}
	w.uint16(uint16(len(s)))
	w.b = append(w.b, s...)
}
