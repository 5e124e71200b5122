package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/weir-edge/weir"

// permission is one line of the import rule: packages below From may import
// what is below To. agent/ARCHITECTURE.md draws the layers; every permission
// has its reason. "*" stands for one or more levels.
type permission struct{ from, to, reason string }

var permissions = []permission{
	{"analytics", "buffer", "contracts stand on the hub"},
	{"analytics", "configs/value", "how long to wait between tries"},
	{"analytics/*", "analytics", "an adapter and its contract"},
	{"analytics/*", "buffer", "records of the hub"},
	{"analytics/*", "configs/value", "their configuration"},
	{"analytics/analyticstest", "buffer/buffertest", "the log that analyzers are tried on"},

	{"buffer", "configs/value", "sizes and durations of its configuration"},
	{"buffer", "buffer/disk", "the seam to the file system"},
	{"buffer/crashtest", "buffer/disk", "it is a file system"},
	{"buffer/disk/disktest", "buffer/disk", "the contract of the seam"},
	{"buffer/bench", "buffer", "measures it"},
	{"buffer/buffertest", "buffer", "the contract of the log"},
	{"buffer/buffertest", "configs/value", "to make configurations"},
	{"buffer/disk", "", "the file system"},
	{"configs", "", "samples only"},
	{"configs/value", "", "pure value types"},

	{"ingest", "buffer", "contracts stand on the hub"},
	{"ingest/*", "ingest", "an adapter and its contract"},
	{"ingest/*", "buffer", "adapters append to the hub"},
	{"ingest/*", "configs/value", "their configuration"},
	{"ingest/broker/*", "", "wire format, users: pure or files only"},
	{"ingest/broker", "ingest/message", "how an MQTT message becomes a record"},
	{"ingest/broker", "ingest/broker/packet", "its wire format"},
	{"ingest/broker", "ingest/broker/users", "who may connect"},
	{"ingest/mqtt", "ingest/message", "how an MQTT message becomes a record"},

	{"video", "buffer", "contracts stand on the hub"},
	{"video", "configs/value", "its configuration"},
	{"video/*", "video", "an adapter and its contract"},
	{"video/*", "buffer", "adapters append to the hub and read it"},
	{"video/*", "configs/value", "their configuration"},
	{"video/fragment", "video/fmp4", "a fragment is stored as samples of fMP4"},
	{"video/receiver", "video/fragment", "builds fragments"},
	{"video/receiver", "video/h264", "of access units"},
	{"video/receiver", "video/rtp", "out of packets"},
	{"video/receiver", "video/fmp4", "closes them with their sample table"},
	{"video/recording", "video/fmp4", "muxes what is stored"},

	{"uplink", "buffer", "contracts stand on the hub"},
	{"uplink", "configs/value", "its configuration"},
	{"uplink/*", "uplink", "an adapter and its contract"},
	{"uplink/*", "buffer", "entries of the hub"},
	{"uplink/*", "configs/value", "their configuration"},

	{"systemd", "", "a wrapper of sd_notify"},
	{"systemd/boottest", "", "tests only"},
	{"systemd/package/sbom", "", "a tool of the build, it reads a binary"},

	{"agent/config", "buffer", "the sum of each package's configuration"},
	{"agent/config", "configs/value", "the types of its values"},
	{"agent/config", "ingest", "the name of the stream for what is set aside"},
	{"agent/config", "ingest/broker", "the sum of each package's configuration"},
	{"agent/config", "ingest/http", "the sum of each package's configuration"},
	{"agent/config", "ingest/mqtt", "the sum of each package's configuration"},
	{"agent/config", "video", "the sum of each package's configuration"},
	{"agent/config", "analytics/sql", "the sum of each package's configuration"},
	{"agent/config", "uplink", "the sum of each package's configuration"},
	{"agent/config", "uplink/nats", "the sum of each package's configuration"},
	{"agent/config", "agent/api", "the sum of each package's configuration"},
	{"agent/api", "buffer", "shows the hub"},
	{"agent/api", "configs/value", "its configuration"},
	{"agent/daemon", "*", "the composition root"},
	{"agent/demo", "*", "the demo is a composition root too: daemon, devices and centre in one process"},
	{"agent/acceptance", "", "tests only"},
	{"agent", "*", "the program"},
}

// sdks says which packages may import which foreign module; "/..." is a
// package and all below it. A module without a line is nobody's.
var sdks = []sdk{
	{"github.com/dgraph-io/badger", []string{"buffer"}, "one SDK, one package"},
	{"github.com/klauspost/compress", []string{"buffer", "analytics/sql"}, "batches are compressed in the log, and the states of queries"},
	{"pgregory.net/rapid", []string{"buffer/buffertest"}, "the model is checked with random steps"},
	{"github.com/pion/", []string{"video/..."}, "one SDK, one layer"},
	{"github.com/bluenviron/", []string{"video/..."}, "one SDK, one layer"},
	{"github.com/eclipse/paho", []string{"ingest/mqtt", "agent/demo"}, "the demo's sensors are MQTT clients"},
	{"github.com/nats-io/nats.go", []string{"uplink/nats", "uplink/nats/natstest"}, "one SDK, one package, and its test help"},
	{"github.com/nats-io/nats-server", []string{"agent/demo"}, "the demo's centre, left out of slim builds"},
	{"github.com/prometheus", []string{"agent/api"}, "metrics are a face"},
	{"github.com/alecthomas/kong", []string{"agent"}, "the command line"},
	{"github.com/coreos/go-systemd", []string{"systemd"}, "sd_notify"},
	{"github.com/goccy/go-yaml", []string{"agent/config", "ingest/broker/users"}, "one place reads the configuration, another the file of the broker's users"},
	{"golang.org/x/crypto", []string{"ingest/broker/users"}, "argon2id of passwords"},
	{"golang.org/x/sys", []string{"buffer", "buffer/disk", "buffer/bench", "agent"}, "syncs, locks, space, and whether it is a terminal"},
}

type sdk struct {
	prefix string
	only   []string
	reason string
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

// TestImports is the import rule. It looks at what is built, not at tests:
// those may import the suites and a real log besides.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	used, taken := map[permission]bool{}, map[string]bool{}
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if !slices.ContainsFunc(permissions, func(r permission) bool { return covers(r.from, from) }) {
			t.Errorf("package %s has no line in the import rule", from)
		}
		for _, to := range p.Imports {
			if rest, ok := strings.CutPrefix(to, module+"/"); ok {
				if !allowed(from, rest, used) {
					t.Errorf("%s must not import %s (add a permission with its reason, or move the wall)", from, rest)
				}
				continue
			}
			if first, _, _ := strings.Cut(to, "/"); strings.Contains(first, ".") {
				if fault := foreign(from, to, taken); fault != "" {
					t.Error(fault)
				}
			}
		}
	}
	for _, sdk := range sdks {
		for _, o := range sdk.only {
			if !taken[sdk.prefix+" "+o] {
				t.Errorf("%s does not import %s any more; take the permission away", o, sdk.prefix)
			}
		}
	}
	for _, r := range permissions {
		if r.to != "" && r.to != "*" && !used[r] && !strings.Contains(r.from, "*") && !isTestHelp(r.from) {
			t.Errorf("nobody needs the permission of %s to import %s; take it away", r.from, r.to)
		}
	}
}

// foreign says what is wrong with the import of another module, if anything.
func foreign(from, to string, taken map[string]bool) string {
	for _, sdk := range sdks {
		if !strings.HasPrefix(to, sdk.prefix) {
			continue
		}
		for _, o := range sdk.only {
			top, below := strings.CutSuffix(o, "/...")
			if from == top || below && strings.HasPrefix(from, top+"/") {
				taken[sdk.prefix+" "+o] = true
				return ""
			}
		}
		return fmt.Sprintf("%s imports %s, which is for %s only: %s", from, to, strings.Join(sdk.only, ", "), sdk.reason)
	}
	return fmt.Sprintf("%s imports %s, which has no line in the import rule", from, to)
}

// isTestHelp: packages that only tests import may use less than they are
// allowed.
func isTestHelp(name string) bool { return strings.HasSuffix(name, "test") }

func allowed(from, to string, used map[permission]bool) bool {
	ok := false
	for _, r := range permissions {
		if !covers(r.from, from) || r.to != "*" && r.to != to {
			continue
		}
		used[r] = true
		ok = true
	}
	return ok || strings.HasPrefix(to, from+"/") && from != "agent" && isTestHelp(from)
}

// covers says whether a pattern of the table stands for a package.
func covers(pattern, name string) bool {
	if rest, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(name, rest+"/")
	}
	return pattern == name
}
