package http

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-edge/weir/configs/value"
)

// TestConfig: every fault is told with its place and what would be right.
func TestConfig(t *testing.T) {
	for _, test := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) {}, ""},
		{func(c *Config) { c.Name = "a b" }, "name: invalid"},
		{func(c *Config) { c.Listen = "8081" }, `listen: "8081" is not an address; write it as 127.0.0.1:8081`},
		{func(c *Config) { c.Listen = "127.0.0.1:http" }, `listen: port "http" is not between 0 and 65535`},
		{func(c *Config) { c.Listen = ":8081" }, "listen: :8081 is reachable from other machines; set clients with tokens or tls.client_ca_file, or listen on 127.0.0.1"},
		{func(c *Config) { c.Listen = "[::]:8081" }, "listen: [::]:8081 is reachable"},
		{func(c *Config) { c.Listen = "[::1]:8081" }, ""},
		{func(c *Config) {
			c.Listen = "0.0.0.0:8081"
			c.Clients = []Client{{Name: "a", Token: value.NewSecret(token)}}
		}, ""},
		{func(c *Config) { c.Listen = "0.0.0.0:8081"; c.TLS = TLSConfig{"c", "k", "ca"} }, ""},
		{func(c *Config) { c.TLS.CertFile = "x" }, "tls: cert_file and key_file go together"},
		{func(c *Config) { c.TLS.ClientCAFile = "x" }, "tls.client_ca_file: needs cert_file and key_file"},
		{func(c *Config) { c.Streams = nil }, "streams: missing; name at least one"},
		{func(c *Config) { c.Streams = append(c.Streams, Stream{}) }, "streams[1].stream: missing"},
		{func(c *Config) { c.Streams = append(c.Streams, c.Streams[0]) }, "streams[1].stream: telemetry is here twice"},
		{func(c *Config) { c.Streams[0].Stream = "a/b" }, "streams[0].stream: invalid"},
		{func(c *Config) { c.Streams[0].PartitionKey = "{topic}" }, "streams[0].partition_key: placeholder {topic} is not one of {json.FIELD}, {client}"},
		{func(c *Config) { c.Streams[0].PartitionKey = "a{" }, `streams[0].partition_key: the { in "a{" has no }`},
		{func(c *Config) { c.Streams[0].PartitionKey = "{json.}" }, "streams[0].partition_key: placeholder {json.}"},
		{func(c *Config) { c.Streams[0].PartitionKey = "{client}" }, "streams[0].partition_key: {client} needs clients or tls.client_ca_file"},
		{func(c *Config) { c.Clients = []Client{{}} }, "clients[0].name: missing; name the client\nclients[0].token: missing; set one"},
		{func(c *Config) { c.Clients = []Client{{Name: "a", Token: value.NewSecret("short")}} }, "clients[0].token: has 5 characters; use at least 16"},
		{func(c *Config) {
			c.Clients = []Client{{Name: "a", Token: value.NewSecret(token)}, {Name: "b", Token: value.NewSecret(token)}}
		}, "clients[1].token: it is the same as that of client a"},
		{func(c *Config) {
			c.Clients = []Client{{Name: "a", Token: value.NewSecret(token)}, {Name: "a", Token: value.NewSecret(token + "x")}}
		}, "clients[1].name: a is here twice"},
		{func(c *Config) {
			c.Clients = []Client{{Name: "a", Token: value.NewSecret(token), Streams: []string{"telemetry", "x"}}}
		}, `clients[0].streams[1]: "x" is not one of this source's streams`},
		{func(c *Config) { c.Clients = []Client{{Name: "a\n", Token: value.NewSecret(token)}} }, "clients[0].name: it has a control character"},
		{func(c *Config) { c.Clients = []Client{{Name: strings.Repeat("x", 129), Token: value.NewSecret(token)}} }, "clients[0].name: 129 bytes"},
		{func(c *Config) { c.Clients = []Client{{Name: "a"}}; c.TLS = TLSConfig{"c", "k", "ca"} }, ""},
		{func(c *Config) { c.MaxBodyBytes = 17 << 20 }, "max_body_bytes: 17MiB is not between 1KiB and 16MiB"},
		{func(c *Config) { c.MaxInflightBytes = 1 << 20 }, "max_inflight_bytes: 1MiB is not between max_body_bytes (8MiB) and 1GiB"},
		{func(c *Config) { c.MaxConnections = 10_001 }, "max_connections: 10001 is not between 1 and 10000"},
		{func(c *Config) { c.MaxConnectionsPerAddress = 257 }, "max_connections_per_address: 257 is not between 1 and max_connections (256)"},
		{func(c *Config) { c.RequestTimeout = 0 }, "request_timeout: 0s is not between 1s and 10m"},
	} {
		c := DefaultConfig()
		c.Streams = []Stream{{Stream: "telemetry"}}
		test.change(&c)
		err := c.Validate()
		if err == nil != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
		if _, err := New(c, nil, nil); (err == nil) != (test.want == "") {
			t.Errorf("New with %s: %v", test.want, err)
		}
	}
}

// TestExposed: what is allowed and unwise is said, and tokens never are.
func TestExposed(t *testing.T) {
	c := open()
	if w := c.Warnings(); w != nil {
		t.Errorf("warnings: %v", w)
	}
	c.Listen = "0.0.0.0:0"
	c.Clients = []Client{{Name: "plc", Token: value.NewSecret(token)}}
	if w := c.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "listen: 0.0.0.0:0 is reachable from other machines and not encrypted") {
		t.Errorf("warnings: %v", w)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, token) {
			t.Errorf("%s prints the token: %s", verb, text)
		}
	}
	s, err := New(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %+v", s.clients, s.Status()); strings.Contains(text, token) {
		t.Errorf("the source prints the token: %s", text)
	}
}
