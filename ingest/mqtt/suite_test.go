package mqtt

import (
	"fmt"
	"testing"

	"github.com/weir-edge/weir/ingest/ingesttest"
)

func TestSuite(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
			ingesttest.Suite(t, func(t *testing.T) ingesttest.Harness {
				b := startScripted(t)
				b.session = true // it keeps messages from the start
				c := config(b.address(), topic("sensors/+", int(qos), ingesttest.Stream, "{topic[1]}"), topic("json", int(qos), ingesttest.Stream, "{json.id}"))
				return ingesttest.Harness{
					Start: func(t *testing.T, log *ingesttest.Log) func() {
						_, stop := startSource(t, c, log)
						return stop
					},
					Send:         func(_ *testing.T, key, data string) { b.publish("sensors/"+key, data, qos) },
					Unmappable:   func(*testing.T) { b.publish("json", "{}", qos) },
					Acknowledged: b.settled,
					Again:        true,
				}
			})
		})
	}
}
