package buffer

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMainKilled is not a test: it is the process that TestKillWhileAppending
// kills. It appends for ever and prints what was acknowledged.
func TestMainKilled(t *testing.T) {
	dir := os.Getenv("WEIR_KILLED_DIR")
	if dir == "" {
		return
	}
	config := DefaultConfig()
	config.Dir, config.Commit.MaxDelay = dir, 0
	config.MaxBytes, config.ReserveBytes = 64<<20, 1
	l, err := Open(context.Background(), config, Options{})
	if err != nil {
		fmt.Println("cannot open:", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		p, err := l.Append(context.Background(), "s", Record{PartitionKey: "k", Data: []byte(strings.Repeat("x", rand.IntN(5000)))})
		if err != nil {
			fmt.Println("cannot append:", err)
			os.Exit(1)
		}
		fmt.Println("acked", uint64(p[0].Sequence))
	}
}

// TestKillWhileAppending kills a process that appends, again and again: every
// record it said was acknowledged is there.
func TestKillWhileAppending(t *testing.T) {
	kills := 10
	if os.Getenv("WEIR_CRASH") == "full" {
		kills = 200
	}
	dir := filepath.Join(t.TempDir(), "log")
	var acked Sequence
	for kill := range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMainKilled$")
		cmd.Env = append(os.Environ(), "WEIR_KILLED_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(50+rand.IntN(250))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var seq Sequence
			if _, err := fmt.Sscanf(lines.Text(), "acked %d", &seq); err == nil {
				acked = max(acked, seq)
			} else if strings.HasPrefix(lines.Text(), "cannot") {
				t.Fatal(lines.Text())
			}
		}
		timer.Stop()
		_ = cmd.Wait() // it was killed
		if kill%5 != 4 {
			continue
		}
		l := open(t, dir, nil)
		entries, _ := all(t, l, "s", 0)
		if len(entries) == 0 || entries[len(entries)-1].Sequence < acked {
			t.Fatalf("after %d kills the log ends before %d, which was acknowledged", kill+1, acked)
		}
		for i := range entries[1:] {
			if entries[i+1].Sequence != entries[i].Sequence+1 {
				t.Fatalf("a hole behind %d", entries[i].Sequence)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d records acknowledged", kills, acked)
}
