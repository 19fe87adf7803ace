//! What holds for every packet and every sequence of packets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, FIN, RST, SYN, Tcp, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{V4, V6};

/// An address that can be a client's, a VIP or a real server's, often with octets of 0 or 255.
fn address(is_ipv6: bool) -> impl Strategy<Value = IpAddr> {
    let octet = prop_oneof![Just(0_u8), Just(0xff), any::<u8>()];
    prop::collection::vec(octet, 16).prop_map(move |octets| {
        if is_ipv6 {
            let mut address: [u8; 16] = octets.try_into().unwrap();
            address[0] = 0x20;
            address.into()
        } else {
            // 1 to 126: unicast, and not this host.
            [1 + octets[0] % 126, octets[1], octets[2], octets[3]].into()
        }
    })
}

fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr, SocketAddr)> {
    any::<bool>().prop_flat_map(|is_ipv6| {
        let end = move || {
            (address(is_ipv6), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
        };
        (end(), end(), end()).prop_filter("three different addresses", |(client, vip, server)| {
            client.ip() != vip.ip() && vip.ip() != server.ip() && client.ip() != server.ip()
        })
    })
}

/// The octets of a translated packet that may differ from the original.
fn may_change(packet: &[u8], is_tcp: bool, at: usize) -> bool {
    let (header, is_address) = if packet[0] >> 4 == 4 {
        (20, (12..20).contains(&at) || (10..12).contains(&at))
    } else {
        (40, (8..40).contains(&at))
    };
    let checksum = header + if is_tcp { 16 } else { 6 };
    is_address || (header..header + 4).contains(&at) || (checksum..checksum + 2).contains(&at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Any client, VIP and server: the server sees CIP to RIP and the client VIP to CIP with right
    /// checksums, nothing else in the packet changes, and the two rewrites undo each other.
    #[test]
    fn rewrite_and_its_inverse_are_the_identity_outside_the_rewritten_octets(
        (client, vip, server) in ends(),
        is_tcp in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
        let (vip_text, server_text) = (vip.to_string(), server.to_string());
        let world = World::new(vec![ServiceSpec::new(protocol, &vip_text, &[&server_text])]);
        let build = |source, destination| {
            if is_tcp {
                Tcp::new(source, destination, SYN).payload(&payload).build()
            } else {
                udp(source, destination, &payload)
            }
        };

        let request = build(client, vip);
        let sent = world.forward(&request);
        let seen = receive(&sent);
        prop_assert_eq!((seen.source, seen.destination), (client, server));
        prop_assert_eq!(sent.len(), request.len());
        for at in 0..sent.len() {
            prop_assert!(sent[at] == request[at] || may_change(&request, is_tcp, at), "octet {}", at);
        }
        // What the server would have got had the client known its address.
        prop_assert_eq!(&sent, &build(client, server));

        let reply = build(server, client);
        let sent = world.forward(&reply);
        prop_assert_eq!(&sent, &build(vip, client));
        let _ = receive(&sent);
    }

    /// A checksum that was wrong is as wrong afterwards: a director never launders a broken packet.
    #[test]
    fn wrong_checksum_stays_wrong(flip in 1..=u16::MAX, is_ipv6 in any::<bool>()) {
        let family = if is_ipv6 { &V6 } else { &V4 };
        let world = family.world(Protocol::Tcp);
        let at = if is_ipv6 { 56 } else { 36 };
        let good = tcp(family.client(), family.vip(), SYN);
        let mut bad = good.clone();
        let checksum = u16::from_be_bytes([bad[at], bad[at + 1]]);
        bad[at..at + 2].copy_from_slice(&(checksum ^ flip).to_be_bytes());
        // 0x0000 and 0xffff say the same in one's complement.
        prop_assume!(flip != 0xffff || (checksum != 0 && checksum != 0xffff));
        let (good, bad) = (world.forward(&good), world.forward(&bad));
        prop_assert_ne!(&good[at..at + 2], &bad[at..at + 2]);
    }

    /// Octets of any kind are forwarded, answered, passed or dropped, and that is all.
    #[test]
    fn no_octets_make_the_director_panic(
        octets in prop::collection::vec(any::<u8>(), 0..120),
        version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(44), any::<u8>()],
    ) {
        let world = World::new(vec![
            V4.service(Protocol::Tcp),
            V6.service(Protocol::Tcp),
            V4.service(Protocol::Icmp),
        ]);
        let mut octets = octets;
        if let Some(first) = octets.first_mut() {
            *first = version;
        }
        let (is_ipv4, length) = (version >> 4 == 4, octets.len());
        if is_ipv4 && length >= 20 {
            octets[9] = protocol;
            octets[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            octets[6..8].fill(0);
            octets[16..20].copy_from_slice(&[203, 0, 113, 10]);
        } else if length >= 40 {
            octets[6] = protocol;
            octets[4..6].copy_from_slice(&u16::try_from(length - 40).unwrap().to_be_bytes());
        }
        let (verdict, sent) = world.process(&octets);
        if verdict == Verdict::Pass {
            prop_assert_eq!(sent, octets);
        }
        let counters = world.director.verdicts();
        let drops: u64 = wvs_core::verdict::DropReason::ALL
            .iter()
            .map(|reason| counters.dropped(*reason))
            .sum();
        let kept = counters.passed() + counters.held();
        prop_assert_eq!(counters.forwarded() + counters.replied() + kept + drops, 1);
    }

    /// After any sequence of segments and pauses: each server's active and inactive counts are what
    /// a recount of the table gives, opened minus expired minus replaced are alive, and a client
    /// sees nobody but the VIP.
    #[test]
    fn counts_equal_a_recount_after_any_sequence(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = V4.world(Protocol::Tcp);
        for step in steps {
            match step {
                Step::Client(port, flags) => {
                    let (verdict, sent) =
                        world.process(&tcp(V4.client_port(port), V4.vip(), flags));
                    match verdict {
                        Verdict::Forward => prop_assert_ne!(receive(&sent).destination, V4.vip()),
                        Verdict::Reply => prop_assert_eq!(receive(&sent).source, V4.vip()),
                        other => prop_assert!(matches!(other, Verdict::Drop(_))),
                    }
                }
                Step::Server(index, port, flags) => {
                    let (verdict, sent) =
                        world.process(&tcp(V4.server(index), V4.client_port(port), flags));
                    if verdict == Verdict::Forward {
                        prop_assert_eq!(receive(&sent).source, V4.vip());
                    } else {
                        prop_assert!(matches!(verdict, Verdict::Drop(_)));
                    }
                }
                Step::Wait(seconds) => {
                    world.wait_and_sweep(Duration::from_secs(seconds));
                }
            }
            world.recount();
            let table = world.director.table();
            let alive = table.opened.get() - table.expired.get() - table.replaced.get();
            prop_assert_eq!(u64::try_from(world.director.connections()).unwrap(), alive);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Client(u16, u8),
    Server(usize, u16, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = || {
        prop_oneof![
            4 => Just(SYN),
            4 => Just(ACK),
            2 => Just(SYN | ACK),
            2 => Just(FIN | ACK),
            1 => Just(RST),
            1 => Just(RST | ACK),
            1 => any::<u8>(),
        ]
    };
    prop_oneof![
        6 => (1..6_u16, flags()).prop_map(|(port, flags)| Step::Client(port, flags)),
        4 => (0..2_usize, 1..6_u16, flags())
            .prop_map(|(server, port, flags)| Step::Server(server, port, flags)),
        1 => prop_oneof![Just(1_u64), Just(10), Just(60), Just(120), Just(900)]
            .prop_map(Step::Wait),
    ]
}
