package demo

import (
	"errors"
	"fmt"
	"log/slog"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// broker is the embedded MQTT broker.
type broker struct {
	server  *mqtt.Server
	address string // host:port
}

// startBroker listens on address, which is on loopback. Every limit of the
// library is set: by default it reserves what a packet's header claims.
func startBroker(address string, logger *slog.Logger) (*broker, error) {
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumClients = 64
	capabilities.MaximumPacketSize = 1 << 20
	capabilities.MaximumInflight = 1024
	capabilities.ReceiveMaximum = 256
	capabilities.MaximumClientWritesPending = 4096
	capabilities.MaximumMessageExpiryInterval = 600
	capabilities.MaximumSessionExpiryInterval = 600
	capabilities.TopicAliasMaximum = 16
	server := mqtt.New(&mqtt.Options{
		Capabilities: capabilities, ClientNetReadBufferSize: 4 << 10, ClientNetWriteBufferSize: 4 << 10, Logger: logger,
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return nil, fmt.Errorf("start the demo's broker: %w", err)
	}
	listener := listeners.NewTCP(listeners.Config{ID: "demo", Address: address})
	if err := server.AddListener(listener); err != nil {
		return nil, fmt.Errorf("start the demo's broker: %w", err)
	}
	if err := server.Serve(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the demo's broker: %w", err), server.Close())
	}
	return &broker{server: server, address: listener.Address()}, nil
}

func (b *broker) close() error { return b.server.Close() }
