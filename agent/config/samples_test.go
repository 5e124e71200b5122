package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/configs"
)

// TestSamples: every sample is a valid configuration.
func TestSamples(t *testing.T) {
	names, err := configs.Names()
	if err != nil || len(names) < 4 {
		t.Fatalf("samples are %v, %v", names, err)
	}
	onDisk, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(onDisk) != len(names) {
		t.Errorf("%d files, %d embedded, %v", len(onDisk), len(names), err)
	}
	for _, name := range names {
		text, err := configs.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse(name, text, config.Options{}); err != nil {
			t.Error(err)
		}
		if disk, err := os.ReadFile("../../configs/" + name); err != nil || string(disk) != string(text) {
			t.Errorf("%s is not what is embedded: %v", name, err)
		}
	}
	if _, err := configs.Read("nosuch.yaml"); err == nil {
		t.Error("a sample that does not exist can be read")
	}
}

// commentedOut is a line with a key that is not set.
var commentedOut = regexp.MustCompile(`(?m)^( *)#(\S)`)

// TestMainSample: with all that is commented out put in, the sample has every
// key there is, and what it calls default is the default.
func TestMainSample(t *testing.T) {
	sample, err := configs.Read(configs.Main)
	if err != nil {
		t.Fatal(err)
	}
	text := commentedOut.ReplaceAllString(string(sample), "$1$2")
	whole := parse(t, text, config.Options{})
	dump, err := whole.Redacted()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	defaults := 0
	for i, line := range lines {
		if !strings.Contains(line, "# default") || strings.HasPrefix(strings.TrimSpace(line), "- ") {
			continue
		}
		defaults++
		without := append(append([]string{}, lines[:i]...), lines[i+1:]...)
		got, err := parse(t, strings.Join(without, "\n"), config.Options{}).Redacted()
		if err != nil || string(got) != string(dump) {
			t.Errorf("line %d is not the default: %s", i+1, line)
		}
	}
	if defaults < 35 {
		t.Errorf("only %d defaults are told", defaults)
	}
	for _, line := range strings.Split(string(dump), "\n") {
		key, _, ok := strings.Cut(strings.TrimLeft(line, " -"), ":")
		if ok && !regexp.MustCompile(`(?m)(^|[ {])`+regexp.QuoteMeta(key)+`:`).MatchString(text) {
			t.Errorf("the sample has no %s", key)
		}
	}
}
