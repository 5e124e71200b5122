package buffer

import (
	"crypto/md5" // Kinesis routes by MD5; nothing here is secret
	"encoding/binary"
	"math/big"
	"math/bits"
)

// hashKey is a 128-bit unsigned integer: the MD5 of a partition key, as
// Kinesis reads it (big endian).
type hashKey struct{ hi, lo uint64 }

func hashOf(partitionKey string) hashKey {
	sum := md5.Sum([]byte(partitionKey))
	return hashKey{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

func (k hashKey) less(o hashKey) bool { return k.hi < o.hi || k.hi == o.hi && k.lo < o.lo }

// String is the decimal form Kinesis uses.
func (k hashKey) String() string {
	n := new(big.Int).SetUint64(k.hi)
	n.Lsh(n, 64)
	return n.Or(n, new(big.Int).SetUint64(k.lo)).String()
}

// shardRanges cuts the 128-bit space for count shards as Kinesis does: equal
// steps of floor(2^128/count), the last one up to the end. It returns the
// first hash key of each.
func shardRanges(count int) []hashKey {
	if count == 1 {
		return []hashKey{{}}
	}
	n := uint64(count)
	// 2^128/n by long division in base 2^64.
	stepHi, rest := bits.Div64(1, 0, n)
	stepLo, _ := bits.Div64(rest, 0, n)
	starts := make([]hashKey, count)
	for i := range starts {
		carry, lo := bits.Mul64(stepLo, uint64(i))
		starts[i] = hashKey{stepHi*uint64(i) + carry, lo}
	}
	return starts
}

// shardOf finds the shard whose range holds key: the last start not above it.
func shardOf(starts []hashKey, key hashKey) ShardID {
	lo, hi := 0, len(starts)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; key.less(starts[mid]) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return ShardID(lo)
}

// endOf is the last hash key of shard i.
func endOf(starts []hashKey, i int) hashKey {
	if i == len(starts)-1 {
		return hashKey{^uint64(0), ^uint64(0)}
	}
	next := starts[i+1]
	if next.lo == 0 {
		return hashKey{next.hi - 1, ^uint64(0)}
	}
	return hashKey{next.hi, next.lo - 1}
}
