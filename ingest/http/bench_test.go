package http

import (
	"bytes"
	"fmt"
	"io"
	nethttp "net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkPosts is from 50 devices with a connection each into a real log
// that commits every 50 ms: b.N requests, each answered when it is durable.
func BenchmarkPosts(b *testing.B) {
	reading := `{"sensor":"pump-7","temperature":21.5,"n":123456}`
	for _, test := range []struct {
		name, kind, body string
		records          int
	}{
		{"one", "application/json", reading, 1},
		{"lines500", "application/x-ndjson", strings.Repeat(reading+"\n", 500), 500},
		{"batch500", "application/cloudevents-batch+json",
			"[" + strings.Repeat(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":`+reading+"},", 499) +
				`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":` + reading + "}]", 500},
	} {
		b.Run(test.name, func(b *testing.B) {
			l := openLog(b, filepath.Join(b.TempDir(), "log"), 50*time.Millisecond)
			defer l.Close()
			s, stop := startSource(b, open(), l)
			defer stop()
			url := "http://" + s.Address() + "/v1/streams/telemetry/records"
			b.SetBytes(int64(len(test.body)))
			var left atomic.Int64
			left.Store(int64(b.N))
			took := make([][]time.Duration, 50)
			var group sync.WaitGroup
			b.ResetTimer()
			for i := range took {
				group.Go(func() {
					client := &nethttp.Client{Transport: &nethttp.Transport{}}
					defer client.CloseIdleConnections()
					for left.Add(-1) >= 0 {
						began := time.Now()
						if err := post(client, url, test.kind, fmt.Sprint("device", i), test.body); err != nil {
							b.Error(err)
							return
						}
						took[i] = append(took[i], time.Since(began))
					}
				})
			}
			group.Wait()
			b.StopTimer()
			all := slices.Sorted(slices.Values(slices.Concat(took...)))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			b.ReportMetric(float64(b.N*test.records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "median-ms")
			b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
		})
	}
}

func post(client *nethttp.Client, url, kind, key, body string) error {
	r, err := nethttp.NewRequest(nethttp.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Weir-Partition-Key", key)
	got, err := client.Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, got.Body); err != nil {
		return err
	}
	if got.StatusCode != nethttp.StatusOK {
		return fmt.Errorf("answer %d: %s", got.StatusCode, &text)
	}
	return nil
}
