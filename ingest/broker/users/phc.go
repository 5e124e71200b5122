package users

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// MaxPasswordBytes of a password are accepted; MQTT allows 65,535.
const MaxPasswordBytes = 1024

// What Hash makes: OWASP, "Password Storage Cheat Sheet", argon2id.
const (
	defaultMemory = 19456 // KiB
	defaultTime   = 2
	defaultLanes  = 1
	defaultSalt   = 16
	defaultSum    = 32
)

// What a hash in the file may ask of this machine. Below minWork (the weakest
// of OWASP's choices) guessing is too cheap; above the others the file could
// take the device's memory and time.
const (
	minMemory = 8 << 10 // KiB
	maxMemory = 256 << 10
	maxTime   = 10
	maxLanes  = 4
	minWork   = 36864   // KiB over all passes
	maxWork   = 1 << 20 // KiB
	maxText   = 256     // bytes of a hash in text
)

// phc is an argon2id hash as the PHC string format writes it:
// $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH, in base64 without padding.
// See github.com/P-H-C/phc-string-format and RFC 9106.
type phc struct {
	text         string
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

// parsePHC reads the text form strictly. Its errors do not show the text.
func parsePHC(text string) (*phc, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("a hash has at most %d characters; this one has %d", maxText, len(text))
	}
	part := strings.Split(text, "$")
	if len(part) != 6 || part[0] != "" {
		return nil, errors.New("it is not a hash like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH; weir passwd writes one")
	}
	if part[1] != "argon2id" {
		return nil, errors.New("only argon2id hashes are supported; weir passwd writes one")
	}
	if part[2] != "v=19" {
		return nil, errors.New("only version 19 of argon2id is supported (v=19)")
	}
	h := &phc{text: text}
	if err := h.parseCost(part[3]); err != nil {
		return nil, err
	}
	var err error
	if h.salt, err = decode("salt", part[4], 8); err != nil {
		return nil, err
	}
	if h.sum, err = decode("hash", part[5], 16); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *phc) parseCost(text string) error {
	list := strings.Split(text, ",")
	if len(list) != 3 {
		return errors.New("the parameters are not of the form m=19456,t=2,p=1")
	}
	m, okM := parameter(list[0], "m=")
	t, okT := parameter(list[1], "t=")
	p, okP := parameter(list[2], "p=")
	switch {
	case !okM || !okT || !okP:
		return errors.New("the parameters are not of the form m=19456,t=2,p=1")
	case m < minMemory || m > maxMemory:
		return fmt.Errorf("m=%d is not between %d (8 MiB) and %d (256 MiB)", m, minMemory, maxMemory)
	case t < 1 || t > maxTime:
		return fmt.Errorf("t=%d is not between 1 and %d", t, maxTime)
	case p < 1 || p > maxLanes:
		return fmt.Errorf("p=%d is not between 1 and %d", p, maxLanes)
	case m*t < minWork:
		return fmt.Errorf("m=%d,t=%d is too weak: m times t must be %d or more, as m=19456,t=2", m, t, minWork)
	case m*t > maxWork:
		return fmt.Errorf("m=%d,t=%d is too much work for a device: m times t must be %d or less", m, t, maxWork)
	}
	h.memory, h.time, h.lanes = uint32(m), uint32(t), uint8(p)
	return nil
}

// parameter reads a decimal number without sign or leading zeros.
func parameter(text, name string) (int, bool) {
	digits, ok := strings.CutPrefix(text, name)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && strconv.Itoa(n) == digits
}

func decode(what, text string, least int) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("the %s is not base64 without padding", what)
	}
	if len(b) < least || len(b) > 64 {
		return nil, fmt.Errorf("the %s has %d bytes, not %d to 64", what, len(b), least)
	}
	return b, nil
}

// withDefaults sets the cost that Hash uses.
func (h *phc) withDefaults() *phc {
	h.memory, h.time, h.lanes = defaultMemory, defaultTime, defaultLanes
	h.salt, h.sum = make([]byte, defaultSalt), make([]byte, defaultSum)
	return h
}

// decoy costs what h costs and is the hash of no password.
func (h *phc) decoy() *phc {
	d := &phc{memory: h.memory, time: h.time, lanes: h.lanes, salt: make([]byte, len(h.salt)), sum: make([]byte, len(h.sum))}
	rand.Read(d.salt) // never fails
	rand.Read(d.sum)
	return d
}

func (h *phc) compute(password []byte) []byte {
	return argon2.IDKey(password, h.salt, h.time, h.memory, h.lanes, uint32(len(h.sum)))
}

// verify takes memory KiB and as long for a wrong password as for the right
// one.
func (h *phc) verify(password []byte) bool {
	return subtle.ConstantTimeCompare(h.compute(password), h.sum) == 1
}

// equal is of the texts in a file, which are no secret from those who can edit
// it.
func (h *phc) equal(other *phc) bool {
	return h == nil && other == nil || h != nil && other != nil && h.text == other.text
}

// Hash returns the argon2id hash of a password with a new salt, as the file has
// it: m=19456, t=2, p=1. It takes 19 MiB and tens of milliseconds, and refuses a
// password that is empty or longer than MaxPasswordBytes. It does not keep
// password.
func Hash(password []byte) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	h := new(phc).withDefaults()
	rand.Read(h.salt) // never fails
	h.sum = h.compute(password)
	return h.encode(), nil
}

// encode is the inverse of parsePHC.
func (h *phc) encode() string {
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.time, h.lanes, e.EncodeToString(h.salt), e.EncodeToString(h.sum))
}

func checkPassword(password []byte) error {
	switch {
	case len(password) == 0:
		return errors.New("the password is empty")
	case len(password) > MaxPasswordBytes:
		return fmt.Errorf("the password has %d bytes; at most %d are accepted", len(password), MaxPasswordBytes)
	}
	return nil
}
