package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// counters are what the API counts itself.
type counters struct {
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec
	panics   prometheus.Counter
}

func newCounters() *counters {
	return &counters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_http_requests_total", Help: "Requests the API answered, by route and status code.",
		}, []string{"route", "code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_http_refused_requests_total",
			Help: "Requests the API refused, by reason: host, origin, token, body, busy.",
		}, []string{"reason"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_http_panics_total", Help: "Requests that ended in a fault of the program.",
		}),
	}
}

func (c *counters) request(r *http.Request, code int) {
	route := r.Pattern
	if route == "" || route == "/" {
		route = "none"
	}
	c.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
}

// registry holds the API's own counters, the node's figures, and those of Go
// and the process.
func (s *Server) registry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		s.counters.requests, s.counters.refused, s.counters.panics, &collector{server: s, metrics: newMetrics()},
	)
	return registry
}

// figure is one metric and how its samples are taken from a snapshot.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	take func(sample *snapshot, emit func(value float64, labels ...string))
}

// snapshot is all that one scrape looks at.
type snapshot struct {
	status  Status
	version string
}

// collector takes a snapshot at each scrape, so that nothing is counted twice
// and an idle node does nothing.
type collector struct {
	server  *Server
	metrics []figure
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range c.metrics {
		descs <- f.desc
	}
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	sample := &snapshot{status: c.server.snapshot(), version: c.server.version}
	for _, f := range c.metrics {
		f.take(sample, func(value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
		})
	}
}

func newMetrics() []figure {
	var all []figure
	for _, list := range [][]figure{nodeMetrics(), logMetrics(), streamMetrics(), sourceMetrics(), cameraMetrics(), queryMetrics(), sinkMetrics()} {
		all = append(all, list...)
	}
	return all
}

type emitter = func(value float64, labels ...string)

// title is the name of a metric without weir_, its help, and its labels.
type title struct {
	name, help string
	labels     []string
}

func counterOf(t title, take func(*snapshot, emitter)) figure {
	return figure{desc: prometheus.NewDesc("weir_"+t.name, t.help, t.labels, nil), kind: prometheus.CounterValue, take: take}
}

func gaugeOf(t title, take func(*snapshot, emitter)) figure {
	f := counterOf(t, take)
	f.kind = prometheus.GaugeValue
	return f
}

func nodeMetrics() []figure {
	return []figure{
		gaugeOf(title{"build_info", "1, with the version of weir.", []string{"version"}},
			func(s *snapshot, emit emitter) { emit(1, s.version) }),
		gaugeOf(title{"healthy", "1 if everything that is configured has started and the log accepts data.", nil},
			func(s *snapshot, emit emitter) { emit(oneIf(s.status.Health.OK)) }),
		gaugeOf(title{"clock_synchronized", "1 if the wall clock is known to be right.", nil},
			func(s *snapshot, emit emitter) { emit(oneIf(s.status.Node.ClockSet)) }),
		gaugeOf(title{"part_running", "1 if the part does what it is for, 0 if it starts, waits for its peer or has failed.", []string{"kind", "name", "type"}}, func(s *snapshot, emit emitter) {
			s.parts(func(kind string, p Part) { emit(oneIf(p.State == Running), kind, p.Name, p.Type) })
		}),
		counterOf(title{"part_restarts_total", "How often the part was started again after it had failed.", []string{"kind", "name", "type"}}, func(s *snapshot, emit emitter) {
			s.parts(func(kind string, p Part) { emit(float64(p.Restarts), kind, p.Name, p.Type) })
		}),
	}
}

func (s *snapshot) parts(visit func(kind string, p Part)) {
	for _, p := range s.status.Sources {
		visit("source", p.Part)
	}
	for _, p := range s.status.Cameras {
		visit("camera", p.Part)
	}
	for _, p := range s.status.Queries {
		visit("query", p.Part)
	}
	for _, p := range s.status.Sinks {
		visit("sink", p.Part)
	}
}

func logMetrics() []figure {
	count := func(name, help string, value func(LogStatus) int64) figure {
		return counterOf(title{"log_" + name, help, nil}, func(s *snapshot, emit emitter) {
			emit(float64(value(s.status.Log)))
		})
	}
	gauge := func(name, help string, value func(LogStatus) int64) figure {
		f := count(name, help, value)
		f.kind = prometheus.GaugeValue
		return f
	}
	reasons := func(name, help string, values func(LogStatus) map[string]int64) figure {
		return counterOf(title{"log_" + name, help, []string{"reason"}}, func(s *snapshot, emit emitter) {
			for reason, n := range values(s.status.Log) {
				emit(float64(n), reason)
			}
		})
	}
	return []figure{
		count("appended_records_total", "Records made durable.", func(l LogStatus) int64 { return l.AppendedRecords }),
		count("appended_bytes_total", "Bytes of data, keys and attributes made durable.", func(l LogStatus) int64 { return l.AppendedBytes }),
		count("commits_total", "Group commits.", func(l LogStatus) int64 { return l.Commits }),
		count("syncs_total", "Syncs asked of the file system.", func(l LogStatus) int64 { return l.Syncs }),
		count("written_bytes_total", "Bytes handed to the file system for segments.", func(l LogStatus) int64 { return l.WrittenBytes }),
		count("write_errors_total", "Writes and syncs that failed.", func(l LogStatus) int64 { return l.WriteErrors }),
		count("refused_appends_total", "Appends refused because there was no room.", func(l LogStatus) int64 { return l.RefusedAppends }),
		count("corrupt_batches_total", "Batches whose checksum did not match.", func(l LogStatus) int64 { return l.CorruptBatches }),
		gauge("pending_bytes", "Bytes that wait for their commit.", func(l LogStatus) int64 { return l.PendingBytes }),
		gauge("disk_bytes", "Bytes allocated on disk below the log's directory.", func(l LogStatus) int64 { return l.DiskBytes }),
		gauge("disk_free_bytes", "Bytes free on the log's file system.", func(l LogStatus) int64 { return l.DiskFreeBytes }),
		gauge("segments", "Segment files.", func(l LogStatus) int64 { return l.Segments }),
		gauge("full", "1 while the log refuses appends.", func(l LogStatus) int64 { return int64(oneIf(l.Full != "")) }),
		reasons("dropped_records_total", "Records that went before or without being read by everyone, by reason.",
			func(l LogStatus) map[string]int64 { return l.DroppedRecords }),
		reasons("dropped_bytes_total", "Bytes of those records, by reason.", func(l LogStatus) map[string]int64 { return l.DroppedBytes }),
		gaugeOf(title{"last_commit_timestamp_seconds", "Wall time of the last commit; absent before the first.", nil},
			func(s *snapshot, emit emitter) { emitTime(emit, s.status.Log.LastCommit) }),
	}
}

func streamMetrics() []figure {
	lag := func(name, help string, value func(LagStatus) float64) figure {
		return gaugeOf(title{"consumer_lag_" + name, help, []string{"consumer", "stream", "shard"}}, func(s *snapshot, emit emitter) {
			for _, c := range s.status.Consumers {
				for _, l := range c.Lags {
					emit(value(l), c.Name, l.Stream, l.Shard)
				}
			}
		})
	}
	return []figure{
		gaugeOf(title{"stream_bytes", "Stored bytes of the stream's readable records.", []string{"stream"}},
			func(s *snapshot, emit emitter) {
				for _, stream := range s.status.Streams {
					emit(float64(stream.Bytes), stream.Name)
				}
			}),
		gaugeOf(title{"stream_shards", "Shards of the stream.", []string{"stream"}},
			func(s *snapshot, emit emitter) {
				for _, stream := range s.status.Streams {
					emit(float64(len(stream.Shards)), stream.Name)
				}
			}),
		lag("records", "Records the consumer has not read.", func(l LagStatus) float64 { return float64(l.Records) }),
		lag("bytes", "Stored bytes of those records.", func(l LagStatus) float64 { return float64(l.Bytes) }),
		lag("seconds", "Age of the oldest of those records.", func(l LagStatus) float64 { return l.BehindSeconds }),
	}
}

func sourceMetrics() []figure {
	count := func(name, help string, value func(Source) int64) figure {
		return counterOf(title{"source_" + name, help, []string{"source", "type"}}, func(s *snapshot, emit emitter) {
			for _, source := range s.status.Sources {
				emit(float64(value(source)), source.Name, source.Type)
			}
		})
	}
	inflight := count("inflight_messages", "Messages received and not durable yet.", func(s Source) int64 { return s.Inflight })
	inflight.kind = prometheus.GaugeValue
	clients := count("clients", "Clients that are connected; of a broker.", func(s Source) int64 { return s.Clients })
	clients.kind = prometheus.GaugeValue
	return []figure{
		clients,
		count("dropped_total", "Messages not passed on to a subscriber for want of room; the log is not concerned.", func(s Source) int64 { return s.Dropped }),
		count("messages_total", "Messages received.", func(s Source) int64 { return s.Messages }),
		count("bytes_total", "Bytes of their payloads.", func(s Source) int64 { return s.Bytes }),
		count("appended_total", "Messages made durable.", func(s Source) int64 { return s.Appended }),
		count("duplicates_total", "Messages redelivered that the log held already.", func(s Source) int64 { return s.Duplicates }),
		count("set_aside_total", "Messages that could not become a record.", func(s Source) int64 { return s.SetAside }),
		count("acknowledged_total", "Messages acknowledged to the peer.", func(s Source) int64 { return s.Acknowledged }),
		count("lost_total", "Messages that could not even be set aside.", func(s Source) int64 { return s.Lost }),
		count("refused_total", "Messages, requests and connections turned away with an answer that says why.", func(s Source) int64 { return s.Refused }),
		count("connects_total", "Connections made or taken; of http: requests.", func(s Source) int64 { return s.Connects }),
		inflight,
	}
}

func cameraMetrics() []figure {
	count := func(name, help string, value func(Camera) int64) figure {
		return counterOf(title{"camera_" + name, help, []string{"camera", "type"}}, func(s *snapshot, emit emitter) {
			for _, camera := range s.status.Cameras {
				emit(float64(value(camera)), camera.Name, camera.Type)
			}
		})
	}
	return []figure{
		count("packets_total", "RTP packets received.", func(c Camera) int64 { return c.Packets }),
		count("bytes_total", "Bytes of those packets.", func(c Camera) int64 { return c.Bytes }),
		count("lost_packets_total", "RTP packets that did not come.", func(c Camera) int64 { return c.LostPackets }),
		count("bad_packets_total", "Packets that were not RTP, not the codec's, or not from this camera.", func(c Camera) int64 { return c.BadPackets }),
		count("frames_total", "Frames received whole.", func(c Camera) int64 { return c.Frames }),
		count("dropped_frames_total", "Frames dropped, after a loss or for want of room.", func(c Camera) int64 { return c.DroppedFrames }),
		count("fragments_total", "Fragments made durable.", func(c Camera) int64 { return c.Fragments }),
		count("lost_fragments_total", "Fragments the log refused.", func(c Camera) int64 { return c.LostFragments }),
		gaugeOf(title{"camera_last_fragment_timestamp_seconds", "Wall time of the last fragment; absent before the first.", []string{"camera", "type"}}, func(s *snapshot, emit emitter) {
			for _, c := range s.status.Cameras {
				emitTime(emit, c.LastFragment, c.Name, c.Type)
			}
		}),
	}
}

func emitTime(emit emitter, at time.Time, labels ...string) {
	if !at.IsZero() {
		emit(float64(at.UnixMilli())/1000, labels...)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
