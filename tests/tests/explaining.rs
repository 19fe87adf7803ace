//! What the director says would become of a packet, held against what becomes of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wvs::control::snapshot::{FateSnapshot, OpeningSnapshot};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{ClosedPort, DirectorConfig};
use wvs_core::explain::{Fate, Question};
use wvs_core::packet::Packet;
use wvs_core::persistence::{Persistence, Quiesced};
use wvs_core::real_server::RealServer;
use wvs_core::roster::Standing;
use wvs_core::service::{OnNoServer, OnStray, Protocol};
use wvs_core::verdict::{DropReason, Verdict};
use wvs_plugin::{Host, Limits, Source, WasmScheduler, builtin};
use wvs_tests::packet::{ACK, FIN, RST, SYN, at, echo, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World, settings, terms};

fn question(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Question {
    Question { protocol, from, to }
}

/// A director with a service of each kind.
fn world(on_stray: OnStray, on_no_server: OnNoServer, closed_port: ClosedPort) -> World {
    let servers = ["10.0.0.11:8080", "10.0.0.12:8080"];
    let mut web = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &servers);
    web.settings.on_stray = on_stray;
    // The same servers: the reply of one client's port can be taken.
    let also = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:81", &servers);
    let mut empty = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:82", &[]);
    empty.settings.on_no_server = on_no_server;
    let full = ServiceSpec::new(Protocol::Tcp, "203.0.113.12:80", &["10.0.0.13:8080"])
        .full_nat(&["203.0.113.99"], 1..=20);
    World::with(
        DirectorConfig { closed_port, replies_per_second: 1_000_000, ..settings() },
        vec![
            web,
            also,
            empty,
            full,
            ServiceSpec::new(Protocol::Udp, "203.0.113.10:53", &["10.0.0.11:5353"]),
            ServiceSpec::new(Protocol::Icmp, "203.0.113.11:0", &["10.0.0.11:0"]),
        ],
    )
}

fn any_end() -> impl Strategy<Value = SocketAddr> {
    prop::sample::select(
        [
            "198.51.100.7:40000",
            "198.51.100.7:40001",
            "198.51.100.8:40000",
            "203.0.113.10:80",
            "203.0.113.10:81",
            "203.0.113.10:82",
            "203.0.113.10:53",
            "203.0.113.10:9",
            "203.0.113.11:1",
            "203.0.113.12:80",
            "203.0.113.99:3",
            "10.0.0.11:8080",
            "10.0.0.12:8080",
            "10.0.0.11:5353",
            "127.0.0.1:7",
            "224.0.0.1:7",
            "192.0.2.1:80",
        ]
        .map(at)
        .to_vec(),
    )
}

/// Mostly what clients and servers send.
fn any_packet() -> impl Strategy<Value = (Question, bool, Vec<u8>)> {
    let flags = prop::sample::select(vec![SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
    (any_end(), any_end(), 0..6, flags).prop_map(|(from, to, kind, flags)| match kind {
        0..=3 => {
            let is_first = flags == SYN;
            (question(Protocol::Tcp, from, to), is_first, tcp(from, to, flags))
        }
        4 => (question(Protocol::Udp, from, to), true, udp(from, to, b"data")),
        _ => {
            let (from, to) = (SocketAddr::new(from.ip(), 7), SocketAddr::new(to.ip(), 0));
            let packet = echo(from.ip(), to.ip(), true, 7);
            (question(Protocol::Icmp, from, to), true, packet)
        }
    })
}

proptest! {
    /// Whatever came before.
    #[test]
    fn what_is_said_is_what_happens(
        packets in prop::collection::vec(any_packet(), 1..60),
        on_stray in prop::sample::select(vec![OnStray::Reset, OnStray::Drop]),
        on_no_server in prop::sample::select(vec![OnNoServer::Reset, OnNoServer::Icmp, OnNoServer::Drop]),
        closed_port in prop::sample::select(vec![ClosedPort::Reject, ClosedPort::Drop]),
    ) {
        let world = world(on_stray, on_no_server, closed_port);
        for (question, is_first, packet) in packets {
            let explanation = world.director.explain(&question, world.now());
            let obstacles = match &explanation.opening {
                Some(Fate::Scheduled(scheduling)) => scheduling
                    .members
                    .iter()
                    .filter(|member| world.director.obstacle(&question, &member.server).is_some())
                    .count(),
                _ => 0,
            };
            let mut buffer = packet.clone();
            buffer.resize(packet.len() + Packet::HEADROOM, 0);
            let mut packet = Packet::new(&mut buffer, packet.len());
            let verdict = world.director.process(&mut packet, world.now());
            let fate = if is_first || explanation.stray.is_none() {
                &explanation.opening
            } else {
                &explanation.stray
            };
            let is_reset = question.protocol == Protocol::Tcp && packet_is_reset(&buffer, verdict);
            match (fate, &explanation.connection) {
                (Some(Fate::OnePacketReply), _) => prop_assert_eq!(verdict, Verdict::Forward),
                (None, Some(connection)) => {
                    prop_assert_eq!(verdict, Verdict::Forward, "{:?}", explanation);
                    let seen = receive(&buffer[..usize::from(u16::from_be_bytes([buffer[2], buffer[3]]))]);
                    let ends = [seen.source, seen.destination].map(|end| end.ip());
                    let server = connection.server.address().ip();
                    prop_assert!(ends.contains(&server) || ends.contains(&connection.client.ip()));
                }
                // A segment in the middle of a connection that is over still goes its way.
                (Some(_), Some(_)) if !is_first => prop_assert_eq!(verdict, Verdict::Forward),
                (Some(Fate::Passed), _) => prop_assert_eq!(verdict, Verdict::Pass),
                // A reset is never answered: it is dropped instead.
                (Some(Fate::Answered(_) | Fate::Dropped(_)), _) if is_reset => {
                    prop_assert!(matches!(verdict, Verdict::Drop(_)), "{:?}", verdict);
                }
                (Some(Fate::Dropped(reason)), _) => prop_assert_eq!(verdict, Verdict::Drop(*reason)),
                (Some(Fate::Answered(_)), _) => prop_assert_eq!(verdict, Verdict::Reply),
                (Some(Fate::Scheduled(scheduling)), _) => {
                    if scheduling.members.is_empty() {
                        let fate = Fate::without_server(&scheduling.service, &question);
                        let expected = match fate {
                            Fate::Dropped(reason) => Verdict::Drop(reason),
                            _ => Verdict::Reply,
                        };
                        prop_assert_eq!(verdict, expected);
                    } else {
                        let taken = Verdict::Drop(DropReason::ReplyTupleTaken);
                        prop_assert!(
                            verdict == Verdict::Forward || verdict == taken && obstacles > 0,
                            "{:?}, {:?}", verdict, explanation
                        );
                        prop_assert!(verdict != Verdict::Forward || obstacles < scheduling.members.len());
                    }
                }
                (None, None) => prop_assert!(false, "nothing is said"),
            }
        }
    }
}

/// Whether what came in was a reset, which is the packet still if it was dropped.
fn packet_is_reset(octets: &[u8], verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Drop(_)) && octets[33] & RST != 0
}

/// Servers as the plugin of a service to be is shown them first.
fn servers() -> Vec<Arc<RealServer>> {
    (1..=4).map(|id| Arc::new(RealServer::new(id, at("10.0.0.1:80"), 1, terms()))).collect()
}

#[test]
fn every_built_in_is_foretold_connection_by_connection_and_does_not_notice() {
    let host = Host::new().unwrap();
    for name in builtin::NAMES {
        let module = host.load(Source::BuiltIn(name), Limits::default()).unwrap();
        let scheduler = module.scheduler(None, &servers()).unwrap().numbered(3);
        let addresses: Vec<_> = (1..=4).map(|number| format!("10.0.0.{number}:8080")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let spec = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &addresses);
        let mut spec = spec.scheduler(scheduler);
        spec.standings = [3, 1, 2, 0].map(Standing::new).to_vec();
        let world = World::new(vec![spec]);
        let service = Arc::clone(&world.director.services().list()[0]);
        let counters =
            service.look_at_scheduler(|scheduler| WasmScheduler::of(scheduler).unwrap().counters());
        for port in 1..=60 {
            let client =
                SocketAddr::from(([198, 51, 100, 7 + u8::try_from(port % 9).unwrap()], port));
            let question = question(Protocol::Tcp, client, at("203.0.113.10:80"));
            let explain =
                || wvs::explain::explain(&world.director, &question, world.now()).unwrap();
            let picks = counters.picks();
            let (one, another) = (explain(), explain());
            assert_eq!(counters.picks(), picks, "{name}");
            let Some(FateSnapshot::Scheduled(opening)) = one.opening else { panic!("{name}") };
            let Some(FateSnapshot::Scheduled(again)) = another.opening else { panic!("{name}") };
            assert_eq!(opening.server, again.server, "{name}");
            let asked = opening.asked.unwrap();
            assert_eq!((&*asked.plugin, asked.generation, asked.is_exact), (*name, 3, true));
            assert_eq!(opening.servers[3].out.as_deref(), Some("weight 0, in the configuration"));

            let syn = tcp(client, at("203.0.113.10:80"), SYN);
            let Some(server) = opening.server else {
                // By destination only, some have a bucket whose server is out.
                let (verdict, _) = world.process(&syn);
                assert_eq!(verdict, Verdict::Reply, "{name}, {port}");
                continue;
            };
            let sent = world.forward(&syn);
            assert_eq!(receive(&sent).destination, server, "{name}, {port}");
            // Some connections prove themselves, so that counts differ.
            if port % 3 == 0 {
                world.forward(&tcp(server, client, SYN | ACK));
                world.forward(&tcp(client, at("203.0.113.10:80"), ACK));
            }
        }
    }
}

#[test]
fn persistence_thresholds_backups_and_the_sorry_server_are_told_as_they_are() {
    let host = Host::new().unwrap();
    let module = host.load(Source::BuiltIn("wlc"), Limits::default()).unwrap();
    let scheduler = module.scheduler(None, &servers()).unwrap();
    let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let mut spec =
        ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &addresses).scheduler(scheduler);
    spec.settings.persistence = Some(Persistence {
        timeout: Duration::from_secs(300),
        prefix: 24,
        quiesced: Quiesced::Honour,
        templates_max: 10,
    });
    spec.standings = vec![
        Standing { upper_threshold: 2, ..Standing::new(1) },
        Standing { is_down: true, ..Standing::new(1) },
        Standing { is_backup: true, ..Standing::new(1) },
    ];
    spec.sorry = Some(at("10.0.0.9:80"));
    let world = World::new(vec![spec]);
    let vip = at("203.0.113.10:80");
    let opening = |from: &str| {
        let question = question(Protocol::Tcp, at(from), vip);
        let explained = wvs::explain::explain(&world.director, &question, world.now()).unwrap();
        let Some(FateSnapshot::Scheduled(opening)) = explained.opening else {
            panic!("{explained:?}")
        };
        let sent = world.forward(&tcp(at(from), vip, SYN));
        assert_eq!(Some(receive(&sent).destination), opening.server, "{opening:?}");
        opening
    };
    let outs = |opening: &OpeningSnapshot| -> Vec<_> {
        opening.servers.iter().map(|server| server.out.clone().unwrap_or_default()).collect()
    };

    let first = opening("198.51.100.7:1");
    assert_eq!(first.chosen_by, "scheduler");
    assert_eq!(outs(&first), ["", "down", "backup, not needed"]);
    let again = opening("198.51.100.8:1");
    assert_eq!((&*again.chosen_by, again.asked), ("template", None));
    // Two connections are as many as the first server takes.
    let other = opening("203.0.113.200:1");
    assert_eq!(other.chosen_by, "sorry");
    assert_eq!(outs(&other), ["overloaded, with 2 of 2 connections", "down", "backup, not needed"]);
}

#[test]
fn explanation_takes_nobody_out_of_a_full_table() {
    let limits = TableLimits { connections: 2, ..settings().limits };
    let spec = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"]);
    let world = World::with(DirectorConfig { limits, ..settings() }, vec![spec]);
    let vip = at("203.0.113.10:80");
    let clients = ["198.51.100.7:1", "198.51.100.7:2"].map(at);
    for client in clients {
        world.forward(&tcp(client, vip, SYN));
    }
    let opening = || {
        let question = question(Protocol::Tcp, at("198.51.100.7:3"), vip);
        wvs::explain::explain(&world.director, &question, world.now()).unwrap().opening
    };
    // One that is half-open would make way, but not for a question.
    assert!(matches!(opening(), Some(FateSnapshot::Scheduled(_))), "{:?}", opening());
    assert_eq!(world.director.connections(), 2);
    assert_eq!(world.director.table().evicted.get(), 0);
    for client in clients {
        world.forward(&tcp(at("10.0.0.1:80"), client, SYN | ACK));
        world.forward(&tcp(client, vip, ACK));
    }
    assert!(!matches!(opening(), Some(FateSnapshot::Scheduled(_))), "{:?}", opening());
}
