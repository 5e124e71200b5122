package config_test

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse must succeed.
func parse(t *testing.T, text string, o config.Options) *config.Config {
	t.Helper()
	o.LookupEnv = environment
	cfg, err := config.Parse("weir.yaml", []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// refuse returns the faults, which there must be.
func refuse(t *testing.T, text string, o config.Options) string {
	t.Helper()
	o.LookupEnv = environment
	_, err := config.Parse("weir.yaml", []byte(text), o)
	var faults config.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("%s\nis refused with %v", text, err)
	}
	checkFaults(t, faults, text)
	return faults.Error()
}

func write(t *testing.T, path, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// TestGoodFile: the sample, cut to what is supported, says what it says, and
// what it does not say has its default.
func TestGoodFile(t *testing.T) {
	cfg, err := config.Load("testdata/good.yaml", config.Options{Secrets: true})
	if err != nil {
		t.Fatal(err)
	}
	topic := cfg.Ingest.MQTT[0].Topics[0]
	got := fmt.Sprint(
		cfg.Node.ID, cfg.Node.Labels, "\n", cfg.Buffer.Dir, " ", cfg.Buffer.MaxBytes, " ", cfg.Buffer.ReserveBytes, " ",
		cfg.Buffer.MaxRecordBytes, " ", cfg.Buffer.Commit.MaxDelay, " ", cfg.Buffer.Commit.MaxBytes, "\n",
		cfg.Streams["telemetry"], "\n", cfg.Streams["alerts"], "\n",
		cfg.Ingest.MQTT[0].Name, " ", cfg.Ingest.MQTT[0].URL, " ", cfg.Ingest.MQTT[0].ClientID, " ", cfg.Ingest.MQTT[0].KeepAlive, "\n",
		topic.Filter, " ", topic.QoS, " ", topic.Stream, " ", topic.PartitionKey, "\n",
		cfg.Video.Cameras[0].Name, " ", cfg.Video.Cameras[0].URL, " ", cfg.Video.Cameras[0].Codec, " ", cfg.Video.Cameras[0].Retention, "\n",
		cfg.Uplink[0].Name, " ", cfg.Uplink[0].Type, " ", cfg.Uplink[0].Streams, " ", cfg.Uplink[0].Batch, " ", cfg.Uplink[0].Retry, " ",
		cfg.Uplink[0].NATS.URL, " ", cfg.Uplink[0].NATS.Subject, " ", cfg.Uplink[0].NATS.Create, " ", cfg.Uplink[0].NATS.MaxInflight, "\n",
		cfg.API.Listen,
	)
	want := `gw-17map[site:plant-3]
/var/lib/weir 20GiB 512MiB 1MiB 50ms 1MiB
{2 1d 0B drop_oldest 0 zstd data}
{1 7d 0B drop_oldest 9 none data}
plant mqtt://192.0.2.10:1883 gw-17 30s
sensors/+/+ 1 telemetry {topic[1]}
dock rtp://0.0.0.0:5004 h264 1d
central nats [telemetry alerts averages] {500 1MiB 1s} {500ms 1m0s} nats://central.example:4222 weir.{node}.{stream} WEIR 512
127.0.0.1:8080`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
}

// TestDefaults: the smallest configuration.
func TestDefaults(t *testing.T) {
	cfg := parse(t, "buffer: {dir: d}\nstreams:\n  telemetry:\ningest:\nuplink:\n", config.Options{})
	if want := buffer.DefaultStreamConfig(buffer.Data); cfg.Streams["telemetry"] != want {
		t.Errorf("an empty stream is %+v", cfg.Streams["telemetry"])
	}
	if cfg.Node.ID == "" || strings.ContainsFunc(cfg.Node.ID, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", r)
	}) {
		t.Errorf("the node is named %q", cfg.Node.ID)
	}
	if cfg.API.Listen != "127.0.0.1:8080" {
		t.Errorf("the api listens on %s", cfg.API.Listen)
	}
}

// TestScalars: what looks like another type is taken as it is written.
func TestScalars(t *testing.T) {
	cfg := parse(t, `
node: {id: 0123}
buffer: {dir: "/var/lib/weir # not a comment", max_record_bytes: 4096}
streams: {1: {shards: "2"}, "true": {}}
ingest:
  mqtt:
    - url: mqtt://192.0.2.1
      password: 0x1F
      username: 1e3
      clean_session: True
      topics:
        - filter: >-
            sensors/#
          stream: telemetry
`, config.Options{Secrets: true})
	source := cfg.Ingest.MQTT[0]
	got := fmt.Sprint(cfg.Node.ID, "|", cfg.Buffer.Dir, "|", cfg.Buffer.MaxRecordBytes, "|", cfg.Streams["1"].Shards, "|", len(cfg.Streams), "|",
		source.Password.Reveal(), "|", source.Username, "|", source.CleanSession, "|", source.Topics[0].Filter)
	if want := "0123|/var/lib/weir # not a comment|4KiB|2|2|0x1F|1e3|true|sensors/#"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "nosuch.yaml"), config.Options{})
	var faults config.Faults
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &faults) {
		t.Errorf("the error is %v", err)
	}
	_, err = config.Load(t.TempDir(), config.Options{})
	if err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("the error is %v", err)
	}
	_, err = config.Load("testdata/good.yaml", config.Options{Dir: filepath.Join(t.TempDir(), "conf.d")})
	if !errors.As(err, &faults) || !strings.HasSuffix(err.Error(), "conf.d: read directory: no such file or directory") {
		t.Errorf("the error is %v", err)
	}
}

// TestDropIns: they come in the order of their names; mappings are merged,
// lists appended, single values replaced, and a fault names the right file.
func TestDropIns(t *testing.T) {
	dir := t.TempDir()
	main := write(t, filepath.Join(dir, "weir.yaml"), `
node: {id: a, labels: {site: one}}
buffer: {dir: d}
streams: {telemetry: {shards: 2}}
video:
  cameras: [{name: front, url: "rtp://127.0.0.1:5004"}]
`, 0o600)
	parts := filepath.Join(dir, "conf.d")
	if err := os.Mkdir(parts, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(parts, "20-later.yaml"), "node: {id: c}\nstreams: {telemetry: {priority: 3}}\n", 0o600)
	write(t, filepath.Join(parts, "10-camera.yaml"), `
node: {id: b, labels: {rack: two}}
streams: {alerts: {}}
video:
  cameras: [{name: back, url: "rtp://127.0.0.1:5006"}]
`, 0o600)
	write(t, filepath.Join(parts, "30-empty.yaml"), "# nothing\n", 0o600)
	write(t, filepath.Join(parts, ".hidden.yaml"), "nonsense", 0o600)
	write(t, filepath.Join(parts, "notes.txt"), "nonsense", 0o600)
	cfg, err := config.Load(main, config.Options{Dir: parts})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.Node, len(cfg.Streams), cfg.Streams["telemetry"].Shards, cfg.Streams["telemetry"].Priority, cfg.Video.Cameras[0].Name, cfg.Video.Cameras[1].Name)
	if want := "{c map[rack:two site:one]} 2 2 3frontback"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	bad := write(t, filepath.Join(parts, "40-bad.yaml"), "api: {lisen: x}\nvideo:\n  cameras:\n    - {name: front, url: \"rtp://127.0.0.1:5008\"}\n", 0o600)
	_, err = config.Load(main, config.Options{Dir: parts})
	want := bad + ":1: api.lisen: unknown key; did you mean listen?\n" + bad + `:4: video.cameras[2].name: "front" is the name of cameras[0] too`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	broken := write(t, filepath.Join(parts, "50-broken.yaml"), "video: [\n", 0o600)
	if _, err = config.Load(main, config.Options{Dir: parts}); err == nil || !strings.HasPrefix(err.Error(), broken+":1: not YAML: ") {
		t.Errorf("got %v", err)
	}
}

// TestHostile: files that are made to cost much are refused in no time, and the
// number of faults told is bounded.
func TestHostile(t *testing.T) {
	const size = 1 << 18 // of the 1 MiB allowed: the race detector is slow
	for name, text := range map[string]string{
		"large":          strings.Repeat("# comment\n", 200_000),
		"flow lists":     strings.Repeat("[", size),
		"flow mappings":  strings.Repeat("{a: ", size/4),
		"mixed":          strings.Repeat("[{a: ", size/5),
		"dashes":         strings.Repeat("- ", size/2),
		"explicit keys":  strings.Repeat("? ", size/2),
		"explicit lines": strings.Repeat("?\n", size/2),
		"colons":         strings.Repeat("a: ", size/3),
		"anchors":        strings.Repeat("&a ", size/3),
		"tags":           strings.Repeat("!a ", size/3),
		"aliases":        strings.Repeat("*a ", size/3),
		"directives":     strings.Repeat("%YAML 1.2\n", size/10),
		"documents":      strings.Repeat("---\n", size/4) + "a",
		"laughs":         laughs(),
		"many keys":      manyKeys(size / 13),
		"unknown keys":   manyKeys(9_999),
		"streams":        "streams:\n" + strings.ReplaceAll(manyKeys(9_998), "k", "  k/"),
		"cameras":        "video:\n  cameras:\n" + strings.Repeat("    - {}\n", 9_998),
		"elements":       "a: [" + strings.Repeat("b,", size/2-10) + "]",
		"quotes":         strings.Repeat(`"`, size),
		"escapes":        `a: "` + strings.Repeat(`\x`, size/2-3),
		"placeholders":   "buffer: {dir: '" + strings.Repeat("${", size/2-20) + "'}",
		"one key":        strings.Repeat("k", size-1) + ":",
		"indentation":    staircase(1000),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := config.Parse("weir.yaml", []byte(text), config.Options{})
			var faults config.Faults
			if !errors.As(err, &faults) || len(faults) > 501 {
				t.Fatalf("%d faults; %.100v", len(faults), err)
			}
			checkFaults(t, faults, text)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// laughs would be a billion scalars if aliases were expanded.
func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), i)
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%06d: {}\n", i)
	}
	return b.String()
}

func staircase(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// TestEveryFieldCanBeSet: there is no field in any package's configuration of
// a kind that the loader does not know, and none without a key.
func TestEveryFieldCanBeSet(t *testing.T) {
	text := reflect.TypeFor[encoding.TextUnmarshaler]()
	seen := 0
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		if reflect.PointerTo(typ).Implements(text) {
			seen++
			return
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(path+"[]", typ.Elem())
		case reflect.Map:
			if typ.Key().Kind() != reflect.String {
				t.Errorf("%s is a map with keys of %s", path, typ.Key())
			}
			walk(path+"[]", typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				if tag := f.Tag.Get("yaml"); f.IsExported() && tag == "" {
					t.Errorf("%s.%s has no key", path, f.Name)
				} else if f.IsExported() && tag != "-" {
					walk(path+"."+f.Name, f.Type)
				}
			}
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
			seen++
		default:
			t.Errorf("%s is of kind %s", path, typ.Kind())
		}
	}
	walk("Config", reflect.TypeFor[config.Config]())
	if seen < 50 {
		t.Errorf("only %d fields were seen", seen)
	}
}

// TestOpenListenersWarn: passwords and tokens that travel in the clear are told.
func TestOpenListenersWarn(t *testing.T) {
	cfg := parse(t, `node: {id: gw-1}
buffer: {dir: /var/lib/weir}
ingest:
  broker: {listen: "tcp://0.0.0.0:1883", users_file: users.yaml, topics: [{filter: "a/#", stream: s}]}
  http: {listen: "0.0.0.0:8081", clients: [{name: a, token: "${TOKEN}"}], streams: [{stream: s}]}
`, config.Options{})
	var paths []string
	for _, w := range cfg.Warnings {
		paths = append(paths, w.Path)
	}
	if !slices.Equal(paths, []string{"ingest.broker.listen", "ingest.http.listen"}) {
		t.Errorf("warnings are %v", cfg.Warnings)
	}
}
