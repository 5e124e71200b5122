package buffer

import (
	"fmt"
	"unicode/utf8"
)

// recordSize is what counts against the size limits: data, partition key,
// attributes and the index value.
func recordSize(r *Record) int64 {
	n := len(r.Data) + len(r.PartitionKey)
	for _, a := range r.Attributes {
		n += len(a.Key) + len(a.Value)
	}
	if r.Index != nil {
		n += len(r.Index.Value)
	}
	return int64(n)
}

// checkRecord says what is wrong with a record before anything is stored.
func checkRecord(r *Record, maxBytes int64) error {
	if r.PartitionKey == "" {
		return fmt.Errorf("%w: partition key is empty", ErrInvalid)
	}
	if !utf8.ValidString(r.PartitionKey) {
		return fmt.Errorf("%w: partition key is not UTF-8", ErrInvalid)
	}
	if len(r.PartitionKey) > MaxPartitionKeyChars && utf8.RuneCountInString(r.PartitionKey) > MaxPartitionKeyChars {
		return fmt.Errorf("%w: partition key has over %d characters", ErrTooLarge, MaxPartitionKeyChars)
	}
	if err := checkAttributes(r.Attributes); err != nil {
		return err
	}
	if r.Part != Whole {
		maxBytes = MaxPartBytes + MaxAttributeBytes + 4*MaxPartitionKeyChars // of its own kind, whatever the file says
		if r.Index != nil {
			maxBytes += MaxIndexValueBytes
		}
	}
	if size := recordSize(r); size > maxBytes {
		return fmt.Errorf("%w: record of %d bytes is over the limit of %d", ErrTooLarge, size, maxBytes)
	}
	return checkPart(r)
}

func checkAttributes(attributes []Attribute) error {
	if len(attributes) > MaxAttributes {
		return fmt.Errorf("%w: %d attributes are over the limit of %d", ErrTooLarge, len(attributes), MaxAttributes)
	}
	size := 0
	for _, a := range attributes {
		if a.Key == "" || !utf8.ValidString(a.Key) || !utf8.ValidString(a.Value) {
			return fmt.Errorf("%w: attribute %.40q is empty or not UTF-8", ErrInvalid, a.Key)
		}
		size += len(a.Key) + len(a.Value)
	}
	if size > MaxAttributeBytes {
		return fmt.Errorf("%w: attributes of %d bytes are over the limit of %d", ErrTooLarge, size, MaxAttributeBytes)
	}
	return nil
}

func checkPart(r *Record) error {
	switch r.Part {
	case Whole, Piece:
		if r.Index != nil {
			return fmt.Errorf("%w: only a closing record has an index", ErrInvalid)
		}
		if r.Part == Piece && len(r.Data) > MaxPartBytes {
			return fmt.Errorf("%w: piece of %d bytes is over the limit of %d", ErrTooLarge, len(r.Data), MaxPartBytes)
		}
	case Closing:
		if r.Index == nil {
			return fmt.Errorf("%w: a closing record needs an index", ErrInvalid)
		}
		if len(r.Index.Value) > MaxIndexValueBytes {
			return fmt.Errorf("%w: index value of %d bytes is over the limit of %d", ErrTooLarge, len(r.Index.Value), MaxIndexValueBytes)
		}
		if r.Index.End.Before(r.Index.Start) {
			return fmt.Errorf("%w: index ends before it starts", ErrInvalid)
		}
	default:
		return fmt.Errorf("%w: part %d is not known", ErrInvalid, r.Part)
	}
	return nil
}
