package api

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/weir-edge/weir/configs/value"
)

// Config is the `api:` section of the configuration.
type Config struct {
	// Listen is the address of the HTTP API, host:port. Default 127.0.0.1:8080:
	// only this machine. Port 0 takes a free one and logs it. Anything off
	// loopback needs Token or TLS.ClientCA.
	Listen string `yaml:"listen"`
	// Token is the bearer token every request but /healthz must carry. Default:
	// none, allowed only on loopback. At least 16 characters.
	Token value.Secret `yaml:"token"`
	// TLS makes the API HTTPS. Default: plain HTTP.
	TLS TLSConfig `yaml:"tls"`
}

// TLSConfig is the `api.tls:` section. The files are PEM and are read when
// the API starts.
type TLSConfig struct {
	// Cert is the certificate chain of the API, Key its private key. Default:
	// none; both or neither.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCA, if set, refuses clients without a certificate signed by it
	// (mutual TLS). Default: none.
	ClientCA string `yaml:"client_ca"`
}

// minTokenBytes keeps a token out of reach of guessing over a network.
const minTokenBytes = 16

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:8080"} }

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	host, port, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		fault("listen: %q is not an address; write it as 127.0.0.1:8080", c.Listen)
	case !validPort(port):
		fault("listen: port %q is not between 0 and 65535", port)
	case !isLoopback(host) && c.Token.IsZero() && c.TLS.ClientCA == "":
		fault("listen: %s is reachable from other machines; set api.token or api.tls.client_ca, or listen on 127.0.0.1", c.Listen)
	}
	if n := len(c.Token.Reveal()); n > 0 && n < minTokenBytes {
		fault("token: has %d characters; use at least %d, for example from `openssl rand -hex 16`", n, minTokenBytes)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		fault("tls: cert and key belong together; only one of them is set")
	}
	if c.TLS.ClientCA != "" && c.TLS.Cert == "" {
		fault("tls.client_ca: needs tls.cert and tls.key, for clients prove themselves only over TLS")
	}
	return errors.Join(faults...)
}

// Loopback says whether only this machine reaches the API.
func (c Config) Loopback() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return err == nil && isLoopback(host)
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
