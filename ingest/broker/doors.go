package broker

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	wrongTries  = 10          // wrong passwords of a user from an address
	wrongWithin = time.Minute // in this time; then it has to wait for as long
	maxTries    = 4096        // of them that are remembered
)

// doors count who is inside and who tries too often.
type doors struct {
	max, maxEach int

	mu     sync.Mutex
	inside int
	each   map[netip.Prefix]int
	tries  map[who]tries
}

// who tries passwords. The address alone would lock out everybody behind it.
type who struct {
	from netip.Prefix
	user string
}

type tries struct {
	count int
	since time.Time
}

func newDoors(c Config) *doors {
	d := &doors{max: c.MaxClients, maxEach: c.MaxClientsPerAddress, each: map[netip.Prefix]int{}, tries: map[who]tries{}}
	if d.maxEach == 0 {
		d.maxEach = d.max
	}
	return d
}

// house is what counts as one address: an IPv4 address, or an IPv6 /64.
func house(address net.Addr) netip.Prefix {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// enter lets a connection in, or says why not. leave is called when it ends.
func (d *doors) enter(address net.Addr) (leave func(), reason string) {
	h := house(address)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inside >= d.max:
		return nil, "max_clients"
	case d.each[h] >= d.maxEach:
		return nil, "max_clients_per_address"
	}
	d.inside++
	d.each[h]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.inside--
		if d.each[h]--; d.each[h] <= 0 {
			delete(d.each, h)
		}
	}, ""
}

// mayTry says whether a user may try another password from an address.
func (d *doors) mayTry(address net.Addr, user string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tries[who{house(address), shortened(user)}]
	return t.count < wrongTries || now.Sub(t.since) >= wrongWithin
}

// wrong notes a wrong password.
func (d *doors) wrong(address net.Addr, user string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := who{house(address), shortened(user)}
	t := d.tries[w]
	if now.Sub(t.since) >= wrongWithin {
		t = tries{since: now}
	}
	t.count++
	if len(d.tries) >= maxTries && t.count == 1 {
		return // a flood from everywhere; the checking of passwords is bounded too
	}
	d.tries[w] = t
}

// sweep forgets who has waited.
func (d *doors) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w, t := range d.tries {
		if now.Sub(t.since) >= wrongWithin {
			delete(d.tries, w)
		}
	}
}

// shortened bounds what is remembered of a name that may be anything.
func shortened(user string) string { return user[:min(len(user), 128)] }
