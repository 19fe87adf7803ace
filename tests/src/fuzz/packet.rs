use std::net::SocketAddr;

use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::service::Protocol;

use crate::onlooker::Onlooker;
use crate::packet::{ACK, SYN, at, tcp, udp};
use crate::world::{ServiceSpec, World};

/// The clients that have connections, and their VIPs and servers, by family.
pub(super) const ENDS: [[&str; 3]; 2] = [
    ["198.51.100.7:4000", "203.0.113.10:80", "10.0.0.1:8080"],
    ["[2001:db8:1::7]:4000", "[2001:db8:2::10]:80", "[fd00::1]:8080"],
];

pub(super) fn ends(family: usize) -> [SocketAddr; 3] {
    ENDS[family % 2].map(at)
}

/// The pool of full NAT, by family.
pub(super) const POOL: [&str; 2] = ["10.0.0.250", "fd00::250"];

/// A port of the VIPs behind which full NAT is done.
pub(super) const FULL_NAT_PORT: u16 = 81;

/// TCP and UDP services of both families, with NAT and with full NAT.
pub(super) fn services() -> Vec<ServiceSpec> {
    ENDS.into_iter()
        .flat_map(|[_, vip, server]| {
            let pool = POOL[usize::from(at(vip).is_ipv6())];
            let full_nat = SocketAddr::new(at(vip).ip(), FULL_NAT_PORT).to_string();
            let server_2 = SocketAddr::new(at(server).ip(), 8081).to_string();
            [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(move |protocol| {
                [
                    ServiceSpec::new(protocol, vip, &[server]),
                    ServiceSpec::new(protocol, &full_nat, &[&server_2])
                        .full_nat(&[pool], 9000..=9003),
                ]
            })
        })
        .collect()
}

/// Any octets as a packet to a director that has a connection of each kind. The first octet says
/// what stands in the checksum field and how much room there is behind the packet.
pub(super) fn packet(octets: &[u8]) {
    let Some((options, octets)) = octets.split_first() else { return };
    let world = World::new(services());
    for family in [0, 1] {
        let [client, vip, server] = ends(family);
        world.forward(&tcp(client, vip, SYN));
        world.forward(&tcp(server, client, SYN | ACK));
        world.forward(&udp(client, vip, b"request"));
        let full_nat = SocketAddr::new(vip.ip(), FULL_NAT_PORT);
        world.forward(&tcp(client, full_nat, SYN));
        world.forward(&udp(client, full_nat, b"request"));
    }
    let onlooker = Onlooker::new(&world.director.services());
    let checksum = match options & 1 {
        0 => TransportChecksum::Complete,
        _ => TransportChecksum::Partial,
    };
    let room = usize::from(options >> 1);
    let mut buffer = octets.to_vec();
    buffer.resize(octets.len() + room, 0);
    let mut packet = Packet::new(&mut buffer, octets.len()).with_checksum(checksum);
    let verdict = world.director.process(&mut packet, world.now());
    onlooker.watch(verdict, octets, packet.octets());
    for released in world.released() {
        onlooker.watch_released(&released);
    }
    world.recount();
}
