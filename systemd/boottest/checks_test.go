//go:build boot

package boottest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/agent/api"
)

// checks are made one after the other on one machine, on which the package has
// been installed and configured with testdata/weir.yaml. A part of weir that
// is new is added there, and its check here, before the stop.
var checks = []struct {
	name string
	run  func(*machine)
}{
	{"verify", checkVerify},
	{"exposure", checkExposure},
	{"secrets", checkSecrets},
	{"mqtt", checkMQTT},
	{"broker", checkBroker},
	{"http", checkHTTP},
	{"query", checkQuery},
	{"uplink", checkUplink},
	{"status", checkStatus},
	{"boot id", checkBootID},
	{"clock", checkClock},
	{"memory", checkMemory},
	{"reload", checkReload},
	{"stop", checkStop},
	{"camera", checkCamera},
}

// TestService installs the package and looks at the running unit.
func TestService(t *testing.T) {
	m := newMachine(t)
	m.boot()
	m.run("dpkg", "-i", "/root/old.deb")
	m.configure()
	m.run("systemctl", "restart", "weir")
	// It is Type=notify: systemctl returned when weir was ready.
	if got := m.property("ActiveState") + " " + m.property("NRestarts"); got != "active 0" {
		t.Fatalf("the unit is %q\n%s", got, m.journal())
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			outer := m.t
			m.t = t
			defer func() { m.t = outer }()
			c.run(m)
		})
	}
}

func checkVerify(m *machine) {
	if out, err := m.feed("", "sh", "-c", "systemd-analyze verify weir.service 2>&1"); err != nil || strings.Contains(out, "weir") {
		m.t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// checkExposure: at most 1.5 on systemd's scale, with the camera's drop-in too.
func checkExposure(m *machine) {
	const dropIn = "/etc/systemd/system/weir.service.d/weir-camera.conf"
	for _, step := range []string{"true", "cp /usr/share/weir/weir-camera.conf " + dropIn} {
		m.run("sh", "-c", step)
		out, err := m.try("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", "weir.service")
		if err != nil {
			m.t.Errorf("after %s: %v\n%s", step, err, out)
		}
		last := strings.Split(out, "\n")
		m.t.Log(last[len(last)-1])
	}
	m.run("rm", dropIn)
}

// checkSecrets: nobody but root and the unit reads what is secret.
func checkSecrets(m *machine) {
	for _, path := range []string{"/etc/weir/weir.yaml", "/etc/weir/mqtt.pass", "/etc/weir/mqtt-users.yaml", "/var/lib/weir/meta"} {
		if _, err := m.try("test", "-e", path); err != nil {
			m.t.Fatal(err)
		}
		for _, user := range []string{"nobody", "mosquitto"} {
			if _, err := m.try("setpriv", "--reuid", user, "--regid", "nogroup", "--init-groups", "test", "-r", path); err == nil {
				m.t.Errorf("%s can read %s", user, path)
			}
		}
	}
	if got := m.run("stat", "-c", "%a %U %G", "/etc/weir", "/etc/weir/weir.yaml"); got != "2750 root weir-config\n640 root weir-config" {
		m.t.Errorf("modes are %s", got)
	}
	if journal := m.journal(); strings.Contains(journal, password) {
		m.t.Error("the journal has a password")
	}
}

// publish sends messages n, n+1, … n+count-1 and returns when the broker has
// them all.
func (m *machine) publish(n, count int) {
	m.t.Helper()
	var lines strings.Builder
	for i := n; i < n+count; i++ {
		fmt.Fprintf(&lines, "{\"n\":%d}\n", i)
	}
	if _, err := m.feed(lines.String(), "mosquitto_pub", "-h", "127.0.0.1", "-u", "weir", "-P", password, "-q", "1", "-l", "-t", "sensors/boiler/temperature"); err != nil {
		m.t.Fatal(err)
	}
}

// stored returns the messages in the log, in its order.
func (m *machine) stored() []string {
	m.t.Helper()
	out, err := m.try("weir", "tail", "telemetry", "--from", "trim-horizon", "--raw")
	if err != nil || out == "" {
		return nil // not there yet
	}
	return strings.Split(out, "\n")
}

// complete wants messages 0 to count-1, each once and in order.
func complete(t *testing.T, where string, list []string, count int) {
	t.Helper()
	var want []string
	for i := range count {
		want = append(want, fmt.Sprintf(`{"n":%d}`, i))
	}
	if !slices.Equal(list, want) {
		t.Errorf("%s: %d messages, not the %d that were published in their order", where, len(list), count)
	}
}

const published = 500

func checkMQTT(m *machine) {
	m.publish(0, published)
	m.until(20*time.Second, "all messages are in the log", func() bool { return len(m.stored()) >= published })
	complete(m.t, "in the log", m.stored(), published)
}

// checkBroker: a device of the users file publishes to weir itself, another one
// and another topic are refused.
func checkBroker(m *machine) {
	publish := func(user, topic string) error {
		_, err := m.feed("{\"device\":\"press-7\"}\n", "mosquitto_pub", "-h", "127.0.0.1", "-p", "1884", "-V", "5", "-i", "press-7",
			"-u", user, "-P", password, "-q", "1", "-l", "-t", topic)
		return err
	}
	if err := publish("press-7", "devices/press-7/state"); err != nil {
		m.t.Fatal(err)
	}
	if got := m.run("weir", "tail", "devices", "--from", "trim-horizon", "--raw"); got != `{"device":"press-7"}` {
		m.t.Errorf("the log holds %q", got)
	}
	if err := publish("press-8", "devices/press-8/state"); err == nil {
		m.t.Error("a user that is not in the file publishes")
	}
	_ = publish("press-7", "devices/press-8/state") // mosquitto_pub 2.0.11 ends with 0 whatever PUBACK says
	for _, s := range m.status().Sources {
		if s.Type == "broker" && (s.Refused < 2 || s.Appended != 1) {
			m.t.Errorf("%d refused, %d appended", s.Refused, s.Appended)
		}
	}
}

// checkHTTP: a record that is posted is in the log when the answer comes.
func checkHTTP(m *machine) {
	client := http.Client{Transport: &http.Transport{DialContext: m.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Post("http://127.0.0.1:8081/v1/streams/devices/records", "application/json", strings.NewReader(`{"device":"press-9"}`))
	if err != nil {
		m.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		m.t.Fatalf("%v, %s", err, resp.Status)
	}
	if got := m.run("weir", "tail", "devices", "--from", "trim-horizon", "--raw"); !strings.HasSuffix(got, `{"device":"press-9"}`) {
		m.t.Errorf("the log holds %q", got)
	}
}

// checkQuery: each message counts in one row.
func checkQuery(m *machine) {
	m.until(20*time.Second, "every message is in a row", func() bool {
		out, err := m.try("weir", "tail", "counts", "--from", "trim-horizon", "--raw")
		sum := 0
		for line := range strings.Lines(out) {
			var row struct {
				N int `json:"n"`
			}
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				m.t.Fatal(err)
			}
			sum += row.N
		}
		return err == nil && sum == published
	})
}

func checkUplink(m *machine) {
	conn, err := nats.Connect("nats://127.0.0.1:4222", nats.SetCustomDialer(m), nats.UserInfo("weir", password))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		m.t.Fatal(err)
	}
	var list []string
	m.until(20*time.Second, "all messages are at the centre", func() bool {
		list = centre(m.t, js)
		return len(list) >= published
	})
	complete(m.t, "at the centre", list, published)
}

// centre returns what the centre has by now.
func centre(t *testing.T, js jetstream.JetStream) []string {
	t.Helper()
	c, err := js.OrderedConsumer(t.Context(), "WEIR", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(2*published, jetstream.FetchMaxWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for msg := range batch.Messages() {
		list = append(list, string(msg.Data()))
	}
	return list
}

func (m *machine) status() api.Status {
	m.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(m.run("weir", "status", "--json")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// checkStatus: everything is healthy, and the sandbox lets weir see the
// machine's interfaces.
func checkStatus(m *machine) {
	s := m.status()
	if !s.Health.OK || len(s.Sources) != 3 || len(s.Queries) != 1 || len(s.Sinks) != 1 || len(s.Cameras) != 1 {
		m.t.Errorf("health %+v, %d sources, %d sinks, %d cameras", s.Health, len(s.Sources), len(s.Sinks), len(s.Cameras))
	}
	seen := ""
	for _, i := range s.Network.Interfaces {
		if i.Name == "lo" && i.Up && i.Loopback {
			seen = strings.Join(i.Addresses, " ")
		}
	}
	if !strings.Contains(seen, "127.0.0.1/8") || s.Network.Error != "" {
		m.t.Errorf("the network is seen as %+v", s.Network)
	}
	if m.metric("weir_log_commits_total") == 0 {
		m.t.Error("metrics do not know the commits")
	}
}

// metric returns a figure of /metrics; it must be there.
func (m *machine) metric(name string) float64 {
	m.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: m.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://127.0.0.1:8080/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); err != nil || closeErr != nil || resp.StatusCode != http.StatusOK {
		m.t.Fatalf("metrics: %v, %v, %s", err, closeErr, resp.Status)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				m.t.Fatal(err)
			}
			return value
		}
	}
	m.t.Fatalf("there is no metric %s", name)
	return 0
}

// checkBootID: the sandbox hides it, the unit passes it in.
func checkBootID(m *machine) {
	want := "WEIR_BOOT_ID=" + strings.ReplaceAll(m.run("cat", "/proc/sys/kernel/random/boot_id"), "-", "")
	if environment := m.run("sh", "-c", "tr '\\0' '\\n' </proc/"+m.property("MainPID")+"/environ"); !slices.Contains(strings.Split(environment, "\n"), want) {
		m.t.Errorf("there is no %s in the environment", want)
	}
}

// checkClock: weir cannot ask the kernel, and learns it from timesyncd's file.
func checkClock(m *machine) {
	if m.status().Node.ClockSet {
		m.t.Error("the clock counts as synchronized although nobody said so")
	}
	m.run("mkdir", "-p", "-m", "0755", "/run/systemd/timesync")
	m.run("touch", "/run/systemd/timesync/synchronized")
	m.until(20*time.Second, "the clock counts as synchronized", func() bool { return m.status().Node.ClockSet })
}

// checkMemory: the kernel holds the unit to its limit and Go knows of it, from
// the unit and, without its word, from the cgroup that the sandbox shows.
func checkMemory(m *machine) {
	if got := m.property("MemoryMax"); got != strconv.Itoa(256<<20) {
		m.t.Errorf("MemoryMax is %s", got)
	}
	if got := m.metric("go_gc_gomemlimit_bytes"); got != 180<<20 {
		m.t.Errorf("Go's limit is %.0f", got)
	}
	m.write("/etc/systemd/system/weir.service.d/memory.conf", "[Service]\nMemoryMax=200M\nUnsetEnvironment=GOMEMLIMIT\n", 0o644)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "weir")
	if got, want := m.metric("go_gc_gomemlimit_bytes"), float64(200<<20)*0.75; got != want {
		m.t.Errorf("Go's limit from the cgroup is %.0f, not %.0f", got, want)
	}
	m.run("rm", "/etc/systemd/system/weir.service.d/memory.conf")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "weir")
}

// checkReload: SIGHUP reads the file that was edited, without a restart.
func checkReload(m *machine) {
	before := m.property("MainPID")
	text, err := os.ReadFile("testdata/weir.yaml")
	if err != nil {
		m.t.Fatal(err)
	}
	m.edit(strings.Replace(string(text), "streams:\n", "streams:\n  alerts: {retention: 7d}\n", 1))
	m.run("systemctl", "reload", "weir")
	m.until(10*time.Second, "the new stream is there", func() bool {
		return strings.Contains(m.run("weir", "streams", "list"), "alerts")
	})
	if got := m.property("MainPID"); got != before {
		m.t.Error("weir was started anew")
	}
}

// checkStop: within 10 s, in good order, and the records are still there.
func checkStop(m *machine) {
	began := time.Now()
	m.run("systemctl", "stop", "weir")
	took := time.Since(began)
	m.t.Logf("stopping took %s", took.Round(time.Millisecond))
	if took > 10*time.Second {
		m.t.Error("that is over 10 s")
	}
	if got := m.property("Result") + " " + m.property("ExecMainStatus"); got != "success 0" {
		m.t.Errorf("it ended with %s\n%s", got, m.journal())
	}
	m.run("systemctl", "start", "weir")
	complete(m.t, "in the log after a stop", m.stored(), published)
}

// checkCamera: the unit runs with the camera's drop-in.
func checkCamera(m *machine) {
	m.run("cp", "/usr/share/weir/weir-camera.conf", "/etc/systemd/system/weir.service.d/")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "weir")
	if got := m.metric("go_gc_gomemlimit_bytes"); got != 360<<20 {
		m.t.Errorf("Go's limit is %.0f", got)
	}
	if s := m.status(); !s.Health.OK {
		m.t.Errorf("health %+v", s.Health)
	}
}
