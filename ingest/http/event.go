package http

import (
	"encoding/base64"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-edge/weir/buffer"
)

// event is a CloudEvent 1.0 without its data.
type event struct {
	attributes []buffer.Attribute // "ce-" and the name
	key        string             // of the extension partitionkey; "": none
}

// maxEventNames bounds the members that are looked at: more attributes than
// these do not fit on a record anyway.
const maxEventNames = buffer.MaxAttributes + 3

// isEvent says whether the headers are those of an event in binary mode: one
// of the attributes that every event has.
func isEvent(h nethttp.Header) bool {
	for _, name := range []string{"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}

// headerEvent reads an event in binary mode (HTTP binding 1.0.2, section 3.1).
func headerEvent(h nethttp.Header) (*event, error) {
	given := map[string]string{}
	for header, values := range h {
		name, ok := strings.CutPrefix(strings.ToLower(header), "ce-")
		if !ok {
			continue
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("ce-%s: it is given twice", name)
		}
		if name == "datacontenttype" {
			return nil, errors.New("ce-datacontenttype: send it as Content-Type")
		}
		text, err := headerText(values[0])
		if err != nil {
			return nil, fmt.Errorf("ce-%s: %w", name, err)
		}
		given[name] = text
	}
	if t := h.Get("Content-Type"); t != "" {
		given["datacontenttype"] = t
	}
	ev, err := newEvent(given)
	if err != nil {
		return nil, fmt.Errorf("ce-%w", err)
	}
	return ev, nil
}

// headerText decodes the value of a header (section 3.1.3.2): quoted strings
// first, then percent signs, once.
func headerText(text string) (string, error) {
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		var b strings.Builder
		for i := 1; i < len(text)-1; i++ {
			if text[i] == '\\' && i+1 < len(text)-1 {
				i++
			}
			b.WriteByte(text[i])
		}
		text = b.String()
	}
	if strings.Contains(text, "%") {
		decoded, err := url.PathUnescape(text)
		if err != nil {
			return "", errors.New("a % is not followed by two hexadecimal digits; a percent sign is %25")
		}
		text = decoded
	}
	if !utf8.ValidString(text) {
		return "", errors.New("it does not decode to UTF-8")
	}
	return text, nil
}

// jsonEvent reads an event of JSON that was checked (JSON format 1.0.2,
// section 3). data shares the memory of text where it can.
func jsonEvent(text []byte) (ev *event, data []byte, err error) {
	if text = trim(text); len(text) == 0 || text[0] != '{' {
		return nil, nil, errors.New("an event is an object; put its content in data")
	}
	given := map[string]string{}
	var plain, packed []byte
	var seen []string
	for name, value := range members(text) {
		if slices.Contains(seen, name) {
			return nil, nil, fmt.Errorf("%.40s: it is given twice", name)
		}
		if seen = append(seen, name); len(seen) > maxEventNames {
			return nil, nil, fmt.Errorf("over %d members; data belongs in data", maxEventNames)
		}
		switch name {
		case "data":
			plain = value
			continue
		case "data_base64":
			packed = value
			continue
		}
		text, set, err := attributeText(value)
		if err != nil {
			return nil, nil, fmt.Errorf("%.40s: %w", name, err)
		}
		if set {
			given[name] = text
		}
	}
	if plain != nil && given["datacontenttype"] == "" {
		given["datacontenttype"] = "application/json" // which it is without (section 3.1.2)
	}
	if ev, err = newEvent(given); err != nil {
		return nil, nil, err
	}
	data, err = eventData(plain, packed, given["datacontenttype"])
	return ev, data, err
}

// attributeText returns an attribute's canonical text. null is one that is not
// set (sections 2.2 and 3).
func attributeText(value []byte) (text string, set bool, err error) {
	if len(value) == 0 {
		return "", false, errors.New("it has no value")
	}
	switch value[0] {
	case '"':
		return unquote(value), true, nil
	case 'n':
		return "", false, nil
	case 't', 'f':
		return string(value), true, nil
	case '{', '[':
		return "", false, errors.New("it is not text, a whole number or true or false; data belongs in data")
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return "", false, errors.New("it is not a whole number of 32 bits")
	}
	return strconv.FormatInt(n, 10), true, nil
}

// eventData is the event's data: JSON as it was sent, else the text or bytes.
func eventData(plain, packed []byte, contentType string) ([]byte, error) {
	switch {
	case plain != nil && packed != nil:
		return nil, errors.New("data_base64: there is data, too; send one of them")
	case packed != nil:
		if packed[0] != '"' {
			return nil, errors.New("data_base64: it is not text")
		}
		data, err := base64.StdEncoding.DecodeString(unquote(packed))
		if err != nil {
			return nil, errors.New("data_base64: it is not base64 (RFC 4648, section 4)")
		}
		return data, nil
	case plain == nil || isJSON(contentType):
		return plain, nil
	case plain[0] != '"':
		return nil, fmt.Errorf("data: it is not text, and datacontenttype %.60q is not JSON", contentType)
	}
	return []byte(unquote(plain)), nil
}

// isJSON says whether the content type is */json or */*+json.
func isJSON(contentType string) bool {
	name, _, _ := strings.Cut(contentType, ";")
	_, sub, _ := strings.Cut(strings.ToLower(strings.TrimSpace(name)), "/")
	return sub == "json" || strings.HasSuffix(sub, "+json")
}

// order is that of the attributes on a record; extensions follow by name.
var order = []string{"id", "source", "type", "time", "subject", "datacontenttype", "dataschema"}

// newEvent checks the attributes by the rules of CloudEvents 1.0.2, section 3.
func newEvent(given map[string]string) (*event, error) {
	switch version, ok := given["specversion"]; {
	case !ok:
		return nil, errors.New("specversion: missing; send 1.0")
	case version != "1.0":
		return nil, fmt.Errorf("specversion: %.20q is not 1.0", version)
	}
	for _, name := range order[:3] {
		if given[name] == "" {
			return nil, fmt.Errorf("%s: missing or empty; every event has one", name)
		}
	}
	for name, text := range given {
		if err := checkAttribute(name, text); err != nil {
			return nil, fmt.Errorf("%.40s: %w", name, err)
		}
	}
	ev := &event{key: given["partitionkey"], attributes: make([]buffer.Attribute, 0, len(given)+2)}
	names := make([]string, 0, len(given))
	for name := range given {
		if name != "specversion" && !slices.Contains(order, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range append(slices.Clone(order), names...) {
		if text, ok := given[name]; ok {
			ev.attributes = append(ev.attributes, buffer.Attribute{Key: "ce-" + name, Value: text})
		}
	}
	return ev, nil
}

func checkAttribute(name, text string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return errors.New("the name of an attribute is of the characters a-z 0-9")
	}
	if name == "data" {
		return errors.New("no attribute may have this name")
	}
	if !plainText(text) {
		return errors.New("it has a control character, or is not UTF-8")
	}
	switch name {
	case "time":
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
			return fmt.Errorf("%.40q is not a time as in 2026-01-31T12:00:00Z (RFC 3339)", text)
		}
	case "source", "dataschema":
		if _, err := url.Parse(text); err != nil || text == "" {
			return fmt.Errorf("%.60q is not a URI", text)
		}
	case "subject", "datacontenttype", "partitionkey":
		if text == "" {
			return errors.New("it is empty; leave it away")
		}
	}
	return nil
}
