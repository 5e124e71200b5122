// Command sbom prints the software bill of materials of a Go binary as
// CycloneDX 1.6 in JSON: the binary with its hash, the Go it was built with, and
// every module that is linked into it.
//
// It reads what the Go tool stamped into the binary (`go version -m`), so it
// tells what is there and not what go.mod would allow. The same binary gives
// the same bytes: the time is SOURCE_DATE_EPOCH, and there is no random serial
// number, which is why the usual generator is not used. Licences are not in it;
// the package has their texts in a file of its own.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// bom is the document; the names are those of CycloneDX.
type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp,omitempty"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// run prints the bill of args[0], which was released as args[1].
func run(args []string, epoch string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: sbom BINARY VERSION")
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read what %s was built from: %w", args[0], err)
	}
	sum, err := fileHash(args[0])
	if err != nil {
		return err
	}
	b := bill(info, args[1])
	b.Metadata.Component.Hashes = []hash{{"SHA-256", sum}}
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		b.Metadata.Timestamp = time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(b)
}

func bill(info *debug.BuildInfo, version string) *bom {
	self := module(debug.Module{Path: info.Main.Path, Version: version})
	self.Type, self.Name = "application", "weir"
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "vcs.revision", "vcs.modified", "-tags":
			self.Properties = append(self.Properties, property{"build:" + s.Key, s.Value})
		}
	}
	parts := []component{module(debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, module(*m))
	}
	all := dependency{Ref: self.Ref}
	list := []dependency{}
	for _, p := range parts {
		all.DependsOn = append(all.DependsOn, p.Ref)
		list = append(list, dependency{Ref: p.Ref})
	}
	return &bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Component: self}, Components: parts, Dependencies: append([]dependency{all}, list...),
	}
}

// module is a Go module as a component; its package URL is what vulnerability
// databases know it by.
func module(m debug.Module) component {
	url := "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	c := component{Ref: url, Type: "library", Name: m.Path, Version: m.Version, PURL: url}
	if m.Sum != "" { // of the module's tree, not of one file, so it is no hash of CycloneDX
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

func fileHash(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, file)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, file.Close())
}
