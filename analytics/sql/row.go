package sql

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// Names of the attributes of a row.
const (
	AttrQuery = "weir.query"  // the query's name
	AttrRowID = "weir.row_id" // QUERY/WINDOW START/EPOCH/HASH OF THE GROUP: the same row has the same id
)

// row makes the row of a group; false: HAVING does not want it. It is a
// function of its arguments, whatever was before.
func (a *Analyzer) row(window moment, key string, g *group) (buffer.Record, bool) {
	e := env{start: appendTime(nil, window.at), end: appendTime(nil, a.end(window).at)}
	rest := []byte(key)
	for range a.plan.keys {
		var d datum
		d, rest, _ = decodeKey(rest) // we wrote it, or the state's decoder read it
		e.keys = append(e.keys, d)
	}
	for i := range a.plan.totals {
		var sum total
		for j := range g.parts {
			a.plan.totals[i].join(&sum, &g.parts[j].totals[i])
		}
		e.aggregates = append(e.aggregates, a.plan.totals[i].result(&sum))
	}
	if a.plan.having != nil {
		if v, _ := truth(a.plan.having.eval(&e), &e); !v {
			return buffer.Record{}, false
		}
	}
	data := []byte{'{'}
	for i, item := range a.plan.items {
		if i > 0 {
			data = append(data, ',')
		}
		data = item.node.eval(&e).appendJSON(append(data, item.name...))
	}
	sum := sha256.Sum256([]byte(key))
	id := a.o.Name + "/" + string(e.start) + "/" + strconv.FormatUint(uint64(window.epoch), 10) + "/" + hex.EncodeToString(sum[:8])
	return buffer.Record{
		PartitionKey: a.partitionKey(e.keys), Data: append(data, '}'),
		Attributes: []buffer.Attribute{{Key: AttrQuery, Value: a.o.Name}, {Key: AttrRowID, Value: id}},
	}, true
}

// keptChars of a partition key that is too long are kept before its hash.
const keptChars = 200

// partitionKey is the values that the group has in common: so the rows of one
// group keep their order.
func (a *Analyzer) partitionKey(keys []datum) string {
	var b []byte
	for i, d := range keys {
		if i > 0 {
			b = append(b, '/')
		}
		b = d.appendPlain(b)
	}
	if len(b) == 0 {
		return a.o.Name
	}
	if utf8.RuneCount(b) <= buffer.MaxPartitionKeyChars {
		return string(b)
	}
	sum := sha256.Sum256(b)
	return string([]rune(string(b))[:keptChars]) + "~" + hex.EncodeToString(sum[:8])
}
