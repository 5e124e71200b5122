package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCommand is `weir version`.
type versionCommand struct {
	JSON bool `help:"Print JSON."`
}

// build says what this binary was made from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (v *versionCommand) Run(c *console) error {
	b := thisBuild()
	if v.JSON {
		return c.printJSON(b)
	}
	_, err := fmt.Fprintf(c.stdout, "weir %s\ncommit %s\n%s %s\n", b.Version, b.Commit, b.Go, b.Platform)
	return err
}

// thisBuild reads what the Go tool stamped into the binary.
func thisBuild() build {
	b := build{Version: "unknown", Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			b.Commit = setting.Value
		}
	}
	return b
}
