package api_test

import (
	"strings"
	"testing"

	"github.com/weir-edge/weir/agent/api"
	"github.com/weir-edge/weir/configs/value"
)

func TestConfigFaults(t *testing.T) {
	f := func(want string, change func(*api.Config)) {
		t.Helper()
		c := api.DefaultConfig()
		change(&c)
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("the faults are %q, want %q", got, want)
		}
	}
	token := value.NewSecret("0123456789abcdef")
	f("", func(*api.Config) {})
	f("", func(c *api.Config) { c.Listen = "[::1]:8080" })
	f("", func(c *api.Config) { c.Listen = "localhost:0" })
	f("", func(c *api.Config) { c.Listen, c.Token = ":8080", token })
	f("", func(c *api.Config) {
		c.Listen, c.TLS = "192.0.2.1:8080", api.TLSConfig{Cert: "c", Key: "k", ClientCA: "ca"}
	})
	f("listen: :8080 is reachable from other machines", func(c *api.Config) { c.Listen = ":8080" })
	f("listen: 0.0.0.0:8080 is reachable", func(c *api.Config) { c.Listen = "0.0.0.0:8080" })
	f("listen: gateway:8080 is reachable", func(c *api.Config) { c.Listen = "gateway:8080" })
	f(`listen: "8080" is not an address`, func(c *api.Config) { c.Listen = "8080" })
	f(`listen: port "x"`, func(c *api.Config) { c.Listen = "127.0.0.1:x" })
	f("token: has 3 characters", func(c *api.Config) { c.Token = value.NewSecret("abc") })
	f("tls: cert and key", func(c *api.Config) { c.TLS.Cert = "c" })
	f("tls.client_ca: needs", func(c *api.Config) { c.TLS.ClientCA = "ca" })
}
