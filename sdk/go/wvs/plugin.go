package wvs

import "unsafe"

// ServersMax says how many servers there is room for. A service with more servers refuses the
// plugin.
const ServersMax = 1024

// TheRequest is the request to decide on. The director writes it before it calls wvs_schedule.
var TheRequest Request

// Servers are the servers to choose from, in the order of the configuration: the first n of them.
var Servers [ServersMax]Server

// ServerInfos have more about the servers, in the same order, for plugins with CapsServerInfo.
var ServerInfos [ServersMax]ServerInfo

// ServerSignals say how the servers do, in the same order, for plugins with CapsSignals.
var ServerSignals [ServersMax]Signals

// Words instead of octets, for the alignment.
var (
	config [ConfigOctetsMax / 8]uint64
	state  [StateOctetsMax / 8]uint64
)

// Config is the service's config as JSON text, and takes the reason of a refusal.
func Config() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&config)), ConfigOctetsMax)
}

// State is what goes to the successor or came from the predecessor.
func State() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&state)), StateOctetsMax)
}

//go:wasmexport wvs_abi
func wvsAbi() uint32 {
	return ABIVersion
}

//go:wasmexport wvs_region
func wvsRegion(kind, size uint32) unsafe.Pointer {
	switch kind {
	case RegionConfig:
		return room(unsafe.Pointer(&config), unsafe.Sizeof(config), size)
	case RegionRequest:
		return room(unsafe.Pointer(&TheRequest), unsafe.Sizeof(TheRequest), size)
	case RegionServers:
		return room(unsafe.Pointer(&Servers), unsafe.Sizeof(Servers), size)
	case RegionState:
		return room(unsafe.Pointer(&state), unsafe.Sizeof(state), size)
	case RegionServerInfo:
		return room(unsafe.Pointer(&ServerInfos), unsafe.Sizeof(ServerInfos), size)
	case RegionSignals:
		return room(unsafe.Pointer(&ServerSignals), unsafe.Sizeof(ServerSignals), size)
	default:
		return nil
	}
}

// room is the address of a region if it has size octets.
func room(region unsafe.Pointer, has uintptr, size uint32) unsafe.Pointer {
	if uintptr(size) > has {
		return nil
	}
	return region
}
