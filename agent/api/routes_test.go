package api

import (
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestOpenAPI compares openapi.yaml with the routes of the server.
func TestOpenAPI(t *testing.T) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, operations := range document.Paths {
		for method := range operations {
			if method != "parameters" {
				described[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	served := map[string]bool{}
	for _, route := range New(Options{Config: DefaultConfig(), Logger: slog.New(slog.DiscardHandler)}).routes() {
		path := route.pattern
		if route.doc != "" {
			path = route.doc
		}
		served[route.method+" "+path] = true
	}
	if !maps.Equal(described, served) {
		t.Errorf("openapi.yaml describes %v\nthe server answers   %v", slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(served)))
	}
}
