// Code generated from the contract of WVS. DO NOT EDIT.

// Package wvs is the contract between a WVS director and a scheduler plugin, version 1.0. All
// integers are little endian; addresses stand in network order. docs/PLUGINS.md of WVS explains it.
//
// What a plugin exports:
//
//	//go:wasmexport wvs_abi
//	func wvsAbi() uint32
//
// Required. The version of this contract: the major one in the upper 16 bits, the minor one in the
// lower. Another major version or a higher minor one is refused.
//
//	//go:wasmexport wvs_caps
//	func wvsCaps() uint32
//
// Optional. What the plugin reads and promises. Without this export: that it reads the counters.
//
//	//go:wasmexport wvs_region
//	func wvsRegion(kind uint32, size uint32) unsafe.Pointer
//
// Required. The address of at least `size` octets for this kind of region, a multiple of 8; 0 when
// there are none. A later call for the same kind ends the earlier region's life.
//
//	//go:wasmexport wvs_init
//	func wvsInit(len uint32) int32
//
// Optional. `len` octets of JSON are in the config region, 0 when the service has no `config`. 0
// takes it. Anything else refuses it, and the reason is a NUL-terminated text in the same region. A
// plugin without this export takes no `config`.
//
//	//go:wasmexport wvs_servers_changed
//	func wvsServersChanged(n uint32) int32
//
// Optional. The server table was written, at the start or because membership or weights changed.
// Below 0 is a fault.
//
//	//go:wasmexport wvs_state_load
//	func wvsStateLoad(len uint32) int32
//
// Optional. `len` octets that the predecessor saved are in the state region, and the server table
// is written. 0 takes them; below 0 they mean nothing to this plugin, which then starts afresh: no
// fault.
//
//	//go:wasmexport wvs_schedule
//	func wvsSchedule(n uint32) int32
//
// Required. One decision: the request is in its region, `n` servers in theirs.
//
//	//go:wasmexport wvs_event
//	func wvsEvent(kind uint32, index uint32, argument uint32)
//
// Optional. Something happened to a connection of the server at `index`. Called in the order of
// events before the next decision, at the latest after a tenth of a second.
//
//	//go:wasmexport wvs_tick
//	func wvsTick() uint32
//
// Optional. Called once when the plugin got its service, and then after as many milliseconds as it
// returns, at least 10; 0 for never again. The request region has the time and a random number, and
// is otherwise 0.
//
//	//go:wasmexport wvs_state_save
//	func wvsStateSave(capacity uint32) int32
//
// Optional. The plugin is about to be replaced. It writes what its successor should know to the
// state region, at most `capacity` octets, and returns their number; below 0 for nothing. Where it
// has more to say, it returns how much that is, and is called once more with room for it, 65,536
// octets at most. It goes on deciding where its successor fails.
package wvs

import "unsafe"

// ABIVersion is what wvs_abi returns.
const ABIVersion = 0x00010000

// Octets that a configuration has at most.
const ConfigOctetsMax = 65536

// Octets of the state region at most.
const StateOctetsMax = 65536

// Octets of one line of the log; the rest is cut off.
const LogOctetsMax = 1024

// Milliseconds between two ticks at least.
const TickMsMin = 10

// Kinds of regions, the first argument of `wvs_region`.
const (
	// The configuration as JSON text in UTF-8, and the reason of a refusal.
	RegionConfig = 0
	// One request record.
	RegionRequest = 1
	// One server record for each server.
	RegionServers = 2
	// Octets carried from one instance to its successor.
	RegionState = 3
	// One server info record for each server, for plugins with the cap of that name.
	RegionServerInfo = 4
	// One signals record for each server, for plugins with the cap of that name.
	RegionSignals = 5
)

// Bits of the result of `wvs_caps`.
const (
	// Reads `active` and `inactive`: they are refreshed before each decision.
	CapsCounters = 1
	// The same request over the same servers always gives the same answer.
	CapsPure = 2
	// Wants the server info region.
	CapsServerInfo = 4
	// Wants the signals region: it is refreshed before decisions, at most once a millisecond, and
	// before each tick.
	CapsSignals = 8
)

// Bits of a server's `flags`.
const (
	// The server may be used as far as its health goes.
	ServerFlagsUp = 1
	// The server reached its upper connection threshold.
	ServerFlagsOverloaded = 2
	// The server finishes its connections and gets no new ones.
	ServerFlagsDraining = 4
)

// Negative results of `wvs_schedule`; 0 and above is the index of a server.
const (
	// No server can take the connection.
	ResultNoServer = -1
	// The plugin leaves this one to the director.
	ResultDefer = -2
)

// The first argument of `wvs_event`. The second is the index of the server.
const (
	// A connection was opened to the server, whoever chose it. The argument is 0.
	EventBound = 1
	// A connection to the server is over. The argument is the milliseconds from its first packet to
	// its last, to about a second.
	EventUnbound = 2
	// A connection to the server did not come about. The argument says why.
	EventConnectFailed = 3
)

// The argument of the event `CONNECT_FAILED`.
const (
	// The server answered with a reset.
	ConnectFailedRefused = 0
	// The server did not answer before the connection expired.
	ConnectFailedUnanswered = 1
)

// The first argument of `wvs.log`.
const (
	// Something does not work.
	LogLevelError = 1
	// Something may not be as it should.
	LogLevelWarn = 2
	// Something that an operator may want to know.
	LogLevelInfo = 3
	// Something that an author wants to know.
	LogLevelDebug = 4
)

// The first packet of a connection.
type Request struct {
	// 4 or 6.
	Family uint8
	// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo.
	Protocol uint8
	// None defined in version 1: 0.
	Flags uint16
	// Firewall mark, 0 when there is none.
	Mark uint32
	// The client's port; for an echo request its identifier.
	ClientPort uint16
	// The port of the virtual service; 0 for an echo request.
	VirtualPort uint16
	// The virtual service's number, stable while it exists.
	ServiceID uint32
	// The client's address, IPv4 in the first four octets.
	ClientAddress [16]byte
	// The virtual address (VIP), IPv4 in the first four octets.
	VirtualAddress [16]byte
	// Milliseconds on the director's monotonic clock.
	NowMs uint64
	// A number from the director's generator, new for each request.
	Random uint64
}

// Each line compiles only if the index is 0.
var (
	_ = [1]byte{}[unsafe.Sizeof(Request{})-64]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.Family)-0]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.Protocol)-1]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.Flags)-2]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.Mark)-4]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.ClientPort)-8]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.VirtualPort)-10]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.ServiceID)-12]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.ClientAddress)-16]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.VirtualAddress)-32]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.NowMs)-48]
	_ = [1]byte{}[unsafe.Offsetof(Request{}.Random)-56]
)

// One real server as a plugin sees it.
type Server struct {
	// Stable while the server exists and never given to another one.
	ID uint32
	// EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
	// reason: quiesced, down, draining or overloaded.
	Weight uint32
	// Connections in an active state (TCP: handshake and established).
	Active uint32
	// All other connections, UDP's among them.
	Inactive uint32
	// Bits: up, overloaded, draining.
	Flags uint32
	// The weight in the configuration, whatever became of it.
	ConfiguredWeight uint32
	// A hash of address, port and protocol: the same in every process, so that directors agree.
	Key uint64
}

// Each line compiles only if the index is 0.
var (
	_ = [1]byte{}[unsafe.Sizeof(Server{})-32]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.ID)-0]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.Weight)-4]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.Active)-8]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.Inactive)-12]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.Flags)-16]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.ConfiguredWeight)-20]
	_ = [1]byte{}[unsafe.Offsetof(Server{}.Key)-24]
)

// What does not fit into a server record, for plugins that ask for it.
type ServerInfo struct {
	// The real server's address, IPv4 in the first four octets.
	Address [16]byte
	// The real server's port.
	Port uint16
	// 4 or 6.
	Family uint16
	// Connections at which the server counts as overloaded; 0 when unset.
	UpperThreshold uint32
	// Connections below which it recovers; 0 when unset.
	LowerThreshold uint32
	// Always 0 in version 1.
	Reserved uint32
}

// Each line compiles only if the index is 0.
var (
	_ = [1]byte{}[unsafe.Sizeof(ServerInfo{})-32]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.Address)-0]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.Port)-16]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.Family)-18]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.UpperThreshold)-20]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.LowerThreshold)-24]
	_ = [1]byte{}[unsafe.Offsetof(ServerInfo{}.Reserved)-28]
)

// How a server does, as the director sees it in passing, for plugins that ask for it. The counts
// wrap around; what matters is how much they grew.
type Signals struct {
	// Microseconds from a client's SYN to the server's SYN-ACK, as a moving average in which a new one
	// counts an eighth; 0 before the first.
	ConnectUs uint32
	// Handshakes that the server answered.
	Connects uint32
	// Connections that the server reset or refused.
	Resets uint32
	// Connections that the server did not answer before they expired.
	Timeouts uint32
	// Octets of packets to the server.
	InOctets uint64
	// Octets of packets from the server.
	OutOctets uint64
}

// Each line compiles only if the index is 0.
var (
	_ = [1]byte{}[unsafe.Sizeof(Signals{})-32]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.ConnectUs)-0]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.Connects)-4]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.Resets)-8]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.Timeouts)-12]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.InOctets)-16]
	_ = [1]byte{}[unsafe.Offsetof(Signals{}.OutOctets)-24]
)

// Log writes a line of at most 1024 octets of UTF-8 to the director's log. Lines that come too fast
// are counted and not written.
//
//go:wasmimport wvs log
func Log(level uint32, text string)
