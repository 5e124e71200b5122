package nats

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/weir-edge/weir/configs/value"
)

// Config is what an uplink of type nats has beside uplink.Config, in the same
// mapping.
type Config struct {
	// URL of the server: nats://HOST:4222, or tls://HOST:4222 to insist on TLS.
	// Several of one cluster are separated by commas. No default.
	URL string `yaml:"url"`
	// Subject of a stream's messages. {node} and {stream} stand for their names.
	// Default weir.{node}.{stream}. Nobody else may write to it.
	Subject string `yaml:"subject"`
	// Create is the name of the JetStream stream that is made if none takes the
	// subject: over the fixed beginning of Subject (weir.>), in files, with
	// atomic batches allowed. An existing one is left as it is. Default: none
	// is made.
	Create string `yaml:"create"`
	// User and Password, or Token, or Credentials: a file with a user's JWT and
	// seed. Default: none.
	User        string       `yaml:"user"`
	Password    value.Secret `yaml:"password"`
	Token       value.Secret `yaml:"token"`
	Credentials string       `yaml:"credentials"`
	// TLS: what to trust and what to show.
	TLS TLSConfig `yaml:"tls"`
	// MaxInflight is how many messages of a stream are on their way at most.
	// Default 512: a batch. 1 to 10000.
	MaxInflight int `yaml:"max_inflight"`
}

// TLSConfig names files of PEM.
type TLSConfig struct {
	CAFile   string `yaml:"ca_file"`   // default: the system's
	CertFile string `yaml:"cert_file"` // for mutual TLS
	KeyFile  string `yaml:"key_file"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Subject: "weir.{node}.{stream}", MaxInflight: 512}
}

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Validate returns every fault of c, joined; each begins with the key's path.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := c.servers(); err != nil {
		fault("url: %w", err)
	}
	if err := checkSubject(c.Subject); err != nil {
		fault("subject: %w", err)
	}
	if c.Create != "" && !streamName.MatchString(c.Create) {
		fault("create: %.80q must be 1 to 64 of the characters a-z A-Z 0-9 _ -", c.Create)
	}
	if c.Create != "" && subjectPrefix(c.Subject) == "" {
		fault("create: the subject has no fixed beginning such as \"weir.\", so it is not known what the stream should take")
	}
	if (c.User == "") != c.Password.IsZero() {
		fault("user: user and password go together")
	}
	ways := 0
	for _, set := range []bool{c.User != "", !c.Token.IsZero(), c.Credentials != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		fault("user: give only one of user, token, credentials")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls: cert_file and key_file go together")
	}
	if c.MaxInflight < 1 || c.MaxInflight > 10_000 {
		fault("max_inflight: %d is not between 1 and 10000", c.MaxInflight)
	}
	return errors.Join(faults...)
}

// servers are the URLs. Their text is not repeated in an error: it may hold a
// password.
func (c Config) servers() ([]*url.URL, error) {
	if c.URL == "" {
		return nil, errors.New("missing; write it as nats://HOST:4222")
	}
	var servers []*url.URL
	for i, text := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return nil, fmt.Errorf("number %d is not of the form nats://HOST:4222 or tls://HOST:4222", i+1)
		}
		if u.User != nil {
			return nil, fmt.Errorf("number %d has a user in it; write it under user and password", i+1)
		}
		if u.Port() == "" {
			u.Host += ":4222"
		}
		servers = append(servers, &url.URL{Scheme: u.Scheme, Host: u.Host})
	}
	return servers, nil
}

// checkSubject says what is wrong with a subject's pattern.
func checkSubject(pattern string) error {
	if !strings.Contains(pattern, "{stream}") {
		return fmt.Errorf("%.80q has no {stream}; each stream needs a subject of its own", pattern)
	}
	plain := strings.NewReplacer("{node}", "n", "{stream}", "s").Replace(pattern)
	if strings.ContainsAny(plain, "{}") {
		return fmt.Errorf("%.80q has a placeholder other than {node} and {stream}", pattern)
	}
	return checkPlainSubject(plain)
}

func checkPlainSubject(subject string) error {
	if strings.ContainsAny(subject, " \t\r\n*>") {
		return fmt.Errorf("%.200q has a blank or a wildcard in it", subject)
	}
	if len(subject) > 512 {
		return fmt.Errorf("%.80q... is longer than 512 bytes", subject)
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" {
			return fmt.Errorf("%.200q has an empty part", subject)
		}
	}
	if strings.HasPrefix(subject, "$") || strings.HasPrefix(subject, "_INBOX.") {
		return fmt.Errorf("%.80q is reserved by the server", subject)
	}
	return nil
}

// subjectPrefix is the fixed beginning of a pattern, up to and with its last
// point: "weir." of weir.{node}.{stream}; "" if there is none.
func subjectPrefix(pattern string) string {
	fixed, _, _ := strings.Cut(pattern, "{")
	return fixed[:strings.LastIndexByte(fixed, '.')+1]
}

// tlsConfig reads the files; nil if nothing about TLS is configured.
func (c Config) tlsConfig() (*tls.Config, error) {
	if c.TLS == (TLSConfig{}) {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.CAFile != "" {
		pem, err := os.ReadFile(c.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read tls.ca_file: %s holds no certificate", c.TLS.CAFile)
		}
	}
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert_file and tls.key_file: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
