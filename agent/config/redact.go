package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
)

// Redacted returns the configuration with its defaults as YAML that may be
// shown: secrets are ***, what came from a placeholder is the placeholder, and
// addresses have no user and password.
func (c *Config) Redacted() ([]byte, error) {
	text, err := yaml.Marshal(c.dump("", reflect.ValueOf(c).Elem()))
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}

// dump turns a value into what the YAML encoder knows.
func (c *Config) dump(path string, v reflect.Value) any {
	if text, ok := c.placeholders[path]; ok {
		return userinfo.ReplaceAllString(text, "://***@")
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			return "cannot be shown"
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Struct:
		return c.dumpStruct(path, v, yaml.MapSlice{})
	case reflect.Map:
		out := yaml.MapSlice{}
		byKey := map[string]any{}
		for key, value := range v.Seq2() {
			byKey[key.String()] = c.dump(join(path, key.String()), value)
		}
		for _, key := range sortedKeys(byKey) {
			out = append(out, yaml.MapItem{Key: key, Value: byKey[key]})
		}
		return out
	case reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, c.dump(fmt.Sprintf("%s[%d]", path, i), v.Index(i)))
		}
		return out
	case reflect.String:
		return userinfo.ReplaceAllString(strings.ReplaceAll(v.String(), "${", "$${"), "://***@")
	}
	return v.Interface()
}

func (c *Config) dumpStruct(path string, v reflect.Value, out yaml.MapSlice) yaml.MapSlice {
	for i := range v.NumField() {
		switch name, inline := yamlName(v.Type().Field(i)); {
		case inline:
			out = c.dumpStruct(path, v.Field(i), out)
		case name != "":
			out = append(out, yaml.MapItem{Key: name, Value: c.dump(join(path, name), v.Field(i))})
		}
	}
	return out
}
