package packet

// Decode reads a packet whose fixed header is h and whose rest is body, all of
// h.Length bytes. version is that of the connection, 0 before CONNECT, which says
// its own. Byte slices of the packet are parts of body. The error is an *Error.
func Decode(version byte, h Header, body []byte) (Packet, error) {
	if len(body) != h.Length {
		return nil, malformed("%d bytes are not the %d of the header", len(body), h.Length)
	}
	if err := checkFlags(h); err != nil {
		return nil, err
	}
	if version == 0 && h.Type != CONNECT {
		return nil, violation("the first packet is %s and not CONNECT", h.Type)
	}
	r := &reader{rest: body}
	p := r.packet(version, h)
	r.end()
	if r.err != nil {
		return nil, r.err
	}
	return p, nil
}

// checkFlags applies table 2-2.
func checkFlags(h Header) error {
	want := byte(0)
	switch h.Type {
	case PUBLISH:
		return nil
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		want = 2
	}
	if h.Flags != want {
		return malformed("the flags of %s are %d and not %d", h.Type, h.Flags, want)
	}
	return nil
}

func (r *reader) packet(version byte, h Header) Packet {
	v5 := version == V5
	switch h.Type {
	case CONNECT:
		return r.connect()
	case CONNACK:
		return r.connack(v5)
	case PUBLISH:
		return r.publish(h.Flags, v5)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return r.ack(h.Type, v5)
	case SUBSCRIBE:
		return r.subscribe(v5)
	case SUBACK:
		p := &Suback{ID: r.id()}
		r.optionalProperties(v5, SUBACK, &p.Properties)
		p.Codes = r.codes()
		return p
	case UNSUBSCRIBE:
		return r.unsubscribe(v5)
	case UNSUBACK:
		p := &Unsuback{ID: r.id()}
		if v5 {
			r.properties(UNSUBACK, &p.Properties)
			p.Codes = r.codes()
		}
		return p
	case PINGREQ:
		return &Pingreq{}
	case PINGRESP:
		return &Pingresp{}
	case DISCONNECT:
		p := &Disconnect{}
		p.Code = r.reason(v5, DISCONNECT, &p.Properties)
		return p
	case AUTH:
		if v5 {
			p := &Auth{}
			p.Code = r.reason(v5, AUTH, &p.Properties)
			return p
		}
	}
	r.fail(malformed("there is no packet of type %d", h.Type))
	return nil
}

func (r *reader) optionalProperties(v5 bool, in Type, p *Properties) {
	if v5 {
		r.properties(in, p)
	}
}

// codes are all that is left.
func (r *reader) codes() []Code {
	var list []Code
	for _, c := range r.rest {
		list = append(list, Code(c))
	}
	if len(list) == 0 {
		r.fail(violation("there is no reason code"))
	}
	r.rest = nil
	return list
}

// reason reads an optional reason code and optional properties (3.14.2).
func (r *reader) reason(v5 bool, in Type, p *Properties) Code {
	if !v5 || len(r.rest) == 0 {
		return Success
	}
	code := Code(r.byte("the reason code"))
	if len(r.rest) > 0 {
		r.properties(in, p)
	}
	return code
}

// connect reads CONNECT (3.1).
func (r *reader) connect() Packet {
	p := &Connect{}
	name := r.text("the protocol name")
	p.Version = r.byte("the protocol version")
	switch {
	case r.err != nil:
		return p
	case name != "MQTT" && name != "MQIsdp":
		r.fail(violation("the protocol is called %.20q and not MQTT", name))
		return p
	case name == "MQIsdp" || p.Version != V311 && p.Version != V5:
		r.fail(&Error{UnsupportedVersion, "the protocol's version is not 3.1.1 or 5"})
		return p
	}
	v5 := p.Version == V5
	flags := r.byte("the connect flags")
	p.KeepAlive = r.uint16("the keep alive")
	r.optionalProperties(v5, CONNECT, &p.Properties)
	p.ClientID = r.text("the client identifier")
	p.CleanStart = flags&0x02 != 0
	qos, retain := flags>>3&3, flags&0x20 != 0
	switch {
	case flags&0x01 != 0:
		r.fail(malformed("the reserved connect flag is set"))
	case qos == 3:
		r.fail(malformed("the QoS of the will is 3"))
	case flags&0x04 == 0 && (qos != 0 || retain):
		r.fail(malformed("there is no will, and its QoS or retain flag is set"))
	case !v5 && flags&0xc0 == 0x40:
		r.fail(malformed("there is a password and no user name"))
	case p.Properties.AuthData != nil && p.Properties.AuthMethod == nil:
		r.fail(violation("there is authentication data and no method"))
	}
	if flags&0x04 != 0 {
		p.Will = &Will{QoS: qos, Retain: retain}
		r.optionalProperties(v5, will, &p.Will.Properties)
		p.Will.Topic = r.text("the will's topic")
		p.Will.Payload = r.binary("the will's payload")
		r.checkTopic(p.Will.Topic, false)
		r.checkMessage(&p.Will.Properties)
	}
	if p.HasUser = flags&0x80 != 0; p.HasUser {
		p.User = r.text("the user name")
	}
	if p.HasPassword = flags&0x40 != 0; p.HasPassword {
		p.Password = r.binary("the password")
	}
	return p
}

func (r *reader) connack(v5 bool) Packet {
	p := &Connack{}
	flags := r.byte("the acknowledge flags")
	if flags > 1 {
		r.fail(malformed("a reserved acknowledge flag is set"))
	}
	p.SessionPresent = flags == 1
	p.Code = Code(r.byte("the reason code"))
	if p.SessionPresent && p.Code != Success {
		r.fail(violation("a session is present in a refusal"))
	}
	r.optionalProperties(v5, CONNACK, &p.Properties)
	return p
}

// publish reads PUBLISH (3.3).
func (r *reader) publish(flags byte, v5 bool) Packet {
	p := &Publish{Dup: flags&8 != 0, QoS: flags >> 1 & 3, Retain: flags&1 != 0}
	switch {
	case p.QoS == 3:
		r.fail(malformed("the QoS is 3"))
	case p.Dup && p.QoS == 0:
		r.fail(malformed("the DUP flag is set with QoS 0"))
	}
	p.Topic = r.text("the topic")
	if p.QoS > 0 {
		p.ID = r.id()
	}
	r.optionalProperties(v5, PUBLISH, &p.Properties)
	alias := p.Properties.TopicAlias
	r.checkTopic(p.Topic, v5 && alias != nil)
	if alias != nil && *alias == 0 && r.err == nil {
		r.fail(&Error{TopicAliasInvalid, "the topic alias is 0"})
	}
	r.checkMessage(&p.Properties)
	p.Payload, r.rest = r.rest, nil
	return p
}

// checkTopic applies 3.3.2.1: a name has no wildcards, and is not empty unless an
// alias stands for it.
func (r *reader) checkTopic(topic string, aliased bool) {
	if topic == "" && !aliased {
		r.fail(violation("the topic is empty"))
	}
	for i := range len(topic) {
		if topic[i] == '+' || topic[i] == '#' {
			r.fail(&Error{TopicNameInvalid, "the topic has a wildcard in it"})
			return
		}
	}
}

// checkMessage applies 3.3.2.3.5.
func (r *reader) checkMessage(p *Properties) {
	if p.ResponseTopic != nil {
		r.checkTopic(*p.ResponseTopic, false)
	}
}

func (r *reader) ack(kind Type, v5 bool) Packet {
	p := &Ack{Kind: kind, ID: r.id()}
	p.Code = r.reason(v5, kind, &p.Properties)
	return p
}

// subscribe reads SUBSCRIBE (3.8).
func (r *reader) subscribe(v5 bool) Packet {
	p := &Subscribe{ID: r.id()}
	r.optionalProperties(v5, SUBSCRIBE, &p.Properties)
	for len(r.rest) > 0 {
		s := Subscription{Filter: r.text("a topic filter")}
		options := r.byte("the subscription options")
		s.QoS = options & 3
		reserved := byte(0xfc)
		if v5 {
			s.NoLocal, s.RetainAsPublished, s.RetainHandling = options&4 != 0, options&8 != 0, options>>4&3
			reserved = 0xc0
		}
		switch {
		case s.QoS == 3 || options&reserved != 0:
			r.fail(malformed("the subscription options are 0x%02x", options))
		case s.RetainHandling == 3:
			r.fail(violation("the retain handling is 3"))
		case s.Filter == "":
			r.fail(malformed("a topic filter is empty"))
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
	if len(p.Subscriptions) == 0 {
		r.fail(violation("there is no topic filter"))
	}
	return p
}

func (r *reader) unsubscribe(v5 bool) Packet {
	p := &Unsubscribe{ID: r.id()}
	r.optionalProperties(v5, UNSUBSCRIBE, &p.Properties)
	for len(r.rest) > 0 {
		filter := r.text("a topic filter")
		if filter == "" {
			r.fail(malformed("a topic filter is empty"))
		}
		p.Filters = append(p.Filters, filter)
	}
	if len(p.Filters) == 0 {
		r.fail(violation("there is no topic filter"))
	}
	return p
}
