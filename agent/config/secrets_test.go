package config_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-edge/weir/agent/config"
)

const withSecrets = `
node: {id: "gw-${WEIR_TEST_NUMBER}"}
buffer: {dir: "/var/$${lib}/$weir", max_bytes: "${WEIR_TEST_NUMBER}GiB"}
streams: {telemetry: {shards: "${WEIR_TEST_NUMBER}"}}
ingest:
  mqtt:
    - url: mqtt://192.0.2.1
      username: weir
      password: "${file:%s}"
      topics: [{filter: "#", stream: telemetry}]
api: {token: "${WEIR_TEST_TOKEN}"}
`

// TestSecrets: placeholders stand for what they name when the configuration is
// to be run, and need not exist when it is only checked.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	pass := write(t, filepath.Join(dir, "pass"), "hunter2 \r\n", 0o600)
	cfg := parse(t, fmt.Sprintf(withSecrets, pass), config.Options{Secrets: true})
	got := fmt.Sprintf("%s %s %s %d %q %s", cfg.Node.ID, cfg.Buffer.Dir, cfg.Buffer.MaxBytes, cfg.Streams["telemetry"].Shards,
		cfg.Ingest.MQTT[0].Password.Reveal(), cfg.API.Token.Reveal())
	if want := `gw-3 /var/${lib}/$weir 3GiB 3 "hunter2 " 0123456789abcdef`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
	text := fmt.Sprintf(strings.ReplaceAll(withSecrets, "WEIR_TEST_", "WEIR_NOT_SET_"), "/nonexistent/pass")
	cfg = parse(t, text, config.Options{})
	if cfg.Ingest.MQTT[0].Password.Reveal() != "${file:/nonexistent/pass}" || cfg.Node.ID != "gw-${WEIR_NOT_SET_NUMBER}" {
		t.Errorf("unresolved they are %q and %q", cfg.Ingest.MQTT[0].Password.Reveal(), cfg.Node.ID)
	}
	if faults := refuse(t, text, config.Options{Secrets: true}); strings.Count(faults, "WEIR_NOT_SET") != 4 || !strings.Contains(faults, "weir.yaml:9: ingest.mqtt[0].password: read file /nonexistent/pass: no such file") {
		t.Errorf("the faults are\n%s", faults)
	}
	// What is not known is not judged, and what is known still is.
	text = strings.NewReplacer("S", "'${WEIR_NOT_SET}'").Replace(`
node: {id: S}
buffer: {dir: S, max_bytes: S}
streams: {telemetry: {on_full: S, compression: S, retention: S, shards: S}, alerts: {shards: 0}}
ingest: {mqtt: [{name: S, url: S, topics: [{filter: "#", stream: S, partition_key: S}]}, {name: S, url: S, topics: [{filter: a, stream: b}]}]}
uplink: [{name: S, type: nats, url: S, streams: [S], subject: S, token: S}]
video: {cameras: [{name: S, url: S, codec: S, allow: [S]}]}
api: {listen: S, token: S}
`)
	if faults := refuse(t, text, config.Options{}); faults != "weir.yaml:4: streams.alerts.shards: 0 is not between 1 and 64" {
		t.Errorf("the faults are\n%s", faults)
	}
	if _, err := config.Parse("weir.yaml", []byte("buffer: {dir: '${HOME}'}"), config.Options{Secrets: true}); (err == nil) != (os.Getenv("HOME") != "") {
		t.Errorf("the process' environment is not asked: %v", err)
	}
}

// TestSecretFiles: what is no file of a secret is refused.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\n", 0o600)
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", 64<<10+1), 0o600)
	write(t, filepath.Join(dir, "nul"), "hunter2\x00", 0o600)
	write(t, filepath.Join(dir, "good"), "hunter2hunter2hunter2", 0o640)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := func(name string) (string, bool) { return dir, name == "CREDENTIALS_DIRECTORY" }
	for name, want := range map[string]string{
		"empty": "it is empty", "large": "larger than 64KiB", "fifo": "not a regular file", ".": "not a regular file",
		"nul": "a secret must not contain a NUL byte", "none": "no such file or directory", "good": "",
	} {
		text := "buffer: {dir: d}\napi: {token: '${file:${CREDENTIALS_DIRECTORY}/" + name + "}'}\n"
		cfg, err := config.Parse("weir.yaml", []byte(text), config.Options{Secrets: true, LookupEnv: environment})
		if want == "" {
			if err != nil || cfg.API.Token.Reveal() != "hunter2hunter2hunter2" || len(cfg.Warnings) > 0 {
				t.Errorf("%s gives %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "weir.yaml:2: api.token: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s gives %v; want %s", name, err, want)
		}
	}
}

// TestReadableByOthers: a secret that others can read is a warning.
func TestReadableByOthers(t *testing.T) {
	dir := t.TempDir()
	pass := write(t, filepath.Join(dir, "pass"), "hunter2hunter2hunter2", 0o644)
	main := write(t, filepath.Join(dir, "weir.yaml"), "buffer: {dir: d}\napi: {token: '${file:"+pass+"}'}\n", 0o644)
	cfg, err := config.Load(main, config.Options{Secrets: true})
	if err != nil {
		t.Fatal(err)
	}
	want := main + ":2: api.token: every user of this machine can read " + pass + "; chmod 600 it"
	if len(cfg.Warnings) != 1 || cfg.Warnings[0].String() != want {
		t.Errorf("warnings are %v, want %s", cfg.Warnings, want)
	}
	main = write(t, main, "buffer: {dir: d}\napi: {token: hunter2hunter2hunter2}\n", 0o644)
	if cfg, err = config.Load(main, config.Options{}); err != nil {
		t.Fatal(err)
	}
	want = main + ":2: api.token: every user of this machine can read this secret; chmod 600 " + main
	if len(cfg.Warnings) != 1 || cfg.Warnings[0].String() != want {
		t.Errorf("warnings are %v, want %s", cfg.Warnings, want)
	}
	write(t, main, "buffer: {dir: d}\napi: {token: hunter2hunter2hunter2}\n", 0o600)
	if cfg, err = config.Load(main, config.Options{}); err != nil || len(cfg.Warnings) > 0 {
		t.Errorf("warnings are %v, %v", cfg.Warnings, err)
	}
}

// TestNoSecretIsTold puts a secret at every place of a configuration where text
// is taken and reads all that is printed of it.
func TestNoSecretIsTold(t *testing.T) {
	places := []string{
		"node: {id: SECRET}", "node: {labels: {site: SECRET}}", "buffer: {dir: SECRET}", "buffer: {max_bytes: SECRET}",
		"buffer: {commit: {max_delay: SECRET}}", "streams: {a: {shards: SECRET, on_full: SECRET, compression: SECRET, retention: SECRET}}",
		"ingest: {mqtt: [{name: SECRET, url: SECRET, client_id: SECRET, username: SECRET, password: SECRET, keep_alive: SECRET, clean_session: SECRET, max_inflight: SECRET, topics: [{filter: SECRET, stream: SECRET, qos: SECRET, partition_key: SECRET}]}]}",
		"ingest: {mqtt: [{url: URL, topics: [{filter: a, stream: b}]}, {url: URL}]}",
		"video: {cameras: [{name: SECRET, url: SECRET, codec: SECRET, allow: [SECRET], sps: SECRET, pps: SECRET}, {name: SECRET, url: URL}]}",
		"uplink: [{name: SECRET, type: nats, url: SECRET, streams: [SECRET, SECRET], subject: SECRET, create: SECRET, token: SECRET, user: SECRET, tls: {cert_file: SECRET}}, {name: SECRET, type: nats, url: URL}, {type: SECRET}]",
		"api: {listen: SECRET, token: SECRET, tls: {cert: SECRET, client_ca: SECRET}}", "api: SECRET", "streams: SECRET", "uplink: [SECRET]",
	}
	alphabet := []rune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ~`%@:/\"'\\{}$#?&=+äß€\x00\n\t")
	rapid.Check(t, func(t *rapid.T) {
		// A run of letters that stands nowhere else tells whether the secret is seen.
		secret := "qZx7" + rapid.StringOfN(rapid.SampledFrom(alphabet), 0, 200, -1).Draw(t, "secret") + "qZx7"
		place := rapid.SampledFrom(places).Draw(t, "place")
		text := strings.NewReplacer("SECRET", `"${S}"`, "URL", `"mqtt://user:${S}@192.0.2.1"`).Replace(place)
		if !strings.HasPrefix(place, "buffer") {
			text += "\nbuffer: {dir: d}"
		}
		cfg, err := config.Parse("weir.yaml", []byte(text), config.Options{Secrets: true, LookupEnv: func(string) (string, bool) { return secret, true }})
		shown := ""
		if err != nil {
			shown = err.Error()
		} else {
			redacted, err := cfg.Redacted()
			if err != nil {
				t.Fatal(err)
			}
			shown = string(redacted) + fmt.Sprint(cfg.Warnings)
		}
		quoted := strconv.Quote(secret)
		for _, form := range []string{secret, quoted[1 : len(quoted)-1], url.QueryEscape(secret), url.PathEscape(secret), "qZx7"} {
			if strings.Contains(shown, form) {
				t.Fatalf("%q shows in\n%s", form, shown)
			}
		}
		if slices.Contains(strings.Split(shown, "\n"), "") && err != nil {
			t.Fatalf("an empty line in\n%s", shown)
		}
	})
}

// TestRedacted: the dump has every default and no secret, and is itself a
// configuration that says the same.
func TestRedacted(t *testing.T) {
	pass := write(t, filepath.Join(t.TempDir(), "pass"), "hunter2", 0o600)
	cfg := parse(t, fmt.Sprintf(withSecrets, pass)+`
uplink:
  - {name: central, type: nats, url: nats://192.0.2.1, user: u, password: hunter2, streams: [telemetry]}
video: {cameras: [{name: "1", url: "rtp://127.0.0.1:0", sps: "", allow: ["::1"]}]}
`, config.Options{Secrets: true})
	text, err := cfg.Redacted()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"hunter2", "0123456789abcdef"} {
		if strings.Contains(string(text), bad) {
			t.Errorf("%s shows in\n%s", bad, text)
		}
	}
	for _, want := range []string{"password: '***'", "password: ${file:" + pass + "}", "token: ${WEIR_TEST_TOKEN}", "partition_key: '{topic}'", "max_delay: 50ms", "id: gw-${WEIR_TEST_NUMBER}"} {
		if !strings.Contains(strings.ReplaceAll(string(text), `"`, "'"), want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	again, err := parse(t, string(text), config.Options{Secrets: true}).Redacted()
	if err != nil || string(again) != string(text) {
		t.Errorf("of\n%s\nit makes\n%s\n%v", text, again, err)
	}
}
