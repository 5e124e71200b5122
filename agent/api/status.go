package api

import (
	"time"

	"github.com/weir-edge/weir/buffer"
)

// Node is what the API knows of the daemon around it. The daemon implements
// it. Both methods are safe for concurrent use and return at once.
type Node interface {
	// Health says whether everything that is configured has started.
	Health() Health
	// Parts returns a snapshot of the node's sources, cameras, queries and sinks.
	Parts() Parts
}

// Health is the answer of /healthz.
type Health struct {
	OK       bool      `json:"ok"`
	Problems []Problem `json:"problems"` // empty when OK
}

// Problem is one reason why the node is not healthy.
type Problem struct {
	Part   string `json:"part"` // such as log, source plant, camera front
	Reason string `json:"reason"`
}

// State is where a part is in its life.
type State string

const (
	Starting State = "starting" // has not done its first work yet
	Running  State = "running"  // does what it is for
	Waiting  State = "waiting"  // its peer is away; it keeps trying
	Failed   State = "failed"   // ended with an error; it is started again after a pause
	Stopped  State = "stopped"  // the daemon stops
)

// Parts are the node's sources, cameras, queries and sinks, each by name, and
// what the node is called.
type Parts struct {
	ID      string            `json:"id"`
	Labels  map[string]string `json:"labels,omitempty"`
	Started time.Time         `json:"started"`
	Sources []Source          `json:"sources"`
	Cameras []Camera          `json:"cameras"`
	Queries []Query           `json:"queries"`
	Sinks   []Sink            `json:"sinks"`
}

// Part is what every source, camera, query and sink says of its life.
type Part struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"` // such as mqtt, rtp, nats
	State    State     `json:"state"`
	Since    time.Time `json:"since"`           // of State
	Error    string    `json:"error,omitempty"` // the last one, while State is not Running
	Restarts int64     `json:"restarts"`        // after it had failed
}

// Source is a source of records. Counters are since its part was started.
type Source struct {
	Part
	URL          string `json:"url"`
	Messages     int64  `json:"messages"`            // received
	Bytes        int64  `json:"bytes"`               // of their payloads
	Appended     int64  `json:"appended"`            // durable in the log
	Acknowledged int64  `json:"acknowledged"`        // told the peer so
	Duplicates   int64  `json:"duplicates"`          // redelivered, and in the log already
	SetAside     int64  `json:"set_aside"`           // could not become a record
	Lost         int64  `json:"lost"`                // could not even be set aside
	Clients      int64  `json:"clients"`             // connected; of a broker
	Dropped      int64  `json:"dropped"`             // for a subscriber that was full; the log is not concerned
	Refused      int64  `json:"refused"`             // turned away with an answer that says why
	Connects     int64  `json:"connects"`            // connections made or taken; of http: requests
	Inflight     int64  `json:"inflight"`            // received and not durable yet
	LogError     string `json:"log_error,omitempty"` // why the log takes nothing at the moment
}

// Camera is a video source. Counters are since its part was started.
type Camera struct {
	Part
	Stream        string    `json:"stream"`
	Codec         string    `json:"codec"`
	Address       string    `json:"address"` // where it is listened for
	Packets       int64     `json:"packets"`
	Bytes         int64     `json:"bytes"`
	LostPackets   int64     `json:"lost_packets"`
	BadPackets    int64     `json:"bad_packets"` // not RTP, not this codec, or not from this camera
	Frames        int64     `json:"frames"`
	DroppedFrames int64     `json:"dropped_frames"`
	Fragments     int64     `json:"fragments"`      // durable in the log
	LostFragments int64     `json:"lost_fragments"` // refused by the log
	LastFragment  time.Time `json:"last_fragment,omitzero"`
}

// Query is a query over a stream that runs all the time. Counters are since its
// part was started.
type Query struct {
	Part
	Consumer      string    `json:"consumer"`
	SQL           string    `json:"sql"`
	Input         string    `json:"input"`              // the stream it reads
	Output        string    `json:"output"`             // the stream its rows go to
	Records       int64     `json:"records"`            // read
	Rows          int64     `json:"rows"`               // appended
	Late          int64     `json:"late"`               // counted at a later time than they arrived
	BadRecords    int64     `json:"bad_records"`        // not of a form the query can use
	BadValues     int64     `json:"bad_values"`         // records with a value that counted as NULL
	LastBad       string    `json:"last_bad,omitempty"` // place of the last bad record or value, and what was wrong
	MissedRecords int64     `json:"missed_records"`     // gone from the log before they were read
	Windows       int64     `json:"windows"`            // open
	Groups        int64     `json:"groups"`             // in them
	StateBytes    int64     `json:"state_bytes"`        // kept in the log with its position
	Watermark     time.Time `json:"watermark,omitzero"`
	LastRow       time.Time `json:"last_row,omitzero"`
}

// Sink is a remote destination. Counters are since its part was started.
type Sink struct {
	Part
	Consumer      string    `json:"consumer"`
	URL           string    `json:"url"`
	Connected     bool      `json:"connected"`
	Connects      int64     `json:"connects"`
	SentRecords   int64     `json:"sent_records"` // acknowledged by the destination
	SentBytes     int64     `json:"sent_bytes"`
	Batches       int64     `json:"batches"`
	Retries       int64     `json:"retries"`
	SetAside      int64     `json:"set_aside"`      // refused for good by the destination
	Skipped       int64     `json:"skipped"`        // found at the destination after a break, not sent again
	MissedRecords int64     `json:"missed_records"` // gone from the log before they were sent
	Foreign       int64     `json:"foreign"`        // times the destination held other records under our ids
	Inflight      int64     `json:"inflight"`
	LastSent      time.Time `json:"last_sent,omitzero"`
}

// Status is the answer of /api/v1/status.
type Status struct {
	Node      NodeStatus       `json:"node"`
	Health    Health           `json:"health"`
	Network   Network          `json:"network"`
	Log       LogStatus        `json:"log"`
	Streams   []StreamStatus   `json:"streams"`
	Consumers []ConsumerStatus `json:"consumers"`
	Sources   []Source         `json:"sources"`
	Cameras   []Camera         `json:"cameras"`
	Queries   []Query          `json:"queries"`
	Sinks     []Sink           `json:"sinks"`
}

// NodeStatus says which weir this is.
type NodeStatus struct {
	ID       string            `json:"id"`
	Labels   map[string]string `json:"labels,omitempty"`
	Version  string            `json:"version"`
	Started  time.Time         `json:"started"`
	Now      time.Time         `json:"now"`
	ClockSet bool              `json:"clock_synchronized"`
}

// LogStatus is the state of the shard log and of its disk.
type LogStatus struct {
	AppendedRecords int64            `json:"appended_records"`
	AppendedBytes   int64            `json:"appended_bytes"`
	Commits         int64            `json:"commits"`
	Syncs           int64            `json:"syncs"`
	WrittenBytes    int64            `json:"written_bytes"`
	WriteErrors     int64            `json:"write_errors"`
	RefusedAppends  int64            `json:"refused_appends"`
	PendingBytes    int64            `json:"pending_bytes"`
	CorruptBatches  int64            `json:"corrupt_batches"`
	DroppedRecords  map[string]int64 `json:"dropped_records"` // by reason
	DroppedBytes    map[string]int64 `json:"dropped_bytes"`
	DiskBytes       int64            `json:"disk_bytes"`
	DiskFreeBytes   int64            `json:"disk_free_bytes"`
	Segments        int64            `json:"segments"`
	LastCommit      time.Time        `json:"last_commit,omitzero"`
	Full            string           `json:"full,omitempty"`
	SetAside        []string         `json:"set_aside,omitempty"`
	IndexRebuilt    bool             `json:"index_rebuilt,omitempty"`
}

// StreamStatus describes a stream.
type StreamStatus struct {
	Name    string              `json:"name"`
	Created time.Time           `json:"created"`
	Config  buffer.StreamConfig `json:"config"`
	Bytes   int64               `json:"bytes"`
	Shards  []ShardStatus       `json:"shards"`
}

// ShardStatus describes a shard. Sequences are decimal strings, as at every
// edge of weir.
type ShardStatus struct {
	Shard        string    `json:"shard"`
	HashKeyStart string    `json:"hash_key_start"`
	HashKeyEnd   string    `json:"hash_key_end"`
	First        string    `json:"first"`
	Next         string    `json:"next"`
	Bytes        int64     `json:"bytes"`
	FirstArrival time.Time `json:"first_arrival,omitzero"`
	LastArrival  time.Time `json:"last_arrival,omitzero"`
}

// ConsumerStatus describes a consumer and how far it is behind.
type ConsumerStatus struct {
	Name string      `json:"name"`
	Lags []LagStatus `json:"lags"`
}

// LagStatus is how far a consumer is behind in one shard.
type LagStatus struct {
	Stream        string  `json:"stream"`
	Shard         string  `json:"shard"`
	Position      string  `json:"position"`
	Records       int64   `json:"records"`
	Bytes         int64   `json:"bytes"`
	BehindSeconds float64 `json:"behind_seconds"`
}

func streamStatus(info buffer.StreamInfo) StreamStatus {
	s := StreamStatus{Name: info.Name, Created: info.Created, Config: info.Config, Shards: []ShardStatus{}}
	for _, shard := range info.Shards {
		s.Bytes += shard.Bytes
		s.Shards = append(s.Shards, ShardStatus{
			Shard: shard.ID.String(), HashKeyStart: shard.HashKeyStart, HashKeyEnd: shard.HashKeyEnd,
			First: shard.First.String(), Next: shard.Next.String(), Bytes: shard.Bytes,
			FirstArrival: shard.FirstArrival, LastArrival: shard.LastArrival,
		})
	}
	return s
}

func consumerStatus(info buffer.ConsumerInfo) ConsumerStatus {
	c := ConsumerStatus{Name: info.Name, Lags: []LagStatus{}}
	for _, lag := range info.Lags {
		c.Lags = append(c.Lags, LagStatus{
			Stream: lag.Stream, Shard: lag.Shard.String(), Position: lag.Position.String(),
			Records: lag.Records, Bytes: lag.Bytes, BehindSeconds: lag.Behind.Seconds(),
		})
	}
	return c
}

func logStatus(s buffer.Stats) LogStatus {
	return LogStatus{
		AppendedRecords: s.AppendedRecords, AppendedBytes: s.AppendedBytes, Commits: s.Commits, Syncs: s.Syncs,
		WrittenBytes: s.WrittenBytes, WriteErrors: s.WriteErrors, RefusedAppends: s.RefusedAppends,
		PendingBytes: s.PendingBytes, CorruptBatches: s.CorruptBatches,
		DroppedRecords: byReason(s.DroppedRecords), DroppedBytes: byReason(s.DroppedBytes),
		DiskBytes: s.DiskBytes, DiskFreeBytes: s.DiskFreeBytes, Segments: s.Segments, LastCommit: s.LastCommit,
		Full: s.Full, SetAside: s.SetAside, IndexRebuilt: s.IndexRebuilt,
	}
}

func byReason(counts map[buffer.GapReason]int64) map[string]int64 {
	out := make(map[string]int64, len(counts))
	for reason, n := range counts {
		out[string(reason)] = n
	}
	return out
}
