package mqtt

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
)

// TestValidate: every fault is reported at once, with the key's path.
func TestValidate(t *testing.T) {
	c := config("127.0.0.1:1883", topic("a/#", 1, "telemetry", "{topic}"))
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.Name = "a b"
	c.URL = "mqtt://user:secret@host"
	c.ClientID = strings.Repeat("x", 300)
	c.KeepAlive, c.ConnectTimeout = 0, value.Duration(time.Hour)
	c.MaxInflight, c.MaxMessageBytes = 0, 11<<20
	c.Retry = value.Backoff{}
	c.TLS = TLSConfig{CertFile: "only.pem"}
	c.Topics = append(c.Topics, topic("a/#/b", 3, "", "{topc}"), topic("a+", 0, "with space", "{topic"), Topic{})
	err := c.Validate()
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{
		"name: ", "url: it has a user in it; use username and password", "client_id: 300 bytes are over", "keep_alive: 0s is not between 1s and 1h",
		"connect_timeout: 1h0m0s is not between", "max_inflight: 0 is not between 1 and 30000", "max_message_bytes: 11MiB is not between 1KiB and 10MiB",
		"retry: min", "tls: cert_file and key_file go together", "tls: the url is mqtt://",
		`topics[1].filter: in "a/#/b" the # must be`, "topics[1].qos: 3 is not", "topics[1].stream: missing", "topics[1].partition_key: placeholder {topc} is not one of",
		`topics[2].filter: in "a+" a + must be`, "topics[2].stream: ", "topics[2].partition_key: the { in", "topics[3].filter: missing", "topics[3].partition_key: missing",
	} {
		if !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("no line begins with %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("a fault shows the password")
	}
}

func TestURL(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://h": "mqtt://h:1883", "tcp://h:9": "mqtt://h:9", "mqtts://h": "mqtts://h:8883", "ssl://[::1]": "mqtts://[::1]:8883", "tls://h:1": "mqtts://h:1",
		"": "missing", "http://h": "scheme", "mqtt://": "no host", "mqtt://h:port": "not an address", "h:1883": "scheme",
	} {
		u, err := parseURL(in)
		if err == nil && u.String() != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", in, u, err)
		}
	}
}
