//! Which servers get connections, and what becomes of those that servers have: weights, health,
//! drains, backups, thresholds, slow starts.

use std::net::SocketAddr;
use std::time::Duration;

use wvs_core::roster::{Drain, Parting, RosterRules, Stage, Standing};
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, FIN, RST, SYN, SeenTransport, at, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{FAMILIES, V4};

const SORRY: &str = "10.0.0.99:80";

/// Changes how a server of the only service stands.
fn stand(world: &World, server: usize, change: impl FnOnce(&mut Standing)) -> Stage {
    let service = world.service(0);
    let address = service.servers()[server].address();
    service.change_server(address, world.now(), change).expect("a server")
}

fn down(world: &World, server: usize) -> Stage {
    stand(world, server, |standing| standing.is_down = true)
}

fn up(world: &World, server: usize) -> Stage {
    stand(world, server, |standing| standing.is_down = false)
}

/// Where a new connection from this port of the client goes.
fn open(world: &World, port: u16) -> SocketAddr {
    receive(&world.forward(&tcp(V4.client_port(port), V4.vip(), SYN))).destination
}

/// The servers that get the next connections, by the last octet of their addresses.
fn served(world: &World, ports: std::ops::Range<u16>) -> Vec<u8> {
    let mut seen: Vec<u8> = ports
        .map(|port| match open(world, port) {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!("the world is IPv4"),
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

fn is_reset(octets: &[u8]) -> bool {
    matches!(receive(octets).transport, SeenTransport::Tcp { flags, .. } if flags & RST != 0)
}

/// Three servers, the third a backup, and a sorry server.
fn group(rules: RosterRules) -> World {
    let servers = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let mut spec = ServiceSpec::new(Protocol::Tcp, V4.vip, &servers);
    spec.settings.rules = rules;
    spec.standings[2].is_backup = true;
    spec.sorry = Some(at(SORRY));
    World::new(vec![spec])
}

#[test]
fn backups_help_out_below_the_quorum_and_the_sorry_server_when_that_is_too_little() {
    let world = group(RosterRules { quorum: 2, ..RosterRules::default() });
    assert_eq!(served(&world, 1..7), [1, 2]);
    assert_eq!(down(&world, 0), Stage::Backup);
    assert_eq!(served(&world, 11..17), [2, 3]);
    assert_eq!(down(&world, 2), Stage::Sorry);
    let sorry = [("forwarded", 3), ("opened", 3), ("service-1.sorry", 3)];
    let mut world = world;
    world.moves(&sorry, |world| assert_eq!(served(world, 21..24), [99]));
    // There is no moment without a server on the way back either.
    assert_eq!(up(&world, 2), Stage::Backup);
    assert_eq!(served(&world, 31..37), [2, 3]);
    assert_eq!(up(&world, 0), Stage::Regular);
    assert_eq!(served(&world, 41..47), [1, 2]);
    world.recount();
}

#[test]
fn hysteresis_holds_the_quorum_and_then_its_loss() {
    let world = group(RosterRules { quorum: 3, hysteresis: 1, ..RosterRules::default() });
    let weigh = |weight| stand(&world, 0, |standing| standing.set = Some(weight));
    // One of the two others has weight 1.
    for (weight, stage) in [
        (2, Stage::Regular),
        (1, Stage::Regular),
        (0, Stage::Sorry),
        (1, Stage::Backup),
        (2, Stage::Backup),
        (3, Stage::Regular),
    ] {
        assert_eq!(weigh(weight), stage, "{weight}");
    }
}

#[test]
fn sorry_server_takes_whom_nobody_else_may() {
    let mut spec = ServiceSpec::new(Protocol::Tcp, V4.vip, &["10.0.0.1:80"]);
    spec.standings[0].upper_threshold = 2;
    spec.sorry = Some(at(SORRY));
    let world = World::new(vec![spec]);
    assert_eq!([1, 2, 3].map(|port| open(&world, port).port()), [80; 3]);
    assert_eq!(served(&world, 4..7), [99]);
}

#[test]
fn server_at_its_upper_threshold_gets_no_more_until_it_is_below_the_lower_one() {
    let servers = ["10.0.0.1:80", "10.0.0.2:80"];
    for (lower, reopens_at) in [(0, 2), (2, 1), (4, 3)] {
        let mut spec = ServiceSpec::new(Protocol::Tcp, V4.vip, &servers);
        (spec.standings[0].upper_threshold, spec.standings[0].lower_threshold) = (4, lower);
        let mut world = World::new(vec![spec]);
        served(&world, 0..8);
        let server = world.servers(0)[0].clone();
        assert_eq!((server.connections(), server.is_overloaded()), (4, true));
        assert_eq!((server.weight(), server.is_serving(), server.overloads()), (0, true, 1));
        assert_eq!(served(&world, 10..14), [2]);
        // One after the other ends.
        for left in (0..4).rev() {
            let tables = world.director.tables().v4().snapshot();
            let held = tables.iter().find(|held| held.server().id() == server.id()).unwrap();
            let client = SocketAddr::from((held.original().source, held.original().source_port));
            world.forward(&tcp(server.address(), client, RST | ACK));
            world.outlast(Duration::from_secs(10));
            assert_eq!(server.connections(), left);
            assert_eq!(server.is_overloaded(), left > reopens_at, "{lower}: {left}");
        }
        assert!(served(&world, 20..24).contains(&1));
        world.recount();
    }
}

#[test]
fn server_that_starts_slowly_keeps_a_growing_share_under_any_scheduler() {
    let rules = RosterRules { slow_start: Duration::from_secs(100), ..RosterRules::default() };
    let mut spec = ServiceSpec::new(Protocol::Tcp, V4.vip, &["10.0.0.1:80", "10.0.0.2:80"]);
    spec.settings.rules = rules;
    let mut world = World::new(vec![spec]);
    let mut ports = 1..;
    let mut share = |world: &World| {
        let second = "10.0.0.2:80".parse().unwrap();
        (0..400).filter(|_| open(world, ports.next().unwrap()) == second).count()
    };
    // Nobody starts slowly beside nobody.
    assert_eq!(share(&world), 200);
    down(&world, 1);
    assert_eq!(share(&world), 0);
    up(&world, 1);
    assert_eq!(share(&world), 0);
    world.wait(Duration::from_secs(50));
    let half = share(&world);
    assert!((70..130).contains(&half), "{half} of 200 after half of the time");
    world.wait(Duration::from_secs(50));
    assert_eq!(share(&world), 200);
}

#[test]
fn server_that_is_down_keeps_its_tcp_connections_by_default_and_loses_datagrams_at_once() {
    for family in FAMILIES {
        let world = family.established();
        down(&world, 0);
        let sent = world.forward(&tcp(family.client(), family.vip(), ACK));
        assert_eq!(receive(&sent).destination, family.server(0));

        let world = family.world(Protocol::Udp);
        world.forward(&udp(family.client(), family.vip(), b"?"));
        down(&world, 0);
        // What it still has to say is let through.
        world.forward(&udp(family.server(0), family.client(), b"!"));
        let sent = world.forward(&udp(family.client(), family.vip(), b"?"));
        assert_eq!(receive(&sent).destination, family.server(1));
        world.recount();
    }
}

#[test]
fn connections_of_a_server_that_is_down_are_reset_both_ways_if_asked_for() {
    for family in FAMILIES {
        let mut spec = family.service(Protocol::Tcp);
        spec.settings.rules.on_down = Parting::Reset;
        let mut world = World::new(vec![spec]);
        for (source, destination, flags) in [
            (family.client(), family.vip(), SYN),
            (family.server(0), family.client(), SYN | ACK),
            (family.client(), family.vip(), ACK),
        ] {
            world.forward(&tcp(source, destination, flags));
        }
        down(&world, 0);
        let told = world.reply(&tcp(family.server(0), family.client(), ACK));
        assert!(is_reset(&told));
        assert_eq!(receive(&told).destination, family.server(0));
        let told = world.reply(&tcp(family.client(), family.vip(), ACK));
        assert!(is_reset(&told));
        assert_eq!(
            (receive(&told).source, receive(&told).destination),
            (family.vip(), family.client())
        );
        // The client comes back with the same port, at once, and is served by the other one.
        let sent = world.forward(&tcp(family.client(), family.vip(), SYN));
        assert_eq!(receive(&sent).destination, family.server(1));
        world.recount();
        // Silent ones are not kept for long.
        let idle = family.client_port(9);
        up(&world, 0);
        down(&world, 1);
        world.forward(&tcp(idle, family.vip(), SYN));
        world.forward(&tcp(family.server(0), idle, SYN | ACK));
        world.forward(&tcp(idle, family.vip(), ACK));
        down(&world, 0);
        world.outlast(Duration::from_secs(10));
        assert_eq!(world.servers(0)[0].connections(), 0);
        world.recount();
    }
}

#[test]
fn drained_server_keeps_its_connections_until_the_deadline_and_gets_no_new_ones() {
    for then in [Parting::Keep, Parting::Reset] {
        let mut world = V4.established();
        let deadline = Some(world.now().after(Duration::from_secs(60)));
        stand(&world, 0, |standing| standing.drain = Some(Drain { deadline, then }));
        assert!(world.servers(0)[0].is_draining());
        assert_eq!(served(&world, 1..5), [2]);
        world.forward(&tcp(V4.client(), V4.vip(), ACK));
        world.wait(Duration::from_secs(61));
        world.service(0).attend(world.now());
        let (verdict, sent) = world.process(&tcp(V4.client(), V4.vip(), ACK));
        match then {
            Parting::Keep => assert_eq!(verdict, Verdict::Forward),
            Parting::Reset => assert!(verdict == Verdict::Reply && is_reset(&sent)),
        }
        stand(&world, 0, |standing| standing.drain = None);
        assert!(served(&world, 11..15).contains(&1));
    }
}

#[test]
fn syn_of_a_reused_port_is_scheduled_anew_when_the_old_server_serves_no_more() {
    let world = V4.established();
    // The client closed its side; then the server is drained, and the client reuses its port.
    world.forward(&tcp(V4.client(), V4.vip(), FIN | ACK));
    stand(&world, 0, |standing| standing.drain = Some(Drain::default()));
    let sent = world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(receive(&sent).destination, V4.server(1));

    // While it is established, a SYN, which anybody may have sent, takes nothing away.
    let world = V4.established();
    stand(&world, 0, |standing| standing.drain = Some(Drain::default()));
    let sent = world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(receive(&sent).destination, V4.server(0));
    world.recount();
}

#[test]
fn health_checks_weight_counts_until_somebody_sets_another() {
    let world = V4.world(Protocol::Tcp);
    let weight = |world: &World| world.servers(0)[0].weight();
    stand(&world, 0, |standing| standing.measured = Some(7));
    assert_eq!(weight(&world), 7);
    stand(&world, 0, |standing| standing.set = Some(3));
    assert_eq!(weight(&world), 3);
    stand(&world, 0, |standing| standing.set = None);
    stand(&world, 0, |standing| standing.measured = None);
    assert_eq!(weight(&world), 1);
    let nowhere = world.service(0).change_server(at(SORRY), world.now(), |_| {});
    assert_eq!(nowhere, None);
}
