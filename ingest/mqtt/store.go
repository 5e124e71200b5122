package mqtt

import (
	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// queueBytes may wait between the connection and the log: MaxInflight alone
// would allow gigabytes of large messages.
const queueBytes = 16 << 20

// noStore is the library's store of packets, and stores none. The library
// would keep every QoS 2 message until PUBREL, 65,535 of them if the broker
// likes, and uses them for nothing we need: a message that is delivered again
// is the window's matter, and the source publishes nothing.
type noStore struct{}

var _ paho.Store = noStore{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
