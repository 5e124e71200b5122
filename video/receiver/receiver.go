package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/video"
	"github.com/weir-edge/weir/video/fragment"
	"github.com/weir-edge/weir/video/h264"
	"github.com/weir-edge/weir/video/rtp"
)

const (
	senderTimeout = 2 * time.Second        // then another sender may take over
	idleTimeout   = 2 * time.Second        // then the fragment is closed
	tick          = time.Second            // how often it looks up without packets
	socketBuffer  = 2 << 20                // asked of the kernel, which may give less
	stopTimeout   = 5 * time.Second        // for the last append
	drainTime     = 200 * time.Millisecond // at a stop, for what the kernel has
	drainWait     = 5 * time.Millisecond
	rtcpQueue     = 16
)

// Appender is what a Receiver needs of the log.
type Appender interface {
	Append(ctx context.Context, stream string, records ...buffer.Record) ([]buffer.Position, error)
}

// Receiver takes one camera. Make it with New.
type Receiver struct {
	config  video.CameraConfig
	listen  netip.AddrPort
	allowed []netip.Prefix
	log     Appender
	logger  *slog.Logger
	given   *video.Parameters // from the configuration, or nil

	mu      sync.Mutex
	stats   Stats
	address netip.AddrPort // where it listens; not valid before Run does
	bound   chan struct{}  // closed when address is set
}

// New returns a Receiver that does nothing until Run. It is an error if config
// is not valid. logger may be nil.
func New(config video.CameraConfig, log Appender, logger *slog.Logger) (*Receiver, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("camera %s: %w", config.Name, err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	r := &Receiver{config: config, log: log, logger: logger.With("camera", config.Name), bound: make(chan struct{})}
	var err error
	if r.listen, err = config.Listen(); err != nil {
		return nil, fmt.Errorf("camera %s: url: %w", config.Name, err)
	}
	if r.allowed, err = config.Allowed(); err != nil {
		return nil, fmt.Errorf("camera %s: allow: %w", config.Name, err)
	}
	if config.SPS != "" {
		sps, err1 := video.DecodeParameterSet(config.SPS)
		pps, err2 := video.DecodeParameterSet(config.PPS)
		r.given, err = h264.Parameters(sps, pps)
		if err = errors.Join(err1, err2, err); err != nil {
			return nil, fmt.Errorf("camera %s: sps and pps: %w", config.Name, err)
		}
	}
	r.stats.Stream, r.stats.Codec = config.Stream(), config.Codec
	return r, nil
}

// Address returns where the camera has to send, once Run listens; it waits for
// that until ctx is done.
func (r *Receiver) Address(ctx context.Context) (netip.AddrPort, error) {
	select {
	case <-r.bound:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.address, nil
	case <-ctx.Done():
		return netip.AddrPort{}, ctx.Err()
	}
}

// Run listens and records until ctx is done, then makes what was received
// durable and returns nil. It returns an error if it cannot listen.
func (r *Receiver) Run(ctx context.Context) error {
	conn, err := listenUDP(r.listen)
	if err != nil {
		return fmt.Errorf("listen for camera %s: %w", r.config.Name, err)
	}
	address := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := conn.SetReadBuffer(socketBuffer); err != nil {
		r.logger.Warn("the kernel gives the socket a small buffer", "error", err)
	}
	r.announce(address)
	s := newSpool(r.config.Stream(), r.log, r.logger)
	w := newWorker(r, conn, s)

	var group sync.WaitGroup
	reports := make(chan []byte, rtcpQueue)
	stopReports := r.listenRTCP(address, reports, &group)
	appendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group.Go(func() { s.run(appendCtx) })
	unblock := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer unblock()

	err = w.run(ctx, reports)
	timer := time.AfterFunc(stopTimeout, cancel)
	defer timer.Stop()
	s.close()
	err = errors.Join(err, conn.Close(), stopReports())
	group.Wait()
	r.publish(w, s)
	if err != nil {
		return fmt.Errorf("camera %s: %w", r.config.Name, err)
	}
	return nil
}

func listenUDP(address netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp"
	}
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(address))
}

func (r *Receiver) announce(address netip.AddrPort) {
	r.mu.Lock()
	r.address = address
	r.stats.Address = address.String()
	r.mu.Unlock()
	select {
	case <-r.bound: // Run was called again
	default:
		close(r.bound)
	}
	if len(r.config.Allow) == 0 && !address.Addr().IsLoopback() {
		r.logger.Warn("listens off loopback without allow; hears senders with private addresses", "address", address)
		return
	}
	r.logger.Info("listens for the camera", "address", address)
}

// listenRTCP hears sender reports on the next port. Without them wall time
// comes from arrival, so a port that is taken is not an error.
func (r *Receiver) listenRTCP(address netip.AddrPort, reports chan<- []byte, group *sync.WaitGroup) (stop func() error) {
	if address.Port() == 65535 {
		return func() error { return nil }
	}
	conn, err := listenUDP(netip.AddrPortFrom(address.Addr(), address.Port()+1))
	if err != nil {
		r.logger.Info("no RTCP: wall time comes from arrival", "error", err)
		return func() error { return nil }
	}
	group.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // ICMP of an earlier datagram; we send none
			}
			if !r.allows(from.Addr()) {
				r.count(func(s *Stats) { s.refusedReports++ })
				continue
			}
			select {
			case reports <- append([]byte(nil), buf[:n]...):
			default:
				r.count(func(s *Stats) { s.badReports++ }) // nobody reports that often
			}
		}
	})
	return conn.Close
}

func (r *Receiver) count(change func(*Stats)) {
	r.mu.Lock()
	change(&r.stats)
	r.mu.Unlock()
}

func (r *Receiver) allows(from netip.Addr) bool {
	from = from.Unmap().WithZone("")
	for _, prefix := range r.allowed {
		if prefix.Contains(from) {
			return true
		}
	}
	return false
}

// worker is the goroutine that owns everything up to the spool.
type worker struct {
	receiver *Receiver
	conn     *net.UDPConn
	spool    *spool
	session  *rtp.Session
	units    *h264.Assembler
	builder  *fragment.Builder

	refused    int64
	lastUnit   time.Time // arrival of the last packet handed on
	complaints limiter
	complained int64
}

func newWorker(r *Receiver, conn *net.UDPConn, s *spool) *worker {
	w := &worker{receiver: r, conn: conn, spool: s}
	w.session = rtp.NewSession(rtp.Options{ReorderDelay: r.config.ReorderDelay.Std(), SenderTimeout: senderTimeout})
	w.builder = fragment.NewBuilder(fragment.Options{Camera: r.config.Name, PieceBytes: buffer.MaxPartBytes}, s,
		func() (int64, int64) { stats := w.session.Stats(); return stats.Packets, stats.Lost })
	w.units = h264.NewAssembler(w.builder, r.given)
	return w
}

// run reads the socket until ctx is done.
func (w *worker) run(ctx context.Context, reports <-chan []byte) error {
	buf := make([]byte, rtp.MaxPacketBytes+1)
	for {
		now := time.Now()
		deadline := now.Add(tick)
		if at, ok := w.session.Deadline(); ok && at.Before(deadline) {
			deadline = at
		}
		if err := w.conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("set read deadline: %w", err)
		}
		if ctx.Err() != nil {
			return w.stop(buf, reports)
		}
		n, from, err := w.conn.ReadFromUDPAddrPort(buf)
		now = time.Now()
		switch {
		case err == nil:
			w.takeReports(reports)
			w.datagram(now, from, buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.takeReports(reports)
			w.pop(now)
			w.idle(now)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read socket: %w", err)
		default:
			// Such as an ICMP answer, which concerns a datagram we never sent.
		}
		w.complain(now)
		w.receiver.publish(w, w.spool)
	}
}

func (w *worker) datagram(now time.Time, from netip.AddrPort, raw []byte) {
	if w.receiver.allows(from.Addr()) {
		w.session.Push(now, raw)
	} else {
		w.refused++
	}
	w.pop(now)
}

func (w *worker) takeReports(reports <-chan []byte) {
	for {
		select {
		case raw := <-reports:
			w.session.PushRTCP(raw)
		default:
			return
		}
	}
}

// pop hands on every packet that is due.
func (w *worker) pop(now time.Time) {
	for p, ok := w.session.Pop(now); ok; p, ok = w.session.Pop(now) {
		w.take(p)
	}
}

func (w *worker) take(p rtp.Packet) {
	switch {
	case p.Restart:
		if w.session.Stats().Restarts > 0 {
			w.units.Lost(video.CauseRestart, 0)
		}
	case p.Lost > 0:
		w.units.Lost(video.CauseLoss, p.Lost)
	}
	w.lastUnit = p.Arrival
	w.units.Packet(h264.Packet{
		Timestamp: p.Timestamp, Marker: p.Marker, Payload: p.Payload,
		Arrival: p.Arrival, Sender: w.session.SenderTime(p.Timestamp),
	})
}

// idle closes the fragment of a camera that fell silent.
func (w *worker) idle(now time.Time) {
	if w.lastUnit.IsZero() || now.Sub(w.lastUnit) < idleTimeout {
		return
	}
	if w.units.Idle() {
		w.builder.Close()
		w.lastUnit = time.Time{}
	}
}

// stop takes what the kernel still has for us, for a bounded time, and makes all
// that was received into a last fragment.
func (w *worker) stop(buf []byte, reports <-chan []byte) error {
	until := time.Now().Add(drainTime)
	for now := time.Now(); now.Before(until); now = time.Now() {
		if err := w.conn.SetReadDeadline(now.Add(drainWait)); err != nil {
			return fmt.Errorf("set read deadline: %w", err)
		}
		n, from, err := w.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err == nil {
			w.takeReports(reports)
			w.datagram(now, from, buf[:n])
		}
	}
	now := time.Now()
	for p, ok := w.session.Drain(now); ok; p, ok = w.session.Drain(now) {
		w.take(p)
	}
	w.units.Flush()
	w.builder.Close()
	return nil
}

// complain logs what could not be used, at most once a minute.
func (w *worker) complain(now time.Time) {
	s := w.session.Stats()
	bad := s.Malformed + s.Foreign + w.refused + w.units.Stats().Damaged
	if bad == w.complained || !w.complaints.allow(now) {
		return
	}
	w.receiver.logger.Warn("packets that are not this camera's video", "new", bad-w.complained,
		"not_rtp", s.Malformed, "other_sender", s.Foreign, "not_allowed", w.refused, "damaged", w.units.Stats().Damaged)
	w.complained = bad
}

// limiter allows something once a minute.
type limiter struct{ last time.Time }

func (l *limiter) allow(now time.Time) bool {
	if !l.last.IsZero() && now.Sub(l.last) < time.Minute {
		return false
	}
	l.last = now
	return true
}
