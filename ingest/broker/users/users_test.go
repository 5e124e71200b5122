package users

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hashes sync.Map

// hashOf makes each hash once, for they are slow by design.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	if h, ok := hashes.Load(password); ok {
		return h.(string)
	}
	h, err := Hash([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	hashes.Store(password, h)
	return h
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// load writes a file with text, in which HASH(x) is the hash of x.
func load(t testing.TB, text string) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.yaml")
	write(t, path, hashed(t, text))
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func hashed(t testing.TB, text string) string {
	for {
		before, rest, ok := strings.Cut(text, "HASH(")
		if !ok {
			return text
		}
		password, after, _ := strings.Cut(rest, ")")
		text = before + `"` + hashOf(t, password) + `"` + after
	}
}

func authenticate(t testing.TB, f *File, name, password string) *User {
	t.Helper()
	u, err := f.Authenticate(t.Context(), name, []byte(password))
	if err != nil || u.Name != name {
		t.Fatalf("%s: %v, %v", name, u, err)
	}
	return u
}

const sample = `
defaults:
  publish: ["devices/{user}/#"]
users:
  - name: press-7
    password: HASH(seven)
    subscribe: ["commands/{user}/#", "own/{client_id}"]
  - name: press-8
    password: HASH(eight)
    publish: []
  - name: dock
    certificate: true
`

func TestAuthenticate(t *testing.T) {
	f := load(t, sample)
	for range 2 { // the second time it is remembered
		authenticate(t, f, "press-7", "seven")
		authenticate(t, f, "press-8", "eight")
	}
	for _, c := range [][2]string{
		{"press-7", "eight"}, {"press-7", "seve"}, {"press-7", "seven "}, {"press-7", ""}, {"press-7", strings.Repeat("x", MaxPasswordBytes+1)},
		{"nobody", "seven"}, {"", ""}, {"dock", ""}, {"dock", "dock"}, {"Press-7", "seven"}, {"press-7\x00", "seven"},
	} {
		if u, err := f.Authenticate(t.Context(), c[0], []byte(c[1])); u != nil || err != ErrDenied {
			t.Errorf("%q with %.20q: %v, %v", c[0], c[1], u, err)
		}
	}
	if u, err := f.Certificate("dock"); err != nil || u.Name != "dock" {
		t.Errorf("dock: %v, %v", u, err)
	}
	for _, name := range []string{"press-7", "nobody", ""} {
		if u, err := f.Certificate(name); u != nil || !errors.Is(err, ErrDenied) {
			t.Errorf("certificate of %q: %v, %v", name, u, err)
		}
	}
	if f.Len() != 3 {
		t.Errorf("%d users", f.Len())
	}
}

// TestEmptyPassword: a file may hold the hash of nothing, and nothing is no
// password.
func TestEmptyPassword(t *testing.T) {
	h := new(phc).withDefaults()
	h.sum = h.compute(nil)
	f := load(t, "users:\n  - name: a\n    password: "+h.encode()+"\n")
	if _, err := f.Authenticate(t.Context(), "a", nil); err != ErrDenied {
		t.Errorf("%v", err)
	}
}

// TestRememberedInTheDark: a password that was right is not kept in clear, and
// is forgotten in time.
func TestRememberedInTheDark(t *testing.T) {
	f := load(t, sample)
	u := authenticate(t, f, "press-7", "seven")
	m := f.remembered[u]
	if len(f.remembered) != 1 || strings.Contains(string(m.mac[:]), "seven") {
		t.Fatalf("%v", f.remembered)
	}
	if other := load(t, sample); other.mac("press-7", "h", []byte("seven")) == f.mac("press-7", "h", []byte("seven")) {
		t.Error("the key is the same in two files")
	}
	if f.mac("ab", "c", nil) == f.mac("a", "bc", nil) {
		t.Error("parts run together")
	}
	if left := time.Until(m.until); left <= 0 || left > rememberFor {
		t.Errorf("it is remembered for %v", left)
	}
	m.until = time.Now()
	f.remembered[u] = m
	if f.recalls(u, m.mac) {
		t.Error("it is remembered for ever")
	}
	if _, err := f.Authenticate(t.Context(), "press-7", []byte("wrong")); err != ErrDenied || f.remembered[u] != m {
		t.Errorf("a wrong password changes what is remembered: %v", err)
	}
}

// TestSameTime: an unknown user takes as long as a wrong password. The medians
// may differ by the noise of the machine, not by the hash.
func TestSameTime(t *testing.T) {
	f := load(t, sample)
	median := func(name string) time.Duration {
		var list []time.Duration
		for range 7 {
			begin := time.Now()
			if _, err := f.Authenticate(t.Context(), name, []byte("wrong")); err != ErrDenied {
				t.Fatal(err)
			}
			list = append(list, time.Since(begin))
		}
		return middle(list)
	}
	known, unknown, certificate := median("press-7"), median("nobody"), median("dock")
	for what, d := range map[string]time.Duration{"unknown": unknown, "without password": certificate} {
		if d < known/3 || d > 3*known {
			t.Errorf("known %v, %s %v", known, what, d)
		}
	}
}

func middle(list []time.Duration) time.Duration {
	for i := range list {
		for j := i; j > 0 && list[j] < list[j-1]; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list[len(list)/2]
}

// TestGate: few at once, a bounded number waits, and each can stop waiting.
func TestGate(t *testing.T) {
	f := load(t, sample)
	authenticate(t, f, "press-8", "eight")
	slots := max(1, runtime.GOMAXPROCS(0)/2)
	for range slots {
		if err := f.gate.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, maxWaiting+1)
	for range maxWaiting {
		go func() {
			_, err := f.Authenticate(ctx, "press-7", []byte("seven"))
			answers <- err
		}()
	}
	until(t, "all wait", func() bool { return f.gate.waiting.Load() == maxWaiting })
	if _, err := f.Authenticate(t.Context(), "press-7", []byte("seven")); err != ErrBusy {
		t.Errorf("one more: %v", err)
	}
	authenticate(t, f, "press-8", "eight") // who is remembered does not wait
	if f.gate.waiting.Load() != maxWaiting {
		t.Errorf("%d wait", f.gate.waiting.Load())
	}
	cancel()
	for range maxWaiting {
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Errorf("who stopped waiting: %v", err)
		}
	}
	if _, err := f.Authenticate(ctx, "press-7", []byte("seven")); !errors.Is(err, context.Canceled) {
		t.Errorf("who comes too late: %v", err)
	}
	for range slots {
		f.gate.leave()
	}
	authenticate(t, f, "press-7", "seven")
	if n := len(f.gate.slots); n != 0 {
		t.Errorf("%d slots are not given back", n)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// TestTogether is for the race detector: a reload while users come.
func TestTogether(t *testing.T) {
	f := load(t, sample)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 3 {
				name := []string{"press-7", "press-8", "nobody", "dock"}[i%4]
				if u, err := f.Authenticate(t.Context(), name, []byte("seven")); err == nil {
					u.MayPublish("c", "devices/press-7/x")
				}
				_, _ = f.Certificate(name) // its answer is tested elsewhere
				if err := f.Reload(); err != nil {
					t.Error(err)
				}
				f.Warnings()
			}
		})
	}
	group.Wait()
}

func TestReload(t *testing.T) {
	f := load(t, sample)
	seven, eight := authenticate(t, f, "press-7", "seven"), authenticate(t, f, "press-8", "eight")
	dock, err := f.Certificate("dock")
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Changed(); changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}

	// A fault changes nothing.
	write(t, f.path, "users: [{name: press-7}]")
	if changed, err := f.Changed(); !changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	if err := f.Reload(); err == nil || !strings.Contains(err.Error(), f.path+":1: users[0]: it has neither a password") {
		t.Errorf("%v", err)
	}
	if u := authenticate(t, f, "press-7", "seven"); u != seven || u.Revoked() || !u.MayPublish("c", "devices/press-7/a") {
		t.Error("a fault took a user away")
	}

	// Lists change beneath those who are connected; credentials revoke.
	write(t, f.path, hashed(t, `
users:
  - name: press-7
    password: HASH(seven)
    publish: ["other/#"]
  - name: dock
    password: HASH(dock)
    publish: ["#"]
  - name: new
    certificate: true
    publish: ["#"]
`))
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if u := authenticate(t, f, "press-7", "seven"); u != seven || seven.Revoked() || seven.MayPublish("c", "devices/press-7/a") || !seven.MayPublish("c", "other/a") || seven.MaySubscribe("c", "commands/press-7/x") {
		t.Error("press-7 does not have the new lists")
	}
	if !eight.Revoked() || eight.MayPublish("c", "other/a") || eight.MaySubscribe("c", "own/c") {
		t.Error("press-8 is gone and may still do something")
	}
	if !dock.Revoked() || dock.MayPublish("c", "x") {
		t.Error("dock came by a certificate and needs a password now")
	}
	if _, err := f.Authenticate(t.Context(), "press-8", []byte("eight")); err != ErrDenied {
		t.Errorf("press-8: %v", err)
	}
	if len(f.remembered) != 1 {
		t.Errorf("%d are remembered", len(f.remembered))
	}

	// A new password ends what was remembered of the old one.
	write(t, f.path, hashed(t, "users:\n  - name: press-7\n    password: HASH(new)\n    publish: ['#']\n"))
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), "press-7", []byte("seven")); err != ErrDenied || !seven.Revoked() {
		t.Errorf("the old password: %v, revoked %v", err, seven.Revoked())
	}
	authenticate(t, f, "press-7", "new")

	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is gone: %v", err)
	}
	if _, err := f.Changed(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is gone: %v", err)
	}
	authenticate(t, f, "press-7", "new")
}

func TestWarnings(t *testing.T) {
	f := load(t, "users:\n  - name: idle\n    certificate: true\n  - {name: busy, certificate: true, publish: [a]}\n")
	if got := strings.Join(f.Warnings(), "\n"); got != f.path+`:2: user "idle" may neither publish nor subscribe; give the entry, or defaults, a list` {
		t.Errorf("%s", got)
	}
	for mode, want := range map[os.FileMode]string{0o604: "every user of this machine may read the hashes", 0o602: "others may write it", 0o620: "others may write it", 0o640: "", 0o400: ""} {
		if err := os.Chmod(f.path, mode); err != nil {
			t.Fatal(err)
		}
		if err := f.Reload(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.Warnings(), "\n"); want == "" && strings.Contains(got, "mode") || !strings.Contains(got, want) {
			t.Errorf("mode %o: %s", mode, got)
		}
	}
}

// TestThousands: what a fleet needs loads in little time.
func TestThousands(t *testing.T) {
	var b strings.Builder
	b.WriteString("defaults:\n  publish: ['devices/{user}/#']\nusers:\n")
	for i := range MaxUsers {
		fmt.Fprintf(&b, "  - name: device-%d\n    password: \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0%04d$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g\"\n", i, i)
	}
	begin := time.Now()
	f := load(t, b.String())
	if f.Len() != MaxUsers {
		t.Errorf("%d users", f.Len())
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	large := filepath.Join(dir, "large")
	write(t, large, strings.Repeat("#\n", MaxFileBytes/2+1))
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("large: %v", err)
	}
	empty := filepath.Join(dir, "empty")
	write(t, empty, "# nobody yet\n")
	f, err := Load(empty)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), "a", []byte("b")); err != ErrDenied {
		t.Errorf("of an empty file: %v", err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	f := load(b, sample)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Authenticate(b.Context(), "press-7", []byte("wrong")); err != ErrDenied {
			b.Fatal(err)
		}
	}
}

func BenchmarkRemembered(b *testing.B) {
	f := load(b, sample)
	b.ReportAllocs()
	for b.Loop() {
		authenticate(b, f, "press-7", "seven")
	}
}

func BenchmarkMayPublish(b *testing.B) {
	f := load(b, sample)
	u := authenticate(b, f, "press-7", "seven")
	b.ReportAllocs()
	for b.Loop() {
		if !u.MayPublish("client", "devices/press-7/temperature") {
			b.Fatal("denied")
		}
	}
}
