package disk

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFill is what Allocate does where the file system has no fallocate; where
// mounts are permitted TestFullDisk tries it on one.
func TestFill(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(name, []byte("head"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := (&file{f}).fill(4, 2<<20+3); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil || len(b) != 2<<20+3 || string(b[:4]) != "head" {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i, c := range b[4:] {
		if c != 0 {
			t.Fatalf("byte %d is %d, want 0", i+4, c)
		}
	}
}
