// Package configs holds the sample configurations of weir, embedded in the
// binary: `weir init` writes them, the documents point at them, and a test of
// package agent/config loads every one of them.
//
// weir.yaml has every key with its default and meaning; the others are small
// and show one thing each. A key that is commented out begins with a # and no
// space, so that a test can put all of them in.
//
// The package reads nothing but what is embedded and imports nothing of weir.
// Its folder value has the types of configuration values.
package configs

import (
	"embed"
	"fmt"
	"io/fs"
)

// Main is the name of the commented sample that weir init writes.
const Main = "weir.yaml"

//go:embed *.yaml
var samples embed.FS

// Names returns the names of the samples, sorted.
func Names() ([]string, error) {
	names, err := fs.Glob(samples, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list samples: %w", err)
	}
	return names, nil
}

// Read returns the text of a sample; the caller owns it.
func Read(name string) ([]byte, error) {
	text, err := samples.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read sample %s: %w", name, err)
	}
	return text, nil
}
