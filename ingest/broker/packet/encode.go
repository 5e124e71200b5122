package packet

import "slices"

// frame appends a fixed header and what fill writes behind it.
func frame(dst []byte, first byte, fill func(w *writer)) ([]byte, error) {
	// The length is not known yet: leave the four bytes it may take, and move.
	start := len(dst)
	w := &writer{b: append(dst, first, 0, 0, 0, 0)}
	fill(w)
	n := len(w.b) - start - 5
	if w.err == nil && n > MaxLength {
		w.err = malformed("%d bytes are more than a packet can have", n)
	}
	if w.err != nil {
		return dst, w.err
	}
	length := appendLength(w.b[start+1:start+1], n)
	return slices.Delete(w.b, start+1+len(length), start+5), nil
}

func first(t Type, flags byte) byte { return byte(t)<<4 | flags }

// Append: see Packet. A user name or password is written where HasUser and
// HasPassword say so. The version is Connect's own.
func (p *Connect) Append(dst []byte, _ byte) ([]byte, error) {
	return frame(dst, first(CONNECT, 0), func(w *writer) {
		v5 := p.Version == V5
		w.text("MQTT")
		flags := byte(0)
		set := func(bit byte, on bool) {
			if on {
				flags |= bit
			}
		}
		set(0x02, p.CleanStart)
		set(0x80, p.HasUser)
		set(0x40, p.HasPassword)
		if p.Will != nil {
			set(0x04, true)
			set(0x20, p.Will.Retain)
			flags |= p.Will.QoS << 3
		}
		w.b = append(w.b, p.Version, flags)
		w.uint16(p.KeepAlive)
		w.optionalProperties(v5, &p.Properties)
		w.text(p.ClientID)
		if p.Will != nil {
			w.optionalProperties(v5, &p.Will.Properties)
			w.text(p.Will.Topic)
			w.binary(p.Will.Payload)
		}
		if p.HasUser {
			w.text(p.User)
		}
		if p.HasPassword {
			w.binary(p.Password)
		}
	})
}

func (w *writer) optionalProperties(v5 bool, p *Properties) {
	if v5 {
		w.properties(p)
	}
}

// Append: see Packet.
func (p *Connack) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(CONNACK, 0), func(w *writer) {
		present := byte(0)
		if p.SessionPresent {
			present = 1
		}
		w.b = append(w.b, present, byte(p.Code))
		w.optionalProperties(version == V5, &p.Properties)
	})
}

// Append: see Packet.
func (p *Publish) Append(dst []byte, version byte) ([]byte, error) {
	flags := p.QoS << 1
	if p.Dup {
		flags |= 8
	}
	if p.Retain {
		flags |= 1
	}
	return frame(dst, first(PUBLISH, flags), func(w *writer) {
		w.text(p.Topic)
		if p.QoS > 0 {
			w.uint16(p.ID)
		}
		w.optionalProperties(version == V5, &p.Properties)
		w.b = append(w.b, p.Payload...)
	})
}

// Append: see Packet. Code and properties are left out where they say nothing.
func (p *Ack) Append(dst []byte, version byte) ([]byte, error) {
	flags := byte(0)
	if p.Kind == PUBREL {
		flags = 2
	}
	return frame(dst, first(p.Kind, flags), func(w *writer) {
		w.uint16(p.ID)
		w.reason(version, p.Code, &p.Properties)
	})
}

func (w *writer) reason(version byte, code Code, p *Properties) {
	if version != V5 {
		return
	}
	section := writer{}
	section.properties(p)
	if section.err != nil {
		w.err = section.err
	}
	empty := len(section.b) == 1
	if empty && code == Success {
		return
	}
	w.b = append(w.b, byte(code))
	if !empty {
		w.b = append(w.b, section.b...)
	}
}

// Append: see Packet.
func (p *Subscribe) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(SUBSCRIBE, 2), func(w *writer) {
		w.uint16(p.ID)
		w.optionalProperties(version == V5, &p.Properties)
		for _, s := range p.Subscriptions {
			w.text(s.Filter)
			options := s.QoS
			if version == V5 {
				options |= s.RetainHandling << 4
				if s.NoLocal {
					options |= 4
				}
				if s.RetainAsPublished {
					options |= 8
				}
			}
			w.b = append(w.b, options)
		}
	})
}

// Append: see Packet.
func (p *Suback) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(SUBACK, 0), func(w *writer) {
		w.uint16(p.ID)
		w.optionalProperties(version == V5, &p.Properties)
		w.codes(p.Codes)
	})
}

func (w *writer) codes(codes []Code) {
	for _, c := range codes {
		w.b = append(w.b, byte(c))
	}
}

// Append: see Packet.
func (p *Unsubscribe) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(UNSUBSCRIBE, 2), func(w *writer) {
		w.uint16(p.ID)
		w.optionalProperties(version == V5, &p.Properties)
		for _, filter := range p.Filters {
			w.text(filter)
		}
	})
}

// Append: see Packet.
func (p *Unsuback) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(UNSUBACK, 0), func(w *writer) {
		w.uint16(p.ID)
		if version == V5 {
			w.properties(&p.Properties)
			w.codes(p.Codes)
		}
	})
}

// Append: see Packet.
func (*Pingreq) Append(dst []byte, _ byte) ([]byte, error) {
	return append(dst, first(PINGREQ, 0), 0), nil
}

// Append: see Packet.
func (*Pingresp) Append(dst []byte, _ byte) ([]byte, error) {
	return append(dst, first(PINGRESP, 0), 0), nil
}

// Append: see Packet.
func (p *Disconnect) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(DISCONNECT, 0), func(w *writer) { w.reason(version, p.Code, &p.Properties) })
}

// Append: see Packet.
func (p *Auth) Append(dst []byte, version byte) ([]byte, error) {
	return frame(dst, first(AUTH, 0), func(w *writer) { w.reason(version, p.Code, &p.Properties) })
}
