package crashtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weir-edge/weir/buffer/crashtest"
)

func put(key, value string) crashtest.KVOp {
	return crashtest.KVOp{Key: []byte(key), Value: []byte(value)}
}

func del(key string) crashtest.KVOp { return crashtest.KVOp{Key: []byte(key), Delete: true} }

// scan returns the pairs of a range as text.
func scan(t *testing.T, kv *crashtest.KV, from, to string, reverse bool) string {
	t.Helper()
	var pairs []string
	must(t, kv.Scan([]byte(from), []byte(to), reverse, func(key, value []byte) bool {
		pairs = append(pairs, fmt.Sprintf("%s=%s", key, value))
		return true
	}))
	return strings.Join(pairs, " ")
}

func TestKV(t *testing.T) {
	f := crashtest.New(1 << 20)
	kv := f.NewKV("index")
	must(t, kv.Write([]crashtest.KVOp{put("b", "1"), put("d", "2"), put("a", "3"), put("b", "4"), del("a"), put("c", "")}))
	for _, c := range []struct {
		from, to string
		reverse  bool
		want     string
	}{
		{"", "", false, "b=4 c= d=2"},
		{"", "", true, "d=2 c= b=4"},
		{"b", "d", false, "b=4 c="},
		{"b", "d", true, "c= b=4"},
		{"bb", "cc", true, "c="},
		{"e", "f", false, ""},
		{"d", "b", false, ""},
	} {
		if got := scan(t, kv, c.from, c.to, c.reverse); got != c.want {
			t.Errorf("scan %q to %q, reverse %v: %q, want %q", c.from, c.to, c.reverse, got, c.want)
		}
	}
	if v, ok, err := kv.Get([]byte("b")); string(v) != "4" || !ok || err != nil {
		t.Errorf("%q, %v, %v", v, ok, err)
	}
	if v, ok, err := kv.Get([]byte("a")); v != nil || ok || err != nil {
		t.Errorf("%q, %v, %v", v, ok, err)
	}
	n := 0
	must(t, kv.Scan(nil, nil, false, func(key, _ []byte) bool {
		n++
		must(t, kv.Write([]crashtest.KVOp{del(string(key))}))
		return n < 2
	}))
	if got := scan(t, kv, "", "", false); n != 2 || got != "d=2" {
		t.Errorf("%d steps, %q left", n, got)
	}
	must(t, kv.Close())
	if _, _, err := kv.Get([]byte("d")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("get: %v", err)
	}
	if err := kv.Write(nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := kv.Scan(nil, nil, false, nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("scan: %v", err)
	}
	if err := kv.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("close: %v", err)
	}
	if got := scan(t, f.OpenKV("index"), "", "", false); got != "d=2" {
		t.Errorf("%q after it was opened again", got)
	}
}

func TestKVKeepsNothingOfTheCaller(t *testing.T) {
	kv := crashtest.New(1 << 20).NewKV("index")
	ops := []crashtest.KVOp{put("k", "v")}
	must(t, kv.Write(ops))
	ops[0].Key[0], ops[0].Value[0] = 'x', 'x'
	v, _, err := kv.Get([]byte("k"))
	must(t, err)
	if string(v) != "v" {
		t.Errorf("%q, want v", v)
	}
	v[0] = 'x'
	if got := scan(t, kv, "", "", false); got != "k=v" {
		t.Errorf("%q, want k=v", got)
	}
}

// TestKVAtCuts: a store is at every cut as it was, in every mode, and a cut in
// a write has all of it or nothing.
func TestKVAtCuts(t *testing.T) {
	f := crashtest.New(1 << 20)
	random := rand.New(rand.NewPCG(1, 2))
	model, states := map[string]string{}, []string{""}
	text := func() string {
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			pairs = append(pairs, k+"="+model[k])
		}
		return strings.Join(pairs, " ")
	}
	kv := f.NewKV("index")
	states = append(states, "")
	for i := range 400 {
		if i == 300 {
			kv = f.NewKV("index")
			clear(model)
			states = append(states, "")
		}
		var ops []crashtest.KVOp
		for range random.IntN(6) {
			key, value := fmt.Sprint("k", random.IntN(40)), fmt.Sprint(random.IntN(1000))
			if random.IntN(3) == 0 {
				ops = append(ops, del(key))
				delete(model, key)
			} else {
				ops = append(ops, put(key, value))
				model[key] = value
			}
		}
		must(t, kv.Write(ops))
		states = append(states, text())
	}
	if f.Ops() != len(states)-1 {
		t.Fatalf("%d operations, want %d", f.Ops(), len(states)-1)
	}
	for op, want := range states {
		for _, mode := range crashtest.Modes() {
			after := f.CrashAt(op, crashtest.Tear{Seed: uint64(op), Mode: mode})
			if got := scan(t, after.OpenKV("index"), "", "", false); got != want {
				t.Fatalf("cut %d, %v: %q, want %q", op, mode, got, want)
			}
		}
	}
}
