//! The octets of what the director sent, against the octets of what came.

use std::net::{IpAddr, SocketAddr};

use wvs_tests::packet::{SeenTransport, receive};

use crate::model::Answer;
use crate::wire::{ACK, Body, RST, Wire, pseudo_header, residue};

/// Where things are in a packet.
struct Layout {
    is_ipv6: bool,
    protocol: u8,
    /// Where the transport header begins.
    header: usize,
    /// Where the packet ends.
    end: usize,
}

impl Layout {
    fn of(octets: &[u8]) -> Self {
        let wire = Wire::of(octets).expect("the model read it before");
        let is_ipv6 = wire.source.is_ipv6();
        let protocol = octets[if is_ipv6 { 6 } else { 9 }];
        Self { is_ipv6, protocol, header: wire.header, end: wire.length }
    }

    /// Where a transport checksum stands behind its header's beginning.
    fn checksum(protocol: u8) -> usize {
        match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        }
    }

    fn has_ports(protocol: u8) -> bool {
        matches!(protocol, 6 | 17)
    }
}

fn put(octets: &mut [u8], at: usize, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => octets[at..at + 4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => octets[at..at + 16].copy_from_slice(&ip.octets()),
    }
}

/// Puts addresses into an IP header, and makes its checksum 0.
fn put_addresses(octets: &mut [u8], source: IpAddr, destination: IpAddr) {
    if source.is_ipv6() {
        put(octets, 8, source);
        put(octets, 24, destination);
    } else {
        put(octets, 12, source);
        put(octets, 16, destination);
        octets[10..12].fill(0);
    }
}

fn put_port(octets: &mut [u8], at: usize, port: u16) {
    octets[at..at + 2].copy_from_slice(&port.to_be_bytes());
}

/// Puts ports into a transport header; into an echo message the one of them that is its identifier.
fn put_ends(octets: &mut [u8], at: usize, protocol: u8, source: u16, destination: u16) {
    if Layout::has_ports(protocol) {
        put_port(octets, at, source);
        put_port(octets, at + 2, destination);
    } else {
        let is_request = matches!(octets[at], 8 | 128);
        put_port(octets, at + 4, if is_request { source } else { destination });
    }
}

/// A transport packet has these ends now, the same error in its checksums as before (none, as a
/// rule), and is the same otherwise.
pub(crate) fn translated(
    came: &[u8],
    went: &[u8],
    source: SocketAddr,
    destination: SocketAddr,
    is_partial: bool,
) {
    let Layout { is_ipv6, protocol, header, end } = Layout::of(came);
    let checksum = header + Layout::checksum(protocol);
    let mut expected = came.to_vec();
    put_addresses(&mut expected, source.ip(), destination.ip());
    put_ends(&mut expected, header, protocol, source.port(), destination.port());
    let mut found = went.to_vec();
    for packet in [&mut expected, &mut found] {
        packet[checksum..checksum + 2].fill(0);
        if !is_ipv6 {
            packet[10..12].fill(0);
        }
    }
    assert_eq!(found, expected, "what is translated, and nothing else, changes");

    if !is_ipv6 {
        let [before, after] = [came, went].map(|packet| residue(&[&packet[..header]]));
        assert_eq!(before, after, "IPv4 header checksum");
    }
    let field = [went[checksum], went[checksum + 1]];
    let pseudo = |packet: &[u8]| {
        let wire = Wire::of(packet).expect("it was one before");
        pseudo_header(wire.source, wire.destination, protocol, end - header)
    };
    if is_partial {
        let expected = residue(&[&pseudo(went)]);
        assert_eq!(residue(&[&field]), expected, "partial checksum");
    } else if protocol == 17 && came[checksum..checksum + 2] == [0, 0] {
        assert_eq!(field, [0, 0], "a datagram without a checksum got one");
    } else {
        let is_covered = protocol != 1;
        let [before, after] = [came, went].map(|packet| {
            let pseudo = if is_covered { pseudo(packet) } else { Vec::new() };
            residue(&[&pseudo, &packet[header..end]])
        });
        assert_eq!(before, after, "transport checksum");
        assert!(protocol != 17 || field != [0, 0], "a datagram lost its checksum");
    }
}

/// An ICMP error has these addresses now and quotes a packet with these ends; its checksum is
/// right, those in the quote are as right as before, and it is the same otherwise.
pub(crate) fn translated_error(
    came: &[u8],
    went: &[u8],
    [source, destination]: [IpAddr; 2],
    [quoted_source, quoted_destination]: [SocketAddr; 2],
) {
    let Layout { is_ipv6, header, end, .. } = Layout::of(came);
    let quote = header + 8;
    let inner = if is_ipv6 { 40 } else { usize::from(came[quote] & 15) * 4 };
    let protocol = came[quote + if is_ipv6 { 6 } else { 9 }];
    let transport = quote + inner;
    let mut expected = came.to_vec();
    put_addresses(&mut expected, source, destination);
    put_addresses(&mut expected[quote..end], quoted_source.ip(), quoted_destination.ip());
    let (from, to) = (quoted_source.port(), quoted_destination.port());
    put_ends(&mut expected, transport, protocol, from, to);
    let checksum = transport + Layout::checksum(protocol);
    let has_checksum = checksum + 2 <= end;
    let mut found = went.to_vec();
    for packet in [&mut expected, &mut found] {
        packet[header + 2..header + 4].fill(0);
        if has_checksum {
            packet[checksum..checksum + 2].fill(0);
        }
        if !is_ipv6 {
            packet[10..12].fill(0);
            packet[quote + 10..quote + 12].fill(0);
        }
    }
    assert_eq!(found, expected, "what is translated, and nothing else, changes");

    if !is_ipv6 {
        for range in [0..header, quote..transport] {
            let [before, after] = [came, went].map(|packet| residue(&[&packet[range.clone()]]));
            assert_eq!(before, after, "IPv4 header checksum");
        }
    }
    match Wire::of(went).map(|wire| wire.body) {
        Ok(Body::Error { is_intact, .. }) => assert!(is_intact, "ICMP checksum"),
        other => panic!("an error became {other:?}"),
    }
    let is_absent = protocol == 17 && came[checksum..checksum + 2] == [0, 0];
    if has_checksum && is_absent {
        assert_eq!(went[checksum..checksum + 2], [0, 0]);
    } else if has_checksum {
        let addresses = match (protocol, is_ipv6) {
            (1, _) => 0..0,
            (_, false) => quote + 12..quote + 20,
            (_, true) => quote + 8..quote + 40,
        };
        let ports = if Layout::has_ports(protocol) { 0..4 } else { 4..6 };
        let ports = transport + ports.start..transport + ports.end;
        let [before, after] = [came, went].map(|packet| {
            let field = &packet[checksum..checksum + 2];
            residue(&[&packet[addresses.clone()], &packet[ports.clone()], field])
        });
        assert_eq!(before, after, "quoted transport checksum");
    }
}

/// The director's own answer to a packet is the right one.
pub(crate) fn answered(came: &[u8], went: &[u8], answer: Answer) {
    let wire = Wire::of(came).expect("the model read it before");
    let seen = receive(went);
    let vip = match answer {
        Answer::TimeExceeded(vip) => vip,
        _ => wire.destination,
    };
    assert_eq!((seen.source.ip(), seen.destination.ip()), (vip, wire.source), "{answer:?}");
    let is_ipv6 = vip.is_ipv6();
    let error = |is_closed: bool| match (is_closed, is_ipv6) {
        (true, false) => (3, 3),
        (true, true) => (1, 4),
        (false, false) => (11, 0),
        (false, true) => (3, 0),
    };
    match (answer, seen.transport, &wire.body) {
        (
            Answer::Reset,
            SeenTransport::Tcp { flags, sequence, acknowledgement },
            Body::Tcp(segment),
        ) => {
            let ports = (segment.destination_port, segment.source_port);
            assert_eq!((seen.source.port(), seen.destination.port()), ports);
            if segment.flags & ACK != 0 {
                assert_eq!((flags, sequence), (RST, segment.acknowledgement));
            } else {
                let taken = u32::from(segment.flags & 1 != 0) + u32::from(segment.flags & 2 != 0);
                let next = segment.sequence.wrapping_add(segment.data).wrapping_add(taken);
                assert_eq!((flags, sequence, acknowledgement), (RST | ACK, 0, next));
            }
        }
        (
            Answer::PortUnreachable | Answer::TimeExceeded(_),
            SeenTransport::Icmp { kind, code, .. },
            _,
        ) => {
            assert_eq!((kind, code), error(answer == Answer::PortUnreachable));
            let most = if is_ipv6 { 1280 - 48 } else { 576 - 28 };
            assert_eq!(seen.payload, came[..wire.length.min(most)], "quotes what was sent");
        }
        (Answer::Echo, SeenTransport::Icmp { kind, code: 0, rest }, Body::Echo { .. }) => {
            assert_eq!(kind, if is_ipv6 { 129 } else { 0 });
            assert_eq!(rest, came[wire.header + 4..wire.header + 8]);
            assert_eq!(seen.payload, came[wire.header + 8..wire.length]);
        }
        (answer, seen, _) => panic!("{answer:?} expected, and seen {seen:?}"),
    }
}
