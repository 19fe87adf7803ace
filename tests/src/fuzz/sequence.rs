use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use wvs_abi::Request;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_core::time::Moment;

use super::octets::Octets;
use super::packet::{FULL_NAT_PORT, POOL, ends, services};
use crate::onlooker::Onlooker;
use crate::packet::{cut, echo, icmp_error, tcp, udp};
use crate::world::{World, settings};

/// A scheduler that answers what it is told to, sense or not.
struct Told(Arc<AtomicU8>);

impl Scheduler for Told {
    fn schedule(&mut self, _: &Request, _: &[Arc<RealServer>]) -> Pick {
        match self.0.load(Relaxed) {
            0..128 => Pick::Server(0),
            128..160 => Pick::Defer,
            160..192 => Pick::NoServer,
            index => Pick::Server(usize::from(index) << 40),
        }
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}

/// A few of each, so that tuples meet again and limits are hit.
const CLIENT_PORTS: u16 = 6;
const LIMITS: TableLimits = TableLimits { connections: 8, half_open: 3 };

/// What a server sees in place of a client: with full NAT one of the pool's places.
fn seen_as(mut client: SocketAddr, vip: SocketAddr) -> SocketAddr {
    if vip.port() == FULL_NAT_PORT {
        client.set_ip(POOL[usize::from(vip.is_ipv6())].parse().expect("an address"));
        client.set_port(9000 + client.port() % 4);
    }
    client
}

/// Octets as a story: packets of both sides, broken ones, pauses, clock jumps, sweeps, weights and
/// schedulers.
pub(super) fn sequence(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let answer = Arc::new(AtomicU8::new(0));
    let services = services().into_iter().map(|spec| spec.scheduler(Told(Arc::clone(&answer))));
    let settings = DirectorConfig { limits: LIMITS, replies_per_second: 20, ..settings() };
    let world = World::with(settings, services.collect());
    let onlooker = Onlooker::new(&world.director.services());
    let mut now = world.now();
    let mut last = Vec::new();
    let mut processed = 0;
    while !octets.is_empty() {
        let family = octets.below(2);
        let [mut client, mut vip, mut server] = ends(family);
        if octets.below(4) == 3 {
            vip.set_port(FULL_NAT_PORT);
            server.set_port(8081);
        }
        let packet = match octets.below(18) {
            0 | 1 => {
                client.set_port(octets.word() % CLIENT_PORTS);
                tcp(client, vip, octets.octet())
            }
            2 | 3 => {
                client.set_port(octets.word() % CLIENT_PORTS);
                tcp(server, seen_as(client, vip), octets.octet())
            }
            4 => {
                client.set_port(octets.word() % CLIENT_PORTS);
                udp(client, vip, octets.take(9))
            }
            5 => {
                client.set_port(octets.word() % CLIENT_PORTS);
                udp(server, seen_as(client, vip), octets.take(9))
            }
            6 => echo(client.ip(), vip.ip(), octets.below(2) == 0, octets.word()),
            7 | 8 => {
                let quoted = &last[..usize::from(octets.octet()).min(last.len())];
                let (from, to) = match octets.below(4) {
                    0 => (server, client),
                    1 => (client, vip),
                    2 => (vip, client),
                    _ => (client, server),
                };
                icmp_error(from.ip(), to.ip(), [octets.octet(), octets.octet()], quoted)
            }
            9 => {
                now = now.after(Duration::from_millis(1 << (octets.octet() % 24)));
                continue;
            }
            10 => {
                let millis = now.as_millis().saturating_sub(1 << (octets.octet() % 24));
                now = Moment::from_millis(millis);
                continue;
            }
            11 => {
                world.director.sweep(now);
                continue;
            }
            12 => {
                let services = world.director.services().list().len();
                let index = octets.below(services);
                let weight = u32::from(octets.octet() & 1);
                world.set_weight(index, 0, weight);
                continue;
            }
            13 => {
                answer.store(octets.octet(), Relaxed);
                continue;
            }
            14 => {
                let mut packet = last.clone();
                for _ in 0..=octets.below(4) {
                    let (at, value) = (octets.word(), octets.octet());
                    if let Some(octet) = packet.get_mut(usize::from(at)) {
                        *octet = value;
                    }
                }
                packet
            }
            15 => {
                let length = usize::from(octets.octet());
                octets.take(length).to_vec()
            }
            // One piece of a datagram, of which others come or came.
            _ => {
                client.set_port(octets.word() % CLIENT_PORTS);
                let (from, to) =
                    if octets.below(2) == 0 { (client, vip) } else { (server, client) };
                let whole = udp(from, to, &[b'.'; 60]);
                let pieces = cut(&whole, 8 * (1 + octets.below(4)), u16::from(octets.octet() % 4));
                pieces[octets.below(pieces.len())].clone()
            }
        };
        let checksum = match packet.len() % 3 {
            0 => TransportChecksum::Partial,
            _ => TransportChecksum::Complete,
        };
        let mut buffer = packet.clone();
        buffer.resize(packet.len() + Packet::HEADROOM, 0);
        let mut out = Packet::new(&mut buffer, packet.len()).with_checksum(checksum);
        let verdict = world.director.process(&mut out, now);
        processed += 1;
        onlooker.watch(verdict, &packet, out.octets());
        assert!(world.director.connections() <= LIMITS.connections);
        last = out.octets().to_vec();
        for released in world.released() {
            onlooker.watch_released(&released);
        }
    }
    world.recount();
    assert_eq!(world.processed(), processed, "a packet was not counted, or twice");
}
