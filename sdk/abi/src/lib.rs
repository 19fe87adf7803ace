//! The contract between a director and a scheduler plugin, version 1.
//!
//! A scheduler plugin is a core WebAssembly module. The director calls its exports with `i32`
//! scalars and passes everything larger through *regions*: pieces of the plugin's own memory whose
//! addresses the plugin names. This crate is that contract once, for both sides: the director
//! writes the records with [`Request::to_octets`] and [`Server::to_octets`], a plugin in Rust reads
//! the same types in place.
//!
//! All integers are little endian. Addresses stand in network order, an IPv4 address in the first
//! four octets of its field. Sizes and offsets are checked at compile time below; a plugin in
//! another language can rely on them.
//!
//! The crate needs neither `std` nor an allocator and has no dependencies.

#![no_std]
#![forbid(unsafe_code)]

use core::mem::{offset_of, size_of};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The major version. A plugin with another one is refused.
pub const ABI_MAJOR: u16 = 1;

/// The minor version. A plugin with a higher one wants exports that this director does not know
/// and is refused; lower ones are welcome.
pub const ABI_MINOR: u16 = 0;

/// What `wvs_abi` returns: `major << 16 | minor`.
pub const ABI_VERSION: u32 = (ABI_MAJOR as u32) << 16 | ABI_MINOR as u32;

/// The exports of a plugin by name.
pub mod export {
    /// The plugin's memory: 32-bit, not shared. Required.
    pub const MEMORY: &str = "memory";
    /// `() -> i32`, required: [`ABI_VERSION`](crate::ABI_VERSION) of the plugin.
    pub const ABI: &str = "wvs_abi";
    /// `(kind, size) -> address`, required: at least `size` octets for this
    /// [`Region`](crate::Region), 8-aligned, or 0 when the plugin has none. A later call for the
    /// same kind ends the earlier region's life.
    pub const REGION: &str = "wvs_region";
    /// `(n) -> i32`, required: one decision. The request is in its region, `n` servers in theirs.
    pub const SCHEDULE: &str = "wvs_schedule";
    /// `() -> ()`, optional: start of a reactor module's runtime, called before anything else.
    pub const INITIALIZE: &str = "_initialize";
    /// The mark of a command module: refused unless [`INITIALIZE`] is there too.
    pub const START: &str = "_start";
    /// `() -> i32`, optional: see [`caps`](crate::caps). Absent means
    /// [`caps::COUNTERS`](crate::caps::COUNTERS).
    pub const CAPS: &str = "wvs_caps";
    /// `(len) -> i32`, optional: `len` octets of configuration are in their region; 0 takes it,
    /// below 0 refuses it and leaves the reason as a NUL-terminated text in the same region.
    pub const INIT: &str = "wvs_init";
    /// `(n) -> i32`, optional: the server table was written or its membership or weights changed.
    /// Below 0 is a fault.
    pub const SERVERS_CHANGED: &str = "wvs_servers_changed";
}

/// A kind of region, the first argument of `wvs_region`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Region {
    /// The service's scheduler configuration as JSON text.
    Config = 0,
    /// One [`Request`].
    Request = 1,
    /// `n` times [`Server`].
    Servers = 2,
    /// Octets carried from one instance to its successor.
    State = 3,
    /// `n` times [`ServerInfo`], only for plugins with [`caps::SERVER_INFO`].
    ServerInfo = 4,
}

impl Region {
    /// The region of a kind number, `None` for a number that version 1 does not define.
    #[must_use]
    pub const fn from_kind(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::Config,
            1 => Self::Request,
            2 => Self::Servers,
            3 => Self::State,
            4 => Self::ServerInfo,
            _ => return None,
        })
    }
}

/// Bits of the `wvs_caps` result.
pub mod caps {
    /// The plugin reads `active` and `inactive`: the director refreshes them before each decision.
    pub const COUNTERS: u32 = 1;
    /// The same request over the same servers always gives the same answer.
    pub const PURE: u32 = 1 << 1;
    /// The plugin wants the [`ServerInfo`](crate::ServerInfo) region.
    pub const SERVER_INFO: u32 = 1 << 2;
    /// Every bit that version 1 defines.
    pub const ALL: u32 = COUNTERS | PURE | SERVER_INFO;
}

/// Bits of [`Server::flags`].
pub mod server_flags {
    /// The server may be used as far as its health goes.
    pub const UP: u32 = 1;
    /// The server reached its upper connection threshold.
    pub const OVERLOADED: u32 = 1 << 1;
    /// The server finishes its connections and gets no new ones.
    pub const DRAINING: u32 = 1 << 2;
}

/// Negative results of `wvs_schedule`; 0 and above is the index of a server.
pub mod result {
    /// No server can take the connection.
    pub const NO_SERVER: i32 = -1;
    /// The plugin leaves this one to the director.
    pub const DEFER: i32 = -2;
}

/// One real server as a plugin sees it, 32 octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Server {
    /// Stable while the server exists and never given to another one.
    pub id: u32,
    /// EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
    /// reason: quiesced, down, draining or overloaded.
    pub weight: u32,
    /// Connections in an active state (TCP: handshake and established).
    pub active: u32,
    /// All other connections, UDP's among them.
    pub inactive: u32,
    /// See [`server_flags`].
    pub flags: u32,
    /// The weight in the configuration, whatever became of it.
    pub configured_weight: u32,
    /// A hash of address, port and protocol: the same in every process, so that directors agree.
    pub key: u64,
}

/// The first packet of a connection, 64 octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Request {
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo.
    pub protocol: u8,
    /// None defined in version 1: 0.
    pub flags: u16,
    /// Firewall mark, 0 when there is none.
    pub mark: u32,
    /// The client's port; for an echo request its identifier.
    pub client_port: u16,
    /// The port of the virtual service; 0 for an echo request.
    pub virtual_port: u16,
    /// The virtual service's number, stable while it exists.
    pub service_id: u32,
    /// The client's address, IPv4 in the first four octets.
    pub client_address: [u8; 16],
    /// The virtual address (VIP), IPv4 in the first four octets.
    pub virtual_address: [u8; 16],
    /// Milliseconds on the director's monotonic clock.
    pub now_ms: u64,
    /// A number from the director's generator, new for each request.
    pub random: u64,
}

/// What does not fit into [`Server`], 32 octets, for plugins that ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct ServerInfo {
    /// The real server's address, IPv4 in the first four octets.
    pub address: [u8; 16],
    /// The real server's port.
    pub port: u16,
    /// 4 or 6.
    pub family: u16,
    /// Connections at which the server counts as overloaded; 0 when unset.
    pub upper_threshold: u32,
    /// Connections below which it recovers; 0 when unset.
    pub lower_threshold: u32,
    /// Always 0 in version 1.
    pub reserved: u32,
}

// The layout, for readers in other languages and against a slip of ours.
const _: () = {
    assert!(size_of::<Server>() == 32);
    assert!(offset_of!(Server, id) == 0);
    assert!(offset_of!(Server, weight) == 4);
    assert!(offset_of!(Server, active) == 8);
    assert!(offset_of!(Server, inactive) == 12);
    assert!(offset_of!(Server, flags) == 16);
    assert!(offset_of!(Server, configured_weight) == 20);
    assert!(offset_of!(Server, key) == 24);

    assert!(size_of::<Request>() == 64);
    assert!(offset_of!(Request, family) == 0);
    assert!(offset_of!(Request, protocol) == 1);
    assert!(offset_of!(Request, flags) == 2);
    assert!(offset_of!(Request, mark) == 4);
    assert!(offset_of!(Request, client_port) == 8);
    assert!(offset_of!(Request, virtual_port) == 10);
    assert!(offset_of!(Request, service_id) == 12);
    assert!(offset_of!(Request, client_address) == 16);
    assert!(offset_of!(Request, virtual_address) == 32);
    assert!(offset_of!(Request, now_ms) == 48);
    assert!(offset_of!(Request, random) == 56);

    assert!(size_of::<ServerInfo>() == 32);
    assert!(offset_of!(ServerInfo, address) == 0);
    assert!(offset_of!(ServerInfo, port) == 16);
    assert!(offset_of!(ServerInfo, family) == 18);
    assert!(offset_of!(ServerInfo, upper_threshold) == 20);
    assert!(offset_of!(ServerInfo, lower_threshold) == 24);
    assert!(offset_of!(ServerInfo, reserved) == 28);
};

impl Server {
    /// Octets of one record.
    pub const SIZE: usize = size_of::<Self>();

    /// The record as it stands in a plugin's memory.
    #[inline]
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::SIZE] {
        let mut octets = [0; Self::SIZE];
        octets[0..4].copy_from_slice(&self.id.to_le_bytes());
        octets[4..8].copy_from_slice(&self.weight.to_le_bytes());
        octets[8..12].copy_from_slice(&self.active.to_le_bytes());
        octets[12..16].copy_from_slice(&self.inactive.to_le_bytes());
        octets[16..20].copy_from_slice(&self.flags.to_le_bytes());
        octets[20..24].copy_from_slice(&self.configured_weight.to_le_bytes());
        octets[24..32].copy_from_slice(&self.key.to_le_bytes());
        octets
    }

    /// Whether a scheduler may pick this server.
    #[inline]
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.weight > 0
    }
}

impl Request {
    /// Octets of one record.
    pub const SIZE: usize = size_of::<Self>();

    /// The record as it stands in a plugin's memory.
    #[inline]
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::SIZE] {
        let mut octets = [0; Self::SIZE];
        octets[0] = self.family;
        octets[1] = self.protocol;
        octets[2..4].copy_from_slice(&self.flags.to_le_bytes());
        octets[4..8].copy_from_slice(&self.mark.to_le_bytes());
        octets[8..10].copy_from_slice(&self.client_port.to_le_bytes());
        octets[10..12].copy_from_slice(&self.virtual_port.to_le_bytes());
        octets[12..16].copy_from_slice(&self.service_id.to_le_bytes());
        octets[16..32].copy_from_slice(&self.client_address);
        octets[32..48].copy_from_slice(&self.virtual_address);
        octets[48..56].copy_from_slice(&self.now_ms.to_le_bytes());
        octets[56..64].copy_from_slice(&self.random.to_le_bytes());
        octets
    }

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
    /// Octets of one record.
    pub const SIZE: usize = size_of::<Self>();

    /// The record as it stands in a plugin's memory.
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::SIZE] {
        let mut octets = [0; Self::SIZE];
        octets[0..16].copy_from_slice(&self.address);
        octets[16..18].copy_from_slice(&self.port.to_le_bytes());
        octets[18..20].copy_from_slice(&self.family.to_le_bytes());
        octets[20..24].copy_from_slice(&self.upper_threshold.to_le_bytes());
        octets[24..28].copy_from_slice(&self.lower_threshold.to_le_bytes());
        octets[28..32].copy_from_slice(&self.reserved.to_le_bytes());
        octets
    }

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
