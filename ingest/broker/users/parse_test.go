package users

import (
	"strings"
	"testing"
)

const aHash = `"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"`

// TestFaults: each fault has its place, and says what would be right.
func TestFaults(t *testing.T) {
	user := "users:\n  - name: a\n    password: " + aHash + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"a key at the top":       {"user: []", "f:1: user: unknown key; known here are users, defaults"},
		"a key of a user":        {user + "    pasword: x\n", "f:4: users[0].pasword: unknown key; known here are name, password, certificate, publish, subscribe"},
		"a key of defaults":      {"defaults: {read: []}", "f:1: defaults.read: unknown key"},
		"a key twice":            {user + "    name: b\n", "f:4: users[0].name: duplicate key; it is already in line 2"},
		"no mapping":             {"[a]", "f:1: it needs keys of its own: users, defaults"},
		"users no list":          {"users: {a: b}", "f:1: users: it needs a list"},
		"a user no mapping":      {"users: [a]", "f:1: users[0]: it needs keys of its own"},
		"no name":                {"users:\n  - password: " + aHash, "f:2: users[0].name: missing"},
		"an empty name":          {"users:\n  - name: ''\n    certificate: true\n", "f:2: users[0].name: the name is empty"},
		"a name without value":   {"users:\n  - name:\n    certificate: true\n", "f:2: users[0].name: it has no value"},
		"a long name":            {"users:\n  - name: " + strings.Repeat("x", 257) + "\n    certificate: true\n", "f:2: users[0].name: the name has 257 bytes"},
		"a name with control":    {"users:\n  - name: \"a\\nb\"\n    certificate: true\n", "f:2: users[0].name: the name has characters that do not print"},
		"a name that is true":    {"users:\n  - name: true\n    certificate: true\n", "f:2: users[0].name: it is not a text; put it in quotes"},
		"a user twice":           {user + "  - {name: a, certificate: true}\n", `f:4: users[1].name: user "a" is already in line 2`},
		"no credentials":         {"users:\n  - name: a\n", "f:2: users[0]: it has neither a password nor certificate: true"},
		"certificate false":      {"users:\n  - {name: a, certificate: false}\n", "f:2: users[0]: it has neither a password nor certificate: true"},
		"certificate no boolean": {"users:\n  - {name: a, certificate: 'yes'}\n", "f:2: users[0].certificate: it is not true or false"},
		"a password in clear":    {"users:\n  - {name: a, password: hunter2}\n", "f:2: users[0].password: it is not a hash like"},
		"a list that is text":    {user + "    publish: a/b\n", "f:4: users[0].publish: it needs a list of filters"},
		"a list without value":   {user + "    publish:\n", "f:4: users[0].publish: it needs a list of filters"},
		"a filter":               {user + "    publish:\n      - a\n      - a/#/b\n", `f:6: users[0].publish[1]: in "a/#/b" the # must be the whole last level`},
		"a plus":                 {user + "    subscribe: [a+/b]\n", `f:4: users[0].subscribe[0]: in "a+/b" a + must be a whole level`},
		"an empty filter":        {user + "    publish: ['']\n", "f:4: users[0].publish[0]: it is empty"},
		"a placeholder":          {user + "    publish: ['{name}']\n", "f:4: users[0].publish[0]: placeholder {name} is not one of {user}, {client_id}"},
		"an open brace":          {user + "    publish: ['a/{user']\n", "f:4: users[0].publish[0]: the { in \"{user\" has no }"},
		"a closed brace":         {user + "    publish: ['a/user}']\n", "f:4: users[0].publish[0]: the } in \"user}\" has no {"},
		"a shared pattern":       {user + "    subscribe: ['$share/g/a']\n", "f:4: users[0].subscribe[0]: $share/GROUP/ is not part of a pattern"},
		"a long filter":          {user + "    publish: [" + strings.Repeat("x", 1025) + "]\n", "f:4: users[0].publish[0]: it has 1025 bytes"},
		"many filters":           {user + "    publish: [" + strings.Repeat("x,", 100) + "x]\n", "f:4: users[0].publish: 101 filters are more than 100"},
		"many users":             {"users:\n" + strings.Repeat("  - {}\n", MaxUsers+1), "f:1: users: 10001 users are more than 10000"},
		"a name as wildcard":     {"defaults:\n  publish: ['d/{user}/#']\nusers:\n  - {name: 'a/b', certificate: true}\n", "f:4: users[0].name: the pattern of line 2 has {user}, which cannot stand for a name with / + or #"},
		"an anchor":              {"users: &a []", "f:1: not YAML: tags, anchors, aliases, merge keys and ? are not supported"},
		"a second document":      {"users: []\n---\nusers: []\n", "f:3: not YAML: a second document (after ---) is not read"},
		"braces in a list":       {user + "    publish: [d/{user}/#]\n", `f:4: not YAML: `},
		"a tab":                  {"users:\n\t- name: a\n", "f:2: not YAML: "},
		"too deep":               {"users: " + strings.Repeat("[", 20) + strings.Repeat("]", 20), "f:1: not YAML: it nests too deep"},
		"too much":               {"users: [" + strings.Repeat(",", maxEntries+1) + "]", "f:1: not YAML: it has more than 100000 keys"},
		"not UTF-8":              {"users: [\xff]", "f: the text is not UTF-8"},
	} {
		_, err := parse("f", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aGFzaG")) {
			t.Errorf("%s shows a secret: %v", name, err)
		}
	}
	if _, err := parse("f", []byte(user+"    publish: [d/{user}/#]\n")); err == nil || !strings.Contains(err.Error(), "is put in quotes") {
		t.Errorf("no hint for braces: %v", err)
	}
	if _, err := parse("f", []byte("users:\n"+strings.Repeat("  - {}\n", 500))); err == nil || strings.Count(err.Error(), "\n") != maxFaults || !strings.Contains(err.Error(), "f: 900 more faults") {
		t.Errorf("of many faults: %.300v", err)
	}
}

func TestPHC(t *testing.T) {
	sound := strings.Trim(aHash, `"`)
	h, err := parsePHC(sound)
	if err != nil || h.memory != 19456 || h.time != 2 || h.lanes != 1 || string(h.salt) != "saltsaltsaltsalt" || len(h.sum) != 32 {
		t.Fatalf("%+v, %v", h, err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"argon2id", "argon2i", "only argon2id"}, {"v=19", "v=16", "only version 19"}, {"$argon2id", "argon2id", "it is not a hash"},
		{"m=19456", "m=8191", "m=8191 is not between 8192 (8 MiB) and 262144 (256 MiB)"}, {"m=19456", "m=262145", "m=262145 is not between"},
		{"m=19456", "m=99999999999999999999", "not of the form"}, {"m=19456", "m=-1", "is not between"}, {"m=19456", "m=+19456", "not of the form"}, {"m=19456", "m=019456", "not of the form"},
		{"t=2", "t=0", "t=0 is not between 1 and 10"}, {"t=2", "t=11", "t=11 is not between"}, {"t=2", "t=1", "m=19456,t=1 is too weak"},
		{"m=19456,t=2", "m=262144,t=5", "too much work"}, {"p=1", "p=0", "p=0 is not between 1 and 4"}, {"p=1", "p=5", "p=5 is not between"},
		{"m=19456,t=2,p=1", "t=2,m=19456,p=1", "not of the form"}, {",p=1", ",p=1,keyid=x", "not of the form"}, {",p=1", "", "not of the form"},
		{"c2FsdHNhbHRzYWx0c2FsdA", "c2FsdA", "the salt has 4 bytes, not 8 to 64"}, {"c2FsdHNhbHRzYWx0c2FsdA", "c2FsdHNhbHRzYWx0c2FsdA==", "the salt is not base64 without padding"},
		{"c2FsdHNhbHRzYWx0c2FsdA", "c2FsdHNhbHRzYWx0c2FsdB", "the salt is not base64"}, {"c2FsdHNhbHRzYWx0c2FsdA", "c2FsdHNhbHRz\nYWx0c2FsdA", "the salt is not base64"},
		{"aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g", "aGFzaA", "the hash has 4 bytes, not 16 to 64"}, {"aGFzaGhhc2hoYXNo", strings.Repeat("A", 300), "at most 256 characters"},
		{"c2FsdHNhbHRzYWx0c2FsdA$", "c2FsdHNhbHRzYWx0c2FsdA$$", "it is not a hash"},
	} {
		text := strings.Replace(sound, c.old, c.new, 1)
		if _, err := parsePHC(text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", text, err, c.want)
		}
	}
}

// TestKnownHash: hashes of the reference program (Debian's argon2) are
// understood, and ours have OWASP's parameters.
func TestKnownHash(t *testing.T) {
	for _, text := range []string{
		// echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 24 -e
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$2mzTAI85jwP6+k/mHDeH3OgNt7E86G5W",
		// echo -n password | argon2 somesalt4711 -id -t 3 -k 16384 -p 4 -l 32 -e
		"$argon2id$v=19$m=16384,t=3,p=4$c29tZXNhbHQ0NzEx$FM3EiaVx+JV8HnQAQ2pzYouP5m0ywlt5DenIo3H0T2c",
	} {
		h, err := parsePHC(text)
		if err != nil || !h.verify([]byte("password")) || h.verify([]byte("Password")) {
			t.Errorf("%s: %v", text, err)
		}
	}
	text := hashOf(t, "secret")
	if !strings.HasPrefix(text, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%s", text)
	}
	again, err := Hash([]byte("secret"))
	if err != nil || again == text {
		t.Errorf("the salt is the same: %v", err)
	}
	for _, bad := range []string{"", strings.Repeat("x", MaxPasswordBytes+1)} {
		if _, err := Hash([]byte(bad)); err == nil {
			t.Errorf("a password of %d bytes has a hash", len(bad))
		}
	}
}

func FuzzPHC(f *testing.F) {
	f.Add(strings.Trim(aHash, `"`))
	f.Add("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$Ca8cvCQLQZ+ysJj3qW0WQg0Mvi1fGHxO")
	f.Add("$argon2id$v=19$m=0,t=0,p=0$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parsePHC(text)
		if err != nil {
			return
		}
		if h.encode() != text {
			t.Errorf("%q is read as %q", text, h.encode())
		}
		if work := uint64(h.memory) * uint64(h.time); h.memory > maxMemory || work < minWork || work > maxWork || h.lanes < 1 || h.lanes > maxLanes || len(h.salt) < 8 || len(h.sum) < 16 {
			t.Errorf("%q is accepted", text)
		}
	})
}

// FuzzParse: whatever the text, faults are lines with their place, and what is
// accepted can be used.
func FuzzParse(f *testing.F) {
	f.Add([]byte("defaults: {publish: ['a/{user}/#']}\nusers:\n  - name: a\n    password: " + aHash + "\n    subscribe: [b/+]\n"))
	f.Add([]byte("users:\n- {name: 1, certificate: true, publish: [], subscribe: ['#', '$SYS/#']}\n"))
	f.Add([]byte("a: &a [*a]\n? {b: c}\n: - d\n<<: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parse("f", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f:") {
					t.Errorf("a fault without its place: %q", line)
				}
			}
			return
		}
		for _, e := range d.users {
			u := &User{Name: e.name}
			u.account.Store(e.account(d))
			u.MayPublish("c", "a/b")
			u.MaySubscribe("c", "$share/g/a/+/#")
			if e.hash == nil && !e.certificate || e.name == "" {
				t.Errorf("%+v is accepted", e)
			}
		}
		d.warnings()
	})
}
