package mqtt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir(), name: name}
	a.cert, a.key = a.sign(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign writes NAME.pem and NAME.key.
func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func server() *x509.Certificate {
	return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"broker.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

func client() *x509.Certificate {
	return &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// outcome runs a source until it is connected or has an error to show.
func outcome(t *testing.T, c Config) (Status, *Source, func()) {
	t.Helper()
	s, stop := startSource(t, c, ingesttest.NewLog())
	t.Cleanup(stop)
	until(t, "connected, or an error", func() bool { return s.Status().State == Connected || s.Status().LastError != "" })
	return s.Status(), s, stop
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	ca.sign("server", server())
	ca.sign("client", client())
	other.sign("stranger", client())
	port, mutual := freePort(t), freePort(t)
	files := fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\n", ca.file("ca.pem"), ca.file("server.pem"), ca.file("server.key"))
	b := startBroker(t, fmt.Sprintf("listener %d 127.0.0.1\n%slistener %d 127.0.0.1\n%srequire_certificate true\n", port, files, mutual, files))
	for name, c := range map[string]struct {
		port int
		tls  TLSConfig
		want string // of the error; "": it connects
	}{
		"server only":            {port, TLSConfig{CAFile: ca.file("ca.pem")}, ""},
		"by its name":            {port, TLSConfig{CAFile: ca.file("ca.pem"), ServerName: "broker.test"}, ""},
		"another name":           {port, TLSConfig{CAFile: ca.file("ca.pem"), ServerName: "elsewhere.test"}, "certificate is valid for broker.test"},
		"an authority not ours":  {port, TLSConfig{CAFile: other.file("other.pem")}, "certificate signed by unknown authority"},
		"the system's":           {port, TLSConfig{ServerName: "broker.test"}, "certificate"},
		"mutual":                 {mutual, TLSConfig{CAFile: ca.file("ca.pem"), CertFile: ca.file("client.pem"), KeyFile: ca.file("client.key")}, ""},
		"mutual, no certificate": {mutual, TLSConfig{CAFile: ca.file("ca.pem")}, "connect: "},
		"mutual, a stranger's":   {mutual, TLSConfig{CAFile: ca.file("ca.pem"), CertFile: other.file("stranger.pem"), KeyFile: other.file("stranger.key")}, "connect: "},
	} {
		t.Run(name, func(t *testing.T) {
			config := config("", topic("a", 1, "telemetry", "{topic}"))
			config.URL, config.TLS, config.ClientID = fmt.Sprintf("mqtts://127.0.0.1:%d", c.port), c.tls, "weir-"+strings.ReplaceAll(name, " ", "-")
			status, s, _ := outcome(t, config)
			if c.want != "" {
				if status.State == Connected || !strings.Contains(status.LastError, c.want) {
					t.Errorf("state %s, error %q, want %q", status.State, status.LastError, c.want)
				}
				return
			}
			if status.State != Connected {
				t.Fatal(status.LastError)
			}
			p := b.publisher(t)
			if token := p.Publish("a", 1, false, "x"); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
				t.Fatal(token.Error())
			}
			until(t, "it arrives", func() bool { return s.Status().Appended == 1 })
		})
	}
}

// TestFilesMissing: a source whose own files cannot be read says so and ends.
func TestFilesMissing(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.pem")
	if err := os.WriteFile(text, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string]TLSConfig{
		"tls.ca_file: open ":             {CAFile: filepath.Join(dir, "none")},
		"text.pem holds no certificate":  {CAFile: text},
		"tls.cert_file: tls: failed to ": {CertFile: text, KeyFile: text},
	} {
		c := config("", topic("a", 1, "telemetry", "{topic}"))
		c.URL, c.TLS = "mqtts://127.0.0.1:1", files
		s, err := New(c, ingesttest.NewLog(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestUserAndPassword(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", users, "plant", "right").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v %s (get it with: apt-get install mosquitto)", err, out)
	}
	b := startBroker(t, "allow_anonymous false\npassword_file "+users)
	for password, want := range map[string]State{"right": Connected, "wrong": Away, "": Away} {
		c := config(b.address(), topic("a", 1, "telemetry", "{topic}"))
		if password != "" {
			var secret value.Secret
			if err := secret.UnmarshalText([]byte(password)); err != nil {
				t.Fatal(err)
			}
			c.Username, c.Password = "plant", secret
		}
		status, _, stop := outcome(t, c)
		stop()
		if status.State != want || want == Away && !strings.Contains(strings.ToLower(status.LastError), "not authorized") {
			t.Errorf("password %q: state %s, error %q", password, status.State, status.LastError)
		}
		if strings.Contains(fmt.Sprint(status), "wrong") {
			t.Error("the status shows the password")
		}
	}
}
