package users

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func pointer[T any](v T) *T { return &v }

var anyHash = regexp.MustCompile(`\$argon2id\$v=19\$m=19456,t=2,p=1\$[^"'\s]*`)

// edited returns the text of a file after a change, with HASH for hashes.
func edited(t *testing.T, text string, change func(path string) error) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.yaml")
	write(t, path, text)
	err := change(path)
	after, readErr := os.ReadFile(path)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err != nil && string(after) != text {
		t.Errorf("after %v the file is\n%s", err, after)
	}
	if left, globErr := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); globErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, globErr)
	}
	return anyHash.ReplaceAllString(string(after), "HASH"), err
}

func set(name string, c Change) func(string) error {
	return func(path string) error {
		_, err := Set(path, name, c)
		return err
	}
}

func remove(name string) func(string) error {
	return func(path string) error { return Delete(path, name) }
}

const commented = `# Who may come.
defaults:   # of all
  publish: ["d/{user}/#"]

users:
  # the first press
  - name: one   # bolted down
    # it is old
    password: '` + `$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g' # from the list
    publish:
      - a/#  # all of a
      - b/+
    # what it is told
    subscribe: [c/#, 'd e'] # c

  # the second
  - name: "two"
    certificate: true

# the end
`

func TestSetKeepsTheRest(t *testing.T) {
	original := anyHash.ReplaceAllString(commented, "HASH")
	for name, c := range map[string]struct {
		change   func(string) error
		old, new string
	}{
		"a password":           {set("one", Change{Password: []byte("x")}), `password: 'HASH' # from the list`, `password: "HASH" # from the list`},
		"a list by lines":      {set("one", Change{Publish: &[]string{"x", "it's/#"}}), "publish:\n      - a/#  # all of a\n      - b/+\n", "publish: ['x', 'it''s/#']\n"},
		"a list in one line":   {set("one", Change{Subscribe: &[]string{}}), "subscribe: [c/#, 'd e'] # c", "subscribe: [] # c"},
		"a new key":            {set("one", Change{Certificate: pointer(true)}), "# c\n\n  # the second", "# c\n    certificate: true\n\n  # the second"},
		"a quoted name":        {set("two", Change{Certificate: pointer(false), Password: []byte("x")}), "    certificate: true\n", "    certificate: false\n    password: \"HASH\"\n"},
		"a new user":           {set("three", Change{Certificate: pointer(true), Publish: &[]string{"t"}}), "certificate: true\n\n# the end", "certificate: true\n  - name: 'three'\n    certificate: true\n    publish: ['t']\n\n# the end"},
		"the first goes":       {remove("one"), original[strings.Index(original, "  - name: one"):strings.Index(original, "\n  # the second")], ""},
		"the last goes":        {remove("two"), "  - name: \"two\"\n    certificate: true\n", ""},
		"nothing is different": {set("two", Change{Certificate: pointer(true)}), "", ""},
	} {
		got, err := edited(t, commented, c.change)
		want := strings.Replace(original, c.old, c.new, 1)
		if got != want || err != nil {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

func TestSetForms(t *testing.T) {
	c := Change{Certificate: pointer(true)}
	added := "  - name: 'n'\n    certificate: true\n"
	for _, c := range []struct {
		name, text string
		change     func(string) error
		want       string // of the file; "error: …"
	}{
		{"an empty file", "", set("n", c), "users:\n" + added},
		{"no list", "# x\ndefaults: {publish: [a]}\n", set("n", c), "# x\ndefaults: {publish: [a]}\nusers:\n" + added},
		{"an empty list", "users: []  # none\ndefaults: {}\n", set("n", c), "users: # none\n" + added + "defaults: {}\n"},
		{"a list without value", "users:\n\ndefaults: {}\n", set("n", c), "users:\n" + added + "\ndefaults: {}\n"},
		{"a list in front", "users:\n- name: a\n  certificate: true\ndefaults:\n  publish: [a]\n", set("n", c), "users:\n- name: a\n  certificate: true\n- name: 'n'\n  certificate: true\ndefaults:\n  publish: [a]\n"},
		{"a wide dash", "users:\n  -   name: a\n      certificate: true\n", set("n", c), "users:\n  -   name: a\n      certificate: true\n  -   name: 'n'\n      certificate: true\n"},
		{"dashes at the key", "users:\n- name: n\n  certificate: true\n  publish:\n  - a\n  - b\n  subscribe: [c]\n", set("n", Change{Publish: &[]string{"x"}}), "users:\n- name: n\n  certificate: true\n  publish: ['x']\n  subscribe: [c]\n"},
		{"a list over lines", "users:\n  - name: n\n    certificate: true\n    publish: [a,\n      b]\n", set("n", Change{Publish: &[]string{"x"}}), "users:\n  - name: n\n    certificate: true\n    publish: ['x']\n"},
		{"a first key that is another", "users:\n  - certificate: false\n    name: n\n    password: " + aHash + "\n", set("n", c), "users:\n  - certificate: true\n    name: n\n    password: \"HASH\"\n"},
		{"the only one goes", "users:\n  - name: n\n    certificate: true\n# end\n", remove("n"), "users:\n  []\n# end\n"},
		{"and comes again", "users:\n  []\n# end\n", set("n", c), "users:\n" + added + "# end\n"},
		{"no line end", "users:\n  - name: a\n    certificate: true", set("n", c), "users:\n  - name: a\n    certificate: true\n" + added},
		{"an odd name", "", set("it's: #1", c), "users:\n  - name: 'it''s: #1'\n    certificate: true\n"},

		{"in braces", "users:\n  - {name: n, certificate: true}\n", set("n", Change{Publish: &[]string{"a"}}), "error: has to be edited by hand"},
		{"in brackets", "users: [{name: a, certificate: true}]\n", set("n", c), "error: has to be edited by hand"},
		{"a dash on its own", "users:\n  -\n    name: n\n    certificate: true\n", set("n", Change{Publish: &[]string{"a"}}), "error: has to be edited by hand"},
		{"neither password nor certificate", "", set("n", Change{}), "error: with this change the file would not be right: "},
		{"no way in any more", "users:\n  - name: n\n    certificate: true\n", set("n", Change{Certificate: pointer(false)}), "error: with this change the file would not be right: "},
		{"a bad filter", "", set("n", Change{Certificate: pointer(true), Publish: &[]string{"a/#/b"}}), `error: users[0].publish[0]: in "a/#/b" the # must be the whole last level`},
		{"a bad name", "", set("a\nb", c), "error: the name has characters that do not print"},
		{"an empty password", "", set("n", Change{Password: []byte{}}), "error: the password is empty"},
		{"a file with a fault", "users: [{}]\n", set("n", c), "error: users[0].name: missing"},
		{"nobody to delete", "users: []\n", remove("n"), `error: user "n" in `},
	} {
		got, err := edited(t, c.text, c.change)
		if want, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", c.name, err, want)
			}
		} else if got != c.want || err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, got)
		}
	}
}

func TestSetWholeLife(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users.yaml")
	if err := Delete(path, "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for i, name := range []string{"a", "b", "a"} {
		added, err := Set(path, name, Change{Password: []byte(name + name), Publish: &[]string{"x/{user}/" + name}})
		if err != nil || added != (i < 2) {
			t.Fatalf("%s: added %v, %v", name, added, err)
		}
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if u := authenticate(t, f, "b", "bb"); f.Len() != 2 || !u.MayPublish("c", "x/b/b") || len(f.Warnings()) != 0 {
		t.Errorf("%d users, %v", f.Len(), f.Warnings())
	}
	mode := func(p string) os.FileMode {
		info, err := os.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	if mode(path) != 0o600 {
		t.Errorf("mode %v", mode(path))
	}
	// A group that may read still may, all others may not; a link stays one.
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Set(link, "c", Change{Certificate: pointer(true)}); err != nil {
		t.Fatal(err)
	}
	if mode(path) != 0o640 || mode(link)&os.ModeSymlink == 0 {
		t.Errorf("mode %v, link %v", mode(path), mode(link))
	}
	if err := errors.Join(Delete(path, "a"), Delete(path, "b"), Delete(path, "c")); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); err != nil || f.Len() != 0 {
		t.Errorf("%d users, %v", f.Len(), err)
	}
	if _, err := Set(filepath.Join(dir, "none", "users.yaml"), "a", Change{Certificate: pointer(true)}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("into no directory: %v", err)
	}
}

// FuzzSet: whatever the file, an edit keeps all other users, or is refused.
func FuzzSet(f *testing.F) {
	f.Add(commented, "one", "x")
	f.Add("users:\n- {name: a, certificate: true}\n- name: b\n  certificate: true\n", "b", "x/{user}")
	f.Add("users: [{name: a, certificate: true}]\n", "c", "#")
	path := filepath.Join(f.TempDir(), "users.yaml")
	f.Fuzz(func(t *testing.T, text, name, filter string) {
		before, err := parse(path, []byte(text))
		if err != nil {
			return
		}
		write(t, path, text)
		if _, err := Set(path, name, Change{Certificate: pointer(true), Publish: &[]string{filter}}); err != nil {
			return
		}
		after, stamp, err := read(path)
		if err != nil || stamp.info.Mode().Perm() != 0o600 {
			t.Fatal(err, stamp.info.Mode())
		}
		d, err := parse(path, after)
		if err != nil {
			t.Fatal(err)
		}
		kept := map[string]plain{}
		for _, p := range plainOf(d) {
			kept[p.name] = p
		}
		for _, p := range plainOf(before) {
			if k, ok := kept[p.name]; !ok || p.name != name && (k.password != p.password || k.certificate != p.certificate) {
				t.Fatalf("of\n%s\nit makes\n%s", text, after)
			}
		}
		if p := kept[name]; !p.certificate || p.publish == nil || len(*p.publish) != 1 || (*p.publish)[0] != filter {
			t.Fatalf("of\n%s\nit makes\n%s", text, after)
		}
	})
}
