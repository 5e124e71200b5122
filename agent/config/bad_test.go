package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-edge/weir/agent/config"
)

var update = flag.Bool("update", false, "write the messages of testdata/*.bad.yaml anew")

// environment is what placeholders see in the tests.
func environment(name string) (string, bool) {
	value, ok := map[string]string{
		"WEIR_TEST_EMPTY": "", "WEIR_TEST_SECRET": "hunter2 is it", "WEIR_TEST_SHORT": "tiny",
		"WEIR_TEST_TOKEN": "0123456789abcdef", "WEIR_TEST_NUMBER": "3",
	}[name]
	return value, ok
}

// TestBadFiles: each file breaks one rule, or a few that belong together, and
// beside it stand the exact messages. Those named secrets-* are loaded with
// their secrets.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = config.Parse(filepath.Base(file), data, config.Options{
				Secrets: strings.HasPrefix(filepath.Base(file), "secrets-"), LookupEnv: environment,
			})
			var faults config.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("it is refused with %v", err)
			}
			checkFaults(t, faults, string(data))
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(faults.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), faults.Error()+"\n"); diff != "" {
				t.Errorf("other messages (-want +got):\n%s", diff)
			}
		})
	}
}

// checkFaults checks what holds for the faults of every file.
func checkFaults(t *testing.T, faults config.Faults, text string) {
	t.Helper()
	lines := 1 + strings.Count(text, "\n")
	for _, f := range faults {
		if f.File == "" || f.Message == "" || f.Line < 0 || f.Line > lines || f.Column < 0 || strings.ContainsAny(f.String(), "\n\r\x00") || strings.Contains(f.Message, "%!") {
			t.Errorf("of %d lines: %+v", lines, f)
		}
	}
	if !slices.IsSortedFunc(faults[:min(len(faults), 500)], func(a, b config.Fault) int { return a.Line - b.Line }) {
		t.Errorf("not in the order of the lines:\n%s", faults)
	}
	if strings.Contains(faults.Error(), "hunter2") {
		t.Errorf("a secret is told:\n%s", faults)
	}
}
