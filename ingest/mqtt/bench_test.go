package mqtt

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// BenchmarkQoS1 is from a publisher through mosquitto into the durable log, in
// messages of 256 bytes: b.N of them, until the last one is durable.
func BenchmarkQoS1(b *testing.B) {
	broker := startBroker(b, "max_inflight_messages 2000")
	l := openLog(b, filepath.Join(b.TempDir(), "log"))
	defer l.Close()
	s, stop := startSource(b, config(broker.address(), topic("sensors/#", 1, "telemetry", "{topic[1]}")), l)
	defer stop()
	until(b, "subscribed", func() bool { return s.Status().State == Connected })
	p := broker.publisher(b)
	payload := strings.Repeat("x", 256)
	b.SetBytes(256)
	b.ResetTimer()
	var last paho.Token
	for i := range b.N {
		last = p.Publish("sensors/a/b", 1, false, payload)
		if i%1000 == 999 && !last.WaitTimeout(30*time.Second) {
			b.Fatal("the broker does not answer the publisher")
		}
	}
	if !last.WaitTimeout(30*time.Second) || last.Error() != nil {
		b.Fatal("the broker does not answer the publisher")
	}
	until(b, "all durable", func() bool { return s.Status().Acknowledged >= int64(b.N) })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
