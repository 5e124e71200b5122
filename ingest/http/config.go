package http

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
)

// Config is one entry of `ingest.http:`, a listener for devices that POST.
type Config struct {
	// Name tells sources apart, in status, metrics and on records. Default http.
	Name string `yaml:"name"`
	// Listen is host:port. Default 127.0.0.1:8081: only this machine. Port 0
	// takes a free one and logs it. Anything off loopback needs Clients or
	// TLS.ClientCAFile.
	Listen string `yaml:"listen"`
	// Clients may write, each with its token and its streams. Default: none;
	// then everybody on this machine may write every stream, or everybody with
	// a certificate if TLS.ClientCAFile is set.
	Clients []Client `yaml:"clients"`
	// TLS makes it HTTPS. Default: plain HTTP.
	TLS TLSConfig `yaml:"tls"`
	// Streams that may be written. No default: name at least one.
	Streams []Stream `yaml:"streams"`
	// MaxBodyBytes of one request, also after unpacking. Default 8MiB: half of
	// what one append takes, for a request needs more memory than its bytes.
	// 1KiB to 16MiB.
	MaxBodyBytes value.Bytes `yaml:"max_body_bytes"`
	// MaxInflightBytes of memory for all requests together; a request waits 2 s
	// for its part and is then answered 429. Default 24MiB: three of the
	// largest bodies. From max_body_bytes to 1GiB.
	MaxInflightBytes value.Bytes `yaml:"max_inflight_bytes"`
	// MaxConnections at once; further ones wait in the kernel's queue. Default
	// 256: at most 64 KiB each before they have shown a token. 1 to 10000.
	MaxConnections int `yaml:"max_connections"`
	// MaxConnectionsPerAddress at once of one IPv4 address or IPv6 /64; further
	// ones are closed. Default 64: one device cannot take all, and a proxy
	// still has enough. 1 to max_connections.
	MaxConnectionsPerAddress int `yaml:"max_connections_per_address"`
	// RequestTimeout bounds reading a body, and again how long its append may
	// take. Default 30s: 8 MiB at 2 Mbit/s. 1s to 10m.
	RequestTimeout value.Duration `yaml:"request_timeout"`
}

// Client is who may write.
type Client struct {
	// Name of the client, for {client}, the attribute http.client and the log.
	// No default.
	Name string `yaml:"name"`
	// Token it sends as Authorization: Bearer TOKEN. At least 16 characters.
	// Default: none, which needs TLS.ClientCAFile; then it is the client whose
	// certificate bears Name (common name, or a DNS name).
	Token value.Secret `yaml:"token"`
	// Streams it may write. Default: all of the source's.
	Streams []string `yaml:"streams"`
}

// Stream is what may be written.
type Stream struct {
	// Stream is its name. No default.
	Stream string `yaml:"stream"`
	// PartitionKey for records whose request gives none, with the placeholders
	// {json.FIELD.FIELD} (of the record) and {client}. Default: none; the
	// request must give the key.
	PartitionKey string `yaml:"partition_key"`
}

// TLSConfig names files of PEM, read when the source starts.
type TLSConfig struct {
	// CertFile is the certificate chain of the source, KeyFile its private key.
	// Default: none; both or neither.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ClientCAFile, if set, refuses clients without a certificate signed by it
	// (mutual TLS). Default: none.
	ClientCAFile string `yaml:"client_ca_file"`
}

// DefaultConfig returns the defaults of a source.
func DefaultConfig() Config {
	return Config{
		Name: "http", Listen: "127.0.0.1:8081", MaxBodyBytes: 8 << 20, MaxInflightBytes: 24 << 20,
		MaxConnections: 256, MaxConnectionsPerAddress: 64, RequestTimeout: value.Duration(30 * time.Second),
	}
}

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := buffer.CheckName(c.Name); err != nil {
		fault("name: %w", err)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		fault("listen: %q is not an address; write it as 127.0.0.1:8081", c.Listen)
	case !validPort(port):
		fault("listen: port %q is not between 0 and 65535", port)
	case !isLoopback(host) && len(c.Clients) == 0 && c.TLS.ClientCAFile == "":
		fault("listen: %s is reachable from other machines; set clients with tokens or tls.client_ca_file, or listen on 127.0.0.1", c.Listen)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls: cert_file and key_file go together")
	}
	if c.TLS.ClientCAFile != "" && c.TLS.CertFile == "" {
		fault("tls.client_ca_file: needs cert_file and key_file, for clients prove themselves only over TLS")
	}
	if c.MaxBodyBytes < 1<<10 || c.MaxBodyBytes > buffer.MaxAppendBytes {
		fault("max_body_bytes: %s is not between 1KiB and 16MiB", c.MaxBodyBytes)
	}
	if c.MaxInflightBytes < c.MaxBodyBytes || c.MaxInflightBytes > 1<<30 {
		fault("max_inflight_bytes: %s is not between max_body_bytes (%s) and 1GiB", c.MaxInflightBytes, c.MaxBodyBytes)
	}
	if c.MaxConnections < 1 || c.MaxConnections > 10_000 {
		fault("max_connections: %d is not between 1 and 10000", c.MaxConnections)
	}
	if c.MaxConnectionsPerAddress < 1 || c.MaxConnectionsPerAddress > c.MaxConnections {
		fault("max_connections_per_address: %d is not between 1 and max_connections (%d)", c.MaxConnectionsPerAddress, c.MaxConnections)
	}
	if d := c.RequestTimeout.Std(); d < time.Second || d > 10*time.Minute {
		fault("request_timeout: %s is not between 1s and 10m", c.RequestTimeout)
	}
	return errors.Join(append(append(faults, c.streamFaults()...), c.clientFaults()...)...)
}

func (c Config) streamFaults() (faults []error) {
	if len(c.Streams) == 0 {
		faults = append(faults, errors.New("streams: missing; name at least one stream that may be written"))
	}
	seen := map[string]bool{}
	for i, s := range c.Streams {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("streams[%d].%w", i, fmt.Errorf(format, args...)))
		}
		switch {
		case s.Stream == "":
			fault("stream: missing; name the stream the records go to")
		case seen[s.Stream]:
			fault("stream: %s is here twice", s.Stream)
		default:
			if err := buffer.CheckName(s.Stream); err != nil {
				fault("stream: %w", err)
			}
		}
		seen[s.Stream] = true
		t, err := parseTemplate(s.PartitionKey)
		if err != nil {
			fault("partition_key: %w", err)
		}
		if t.wantsClient() && len(c.Clients) == 0 && c.TLS.ClientCAFile == "" {
			fault("partition_key: {client} needs clients or tls.client_ca_file; nobody has a name here")
		}
	}
	return faults
}

func (c Config) clientFaults() (faults []error) {
	names, tokens := map[string]bool{}, map[value.Secret]string{}
	for i, client := range c.Clients {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("clients[%d].%w", i, fmt.Errorf(format, args...)))
		}
		switch n := len(client.Name); {
		case n == 0:
			fault("name: missing; name the client")
		case n > 128:
			fault("name: %d bytes are over the limit of 128", n)
		case !plainText(client.Name):
			fault("name: it has a control character, or is not UTF-8")
		case names[client.Name]:
			fault("name: %s is here twice", client.Name)
		}
		names[client.Name] = true
		switch n := len(client.Token.Reveal()); {
		case n == 0 && c.TLS.ClientCAFile == "":
			fault("token: missing; set one, or tls.client_ca_file for clients with certificates")
		case n > 0 && n < minTokenBytes:
			fault("token: has %d characters; use at least %d, for example from `openssl rand -hex 16`", n, minTokenBytes)
		case n > 0 && tokens[client.Token] != "":
			fault("token: it is the same as that of client %s", tokens[client.Token])
		}
		tokens[client.Token] = client.Name
		for j, name := range client.Streams {
			if !slices.ContainsFunc(c.Streams, func(s Stream) bool { return s.Stream == name }) {
				fault("streams[%d]: %q is not one of this source's streams", j, name)
			}
		}
	}
	return faults
}

// Loopback says whether only this machine reaches the source.
func (c Config) Loopback() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return err == nil && isLoopback(host)
}

// Warnings are what is allowed and unwise; each begins with the key's path.
func (c Config) Warnings() []string {
	if c.Loopback() || c.TLS.CertFile != "" {
		return nil
	}
	return []string{fmt.Sprintf("listen: %s is reachable from other machines and not encrypted; its tokens can be read on the network; set tls", c.Listen)}
}

// guard says in words what keeps strangers out.
func (c Config) guard() string {
	switch {
	case len(c.Clients) == 0:
		return "client certificate"
	case c.TLS.ClientCAFile == "":
		return "token"
	}
	return "client certificate and token"
}

func validPort(port string) bool {
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}

// isLoopback says whether host, a name or an IP address without a port, can
// only be this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
