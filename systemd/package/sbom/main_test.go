package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// TestBill makes the bill of a binary with known modules.
func TestBill(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Main: debug.Module{Path: "github.com/weir-edge/weir"},
		Deps: []*debug.Module{
			{Path: "example.org/a", Version: "v1.2.3", Sum: "h1:x="},
			{Path: "example.org/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/c", Version: "v2.0.0+incompatible"}},
		},
		Settings: []debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}, {Key: "-ldflags", Value: "-s"}},
	}
	b := bill(info, "1.0")
	var names []string
	for _, c := range b.Components {
		names = append(names, c.PURL)
	}
	want := "pkg:golang/std@1.26.8 pkg:golang/example.org/a@v1.2.3 pkg:golang/example.org/c@v2.0.0%2Bincompatible"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("components are\n%s, want\n%s", got, want)
	}
	if got := len(b.Dependencies[0].DependsOn); got != 3 {
		t.Errorf("the binary depends on %d components", got)
	}
	if p := b.Metadata.Component.Properties; len(p) != 1 || p[0] != (property{"build:GOARCH", "arm64"}) {
		t.Errorf("properties of the build: %v", p)
	}
}

// TestSameBytes: the bill of one binary does not depend on when it is made.
func TestSameBytes(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run([]string{binary, "1.0"}, "86400", out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs differ")
	}
	var b bom
	if err := json.Unmarshal(first.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	if b.Metadata.Timestamp != "1970-01-02T00:00:00Z" || len(b.Metadata.Component.Hashes[0].Content) != 64 {
		t.Errorf("metadata are %+v", b.Metadata)
	}
}

func TestRefused(t *testing.T) {
	for name, args := range map[string][]string{"no binary": {}, "not there": {"nosuch", "1"}, "not Go's": {"main.go", "1"}} {
		if err := run(args, "", &bytes.Buffer{}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := run([]string{binary, "1"}, "noon", &bytes.Buffer{}); err == nil {
		t.Error("a SOURCE_DATE_EPOCH that is no number is taken")
	}
}
