//! The limit on half-open connections: who has to go when SYNs flood in, and who never does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::connection::table::TableLimits;
use wvs_core::connection::tuple::Tuple;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::random::Random;
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, FIN, RST, SYN, tcp, udp};
use wvs_tests::world::{World, settings};

use crate::{Addresses, FAMILIES, V4, V6};

fn world(connections: usize, half_open: usize) -> World {
    let limits = TableLimits { connections, half_open };
    let services = vec![
        V4.service(Protocol::Tcp),
        V6.service(Protocol::Tcp),
        V4.service(Protocol::Udp),
        V6.service(Protocol::Udp),
    ];
    World::with(DirectorConfig { limits, ..settings() }, services)
}

/// The state of the client's connection to the VIP, if there is one.
fn state(world: &World, client: SocketAddr, vip: SocketAddr) -> Option<State> {
    let tables = world.director.tables();
    let (source_port, destination_port) = (client.port(), vip.port());
    let protocol = Protocol::Tcp;
    match (client.ip(), vip.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let tuple = Tuple { source, destination, source_port, destination_port, protocol };
            tables.v4().find(&tuple)?.state()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let tuple = Tuple { source, destination, source_port, destination_port, protocol };
            tables.v6().find(&tuple)?.state()
        }
        _ => unreachable!("client and VIP are of one family"),
    }
}

/// A client that did its handshake or is about to.
struct Client {
    family: &'static Addresses,
    end: SocketAddr,
    server: SocketAddr,
}

impl Client {
    /// Sends a SYN.
    fn open(world: &World, family: &'static Addresses, port: u16) -> Self {
        let end = family.client_port(port);
        let sent = world.forward(&tcp(end, family.vip(), SYN));
        Self { family, end, server: wvs_tests::packet::receive(&sent).destination }
    }

    fn accept(&self, world: &World) {
        world.forward(&tcp(self.server, self.end, SYN | ACK));
    }

    fn acknowledge(&self, world: &World) {
        world.forward(&tcp(self.end, self.family.vip(), ACK));
    }

    fn establish(world: &World, family: &'static Addresses, port: u16) -> Self {
        let client = Self::open(world, family, port);
        client.accept(world);
        client.acknowledge(world);
        client
    }

    /// Its connection is there and carries packets both ways.
    fn check(&self, world: &World) {
        let state = state(world, self.end, self.family.vip());
        assert_eq!(state, Some(State::Established), "{}", self.end);
        world.forward(&tcp(self.end, self.family.vip(), ACK));
        world.forward(&tcp(self.server, self.end, ACK));
    }
}

/// SYNs from addresses that nobody has, made from one packet: nobody looks at their checksums.
struct Flood {
    random: Random,
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Flood {
    fn new() -> Self {
        let syn = |family: &Addresses| {
            let mut packet = tcp(family.client(), family.vip(), SYN);
            packet.resize(packet.len() + Packet::HEADROOM, 0);
            packet
        };
        Self { random: Random::new(1), v4: syn(&V4), v6: syn(&V6) }
    }

    /// The next SYN's verdict.
    fn send(&mut self, world: &World) -> Verdict {
        let bits = self.random.next();
        let source = self.random.next().to_be_bytes();
        let (mut buffer, ports) = if bits.is_multiple_of(2) {
            let mut buffer = self.v4.clone();
            // Of all addresses of 16 to 31, which the other clients are not among.
            buffer[12] = 16 + source[0] % 16;
            buffer[13..16].copy_from_slice(&source[1..4]);
            (buffer, 20)
        } else {
            let mut buffer = self.v6.clone();
            buffer[16..24].copy_from_slice(&source);
            (buffer, 40)
        };
        buffer[ports..ports + 2].copy_from_slice(&source[6..8]);
        let length = buffer.len() - Packet::HEADROOM;
        world.director.process(&mut Packet::new(&mut buffer, length), world.now())
    }
}

/// 200,000 SYNs within two seconds, of both families, while other clients come and talk.
fn flood_shuts_nobody_out(connections: usize, half_open: usize) {
    const SYNS: u64 = 200_000;
    let mut world = world(connections, half_open);
    let mut clients: Vec<Client> = Vec::new();
    for family in FAMILIES {
        clients.extend((1..=100).map(|port| Client::establish(&world, family, port)));
    }
    let mut flood = Flood::new();
    let mut port = 1000;
    for n in 0..SYNS {
        assert_eq!(flood.send(&world), Verdict::Forward, "after {n} SYNs");
        // A client needs some time for its handshake, in which the flood goes on.
        match n % 1000 {
            0 => {
                port += 1;
                clients.push(Client::open(&world, FAMILIES[usize::from(port % 2)], port));
            }
            250 => clients[clients.len() - 1].accept(&world),
            500 => clients[clients.len() - 1].acknowledge(&world),
            _ => {}
        }
        if n % 10_000 == 9_999 {
            world.wait_and_sweep(Duration::from_millis(100));
            assert!(world.director.half_open() <= half_open);
        }
    }
    for client in &clients {
        client.check(&world);
    }
    assert_eq!(clients.len(), 400);
    assert_eq!(world.director.half_open(), half_open);
    assert_eq!(world.director.connections(), half_open + clients.len());
    let evicted = SYNS - u64::try_from(half_open).unwrap();
    assert_eq!(world.director.table().evicted.get(), evicted);
    world.recount();
    // It ends, and what is left of it leaves.
    world.wait(Duration::from_secs(62));
    for _ in 0..1000 {
        world.director.sweep(world.now());
    }
    assert_eq!(world.director.half_open(), 0);
    assert_eq!(world.director.connections(), clients.len());
    world.recount();
}

#[test]
fn flood_of_syns_shuts_nobody_out_of_a_small_table() {
    flood_shuts_nobody_out(2_000, 1_000);
}

#[test]
fn flood_of_syns_shuts_nobody_out_of_a_table_of_the_default_size() {
    flood_shuts_nobody_out(1_048_576, 65_536);
}

#[test]
fn oldest_half_open_connection_goes_first() {
    for family in FAMILIES {
        let mut world = world(100, 3);
        let clients = [1, 2, 3].map(|port| Client::open(&world, family, port));
        // A SYN sent again and a server's answer make it no younger.
        world.forward(&tcp(clients[0].end, family.vip(), SYN));
        clients[0].accept(&world);
        let moved = [("forwarded", 1), ("opened", 1), ("evicted", 1)];
        let picked = if family.vip().is_ipv4() { "service-1.picked" } else { "service-2.picked" };
        world.moves(&[moved.as_slice(), &[(picked, 1)]].concat(), |world| {
            Client::open(world, family, 4);
        });
        let states = [1, 2, 3, 4].map(|port| state(&world, family.client_port(port), family.vip()));
        let half_open = Some(State::SynRecv);
        assert_eq!(states, [None, half_open, half_open, half_open]);
        world.drop(&tcp(clients[0].server, clients[0].end, SYN | ACK), DropReason::NoConnection);
        world.recount();
    }
}

#[test]
fn connections_that_are_no_longer_half_open_make_way_for_none() {
    for family in FAMILIES {
        let world = world(1000, 3);
        let established: Vec<_> =
            (1..=50).map(|port| Client::establish(&world, family, port)).collect();
        let refused: Vec<_> = (51..=60).map(|port| Client::open(&world, family, port)).collect();
        for client in &refused[7..] {
            world.forward(&tcp(client.server, client.end, RST | ACK));
        }
        // Refused by the server, so nobody knows whether the clients exist.
        assert_eq!(world.director.half_open(), 3);
        assert_eq!(world.director.table().evicted.get(), 7);
        for port in 101..=110 {
            Client::open(&world, family, port);
        }
        assert_eq!(world.director.half_open(), 3);
        assert_eq!(world.director.table().evicted.get(), 17);
        for client in &established {
            client.check(&world);
        }
        world.recount();
    }
}

/// Whoever cannot see the server's answer must not get past the limit by guessing what comes next.
#[test]
fn segments_of_a_client_that_the_server_did_not_answer_prove_nothing() {
    for family in FAMILIES {
        for flags in [&[ACK][..], &[FIN], &[FIN | ACK], &[0], &[ACK, FIN, ACK], &[RST]] {
            let world = world(20, 5);
            let established: Vec<_> =
                (1..=3).map(|port| Client::establish(&world, family, port)).collect();
            for port in 100..200 {
                let forged = Client::open(&world, family, port);
                for flags in flags {
                    world.forward(&tcp(forged.end, family.vip(), *flags));
                }
            }
            assert_eq!(world.director.half_open(), 5, "{flags:?}");
            assert_eq!(world.director.connections(), 8, "{flags:?}");
            Client::establish(&world, family, 4).check(&world);
            for client in &established {
                client.check(&world);
            }
            world.recount();
        }
    }
}

#[test]
fn half_open_connections_make_way_in_a_full_table() {
    for family in FAMILIES {
        let mut world = world(10, 10);
        let clients: Vec<_> = (1..=4).map(|port| Client::establish(&world, family, port)).collect();
        for port in 11..=30 {
            Client::open(&world, family, port);
        }
        assert_eq!(world.director.connections(), 10);
        assert_eq!(world.director.half_open(), 6);
        // For other protocols and the other family too.
        let [a, b] = FAMILIES;
        world.forward(&udp(a.client_port(1), a.vip(), b""));
        world.forward(&udp(b.client_port(1), b.vip(), b""));
        assert_eq!((world.director.connections(), world.director.half_open()), (10, 4));
        for port in 31..=34 {
            world.forward(&udp(a.client_port(port), a.vip(), b""));
        }
        assert_eq!((world.director.connections(), world.director.half_open()), (10, 0));
        // Now nothing is left that could go.
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (client, vip) = (family.client_port(99), family.vip());
            let first = if protocol == Protocol::Tcp {
                tcp(client, vip, SYN)
            } else {
                udp(client, vip, b"")
            };
            world.moves(&[("drop.table_full", 1)], |world| {
                world.drop(&first, DropReason::TableFull);
            });
        }
        for client in &clients {
            client.check(&world);
        }
        world.recount();
    }
}

#[test]
fn table_full_of_established_connections_refuses_and_carries_on() {
    for family in FAMILIES {
        let mut world = world(20, 20);
        let clients: Vec<_> =
            (1..=20).map(|port| Client::establish(&world, family, port)).collect();
        let mut flood = Flood::new();
        let moved = [("drop.table_full", 1000)];
        world.moves(&moved, |world| {
            for _ in 0..1000 {
                assert_eq!(flood.send(world), Verdict::Drop(DropReason::TableFull));
            }
        });
        for client in &clients {
            client.check(&world);
        }
        // One leaves, one may come.
        world.forward(&tcp(clients[0].end, family.vip(), RST));
        world.forward(&tcp(clients[0].server, clients[0].end, RST));
        for _ in 0..20 {
            world.wait(Duration::from_secs(1));
            for client in &clients[1..] {
                client.check(&world);
            }
            world.director.sweep(world.now());
        }
        assert_eq!(Client::open(&world, family, 21).end, family.client_port(21));
        assert_eq!(flood.send(&world), Verdict::Forward, "in place of that one");
        assert_eq!(world.director.table().evicted.get(), 1);
        world.recount();
    }
}

/// Connections that were established and see a SYN again count as half-open: they too are evicted
/// rather than every newcomer.
#[test]
fn connections_that_turn_half_open_again_shut_nobody_out() {
    for family in FAMILIES {
        let world = world(1000, 10);
        let clients: Vec<_> =
            (1..=50).map(|port| Client::establish(&world, family, port)).collect();
        for client in &clients {
            world.forward(&tcp(client.end, family.vip(), FIN | ACK));
            world.forward(&tcp(client.end, family.vip(), SYN));
        }
        let newcomer = Client::open(&world, family, 1000);
        for port in 1001..=1005 {
            Client::open(&world, family, port);
        }
        newcomer.accept(&world);
        newcomer.acknowledge(&world);
        newcomer.check(&world);
        assert!(world.director.half_open() <= 10, "{}", world.director.half_open());
        world.recount();
    }
}
