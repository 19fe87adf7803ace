//! The connection table: limits, collisions, races, sweeps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, RST, SYN, at, receive, tcp, udp};
use wvs_tests::world::{Always, LATENESS, ServiceSpec, World, settings};

use crate::{FAMILIES, V4, V6};

#[test]
fn full_table_refuses_and_counts_and_lets_go_on_what_it_has() {
    let settings =
        DirectorConfig { limits: TableLimits { connections: 2, half_open: 2 }, ..settings() };
    let services = vec![V4.service(Protocol::Udp), V6.service(Protocol::Udp)];
    let mut world = World::with(settings, services);
    // Both families share the limit.
    world.forward(&udp(V4.client(), V4.vip(), b""));
    world.forward(&udp(V6.client(), V6.vip(), b""));
    world.moves(&[("drop.table_full", 1)], |world| {
        world.drop(&udp(V4.client_port(1), V4.vip(), b""), DropReason::TableFull);
    });
    world.forward(&udp(V4.client(), V4.vip(), b""));
    assert_eq!(world.outlast(Duration::from_secs(300)), 2);
    world.forward(&udp(V4.client_port(1), V4.vip(), b""));
}

/// No sweep comes by, and nobody is refused: who opens connections helps to forget those that made
/// way.
#[test]
fn connections_that_replace_each_other_are_forgotten_as_fast_as_they_come() {
    let settings =
        DirectorConfig { limits: TableLimits { connections: 10, half_open: 10 }, ..settings() };
    let mut world = World::with(settings, vec![V4.service(Protocol::Tcp)]);
    let before = world.counters();
    for _ in 0..10_000 {
        world.forward(&tcp(V4.client(), V4.vip(), SYN));
        let _ = world.process(&tcp(V4.server(0), V4.client(), RST));
        let _ = world.process(&tcp(V4.server(1), V4.client(), RST));
    }
    let moved = |name: &str| world.counters()[name] - before[name];
    assert_eq!((moved("opened"), moved("replaced")), (10_000, 9_999));
    world.recount();
    assert_eq!(world.outlast(Duration::from_secs(10)), 1);
}

#[test]
fn listing_has_as_many_connections_as_are_wanted_and_no_closed_ones() {
    let mut world = World::new(vec![
        ServiceSpec::new(Protocol::Udp, "203.0.113.10:53", &["10.0.0.1:53"]),
        ServiceSpec::new(Protocol::Udp, "203.0.113.11:53", &["10.0.0.2:53"]),
    ]);
    for port in 1..=1_000 {
        let vip = if port % 4 == 0 { "203.0.113.11:53" } else { "203.0.113.10:53" };
        world.forward(&udp(V4.client_port(port), at(vip), b""));
    }
    let list = |world: &World, limit, vip: Option<&str>| {
        let is_wanted = |vip: Option<std::net::SocketAddr>, destination: std::net::Ipv4Addr| {
            vip.is_none_or(|vip| vip.ip() == destination)
        };
        let vip = vip.map(at);
        let table = world.director.tables().v4();
        table.list(limit, |connection| is_wanted(vip, connection.original().destination)).len()
    };
    let second = Some("203.0.113.11:53");
    for (limit, vip, expected) in
        [(0, None, 0), (1, None, 1), (999, None, 999), (5_000, None, 1_000), (100, second, 100)]
    {
        assert_eq!(list(&world, limit, vip), expected, "{limit}");
    }
    assert_eq!(list(&world, 5_000, second), 250);
    world.outlast(Duration::from_secs(300));
    assert_eq!(list(&world, 5_000, None), 0);
}

#[test]
fn second_service_on_one_server_does_not_take_over_the_clients_replies() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let world = World::new(vec![
            ServiceSpec::new(protocol, "203.0.113.10:80", &["10.0.0.1:80"]),
            ServiceSpec::new(protocol, "203.0.113.11:80", &["10.0.0.1:80"]),
        ]);
        let open = |vip: &str| match protocol {
            Protocol::Tcp => tcp(V4.client(), at(vip), SYN),
            _ => udp(V4.client(), at(vip), b""),
        };
        world.forward(&open("203.0.113.10:80"));
        // From the same client port to the same server: its replies could not be told apart.
        world.drop(&open("203.0.113.11:80"), DropReason::ReplyTupleTaken);
        world.recount();
        assert_eq!(world.director.connections(), 1);
        if protocol == Protocol::Tcp {
            world.forward(&tcp(at("10.0.0.1:80"), V4.client(), RST | ACK));
            let sent = world.forward(&open("203.0.113.11:80"));
            assert_eq!(receive(&sent).destination, at("10.0.0.1:80"), "the first one is over");
            let reply = world.forward(&tcp(at("10.0.0.1:80"), V4.client(), SYN | ACK));
            assert_eq!(receive(&reply).source, at("203.0.113.11:80"));
            world.recount();
        }
    }
}

#[test]
fn bad_answers_of_a_scheduler_are_not_followed() {
    for pick in [Pick::Server(2), Pick::Server(usize::MAX), Pick::Defer] {
        let mut world = World::new(vec![V4.service(Protocol::Tcp).scheduler(Always(pick))]);
        let moved = [("forwarded", 1), ("opened", 1), ("service-1.fallback", 1)];
        world.moves(&moved, |world| world.forward(&tcp(V4.client(), V4.vip(), SYN)));
    }
    // A server of weight 0 may not be picked either.
    let world = World::new(vec![V4.service(Protocol::Tcp).scheduler(Always(Pick::Server(0)))]);
    world.servers(0)[0].set_weight(0);
    let sent = world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(receive(&sent).destination, V4.server(1));
    world.servers(0)[1].set_weight(0);
    world.reply(&tcp(V4.client_port(1), V4.vip(), SYN));
}

#[test]
fn fallback_follows_weighted_least_connections() {
    let world = World::new(vec![V4.service(Protocol::Udp).scheduler(Always(Pick::Defer))]);
    world.servers(0)[1].set_weight(3);
    for port in 1..=80 {
        world.forward(&udp(V4.client_port(port), V4.vip(), b""));
    }
    assert_eq!(world.servers(0)[0].inactive(), 20);
    assert_eq!(world.servers(0)[1].inactive(), 60);
}

#[test]
fn fallback_takes_the_first_listed_of_equals() {
    let world = World::new(vec![V4.service(Protocol::Udp).scheduler(Always(Pick::Defer))]);
    let order: Vec<_> = (1..=4)
        .map(|port| receive(&world.forward(&udp(V4.client_port(port), V4.vip(), b""))).destination)
        .collect();
    assert_eq!(order, [V4.server(0), V4.server(1), V4.server(0), V4.server(1)]);
}

#[test]
fn fallback_counts_an_active_connection_for_256_inactive_ones() {
    let world = World::new(vec![V4.service(Protocol::Tcp).scheduler(Always(Pick::Defer))]);
    let open =
        |port: u16| receive(&world.forward(&tcp(V4.client_port(port), V4.vip(), SYN))).destination;
    assert_eq!(open(1), V4.server(0), "active from here on");
    for port in 2..=257 {
        assert_eq!(open(port), V4.server(1), "{} are inactive", port - 2);
        world.forward(&tcp(V4.server(1), V4.client_port(port), RST | ACK));
    }
    // 256 against 256: the first listed, which then has 512.
    assert_eq!(open(1000), V4.server(0));
    assert_eq!(open(1001), V4.server(1));
}

/// Two threads hand in the same first packets at the same time: whatever the two schedulings said,
/// each client has one connection, and both threads sent its packet to the same server.
#[test]
fn race_of_two_first_packets_ends_with_one_server() {
    const CLIENTS: u16 = 2000;
    let world = World::with(
        DirectorConfig {
            limits: TableLimits { connections: 10_000, half_open: 10_000 },
            ..settings()
        },
        vec![V4.service(Protocol::Tcp)],
    );
    // Both threads wait for each other before each packet, so that most packets do race.
    let arrived = AtomicUsize::new(0);
    let run = || {
        (1..=CLIENTS)
            .map(|port| {
                let mut octets = tcp(V4.client_port(port), V4.vip(), SYN);
                let length = octets.len();
                let mut packet = Packet::new(&mut octets, length);
                arrived.fetch_add(1, Ordering::SeqCst);
                for spins in 0.. {
                    if arrived.load(Ordering::SeqCst) >= 2 * usize::from(port) {
                        break;
                    }
                    if spins < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
                }
                let verdict = world.director.process(&mut packet, world.now());
                assert_eq!(verdict, Verdict::Forward);
                receive(packet.octets()).destination
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(run);
        let second = scope.spawn(run);
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(world.director.connections(), usize::from(CLIENTS));
    world.recount();
    for (port, server) in (1..=CLIENTS).zip(&first) {
        let reply = world.forward(&tcp(*server, V4.client_port(port), SYN | ACK));
        assert_eq!(receive(&reply).source, V4.vip());
        // Of the choice that lost the race nothing is left.
        let other = if *server == V4.server(0) { V4.server(1) } else { V4.server(0) };
        world.drop(&tcp(other, V4.client_port(port), SYN | ACK), DropReason::NoConnection);
    }
    // On a busy machine two packets may never meet; nearly always hundreds do.
    let picked = world.director.services().list()[0].counters().picked.get();
    println!("{} of {CLIENTS} first packets raced", picked - u64::from(CLIENTS));
}

#[test]
fn sweep_visits_a_bounded_part_and_gets_around() {
    const CONNECTIONS: u16 = 40_000;
    let settings = DirectorConfig {
        limits: TableLimits { connections: 100_000, half_open: 100_000 },
        ..settings()
    };
    let mut world = World::with(settings, vec![V4.service(Protocol::Udp)]);
    for port in 1..=CONNECTIONS {
        world.forward(&udp(V4.client_port(port), V4.vip(), b""));
    }
    world.wait(Duration::from_secs(300) + LATENESS);
    let mut calls = 0;
    while world.director.connections() > 0 {
        let removed = world.director.sweep(world.now());
        assert!(removed <= 16_384 + 64, "{removed} in one call");
        calls += 1;
        assert!(calls < 200, "the sweep does not get around");
    }
    assert!(calls > 1);
    assert_eq!(world.director.table().expired.get(), u64::from(CONNECTIONS));
    world.recount();
}

#[test]
fn connections_opened_while_the_sweep_runs_are_neither_lost_nor_doubled() {
    let settings = DirectorConfig {
        limits: TableLimits { connections: 100_000, half_open: 100_000 },
        ..settings()
    };
    let mut service = V4.service(Protocol::Udp);
    // Everything expires at once, so that opening and expiring fight all the time.
    service.settings.timeouts.set(wvs_core::connection::state::State::Udp, Duration::ZERO);
    let world = World::with(settings, vec![service]);
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            for round in 0..20_u8 {
                for port in 1..=1000 {
                    let octets = udp(V4.client_port(port), V4.vip(), &[round]);
                    assert_eq!(world.process(&octets).0, Verdict::Forward);
                }
            }
        });
        while !opener.is_finished() {
            world.director.sweep(world.now());
        }
    });
    while world.director.connections() > 0 {
        world.director.sweep(world.now());
    }
    let table = world.director.table();
    assert_eq!(table.opened.get(), table.expired.get());
    world.recount();
}

#[test]
fn established_connections_of_both_families_live_side_by_side() {
    let world = World::new(vec![V4.service(Protocol::Tcp), V6.service(Protocol::Tcp)]);
    for family in FAMILIES {
        world.forward(&tcp(family.client(), family.vip(), SYN));
        world.forward(&tcp(family.client(), family.vip(), ACK));
    }
    assert_eq!(world.director.connections(), 2);
    assert_eq!(world.director.tables().v4().snapshot().len(), 1);
    assert_eq!(world.director.tables().v6().snapshot().len(), 1);
    world.recount();
}
