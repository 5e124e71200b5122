package crashtest

import "slices"

const pageSize = 4096

// image is the content of a file. Clones share their pages until one writes:
// a page is written in place only by the image whose token it carries.
type image struct {
	pages  []*page // nil is a hole; those behind the slice are holes too
	size   int64
	blocks int64 // pages that are not nil
	mine   *token
	shared bool // pages is another image's as well
}

type page struct {
	owner *token
	data  [pageSize]byte
}

type token struct{ _ byte }

func newImage() *image { return &image{mine: new(token)} }

// clone returns an image with the same content that changes by itself.
func (m *image) clone() *image {
	m.mine, m.shared = new(token), true
	c := *m
	c.mine = new(token)
	return &c
}

// pagesFor is the number of pages that size bytes touch.
func pagesFor(size int64) int { return int((size + pageSize - 1) / pageSize) }

// reach makes the slice of pages ours, and n long at least.
func (m *image) reach(n int) {
	if m.shared {
		m.pages, m.shared = slices.Clone(m.pages), false
	}
	for len(m.pages) < n {
		m.pages = append(m.pages, nil)
	}
}

// own returns page i to be written.
func (m *image) own(i int) *page {
	p := m.pages[i]
	if p != nil && p.owner == m.mine {
		return p
	}
	n := &page{owner: m.mine}
	if p == nil {
		m.blocks++
	} else {
		n.data = p.data
	}
	m.pages[i] = n
	return n
}

func (m *image) write(b []byte, offset int64) {
	if len(b) == 0 {
		return
	}
	end := offset + int64(len(b))
	m.reach(pagesFor(end))
	for len(b) > 0 {
		p := m.own(int(offset / pageSize))
		n := copy(p.data[offset%pageSize:], b)
		b, offset = b[n:], offset+int64(n)
	}
	m.size = max(m.size, end)
}

// read fills b, with zeros where nothing was written.
func (m *image) read(b []byte, offset int64) {
	for len(b) > 0 {
		i, from := int(offset/pageSize), offset%pageSize
		n := min(len(b), int(pageSize-from))
		if i < len(m.pages) && m.pages[i] != nil {
			copy(b[:n], m.pages[i].data[from:])
		} else {
			clear(b[:n])
		}
		b, offset = b[n:], offset+int64(n)
	}
}

func (m *image) truncate(size int64) {
	keep := pagesFor(size)
	if keep < len(m.pages) {
		m.reach(0)
		for _, p := range m.pages[keep:] {
			if p != nil {
				m.blocks--
			}
		}
		m.pages = m.pages[:keep:keep]
	}
	if in := size % pageSize; in != 0 && keep <= len(m.pages) && size < m.size && m.pages[keep-1] != nil {
		m.reach(0)
		clear(m.own(keep - 1).data[in:])
	}
	m.size = size
}

func (m *image) allocate(size int64) {
	n := pagesFor(size)
	m.reach(n)
	var zero page // of nobody, so never written
	for i := range n {
		if m.pages[i] == nil {
			m.pages[i] = &zero
			m.blocks++
		}
	}
	m.size = max(m.size, size)
}

// missing is the number of holes in [from, to).
func (m *image) missing(from, to int64) int64 {
	n := int64(0)
	for i := int(from / pageSize); i < pagesFor(to); i++ {
		if i >= len(m.pages) || m.pages[i] == nil {
			n++
		}
	}
	return n
}

// take makes page i the same as that of another image.
func (m *image) take(from *image, i int) {
	var p *page
	if i < len(from.pages) {
		p = from.pages[i]
	}
	if p == nil {
		return // a truncation in between; it is applied by itself
	}
	if p.owner == from.mine {
		p.owner = nil
	}
	m.reach(i + 1)
	if m.pages[i] == nil {
		m.blocks++
	}
	m.pages[i] = p
}
