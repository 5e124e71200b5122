package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-edge/weir/agent/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testPart is a part whose n-th run, from 1 on, is run(n).
func testPart(logger *slog.Logger, run func(ctx context.Context, n int64) error) *part {
	var runs atomic.Int64
	return newPart(partSpec{kind: sourceKind, name: "plant", typ: "mqtt", build: func() (instance, error) {
		n := runs.Add(1)
		if n == 1 {
			return instance{}, errors.New("bad certificate")
		}
		return instance{run: func(ctx context.Context) error { return run(ctx, n) }}, nil
	}}, logger)
}

// TestPartComesBack: a part that does not start, dies, panics or just ends is
// started again, ever more slowly, and says why meanwhile.
func TestPartComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPart(slog.New(slog.DiscardHandler), func(ctx context.Context, n int64) error {
			switch n {
			case 2:
				return errors.New("connection lost")
			case 3:
				var list []int
				return errors.New(string(rune(list[n])))
			case 4:
				return nil
			}
			<-ctx.Done()
			return nil
		})
		p.start(t.Context())
		began := time.Now()
		for _, want := range []string{"bad certificate", "connection lost", "index out of range", "ended by itself"} {
			synctest.Wait()
			life, _ := p.snapshot()
			if life.State != api.Failed || !strings.Contains(life.Error, want) {
				t.Fatalf("the part is %+v, want failed with %s", life, want)
			}
			for {
				<-time.After(100 * time.Millisecond) // of the bubble's clock
				synctest.Wait()
				if now, _ := p.snapshot(); now.Restarts > life.Restarts {
					break
				}
			}
		}
		life, _ := p.snapshot()
		if life.State != api.Running || life.Error != "" || life.Restarts != 4 {
			t.Fatalf("the part is %+v, want running after 4 restarts", life)
		}
		// Pauses of 1, 2, 4 and 8 s, each between half and one and a half.
		if took := time.Since(began); took < 7*time.Second || took > 24*time.Second {
			t.Errorf("four restarts took %s", took)
		}
		p.stop()
		if !p.wait(time.Second) {
			t.Fatal("the part does not stop")
		}
		if life, _ := p.snapshot(); life.State != api.Stopped {
			t.Errorf("the part is %+v, want stopped", life)
		}
	})
}

// TestStopNamesWhoHangs: a part that ignores its context does not keep the
// daemon from ending.
func TestStopNamesWhoHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hangs := newPart(partSpec{kind: sinkKind, name: "central", build: func() (instance, error) {
			return instance{run: func(context.Context) error { <-release; return nil }}, nil
		}}, slog.New(slog.DiscardHandler))
		hangs.start(t.Context())
		synctest.Wait()
		err := stopAll([]*part{hangs}, 2*time.Second)
		if err == nil || !strings.Contains(err.Error(), "stop sink central: it did not end in 2s") {
			t.Errorf("the error is %v", err)
		}
		close(release)
		<-hangs.done
	})
}

func TestQuiet(t *testing.T) {
	var q quiet
	begin := time.Now()
	logged := int64(0)
	for second := range 600 {
		if n, ok := q.allow(begin.Add(time.Duration(second) * time.Second)); ok {
			logged++
			if second > 0 && n != 60 {
				t.Errorf("after %d s it counts %d failures", second, n)
			}
		}
	}
	if logged != 10 {
		t.Errorf("600 failures in 10 minutes were logged %d times", logged)
	}
}

// TestProbeSeesHang: appends that wait while no commit ends are a hang; a log
// that is idle, busy, or refuses is not.
func TestProbeSeesHang(t *testing.T) {
	now := time.Now()
	type step struct {
		after          time.Duration
		pending, moved int64
		hangs          bool
	}
	f := func(name string, steps ...step) {
		t.Helper()
		l := &loop{name: "log"}
		for i, s := range steps {
			if err := l.judge(now.Add(s.after), s.pending, s.moved, 10*time.Second); (err != nil) != s.hangs {
				t.Errorf("%s: step %d gives %v", name, i+1, err)
			}
		}
	}
	f("idle", step{0, 0, 0, false}, step{time.Hour, 0, 0, false})
	f("busy", step{0, 9, 1, false}, step{20 * time.Second, 9, 2, false}, step{40 * time.Second, 9, 3, false})
	f("a card that stalls", step{0, 9, 1, false}, step{9 * time.Second, 9, 1, false}, step{12 * time.Second, 0, 2, false})
	f("hung", step{0, 9, 1, false}, step{time.Second, 9, 1, false}, step{12 * time.Second, 9, 1, true}, step{13 * time.Second, 9, 2, false})
}

func TestCgroupMemory(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("system.slice/memory.max", "268435456\n")
	write("system.slice/weir.service/memory.max", "max\n")
	write("memory/box/memory.limit_in_bytes", "134217728\n")
	write("memory/free/memory.limit_in_bytes", "9223372036854771712\n")
	f := func(self string, want int64) {
		t.Helper()
		got, ok := cgroupMemory(write("self", self), root)
		if (want != 0) != ok || ok && got != want {
			t.Errorf("%q gives %d %v, want %d", self, got, ok, want)
		}
	}
	f("0::/system.slice/weir.service\n", 256<<20)
	f("0::/user.slice\n", 0)
	f("9:memory:/box/inner\n0::/\n", 128<<20)
	f("9:memory:/free\n1:cpu:/system.slice\n", 0)
	f("", 0)
}

// TestProgressOfSources: dealing with messages is progress whatever becomes of
// them; taking more and more and dealing with none is not.
func TestProgressOfSources(t *testing.T) {
	before := api.Source{Messages: 100, Inflight: 20}
	if after := (api.Source{Messages: 180, Inflight: 20}); progress(after) == progress(before) {
		t.Error("commands that are passed on are no progress")
	}
	if after := (api.Source{Messages: 180, Inflight: 100}); progress(after) != progress(before) {
		t.Error("messages that pile up are progress")
	}
}
