package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/weir-edge/weir/ingest/broker/packet"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

// inUse is what the process has of heap and stacks.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestMemoryOfStrangers: a connection that has not authenticated takes at most
// 64 KiB, whatever it sent so far; the test's own end of it is counted too.
func TestMemoryOfStrangers(t *testing.T) {
	large, err := (&packet.Connect{Version: packet.V5, ClientID: "x", HasPassword: true, Password: make([]byte, 16<<10-100)}).Append(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		secure bool
		greet  func(net.Conn) error
	}{
		{"says nothing", false, func(net.Conn) error { return nil }},
		{"stops before the end of the largest CONNECT", false, func(c net.Conn) error { _, err := c.Write(large[:len(large)-1]); return err }},
		{"TLS, says nothing", true, func(net.Conn) error { return nil }},
		{"TLS, half of the handshake", true, func(c net.Conn) error {
			_, err := c.Write([]byte{0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0x3f, 0xfc})
			return err
		}},
		{"TLS, stops before the end of the largest CONNECT", true, func(c net.Conn) error {
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := s.Handshake(); err != nil {
				return err
			}
			_, err := s.Write(large[:len(large)-1])
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := configuration()
			config.ConnectTimeout *= 4
			if c.secure {
				config.Listen, config.TLS = "tls://127.0.0.1:0", certificates(t)
			}
			b, _ := start(t, config, ingesttest.NewLog())
			const count = 200
			before := inUse()
			for range count {
				conn, err := net.Dial("tcp", b.Address())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				if err := c.greet(conn); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "all are taken", func() bool {
				b.doors.mu.Lock()
				defer b.doors.mu.Unlock()
				return b.doors.inside == count
			})
			each := (inUse() - before) / count
			t.Logf("%.1f KiB each", float64(each)/1024)
			if each > 64<<10 {
				t.Errorf("that is over 64 KiB")
			}
		})
	}
}

// TestMemoryOfClients: an idle client with a subscription takes at most 32 KiB.
func TestMemoryOfClients(t *testing.T) {
	b, _ := start(t, configuration(), ingesttest.NewLog())
	const count = 500
	before := inUse()
	for i := range count {
		c := plain(t, b, packet.V311, fmt.Sprint("dev", i))
		if i%10 == 0 { // each waits for a batch
			c.subscribe(fmt.Sprintf("commands/%d/#", i), 1)
		}
		c.quiet()
	}
	each := (inUse() - before) / count
	t.Logf("%.1f KiB each, this test's end of the connection included", float64(each)/1024)
	if each > 32<<10 {
		t.Errorf("that is over 32 KiB")
	}
}

// certificates makes a broker's own.
func certificates(t *testing.T) TLSConfig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := TLSConfig{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{out.CertFile: {Type: "CERTIFICATE", Bytes: der}, out.KeyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
