package brokertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	maxPacket = 512 << 10
	username  = "tester"
	password  = "a password"
)

// mosquitto is a real broker on loopback.
type mosquitto struct {
	dir        string
	port, safe int
	cmd        *exec.Cmd
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startMosquitto(t testing.TB) *mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Fatal("mosquitto is missing; get it with: apt-get install mosquitto mosquitto-clients")
	}
	m := &mosquitto{dir: t.TempDir(), port: freePort(t), safe: freePort(t)}
	m.certificates(t)
	for file, text := range map[string]string{
		"acl": "user " + username + "\ntopic readwrite #\ntopic read $SYS/#\nuser limited\ntopic readwrite brokertest/limited/#\n",
		"m.conf": fmt.Sprintf(`per_listener_settings false
allow_anonymous false
password_file %[1]s/users
acl_file %[1]s/acl
persistence true
persistence_location %[1]s/
set_tcp_nodelay true
max_queued_messages 0
max_packet_size %[2]d
user root
log_dest file %[1]s/log
listener %[3]d 127.0.0.1
listener %[4]d 127.0.0.1
cafile %[1]s/ca.pem
certfile %[1]s/server.pem
keyfile %[1]s/server.key
`, m.dir, maxPacket, m.port, m.safe),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, user := range []string{username, "limited"} {
		args := []string{"-b", filepath.Join(m.dir, "users"), user, password}
		if i == 0 {
			args = append([]string{"-c"}, args...)
		}
		if out, err := exec.Command("mosquitto_passwd", args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v %s", err, out)
		}
	}
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *mosquitto) target() Target {
	return Target{
		Address: fmt.Sprintf("127.0.0.1:%d", m.port), Username: username, Password: password,
		Limited: &Limited{"limited", password},
		TLS:     &TLS{Address: fmt.Sprintf("127.0.0.1:%d", m.safe), CAFile: filepath.Join(m.dir, "ca.pem")},
		Kill:    m.stop, Start: m.start, MaxPacketBytes: maxPacket,
	}
}

func (m *mosquitto) start() error {
	m.cmd = exec.Command("mosquitto", "-c", filepath.Join(m.dir, "m.conf"))
	if err := m.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		<-tick.C
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.safe)); err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return errors.New("mosquitto does not listen")
		}
	}
}

// stop ends mosquitto in good order: it saves its sessions only then.
func (m *mosquitto) stop() error {
	if m.cmd == nil {
		return nil
	}
	err := m.cmd.Process.Signal(os.Interrupt)
	err = errors.Join(err, m.cmd.Wait())
	m.cmd = nil
	return err
}

// certificates writes an authority and a server's certificate.
func (m *mosquitto) certificates(t testing.TB) {
	t.Helper()
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		if i == 0 {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
			parent, signer = c, key
		} else {
			c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(filepath.Join(m.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// exceptions are what mosquitto 2.0.11 (Debian 12) does not do.
func exceptions() map[string]string {
	const lenient, ignored = "it reads over what is wrong", "it ignores packets that only brokers send"
	return map[string]string{
		"a takeover/v5":                                  "it tells the first connection nothing",
		"overlapping subscriptions/v3":                   "it takes the QoS of the subscription it finds first",
		"a shared group gets no retained messages":       "it sends them",
		"receive maximum of the broker":                  "it does not count",
		"limited in subscribing":                         "it grants every filter and holds back the messages",
		"limited in a shared subscription":               "it grants every filter and holds back the messages",
		"CONNECT with authentication data and no method": "it answers with not authorized",
		"PUBLISH with DUP and QoS 0":                     lenient,
		"PUBLISH with DUP and QoS 0 5":                   lenient,
		"PUBLISH with a subscription identifier":         lenient,
		"PUBLISH with a response topic with a wildcard":  lenient,
		"PUBACK with flags":                              lenient,
		"SUBSCRIBE with no local and shared":             lenient,
		"SUBSCRIBE with an empty group":                  lenient,
		"PINGREQ with flags":                             lenient,
		"PINGREQ with a body":                            lenient,
		"a SUBACK from a client/v3":                      ignored,
		"a PINGRESP from a client":                       ignored,
	}
}

// TestSuite proves the suite on mosquitto.
func TestSuite(t *testing.T) {
	Suite(t, func(t *testing.T) Target {
		target := startMosquitto(t).target()
		target.Exceptions = exceptions()
		return target
	})
}
