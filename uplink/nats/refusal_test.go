package nats_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/uplink/nats/natstest"
)

// failsWith waits until the status has an error that contains want.
func (n *node) failsWith(want string) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(n.pump.Status().LastError, want) {
		if time.Now().After(deadline) {
			n.t.Fatalf("status has %q, want %q in it", n.pump.Status().LastError, want)
		}
		pass(10 * time.Millisecond)
	}
}

func TestNoStreamTakesTheSubject(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.nats.Create = ""
	n.append("telemetry", 100)
	n.run()
	n.failsWith("no JetStream stream takes weir.gw-17.telemetry; make one, or set create")
	js, closeJS := server.Connect()
	defer closeJS()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WEIR", Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	n.halt()
	n.nats.Create = "WEIR"
	n.run()
	n.failsWith("JetStream stream WEIR is there and does not take weir.gw-17.telemetry")
	if _, err := js.UpdateStream(t.Context(), jetstream.StreamConfig{Name: "WEIR", Subjects: []string{"weir.>"}}); err != nil {
		t.Fatal(err)
	}
	n.drained()
	// The stream is taken away under the pump, and comes back empty.
	if err := js.DeleteStream(t.Context(), "WEIR"); err != nil {
		t.Fatal(err)
	}
	n.sent = nil
	n.sent = map[string]map[string]int{}
	n.append("telemetry", 40)
	n.drained()
	n.halt()
	check(t, server, n)
}

func TestServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "no_auth_user: plain\naccounts { A: { users: [{user: plain, password: x}] }, B: { jetstream: enabled, users: [{user: js, password: y}] } }")
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 1)
	n.run()
	n.failsWith("JetStream")
	n.halt()
	n.nats.User, n.nats.Password = "js", value.NewSecret("y")
	n.run()
	n.drained()
}

// lockedBuffer takes the log of a pump.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func TestWrongCredentialsAreRetriedAndNotShown(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "authorization { token: right-t0ken }")
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 3)
	n.nats.Token = value.NewSecret("wrong-t0ken")
	var log lockedBuffer
	n.logger = slog.New(slog.NewTextHandler(&log, nil))
	n.run()
	n.failsWith("Authorization Violation")
	shown := fmt.Sprintf("%+v %+v", n.pump.Status(), n.nats)
	n.halt()
	n.nats.Token = value.NewSecret("right-t0ken")
	n.run()
	n.drained()
	if s := n.pump.Status(); s.URL != server.URL() || s.SentRecords != 3 {
		t.Errorf("status: %+v", s)
	}
	shown += fmt.Sprintf("%+v", n.pump.Status())
	n.halt()
	if shown += log.buf.String(); strings.Contains(shown, "t0ken") {
		t.Errorf("a token is shown:\n%s", shown)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	server := natstest.Start(t, "")
	server.Stop()
	server.Configure(fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key, cert))
	server.StartWithoutLooking()
	n := newNode(t, "gw-17", strings.Replace(server.URL(), "nats://", "tls://", 1), "telemetry")
	n.append("telemetry", 10)
	n.run()
	n.failsWith("certificate")
	n.halt()
	n.nats.TLS = nats.TLSConfig{CAFile: cert, CertFile: cert, KeyFile: key}
	n.run()
	n.drained()
	if s := n.pump.Status(); s.SentRecords != 10 {
		t.Errorf("status: %+v", s)
	}
}

// certificate makes one that signs itself, for server and client.
func certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// A record over the server's max_payload, and one over the stream's own limit,
// are set aside; what comes before and behind them arrives.
func TestTooLargeRecordsAreSetAside(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "max_payload: 100000")
	js, closeJS := server.Connect()
	defer closeJS()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WEIR", Subjects: []string{"weir.>"}, MaxMsgSize: 20_000}); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 100)
	for _, size := range []int{150_000, 50_000, 40_000} {
		if _, err := n.log.Append(t.Context(), "telemetry", buffer.Record{PartitionKey: "key-00", Data: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
	}
	n.append("telemetry", 100)
	n.run()
	n.drained()
	n.halt()
	check(t, server, n)
	if s := n.pump.Status(); s.SetAside != 3 || s.SentRecords != 200 {
		t.Errorf("status: %+v", s)
	}
	page, err := n.log.Read(t.Context(), uplink.Aside, buffer.Position{}, buffer.Limit{MaxBytes: 1 << 20})
	if err != nil || len(page.Entries) != 3 {
		t.Fatalf("%d records set aside, %v", len(page.Entries), err)
	}
	for i, want := range []string{"over the server's max_payload of 100000", "message size exceeds maximum allowed", "message size exceeds maximum allowed"} {
		if got := page.Entries[i].Attribute("aside.error"); !strings.Contains(got, want) {
			t.Errorf("aside.error: %s, want %s", got, want)
		}
	}
}

// A centre that is full refuses until there is room.
func TestFullStreamIsWaitedOut(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	js, closeJS := server.Connect()
	defer closeJS()
	config := jetstream.StreamConfig{Name: "WEIR", Subjects: []string{"weir.>"}, MaxMsgs: 700, Discard: jetstream.DiscardNew}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "gw-17", server.URL(), "telemetry")
	n.append("telemetry", 2000)
	n.run()
	n.failsWith("maximum messages exceeded")
	if s := n.pump.Status(); s.SentRecords != 700 || s.SetAside != 0 {
		t.Errorf("status: %+v", s)
	}
	config.MaxMsgs = -1
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	n.drained()
	n.halt()
	check(t, server, n)
}
