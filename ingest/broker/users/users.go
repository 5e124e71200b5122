// Package users knows who may use the embedded MQTT broker: it reads the file
// that ingest.broker.users_file names, checks passwords against their argon2id
// hashes and says which topics a user may publish and subscribe to.
//
//	defaults:                              # of users without a list of their own
//	  publish: ["devices/{user}/#"]
//	  subscribe: ["commands/{user}/#"]
//	users:
//	  - name: press-7
//	    password: "$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH"
//	  - name: dock-camera                  # the common name of its certificate
//	    certificate: true
//	    publish: ["video/{client_id}/events"]
//	    subscribe: []                      # nothing
//
// What no list allows is denied: a user without a list, in a file without
// defaults, may do nothing. A list of a user's own replaces that of defaults.
//
// File is the file in memory: Authenticate and Certificate find a User, Reload
// reads it anew. Set and Delete edit the file and leave the rest of its text as
// it is. The package opens no connections and starts no goroutines; limits of
// tries per address are the broker's.
package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrDenied is the answer to an unknown user, a wrong password and a user who
// may not come this way: which of them it was is not told.
var ErrDenied = errors.New("user or password is not accepted")

// ErrBusy: too many passwords wait to be checked. Nothing is said about this
// one; the client may try again later.
var ErrBusy = errors.New("too many passwords are being checked")

// rememberFor is how long a verified password is known without its hash being
// computed again. It may be long, for a new hash in the file ends it at once: a
// thousand devices that come back after days on a flaky switch cost nothing.
const rememberFor = 7 * 24 * time.Hour

// File is a users file in memory. It is made with Load and safe for concurrent
// use.
type File struct {
	path string
	key  [sha256.Size]byte // of this process, for what is remembered and for decoys
	gate *gate

	mu         sync.RWMutex
	users      map[string]*User
	decoys     []*phc
	warnings   []string
	stamp      stamp
	remembered map[*User]memory // at most one a user
}

// memory is a password that was right.
type memory struct {
	mac   [sha256.Size]byte
	until time.Time
}

// User is one user of the file. It is shared by all connections of that name
// and stays up to date: after Reload its lists are those of the new file, and
// it is revoked if the file has no such user any more or other credentials.
type User struct {
	Name string

	account atomic.Pointer[account] // nil: revoked
}

// account is what the file says of a user. It does not change.
type account struct {
	hash        *phc // nil: no password
	certificate bool
	publish     []pattern
	subscribe   []pattern
}

// Load reads the file at path. The error is Faults if the text is wrong, else
// that of reading.
func Load(path string) (*File, error) {
	f := &File{path: path, gate: newGate(), remembered: map[*User]memory{}}
	rand.Read(f.key[:]) // never fails
	if err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Reload reads the file again. If it has a fault, what was loaded before stays
// as it is. Otherwise users whose entry is gone, or whose password or
// certificate entry changed, are revoked; the others go on with their new lists.
func (f *File) Reload() error {
	text, stamp, err := read(f.path)
	if err != nil {
		return err
	}
	d, err := parse(f.path, text)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.users
	f.users = make(map[string]*User, len(d.users))
	f.decoys = nil
	for _, e := range d.users {
		a := e.account(d)
		if a.hash != nil {
			f.decoys = append(f.decoys, a.hash.decoy())
		}
		u := before[e.name]
		if u == nil || !u.account.Load().sameCredentials(a) {
			u = &User{Name: e.name}
		}
		u.account.Store(a)
		f.users[e.name] = u
	}
	if len(f.decoys) == 0 {
		f.decoys = []*phc{new(phc).withDefaults().decoy()}
	}
	for name, u := range before {
		if f.users[name] != u {
			u.account.Store(nil)
			delete(f.remembered, u)
		}
	}
	f.stamp, f.warnings = stamp, append(stamp.warnings(), d.warnings()...)
	return nil
}

func (a *account) sameCredentials(b *account) bool {
	return a != nil && a.certificate == b.certificate && a.hash.equal(b.hash)
}

// Changed says whether the file on disk is another than the one loaded last, by
// its size, times and place. An error is that of looking.
func (f *File) Changed() (bool, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return false, fmt.Errorf("look at users file: %w", err)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.stamp.same(info), nil
}

// Warnings are what is wrong with the file as it was loaded last and does not
// stop it: that others may read it, that a user may do nothing. One line each.
func (f *File) Warnings() []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return append([]string(nil), f.warnings...)
}

// Len is how many users the file has.
func (f *File) Len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.users)
}

// Authenticate returns the user of that name if the password is right. It
// returns ErrDenied if not, after about the same time whether there is such a user or
// not; ErrBusy if too many wait already; an error that wraps ctx.Err() if ctx
// ends while it waits. It takes tens of milliseconds, once begun whatever ctx
// does, unless this password of this user was right before. It does not keep
// password.
func (f *File) Authenticate(ctx context.Context, name string, password []byte) (*User, error) {
	user, hash, mac := f.lookup(name, password)
	if user != nil && f.recalls(user, mac) {
		return user, nil
	}
	if err := f.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer f.gate.leave()
	// Another connection of this user may have been checked meanwhile.
	if user != nil && f.recalls(user, mac) {
		return user, nil
	}
	right := hash.verify(password)
	if !right || user == nil || len(password) == 0 || len(password) > MaxPasswordBytes || !f.remember(user, hash, mac) {
		return nil, ErrDenied
	}
	return user, nil
}

// Remembered says whether this password of this user was found right before, so
// that Authenticate will not have to compute anything.
func (f *File) Remembered(name string, password []byte) bool {
	user, _, mac := f.lookup(name, password)
	return user != nil && f.recalls(user, mac)
}

// lookup returns the user, nil if there is none with a password, and the hash
// to compute, in place of a user's that of a decoy. The decoy has the cost of some user
// of the file and is always the same for a name, so that time tells nothing.
func (f *File) lookup(name string, password []byte) (*User, *phc, [sha256.Size]byte) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if u := f.users[name]; u != nil {
		if a := u.account.Load(); a != nil && a.hash != nil {
			return u, a.hash, f.mac(name, a.hash.text, password)
		}
	}
	mac := f.mac(name, "", nil)
	return nil, f.decoys[binary.BigEndian.Uint64(mac[:8])%uint64(len(f.decoys))], mac
}

// mac is what is kept of a password that was right: worth nothing without the
// key of this process, and bound to the hash in the file.
func (f *File) mac(name, hash string, password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, f.key[:])
	for _, part := range [][]byte{[]byte(name), []byte(hash), password} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

func (f *File) recalls(u *User, mac [sha256.Size]byte) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m, ok := f.remembered[u]
	return ok && hmac.Equal(m.mac[:], mac[:]) && time.Now().Before(m.until)
}

// remember notes a password that was right by hash. It says no if the file was
// reloaded meanwhile and has another.
func (f *File) remember(u *User, hash *phc, mac [sha256.Size]byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := u.account.Load(); a == nil || !a.hash.equal(hash) {
		return false
	}
	f.remembered[u] = memory{mac: mac, until: time.Now().Add(rememberFor)}
	return true
}

// Certificate returns the user whose name is the common name of a client
// certificate. The caller has verified the certificate. It returns ErrDenied
// if there is none, or if the entry does not say certificate: true.
func (f *File) Certificate(name string) (*User, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if u := f.users[name]; u != nil {
		if a := u.account.Load(); a != nil && a.certificate {
			return u, nil
		}
	}
	return nil, ErrDenied
}

// Revoked says that the user is not in the file any more, or not with the
// same credentials. Its connections have to end; it may do nothing.
func (u *User) Revoked() bool { return u.account.Load() == nil }

// stamp tells one state of the file from another.
type stamp struct {
	info fs.FileInfo
	path string
}

func (s stamp) same(other fs.FileInfo) bool {
	return s.info != nil && os.SameFile(s.info, other) && s.info.Size() == other.Size() && s.info.ModTime().Equal(other.ModTime())
}

func (s stamp) warnings() []string {
	switch mode := s.info.Mode().Perm(); {
	case mode&0o022 != 0:
		return []string{fmt.Sprintf("%s: others may write it (mode %04o); make it 0600", s.path, mode)}
	case mode&0o004 != 0:
		return []string{fmt.Sprintf("%s: every user of this machine may read the hashes (mode %04o); make it 0600", s.path, mode)}
	}
	return nil
}

// read returns a bounded file and its state at that time.
func read(path string) ([]byte, stamp, error) {
	// A pipe would block the open for ever.
	if info, err := os.Stat(path); err != nil {
		return nil, stamp{}, fmt.Errorf("read users file: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, stamp{}, fmt.Errorf("read users file: %s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("read users file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, stamp{}, fmt.Errorf("read users file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, MaxFileBytes+1))
	if err != nil {
		return nil, stamp{}, fmt.Errorf("read users file: %w", err)
	}
	return text, stamp{info: info, path: path}, nil
}
