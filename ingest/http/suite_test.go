package http

import (
	"context"
	nethttp "net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/ingesttest"
)

// device posts what it is given, one after the other on one connection, and
// again what was not answered with 200 or 400.
type device struct {
	queue chan [2]string
	acked atomic.Int64
	addr  atomic.Value
}

func (d *device) run(ctx context.Context, client *nethttp.Client) {
	defer client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-d.queue:
			for !d.post(ctx, client, m) {
				select {
				case <-ctx.Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	}
}

// post says whether the message is done with: safe, or never to be taken.
func (d *device) post(ctx context.Context, client *nethttp.Client, m [2]string) bool {
	r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, "http://"+d.addr.Load().(string)+"/v1/streams/"+ingesttest.Stream+"/records", strings.NewReader(m[1]))
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Weir-Partition-Key", m[0])
	got, err := client.Do(r)
	if err != nil {
		return false
	}
	_ = got.Body.Close()
	if got.StatusCode == nethttp.StatusOK {
		d.acked.Add(1)
	}
	return got.StatusCode == nethttp.StatusOK || got.StatusCode == nethttp.StatusBadRequest
}

func startDevice(t *testing.T) *device {
	d := &device{queue: make(chan [2]string, 1000)}
	d.addr.Store("127.0.0.1:1") // nobody, until the source runs
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { d.run(ctx, &nethttp.Client{Transport: &nethttp.Transport{}, Timeout: 20 * time.Second}) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return d
}

// TestSuite is the contract of a source, with a device that sends again.
func TestSuite(t *testing.T) {
	ingesttest.Suite(t, func(t *testing.T) ingesttest.Harness {
		d := startDevice(t)
		return ingesttest.Harness{
			Start: func(t *testing.T, log *ingesttest.Log) func() {
				s, stop := startSource(t, open(Stream{Stream: ingesttest.Stream}), log)
				d.addr.Store(s.Address())
				return stop
			},
			Send:         func(_ *testing.T, key, data string) { d.queue <- [2]string{key, data} },
			Acknowledged: func() int { return int(d.acked.Load()) },
			Answers:      true,
			Again:        true,
		}
	})
}
