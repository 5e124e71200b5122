package api

import (
	"net"
)

// Network is what the daemon sees of the machine's network: where devices can
// reach it, and which addresses it could offer to a peer. A sandbox or a
// container can make that less than the machine has.
type Network struct {
	Interfaces []Interface `json:"interfaces"`      // in the order of the system
	Error      string      `json:"error,omitempty"` // why they cannot be listed
}

// Interface is a network interface of the machine.
type Interface struct {
	Name      string   `json:"name"`
	Up        bool     `json:"up"`
	Loopback  bool     `json:"loopback"`
	Addresses []string `json:"addresses"` // with their prefix, such as 192.0.2.7/24
}

// currentNetwork asks the system, a few calls an interface.
func currentNetwork() Network {
	out := Network{Interfaces: []Interface{}}
	list, err := net.Interfaces()
	if err != nil {
		out.Error = err.Error()
		return out
	}
	for _, i := range list {
		one := Interface{
			Name: i.Name, Up: i.Flags&net.FlagUp != 0, Loopback: i.Flags&net.FlagLoopback != 0, Addresses: []string{},
		}
		addresses, err := i.Addrs()
		if err != nil { // it may have gone a moment ago
			out.Error = err.Error()
		}
		for _, a := range addresses {
			one.Addresses = append(one.Addresses, a.String())
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	return out
}
