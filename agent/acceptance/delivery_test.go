package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

const keys = 200

// messages is how many a drill publishes.
func messages() int {
	if testing.Short() {
		return 10_000
	}
	return 50_000
}

// reading is the payload of one message: the n-th of its key.
type reading struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// drill is one run of the main job.
type drill struct {
	t      *testing.T
	broker string
	centre *natstest.Server
	node   *node
	most   int64 // memory
	served int   // kills of a process that took data, not of one that still started
}

func newDrill(t *testing.T) *drill {
	d := &drill{t: t, broker: startMosquitto(t), centre: natstest.Start(t, "")}
	// The stream has a duplicate window of two seconds: what is not doubled is
	// owed to weir.
	js, done := d.jetstream()
	defer done()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "WEIR", Subjects: []string{"weir.>"}, Storage: jetstream.FileStorage, Duplicates: 2 * time.Second,
		AllowAtomicPublish: true,
	}); err != nil {
		t.Fatal(err)
	}
	d.node = newNode(t, fmt.Sprintf(`
streams:
  telemetry: {shards: 2, retention: 24h}
ingest:
  mqtt:
    - name: plant
      url: mqtt://%s
      client_id: gw-17
      topics:
        - {filter: sensors/+/+, qos: 1, stream: telemetry, partition_key: "{topic[1]}"}
uplink:
  - name: central
    type: nats
    url: %s
    streams: [telemetry]
    retry: {min: 100ms, max: 2s}`, d.broker, d.centre.URL()))
	return d
}

func (d *drill) jetstream() (jetstream.JetStream, func()) {
	d.t.Helper()
	conn, err := nats.Connect(d.centre.URL())
	if err != nil {
		d.t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	return js, conn.Close
}

// publish publishes all messages within about the given time.
func (d *drill) publish(p paho.Client, over time.Duration) error {
	began := time.Now()
	const chunk = 250
	for first := 0; first < messages(); first += chunk {
		var tokens []paho.Token
		for i := first; i < first+chunk; i++ {
			key := fmt.Sprintf("k%03d", i%keys)
			payload, err := json.Marshal(reading{key, i / keys})
			if err != nil {
				return err
			}
			tokens = append(tokens, p.Publish("sensors/"+key+"/v", 1, false, payload))
		}
		for _, token := range tokens {
			if !token.WaitTimeout(time.Minute) || token.Error() != nil {
				return fmt.Errorf("the broker does not take a message: %w", token.Error())
			}
		}
		if ahead := over*time.Duration(first+chunk)/time.Duration(messages()) - time.Since(began); ahead > 0 {
			<-time.After(ahead) // the pace of the sensors
		}
	}
	return nil
}

// disturb kills weir at random moments.
func (d *drill) disturb(kills int, over time.Duration) {
	for range kills {
		pause := time.Duration(rand.Int64N(int64(2 * over / time.Duration(kills))))
		until(d.t, time.Minute, "time passes", after(pause, d.watch))
		if d.node.healthy() {
			d.served++
		}
		d.node.kill()
		d.node.start()
	}
}

// watch keeps the most memory any of the processes has taken.
func (d *drill) watch() { d.most = max(d.most, d.node.peak()) }

// after is a condition that comes true after a while, and looks meanwhile.
func after(pause time.Duration, look func()) func() bool {
	end := time.Now().Add(pause)
	return func() bool {
		look()
		return time.Now().After(end)
	}
}

// stored reads the whole stream at the centre.
func (d *drill) stored() []*reading {
	d.t.Helper()
	js, done := d.jetstream()
	defer done()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	c, err := js.OrderedConsumer(ctx, "WEIR", jetstream.OrderedConsumerConfig{})
	if err != nil {
		d.t.Fatal(err)
	}
	var list []*reading
	for pending := c.CachedInfo().NumPending; pending > 0; {
		batch, err := c.Fetch(2000, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			d.t.Fatal(err)
		}
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				d.t.Fatal(err)
			}
			pending = meta.NumPending
			list = append(list, parse(d.t, m.Data()))
			if m.Headers().Get("ce-partitionkey") != list[len(list)-1].Key || m.Headers().Get("ce-id") != m.Headers().Get(nats.MsgIdHdr) {
				d.t.Fatalf("headers %v", m.Headers())
			}
		}
	}
	return list
}

func parse(t *testing.T, data []byte) *reading {
	t.Helper()
	var r reading
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return &r
}

// complete wants every message once, in order per key.
func (d *drill) complete(where string, list []*reading) {
	d.t.Helper()
	next := map[string]int{}
	for i, r := range list {
		if r.N != next[r.Key] {
			d.t.Fatalf("%s: message %d is %d of key %s, it should be %d", where, i, r.N, r.Key, next[r.Key])
		}
		next[r.Key]++
	}
	if len(list) != messages() {
		d.t.Fatalf("%s: %d messages, not %d", where, len(list), messages())
	}
}

// arrived says whether the node took everything and has nothing left to send.
func (d *drill) arrived() bool {
	d.watch()
	if !d.node.healthy() {
		return false
	}
	var status api.Status
	if err := json.Unmarshal([]byte(d.node.run("status", "--json")), &status); err != nil {
		d.t.Fatal(err)
	}
	var taken, lag int64
	for _, s := range status.Streams {
		if s.Name == "telemetry" {
			for _, shard := range s.Shards {
				first, err1 := strconv.ParseInt(shard.First, 10, 64)
				next, err2 := strconv.ParseInt(shard.Next, 10, 64)
				if err1 != nil || err2 != nil {
					d.t.Fatalf("shard %+v", shard)
				}
				taken += next - first
			}
		}
	}
	for _, c := range status.Consumers {
		for _, l := range c.Lags {
			lag += l.Records
		}
	}
	return taken >= int64(messages()) && lag == 0
}

// settle waits until everything has arrived, and checks both ends; then once
// more after a last kill, since a record that is sent again at the start of a
// process would come only now.
func (d *drill) settle(limit time.Duration) {
	d.t.Helper()
	until(d.t, limit, "everything is at the centre", d.arrived)
	d.complete("at the centre", d.stored())
	var local []*reading
	for _, line := range lines(d.node.run("tail", "telemetry", "--from", "trim-horizon", "--raw")) {
		local = append(local, parse(d.t, []byte(line)))
	}
	d.complete("in the log", local)
	d.node.kill()
	d.node.start()
	until(d.t, limit, "the last process has nothing to send", d.arrived)
	d.complete("at the centre after one more start", d.stored())
	if took := d.node.stop(); took > 10*time.Second {
		d.t.Errorf("stopping took %s", took)
	}
	d.t.Logf("weir took at most %d MiB; %d of the kills hit a process that took data", d.most>>20, d.served)
	if d.most > 150<<20 {
		d.t.Errorf("weir took %d MiB of memory", d.most>>20)
	}
	if d.served == 0 {
		d.t.Error("no kill hit a process that took data; this shows nothing")
	}
}

// TestKills: 50,000 messages over 200 keys while weir is killed 20 times.
func TestKills(t *testing.T) {
	d := newDrill(t)
	p := publisher(t, d.broker)
	d.node.start()
	until(t, 20*time.Second, "weir is healthy", d.node.healthy)
	published := make(chan error, 1)
	go func() { published <- d.publish(p, 15*time.Second) }()
	d.disturb(20, 15*time.Second)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	d.settle(2 * time.Minute)
}

// TestOutage: the same, and the centre is away for a minute in the middle,
// thirty times its duplicate window.
func TestOutage(t *testing.T) {
	d := newDrill(t)
	p := publisher(t, d.broker)
	d.node.start()
	until(t, 20*time.Second, "weir is healthy", d.node.healthy)
	published := make(chan error, 1)
	go func() { published <- d.publish(p, 40*time.Second) }()
	d.disturb(5, 5*time.Second)
	d.centre.Stop()
	gone := time.Now()
	before := d.most
	d.disturb(10, 20*time.Second)
	until(t, 2*time.Minute, "the minute is over", after(time.Minute-time.Since(gone), d.watch))
	d.centre.Start()
	d.disturb(5, 3*time.Second)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	d.settle(2 * time.Minute)
	t.Logf("before the outage at most %d MiB", before>>20)
}
