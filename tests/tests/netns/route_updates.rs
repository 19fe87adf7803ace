//! Routes that change while they are in use.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use wvs::device::{Device, DeviceError, DeviceNeeds};
use wvs::lab::{self, Host};
use wvs::route::{self, RouteError, RouteNeeds, Routing};
use wvs::sysctl::{self, STATE_FOLDER};
use wvs_core::service::Protocol;

use crate::host_state::{assert_same, assert_unchanged, host_state, state_files};
use crate::stage::{SERVER_PORT, Stage, run, run_well, wait_until};

trials! {
    once update_leads_to_what_a_start_leads_to,
    once replies_and_requests_of_the_new_needs_come_to_the_director,
    once every_one_of_many_servers_is_found,
    once refused_update_changes_nothing,
    once crash_after_an_update_is_cleaned_up_by_the_next_start,
    once settings_needed_no_more_are_put_back_unless_another_director_needs_them,
    once follower_puts_back_what_the_update_needs_and_nothing_else,
}

/// Routes to a device that nobody reads from, on the director's host.
struct Routed {
    routing: Routing,
    _queues: Vec<OwnedFd>,
}

fn open(device: &str) -> Vec<OwnedFd> {
    let needs = DeviceNeeds {
        name: device.to_owned(),
        mtu: 1500,
        queues: None,
        offload: true,
        vips: Vec::new(),
    };
    let mut device = None;
    // A program that another test starts has all files of this process for a moment.
    wait_until("a device", || match Device::open(&needs) {
        Err(DeviceError::InUse { .. }) => false,
        opened => {
            device = Some(opened.expect("a device"));
            true
        }
    });
    device.into_iter().flat_map(Device::into_queues).map(OwnedFd::from).collect()
}

impl Routed {
    async fn new(needs: &RouteNeeds) -> Self {
        let queues = open(&needs.device);
        Self { routing: route::set_up(needs).await.expect("routes"), _queues: queues }
    }
}

/// Runs `work` on a thread of `host`, within a runtime.
fn on<T: Send>(host: &Host, work: impl AsyncFnOnce() -> T + Send) -> T {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    })
}

fn needs(vips: &[&str], servers: &[(Protocol, &str)]) -> RouteNeeds {
    let servers =
        servers.iter().map(|(protocol, server)| (*protocol, server.parse().expect("a server")));
    RouteNeeds {
        device: "wvs0".to_owned(),
        vips: vips.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        servers: servers.collect(),
        ..RouteNeeds::default()
    }
}

/// Needs that have little in common, for a stage with two servers.
fn various_needs() -> Vec<RouteNeeds> {
    let full_nat = RouteNeeds {
        full_nat_vips: vec!["10.30.0.3".parse().unwrap()],
        pools: vec!["10.40.0.1".parse().unwrap()],
        full_nat_servers: vec!["10.20.2.2:81".parse().unwrap()],
        ..needs(&["10.30.0.3"], &[])
    };
    vec![
        needs(&["10.30.0.1"], &[(Protocol::Tcp, "10.20.1.2:8080")]),
        needs(
            &["10.30.0.1", "10.30.0.2"],
            &[
                (Protocol::Tcp, "10.20.1.2:8080"),
                (Protocol::Udp, "10.20.1.2:0"),
                (Protocol::Tcp, "10.20.2.2:8080"),
            ],
        ),
        needs(
            &["10.30.0.2", "fd00:30::1"],
            &[(Protocol::Tcp, "10.20.2.2:8080"), (Protocol::Icmp, "[fd00:20:1::2]:0")],
        ),
        needs(&["fd00:30::2"], &[(Protocol::Udp, "[fd00:20:2::2]:53")]),
        full_nat,
        many(200),
    ]
}

/// So many servers in the network of the first one.
fn many(count: u8) -> RouteNeeds {
    let mut needs = needs(&["10.30.0.1"], &[]);
    for number in 2..2 + count {
        let server: IpAddr = format!("10.20.1.{number}").parse().unwrap();
        needs.servers.push((Protocol::Tcp, SocketAddr::new(server, SERVER_PORT)));
    }
    needs
}

/// The host's state without the order of rules of one priority, which have no common packets.
fn state_of(host: &Host) -> String {
    let state = host_state(host);
    let mut lines: Vec<_> = state.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn update_leads_to_what_a_start_leads_to() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let before = host_state(host);
    let all = various_needs();
    let expected = |needs: &RouteNeeds| {
        on(host, async || {
            let _queues = open("wvs0");
            let routing = route::set_up(needs).await.unwrap();
            let state = state_of(host);
            routing.take_back().await.unwrap();
            state
        })
    };
    // A device made a second time has another number.
    let comparable = |state: String| {
        let lines = state.lines().filter(|line| !line.contains("fe80") && !line.contains("ff00"));
        // Which place a part of the tree has depends on what was there before.
        lines.filter(|line| !line.contains("goto")).map(without_priority).collect::<Vec<_>>()
    };
    let expected: Vec<_> = all.iter().map(|needs| comparable(expected(needs))).collect();

    on(host, async || {
        let mut routed = Routed::new(&all[0]).await;
        for index in [1, 0, 2, 5, 3, 0, 4, 5, 2, 4, 1, 3] {
            routed.routing.update(&all[index]).await.unwrap();
            let mut state = comparable(state_of(host));
            let mut expected = expected[index].clone();
            // Once up for IPv6, the device stays so until it goes.
            for lines in [&mut state, &mut expected] {
                lines.retain(|line| !line.contains("wvs0/") || line.contains("forwarding"));
                lines.retain(|line| !line.contains("conf/wvs0"));
                lines.sort_unstable();
            }
            assert_same(&expected.join("\n"), &state.join("\n"));
            let again = host_state(host);
            routed.routing.update(&all[index]).await.unwrap();
            assert_unchanged(host, &again);
        }
        routed.routing.take_back().await.unwrap();
    });
    assert_unchanged(host, &before);
    assert_eq!(state_files(host), [""; 0]);
}

/// A rule without the number of its place in the tree.
fn without_priority(line: &str) -> String {
    match line.split_once(':') {
        Some((priority, rule)) if priority.parse::<u32>().is_ok_and(|p| p < 1991) => {
            rule.to_owned()
        }
        _ => line.to_owned(),
    }
}

/// Where the kernel of the director's host would send a packet that comes in by `link`.
fn way(host: &Host, from: &str, to: &str, link: &str, rest: &str) -> String {
    let command = format!("route get {to} from {from} iif {link} {rest}");
    run_well(host, "ip", &command.split(' ').collect::<Vec<_>>())
}

const CLIENT: &str = "10.10.0.11";

fn replies_and_requests_of_the_new_needs_come_to_the_director() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let all = various_needs();
    on(host, async || {
        let mut routed = Routed::new(&all[0]).await;
        let reply = |server: &str, link: &str, rest: &str| {
            way(host, server, CLIENT, link, rest).contains("dev wvs0")
        };
        let tcp = "ipproto tcp sport 8080 dport 4000";
        let udp = "ipproto udp sport 7 dport 4000";
        let request = |vip: &str| way(host, CLIENT, vip, "clients", tcp).contains("dev wvs0");
        let replies = || {
            [
                reply("10.20.1.2", "server1", tcp),
                reply("10.20.1.2", "server1", udp),
                reply("10.20.2.2", "server2", tcp),
                reply("10.20.2.2", "server2", udp),
            ]
        };
        assert_eq!(replies(), [true, false, false, false]);
        assert!(request("10.30.0.1"));
        routed.routing.update(&all[1]).await.unwrap();
        // All ports of one protocol.
        assert_eq!(replies(), [true, true, true, false]);
        assert_eq!(["10.30.0.1", "10.30.0.2"].map(request), [true, true]);
        routed.routing.update(&all[2]).await.unwrap();
        assert_eq!(replies(), [false, false, true, false]);
        assert!(request("10.30.0.2"));
        let gone = run(host, "ip", &["route", "get", "10.30.0.1"]);
        assert!(!String::from_utf8_lossy(&gone.stdout).contains("wvs0"), "{gone:?}");
        routed.routing.take_back().await.unwrap();
    });
}

fn every_one_of_many_servers_is_found() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    on(host, async || {
        let mut routed = Routed::new(&many(60)).await;
        for count in [60, 70, 250, 70, 60] {
            routed.routing.update(&many(count)).await.unwrap();
            for number in [2, 3, 40, 61, 62, 71, 72, 128, 200, 251] {
                let server = format!("10.20.1.{number}");
                for (port, is_its) in [(SERVER_PORT, true), (9999, false)] {
                    let rest = format!("ipproto tcp sport {port} dport 4000");
                    let way = way(host, &server, CLIENT, "server1", &rest);
                    let is_led = way.contains("dev wvs0");
                    assert_eq!(is_led, is_its && number < 2 + u16::from(count), "{count}: {way}");
                }
            }
        }
        routed.routing.take_back().await.unwrap();
    });
}

/// Makes needs such that they cannot work.
type Spoil = fn(&mut RouteNeeds);

/// Whether the error says why.
type IsExpected = fn(&RouteError) -> bool;

fn refused_update_changes_nothing() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let before = host_state(host);
    let first = needs(&["10.30.0.1"], &[(Protocol::Tcp, "10.20.1.2:8080")]);
    let other = RouteNeeds {
        device: "other0".to_owned(),
        ..needs(&["10.30.0.9"], &[(Protocol::Tcp, "10.20.2.2:9000")])
    };
    run_well(host, "ip", &["route", "add", "10.30.0.7/32", "dev", "server2"]);
    on(host, async || {
        let mut routed = Routed::new(&first).await;
        let other = Routed::new(&other).await;
        let during = host_state(host);
        let record = || {
            let names = state_files(host);
            let read = |name: &String| std::fs::read_to_string(format!("{STATE_FOLDER}/{name}"));
            names.iter().map(|name| read(name).unwrap()).collect::<Vec<_>>()
        };
        let recorded = record();
        // Besides what does not work, much that does: other links, the other family with its settings.
        let mut bad = needs(
            &["10.30.0.2", "fd00:30::1"],
            &[(Protocol::Tcp, "10.20.2.2:8080"), (Protocol::Tcp, "[fd00:20:1::2]:8080")],
        );
        let good = bad.clone();
        let refusals: [(Spoil, IsExpected); 7] = [
            (
                |needs| needs.vips.push("10.30.0.7".parse().unwrap()),
                |error| matches!(error, RouteError::IsRouted { .. }),
            ),
            (
                |needs| needs.vips.push("10.10.0.1".parse().unwrap()),
                |error| matches!(error, RouteError::IsLocal { .. }),
            ),
            (
                |needs| needs.vips.push("10.10.0.255".parse().unwrap()),
                |error| matches!(error, RouteError::IsNotUnicast { .. }),
            ),
            (
                |needs| needs.servers.push((Protocol::Tcp, "192.0.2.1:80".parse().unwrap())),
                |error| matches!(error, RouteError::NoRoute { .. }),
            ),
            (
                |needs| needs.servers.push((Protocol::Tcp, "10.20.1.1:80".parse().unwrap())),
                |error| matches!(error, RouteError::ServerIsLocal { .. }),
            ),
            (
                |needs| needs.servers.push((Protocol::Tcp, "10.30.0.2:80".parse().unwrap())),
                |error| matches!(error, RouteError::ServerIsVip { .. }),
            ),
            (
                |needs| needs.servers.push((Protocol::Tcp, "10.20.2.2:0".parse().unwrap())),
                |error| matches!(error, RouteError::ServerIsTaken { .. }),
            ),
        ];
        for (number, (spoil, is_expected)) in refusals.into_iter().enumerate() {
            bad.clone_from(&good);
            spoil(&mut bad);
            let result = routed.routing.update(&bad).await;
            let Err(error) = result else { panic!("number {number} is not refused") };
            assert!(is_expected(&error), "{error}");
            assert_unchanged(host, &during);
            assert_eq!(record(), recorded);
        }
        routed.routing.update(&good).await.unwrap();
        routed.routing.take_back().await.unwrap();
        other.routing.take_back().await.unwrap();
    });
    run_well(host, "ip", &["route", "del", "10.30.0.7/32"]);
    assert_unchanged(host, &before);
}

fn crash_after_an_update_is_cleaned_up_by_the_next_start() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let before = host_state(host);
    let all = various_needs();
    for (from, to) in [(0, 2), (2, 5), (5, 3), (3, 1)] {
        on(host, async || {
            let mut routed = Routed::new(&all[from]).await;
            routed.routing.update(&all[to]).await.unwrap();
            drop(routed);
        });
        assert_ne!(host_state(host), before, "a crash leaves something");
        on(host, async || {
            let routed = Routed::new(&all[4]).await;
            routed.routing.take_back().await.unwrap();
        });
        assert_unchanged(host, &before);
        assert_eq!(state_files(host), [""; 0]);
    }
}

fn settings_needed_no_more_are_put_back_unless_another_director_needs_them() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let before = host_state(host);
    let forwards = || {
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
            .map(|name| sysctl::read(name).unwrap() == "1")
    };
    let v4 = needs(&["10.30.0.1"], &[(Protocol::Tcp, "10.20.1.2:8080")]);
    let v6 = needs(&["fd00:30::1"], &[(Protocol::Tcp, "[fd00:20:1::2]:8080")]);
    let other = RouteNeeds {
        device: "other0".to_owned(),
        ..needs(&["10.30.0.9"], &[(Protocol::Tcp, "10.20.2.2:9000")])
    };
    on(host, async || {
        let mut routed = Routed::new(&v4).await;
        assert_eq!(forwards(), [true, false]);
        routed.routing.update(&v6).await.unwrap();
        assert_eq!(forwards(), [false, true]);
        routed.routing.update(&v4).await.unwrap();
        assert_eq!(forwards(), [true, false]);

        let other = Routed::new(&other).await;
        routed.routing.update(&v6).await.unwrap();
        assert_eq!(forwards(), [true, true]);
        other.routing.take_back().await.unwrap();
        routed.routing.update(&v4).await.unwrap();
        assert_eq!(forwards(), [true, false]);
        routed.routing.take_back().await.unwrap();
    });
    assert_unchanged(host, &before);
}

fn follower_puts_back_what_the_update_needs_and_nothing_else() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let before = host_state(host);
    let all = various_needs();
    run_well(host, "ip", &["link", "set", "server2", "mtu", "1400"]);
    let with_mtu = host_state(host);
    host.run(|| {
        // Its threads begin in the namespace of the one that makes it.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (mut routed, follower) = runtime.block_on(async {
            let routed = Routed::new(&all[0]).await;
            let mtu = Arc::new(AtomicU16::new(1500));
            let following = route::follow(all[0].clone(), true, mtu, Some(&routed.routing)).await;
            (routed, following.unwrap())
        });
        for index in [1, 5, 2, 3, 1] {
            runtime.block_on(follower.update(&all[index], Some(&mut routed.routing))).unwrap();
            let expected = state_of(host);
            for family in ["-4", "-6"] {
                // Once is not enough for many: the program flushes while it lists.
                while run_well(host, "ip", &[family, "rule", "show"]).contains("proto 119") {
                    run_well(host, "ip", &[family, "rule", "flush", "protocol", "119"]);
                }
                let flush = [family, "route", "flush", "table", "all", "protocol", "119"];
                run_well(host, "ip", &flush);
            }
            // The second server's link is narrower.
            let mtu = if all[index].servers.iter().any(|(_, server)| {
                [lab::server_address(2, false), lab::server_address(2, true)].contains(&server.ip())
            }) {
                "mtu 1400"
            } else {
                "mtu 1500"
            };
            wait_until(&format!("all of {index}"), || {
                state_of(host) == expected
                    && run_well(host, "ip", &["link", "show", "wvs0"]).contains(mtu)
            });
        }
        runtime.block_on(async {
            follower.stop().await;
            routed.routing.take_back().await.unwrap();
        });
    });
    assert_unchanged(host, &with_mtu);
    run_well(host, "ip", &["link", "set", "server2", "mtu", "1500"]);
    assert_unchanged(host, &before);
}
