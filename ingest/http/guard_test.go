package http

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/ingest/ingesttest"
)

const token = "0123456789abcdef-plc"

// guarded is a configuration with three clients.
func guarded() Config {
	c := open(Stream{Stream: "telemetry", PartitionKey: "{client}"}, Stream{Stream: "alerts", PartitionKey: "{client}/{json.id}"})
	c.Clients = []Client{
		{Name: "plc", Token: value.NewSecret(token), Streams: []string{"telemetry"}},
		{Name: "gate", Token: value.NewSecret("fedcba9876543210-gate")},
	}
	return c
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// TestTokens: each token is a client with its streams; nobody else gets in,
// and no token gets out.
func TestTokens(t *testing.T) {
	log := ingesttest.NewLog()
	var written bytes.Buffer
	s, err := New(guarded(), log, slog.New(slog.NewTextHandler(&written, nil)))
	if err != nil {
		t.Fatal(err)
	}
	stop := runSource(t, s)
	one := func(path, authorization string) answer {
		t.Helper()
		r := request{path: "/v1/streams/" + path + "/records", kind: "application/json", body: `{"id":1}`}
		if authorization != "" {
			r.header = []string{"Authorization", authorization}
		}
		return send(t, s, r)
	}
	for _, bad := range []string{"", "Bearer", "Bearer ", "Bearer " + token + "x", "Bearer " + token[1:], "Basic " + token, token} {
		a := one("telemetry", bad).want(t, 401, "send Authorization: Bearer TOKEN")
		if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="weir"` {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}
	one("nothing", "").want(t, 401, "") // strangers do not learn what there is
	one("telemetry", "Bearer "+token).want(t, 200, "")
	one("telemetry", "bearer "+token).want(t, 200, "")
	one("alerts", "Bearer "+token).want(t, 403, "client plc may not write stream alerts")
	one("alerts", "Bearer fedcba9876543210-gate").want(t, 200, "")
	one("telemetry", "Bearer fedcba9876543210-gate").want(t, 200, "")
	stop()
	if got := shown(append(log.Entries("telemetry"), log.Entries("alerts")...)); got != "plc={\"id\":1} http.client:plc\nplc={\"id\":1} http.client:plc\ngate={\"id\":1} http.client:gate\ngate/1={\"id\":1} http.client:gate" {
		t.Errorf("the log holds\n%s", got)
	}
	if st := s.Status(); st.Refused[Unauthorized] != 8 || st.Refused[Forbidden] != 1 {
		t.Errorf("status %+v", st)
	}
	if strings.Contains(written.String(), token[:10]) || !strings.Contains(written.String(), "unauthorized") {
		t.Errorf("the log is %s", &written)
	}
}

// TestGuessing: an address that tries many tokens is shut out for a while, one
// that repeats an old token is not.
func TestGuessing(t *testing.T) {
	s, _ := startSource(t, guarded(), ingesttest.NewLog())
	try := func(token string) answer {
		return send(t, s, request{kind: "application/json", body: "1", header: bearer(token)})
	}
	for range 3 * maxGuesses {
		try("the token of last year").want(t, 401, "")
	}
	try(token).want(t, 200, "")
	for i := range maxGuesses - 1 {
		try(fmt.Sprint("guess", i)).want(t, 401, "")
	}
	for _, next := range []string{"guess", token} {
		if a := try(next).want(t, 429, "too many different wrong tokens"); a.header.Get("Retry-After") == "" || a.Reason != Throttled {
			t.Errorf("%v", a.header)
		}
	}
}

// TestGuessTable: the table forgets after a minute and is bounded.
func TestGuessTable(t *testing.T) {
	var g guesses
	now := time.Now()
	address := func(i int) netip.Prefix { return prefixOf(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)) }
	for i := range maxGuesses {
		if g.wait(address(0), now) != 0 {
			t.Fatalf("shut out after %d", i)
		}
		g.wrong(address(0), sha256.Sum256([]byte{byte(i)}), now)
	}
	if got := g.wait(address(0), now.Add(20*time.Second)); got != 40*time.Second {
		t.Errorf("wait %s", got)
	}
	if got := g.wait(address(0), now.Add(time.Minute)); got != 0 {
		t.Errorf("wait %s after a minute", got)
	}
	for i := range 3 * maxGuessTables {
		g.wrong(address(i+1), sha256.Sum256(nil), now.Add(time.Duration(i)*time.Microsecond))
	}
	if len(g.tables) != maxGuessTables {
		t.Errorf("%d addresses", len(g.tables))
	}
	if g.tables[address(3*maxGuessTables)] == nil || g.tables[address(1)] != nil {
		t.Error("not the oldest went")
	}
	if a, b, c := prefixOf("[2001:db8::1]:1"), prefixOf("[2001:db8::ffff:1]:2"), prefixOf("[::ffff:10.0.0.1]:3"); a != b || c != prefixOf("10.0.0.1:9") {
		t.Errorf("%s %s %s", a, b, c)
	}
}

// rawPost writes a request by hand and returns the connection.
func rawPost(t testing.TB, s *Source, head string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func readRaw(t testing.TB, in *bufio.Reader) (*nethttp.Response, answer) {
	t.Helper()
	got, err := nethttp.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got, readAnswer(t, got)
}

// TestExpect: a body is asked for only when everything else is right.
func TestExpect(t *testing.T) {
	s, _ := startSource(t, guarded(), ingesttest.NewLog())
	const head = "POST /v1/streams/%s/records HTTP/1.1\nHost: localhost\nContent-Type: %s\nAuthorization: Bearer %s\nExpect: 100-continue\nContent-Length: %d\n\n"
	for _, test := range []struct {
		stream, kind, token string
		length              int
		code                int
	}{
		{"telemetry", "application/json", "wrong", 10, 401},
		{"alerts", "application/json", token, 10, 403},
		{"nothing", "application/json", token, 10, 404},
		{"telemetry", "text/html", token, 10, 415},
		{"telemetry", "application/json", token, 9 << 20, 413},
	} {
		_, in := rawPost(t, s, fmt.Sprintf(head, test.stream, test.kind, test.token, test.length))
		got, a := readRaw(t, in)
		if a.want(t, test.code, ""); !got.Close {
			t.Error("the connection stays, and the body may still come")
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("behind the answer: %v", err)
		}
	}
	conn, in := rawPost(t, s, fmt.Sprintf(head, "telemetry", "application/json", token, 2))
	line, err := in.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "{}"); err != nil {
		t.Fatal(err)
	}
	_, a := readRaw(t, in)
	a.want(t, 200, "")
}

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign writes NAME.pem and NAME.key.
func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
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
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) server() {
	a.sign("server", &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// peer signs a client's certificate and returns a client that shows it.
func (a *authority) peer(name string, dns ...string) *nethttp.Client {
	a.sign("peer", &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: dns, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(a.file("peer.pem"), a.file("peer.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	client := a.stranger()
	client.Transport.(*nethttp.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	return client
}

// stranger trusts the server and shows nothing.
func (a *authority) stranger() *nethttp.Client {
	client := newHTTPClient(a.t)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	client.Transport.(*nethttp.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	return client
}

// TestTLS: tokens over TLS 1.2 and up.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	a.server()
	c := guarded()
	c.TLS = TLSConfig{CertFile: a.file("server.pem"), KeyFile: a.file("server.key")}
	s, _ := startSource(t, c, ingesttest.NewLog())
	client := a.stranger()
	r := request{kind: "application/json", body: "1", header: bearer(token)}.build(t, s)
	r.URL.Scheme = "https"
	roundTrip(t, client, r).want(t, 200, "")
	old := a.stranger()
	old.Transport.(*nethttp.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	r = request{kind: "application/json", body: "1", header: bearer(token)}.build(t, s)
	r.URL.Scheme = "https"
	if got, err := old.Do(r); err == nil {
		_ = got.Body.Close()
		t.Error("TLS 1.1 was taken")
	}
	c.TLS.KeyFile = a.file("ca.key")
	broken, err := New(c, ingesttest.NewLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "tls.cert_file") || broken.Ready() {
		t.Errorf("with the wrong key it runs: %v", err)
	}
}

// TestCertificates: with mutual TLS the certificate names the client.
func TestCertificates(t *testing.T) {
	a := newAuthority(t)
	a.server()
	c := guarded()
	c.TLS = TLSConfig{CertFile: a.file("server.pem"), KeyFile: a.file("server.key"), ClientCAFile: a.file("ca.pem")}
	post := func(s *Source, client *nethttp.Client, header ...string) answer {
		t.Helper()
		r := request{kind: "application/json", body: `{"id":1}`, header: header}.build(t, s)
		r.URL.Scheme = "https"
		return roundTrip(t, client, r)
	}

	c.Clients = nil
	log := ingesttest.NewLog()
	s, stop := startSource(t, c, log)
	post(s, a.peer("pump-1")).want(t, 200, "")
	post(s, a.peer("", "pump-2.example")).want(t, 200, "")
	other := newAuthority(t).peer("pump-1") // of an authority that is not trusted
	other.Transport.(*nethttp.Transport).TLSClientConfig.RootCAs.AddCert(a.cert)
	for _, stranger := range []*nethttp.Client{a.stranger(), other} {
		r := request{kind: "application/json", body: "1"}.build(t, s)
		r.URL.Scheme = "https"
		if got, err := stranger.Do(r); err == nil {
			_ = got.Body.Close()
			t.Errorf("a stranger got %d", got.StatusCode)
		}
	}
	stop()
	if got := shown(log.Entries("telemetry")); got != "pump-1={\"id\":1} http.client:pump-1\npump-2.example={\"id\":1} http.client:pump-2.example" {
		t.Errorf("the log holds\n%s", got)
	}

	c.Clients = append(guarded().Clients, Client{Name: "pump", Streams: []string{"telemetry"}})
	s, _ = startSource(t, c, ingesttest.NewLog())
	post(s, a.peer("pump")).want(t, 200, "")
	post(s, a.peer("x", "pump")).want(t, 200, "")
	post(s, a.peer("plc")).want(t, 401, "the token is missing") // plc has a token and must send it
	post(s, a.peer("any"), bearer(token)...).want(t, 200, "")
	post(s, a.peer("pump"), bearer("wrong")...).want(t, 401, "the token is wrong")
}
