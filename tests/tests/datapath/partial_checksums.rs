//! Packets whose checksum is left to the device: the field has the sum of the pseudo-header alone.

use proptest::prelude::*;
use std::net::SocketAddr;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, SYN, Tcp, receive, udp};
use wvs_tests::world::World;

use crate::FAMILIES;

/// Where the transport header and in it the checksum is, and the protocol.
fn layout(packet: &[u8]) -> (usize, usize) {
    let (header, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    (header, header + if protocol == 6 { 16 } else { 6 })
}

/// One's complement addition, as a device does it.
fn add(words: impl IntoIterator<Item = u16>) -> u16 {
    let mut sum: u64 = words.into_iter().map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn words(octets: &[u8]) -> impl Iterator<Item = u16> + '_ {
    octets.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
}

/// What a kernel with a device that can do checksums sends: see virtio 1.2 section 5.1.6.2.
fn to_partial(packet: &[u8]) -> Vec<u8> {
    let (header, checksum) = layout(packet);
    let (addresses, protocol) = if header == 20 { (12..20, packet[9]) } else { (8..40, packet[6]) };
    let length = u16::try_from(packet.len() - header).unwrap();
    let sum = add(words(&packet[addresses]).chain([length, u16::from(protocol)]));
    let mut partial = packet.to_vec();
    partial[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    partial
}

/// What the device makes of it: the complement of the sum from the transport header to the end.
fn complete(packet: &[u8]) -> Vec<u8> {
    let (header, checksum) = layout(packet);
    let is_udp = checksum - header == 6;
    let mut sum = !add(words(&packet[header..]));
    if is_udp && sum == 0 {
        sum = 0xffff;
    }
    let mut completed = packet.to_vec();
    completed[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    completed
}

/// Through the director and then the device.
fn forward(world: &World, packet: &[u8]) -> Vec<u8> {
    let mut octets = to_partial(packet);
    let length = octets.len();
    let mut packet = Packet::new(&mut octets, length).with_checksum(TransportChecksum::Partial);
    assert_eq!(world.director.process(&mut packet, world.now()), Verdict::Forward);
    complete(packet.octets())
}

#[test]
fn device_of_these_tests_completes_what_the_kernel_would_leave_to_it() {
    for family in FAMILIES {
        for packet in [
            Tcp::new(family.client(), family.vip(), SYN).payload(b"odd").build(),
            udp(family.client(), family.vip(), b"even"),
        ] {
            assert_eq!(complete(&to_partial(&packet)), packet);
        }
    }
}

proptest! {
    /// NAT and full NAT, each way, first packets and later ones.
    #[test]
    fn completed_packet_is_the_one_its_receiver_would_get_from_the_sender_itself(
        is_ipv6 in any::<bool>(),
        is_tcp in any::<bool>(),
        is_full_nat in any::<bool>(),
        port in 1..=u16::MAX,
        payload in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let family = FAMILIES[usize::from(is_ipv6)];
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
        let mut service = family.service(protocol);
        if is_full_nat {
            let pool = if is_ipv6 { "fd00:5::50" } else { "192.0.2.50" };
            service = service.full_nat(&[pool], port..=u16::MAX);
        }
        let world = World::new(vec![service]);
        let build = |source: SocketAddr, destination: SocketAddr, flags| {
            if is_tcp {
                Tcp::new(source, destination, flags).payload(&payload).build()
            } else {
                udp(source, destination, &payload)
            }
        };
        let (client, vip, server) = (family.client_port(port), family.vip(), family.server(0));
        let mut local = client;
        for flags in [SYN, ACK, ACK] {
            let sent = forward(&world, &build(client, vip, flags));
            local = receive(&sent).source;
            prop_assert_eq!(local != client, is_full_nat);
            prop_assert_eq!(sent, build(local, server, flags));
        }
        for flags in [SYN | ACK, ACK] {
            let sent = forward(&world, &build(server, local, flags));
            prop_assert_eq!(sent, build(vip, client, flags));
        }
    }
}
