//! The contract between a WVS director and a scheduler plugin, version 1.0. All integers are little
//! endian; addresses stand in network order. docs/PLUGINS.md of WVS explains it.
//!
//! Generated from the contract of WVS; not to be edited.
//!
//! What a plugin exports:
//!
//! `export fn wvs_abi() u32`
//!     Required. The version of this contract: the major one in the upper 16 bits, the minor one in
//!     the lower. Another major version or a higher minor one is refused.
//!
//! `export fn wvs_caps() u32`
//!     Optional. What the plugin reads and promises. Without this export: that it reads the
//!     counters.
//!
//! `export fn wvs_region(kind: u32, size: u32) ?*anyopaque`
//!     Required. The address of at least `size` octets for this kind of region, a multiple of 8; 0
//!     when there are none. A later call for the same kind ends the earlier region's life.
//!
//! `export fn wvs_init(len: u32) i32`
//!     Optional. `len` octets of JSON are in the config region, 0 when the service has no `config`.
//!     0 takes it. Anything else refuses it, and the reason is a NUL-terminated text in the same
//!     region. A plugin without this export takes no `config`.
//!
//! `export fn wvs_servers_changed(n: u32) i32`
//!     Optional. The server table was written, at the start or because membership or weights
//!     changed. Below 0 is a fault.
//!
//! `export fn wvs_state_load(len: u32) i32`
//!     Optional. `len` octets that the predecessor saved are in the state region, and the server
//!     table is written. 0 takes them; below 0 they mean nothing to this plugin, which then starts
//!     afresh: no fault.
//!
//! `export fn wvs_schedule(n: u32) i32`
//!     Required. One decision: the request is in its region, `n` servers in theirs.
//!
//! `export fn wvs_event(kind: u32, index: u32, argument: u32) void`
//!     Optional. Something happened to a connection of the server at `index`. Called in the order
//!     of events before the next decision, at the latest after a tenth of a second.
//!
//! `export fn wvs_tick() u32`
//!     Optional. Called once when the plugin got its service, and then after as many milliseconds
//!     as it returns, at least 10; 0 for never again. The request region has the time and a random
//!     number, and is otherwise 0.
//!
//! `export fn wvs_state_save(capacity: u32) i32`
//!     Optional. The plugin is about to be replaced. It writes what its successor should know to
//!     the state region, at most `capacity` octets, and returns their number; below 0 for nothing.
//!     Where it has more to say, it returns how much that is, and is called once more with room for
//!     it, 65,536 octets at most. It goes on deciding where its successor fails.

const assert = @import("std").debug.assert;

/// What `wvs_abi` returns.
pub const abi_version: u32 = 0x00010000;

/// Octets that a configuration has at most.
pub const config_octets_max: u32 = 65536;

/// Octets of the state region at most.
pub const state_octets_max: u32 = 65536;

/// Octets of one line of the log; the rest is cut off.
pub const log_octets_max: u32 = 1024;

/// Milliseconds between two ticks at least.
pub const tick_ms_min: u32 = 10;

/// Kinds of regions, the first argument of `wvs_region`.
pub const region = struct {
    /// The configuration as JSON text in UTF-8, and the reason of a refusal.
    pub const config: u32 = 0;
    /// One request record.
    pub const request: u32 = 1;
    /// One server record for each server.
    pub const servers: u32 = 2;
    /// Octets carried from one instance to its successor.
    pub const state: u32 = 3;
    /// One server info record for each server, for plugins with the cap of that name.
    pub const server_info: u32 = 4;
    /// One signals record for each server, for plugins with the cap of that name.
    pub const signals: u32 = 5;
};

/// Bits of the result of `wvs_caps`.
pub const caps = struct {
    /// Reads `active` and `inactive`: they are refreshed before each decision.
    pub const counters: u32 = 1;
    /// The same request over the same servers always gives the same answer.
    pub const pure: u32 = 2;
    /// Wants the server info region.
    pub const server_info: u32 = 4;
    /// Wants the signals region: it is refreshed before decisions, at most once a millisecond, and
    /// before each tick.
    pub const signals: u32 = 8;
};

/// Bits of a server's `flags`.
pub const server_flags = struct {
    /// The server may be used as far as its health goes.
    pub const up: u32 = 1;
    /// The server reached its upper connection threshold.
    pub const overloaded: u32 = 2;
    /// The server finishes its connections and gets no new ones.
    pub const draining: u32 = 4;
};

/// Negative results of `wvs_schedule`; 0 and above is the index of a server.
pub const result = struct {
    /// No server can take the connection.
    pub const no_server: i32 = -1;
    /// The plugin leaves this one to the director.
    pub const @"defer": i32 = -2;
};

/// The first argument of `wvs_event`. The second is the index of the server.
pub const event = struct {
    /// A connection was opened to the server, whoever chose it. The argument is 0.
    pub const bound: u32 = 1;
    /// A connection to the server is over. The argument is the milliseconds from its first packet
    /// to its last, to about a second.
    pub const unbound: u32 = 2;
    /// A connection to the server did not come about. The argument says why.
    pub const connect_failed: u32 = 3;
};

/// The argument of the event `CONNECT_FAILED`.
pub const connect_failed = struct {
    /// The server answered with a reset.
    pub const refused: u32 = 0;
    /// The server did not answer before the connection expired.
    pub const unanswered: u32 = 1;
};

/// The first argument of `wvs.log`.
pub const log_level = struct {
    /// Something does not work.
    pub const @"error": u32 = 1;
    /// Something may not be as it should.
    pub const warn: u32 = 2;
    /// Something that an operator may want to know.
    pub const info: u32 = 3;
    /// Something that an author wants to know.
    pub const debug: u32 = 4;
};

/// The first packet of a connection.
pub const Request = extern struct {
    /// 4 or 6.
    family: u8,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo.
    protocol: u8,
    /// None defined in version 1: 0.
    flags: u16,
    /// Firewall mark, 0 when there is none.
    mark: u32,
    /// The client's port; for an echo request its identifier.
    client_port: u16,
    /// The port of the virtual service; 0 for an echo request.
    virtual_port: u16,
    /// The virtual service's number, stable while it exists.
    service_id: u32,
    /// The client's address, IPv4 in the first four octets.
    client_address: [16]u8,
    /// The virtual address (VIP), IPv4 in the first four octets.
    virtual_address: [16]u8,
    /// Milliseconds on the director's monotonic clock.
    now_ms: u64,
    /// A number from the director's generator, new for each request.
    random: u64,
};

comptime {
    assert(@sizeOf(Request) == 64);
    assert(@offsetOf(Request, "family") == 0);
    assert(@offsetOf(Request, "protocol") == 1);
    assert(@offsetOf(Request, "flags") == 2);
    assert(@offsetOf(Request, "mark") == 4);
    assert(@offsetOf(Request, "client_port") == 8);
    assert(@offsetOf(Request, "virtual_port") == 10);
    assert(@offsetOf(Request, "service_id") == 12);
    assert(@offsetOf(Request, "client_address") == 16);
    assert(@offsetOf(Request, "virtual_address") == 32);
    assert(@offsetOf(Request, "now_ms") == 48);
    assert(@offsetOf(Request, "random") == 56);
}

/// One real server as a plugin sees it.
pub const Server = extern struct {
    /// Stable while the server exists and never given to another one.
    id: u32,
    /// EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
    /// reason: quiesced, down, draining or overloaded.
    weight: u32,
    /// Connections in an active state (TCP: handshake and established).
    active: u32,
    /// All other connections, UDP's among them.
    inactive: u32,
    /// Bits: up, overloaded, draining.
    flags: u32,
    /// The weight in the configuration, whatever became of it.
    configured_weight: u32,
    /// A hash of address, port and protocol: the same in every process, so that directors agree.
    key: u64,
};

comptime {
    assert(@sizeOf(Server) == 32);
    assert(@offsetOf(Server, "id") == 0);
    assert(@offsetOf(Server, "weight") == 4);
    assert(@offsetOf(Server, "active") == 8);
    assert(@offsetOf(Server, "inactive") == 12);
    assert(@offsetOf(Server, "flags") == 16);
    assert(@offsetOf(Server, "configured_weight") == 20);
    assert(@offsetOf(Server, "key") == 24);
}

/// What does not fit into a server record, for plugins that ask for it.
pub const ServerInfo = extern struct {
    /// The real server's address, IPv4 in the first four octets.
    address: [16]u8,
    /// The real server's port.
    port: u16,
    /// 4 or 6.
    family: u16,
    /// Connections at which the server counts as overloaded; 0 when unset.
    upper_threshold: u32,
    /// Connections below which it recovers; 0 when unset.
    lower_threshold: u32,
    /// Always 0 in version 1.
    reserved: u32,
};

comptime {
    assert(@sizeOf(ServerInfo) == 32);
    assert(@offsetOf(ServerInfo, "address") == 0);
    assert(@offsetOf(ServerInfo, "port") == 16);
    assert(@offsetOf(ServerInfo, "family") == 18);
    assert(@offsetOf(ServerInfo, "upper_threshold") == 20);
    assert(@offsetOf(ServerInfo, "lower_threshold") == 24);
    assert(@offsetOf(ServerInfo, "reserved") == 28);
}

/// How a server does, as the director sees it in passing, for plugins that ask for it. The counts
/// wrap around; what matters is how much they grew.
pub const Signals = extern struct {
    /// Microseconds from a client's SYN to the server's SYN-ACK, as a moving average in which a new
    /// one counts an eighth; 0 before the first.
    connect_us: u32,
    /// Handshakes that the server answered.
    connects: u32,
    /// Connections that the server reset or refused.
    resets: u32,
    /// Connections that the server did not answer before they expired.
    timeouts: u32,
    /// Octets of packets to the server.
    in_octets: u64,
    /// Octets of packets from the server.
    out_octets: u64,
};

comptime {
    assert(@sizeOf(Signals) == 32);
    assert(@offsetOf(Signals, "connect_us") == 0);
    assert(@offsetOf(Signals, "connects") == 4);
    assert(@offsetOf(Signals, "resets") == 8);
    assert(@offsetOf(Signals, "timeouts") == 12);
    assert(@offsetOf(Signals, "in_octets") == 16);
    assert(@offsetOf(Signals, "out_octets") == 24);
}

/// Writes a line of at most 1024 octets of UTF-8 to the director's log. Lines that come too fast
/// are counted and not written.
pub extern "wvs" fn log(level: u32, text: [*]const u8, len: u32) void;
