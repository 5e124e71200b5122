package buffer_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/buffer/buffertest"
)

// harness makes real logs on the real file system.
func harness() buffertest.Harness {
	dirs := map[buffertest.Log]string{}
	open := func(t testing.TB, dir string, streams map[string]buffer.StreamConfig) buffertest.Log {
		t.Helper()
		config := buffer.DefaultConfig()
		config.Dir, config.MaxBytes, config.Commit.MaxDelay = dir, 256<<20, 0
		l, err := buffer.Open(t.Context(), config, buffer.Options{Streams: streams})
		if err != nil {
			t.Fatal(err)
		}
		dirs[l] = dir
		return l
	}
	return buffertest.Harness{
		Open: func(t testing.TB, streams map[string]buffer.StreamConfig) buffertest.Log {
			dir, err := os.MkdirTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			return open(t, filepath.Join(dir, "log"), streams)
		},
		Reopen: func(t testing.TB, l buffertest.Log) buffertest.Log {
			dir := dirs[l]
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, dir, nil)
		},
	}
}

func TestContract(t *testing.T) { buffertest.Run(t, harness()) }

func TestModel(t *testing.T) { buffertest.CheckModel(t, harness()) }
