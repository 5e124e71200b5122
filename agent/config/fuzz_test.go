package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/configs"
)

// FuzzParse: whatever the text, the faults are well formed; and what is
// accepted makes a dump that is accepted, too.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
	}
	names, err := configs.Names()
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := configs.Read(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, false)
	}
	f.Add([]byte("a: &a [*a, ${A}]\n? {b: c}\n: - d\n<<: *a\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, secrets bool) {
		// No secret of the machine is read: ${file:…} is left to other tests.
		o := config.Options{Secrets: secrets, LookupEnv: environment}
		cfg, err := config.Parse("weir.yaml", data, o)
		if err != nil {
			var faults config.Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("the error is %v", err)
			}
			for _, fault := range faults {
				if fault.File != "weir.yaml" || fault.Line < 0 || fault.Message == "" {
					t.Errorf("%+v", fault)
				}
			}
			return
		}
		dump, err := cfg.Redacted()
		if err != nil {
			t.Fatal(err)
		}
		// A secret that is not shown is too short for a token.
		longer := bytes.ReplaceAll(dump, []byte("token: \"***\""), []byte("token: 0123456789abcdef"))
		again, err := config.Parse("dump.yaml", longer, config.Options{})
		if err != nil {
			t.Fatalf("of\n%s\nit makes\n%s\n%v", data, dump, err)
		}
		if !secrets {
			if twice, err := again.Redacted(); err != nil || string(twice) != string(dump) {
				t.Fatalf("of\n%s\nit makes\n%s\n%v", dump, twice, err)
			}
		}
	})
}
