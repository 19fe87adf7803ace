//! Full NAT: both ends of a packet are replaced, and pools give out their places.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::scheduler::Pick;
use wvs_core::service::{OnNoServer, Protocol};
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{
    ACK, FIN, RST, SYN, SeenTransport, Tcp, at, echo, icmp_error, receive, tcp, udp,
};
use wvs_tests::world::{Always, LATENESS, ServiceSpec, World};

use crate::{Addresses, FAMILIES, V4};

impl Addresses {
    /// Two addresses of the director's.
    fn pool(&self) -> [&'static str; 2] {
        if self.client().is_ipv4() {
            ["192.0.2.50", "192.0.2.51"]
        } else {
            ["fd00:5::50", "fd00:5::51"]
        }
    }

    fn full_nat(&self, protocol: Protocol) -> ServiceSpec {
        self.service(protocol).full_nat(&self.pool(), 20_000..=29_999)
    }

    fn vip_ip(&self) -> String {
        self.vip().ip().to_string()
    }

    /// A world with one server, and as the only addresses of its pool the VIP with these ports.
    fn few_places(&self, protocol: Protocol, ports: std::ops::RangeInclusive<u16>) -> World {
        let spec = ServiceSpec::new(protocol, self.vip, &self.servers[..1]);
        World::new(vec![spec.full_nat(&[&self.vip_ip()], ports)])
    }

    fn is_in_pool(&self, end: SocketAddr) -> bool {
        self.pool().iter().any(|ip| end.ip() == ip.parse::<IpAddr>().unwrap())
            && (20_000..=29_999).contains(&end.port())
    }
}

fn first_packet(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => tcp(source, destination, SYN),
        _ => udp(source, destination, b"ping"),
    }
}

fn answer(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => tcp(source, destination, SYN | ACK),
        _ => udp(source, destination, b"pong"),
    }
}

const STATES_AND_NONE: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[test]
fn server_sees_the_pool_alone_and_the_client_the_vip_alone() {
    for family in FAMILIES {
        for protocol in STATES_AND_NONE {
            let mut world = World::new(vec![family.full_nat(protocol)]);
            let moved = [("forwarded", 1), ("opened", 1), ("service-1.picked", 1)];
            let request = first_packet(protocol, family.client(), family.vip());
            let sent = world.moves(&moved, |world| world.forward(&request));
            let seen = receive(&sent);
            assert!(family.is_in_pool(seen.source), "{}", seen.source);
            assert_eq!(seen.destination, family.server(0));
            // What the server would have got from a host that has the place itself.
            assert_eq!(sent, first_packet(protocol, seen.source, family.server(0)));

            let reply = answer(protocol, family.server(0), seen.source);
            let sent = world.moves(&[("forwarded", 1)], |world| world.forward(&reply));
            let _ = receive(&sent);
            assert_eq!(sent, answer(protocol, family.vip(), family.client()));

            let again = receive(&world.forward(&request));
            assert_eq!((again.source, again.destination), (seen.source, seen.destination));
            assert_eq!(world.director.connections(), 1);
            world.recount();
        }
    }
}

#[test]
fn everything_but_ends_and_checksums_stays_in_both_directions() {
    for family in FAMILIES {
        let world = World::new(vec![family.full_nat(Protocol::Tcp)]);
        let local = receive(&world.forward(&tcp(family.client(), family.vip(), SYN))).source;
        for payload in [b"".as_slice(), b"odd", &[0xff; 400], &[0; 33]] {
            let segment = |source, destination| Tcp {
                sequence: 0xFFFF_FFF0,
                hop_limit: 7,
                ..Tcp::new(source, destination, ACK).payload(payload)
            };
            let sent = world.forward(&segment(family.client(), family.vip()).build());
            assert_eq!(sent, segment(local, family.server(0)).build());
            let sent = world.forward(&segment(family.server(0), local).build());
            assert_eq!(sent, segment(family.vip(), family.client()).build());
        }
    }
}

#[test]
fn datagram_without_checksum_stays_without_over_ipv4() {
    let world = World::new(vec![V4.full_nat(Protocol::Udp)]);
    let without = |source, destination| {
        let mut datagram = udp(source, destination, b"ping");
        datagram[26..28].fill(0);
        datagram
    };
    let sent = world.forward(&without(V4.client(), V4.vip()));
    let local = receive(&sent).source;
    assert_eq!(sent, without(local, V4.server(0)));
    let sent = world.forward(&without(V4.server(0), local));
    assert_eq!(sent, without(V4.vip(), V4.client()));
}

/// A TCP connection goes through its states and leaves; the place in the pool comes with it.
#[test]
fn states_and_expiry_are_those_of_nat() {
    for family in FAMILIES {
        let mut world = World::new(vec![family.full_nat(Protocol::Tcp)]);
        let (client, vip, server) = (family.client(), family.vip(), family.server(0));
        let local = receive(&world.forward(&tcp(client, vip, SYN))).source;
        let state = |world: &World| {
            let tables = world.director.tables();
            let v4 = tables.v4().snapshot().first().and_then(|connection| connection.state());
            v4.or_else(|| tables.v6().snapshot().first().and_then(|connection| connection.state()))
        };
        assert_eq!(state(&world), Some(State::SynRecv));
        world.forward(&tcp(server, local, SYN | ACK));
        world.forward(&tcp(client, vip, ACK));
        assert_eq!(state(&world), Some(State::Established));
        assert_eq!(world.servers(0)[0].active(), 1);
        world.forward(&tcp(server, local, FIN | ACK));
        assert_eq!(state(&world), Some(State::FinWait));
        world.forward(&tcp(client, vip, FIN | ACK));
        assert_eq!(state(&world), Some(State::TimeWait));
        world.recount();
        assert_eq!(world.outlast(Duration::from_secs(120)), 1);
        world.recount();
        world.drop(&tcp(server, local, ACK), DropReason::NoConnection);
    }
}

#[test]
fn echo_identifier_is_the_place_in_the_pool() {
    for family in FAMILIES {
        let host = |end: SocketAddr| SocketAddr::new(end.ip(), 0).to_string();
        let (vip, server) = (host(family.vip()), host(family.server(0)));
        let spec = ServiceSpec::new(Protocol::Icmp, &vip, &[&server])
            .full_nat(&family.pool(), 20_000..=29_999);
        let world = World::new(vec![spec]);
        let (vip, server) = (at(&vip).ip(), at(&server).ip());
        let mut locals = BTreeSet::new();
        // The same identifier from two clients, and another one from the first.
        let other = if vip.is_ipv4() { "198.51.100.8" } else { "2001:db8:1::8" };
        let other: IpAddr = other.parse().unwrap();
        for (client, identifier) in [(family.client().ip(), 9), (other, 9), (other, 10)] {
            let request = echo(client, vip, true, identifier);
            let sent = world.forward(&request);
            let seen = receive(&sent);
            assert_eq!(seen.destination.ip(), server);
            let SeenTransport::Icmp { rest: [a, b, ..], .. } = seen.transport else {
                panic!("no echo: {seen:?}")
            };
            let local = SocketAddr::new(seen.source.ip(), u16::from_be_bytes([a, b]));
            assert!(family.is_in_pool(local), "{local}");
            assert!(locals.insert(local), "{local} was given out before");
            assert_eq!(sent, echo(local.ip(), server, true, local.port()));

            let sent = world.forward(&echo(server, local.ip(), false, local.port()));
            let _ = receive(&sent);
            assert_eq!(sent, echo(vip, client, false, identifier));
            assert_eq!(receive(&world.forward(&request)).source.ip(), local.ip());
        }
        assert_eq!(world.director.connections(), 3);
        world.recount();
    }
}

/// From the server, or a router before it, to the pool; and from the client's side to the VIP.
#[test]
fn icmp_errors_are_translated_outside_and_inside_in_both_directions() {
    for family in FAMILIES {
        let is_ipv4 = family.vip().is_ipv4();
        let unreachable = if is_ipv4 { [3, 4] } else { [2, 0] };
        let inner = at(if is_ipv4 { "10.9.9.9:0" } else { "[fd09::9]:0" }).ip();
        let outer = at(if is_ipv4 { "198.51.100.1:0" } else { "[2001:db8:1::1]:0" }).ip();
        for protocol in STATES_AND_NONE {
            let world = World::new(vec![family.full_nat(protocol)]);
            let request = first_packet(protocol, family.client(), family.vip());
            let forwarded = world.forward(&request);
            let local = receive(&forwarded).source;
            let header = if is_ipv4 { 20 } else { 40 };
            for quoted in [forwarded.len(), header + 8] {
                for sender in [family.server(0).ip(), inner] {
                    let error = icmp_error(sender, local.ip(), unreachable, &forwarded[..quoted]);
                    let seen = receive(&world.forward(&error));
                    assert_eq!(seen.source.ip(), family.vip().ip());
                    assert_eq!(seen.destination.ip(), family.client().ip());
                    assert_eq!(seen.payload, request[..quoted], "as the client sent it");
                }
            }
            let reply = answer(protocol, family.server(0), local);
            let forwarded = world.forward(&reply);
            for quoted in [forwarded.len(), header + 8] {
                for sender in [family.client().ip(), outer] {
                    let quote = &forwarded[..quoted];
                    let error = icmp_error(sender, family.vip().ip(), unreachable, quote);
                    let seen = receive(&world.forward(&error));
                    assert!(seen.source.ip() != family.client().ip(), "the server sees no client");
                    assert_eq!(seen.source.ip(), local.ip());
                    assert_eq!(seen.destination.ip(), family.server(0).ip());
                    assert_eq!(seen.payload, reply[..quoted], "as the server sent it");
                }
            }
        }
    }
}

#[test]
fn icmp_error_about_an_echo_quotes_the_identifier_of_whoever_sent_it() {
    for family in FAMILIES {
        let host = |end: SocketAddr| SocketAddr::new(end.ip(), 0).to_string();
        let (vip, server) = (host(family.vip()), host(family.server(0)));
        let spec = ServiceSpec::new(Protocol::Icmp, &vip, &[&server])
            .full_nat(&family.pool(), 20_000..=29_999);
        let world = World::new(vec![spec]);
        let (client, vip, server) = (family.client().ip(), at(&vip).ip(), at(&server).ip());
        let unreachable = if vip.is_ipv4() { [3, 1] } else { [1, 3] };
        let request = echo(client, vip, true, 9);
        let forwarded = world.forward(&request);
        let local = receive(&forwarded).source.ip();
        let header = if vip.is_ipv4() { 20 } else { 40 };
        let identifier = u16::from_be_bytes([forwarded[header + 4], forwarded[header + 5]]);
        let seen = receive(&world.forward(&icmp_error(server, local, unreachable, &forwarded)));
        assert_eq!((seen.source.ip(), seen.destination.ip()), (vip, client));
        assert_eq!(seen.payload, request);

        let reply = echo(server, local, false, identifier);
        let forwarded = world.forward(&reply);
        let seen = receive(&world.forward(&icmp_error(client, vip, unreachable, &forwarded)));
        assert_eq!((seen.source.ip(), seen.destination.ip()), (local, server));
        assert_eq!(seen.payload, reply);
    }
}

#[test]
fn clients_with_the_same_port_have_places_of_their_own() {
    for family in FAMILIES {
        let world =
            World::new(vec![family.full_nat(Protocol::Udp).scheduler(Always(Pick::Server(0)))]);
        let other = if family.vip().is_ipv4() { "198.51.100.8" } else { "2001:db8:1::8" };
        let clients =
            [family.client(), SocketAddr::new(other.parse().unwrap(), family.client().port())];
        let locals = clients
            .map(|client| receive(&world.forward(&udp(client, family.vip(), b"ping"))).source);
        assert_ne!(locals[0], locals[1]);
        for (client, local) in clients.into_iter().zip(locals) {
            let reply = receive(&world.forward(&udp(family.server(0), local, b"pong")));
            assert_eq!((reply.source, reply.destination), (family.vip(), client));
        }
    }
}

#[test]
fn one_client_port_may_use_two_services_on_one_server() {
    for family in FAMILIES {
        let second_vip = SocketAddr::new(family.vip().ip(), 81);
        let spec = |address: &str| {
            ServiceSpec::new(Protocol::Tcp, address, &family.servers[..1])
                .full_nat(&family.pool(), 20_000..=29_999)
        };
        let world = World::new(vec![spec(family.vip), spec(&second_vip.to_string())]);
        let vips = [family.vip(), second_vip];
        let locals =
            vips.map(|vip| receive(&world.forward(&tcp(family.client(), vip, SYN))).source);
        assert_ne!(locals[0], locals[1]);
        for (vip, local) in vips.into_iter().zip(locals) {
            let reply = receive(&world.forward(&tcp(family.server(0), local, SYN | ACK)));
            assert_eq!((reply.source, reply.destination), (vip, family.client()));
        }
        world.recount();
    }
}

#[test]
fn real_server_may_be_a_client_of_its_own_service() {
    for family in FAMILIES {
        let spec = ServiceSpec::new(Protocol::Tcp, family.vip, &family.servers[..1])
            .full_nat(&family.pool(), 20_000..=29_999);
        let world = World::new(vec![spec]);
        let server = family.server(0);
        let client = SocketAddr::new(server.ip(), 45_000);
        let seen = receive(&world.forward(&tcp(client, family.vip(), SYN)));
        assert!(family.is_in_pool(seen.source));
        assert_eq!(seen.destination, server);
        let reply = receive(&world.forward(&tcp(server, seen.source, SYN | ACK)));
        assert_eq!((reply.source, reply.destination), (family.vip(), client));
        // Even from the port that it serves on.
        let seen = receive(&world.forward(&tcp(server, family.vip(), SYN)));
        assert!(family.is_in_pool(seen.source));
        let reply = receive(&world.forward(&tcp(server, seen.source, SYN | ACK)));
        assert_eq!((reply.source, reply.destination), (family.vip(), server));
        world.recount();
    }
}

#[test]
fn vip_itself_may_be_the_pool() {
    for family in FAMILIES {
        for protocol in STATES_AND_NONE {
            // With the service's own port among the places.
            let world = family.few_places(protocol, 80..=81);
            let clients = [family.client(), family.client_port(1)];
            let locals = clients.map(|client| {
                let seen = receive(&world.forward(&first_packet(protocol, client, family.vip())));
                assert_eq!(
                    (seen.source.ip(), seen.destination),
                    (family.vip().ip(), family.server(0))
                );
                seen.source
            });
            for (client, local) in clients.into_iter().zip(locals) {
                let reply = receive(&world.forward(&answer(protocol, family.server(0), local)));
                assert_eq!((reply.source, reply.destination), (family.vip(), client));
            }
            world.recount();
        }
    }
}

#[test]
fn connection_without_a_free_place_is_refused_as_the_service_says_and_counted() {
    for family in FAMILIES {
        for on_no_server in [OnNoServer::Reset, OnNoServer::Icmp, OnNoServer::Drop] {
            for protocol in STATES_AND_NONE {
                let mut spec = ServiceSpec::new(protocol, family.vip, &family.servers[..1])
                    .full_nat(&[family.pool()[0]], 20_000..=20_002);
                spec.settings.on_no_server = on_no_server;
                let world = World::new(vec![spec]);
                let open = |port| first_packet(protocol, family.client_port(port), family.vip());
                for port in 1..=3 {
                    let seen = receive(&world.forward(&open(port)));
                    world.forward(&answer(protocol, family.server(0), seen.source));
                    if protocol == Protocol::Tcp {
                        world.forward(&tcp(family.client_port(port), family.vip(), ACK));
                    }
                }
                let (verdict, sent) = world.process(&open(4));
                if on_no_server == OnNoServer::Drop {
                    assert_eq!(verdict, Verdict::Drop(DropReason::PoolExhausted));
                } else {
                    assert_eq!(verdict, Verdict::Reply);
                    let seen = receive(&sent);
                    assert_eq!(seen.source.ip(), family.vip().ip());
                    assert_eq!(seen.destination.ip(), family.client().ip());
                    let is_reset = matches!(seen.transport,
                        SeenTransport::Tcp { flags, .. } if flags & RST != 0);
                    let may_reset = protocol == Protocol::Tcp && on_no_server == OnNoServer::Reset;
                    assert_eq!(is_reset, may_reset);
                }
                let service = world.service(0);
                let pool = service.terms().pool().unwrap();
                assert_eq!(pool.exhausted(), 1);
                assert_eq!(world.director.connections(), 3);
                // Those that have places go on.
                world.forward(&open(1));
                world.recount();
            }
        }
    }
}

#[test]
fn flood_of_syns_keeps_no_place_of_a_pool_from_a_client_and_takes_none_from_an_established_one() {
    for family in FAMILIES {
        let world = family.few_places(Protocol::Tcp, 20_000..=20_007);
        let establish = |port| {
            let client = family.client_port(port);
            let seen = receive(&world.forward(&tcp(client, family.vip(), SYN)));
            world.forward(&tcp(family.server(0), seen.source, SYN | ACK));
            world.forward(&tcp(client, family.vip(), ACK));
            (client, seen.source)
        };
        let early = establish(1);
        for port in 1_000..1_100 {
            world.forward(&tcp(family.client_port(port), family.vip(), SYN));
        }
        let late = establish(2);
        for port in 2_000..2_100 {
            world.forward(&tcp(family.client_port(port), family.vip(), SYN));
        }
        for (client, local) in [early, late] {
            let reply = receive(&world.forward(&tcp(family.server(0), local, ACK)));
            assert_eq!((reply.source, reply.destination), (family.vip(), client));
        }
        assert_eq!((world.director.connections(), world.director.half_open()), (8, 6));
        assert_eq!(world.director.table().evicted.get(), 202 - 8);
        world.recount();
    }
}

#[test]
fn each_server_has_all_the_places() {
    for family in FAMILIES {
        let spec = family.service(Protocol::Udp).full_nat(&[family.pool()[0]], 20_000..=20_001);
        let world = World::new(vec![spec]);
        let ends: BTreeSet<_> = (1..=4)
            .map(|port| receive(&world.forward(&udp(family.client_port(port), family.vip(), b""))))
            .map(|seen| (seen.source, seen.destination))
            .collect();
        assert_eq!(ends.len(), 4, "two places to each of two servers: {ends:?}");
        world.reply(&udp(family.client_port(5), family.vip(), b""));
        world.recount();
    }
}

#[test]
fn place_that_was_given_back_rests_until_all_others_were_tried() {
    for family in FAMILIES {
        let mut world = family.few_places(Protocol::Udp, 20_000..=20_009);
        let open = |world: &World, port| {
            receive(&world.forward(&udp(family.client_port(port), family.vip(), b""))).source.port()
        };
        let first = open(&world, 1);
        assert_eq!(world.outlast(Duration::from_secs(300)), 1);
        let others: Vec<_> = (2..=10).map(|port| open(&world, port)).collect();
        assert!(!others.contains(&first), "{first} of {others:?}");
        assert_eq!(open(&world, 11), first);
        world.reply(&udp(family.client_port(12), family.vip(), b""));
        world.recount();
    }
}

/// A connection that is over, but not yet expired, has its place still: segments may be under way.
#[test]
fn place_of_a_closed_connection_rests_until_it_expires() {
    for family in FAMILIES {
        let mut world = family.few_places(Protocol::Tcp, 20_000..=20_002);
        let (vip, server) = (family.vip(), family.server(0));
        let open = |world: &World, port| {
            receive(&world.forward(&tcp(family.client_port(port), vip, SYN))).source
        };
        let locals = [1, 2, 3].map(|port| open(&world, port));
        let finish = |world: &World, port, local| {
            world.forward(&tcp(server, local, SYN | ACK));
            world.forward(&tcp(family.client_port(port), vip, ACK));
        };
        finish(&world, 1, locals[0]);
        finish(&world, 2, locals[1]);
        // The third, which never got further, leaves; then the first is over. Its turn comes first.
        assert_eq!(world.outlast(Duration::from_secs(60)), 1);
        world.forward(&tcp(server, locals[0], RST | ACK));
        assert_eq!(open(&world, 4), locals[2]);
        finish(&world, 4, locals[2]);
        // Now all are taken, and nobody is half-open.
        world.reply(&tcp(family.client_port(5), vip, SYN));
        assert_eq!(world.outlast(Duration::from_secs(10)), 1);
        assert_eq!(open(&world, 5), locals[0]);
        world.recount();
    }
}

#[test]
fn client_that_comes_again_after_a_close_gets_a_new_place() {
    for family in FAMILIES {
        let spec = ServiceSpec::new(Protocol::Tcp, family.vip, &family.servers[..1])
            .full_nat(&family.pool(), 20_000..=29_999);
        let mut world = World::new(vec![spec]);
        let open = tcp(family.client(), family.vip(), SYN);
        let first = receive(&world.forward(&open)).source;
        world.forward(&tcp(family.server(0), first, RST | ACK));
        let moved = [("forwarded", 1), ("opened", 1), ("replaced", 1), ("service-1.picked", 1)];
        let sent = world.moves(&moved, |world| world.forward(&open));
        let second = receive(&sent).source;
        assert_ne!(first, second);
        let reply = receive(&world.forward(&tcp(family.server(0), second, SYN | ACK)));
        assert_eq!((reply.source, reply.destination), (family.vip(), family.client()));
        world.drop(&tcp(family.server(0), first, ACK), DropReason::NoConnection);
        world.recount();
    }
}

#[test]
fn packets_to_a_pool_that_belong_to_no_connection_are_dropped() {
    for family in FAMILIES {
        let mut world = World::new(vec![family.full_nat(Protocol::Tcp)]);
        let local = receive(&world.forward(&tcp(family.client(), family.vip(), SYN))).source;
        let elsewhere = SocketAddr::new(local.ip(), 30_000);
        for packet in [
            tcp(family.server(0), elsewhere, SYN | ACK),
            // Another server than the one that has the place.
            tcp(family.server(1), local, SYN | ACK),
            tcp(family.client(), local, SYN),
            udp(family.server(0), local, b"pong"),
        ] {
            world.moves(&[("drop.no_connection", 1)], |world| {
                world.drop(&packet, DropReason::NoConnection);
            });
        }
        // Nor is ICMP to it somebody else's.
        let (sender, pool) = (family.client().ip(), local.ip());
        world.drop(&echo(sender, pool, true, 1), DropReason::IcmpType);
        world.drop(&echo(sender, pool, false, local.port()), DropReason::IcmpType);
        let unreachable = if pool.is_ipv4() { [3, 1] } else { [1, 3] };
        let stranger = udp(elsewhere, family.client(), b"never sent");
        let error = icmp_error(sender, pool, unreachable, &stranger);
        world.drop(&error, DropReason::IcmpQuote);
        // A packet that claims to come from the pool cannot be a client's.
        world.drop(&tcp(local, family.vip(), SYN), DropReason::SourceAddress);
        assert_eq!(world.director.connections(), 1);
        world.recount();
    }
}

/// With one place in five free at a time and clients that come and go, no two connections ever
/// have the same place, and none is refused.
#[test]
fn busy_pool_gives_no_place_out_twice() {
    const PLACES: u16 = 100;
    let mut world = V4.few_places(Protocol::Udp, 20_000..=20_000 + PLACES - 1);
    for round in 0..50_u16 {
        let mut taken = BTreeSet::new();
        for client in 0..PLACES {
            let port = 1 + round * PLACES + client;
            let seen = receive(&world.forward(&udp(V4.client_port(port), V4.vip(), b"")));
            assert!(taken.insert(seen.source), "{} twice", seen.source);
        }
        world.reply(&udp(V4.client_port(60_000), V4.vip(), b""));
        world.wait(Duration::from_secs(300) + LATENESS);
        while world.director.sweep(world.now()) > 0 {}
        world.recount();
        assert_eq!(world.director.connections(), 0);
    }
}
