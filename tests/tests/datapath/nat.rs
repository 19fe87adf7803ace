//! Translation of TCP, UDP and echo in both directions.

use std::net::SocketAddr;

use wvs_core::service::Protocol;
use wvs_core::stats::TrafficTotals;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, PSH, SYN, SeenTransport, Tcp, URG, at, echo, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{FAMILIES, V4, V6};

#[test]
fn request_goes_to_a_real_server_and_its_reply_leaves_from_the_vip() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        let moved = [("forwarded", 1), ("opened", 1), ("service-1.picked", 1)];
        let sent =
            world.moves(&moved, |world| world.forward(&tcp(family.client(), family.vip(), SYN)));
        let seen = receive(&sent);
        assert_eq!((seen.source, seen.destination), (family.client(), family.server(0)));

        let sent = world.moves(&[("forwarded", 1)], |world| {
            world.forward(&tcp(family.server(0), family.client(), SYN | ACK))
        });
        let seen = receive(&sent);
        assert_eq!((seen.source, seen.destination), (family.vip(), family.client()));
        world.recount();
    }
}

#[test]
fn everything_but_addresses_ports_and_checksums_stays() {
    for family in FAMILIES {
        let world = family.established();
        let segment = Tcp {
            sequence: 0xFFFF_FFF0,
            hop_limit: 7,
            ..Tcp::new(family.client(), family.vip(), ACK | PSH | URG).payload(b"GET / HTTP/1.1")
        };
        let seen = receive(&world.forward(&segment.build()));
        assert_eq!(seen.hop_limit, 7);
        assert_eq!(seen.payload, b"GET / HTTP/1.1");
        let flags = ACK | PSH | URG;
        let expected = SeenTransport::Tcp { flags, sequence: 0xFFFF_FFF0, acknowledgement: 2000 };
        assert_eq!(seen.transport, expected);
    }
}

#[test]
fn datagrams_of_one_client_port_stay_with_one_server() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Udp);
        for (port, server) in [(1, 0), (2, 1), (3, 0), (2, 1), (1, 0)] {
            let sent = world.forward(&udp(family.client_port(port), family.vip(), b"ping"));
            assert_eq!(receive(&sent).destination, family.server(server));
        }
        let reply = udp(family.server(1), family.client_port(2), b"pong");
        let sent = world.moves(&[("forwarded", 1)], |world| world.forward(&reply));
        let seen = receive(&sent);
        assert_eq!((seen.source, seen.payload.as_slice()), (family.vip(), b"pong".as_slice()));
        assert_eq!(world.servers(0)[0].inactive(), 2, "UDP never counts as active");
        world.recount();
    }
}

#[test]
fn udp_without_checksum_stays_without_over_ipv4() {
    let family = FAMILIES[0];
    let world = family.world(Protocol::Udp);
    let mut datagram = udp(family.client(), family.vip(), b"ping");
    datagram[26..28].fill(0);
    let sent = world.forward(&datagram);
    assert_eq!(sent[26..28], [0, 0]);
    assert_eq!(receive(&sent).destination, family.server(0));
}

#[test]
fn echo_requests_are_scheduled_where_a_service_wants_them() {
    for (client, vip, servers) in [
        ("198.51.100.7", "203.0.113.10:0", ["10.0.0.1:0", "10.0.0.2:0"]),
        ("2001:db8:1::7", "[2001:db8:2::10]:0", ["[fd00::1]:0", "[fd00::2]:0"]),
    ] {
        let mut world = World::new(vec![ServiceSpec::new(Protocol::Icmp, vip, &servers)]);
        let (client, vip) = (client.parse().unwrap(), at(vip).ip());
        for (identifier, server) in [(10, 0), (11, 1), (10, 0)] {
            let seen = receive(&world.forward(&echo(client, vip, true, identifier)));
            assert_eq!(seen.destination.ip(), at(servers[server]).ip());
        }
        let reply = echo(at(servers[1]).ip(), client, false, 11);
        assert_eq!(receive(&world.forward(&reply)).source.ip(), vip);
        // Silent for half a minute: over.
        assert_eq!(world.outlast(std::time::Duration::from_secs(30)), 2);
    }
}

#[test]
fn echo_messages_of_identifier_0_go_only_the_way_they_should() {
    let service = ServiceSpec::new(Protocol::Icmp, "203.0.113.10:0", &["10.0.0.1:0"]);
    let world = World::new(vec![service]);
    let [client, vip, server] =
        ["198.51.100.7", "203.0.113.10", "10.0.0.1"].map(|ip| ip.parse().unwrap());
    world.forward(&echo(client, vip, true, 0));
    assert_eq!(receive(&world.forward(&echo(server, client, false, 0))).source.ip(), vip);
    // The server's own ping to that client, and an answer that nobody asked for.
    assert_eq!(world.process(&echo(server, client, true, 0)).0, Verdict::Pass);
    world.drop(&echo(client, vip, false, 0), DropReason::IcmpType);
}

#[test]
fn ipv4_options_and_octets_beyond_the_packet_survive() {
    let family = FAMILIES[0];
    let world = family.world(Protocol::Tcp);
    let plain = tcp(family.client(), family.vip(), SYN);
    // A record-route option of 8 octets, the last one padding.
    let mut packet = plain[..20].to_vec();
    packet[0] = 0x47;
    packet[3] += 8;
    packet.extend([7, 7, 4, 0, 0, 0, 0, 0]);
    packet.extend(&plain[20..]);
    packet[10..12].fill(0);
    let sum = wvs_core::packet::checksum::Sum::default().octets(&packet[..28]).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(b"beyond");

    let sent = world.forward(&packet);
    assert_eq!(sent[20..28], [7, 7, 4, 0, 0, 0, 0, 0]);
    assert!(sent.ends_with(b"beyond"));
    assert_eq!(receive(&sent).destination, family.server(0));
}

#[test]
fn ipv6_extension_headers_are_walked_and_kept() {
    let family = FAMILIES[1];
    let world = family.world(Protocol::Tcp);
    let plain = tcp(family.client(), family.vip(), SYN);
    // Hop-by-hop, destination options, and an atomic fragment header, which is a whole packet.
    let extensions = [
        [60, 0, 1, 4, 0, 0, 0, 0],
        [44, 0, 1, 4, 0, 0, 0, 0],
        [6, 0, 0, 0, 0x12, 0x34, 0x56, 0x78],
    ]
    .concat();
    let mut packet = plain[..40].to_vec();
    packet[6] = 0;
    packet[5] += 24;
    packet.extend(&extensions);
    packet.extend(&plain[40..]);

    let sent = world.forward(&packet);
    assert_eq!(sent[40..64], extensions);
    let without: Vec<u8> = [&sent[..40], &sent[64..]].concat();
    let mut without = without;
    without[5] -= 24;
    without[6] = 6;
    assert_eq!(receive(&without).destination, family.server(0));
}

#[test]
fn packets_and_octets_are_counted_for_the_server_each_way() {
    let family = FAMILIES[0];
    let world = family.established();
    let data = Tcp::new(family.server(0), family.client(), ACK).payload(&[0; 100]).build();
    world.forward(&data);
    assert_eq!(
        world.servers(0)[0].traffic().totals(),
        TrafficTotals {
            connections: 1,
            in_packets: 2,
            out_packets: 2,
            in_octets: 80,
            out_octets: 180
        }
    );
    assert_eq!(world.servers(0)[1].traffic().totals(), TrafficTotals::default());
}

#[test]
fn services_are_told_apart_by_protocol_address_and_port() {
    let world = World::new(vec![
        ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"]),
        ServiceSpec::new(Protocol::Tcp, "203.0.113.10:443", &["10.0.0.2:443"]),
        ServiceSpec::new(Protocol::Udp, "203.0.113.10:80", &["10.0.0.3:80"]),
        ServiceSpec::new(Protocol::Tcp, "203.0.113.11:80", &["10.0.0.4:80"]),
        ServiceSpec::new(Protocol::Tcp, "[2001:db8::1]:80", &["[fd00::5]:80"]),
    ]);
    let client = at("198.51.100.7:5555");
    let to = |packet: Vec<u8>| -> SocketAddr { receive(&world.forward(&packet)).destination };
    assert_eq!(to(tcp(client, at("203.0.113.10:80"), SYN)), at("10.0.0.1:80"));
    assert_eq!(to(tcp(client, at("203.0.113.10:443"), SYN)), at("10.0.0.2:443"));
    assert_eq!(to(udp(client, at("203.0.113.10:80"), b"")), at("10.0.0.3:80"));
    assert_eq!(to(tcp(client, at("203.0.113.11:80"), SYN)), at("10.0.0.4:80"));
    let client = at("[2001:db8:1::7]:5555");
    assert_eq!(to(tcp(client, at("[2001:db8::1]:80"), SYN)), at("[fd00::5]:80"));
}

#[test]
fn quiesced_server_keeps_its_connections_and_gets_no_new_ones() {
    let family = FAMILIES[0];
    let world = family.established();
    world.set_weight(0, 0, 0);
    for port in 1..5 {
        let sent = world.forward(&tcp(family.client_port(port), family.vip(), SYN));
        assert_eq!(receive(&sent).destination, family.server(1));
    }
    let sent = world.forward(&tcp(family.client(), family.vip(), ACK));
    assert_eq!(receive(&sent).destination, family.server(0));
}

#[test]
fn late_echo_reply_of_a_services_server_is_dropped_and_its_own_ping_passes() {
    for (family, server) in [(&V4, "10.0.0.1:0"), (&V6, "[fd00::1]:0")] {
        let vip = SocketAddr::new(family.vip().ip(), 0).to_string();
        let mut world = World::new(vec![ServiceSpec::new(Protocol::Icmp, &vip, &[server])]);
        let (client, server) = (family.client().ip(), at(server).ip());
        world.forward(&echo(client, family.vip().ip(), true, 7));
        world.forward(&echo(server, client, false, 7));
        assert_eq!(world.outlast(std::time::Duration::from_secs(30)), 1);
        world.drop(&echo(server, client, false, 7), DropReason::NoConnection);
        assert_eq!(world.process(&echo(server, client, true, 8)).0, Verdict::Pass);
    }
}
