package http

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	nethttp "net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// client is who may write, ready to be compared.
type client struct {
	name    string
	token   [sha256.Size]byte
	byToken bool            // else by certificate
	streams map[string]bool // nil: all
}

func newClient(c Client) client {
	out := client{name: c.Name, byToken: !c.Token.IsZero(), token: sha256.Sum256([]byte(c.Token.Reveal()))}
	if len(c.Streams) > 0 {
		out.streams = make(map[string]bool)
		for _, name := range c.Streams {
			out.streams[name] = true
		}
	}
	return out
}

func (c *client) may(stream string) bool { return c.streams == nil || c.streams[stream] }

// admit says whose request it is, before anything of its body is read.
func (s *Source) admit(r *nethttp.Request) (*client, *problem) {
	if s.config.Loopback() && !isLoopback(hostOnly(r.Host)) {
		// A page whose name was made to point at this machine.
		return nil, refuse(BadHost, "host %.100q is not this machine; use http://127.0.0.1 or http://localhost", r.Host)
	}
	if fromPage(r) {
		return nil, refuse(BadOrigin, "a web page may not write records; send no Origin header")
	}
	if len(s.clients) == 0 {
		return &client{name: certificateName(r)}, nil
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		given = ""
	}
	if given == "" {
		if c := s.byCertificate(r); c != nil {
			return c, nil
		}
		return nil, refuse(Unauthorized, "the token is missing; send Authorization: Bearer TOKEN").challenge()
	}
	from, now := prefixOf(r.RemoteAddr), time.Now()
	if wait := s.guesses.wait(from, now); wait > 0 {
		return nil, refuse(Throttled, "too many different wrong tokens came from this address").after(wait)
	}
	hash := sha256.Sum256([]byte(given))
	// Hashes of all clients are compared, so that the time it takes tells
	// neither the content of a token nor whose it is.
	var found *client
	for i := range s.clients {
		c := &s.clients[i]
		if subtle.ConstantTimeCompare(hash[:], c.token[:]) == 1 && c.byToken {
			found = c
		}
	}
	if found == nil {
		s.guesses.wrong(from, hash, now)
		return nil, refuse(Unauthorized, "the token is wrong; send Authorization: Bearer TOKEN").challenge()
	}
	return found, nil
}

// byCertificate is the client without a token that the certificate names.
func (s *Source) byCertificate(r *nethttp.Request) *client {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	for i := range s.clients {
		c := &s.clients[i]
		if c.byToken {
			continue
		}
		if leaf.Subject.CommonName == c.name {
			return c
		}
		for _, name := range leaf.DNSNames {
			if name == c.name {
				return c
			}
		}
	}
	return nil
}

// certificateName is the common name of the client's certificate, or its first
// DNS name.
func certificateName(r *nethttp.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if leaf.Subject.CommonName == "" && len(leaf.DNSNames) > 0 {
		return leaf.DNSNames[0]
	}
	return leaf.Subject.CommonName
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// fromPage says whether a browser sent r on behalf of a page. Devices have no
// reason to send an Origin, and a page may post text/plain without asking.
func fromPage(r *nethttp.Request) bool {
	if r.Header.Get("Origin") != "" {
		return true
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "none"
}

// The bounds of guessing.
const (
	guessWindow    = time.Minute
	maxGuesses     = 10
	maxGuessTables = 1024 // addresses that are remembered
)

// guesses counts the different wrong tokens of each address. The same one over
// and over is a device with an old token, which must not lock out the others
// behind its address; one that tries many is guessing.
type guesses struct {
	mu     sync.Mutex
	tables map[netip.Prefix]*guessTable
}

type guessTable struct {
	began time.Time
	tried [maxGuesses][8]byte
	n     int
}

// wait is how long requests of an address are not looked at any more; 0: they
// are.
func (g *guesses) wait(from netip.Prefix, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tables[from]
	if t == nil || t.n < maxGuesses {
		return 0
	}
	return max(0, guessWindow-now.Sub(t.began))
}

// wrong notes a wrong token.
func (g *guesses) wrong(from netip.Prefix, hash [sha256.Size]byte, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tables[from]
	if t == nil || now.Sub(t.began) >= guessWindow {
		g.makeRoom(now)
		t = &guessTable{began: now}
		g.tables[from] = t
	}
	key := [8]byte(hash[:8])
	for i := range t.n {
		if t.tried[i] == key {
			return
		}
	}
	if t.n < maxGuesses {
		t.tried[t.n] = key
		t.n++
	}
}

// makeRoom keeps the number of addresses bounded: what is over goes, and if
// nothing is, the oldest does.
func (g *guesses) makeRoom(now time.Time) {
	if g.tables == nil {
		g.tables = make(map[netip.Prefix]*guessTable)
	}
	if len(g.tables) < maxGuessTables {
		return
	}
	var oldest netip.Prefix
	var began time.Time
	for from, t := range g.tables {
		if now.Sub(t.began) >= guessWindow {
			delete(g.tables, from)
			continue
		}
		if began.IsZero() || t.began.Before(began) {
			oldest, began = from, t.began
		}
	}
	if len(g.tables) >= maxGuessTables {
		delete(g.tables, oldest)
	}
}
