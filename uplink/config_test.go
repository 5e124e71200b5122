package uplink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-edge/weir/configs/value"
	"github.com/weir-edge/weir/uplink"
)

func TestConfigTellsAllFaults(t *testing.T) {
	good := uplink.DefaultConfig()
	good.Name, good.Type, good.Streams = "central", "nats", []string{"telemetry"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := uplink.Config{
		Name: "a b", Type: "kafka", Streams: []string{"ok", "not ok", "ok"},
		Batch: uplink.BatchConfig{MaxRecords: 0, MaxBytes: 10, MaxDelay: value.Duration(2 * time.Hour)},
		Retry: value.Backoff{Min: value.Duration(time.Millisecond), Max: 0},
	}
	want := []string{
		`name: "a b" must be 1 to 100 of the characters a-z A-Z 0-9 _ . -`,
		`type: kafka: not supported yet; supported are [nats]`,
		`streams[1]: invalid: name "not ok" must be 1 to 128 of the characters a-z A-Z 0-9 _ . -`,
		`streams[2]: ok is named twice`,
		`batch.max_records: 0 is not between 1 and 10000`,
		`batch.max_bytes: 10B is not between 1KiB and 16MiB`,
		`batch.max_delay: 2h0m0s is over 1h`,
		`retry.min: 1ms is not between 10ms and 1h`,
		`retry.max: 0s is not between retry.min (1ms) and 24h`,
	}
	if diff := cmp.Diff(want, strings.Split(bad.Validate().Error(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for typ, want := range map[string]string{
		"":     "type: missing; supported are [nats]",
		"carp": `type: "carp" is not known; supported are [nats]`,
	} {
		c := good
		c.Type = typ
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Errorf("type %q: %v, want %s", typ, err, want)
		}
	}
	good.Streams = nil
	if err := good.Validate(); err == nil || err.Error() != "streams: missing; name the streams to send" {
		t.Errorf("no streams: %v", err)
	}
}
