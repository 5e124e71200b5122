package mqtt

import (
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// queueBytes may wait between the connection and the log: MaxInflight alone
// would allow gigabytes of large messages.
const queueBytes = 16 << 20

// room is an amount of bytes that is taken and given back.
type room struct {
	size int

	mu    sync.Mutex
	used  int
	freed chan struct{} // closed and replaced when some is given back
}

func newRoom(size int) *room { return &room{size: size, freed: make(chan struct{})} }

// take waits for n bytes, or for done; then it returns false. What is larger
// than all of it goes alone.
func (r *room) take(n int, done <-chan struct{}) bool {
	for {
		r.mu.Lock()
		if r.used == 0 || r.used+n <= r.size {
			r.used += n
			r.mu.Unlock()
			return true
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-done:
			return false
		}
	}
}

func (r *room) give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	close(r.freed)
	r.freed = make(chan struct{})
}

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
