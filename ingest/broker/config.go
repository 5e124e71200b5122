package broker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/message"
)

// Config is the `ingest.broker:` section.
type Config struct {
	// Name tells sources apart, in status, metrics and on records. Default
	// broker.
	Name string `yaml:"name"`
	// Listen is tcp://HOST:PORT, or tls://HOST:PORT for TLS. Default
	// tcp://127.0.0.1:1883: only this machine. Anything off loopback needs
	// UsersFile or TLS.ClientCAFile.
	Listen string `yaml:"listen"`
	// UsersFile has names, hashes of passwords and topics (weir passwd keeps it).
	// Default: none; then everybody on this machine may do everything.
	UsersFile string `yaml:"users_file"`
	// TLS names files of PEM for tls://.
	TLS TLSConfig `yaml:"tls"`
	// Topics say which messages become records, and where. A message goes where
	// the first of them that matches says; one that matches none is passed on
	// to subscribers only. No default.
	Topics []Topic `yaml:"topics"`
	// MaxClients at once. Default 1200: a thousand devices and those who watch,
	// about 11 KiB each while idle. 1 to 50000.
	MaxClients int `yaml:"max_clients"`
	// MaxClientsPerAddress at once of one IPv4 address or IPv6 /64. Default 0:
	// as many as MaxClients, for devices behind one NAT are common.
	MaxClientsPerAddress int `yaml:"max_clients_per_address"`
	// MaxPacketBytes of what a client sends. Default 1MiB, as a record; 1KiB to
	// 10MiB.
	MaxPacketBytes value.Bytes `yaml:"max_packet_bytes"`
	// MaxInflight messages of one client are taken before the first of them is
	// acknowledged; then nothing more is read from it. Default 256: 5,000
	// messages a second at a commit each 50 ms. 1 to 10000.
	MaxInflight int `yaml:"max_inflight"`
	// MaxQueued messages wait for one subscriber that is away or slow. Default
	// 1000. 1 to 100000.
	MaxQueued int `yaml:"max_queued"`
	// MaxQueuedBytes of messages wait for all subscribers together. Default
	// 16MiB. 64KiB to 1GiB.
	MaxQueuedBytes value.Bytes `yaml:"max_queued_bytes"`
	// MaxSubscriptions of one client. Default 100. 1 to 10000.
	MaxSubscriptions int `yaml:"max_subscriptions"`
	// MaxRetained messages, and their bytes. Default 10000 and 16MiB.
	MaxRetained      int         `yaml:"max_retained"`
	MaxRetainedBytes value.Bytes `yaml:"max_retained_bytes"`
	// MaxSessions are kept for clients, connected or away. Default 10000. 1 to
	// 100000.
	MaxSessions int `yaml:"max_sessions"`
	// SessionExpiry is the longest that a session is kept for a client that is
	// away; MQTT 3.1.1 clients that do not clean it have this. Default 168h (7d).
	// 1m to 8760h.
	SessionExpiry value.Duration `yaml:"session_expiry"`
	// ConnectTimeout for TLS and CONNECT together. Default 5s. 100ms to 1m.
	ConnectTimeout value.Duration `yaml:"connect_timeout"`
	// MaxKeepAlive: a client that wants a longer one, or none, gets this
	// (MQTT 5), or is ended after 1.5 times this without a sign of life
	// (MQTT 3.1.1). Default 20m. 10s to 18h.
	MaxKeepAlive value.Duration `yaml:"max_keep_alive"`
}

// TLSConfig names files of PEM, read when the broker starts.
type TLSConfig struct {
	CertFile string `yaml:"cert_file"` // the broker's chain
	KeyFile  string `yaml:"key_file"`
	// ClientCAFile refuses clients without a certificate signed by it; the
	// certificate's common name is the user. Default: none.
	ClientCAFile string `yaml:"client_ca_file"`
}

// Topic maps a filter to a stream.
type Topic struct {
	// Filter as MQTT has it, with + and #. No default.
	Filter string `yaml:"filter"`
	// Stream the messages go to. No default.
	Stream string `yaml:"stream"`
	// PartitionKey with the placeholders {topic}, {topic[N]} (level N, from 0),
	// {json.FIELD.FIELD} and {client_id}. Default {topic}.
	PartitionKey string `yaml:"partition_key"`
}

func (t Topic) route() message.Route {
	return message.Route{Filter: t.Filter, Stream: t.Stream, PartitionKey: t.PartitionKey}
}

// DefaultConfig returns the defaults of a broker.
func DefaultConfig() Config {
	return Config{
		Name: "broker", Listen: "tcp://127.0.0.1:1883", MaxClients: 1200, MaxPacketBytes: buffer.DefaultRecordBytes,
		MaxInflight: 256, MaxQueued: 1000, MaxQueuedBytes: 16 << 20, MaxSubscriptions: 100,
		MaxRetained: 10_000, MaxRetainedBytes: 16 << 20, MaxSessions: 10_000,
		SessionExpiry: value.Duration(168 * time.Hour), ConnectTimeout: value.Duration(5 * time.Second),
		MaxKeepAlive: value.Duration(20 * time.Minute),
	}
}

// DefaultTopic returns the defaults of a topic.
func DefaultTopic() Topic { return Topic{PartitionKey: "{topic}"} }

// StateStream keeps sessions, retained messages and what waits for subscribers
// that are away, so that they are there after a restart.
const StateStream = "broker.state"

// StateStreamConfig is what StateStream is to be made with: it outlives the data
// and has a budget of its own, in which two snapshots of all that c allows to be
// kept have room.
func (c Config) StateStreamConfig() buffer.StreamConfig {
	s := buffer.DefaultStreamConfig(buffer.Data)
	s.Retention, s.Priority = value.Duration(8760*time.Hour), 9
	s.MaxBytes = max(64<<20, 6*(c.MaxQueuedBytes+c.MaxRetainedBytes))
	return s
}

// Address is where to listen, and whether with TLS.
func (c Config) Address() (hostPort string, secure bool, err error) {
	u, err := url.Parse(c.Listen)
	if err != nil || u.Host == "" || u.Path != "" || u.User != nil {
		return "", false, fmt.Errorf("%q is not an address; write tcp://127.0.0.1:1883 or tls://0.0.0.0:8883", c.Listen)
	}
	port := "1883"
	switch u.Scheme {
	case "tcp", "mqtt":
	case "tls", "ssl", "mqtts":
		secure, port = true, "8883"
	default:
		return "", false, fmt.Errorf("scheme %q is not one of tcp, tls", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

// loopback says whether only this machine can reach hostPort.
func loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := buffer.CheckName(c.Name); err != nil {
		fault("name: %w", err)
	}
	faults = append(faults, c.listenFaults()...)
	if len(c.Topics) == 0 {
		fault("topics: missing; name at least one filter and its stream")
	}
	for i, t := range c.Topics {
		for _, err := range t.route().Faults() {
			fault("topics[%d].%w", i, err)
		}
		if t.Stream == StateStream {
			fault("topics[%d].stream: %s is the broker's own", i, StateStream)
		}
	}
	for _, n := range []struct {
		name            string
		value, min, max int
	}{
		{"max_clients", c.MaxClients, 1, 50_000},
		{"max_clients_per_address", c.MaxClientsPerAddress, 0, 50_000},
		{"max_inflight", c.MaxInflight, 1, 10_000},
		{"max_queued", c.MaxQueued, 1, 100_000},
		{"max_subscriptions", c.MaxSubscriptions, 1, 10_000},
		{"max_retained", c.MaxRetained, 0, 1_000_000},
		{"max_sessions", c.MaxSessions, 1, 100_000},
	} {
		if n.value < n.min || n.value > n.max {
			fault("%s: %d is not between %d and %d", n.name, n.value, n.min, n.max)
		}
	}
	for _, n := range []struct {
		name            string
		value, min, max value.Bytes
	}{
		{"max_packet_bytes", c.MaxPacketBytes, 1 << 10, buffer.MaxRecordBytes},
		{"max_queued_bytes", c.MaxQueuedBytes, 64 << 10, 1 << 30},
		{"max_retained_bytes", c.MaxRetainedBytes, 0, 1 << 30},
	} {
		if n.value < n.min || n.value > n.max {
			fault("%s: %s is not between %s and %s", n.name, n.value, n.min, n.max)
		}
	}
	for _, n := range []struct {
		name     string
		value    value.Duration
		min, max time.Duration
	}{
		{"session_expiry", c.SessionExpiry, time.Minute, 8760 * time.Hour},
		{"connect_timeout", c.ConnectTimeout, 100 * time.Millisecond, time.Minute},
		{"max_keep_alive", c.MaxKeepAlive, 10 * time.Second, 18 * time.Hour},
	} {
		if n.value.Std() < n.min || n.value.Std() > n.max {
			fault("%s: %s is not between %s and %s", n.name, n.value, value.Duration(n.min), value.Duration(n.max))
		}
	}
	return errors.Join(faults...)
}

// Warnings are what is allowed and unwise; each begins with the key's path.
func (c Config) Warnings() []string {
	address, secure, err := c.Address()
	if err != nil || secure || loopback(address) {
		return nil
	}
	return []string{fmt.Sprintf("listen: %s is not encrypted: whoever is on the way reads passwords and messages; write tls://", c.Listen)}
}

func (c Config) listenFaults() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	address, secure, err := c.Address()
	switch {
	case err != nil:
		fault("listen: %w", err)
	case !loopback(address) && c.UsersFile == "" && c.TLS.ClientCAFile == "":
		fault("listen: %s is reachable from other machines; set users_file (weir passwd makes it) or tls.client_ca_file, or listen on 127.0.0.1", c.Listen)
	case secure && c.TLS.CertFile == "":
		fault("tls: %s needs cert_file and key_file", c.Listen)
	case !secure && c.TLS != (TLSConfig{}):
		fault("tls: the address is %s, which has no TLS; write tls://", c.Listen)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls: cert_file and key_file go together")
	}
	return faults
}
