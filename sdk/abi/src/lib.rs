//! The contract between a director and a scheduler plugin, version 1.
//!
//! A scheduler plugin is a core WebAssembly module. The director calls its exports with `i32`
//! scalars and passes everything larger through *regions*: pieces of the plugin's own memory whose
//! addresses the plugin names. This crate is that contract once, for both sides: the director
//! writes the records with [`Request::to_octets`] and [`Server::to_octets`], a plugin in Rust reads
//! the same types in place.
//!
//! All integers are little endian. Addresses stand in network order, an IPv4 address in the first
//! four octets of its field. Sizes and offsets are checked at compile time; a plugin in another
//! language can rely on them. [`description`] lists everything that is defined here as data, from
//! which the files for other languages and the tables of the documentation are written.
//!
//! The crate needs neither `std` nor an allocator and has no dependencies.

#![no_std]
#![forbid(unsafe_code)]

pub mod description;
mod record;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use description::constants;
use record::record;

/// The major version. A plugin with another one is refused.
pub const ABI_MAJOR: u16 = 1;

/// The minor version. A plugin with a higher one wants exports that this director does not know
/// and is refused; lower ones are welcome.
pub const ABI_MINOR: u16 = 0;

/// What `wvs_abi` returns: `major << 16 | minor`.
pub const ABI_VERSION: u32 = (ABI_MAJOR as u32) << 16 | ABI_MINOR as u32;

/// The exports of a plugin by name; [`description::EXPORTS`] has their signatures.
pub mod export {
    /// The plugin's memory.
    pub const MEMORY: &str = "memory";
    /// Says the version.
    pub const ABI: &str = "wvs_abi";
    /// Names a region.
    pub const REGION: &str = "wvs_region";
    /// Decides.
    pub const SCHEDULE: &str = "wvs_schedule";
    /// Starts a reactor module's runtime.
    pub const INITIALIZE: &str = "_initialize";
    /// The mark of a command module: refused unless [`INITIALIZE`] is there too.
    pub const START: &str = "_start";
    /// Says what the plugin reads and promises.
    pub const CAPS: &str = "wvs_caps";
    /// Takes the configuration.
    pub const INIT: &str = "wvs_init";
    /// Is told of servers.
    pub const SERVERS_CHANGED: &str = "wvs_servers_changed";
    /// Is told of connections.
    pub const EVENT: &str = "wvs_event";
    /// Is called after a time of its choice.
    pub const TICK: &str = "wvs_tick";
    /// Hands its state to its successor.
    pub const STATE_SAVE: &str = "wvs_state_save";
    /// Takes its predecessor's state.
    pub const STATE_LOAD: &str = "wvs_state_load";
}

/// What a plugin may import, and need not; [`description::IMPORTS`] has the signatures.
pub mod import {
    /// The module of what is the director's own.
    pub const WVS: &str = "wvs";
    /// A line for the director's log.
    pub const LOG: &str = "log";
    /// The module that AssemblyScript expects [`ABORT`] in.
    pub const ENV: &str = "env";
    /// Stops the plugin: a trap.
    pub const ABORT: &str = "abort";
    /// The module of WASI preview 1, for languages whose runtime insists on it.
    pub const WASI: &str = "wasi_snapshot_preview1";
}

/// Octets of one line of a plugin's log; the rest is cut off.
pub const LOG_OCTETS_MAX: u32 = 1 << 10;

/// Octets that `wvs_state_save` may write at most: the capacity that it is given.
pub const STATE_OCTETS_MAX: u32 = 64 << 10;

/// Octets that a configuration has at most.
pub const CONFIG_OCTETS_MAX: u32 = 64 << 10;

/// Milliseconds between two ticks at least, whatever `wvs_tick` wishes.
pub const TICK_MS_MIN: u32 = 10;

/// A kind of region, the first argument of `wvs_region`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Region {
    /// The service's scheduler configuration as JSON text.
    Config = region::CONFIG,
    /// One [`Request`].
    Request = region::REQUEST,
    /// `n` times [`Server`].
    Servers = region::SERVERS,
    /// Octets carried from one instance to its successor.
    State = region::STATE,
    /// `n` times [`ServerInfo`], only for plugins with [`caps::SERVER_INFO`].
    ServerInfo = region::SERVER_INFO,
    /// `n` times [`Signals`], only for plugins with [`caps::SIGNALS`].
    Signals = region::SIGNALS,
}

impl Region {
    /// The region of a kind number, `None` for a number that version 1 does not define.
    #[must_use]
    pub const fn from_kind(kind: u32) -> Option<Self> {
        Some(match kind {
            region::CONFIG => Self::Config,
            region::REQUEST => Self::Request,
            region::SERVERS => Self::Servers,
            region::STATE => Self::State,
            region::SERVER_INFO => Self::ServerInfo,
            region::SIGNALS => Self::Signals,
            _ => return None,
        })
    }
}

constants! {
    /// Kinds of regions, the first argument of `wvs_region`.
    pub mod region: u32 {
        /// The configuration as JSON text in UTF-8, and the reason of a refusal.
        CONFIG = 0;
        /// One request record.
        REQUEST = 1;
        /// One server record for each server.
        SERVERS = 2;
        /// Octets carried from one instance to its successor.
        STATE = 3;
        /// One server info record for each server, for plugins with the cap of that name.
        SERVER_INFO = 4;
        /// One signals record for each server, for plugins with the cap of that name.
        SIGNALS = 5;
    }
}

constants! {
    /// Bits of the result of `wvs_caps`.
    pub mod caps: u32 {
        /// Reads `active` and `inactive`: they are refreshed before each decision.
        COUNTERS = 1;
        /// The same request over the same servers always gives the same answer.
        PURE = 1 << 1;
        /// Wants the server info region.
        SERVER_INFO = 1 << 2;
        /// Wants the signals region: it is refreshed before decisions, at most once a millisecond,
        /// and before each tick.
        SIGNALS = 1 << 3;
    }
}

/// Every bit of [`caps`] that version 1 defines.
pub const CAPS_ALL: u32 = caps::COUNTERS | caps::PURE | caps::SERVER_INFO | caps::SIGNALS;

constants! {
    /// Bits of a server's `flags`.
    pub mod server_flags: u32 {
        /// The server may be used as far as its health goes.
        UP = 1;
        /// The server reached its upper connection threshold.
        OVERLOADED = 1 << 1;
        /// The server finishes its connections and gets no new ones.
        DRAINING = 1 << 2;
    }
}

constants! {
    /// Negative results of `wvs_schedule`; 0 and above is the index of a server.
    pub mod result: i32 {
        /// No server can take the connection.
        NO_SERVER = -1;
        /// The plugin leaves this one to the director.
        DEFER = -2;
    }
}

constants! {
    /// The first argument of `wvs_event`. The second is the index of the server.
    pub mod event: u32 {
        /// A connection was opened to the server, whoever chose it. The argument is 0.
        BOUND = 1;
        /// A connection to the server is over. The argument is the milliseconds from its first
        /// packet to its last, to about a second.
        UNBOUND = 2;
        /// A connection to the server did not come about. The argument says why.
        CONNECT_FAILED = 3;
    }
}

constants! {
    /// The argument of the event `CONNECT_FAILED`.
    pub mod connect_failed: u32 {
        /// The server answered with a reset.
        REFUSED = 0;
        /// The server did not answer before the connection expired.
        UNANSWERED = 1;
    }
}

constants! {
    /// The first argument of `wvs.log`.
    pub mod log_level: u32 {
        /// Something does not work.
        ERROR = 1;
        /// Something may not be as it should.
        WARN = 2;
        /// Something that an operator may want to know.
        INFO = 3;
        /// Something that an author wants to know.
        DEBUG = 4;
    }
}

record! {
    /// One real server as a plugin sees it.
    pub struct Server, 32 octets {
        /// Stable while the server exists and never given to another one.
        0 => id: u32,
        /// EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
        /// reason: quiesced, down, draining or overloaded.
        4 => weight: u32,
        /// Connections in an active state (TCP: handshake and established).
        8 => active: u32,
        /// All other connections, UDP's among them.
        12 => inactive: u32,
        /// Bits: up, overloaded, draining.
        16 => flags: u32,
        /// The weight in the configuration, whatever became of it.
        20 => configured_weight: u32,
        /// A hash of address, port and protocol: the same in every process, so that directors agree.
        24 => key: u64,
    }
}

record! {
    /// The first packet of a connection.
    pub struct Request, 64 octets {
        /// 4 or 6.
        0 => family: u8,
        /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo.
        1 => protocol: u8,
        /// None defined in version 1: 0.
        2 => flags: u16,
        /// Firewall mark, 0 when there is none.
        4 => mark: u32,
        /// The client's port; for an echo request its identifier.
        8 => client_port: u16,
        /// The port of the virtual service; 0 for an echo request.
        10 => virtual_port: u16,
        /// The virtual service's number, stable while it exists.
        12 => service_id: u32,
        /// The client's address, IPv4 in the first four octets.
        16 => client_address: [u8; 16],
        /// The virtual address (VIP), IPv4 in the first four octets.
        32 => virtual_address: [u8; 16],
        /// Milliseconds on the director's monotonic clock.
        48 => now_ms: u64,
        /// A number from the director's generator, new for each request.
        56 => random: u64,
    }
}

record! {
    /// What does not fit into a server record, for plugins that ask for it.
    pub struct ServerInfo, 32 octets {
        /// The real server's address, IPv4 in the first four octets.
        0 => address: [u8; 16],
        /// The real server's port.
        16 => port: u16,
        /// 4 or 6.
        18 => family: u16,
        /// Connections at which the server counts as overloaded; 0 when unset.
        20 => upper_threshold: u32,
        /// Connections below which it recovers; 0 when unset.
        24 => lower_threshold: u32,
        /// Always 0 in version 1.
        28 => reserved: u32,
    }
}

record! {
    /// How a server does, as the director sees it in passing, for plugins that ask for it. The
    /// counts wrap around; what matters is how much they grew.
    pub struct Signals, 32 octets {
        /// Microseconds from a client's SYN to the server's SYN-ACK, as a moving average in which a
        /// new one counts an eighth; 0 before the first.
        0 => connect_us: u32,
        /// Handshakes that the server answered.
        4 => connects: u32,
        /// Connections that the server reset or refused.
        8 => resets: u32,
        /// Connections that the server did not answer before they expired.
        12 => timeouts: u32,
        /// Octets of packets to the server.
        16 => in_octets: u64,
        /// Octets of packets from the server.
        24 => out_octets: u64,
    }
}

impl Server {
    /// Whether a scheduler may pick this server.
    #[inline]
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.weight > 0
    }
}

impl Request {
    /// The client's address.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        decode_address(u16::from(self.family), self.client_address)
    }

    /// The virtual address (VIP).
    #[must_use]
    pub fn vip(&self) -> IpAddr {
        decode_address(u16::from(self.family), self.virtual_address)
    }
}

impl ServerInfo {
    /// The real server's address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        decode_address(self.family, self.address)
    }
}

/// An address as the records hold it: network order, IPv4 in the first four octets, the rest zero.
#[inline]
#[must_use]
pub fn encode_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn decode_address(family: u16, octets: [u8; 16]) -> IpAddr {
    if family == 4 {
        let [a, b, c, d, ..] = octets;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}

/// [`Server::key`]: a hash of a server's address, port and protocol that every director computes
/// alike, today and after a restart (FNV-1a over the octets, then a 64-bit finalizer so that all
/// bits are usable).
#[must_use]
pub fn server_key(address: IpAddr, port: u16, protocol: u8) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = OFFSET;
    let mut add = |octet: u8| hash = (hash ^ u64::from(octet)).wrapping_mul(PRIME);
    encode_address(address).into_iter().for_each(&mut add);
    port.to_be_bytes().into_iter().for_each(&mut add);
    add(protocol);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_record_has_the_documented_octets() {
        let server = Server {
            id: 0x0102_0304,
            weight: 5,
            active: 6,
            inactive: 7,
            flags: server_flags::UP,
            configured_weight: 8,
            key: 0x1122_3344_5566_7788,
        };
        assert_eq!(
            server.to_octets(),
            [
                4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0x88, 0x77,
                0x66, 0x55, 0x44, 0x33, 0x22, 0x11
            ]
        );
    }

    #[test]
    fn request_record_has_the_documented_octets() {
        let request = Request {
            family: 4,
            protocol: 6,
            flags: 0,
            mark: 9,
            client_port: 0xABCD,
            virtual_port: 80,
            service_id: 3,
            client_address: encode_address(IpAddr::from([192, 0, 2, 1])),
            virtual_address: encode_address(IpAddr::from([203, 0, 113, 10])),
            now_ms: 1,
            random: 2,
        };
        let octets = request.to_octets();
        assert_eq!(
            octets[..20],
            [4, 6, 0, 0, 9, 0, 0, 0, 0xCD, 0xAB, 80, 0, 3, 0, 0, 0, 192, 0, 2, 1]
        );
        assert_eq!(octets[32..36], [203, 0, 113, 10]);
        assert_eq!(octets[48..], [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request.client(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(request.vip(), IpAddr::from([203, 0, 113, 10]));
    }

    #[test]
    fn server_info_record_has_the_documented_octets() {
        let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let info = ServerInfo {
            address: encode_address(address),
            port: 8080,
            family: 6,
            upper_threshold: 10,
            lower_threshold: 8,
            reserved: 0,
        };
        let octets = info.to_octets();
        assert_eq!(octets[15..22], [1, 0x90, 0x1F, 6, 0, 10, 0]);
        assert_eq!(octets[24], 8);
        assert_eq!(info.ip(), address);
    }

    #[test]
    fn server_key_is_the_same_in_every_process() {
        // Golden values: a change here would move the clients of every running director.
        let key = server_key(IpAddr::from([10, 0, 0, 1]), 80, 6);
        assert_eq!(key, 0x0f10_86ea_776e_b452);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(server_key(IpAddr::V6(v6), 53, 17), 0x2cad_e6da_6a58_8a43);
        assert_ne!(key, server_key(IpAddr::from([10, 0, 0, 1]), 81, 6));
        assert_ne!(key, server_key(IpAddr::from([10, 0, 0, 1]), 80, 17));
        assert_ne!(key, server_key(IpAddr::from([10, 0, 0, 2]), 80, 6));
    }
}
