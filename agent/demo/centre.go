//go:build !slim

package demo

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// slim says whether the centre was left out of this binary.
const slim = false

// jetStream is an embedded nats-server with JetStream.
type jetStream struct{ server *server.Server }

// startCentre starts a server on address, host:port, that keeps its streams
// under dir.
func startCentre(address, dir string) (centre, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("start the demo's centre: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("start the demo's centre: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "weir-demo", Host: host, Port: port, JetStream: true, StoreDir: dir,
		JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 1 << 30,
		MaxConn: 32, MaxPayload: 8 << 20, MaxControlLine: 4096, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("start the demo's centre: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(5 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("start the demo's centre: it is not ready after 5s")
	}
	return &jetStream{s}, nil
}

func (j *jetStream) URL() string { return j.server.ClientURL() }

func (j *jetStream) Messages() (int64, error) {
	info, err := j.server.Jsz(&server.JSzOptions{})
	if err != nil {
		return 0, err
	}
	return int64(info.Messages), nil
}

func (j *jetStream) Close() {
	j.server.Shutdown()
	j.server.WaitForShutdown()
}
