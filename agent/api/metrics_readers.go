package api

import "github.com/prometheus/client_golang/prometheus"

// Metrics of what reads the log: queries and sinks.

func queryMetrics() []figure {
	of := func(name, help string, value func(Query) int64) figure {
		return counterOf(title{"query_" + name, help, []string{"query"}}, func(s *snapshot, emit emitter) {
			for _, query := range s.status.Queries {
				emit(float64(value(query)), query.Name)
			}
		})
	}
	gauge := func(name, help string, value func(Query) int64) figure {
		f := of(name, help, value)
		f.kind = prometheus.GaugeValue
		return f
	}
	return []figure{
		of("records_total", "Records read.", func(q Query) int64 { return q.Records }),
		of("rows_total", "Result rows made durable.", func(q Query) int64 { return q.Rows }),
		of("late_total", "Records counted at a later time than they arrived.", func(q Query) int64 { return q.Late }),
		of("bad_records_total", "Records that are not of a form the query can use.", func(q Query) int64 { return q.BadRecords }),
		of("bad_values_total", "Records with a value that counted as NULL.", func(q Query) int64 { return q.BadValues }),
		of("missed_records_total", "Records gone from the log before they were read.", func(q Query) int64 { return q.MissedRecords }),
		gauge("windows", "Open windows.", func(q Query) int64 { return q.Windows }),
		gauge("groups", "Groups in the open windows.", func(q Query) int64 { return q.Groups }),
		gauge("state_bytes", "State the log keeps for the query.", func(q Query) int64 { return q.StateBytes }),
		gaugeOf(title{"query_watermark_timestamp_seconds", "Time up to which the query is complete; absent before the first record.", []string{"query"}}, func(s *snapshot, emit emitter) {
			for _, query := range s.status.Queries {
				emitTime(emit, query.Watermark, query.Name)
			}
		}),
	}
}

func sinkMetrics() []figure {
	count := func(name, help string, value func(Sink) int64) figure {
		return counterOf(title{"sink_" + name, help, []string{"sink", "type"}}, func(s *snapshot, emit emitter) {
			for _, sink := range s.status.Sinks {
				emit(float64(value(sink)), sink.Name, sink.Type)
			}
		})
	}
	inflight := count("inflight_records", "Records handed to the destination and not acknowledged yet.", func(s Sink) int64 { return s.Inflight })
	inflight.kind = prometheus.GaugeValue
	return []figure{
		count("sent_records_total", "Records the destination acknowledged.", func(s Sink) int64 { return s.SentRecords }),
		count("sent_bytes_total", "Bytes of data of those records.", func(s Sink) int64 { return s.SentBytes }),
		count("batches_total", "Batches the destination acknowledged.", func(s Sink) int64 { return s.Batches }),
		count("retries_total", "Batches sent again.", func(s Sink) int64 { return s.Retries }),
		count("set_aside_total", "Records the destination refused for good.", func(s Sink) int64 { return s.SetAside }),
		count("skipped_total", "Records found at the destination after a break and not sent again.", func(s Sink) int64 { return s.Skipped }),
		count("connects_total", "Connections made.", func(s Sink) int64 { return s.Connects }),
		count("foreign_total", "Times the destination held other records under our ids.", func(s Sink) int64 { return s.Foreign }),
		inflight,
		count("missed_records_total", "Records gone from the log before they were sent.", func(s Sink) int64 { return s.MissedRecords }),
		gaugeOf(title{"sink_last_sent_timestamp_seconds", "Wall time of the last acknowledgement; absent before the first.", []string{"sink", "type"}}, func(s *snapshot, emit emitter) {
			for _, sink := range s.status.Sinks {
				emitTime(emit, sink.LastSent, sink.Name, sink.Type)
			}
		}),
	}
}
