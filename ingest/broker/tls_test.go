package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/broker/users"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// authority signs certificates for clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem"), cert: &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "devices"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secure connects with TLS and says what CONNACK says; false when it does not
// come to that.
func secure(t *testing.T, b *Broker, c *tls.Config, p packet.Connect) (*raw, packet.Code, bool) {
	t.Helper()
	c.InsecureSkipVerify = true // the test's own broker
	conn, err := tls.Dial("tcp", b.Address(), c)
	if err != nil {
		return nil, 0, false
	}
	t.Cleanup(func() { conn.Close() })
	r := newRaw(conn, p.Version)
	r.t = t
	p.KeepAlive = 60
	wire, err := p.Append(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(wire); err != nil {
		return nil, 0, false
	}
	got, err := r.next()
	if err != nil {
		return nil, 0, false
	}
	ack, ok := got.(*packet.Connack)
	if !ok {
		t.Fatalf("got %+v", got)
	}
	return r, ack.Code, true
}

// TestMutualTLS: the certificate's name is the user; another authority's, and
// none, come no further than the handshake; a name that is nobody's is refused.
func TestMutualTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.yaml")
	yes, topics := true, []string{"devices/{user}/#"}
	if _, err := users.Set(file, "press-7", users.Change{Certificate: &yes, Publish: &topics}); err != nil {
		t.Fatal(err)
	}
	ours, theirs := newAuthority(t), newAuthority(t)
	c := configuration(Topic{Filter: "devices/#", Stream: ingesttest.Stream, PartitionKey: "{client_id}"})
	c.Listen, c.TLS, c.UsersFile = "tls://127.0.0.1:0", certificates(t), file
	c.TLS.ClientCAFile = ours.file
	log := ingesttest.NewLog()
	b, _ := start(t, c, log)
	hello := packet.Connect{Version: packet.V5, ClientID: "dev", CleanStart: true}

	dev, code, ok := secure(t, b, &tls.Config{Certificates: []tls.Certificate{ours.client(t, "press-7")}}, hello)
	if !ok || code != packet.Success {
		t.Fatalf("refused with 0x%02x, %v", byte(code), ok)
	}
	dev.publish("devices/press-7/t", "1", 1, 1)
	if ack := expect[*packet.Ack](dev); ack.Code != packet.Success {
		t.Errorf("its own topic: 0x%02x", byte(ack.Code))
	}
	dev.publish("devices/press-8/t", "1", 1, 2)
	if ack := expect[*packet.Ack](dev); ack.Code != packet.NotAuthorized {
		t.Errorf("another's topic: 0x%02x", byte(ack.Code))
	}
	if n := len(log.Entries(ingesttest.Stream)); n != 1 {
		t.Errorf("the log holds %d", n)
	}
	if _, code, ok := secure(t, b, &tls.Config{Certificates: []tls.Certificate{ours.client(t, "press-9")}}, hello); !ok || code != packet.BadUserNameOrPassword {
		t.Errorf("nobody's name: 0x%02x, %v", byte(code), ok)
	}
	for name, config := range map[string]*tls.Config{
		"another authority's": {Certificates: []tls.Certificate{theirs.client(t, "press-7")}},
		"none":                {},
		"TLS 1.1":             {Certificates: []tls.Certificate{ours.client(t, "press-7")}, MaxVersion: tls.VersionTLS11},
	} {
		if _, code, ok := secure(t, b, config, hello); ok {
			t.Errorf("%s: answered with 0x%02x", name, byte(code))
		}
	}
}

// TestUsers: a password, a wrong one, the topics of the user, another's client
// identifier, and a user that is taken out of the file.
func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.yaml")
	own, all := []string{"sensors/{user}"}, []string{"#"}
	for _, name := range []string{"a", "b"} {
		password := "the password of " + name
		if _, err := users.Set(file, name, users.Change{Password: []byte(password), Publish: &own, Subscribe: &all}); err != nil {
			t.Fatal(err)
		}
	}
	c := configuration()
	c.UsersFile = file
	b, _ := start(t, c, ingesttest.NewLog())
	hour := uint32(3600)
	join := func(user, password, id string) (*raw, packet.Code) {
		p := packet.Connect{Version: packet.V5, ClientID: id, HasUser: true, User: user, HasPassword: true, Password: []byte(password)}
		p.Properties.SessionExpiry = &hour
		r, ack := connect(t, b, p)
		return r, ack.Code
	}
	if _, code := join("a", "wrong", "x"); code != packet.BadUserNameOrPassword {
		t.Errorf("a wrong password: 0x%02x", byte(code))
	}
	if _, code := join("nobody", "the password of a", "x"); code != packet.BadUserNameOrPassword {
		t.Errorf("an unknown user: 0x%02x", byte(code))
	}
	r, code := join("a", "the password of a", "dev")
	if code != packet.Success {
		t.Fatalf("refused with 0x%02x", byte(code))
	}
	r.publish("sensors/b", "x", 1, 1)
	if ack := expect[*packet.Ack](r); ack.Code != packet.NotAuthorized {
		t.Errorf("another's topic: 0x%02x", byte(ack.Code))
	}
	if _, code := join("b", "the password of b", "dev"); code != packet.NotAuthorized {
		t.Errorf("another's session: 0x%02x", byte(code))
	}
	if err := users.Delete(file, "a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	if code := r.closed(); code != packet.NotAuthorized {
		t.Errorf("ended with 0x%02x", byte(code))
	}
	if b.Status().Denied != 1 {
		t.Errorf("%+v", b.Status())
	}
}
