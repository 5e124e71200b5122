package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	recordPartMask      = 0x03
	recordHasIndex      = 1 << 2
	recordHasAttributes = 1 << 3
	recordKnownFlags    = recordPartMask | recordHasIndex | recordHasAttributes
)

var errBody = errors.New("body of the batch does not decode")

// batchEncoder turns records into the body of a batch frame. It is reused; one
// goroutine at a time.
type batchEncoder struct {
	numbers map[string]uint32 // string -> its number in the table
	table   []byte
	records []byte
	count   uint32
	last    int64 // arrival of the record before, ms
	first   int64 // arrival of the first record, ms
	latest  int64 // greatest arrival, ms
	payload int64
}

func (e *batchEncoder) reset() {
	if e.numbers == nil || len(e.numbers) > 1<<16 {
		e.numbers = make(map[string]uint32)
	}
	clear(e.numbers)
	e.table, e.records = e.table[:0], e.records[:0]
	e.count, e.last, e.first, e.latest, e.payload = 0, 0, 0, 0, 0
}

func (e *batchEncoder) size() int { return len(e.table) + len(e.records) }

func (e *batchEncoder) number(s string) uint64 {
	n, ok := e.numbers[s]
	if !ok {
		n = uint32(len(e.numbers))
		e.numbers[s] = n
		e.table = binary.AppendUvarint(e.table, uint64(len(s)))
		e.table = append(e.table, s...)
	}
	return uint64(n)
}

// add appends one record that has passed checkRecord. arrival is in ms.
func (e *batchEncoder) add(r *Record, arrival int64) {
	if e.count == 0 {
		e.first, e.latest = arrival, arrival
	}
	flags := byte(r.Part)
	if r.Index != nil {
		flags |= recordHasIndex
	}
	if len(r.Attributes) > 0 {
		flags |= recordHasAttributes
	}
	e.records = append(e.records, flags)
	e.records = binary.AppendUvarint(e.records, e.number(r.PartitionKey))
	e.records = binary.AppendVarint(e.records, arrival-e.last)
	if len(r.Attributes) > 0 {
		e.records = binary.AppendUvarint(e.records, uint64(len(r.Attributes)))
		for _, a := range r.Attributes {
			k := e.number(a.Key)
			e.records = binary.AppendUvarint(e.records, k)
			e.records = binary.AppendUvarint(e.records, e.number(a.Value))
		}
	}
	if x := r.Index; x != nil {
		start := x.Start.UnixMilli()
		e.records = binary.AppendVarint(e.records, start)
		e.records = binary.AppendVarint(e.records, x.End.UnixMilli()-start)
		e.records = binary.AppendUvarint(e.records, uint64(x.Pieces))
		e.records = appendBytes(e.records, x.Value)
	}
	e.records = appendBytes(e.records, r.Data)
	e.count++
	e.last, e.latest = arrival, max(e.latest, arrival)
	e.payload += recordSize(r)
}

func appendBytes(b, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

// body appends the finished body to b.
func (e *batchEncoder) body(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.numbers)))
	b = append(b, e.table...)
	return append(b, e.records...)
}

// batchDecoder walks over the records of a batch's body. The entries it gives
// share the body's memory.
type batchDecoder struct {
	rest    []byte
	strings []string
	left    uint32
	arrival int64
	scratch []Attribute
}

// decodeBatch checks the string table of a body that holds count records.
func decodeBatch(body []byte, count uint32) (*batchDecoder, error) {
	d := &batchDecoder{rest: body, left: count}
	n, err := d.uvarint()
	if err != nil || n > uint64(len(body)) {
		return nil, errBody
	}
	// One conversion for the whole table; the strings are cut from it.
	tableStart := len(body) - len(d.rest)
	spans := make([][2]int, n)
	for i := range spans {
		s, err := d.bytes()
		if err != nil {
			return nil, err
		}
		end := len(body) - len(d.rest)
		spans[i] = [2]int{end - len(s), end}
	}
	table := string(body[tableStart : len(body)-len(d.rest)])
	d.strings = make([]string, n)
	for i, s := range spans {
		d.strings[i] = table[s[0]-tableStart : s[1]-tableStart]
	}
	return d, nil
}

// next decodes one record into r. It returns false after the last one.
func (d *batchDecoder) next(r *Record) (bool, error) {
	if d.left == 0 {
		if len(d.rest) != 0 {
			return false, errBody
		}
		return false, nil
	}
	if len(d.rest) == 0 {
		return false, errBody
	}
	flags := d.rest[0]
	d.rest = d.rest[1:]
	if flags&^byte(recordKnownFlags) != 0 || Part(flags&recordPartMask) > Closing {
		return false, fmt.Errorf("%w: record flags %#x are not known", errBody, flags)
	}
	*r = Record{Part: Part(flags & recordPartMask)}
	var err error
	if r.PartitionKey, err = d.text(); err != nil {
		return false, err
	}
	delta, err := d.varint()
	if err != nil {
		return false, err
	}
	d.arrival += delta
	r.Arrival = time.UnixMilli(d.arrival)
	if flags&recordHasAttributes != 0 {
		if r.Attributes, err = d.attributes(); err != nil {
			return false, err
		}
	}
	if flags&recordHasIndex != 0 {
		if r.Index, err = d.index(); err != nil {
			return false, err
		}
	}
	if r.Data, err = d.bytes(); err != nil {
		return false, err
	}
	d.left--
	return true, nil
}

func (d *batchDecoder) attributes() ([]Attribute, error) {
	n, err := d.uvarint()
	if err != nil || n > MaxAttributes {
		return nil, errBody
	}
	if len(d.scratch) < int(n) {
		d.scratch = make([]Attribute, max(int(n), 8*int(min(d.left, 256))))
	}
	list := d.scratch[:n:n]
	d.scratch = d.scratch[n:]
	for i := range list {
		if list[i].Key, err = d.text(); err != nil {
			return nil, err
		}
		if list[i].Value, err = d.text(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (d *batchDecoder) index() (*Index, error) {
	start, err := d.varint()
	if err != nil {
		return nil, err
	}
	length, err := d.varint()
	if err != nil {
		return nil, err
	}
	pieces, err := d.uvarint()
	if err != nil || pieces > 1<<32-1 {
		return nil, errBody
	}
	value, err := d.bytes()
	if err != nil {
		return nil, err
	}
	return &Index{Start: time.UnixMilli(start), End: time.UnixMilli(start + length), Pieces: uint32(pieces), Value: value}, nil
}

func (d *batchDecoder) uvarint() (uint64, error) {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		return 0, errBody
	}
	d.rest = d.rest[n:]
	return v, nil
}

func (d *batchDecoder) varint() (int64, error) {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		return 0, errBody
	}
	d.rest = d.rest[n:]
	return v, nil
}

func (d *batchDecoder) bytes() ([]byte, error) {
	n, err := d.uvarint()
	if err != nil || n > uint64(len(d.rest)) {
		return nil, errBody
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, nil
}

func (d *batchDecoder) text() (string, error) {
	n, err := d.uvarint()
	if err != nil || n >= uint64(len(d.strings)) {
		return "", errBody
	}
	return d.strings[n], nil
}
