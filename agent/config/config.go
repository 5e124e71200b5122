// Package config is the whole configuration of weir: Config is the sum of the
// Config of every package, Load reads it from one YAML file and drop-ins.
//
// Reading is strict and goes on after a fault, so that all of them are told at
// once, each with its file, line and path: what is unknown, twice, of the wrong
// type, or refused by the Validate of the package that owns it. What has a name
// in weir but is not built yet is refused as not supported, never ignored.
// Defaults come first: each element of a list starts from its package's own.
//
// ${NAME} and ${file:PATH} in a single value stand for an environment variable
// and for a file's text, mostly secrets; $${ is a ${ that means itself. Checked
// without secrets, placeholders stay as they are and what needs their text is
// not judged. No text that came from a placeholder is in a fault, a warning or
// in Config.Redacted.
//
// Drop-ins are merged in the order of their names: mappings key by key, lists
// by appending, and a single value takes the place of the one before. Anchors,
// aliases and tags of YAML are refused. A file is at most 1 MiB, 10,000 keys
// and elements long and 32 levels deep.
//
// The package starts nothing and knows no command line.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/analytics/sql"
	"github.com/weir-edge/weir/buffer"
	"github.com/weir-edge/weir/ingest/broker"
	"github.com/weir-edge/weir/ingest/http"
	"github.com/weir-edge/weir/ingest/mqtt"
	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/nats"
	"github.com/weir-edge/weir/video"
)

// Config is a valid configuration with every default set. It is not changed
// after Load, and may be read by several goroutines.
type Config struct {
	Node      Node                           `yaml:"node"`
	Buffer    buffer.Config                  `yaml:"buffer"`
	Streams   map[string]buffer.StreamConfig `yaml:"streams"`
	Ingest    Ingest                         `yaml:"ingest"`
	Video     video.Config                   `yaml:"video"`
	Analytics sql.Config                     `yaml:"analytics"`
	Uplink    []Uplink                       `yaml:"uplink"`
	API       api.Config                     `yaml:"api"`

	// Warnings are what is allowed and unwise, such as a secret that every
	// user of the machine can read.
	Warnings []Fault `yaml:"-"`

	placeholders map[string]string // path -> text as it is in the file
}

// Node is the `node:` section.
type Node struct {
	// ID names this machine among all that send to the same centre; it is part
	// of every record's id. 1 to 64 of a-z A-Z 0-9 _ -. Default: the host's name,
	// with - for every other character.
	ID string `yaml:"id"`
	// Labels are shown beside the ID in status and pages. At most 32. Default:
	// none.
	Labels map[string]string `yaml:"labels"`
}

// Ingest is the `ingest:` section.
type Ingest struct {
	Broker *broker.Config `yaml:"broker"` // nil: none
	MQTT   []mqtt.Config  `yaml:"mqtt"`
	HTTP   *http.Config   `yaml:"http"` // nil: none
}

// Uplink is one entry of the `uplink:` section: what every uplink has, and
// beside it in the same mapping the keys of its type.
type Uplink struct {
	uplink.Config `yaml:",inline"`
	// NATS has a meaning if Type is nats, the only type there is.
	NATS nats.Config `yaml:",inline"`
}

// Validate returns every fault of u, joined; each begins with the key's path.
func (u Uplink) Validate() error { return errors.Join(u.Config.Validate(), u.NATS.Validate()) }

// Options say how a configuration is read.
type Options struct {
	// Dir has drop-ins, *.yaml. Default: none.
	Dir string
	// Secrets resolves placeholders. Without it they need not exist, and the
	// configuration can be checked but not run.
	Secrets bool
	// LookupEnv is asked for ${NAME}. Default os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

// maxDropIns bounds Options.Dir.
const maxDropIns = 256

// source is the text of one file.
type source struct {
	name   string
	data   []byte
	public bool // every user of the machine can read it
}

// Load reads the configuration from path and the drop-ins of o.Dir. The error
// is of type Faults, or that of reading path.
func Load(path string, o Options) (*Config, error) {
	main, err := read(path)
	if err != nil {
		return nil, err
	}
	sources := []source{main}
	if o.Dir != "" {
		dropIns, err := readDir(o.Dir)
		if err != nil {
			return nil, err
		}
		sources = append(sources, dropIns...)
	}
	return build(sources, o)
}

// Parse reads a configuration from data; name stands for the file in faults.
// o.Dir is not read. The error is of type Faults.
func Parse(name string, data []byte, o Options) (*Config, error) {
	return build([]source{{name: name, data: data}}, o)
}

// read takes one byte more than is allowed, so that too much is noticed.
func read(path string) (s source, err error) {
	f, err := os.Open(path)
	if err != nil {
		return source{}, err
	}
	defer f.Close() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return source{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return source{}, err
	}
	return source{name: path, data: data, public: info.Mode().IsRegular() && othersRead(info.Mode())}, nil
}

// readDir reads the drop-ins of dir in the order of their names.
func readDir(dir string) ([]source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, Faults{{File: dir, Message: fmt.Sprintf("read directory: %v", cause(err))}}
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return e.IsDir() || strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".yaml"
	})
	if len(entries) > maxDropIns {
		return nil, Faults{{File: dir, Message: fmt.Sprintf("%d files are more than the %d that are read", len(entries), maxDropIns)}}
	}
	var sources []source
	var faults Faults
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		s, err := read(name)
		if err != nil {
			faults = append(faults, Fault{File: name, Message: fmt.Sprintf("read: %v", cause(err))})
			continue
		}
		sources = append(sources, s)
	}
	if faults != nil {
		return nil, faults
	}
	return sources, nil
}

// build makes the configuration of the files' texts.
func build(sources []source, o Options) (*Config, error) {
	c := newCollector()
	tree, whole := &node{}, true
	for i, s := range sources {
		c.files = append(c.files, s.name)
		if n := c.parse(i, s.data); n != nil {
			tree.merge(n)
		} else {
			whole = false
		}
	}
	if !whole {
		return nil, c.err() // what is missing would bring faults of its own
	}
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	cfg := &Config{Buffer: buffer.DefaultConfig(), API: api.DefaultConfig(), placeholders: map[string]string{}}
	d := newDecoder(c, o)
	d.written = cfg.placeholders
	top := place{node: tree, at: position{line: 1}}
	if tree.kind != null {
		d.decode(top, reflect.ValueOf(cfg).Elem())
	}
	for _, p := range d.literals {
		if sources[p.at.file].public {
			c.warn(p, "every user of this machine can read this secret; chmod 600 %s", sources[p.at.file].name)
		}
	}
	checker{c}.check(cfg, top)
	cfg.Warnings = sorted(c.warnings)
	if err := c.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// newDecoder returns a decoder that knows the defaults of what lists and
// mappings hold.
func newDecoder(c *collector, o Options) *decoder {
	d := &decoder{
		expander: &expander{collector: c, resolve: o.Secrets, lookupEnv: o.LookupEnv},
		defaults: map[reflect.Type]reflect.Value{},
		later:    later(),
	}
	for _, initial := range []any{
		buffer.DefaultStreamConfig(buffer.Data), mqtt.DefaultConfig(), mqtt.DefaultTopic(), http.DefaultConfig(),
		broker.DefaultConfig(), broker.DefaultTopic(),
		video.CameraConfig{}.WithDefaults(), sql.DefaultQuery(), Uplink{Config: uplink.DefaultConfig(), NATS: nats.DefaultConfig()},
	} {
		d.defaults[reflect.TypeOf(initial)] = reflect.ValueOf(initial)
	}
	d.skip = map[reflect.Type]func(place) bool{
		reflect.TypeFor[Uplink]():             d.skipUplink,
		reflect.TypeFor[video.CameraConfig](): d.skipCamera,
	}
	return d
}
