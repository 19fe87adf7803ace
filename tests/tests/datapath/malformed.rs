//! Octets that are no packets.

use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, SYN, at, echo, icmp_error, tcp, udp};

use crate::{FAMILIES, V4, V6};

#[test]
fn every_truncation_of_a_good_packet_is_dropped_for_its_length() {
    for (family, lengths) in [(&V4, DropReason::Ipv4Length), (&V6, DropReason::Ipv6Length)] {
        let world = family.world(Protocol::Tcp);
        let headers = [DropReason::Ipv4Header, DropReason::Ipv6Header];
        for packet in [
            tcp(family.client(), family.vip(), SYN),
            udp(family.client(), family.vip(), b"data"),
            echo(family.client().ip(), family.vip().ip(), true, 1),
        ] {
            assert_eq!(world.process(&[]).0, Verdict::Drop(DropReason::NotIp));
            for length in 1..packet.len() {
                let (verdict, _) = world.process(&packet[..length]);
                let Verdict::Drop(reason) = verdict else { panic!("{length}: {verdict:?}") };
                assert!(reason == lengths || headers.contains(&reason), "{length}: {reason}");
            }
        }
    }
}

#[test]
fn every_truncation_of_the_transport_header_has_its_own_reason() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        let (header, length_at) = if family.vip().is_ipv4() { (20, 2) } else { (40, 4) };
        let header_counts = if family.vip().is_ipv4() { header } else { 0 };
        let cut = |packet: &[u8], keep: usize| {
            let mut cut = packet[..header + keep].to_vec();
            let length = u16::try_from(header_counts + keep).unwrap();
            cut[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            cut
        };
        for keep in 0..20 {
            let segment = tcp(family.client(), family.vip(), SYN);
            world.drop(&cut(&segment, keep), DropReason::TcpHeader);
        }
        for keep in 0..8 {
            let datagram = udp(family.client(), family.vip(), b"");
            world.drop(&cut(&datagram, keep), DropReason::UdpHeader);
            let ping = echo(family.client().ip(), family.vip().ip(), true, 1);
            world.drop(&cut(&ping, keep), DropReason::IcmpHeader);
        }
        let error = icmp_error(family.client().ip(), family.vip().ip(), [3, 4], &[0x45; 60]);
        for keep in 2..8 + 28 {
            world.drop(&cut(&error, keep), DropReason::IcmpQuote);
        }
    }
}

#[test]
fn impossible_lengths_are_dropped() {
    let world = V4.world(Protocol::Tcp);
    let good = tcp(V4.client(), V4.vip(), SYN);
    let with = |changes: &[(usize, u8)]| {
        let mut packet = good.clone();
        for (at, octet) in changes {
            packet[*at] = *octet;
        }
        packet
    };
    // Version 5; a header of 16 octets; one of 60 that is not there; a total length below the
    // header's; one beyond the packet.
    world.drop(&with(&[(0, 0x55)]), DropReason::NotIp);
    world.drop(&with(&[(0, 0x44)]), DropReason::Ipv4Header);
    world.drop(&with(&[(0, 0x4f)]), DropReason::Ipv4Length);
    world.drop(&with(&[(3, 19)]), DropReason::Ipv4Length);
    world.drop(&with(&[(3, 41)]), DropReason::Ipv4Length);
    // TCP data offsets of 4 and of 24 octets.
    world.drop(&with(&[(32, 0x40)]), DropReason::TcpHeader);
    world.drop(&with(&[(32, 0x60)]), DropReason::TcpHeader);
    // UDP lengths of 7 and beyond the end.
    let datagram = udp(V4.client(), V4.vip(), b"four");
    for length in [0, 7, 13] {
        let mut packet = datagram.clone();
        packet[25] = length;
        world.drop(&packet, DropReason::UdpHeader);
    }
}

#[test]
fn extension_headers_are_walked_to_the_limit_and_no_further() {
    let world = V6.world(Protocol::Tcp);
    let with = |count: usize| {
        let mut packet = tcp(V6.client(), V6.vip(), SYN);
        for _ in 0..count {
            packet.splice(40..40, [packet[6], 0, 1, 4, 0, 0, 0, 0]);
            packet[6] = 60;
            packet[5] += 8;
        }
        packet
    };
    assert_eq!(world.process(&with(8)).0, Verdict::Forward);
    world.drop(&with(9), DropReason::Ipv6Extensions);

    // One that claims to be longer than the packet, and one that is cut off.
    let mut packet = with(1);
    packet[41] = 200;
    world.drop(&packet, DropReason::Ipv6Extensions);
    let mut packet = with(1);
    packet[5] = 3;
    packet.truncate(43);
    world.drop(&packet, DropReason::Ipv6Extensions);
}

#[test]
fn zero_udp_checksum_over_ipv6_is_refused() {
    let mut world = V6.world(Protocol::Udp);
    let mut datagram = udp(V6.client(), V6.vip(), b"data");
    datagram[46..48].fill(0);
    world
        .moves(&[("drop.udp_checksum", 1)], |world| world.drop(&datagram, DropReason::UdpChecksum));
}

#[test]
fn protocols_that_are_not_balanced_are_dropped() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        let mut packet = tcp(family.client(), family.vip(), SYN);
        // The other family's ICMP among them.
        let others = if family.vip().is_ipv4() { [132, 47, 58] } else { [132, 47, 1] };
        for protocol in others {
            packet[if family.vip().is_ipv4() { 9 } else { 6 }] = protocol;
            world.drop(&packet, DropReason::Protocol);
        }
    }
}

#[test]
fn answer_that_does_not_fit_into_the_buffer_is_not_sent() {
    let world = V4.world(Protocol::Tcp);
    let mut datagram = udp(V4.client(), at("203.0.113.10:9"), b"");
    let length = datagram.len();
    let mut packet = wvs_core::packet::Packet::new(&mut datagram, length);
    let verdict = world.director.process(&mut packet, world.now());
    assert_eq!(verdict, Verdict::Drop(DropReason::ReplyLimit));
    assert_eq!(world.process(&tcp(V4.client(), at("203.0.113.10:9"), ACK)).0, Verdict::Reply);
}
