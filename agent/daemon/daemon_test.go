package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/agent/daemon"
	"github.com/weir-edge/weir/buffer"
)

// record is the daemon's log, as lines.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// running is a daemon that runs until the end of the test.
type running struct {
	*daemon.Daemon
	t    *testing.T
	log  *record
	stop func() error // ends it and returns what Run returned
}

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, config.Options{Secrets: true})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func run(t *testing.T, text string) *running {
	t.Helper()
	r := &running{t: t, log: &record{}}
	r.Daemon = daemon.New(load(t, text), daemon.Options{Logger: slog.New(slog.NewTextHandler(r.log, nil)), Version: "test"})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the daemon ended with %v\n%s", err, r.log)
		}
	})
	select {
	case <-r.Running():
	case err := <-ended:
		ended <- err
		t.Fatalf("the daemon ended with %v", err)
	}
	return r
}

// await polls until done says nil; deadlines are for a slow machine.
func (r *running) await(what string, done func() error) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %v\n%s", what, err, r.log)
		}
		<-ticker.C
	}
}

// awaitHealth waits until /healthz says what is wanted; reason is a part of
// the first problem.
func (r *running) awaitHealth(ok bool, reason string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r.await("health", func() error {
		response, err := client.Get("http://" + r.API().Address() + "/healthz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var health api.Health
		if err := json.NewDecoder(response.Body).Decode(&health); err != nil {
			return err
		}
		if health.OK != ok || (response.StatusCode == 200) != ok || !strings.Contains(fmt.Sprint(health.Problems), reason) {
			return fmt.Errorf("it is %d %+v", response.StatusCode, health)
		}
		return nil
	})
}

func base(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("node: {id: test}\nbuffer: {dir: %q, max_bytes: 64MiB}\napi: {listen: \"127.0.0.1:0\"}\n",
		filepath.Join(t.TempDir(), "log"))
}

func TestStartAndStop(t *testing.T) {
	r := run(t, base(t))
	r.awaitHealth(true, "")
	if _, err := r.Log().Append(t.Context(), "s", buffer.Record{PartitionKey: "k", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if _, err := r.Log().Append(t.Context(), "s", buffer.Record{PartitionKey: "k"}); !errors.Is(err, buffer.ErrClosed) {
		t.Errorf("after the end the log answers %v", err)
	}
}

// TestAPIComesLater: that the API's port is taken does not end the daemon, and
// it listens once the port is free.
func TestAPIComesLater(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, strings.Replace(base(t), "127.0.0.1:0", taken.Addr().String(), 1))
	r.await("the problem", func() error {
		if text := fmt.Sprint(r.Health().Problems); !strings.Contains(text, "address already in use") {
			return fmt.Errorf("health says %s", text)
		}
		return nil
	})
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	r.await("the api", func() error {
		if r.API().Address() == "" {
			return errors.New("it does not listen")
		}
		return nil
	})
	r.awaitHealth(true, "")
}

// TestReloadPolicy: a stream's policy counts at once, the buffer's needs a
// restart and says so.
func TestReloadPolicy(t *testing.T) {
	text := base(t)
	r := run(t, text+"streams: {alerts: {retention: 7d}}\n")
	r.Reload(load(t, strings.Replace(text, "64MiB", "128MiB", 1)+"streams: {alerts: {retention: 14d}}\n"))
	r.await("the policy", func() error {
		info, err := r.Log().Stream("alerts")
		if err == nil && info.Config.Retention.String() != "14d" {
			err = fmt.Errorf("retention is %s", info.Config.Retention)
		}
		return err
	})
	r.await("the log", func() error {
		if !strings.Contains(r.log.String(), "section=buffer") {
			return errors.New("nothing is said of the buffer")
		}
		return nil
	})
}

// TestOnePartFails: a camera whose port is taken is told and tried again, and
// costs nobody else anything.
func TestOnePartFails(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, base(t)+fmt.Sprintf("video: {cameras: [{name: dock, url: \"rtp://%s\"}]}\n", taken.LocalAddr())+
		"ingest: {mqtt: [{name: plant, url: \"mqtt://127.0.0.1:9\", topics: [{filter: \"#\", stream: telemetry}]}]}\n")
	r.awaitHealth(false, "camera dock")
	if _, err := r.Log().Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "k", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	r.awaitHealth(true, "")
	parts := r.Parts()
	if len(parts.Cameras) != 1 || parts.Cameras[0].Restarts == 0 || parts.Cameras[0].Address != taken.LocalAddr().String() {
		t.Errorf("the camera is %+v", parts.Cameras)
	}
	if len(parts.Sources) != 1 || parts.Sources[0].State != api.Waiting || parts.Sources[0].Error == "" {
		t.Errorf("the source is %+v", parts.Sources)
	}
}

// TestReloadParts: what changed is started anew, what did not goes on, what
// went is stopped.
func TestReloadParts(t *testing.T) {
	text := base(t)
	const a = "{name: a, url: \"mqtt://127.0.0.1:9\", topics: [{filter: \"#\", stream: s}]}"
	const b = "{name: b, url: \"mqtt://127.0.0.1:9\", topics: [{filter: \"%s\", stream: s}]}"
	r := run(t, text+fmt.Sprintf("ingest: {mqtt: [%s, %s]}\nvideo: {cameras: [{name: dock, url: \"rtp://127.0.0.1:0\"}]}\n", a, fmt.Sprintf(b, "x")))
	waiting := func(names ...string) func() error {
		return func() error {
			sources := r.Parts().Sources
			if len(sources) != len(names) {
				return fmt.Errorf("there are %d sources", len(sources))
			}
			for i, s := range sources {
				if s.Name != names[i] || s.State != api.Waiting {
					return fmt.Errorf("source %d is %+v", i, s)
				}
			}
			return nil
		}
	}
	r.await("two sources", waiting("a", "b"))
	before := r.Parts()
	r.Reload(load(t, text+fmt.Sprintf("ingest: {mqtt: [%s, %s]}\n", a, fmt.Sprintf(b, "y"))))
	r.await("the reload", func() error {
		if !strings.Contains(r.log.String(), "configuration reloaded") {
			return errors.New("nothing happened")
		}
		return nil
	})
	r.await("two sources again", waiting("a", "b"))
	after := r.Parts()
	if !after.Sources[0].Since.Equal(before.Sources[0].Since) {
		t.Error("a source that did not change was started anew")
	}
	if after.Sources[1].Since.Equal(before.Sources[1].Since) {
		t.Error("a source that changed goes on with what it had")
	}
	if len(after.Cameras) != 0 {
		t.Errorf("the camera that went is %+v", after.Cameras)
	}
	if _, err := r.Log().Stream("dock"); err != nil {
		t.Errorf("what the camera recorded is gone: %v", err)
	}
}
