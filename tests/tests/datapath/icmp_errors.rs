//! ICMP errors about translated packets.

use wvs_core::packet::checksum::Sum;
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, Tcp, at, icmp_error, receive, udp};
use wvs_tests::world::World;

use crate::{Addresses, FAMILIES};

/// Too big, of each family.
fn too_big(family: &Addresses) -> [u8; 2] {
    if family.vip().is_ipv4() { [3, 4] } else { [2, 0] }
}

#[test]
fn error_about_a_request_reaches_the_client_as_if_from_the_vip() {
    for family in FAMILIES {
        let mut world = family.established();
        let request = Tcp::new(family.client(), family.vip(), ACK).payload(&[7; 64]).build();
        let forwarded = world.forward(&request);

        // The server itself, and a router in front of it.
        let router = if family.vip().is_ipv4() { "10.9.9.9:0" } else { "[fd09::9]:0" };
        for sender in [family.server(0), at(router)] {
            let error = icmp_error(sender.ip(), family.client().ip(), too_big(family), &forwarded);
            let sent = world.moves(&[("forwarded", 1)], |world| world.forward(&error));
            let seen = receive(&sent);
            assert_eq!(seen.source.ip(), family.vip().ip());
            assert_eq!(seen.destination.ip(), family.client().ip());
            assert_eq!(seen.payload, request, "quoted as the client sent it, checksums and all");
        }
    }
}

#[test]
fn error_about_a_reply_reaches_the_server_that_sent_it() {
    for family in FAMILIES {
        let mut world = family.established();
        let reply = Tcp::new(family.server(0), family.client(), ACK).payload(&[7; 64]).build();
        let forwarded = world.forward(&reply);
        let router = if family.vip().is_ipv4() { "198.51.100.1:0" } else { "[2001:db8:1::1]:0" };
        let error = icmp_error(at(router).ip(), family.vip().ip(), too_big(family), &forwarded);
        let sent = world.moves(&[("forwarded", 1)], |world| world.forward(&error));
        let seen = receive(&sent);
        assert_eq!(seen.source.ip(), at(router).ip());
        assert_eq!(seen.destination.ip(), family.server(0).ip());
        assert_eq!(seen.payload, reply);
    }
}

#[test]
fn eight_octets_of_the_quoted_transport_header_are_enough() {
    for family in FAMILIES {
        let world = family.established();
        let request = Tcp::new(family.client(), family.vip(), ACK).build();
        let forwarded = world.forward(&request);
        let header = if family.vip().is_ipv4() { 20 } else { 40 };
        let quote = &forwarded[..header + 8];
        let error = icmp_error(family.server(0).ip(), family.client().ip(), too_big(family), quote);
        assert_eq!(receive(&world.forward(&error)).payload, request[..header + 8]);
    }
}

#[test]
fn error_that_quotes_too_little_shows_the_client_no_real_server() {
    for family in FAMILIES {
        let world = family.established();
        let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
        let (client, server) = (family.client().ip(), family.server(0).ip());
        let header = if client.is_ipv4() { 20 } else { 40 };
        let router = at(if client.is_ipv4() { "10.9.9.9:0" } else { "[fd09::9]:0" }).ip();
        for length in [0, 8, header - 1, header, header + 7] {
            let quote = &forwarded[..length];
            // From the server itself; from a router, the quote tells as soon as it has addresses.
            world.drop(&icmp_error(server, client, too_big(family), quote), DropReason::IcmpQuote);
            let from_router = icmp_error(router, client, too_big(family), quote);
            if length >= header {
                world.drop(&from_router, DropReason::IcmpQuote);
            } else {
                assert_eq!(world.process(&from_router).0, Verdict::Pass);
            }
            let to_vip = icmp_error(client, family.vip().ip(), too_big(family), quote);
            world.drop(&to_vip, DropReason::IcmpQuote);
        }
    }
}

#[test]
fn quote_that_ends_within_extension_headers_is_still_recognised() {
    let family = FAMILIES[1];
    let world = family.established();
    let mut quote = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
    // Destination options that go on beyond what is quoted.
    quote[6] = 60;
    quote.splice(40.., [6, 200, 0x80, 0xff, 0, 0, 0, 0]);
    for sender in [family.server(0).ip(), "fd09::9".parse().unwrap()] {
        let error = icmp_error(sender, family.client().ip(), [4, 2], &quote);
        world.drop(&error, DropReason::IcmpQuote);
    }
}

#[test]
fn redirects_go_nowhere() {
    let family = FAMILIES[0];
    let mut world = family.established();
    let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
    for to in [family.client().ip(), family.vip().ip()] {
        let redirect = icmp_error(family.server(0).ip(), to, [5, 1], &forwarded);
        world.moves(&[("drop.icmp_type", 1)], |world| world.drop(&redirect, DropReason::IcmpType));
    }
}

#[test]
fn errors_are_counted_for_the_server_like_its_packets() {
    let family = FAMILIES[0];
    let world = family.established();
    let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
    let before = world.servers(0)[0].traffic().totals();
    let error = icmp_error(family.server(0).ip(), family.client().ip(), [3, 1], &forwarded);
    world.forward(&error);
    let after = world.servers(0)[0].traffic().totals();
    assert_eq!(after.out_packets - before.out_packets, 1);
    assert_eq!(after.out_octets - before.out_octets, u64::try_from(error.len()).unwrap());
}

#[test]
fn error_about_a_datagram_keeps_the_quoted_checksum_right() {
    for family in FAMILIES {
        let world = family.world(Protocol::Udp);
        let request = udp(family.client(), family.vip(), b"hello");
        let forwarded = world.forward(&request);
        let unreachable = if family.vip().is_ipv4() { [3, 3] } else { [1, 4] };
        let error =
            icmp_error(family.server(0).ip(), family.client().ip(), unreachable, &forwarded);
        assert_eq!(receive(&world.forward(&error)).payload, request);
    }
}

#[test]
fn error_opens_nothing_and_refreshes_nothing() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Udp);
        let stranger = udp(family.vip(), family.client(), b"never sent");
        let error = icmp_error(family.client().ip(), family.vip().ip(), too_big(family), &stranger);
        world.moves(&[("drop.icmp_quote", 1)], |world| world.drop(&error, DropReason::IcmpQuote));
        assert_eq!(world.director.connections(), 0);

        let forwarded = world.forward(&udp(family.client(), family.vip(), b"hello"));
        world.wait(std::time::Duration::from_secs(299));
        let error =
            icmp_error(family.server(0).ip(), family.client().ip(), too_big(family), &forwarded);
        world.forward(&error);
        assert_eq!(world.outlast(std::time::Duration::from_secs(1)), 1);
    }
}

#[test]
fn error_with_a_wrong_checksum_is_dropped() {
    for family in FAMILIES {
        let world = family.established();
        let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
        let mut error =
            icmp_error(family.server(0).ip(), family.client().ip(), too_big(family), &forwarded);
        *error.last_mut().unwrap() ^= 1;
        world.drop(&error, DropReason::IcmpChecksum);
    }
}

#[test]
fn error_to_somebody_else_than_the_quoted_sender_is_not_translated() {
    for family in FAMILIES {
        let world = family.established();
        let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
        let other = if family.vip().is_ipv4() { "198.51.100.99:0" } else { "[2001:db8:1::99]:0" };
        let error = icmp_error(family.server(0).ip(), at(other).ip(), too_big(family), &forwarded);
        world.drop(&error, DropReason::IcmpQuote);
    }
}

#[test]
fn error_about_an_expired_connection_shows_the_client_no_real_server() {
    for family in FAMILIES {
        let mut world = family.established();
        let forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
        world.outlast(std::time::Duration::from_secs(900));
        let error =
            icmp_error(family.server(0).ip(), family.client().ip(), too_big(family), &forwarded);
        world.moves(&[("drop.icmp_quote", 1)], |world| world.drop(&error, DropReason::IcmpQuote));
    }
}

#[test]
fn quote_of_a_later_fragment_has_no_ports_to_go_by() {
    let family = FAMILIES[0];
    let world: World = family.established();
    let mut forwarded = world.forward(&Tcp::new(family.client(), family.vip(), ACK).build());
    forwarded[7] = 1;
    forwarded[10..12].fill(0);
    let sum = Sum::default().octets(&forwarded[..20]).checksum();
    forwarded[10..12].copy_from_slice(&sum.to_be_bytes());
    let error = icmp_error(family.server(0).ip(), family.client().ip(), [11, 1], &forwarded);
    world.drop(&error, DropReason::IcmpQuote);
}

#[test]
fn other_icmp_to_a_vip_is_dropped_and_elsewhere_passes() {
    let family = FAMILIES[0];
    let world = family.world(Protocol::Tcp);
    let timestamp = icmp_error(family.client().ip(), family.vip().ip(), [13, 0], &[0; 12]);
    world.drop(&timestamp, DropReason::IcmpType);
    let timestamp = icmp_error(family.client().ip(), family.server(0).ip(), [13, 0], &[0; 12]);
    assert_eq!(world.process(&timestamp).0, Verdict::Pass);
}
