//! First packets through the director and real wasm schedulers, in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_plugin::{Host, Limits, Module, PluginCounters, Source};
use wvs_tests::packet::{ACK, SYN, at, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

const VIP: &str = "203.0.113.10:80";
const SERVERS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

fn module(source: Source<'_>) -> Module {
    Host::new().unwrap().load(source, Limits::default()).unwrap()
}

/// A module that answers `answers` requests with the first server and is `then` at the next ones.
fn failing(answers: u32, then: &str) -> Module {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (global $left (mut i32) (i32.const {answers}))
            (func (export "wvs_abi") (result i32) (i32.const 0x10000))
            (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
            (func (export "wvs_schedule") (param i32) (result i32)
                (if (i32.eqz (global.get $left)) (then {then}))
                (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (i32.const 0)))"#
    );
    module(Source::Octets { name: "failing", octets: &wat::parse_str(text).unwrap() })
}

fn world(protocol: Protocol, module: &Module) -> (World, Arc<PluginCounters>) {
    let mut world = World::new(vec![ServiceSpec::new(protocol, VIP, &SERVERS)]);
    let counters = seat(&mut world, module);
    (world, counters)
}

fn seat(world: &mut World, module: &Module) -> Arc<PluginCounters> {
    let service = world.service(0);
    let scheduler = module.scheduler(None, &service.servers()).unwrap();
    let counters = scheduler.counters();
    drop(service.replace_scheduler(Box::new(scheduler)));
    counters
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

/// The index of the server that a new connection from this client gets.
fn open(world: &World, client: SocketAddr) -> usize {
    let sent = world.forward(&tcp(client, at(VIP), SYN));
    let server = receive(&sent).destination;
    SERVERS.iter().position(|address| at(address) == server).unwrap()
}

#[test]
fn rr_gives_each_server_its_turn() {
    let (mut world, _) = world(Protocol::Tcp, &module(Source::BuiltIn("rr")));
    let picked = [("forwarded", 9), ("opened", 9), ("service-1.picked", 9)];
    let order: Vec<usize> =
        world.moves(&picked, |world| (1..10).map(|port| open(world, client(port))).collect());
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);

    world.set_weight(0, 1, 0);
    let order: Vec<usize> = (11..15).map(|port| open(&world, client(port))).collect();
    assert_eq!(order, [0, 2, 0, 2]);
}

#[test]
fn wlc_sees_the_directors_counts() {
    let (world, _) = world(Protocol::Tcp, &module(Source::BuiltIn("wlc")));
    world.set_weight(0, 2, 2);
    let mut held = [0; 3];
    for port in 1..=40 {
        held[open(&world, client(port))] += 1;
    }
    assert_eq!(held, [10, 10, 20], "by weight");

    // Whoever was on the first server hangs up: it is the least loaded now.
    for port in 1..=40 {
        let _ = world.process(&tcp(at(SERVERS[0]), client(port), ACK | 0x04));
    }
    assert_eq!(world.servers(0)[0].active(), 0);
    for port in 101..=109 {
        assert_eq!(open(&world, client(port)), 0);
    }
}

#[test]
fn sh_keeps_a_client_on_its_server() {
    let (world, _) = world(Protocol::Tcp, &module(Source::BuiltIn("sh")));
    let mut seen = [false; 3];
    for host in 1..=60 {
        let at = |port| SocketAddr::from(([198, 51, 100, host], port));
        let server = open(&world, at(1));
        seen[server] = true;
        assert!((2..6).all(|port| open(&world, at(port)) == server), "198.51.100.{host}");
    }
    assert_eq!(seen, [true; 3]);
}

#[test]
fn every_new_connection_asks_the_plugin_and_no_other_packet_does() {
    let (world, counters) = world(Protocol::Udp, &module(Source::BuiltIn("rr")));
    for _ in 0..3 {
        for port in 1..=5 {
            world.forward(&udp(client(port), at(VIP), b"data"));
        }
    }
    assert_eq!(counters.picks(), 5);
}

#[test]
fn failing_plugin_costs_no_connection_and_comes_back() {
    for then in ["unreachable", "(loop $for_ever (br $for_ever))", "(return (i32.const 3))"] {
        let (mut world, counters) = world(Protocol::Tcp, &failing(2, then));
        let moved =
            [("forwarded", 3), ("opened", 3), ("service-1.fallback", 1), ("service-1.picked", 2)];
        world.moves(&moved, |world| {
            for port in 1..=3 {
                open(world, client(port));
            }
        });
        assert_eq!(counters.faults(), 1, "{then}");
        world.recount();
        if then.starts_with("(return") {
            continue; // A wrong answer leaves the instance where it is.
        }
        // A new instance is made on another thread: until it is there the director decides.
        let patience = Instant::now() + Duration::from_secs(20);
        for port in 4.. {
            let before = counters.picks();
            open(&world, client(port));
            if counters.picks() > before {
                break;
            }
            assert!(Instant::now() < patience, "no new instance");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn established_connections_do_not_notice_a_failing_plugin() {
    let (world, counters) = world(Protocol::Tcp, &failing(1, "unreachable"));
    open(&world, client(1));
    open(&world, client(2));
    assert_eq!(counters.faults(), 1);
    for _ in 0..100 {
        let (verdict, sent) = world.process(&tcp(client(1), at(VIP), ACK));
        assert_eq!(verdict, Verdict::Forward);
        assert_eq!(receive(&sent).destination, at(SERVERS[0]));
    }
}

#[test]
fn scheduler_is_replaced_while_connections_live() {
    let (mut world, _) = world(Protocol::Tcp, &module(Source::BuiltIn("rr")));
    let before: Vec<usize> = (1..=6).map(|port| open(&world, client(port))).collect();
    for name in ["wlc", "sh", "rr"] {
        seat(&mut world, &module(Source::BuiltIn(name)));
        for (port, server) in (1..=6).zip(&before) {
            let sent = world.forward(&tcp(client(port), at(VIP), ACK));
            assert_eq!(receive(&sent).destination, at(SERVERS[*server]));
        }
    }
    assert_eq!(world.director.connections(), 6);
}
