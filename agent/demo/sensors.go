package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// The simulated plant: together some hundred messages a second.
const (
	sensors        = 12
	sensorInterval = 40 * time.Millisecond
)

// reading is what a simulated sensor sends.
type reading struct {
	Sensor string    `json:"sensor"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Count  int64     `json:"count"`
	At     time.Time `json:"at"`
}

// world is what surrounds the daemon: sensors and a camera.
type world struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// startWorld starts the sensors, which publish to the broker once it has an
// address, and the camera, which sends to video; both host:port.
func startWorld(ctx context.Context, broker func() string, video string, logger *slog.Logger) *world {
	ctx, cancel := context.WithCancel(ctx)
	w := &world{cancel: cancel}
	for i := range sensors {
		w.group.Go(func() {
			name := fmt.Sprintf("s-%02d", i+1)
			if err := runSensor(ctx, whenThere(ctx, broker), name); err != nil {
				logger.Error("sensor ended", "sensor", name, "error", err)
			}
		})
	}
	w.group.Go(func() {
		if err := runCamera(ctx, video); err != nil {
			logger.Error("camera ended", "error", err)
		}
	})
	return w
}

// stop ends sensors and camera and waits for them.
func (w *world) stop() {
	w.cancel()
	w.group.Wait()
}

// whenThere waits for an address; it is "" if ctx ended first.
func whenThere(ctx context.Context, address func() string) string {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if a := address(); a != "" {
			return a
		}
		select {
		case <-ctx.Done():
			return ""
		case <-ticker.C:
		}
	}
}

// runSensor publishes a slow wave with noise until ctx is done.
func runSensor(ctx context.Context, broker, name string) error {
	if ctx.Err() != nil {
		return nil
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("demo-" + name).
		SetConnectTimeout(5 * time.Second).SetWriteTimeout(5 * time.Second).SetOrderMatters(false))
	if err := wait(ctx, client.Connect()); err != nil {
		return fmt.Errorf("connect sensor %s: %w", name, err)
	}
	defer client.Disconnect(100)
	ticker := time.NewTicker(sensorInterval)
	defer ticker.Stop()
	phase := rand.Float64() * 2 * math.Pi
	// An acknowledgement takes a commit of the log: some are waited for at once.
	var unacknowledged [8]mqtt.Token
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		payload, err := json.Marshal(reading{
			Sensor: name, Unit: "C", Count: n, At: time.Now().UTC(),
			Value: math.Round(100*(21+4*math.Sin(float64(n)/200+phase)+rand.NormFloat64()/5)) / 100,
		})
		if err != nil {
			return fmt.Errorf("encode a reading: %w", err)
		}
		slot := &unacknowledged[n%int64(len(unacknowledged))]
		if *slot != nil {
			if err := wait(ctx, *slot); err != nil {
				return fmt.Errorf("publish for sensor %s: %w", name, err)
			}
		}
		*slot = client.Publish("sensors/"+name+"/temperature", 1, false, payload)
	}
}

// wait waits for an answer of the broker; that ctx ended is no error.
func wait(ctx context.Context, token mqtt.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return nil
	}
}
