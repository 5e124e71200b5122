package nats_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/uplink/nats"
)

func TestConfig(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*nats.Config)
		want   []string
	}{
		"good":     {func(*nats.Config) {}, nil},
		"cluster":  {func(c *nats.Config) { c.URL = "nats://a:4222, tls://b" }, nil},
		"no url":   {func(c *nats.Config) { c.URL = "" }, []string{"url: missing; write it as nats://HOST:4222"}},
		"http":     {func(c *nats.Config) { c.URL = "http://a" }, []string{"url: number 1 is not of the form nats://HOST:4222 or tls://HOST:4222"}},
		"not one":  {func(c *nats.Config) { c.URL = "nats://a,nats://x:s3cret@[b" }, []string{"url: number 2 is not of the form nats://HOST:4222 or tls://HOST:4222"}},
		"password": {func(c *nats.Config) { c.URL = "nats://u:s3cret@a" }, []string{"url: number 1 has a user in it; write it under user and password"}},
		"no stream": {func(c *nats.Config) { c.Subject = "weir.{node}" }, []string{
			`subject: "weir.{node}" has no {stream}; each stream needs a subject of its own`}},
		"strange":  {func(c *nats.Config) { c.Subject = "weir.{stream}.{key}" }, []string{`subject: "weir.{stream}.{key}" has a placeholder other than {node} and {stream}`}},
		"wildcard": {func(c *nats.Config) { c.Subject = "weir.*.{stream}" }, []string{`subject: "weir.*.s" has a blank or a wildcard in it`}},
		"empty":    {func(c *nats.Config) { c.Subject = "weir..{stream}" }, []string{`subject: "weir..s" has an empty part`}},
		"reserved": {func(c *nats.Config) { c.Subject = "$SYS.{stream}" }, []string{`subject: "$SYS.s" is reserved by the server`}},
		"nothing to create": {func(c *nats.Config) { c.Subject, c.Create = "{node}.{stream}", "WEIR" }, []string{
			`create: the subject has no fixed beginning such as "weir.", so it is not known what the stream should take`}},
		"create": {func(c *nats.Config) { c.Create = "a.b" }, []string{`create: "a.b" must be 1 to 64 of the characters a-z A-Z 0-9 _ -`}},
		"half a user": {func(c *nats.Config) { c.User, c.MaxInflight = "u", 0 }, []string{
			"user: user and password go together", "max_inflight: 0 is not between 1 and 10000"}},
		"two ways": {func(c *nats.Config) { c.Token, c.Credentials = value.NewSecret("s3cret"), "/x" }, []string{"user: give only one of user, token, credentials"}},
		"half tls": {func(c *nats.Config) { c.TLS.KeyFile = "/x" }, []string{"tls: cert_file and key_file go together"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := nats.DefaultConfig()
			c.URL = "nats://central.example"
			test.change(&c)
			var got []string
			if err := c.Validate(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFilesOfTLSAreReadAtStart(t *testing.T) {
	c := nats.DefaultConfig()
	c.URL, c.TLS.CAFile = "tls://central.example", "/does/not/exist"
	if _, err := nats.New(nats.Options{Config: c, Name: "central"}); err == nil || !strings.Contains(err.Error(), "read tls.ca_file: open /does/not/exist") {
		t.Errorf("New: %v", err)
	}
}
