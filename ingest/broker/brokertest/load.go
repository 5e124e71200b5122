package brokertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

// Options of Load. What is zero has its default.
type Options struct {
	Clients            int           // connections; 1
	InFlight           int           // messages of a connection without PUBACK; 16, at most 10,000
	Rate               int           // messages a second of all together; 0: as fast as the window lets them
	Payload            int           // bytes; 256
	Duration           time.Duration // 10 s
	Topic              string        // "brokertest/load"; each client publishes below it, to TOPIC/N
	Username, Password string
}

// Result is what Load counted.
type Result struct {
	Acknowledged int
	PerSecond    float64
	// Latency is from the time a message was due (with Rate) or written to its
	// PUBACK, in steps of two percent.
	Median, P95, P99, Max time.Duration
}

// String is one line of figures.
func (r Result) String() string {
	return fmt.Sprintf("%d acknowledged, %.0f/s; latency median %v, 95 %% %v, 99 %% %v, most %v", r.Acknowledged, r.PerSecond, r.Median, r.P95, r.P99, r.Max)
}

// Load publishes with QoS 1 (MQTT 3.1.1) and counts the PUBACKs until the
// duration is over or ctx ends, and then waits for those on the way. It writes
// what is due in one piece, so that it costs little beside the broker. A
// connection that breaks or an acknowledgement that does not come is an error.
func Load(ctx context.Context, address string, o Options) (Result, error) {
	o = o.withDefaults()
	clients := make([]*loader, o.Clients)
	errs := make([]error, o.Clients)
	var ready, group sync.WaitGroup
	begin := make(chan struct{})
	for i := range clients {
		clients[i] = &loader{options: o, index: i, sent: make([]time.Time, math.MaxUint16+1)}
		ready.Add(1)
		group.Go(func() {
			errs[i] = clients[i].connect(address, o)
			ready.Done()
			<-begin
			if errs[i] == nil {
				errs[i] = clients[i].run(ctx)
			}
		})
	}
	ready.Wait()
	started := time.Now()
	close(begin)
	group.Wait()
	took := time.Since(started)
	var all histogram
	for _, c := range clients {
		all.add(&c.latency)
	}
	r := Result{Acknowledged: all.count, PerSecond: float64(all.count) / took.Seconds(), Median: all.quantile(0.5), P95: all.quantile(0.95), P99: all.quantile(0.99), Max: all.most}
	return r, errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.Topic == "" {
		o.Topic = "brokertest/load"
	}
	o.Clients, o.Payload = orElse(o.Clients, 1), orElse(o.Payload, 256)
	o.InFlight = min(orElse(o.InFlight, 16), 10_000)
	o.Duration = orElse(o.Duration, 10*time.Second)
	return o
}

func orElse[T int | time.Duration](n, otherwise T) T {
	if n <= 0 {
		return otherwise
	}
	return n
}

// loader is one connection of Load, and one goroutine.
type loader struct {
	options Options
	index   int
	conn    net.Conn
	r       *bufio.Reader
	sent    []time.Time // by packet id
	next    int         // messages sent
	flying  int
	latency histogram
}

func (l *loader) connect(address string, o Options) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	l.conn, l.r = conn, bufio.NewReader(conn)
	hello := connect{version: version311, id: fmt.Sprintf("load%d-%d", os.Getpid(), l.index), user: o.Username, password: o.Password}
	err = conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = conn.Write(hello.bytes())
	}
	var f frame
	if err == nil {
		f, err = readFrame(l.r)
	}
	if err == nil && (f.kind != kindConnack || len(f.body) != 2 || f.body[1] != 0) {
		err = fmt.Errorf("CONNECT is answered with %v", f)
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("client %d: %w", l.index, err)
	}
	return nil
}

// run sends what is due, takes what has come, and waits for the earlier of
// both.
func (l *loader) run(ctx context.Context) error {
	defer l.conn.Close()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	begin := time.Now()
	template := publish{topic: fmt.Sprintf("%s/%d", l.options.Topic, l.index), payload: string(make([]byte, l.options.Payload)), qos: 1}
	message, at := template.bytes(version311), 0
	for i := range message { // where the packet id stands
		if at == 0 && i > 0 && message[i] < 128 {
			at = i + 3 + len(template.topic)
		}
	}
	for {
		now := time.Now()
		over := now.Sub(begin) >= l.options.Duration
		if over && l.flying == 0 {
			_, err := l.conn.Write(disconnect)
			return err
		}
		wake := now.Add(patience)
		if !over {
			var err error
			if wake, err = l.write(begin, now, message, at); err != nil {
				return l.ended(ctx, err)
			}
		}
		if err := l.take(wake); err != nil {
			return l.ended(ctx, err)
		}
	}
}

func (l *loader) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("client %d, %d of %d without PUBACK: %w", l.index, l.flying, l.next, err)
}

// write sends what is due in one piece, and says when to look again.
func (l *loader) write(begin, now time.Time, message []byte, at int) (time.Time, error) {
	interval := time.Duration(0)
	if l.options.Rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(l.options.Clients) / float64(l.options.Rate))
	}
	var batch []byte
	for l.flying < l.options.InFlight && len(batch) < 256<<10 {
		due := now
		if interval > 0 {
			if due = begin.Add(time.Duration(l.next) * interval); due.After(now) {
				break
			}
		}
		id := uint16(l.next%math.MaxUint16) + 1
		l.sent[id] = due
		message[at], message[at+1] = byte(id>>8), byte(id)
		batch = append(batch, message...)
		l.next, l.flying = l.next+1, l.flying+1
	}
	if len(batch) > 0 {
		if err := l.conn.SetWriteDeadline(now.Add(patience)); err != nil {
			return now, err
		}
		if _, err := l.conn.Write(batch); err != nil {
			return now, err
		}
	}
	wake := now.Add(patience)
	if interval > 0 && l.flying < l.options.InFlight {
		wake = begin.Add(time.Duration(l.next) * interval)
	}
	return wake, nil
}

// take reads at least one PUBACK, unless wake comes first, and all that are
// there.
func (l *loader) take(wake time.Time) error {
	if err := l.conn.SetReadDeadline(wake); err != nil {
		return err
	}
	for {
		b, err := l.r.Peek(4)
		if errors.Is(err, os.ErrDeadlineExceeded) && (l.flying == 0 || time.Since(wake) < patience/2 && l.options.Rate > 0) {
			return nil
		}
		if err != nil {
			return err
		}
		id := uint16(b[2])<<8 | uint16(b[3])
		if b[0] != kindPuback<<4 || b[1] != 2 || l.sent[id].IsZero() {
			return fmt.Errorf("the broker sends % x and not a PUBACK that is due", b)
		}
		l.latency.note(time.Since(l.sent[id]))
		l.sent[id] = time.Time{}
		l.flying--
		if _, err := l.r.Discard(4); err != nil {
			return err
		}
		if l.r.Buffered() < 4 {
			return nil
		}
	}
}

// histogram counts durations in steps of two percent from a microsecond on.
type histogram struct {
	buckets [1200]int
	count   int
	most    time.Duration
}

const histogramStep = 1.02

func (h *histogram) note(d time.Duration) {
	i := int(math.Log(max(1, float64(d)/float64(time.Microsecond))) / math.Log(histogramStep))
	h.buckets[min(i, len(h.buckets)-1)]++
	h.count++
	h.most = max(h.most, d)
}

func (h *histogram) add(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	h.most = max(h.most, other.most)
}

func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := int(math.Ceil(q*float64(h.count))), 0
	for i, n := range h.buckets {
		if seen += n; seen >= rank && n > 0 {
			return min(h.most, time.Duration(math.Pow(histogramStep, float64(i+1))*float64(time.Microsecond)))
		}
	}
	return 0
}
