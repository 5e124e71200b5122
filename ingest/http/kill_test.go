package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-edge/weir/buffer"
)

// TestMainKilled is not a test: it is the process that TestKills kills, a
// source over a real log.
func TestMainKilled(t *testing.T) {
	dir := os.Getenv("WEIR_KILLED_DIR")
	if dir == "" {
		return
	}
	l := openLog(t, dir, 10*time.Millisecond)
	s, err := New(open(Stream{Stream: "telemetry", PartitionKey: "{json.k}"}), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		until(t, "it listens", s.Ready)
		fmt.Println("address", s.Address())
	}()
	t.Fatal(s.Run(context.Background())) // it is killed
}

// killed is a process under attack by posters.
type killed struct {
	t     *testing.T
	dir   string
	posts sync.WaitGroup

	mu    sync.Mutex
	acked map[string]buffer.Position // data -> where the answer said it is
}

// life starts the process, lets n posters post to it, and kills it.
func (k *killed) life(next []int) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainKilled$")
	cmd.Env = append(os.Environ(), "WEIR_KILLED_DIR="+k.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	var address string
	lines := bufio.NewScanner(out)
	for address == "" && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "address %s", &address)
	}
	if address == "" {
		_ = cmd.Process.Kill()
		k.t.Fatal("the process did not start")
	}
	ctx, cancel := context.WithCancel(k.t.Context())
	var some atomic.Bool
	var first sync.Once
	for i := range next {
		k.posts.Go(func() {
			client := &nethttp.Client{Transport: &nethttp.Transport{}}
			defer client.CloseIdleConnections()
			for k.post(ctx, client, address, i, &next[i]) {
				some.Store(true)
				first.Do(func() {
					time.AfterFunc(time.Duration(rand.IntN(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
				})
			}
		})
	}
	_, _ = io.Copy(io.Discard, out) // to the end of the process
	_ = cmd.Wait()                  // it was killed
	cancel()
	k.posts.Wait()
	if !some.Load() {
		k.t.Error("nothing was acknowledged in this life")
	}
}

// post sends the next records of a poster, and says whether they are safe. If
// they are not, the next life gets them again.
func (k *killed) post(ctx context.Context, client *nethttp.Client, address string, poster int, next *int) bool {
	n := 1 + rand.IntN(20)
	var body bytes.Buffer
	data := make([]string, n)
	for i := range n {
		data[i] = fmt.Sprintf(`{"k":"p%d","n":%d}`, poster, *next+i)
		fmt.Fprintln(&body, data[i])
	}
	r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, "http://"+address+"/v1/streams/telemetry/records", &body)
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	got, err := client.Do(r)
	if err != nil {
		return false
	}
	defer got.Body.Close()
	var a struct{ Positions []struct{ Sequence string } }
	if err := json.NewDecoder(got.Body).Decode(&a); err != nil || got.StatusCode != nethttp.StatusOK {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range n {
		sequence, err := strconv.ParseUint(a.Positions[i].Sequence, 10, 64)
		if err != nil {
			k.t.Errorf("position %v", a.Positions[i])
		}
		k.acked[data[i]] = buffer.Position{Sequence: buffer.Sequence(sequence)}
	}
	*next += n
	return true
}

// TestKills kills a process with this source and a real log, over and over,
// while devices post: every record of every answer 200 is in the log where the
// answer said, and each device's records are in its order.
func TestKills(t *testing.T) {
	kills := 8
	if os.Getenv("WEIR_CRASH") == "full" {
		kills = 100
	}
	k := &killed{t: t, dir: filepath.Join(t.TempDir(), "log"), acked: make(map[string]buffer.Position)}
	next := make([]int, 8)
	for range kills {
		k.life(next)
	}
	l := openLog(t, k.dir, 0)
	defer l.Close()
	list := read(t, l, "telemetry", 0)
	in := make(map[buffer.Sequence]string, len(list))
	last := map[string]int{}
	for _, e := range list {
		in[e.Sequence] = string(e.Data)
		var r struct {
			K string
			N int
		}
		if err := json.Unmarshal(e.Data, &r); err != nil || r.K != e.PartitionKey {
			t.Fatalf("record %s: %s, %v", e.Sequence, e.Data, err)
		}
		// What was not answered comes again, so numbers may go back, never ahead.
		if before, ok := last[r.K]; r.N > before+1 || !ok && r.N != 0 {
			t.Fatalf("record %s: %s comes after %d", e.Sequence, e.Data, last[r.K])
		}
		last[r.K] = r.N
	}
	for data, at := range k.acked {
		if in[at.Sequence] != data {
			t.Fatalf("%s was acknowledged at %s, where there is %q", data, at.Sequence, in[at.Sequence])
		}
	}
	t.Logf("%d kills, %d records acknowledged, %d in the log", kills, len(k.acked), len(list))
	if len(k.acked) < 100*kills {
		t.Errorf("only %d records were acknowledged in %d lives", len(k.acked), kills)
	}
}
