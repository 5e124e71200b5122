package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// place is a node of the tree with its full path. For a key that is absent
// node is nil and at is where its nearest ancestor stands.
type place struct {
	path string
	node *node
	at   position
}

// key is the place of an entry of a mapping.
func (p place) key(name string) place {
	child := place{path: join(p.path, name), at: p.at}
	if p.node == nil {
		return child
	}
	if i, ok := p.node.index[name]; ok {
		child.node = p.node.entries[i].value
		child.at = child.node.at
	}
	return child
}

// item is the place of an element of a list.
func (p place) item(i int) place {
	child := place{path: fmt.Sprintf("%s[%d]", p.path, i), at: p.at}
	if p.node != nil && i >= 0 && i < len(p.node.items) {
		child.node, child.at = p.node.items[i], p.node.items[i].at
	}
	return child
}

func join(outer, name string) string {
	if outer == "" {
		return name
	}
	return outer + "." + name
}

// relative is the form of the paths that Validate of a package begins its
// texts with.
var relative = regexp.MustCompile(`^[a-zA-Z0-9_-]+(\[[0-9]{1,9}\])*(\.[a-zA-Z0-9_-]+(\[[0-9]{1,9}\])*)*$`)

// find walks a relative path: name, name.name, name[2].name.
func (p place) find(path string) place {
	for _, part := range strings.Split(path, ".") {
		name, rest, _ := strings.Cut(part, "[")
		p = p.key(name)
		for rest != "" {
			var digits string
			digits, rest, _ = strings.Cut(rest, "]")
			rest = strings.TrimPrefix(rest, "[")
			n, err := strconv.Atoi(digits)
			if err != nil {
				return p
			}
			p = p.item(n)
		}
	}
	return p
}
