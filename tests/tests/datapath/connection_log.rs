//! What the log of the connections is told: each beginning and each end, once, and why it ended.

use std::net::SocketAddr;
use std::time::Duration;

use wvs_core::connection::log::EndReason;
use wvs_core::connection::state::State;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::service::Protocol;
use wvs_tests::packet::{ACK, FIN, RST, SYN, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World, settings};

use crate::{Addresses, FAMILIES, V4};

/// A world that tells of its connections.
fn world(family: &Addresses, limits: TableLimits) -> World {
    let services = vec![family.service(Protocol::Tcp), family.service(Protocol::Udp)];
    let world = World::with(DirectorConfig { limits, ..settings() }, services);
    world.director.tables().log().want(true);
    world
}

fn roomy(family: &Addresses) -> World {
    world(family, settings().limits)
}

/// The client's port of each connection that opened (`None`) or ended since the last look.
fn told(world: &World) -> Vec<(u16, Option<(EndReason, State)>)> {
    let log = world.director.tables().log();
    std::iter::from_fn(|| log.pop())
        .map(|record| (record.client().port(), record.end().map(|end| (end.reason, end.state))))
        .collect()
}

/// Opens a connection; the server that has it.
fn open(world: &World, client: SocketAddr, vip: SocketAddr) -> SocketAddr {
    receive(&world.forward(&tcp(client, vip, SYN))).destination
}

fn establish(world: &World, client: SocketAddr, vip: SocketAddr) -> SocketAddr {
    let server = open(world, client, vip);
    world.forward(&tcp(server, client, SYN | ACK));
    world.forward(&tcp(client, vip, ACK));
    server
}

const OPENED: Option<(EndReason, State)> = None;

#[test]
fn nothing_is_told_unless_somebody_wants_to_know() {
    let world = roomy(&V4);
    world.director.tables().log().want(false);
    open(&world, V4.client(), V4.vip());
    assert_eq!(told(&world), []);
    assert_eq!(world.director.tables().log().lost(), 0);
}

#[test]
fn beginning_and_end_of_each_connection_are_told_once_with_the_reason() {
    for family in FAMILIES {
        let vip = family.vip();
        let mut world = roomy(family);
        let client = |port| family.client_port(port);

        let server = establish(&world, client(1), vip);
        world.forward(&tcp(client(1), vip, FIN | ACK));
        world.forward(&tcp(server, client(1), FIN | ACK));
        world.forward(&tcp(client(1), vip, ACK));
        let server = establish(&world, client(2), vip);
        world.forward(&tcp(server, client(2), RST));
        open(&world, client(3), vip);
        establish(&world, client(4), vip);
        world.forward(&udp(client(5), vip, b"?"));
        assert_eq!(told(&world), [1, 2, 3, 4, 5].map(|port| (port, OPENED)));

        // Packets in between are nobody's business.
        world.forward(&tcp(client(4), vip, ACK));
        assert_eq!(told(&world), []);

        let mut told_of = |timeout| {
            world.outlast(timeout);
            told(&world)
        };
        let ended = |reason, state| Some((reason, state));
        let second = Duration::from_secs(1);
        assert_eq!(told_of(10 * second), [(2, ended(EndReason::Reset, State::Close))]);
        assert_eq!(told_of(50 * second), [(3, ended(EndReason::Unanswered, State::SynRecv))]);
        assert_eq!(told_of(60 * second), [(1, ended(EndReason::Closed, State::TimeWait))]);
        assert_eq!(told_of(180 * second), [(5, ended(EndReason::Expired, State::Udp))]);
        assert_eq!(told_of(900 * second), [(4, ended(EndReason::Expired, State::Established))]);
    }
}

#[test]
fn connection_that_makes_way_says_for_what() {
    for family in FAMILIES {
        let vip = family.vip();
        let world = world(family, TableLimits { connections: 3, half_open: 1 });
        let client = |port| family.client_port(port);
        let server = establish(&world, client(1), vip);
        world.forward(&tcp(server, client(1), RST));
        establish(&world, client(1), vip);
        let replaced = Some((EndReason::Replaced, State::Close));
        assert_eq!(told(&world), [(1, OPENED), (1, replaced), (1, OPENED)]);

        open(&world, client(2), vip);
        open(&world, client(3), vip);
        let evicted = Some((EndReason::Evicted, State::SynRecv));
        assert_eq!(told(&world), [(2, OPENED), (3, OPENED), (2, evicted)]);
    }
}

#[test]
fn connection_whose_server_went_down_says_so() {
    for family in FAMILIES {
        let mut world = roomy(family);
        let udp_service = world.service(1);
        let ended = |reason| Some((reason, State::Udp));
        let open = |world: &World, port| {
            world.forward(&udp(family.client_port(port), family.vip(), b"?"));
        };
        let change = |world: &World, is_down| {
            for server in &*udp_service.servers() {
                let address = server.address();
                udp_service
                    .change_server(address, world.now(), |standing| standing.is_down = is_down)
                    .unwrap();
            }
        };
        open(&world, 1);
        told(&world);
        change(&world, true);
        world.outlast(Duration::ZERO);
        assert_eq!(told(&world), [(1, ended(EndReason::ServerDown))]);

        // The client's next datagram begins another connection at once.
        change(&world, false);
        open(&world, 2);
        let server = receive(&world.forward(&udp(family.client_port(2), family.vip(), b"?")));
        told(&world);
        udp_service
            .change_server(server.destination, world.now(), |standing| standing.is_down = true)
            .unwrap();
        open(&world, 2);
        assert_eq!(told(&world), [(2, ended(EndReason::ServerDown)), (2, OPENED)]);
    }
}

#[test]
fn connections_of_a_director_that_stops_are_all_told() {
    for family in FAMILIES {
        let world = roomy(family);
        establish(&world, family.client_port(1), family.vip());
        world.forward(&udp(family.client_port(2), family.vip(), b"?"));
        told(&world);
        world.director.end_all();
        let ended = |state| Some((EndReason::Stopped, state));
        assert_eq!(told(&world), [(1, ended(State::Established)), (2, ended(State::Udp))]);
        assert_eq!(world.director.connections(), 0);
        assert!(world.servers(0).iter().all(|server| server.connections() == 0));
    }
}

#[test]
fn record_says_who_talks_to_whom() {
    for family in FAMILIES {
        let pool = if family.vip().is_ipv6() { "fd09::1" } else { "10.9.0.1" };
        let service = ServiceSpec::new(Protocol::Tcp, family.vip, &family.servers);
        let mut world = World::new(vec![service.full_nat(&[pool], 2_000..=2_000)]);
        let log = |world: &World| world.director.tables().log().pop().unwrap();
        world.director.tables().log().want(true);
        world.forward(&tcp(family.client(), family.vip(), SYN));

        let record = log(&world);
        assert_eq!(record.protocol(), Protocol::Tcp);
        assert_eq!((record.client(), record.vip()), (family.client(), family.vip()));
        assert_eq!(record.server().address(), family.server(0));
        assert_eq!(&*record.server().terms().service, "service-1");
        assert_eq!(record.local(), Some(format_at(pool)));
        assert_eq!(record.lifetime_ms(), 0);

        // It is told when the connection is gone, and still knows everything.
        world.wait(Duration::from_secs(5));
        world.forward(&tcp(family.client(), family.vip(), SYN));
        world.outlast(Duration::from_secs(60));
        let record = log(&world);
        assert!(record.end().is_some());
        assert_eq!((record.client(), record.local()), (family.client(), Some(format_at(pool))));
        assert!((4_000..=5_000).contains(&record.lifetime_ms()), "{}", record.lifetime_ms());
    }
}

/// The only place of a pool.
fn format_at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 2_000)
}

#[test]
fn records_that_nobody_takes_stop_no_packet_and_are_counted() {
    let limits = TableLimits { connections: 100_000, half_open: 100_000 };
    let world = world(&V4, limits);
    let template = tcp(V4.client(), V4.vip(), SYN);
    for n in 0_u32..70_000 {
        let mut packet = template.clone();
        packet[12..16].copy_from_slice(&(0x2000_0000 + n).to_be_bytes());
        let length = packet.len();
        packet.resize(length + Packet::HEADROOM, 0);
        let _ = world.director.process(&mut Packet::new(&mut packet, length), world.now());
    }
    assert_eq!(world.director.connections(), 70_000);
    assert_eq!(world.director.tables().log().lost(), 70_000 - 65_536);
}
