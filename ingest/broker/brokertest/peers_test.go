package brokertest

import (
	"slices"
	"strings"
	"testing"
)

// TestPeers: what other people's clients were told is safe comes to a
// subscriber, over a restart of the broker, in order.
func TestPeers(t *testing.T) {
	target := startMosquitto(t).target()
	for _, p := range Peers(target) {
		t.Run(p.Name, func(t *testing.T) {
			const n = 300
			id := "peer-" + strings.ReplaceAll(p.Name, " ", "-")
			r := p.Publish(t, target, Run{Topic: "brokertest/peers/" + id, ClientID: id, Count: n, Restart: true, Subscribe: true})
			seen := slices.Clone(r.Received)
			slices.Sort(seen)
			if seen = slices.Compact(seen); len(r.Acknowledged) != n || len(seen) != n || seen[0] != 1 || seen[n-1] != n {
				t.Errorf("%d acknowledged, %d different received", len(r.Acknowledged), len(seen))
			}
			if r.BeforeRestart < n/3 || r.BeforeRestart == n {
				t.Errorf("%d were acknowledged when the broker was killed", r.BeforeRestart)
			}
		})
	}
}
