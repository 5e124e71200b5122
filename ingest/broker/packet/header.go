package packet

import "io"

// Header is the fixed header of a packet (2.1).
type Header struct {
	Type   Type
	Flags  byte // the low four bits of the first byte
	Length int  // bytes of the packet after the fixed header, at most 268,435,455
}

// MaxLength is the most a fixed header can say.
const MaxLength = 268_435_455

// ReadHeader reads a fixed header. More than limit bytes behind it are an
// *Error with PacketTooLarge, a length of more than four bytes one with
// Malformed; then the header is returned as far as it is known. Errors of r come
// back as they are, io.EOF only before the first byte.
func ReadHeader(r io.ByteReader, limit int) (Header, error) {
	first, err := r.ReadByte()
	if err != nil {
		return Header{}, err
	}
	h := Header{Type: Type(first >> 4), Flags: first & 15}
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return h, err
		}
		h.Length |= int(c&0x7f) << shift
		if c&0x80 == 0 {
			if c == 0 && shift > 0 {
				return h, malformed("the length of the packet is not written in the fewest bytes")
			}
			break
		}
		if shift == 21 {
			return h, malformed("the length of the packet has more than four bytes")
		}
	}
	if h.Length > limit {
		return h, &Error{PacketTooLarge, "the packet is larger than is taken here"}
	}
	return h, nil
}

// appendLength appends a variable byte integer (1.5.5).
func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}
