package mqtt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/message"
)

// Config is one entry of `ingest.mqtt:`, an existing broker to read from.
type Config struct {
	// Name tells sources apart, in status, metrics and on records. Default mqtt.
	Name string `yaml:"name"`
	// URL of the broker: mqtt:// (port 1883) or mqtts:// (TLS, port 8883).
	URL string `yaml:"url"`
	// ClientID of the persistent session. It must be this source's alone: a
	// broker throws out the other one of two. Default weir-NODE-NAME.
	ClientID string `yaml:"client_id"`
	// Username and Password, where the broker wants them.
	Username string       `yaml:"username"`
	Password value.Secret `yaml:"password"`
	// TLS: what to trust and what to show, for mqtts://.
	TLS TLSConfig `yaml:"tls"`
	// KeepAlive: a silent connection is probed this often. Default 30s: a dead
	// link is noticed in 45 s, and a metered one costs 6 KB an hour.
	KeepAlive value.Duration `yaml:"keep_alive"`
	// ConnectTimeout for TCP, TLS and CONNACK together. Default 10s.
	ConnectTimeout value.Duration `yaml:"connect_timeout"`
	// MaxInflight messages are taken before the first of them is durable; then
	// nothing more is read from the connection. Default 2000: 50 ms at 40,000
	// messages a second. The broker's own limit for a client comes on top
	// (mosquitto: max_inflight_messages, 20, which at a commit window of 50 ms
	// means 400 messages a second).
	MaxInflight int `yaml:"max_inflight"`
	// MaxMessageBytes: a larger message is set aside unread but for its first
	// 64 KiB. Default 1MiB, as a record; at most 10MiB.
	MaxMessageBytes value.Bytes `yaml:"max_message_bytes"`
	// CleanSession true forgets the session with each connection: what the
	// broker gets while weir is away is lost. Default false.
	CleanSession bool `yaml:"clean_session"`
	// Retry says how long to wait between connections. Default 500ms to 1m.
	Retry value.Backoff `yaml:"retry"`
	// Topics say what goes where. A message goes where the first of them that
	// matches says.
	Topics []Topic `yaml:"topics"`
}

// TLSConfig names files of PEM.
type TLSConfig struct {
	CAFile     string `yaml:"ca_file"`   // default: the system's
	CertFile   string `yaml:"cert_file"` // for mutual TLS
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // default: the URL's host
}

// Topic maps a filter to a stream.
type Topic struct {
	// Filter as MQTT has it, with + and #.
	Filter string `yaml:"filter"`
	// QoS to subscribe with. Default 1.
	QoS int `yaml:"qos"`
	// Stream the messages go to.
	Stream string `yaml:"stream"`
	// PartitionKey with the placeholders {topic}, {topic[N]} (level N, from 0),
	// {json.FIELD.FIELD} and {client_id}. Default {topic}.
	PartitionKey string `yaml:"partition_key"`
}

// DefaultConfig returns the defaults of a source.
func DefaultConfig() Config {
	return Config{
		Name: "mqtt", KeepAlive: value.Duration(30 * time.Second), ConnectTimeout: value.Duration(10 * time.Second),
		MaxInflight: 2000, MaxMessageBytes: buffer.DefaultRecordBytes,
		Retry: value.Backoff{Min: value.Duration(500 * time.Millisecond), Max: value.Duration(time.Minute)},
	}
}

// DefaultTopic returns the defaults of a topic.
func DefaultTopic() Topic { return Topic{QoS: 1, PartitionKey: "{topic}"} }

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := buffer.CheckName(c.Name); err != nil {
		fault("name: %w", err)
	}
	u, err := parseURL(c.URL)
	if err != nil {
		fault("url: %w", err)
	}
	if err == nil && u.User != nil {
		fault("url: it has a user in it; use username and password")
	}
	if len(c.ClientID) > 256 {
		fault("client_id: %d bytes are over the 256 that brokers take", len(c.ClientID))
	}
	if c.KeepAlive.Std() < time.Second || c.KeepAlive.Std() > time.Hour {
		fault("keep_alive: %s is not between 1s and 1h", c.KeepAlive)
	}
	if c.ConnectTimeout.Std() < 100*time.Millisecond || c.ConnectTimeout.Std() > 5*time.Minute {
		fault("connect_timeout: %s is not between 100ms and 5m", c.ConnectTimeout)
	}
	if c.MaxInflight < 1 || c.MaxInflight > 30_000 {
		fault("max_inflight: %d is not between 1 and 30000", c.MaxInflight)
	}
	if c.MaxMessageBytes < 1<<10 || c.MaxMessageBytes > buffer.MaxRecordBytes {
		fault("max_message_bytes: %s is not between 1KiB and 10MiB", c.MaxMessageBytes)
	}
	if c.Retry.Min <= 0 || c.Retry.Max < c.Retry.Min {
		fault("retry: min %s and max %s do not make a range", c.Retry.Min, c.Retry.Max)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls: cert_file and key_file go together")
	}
	if u != nil && u.Scheme == "mqtt" && c.TLS != (TLSConfig{}) {
		fault("tls: the url is mqtt://, which has no TLS; write mqtts://")
	}
	if len(c.Topics) == 0 {
		fault("topics: missing; name at least one filter and its stream")
	}
	for i, t := range c.Topics {
		for _, err := range t.faults() {
			fault("topics[%d].%w", i, err)
		}
	}
	return errors.Join(faults...)
}

func (t Topic) route() message.Route {
	return message.Route{Filter: t.Filter, Stream: t.Stream, PartitionKey: t.PartitionKey}
}

func (t Topic) faults() []error {
	faults := t.route().Faults()
	if t.QoS < 0 || t.QoS > 2 {
		faults = append(faults, fmt.Errorf("qos: %d is not 0, 1 or 2", t.QoS))
	}
	return faults
}

// parseURL checks the broker's address and fills in the port.
func parseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("missing; write mqtt://HOST:1883 or mqtts://HOST:8883")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it is not an address; write mqtt://HOST:1883 or mqtts://HOST:8883")
	}
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
		u.Scheme = "mqtt"
	case "mqtts", "ssl", "tls":
		u.Scheme, port = "mqtts", "8883"
	default:
		return nil, fmt.Errorf("scheme %q is not one of mqtt, mqtts", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, errors.New("it names no host")
	}
	if u.Port() == "" {
		u.Host = u.Hostname() + ":" + port
		if strings.Contains(u.Hostname(), ":") {
			u.Host = "[" + u.Hostname() + "]:" + port
		}
	}
	return u, nil
}
