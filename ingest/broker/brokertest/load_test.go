package brokertest

import (
	"context"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	target := startMosquitto(t).target()
	o := Options{Clients: 4, InFlight: 16, Duration: 2 * time.Second, Username: target.Username, Password: target.Password}
	r, err := Load(t.Context(), target.Address, o)
	if err != nil || r.Acknowledged < 1000 || r.Median <= 0 || r.Median > r.P95 || r.P95 > r.P99 || r.P99 > r.Max {
		t.Errorf("%v, %v", r, err)
	}
	t.Logf("as fast as it can: %v", r)
	o.Rate = 500
	r, err = Load(t.Context(), target.Address, o)
	if err != nil || r.Acknowledged < 950 || r.Acknowledged > 1010 {
		t.Errorf("%v, %v", r, err)
	}
	t.Logf("500 a second: %v", r)
}

// TestLoadFails: what is not acknowledged is an error, and ctx ends it.
func TestLoadFails(t *testing.T) {
	m := startMosquitto(t)
	target := m.target()
	if _, err := Load(t.Context(), target.Address, Options{Duration: time.Second}); err == nil {
		t.Error("a stranger is let in")
	}
	o := Options{Duration: time.Minute, Rate: 100, Username: target.Username, Password: target.Password}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := Load(ctx, target.Address, o); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	stopped := make(chan error, 1)
	timer := time.AfterFunc(500*time.Millisecond, func() { stopped <- m.stop() })
	defer timer.Stop()
	if _, err := Load(t.Context(), target.Address, o); err == nil {
		t.Error("the broker is gone, and it is no error")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.note(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 1: time.Second} {
		if got := h.quantile(q); got < want*98/100 || got > want*103/100 {
			t.Errorf("%v: %v, want about %v", q, got, want)
		}
	}
}

// TestSiege: mosquitto goes on beside a hundred hostile strangers.
func TestSiege(t *testing.T) {
	target := startMosquitto(t).target()
	r := Siege{Hostile: 100, Good: 8, Duration: 6 * time.Second}.Run(t, target)
	if r.Messages < 100 || r.Opened < 100 {
		t.Errorf("%+v", r)
	}
	t.Logf("%+v", r)
}

// TestInsiders: and beside thirty devices that went wrong.
func TestInsiders(t *testing.T) {
	target := startMosquitto(t).target()
	r := Siege{Hostile: 30, Good: 4, Duration: 6 * time.Second, Insider: true}.Run(t, target)
	if r.Messages < 10 || r.Opened < 30 {
		t.Errorf("%+v", r)
	}
	t.Logf("%+v", r)
}

// TestHostileEnds: it ends with its context, whatever it meets.
func TestHostileEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	opened, refused, _ := Hostile(ctx, "127.0.0.1:1", 20).Wait()
	if opened != 0 || refused == 0 || time.Since(begin) > 5*time.Second {
		t.Errorf("%d opened, %d refused after %v", opened, refused, time.Since(begin))
	}
}
