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

/// TCP and UDP services of both families.
pub(super) fn services() -> Vec<ServiceSpec> {
    ENDS.into_iter()
        .flat_map(|[_, vip, server]| {
            [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| ServiceSpec::new(protocol, vip, &[server]))
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
    }
    let onlooker = Onlooker::new(world.director.services());
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
    world.recount();
}
