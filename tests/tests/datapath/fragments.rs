//! Packets that come in pieces.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use wvs_core::fragment::{HELD_OCTETS_MAX, KNOWN_MAX, LIFETIME, WAITING_MAX};
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, Tcp, at, cut, echo, join, receive, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{Addresses, FAMILIES, V4, V6};

/// Hands the fragments to the director in this order: what it sends, in the order of sending.
fn send(world: &World, fragments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for fragment in fragments {
        match world.process(fragment) {
            (Verdict::Forward | Verdict::Pass, octets) => sent.push(octets),
            (Verdict::Hold, _) => {}
            (verdict, _) => panic!("{verdict:?}"),
        }
        sent.extend(world.released());
    }
    sent
}

/// A world in which the client has a UDP connection to the first server.
fn connected(family: &Addresses) -> World {
    let world = family.world(Protocol::Udp);
    world.forward(&udp(family.client(), family.vip(), b"hello"));
    world
}

#[test]
fn datagram_in_pieces_arrives_as_a_whole_one_would_have() {
    for family in FAMILIES {
        let data: Vec<u8> = (0..=255).cycle().take(4_000).collect();
        let question = udp(family.client(), family.vip(), &data);
        let answer = udp(family.server(0), family.client(), &data);
        let world = connected(family);
        let (question_whole, answer_whole) = (world.forward(&question), world.forward(&answer));
        for (packet, whole) in [(&question, &question_whole), (&answer, &answer_whole)] {
            let pieces = cut(packet, 1480, 7);
            assert_eq!(pieces.len(), 3);
            let in_order = send(&world, &pieces);
            let backwards = send(&world, &pieces.iter().rev().cloned().collect::<Vec<_>>());
            for sent in [in_order, backwards] {
                assert_eq!(sent.len(), 3);
                assert_eq!(receive(&join(&sent)), receive(whole));
            }
        }
        // Both datagrams are complete, and nothing of them is remembered.
        assert_eq!(world.director.fragments(), Default::default());
    }
}

#[test]
fn first_piece_opens_a_connection_that_the_others_belong_to() {
    for family in FAMILIES {
        let world = family.world(Protocol::Udp);
        let pieces = cut(&udp(family.client(), family.vip(), &[1; 3_000]), 1480, 7);
        let sent = send(&world, &[pieces[2].clone(), pieces[1].clone(), pieces[0].clone()]);
        let seen = receive(&join(&sent));
        assert_eq!((seen.source, seen.destination), (family.client(), family.server(0)));
        assert_eq!(world.director.connections(), 1);
        assert_eq!(world.servers(0)[0].traffic().totals().in_packets, 3);
    }
}

#[test]
fn pieces_of_a_full_nat_connection_are_translated_at_both_ends() {
    for (family, pool) in [(&V4, "10.9.9.9"), (&V6, "fd00:9::9")] {
        let service = family.service(Protocol::Udp).full_nat(&[pool], 5_000..=5_999);
        let world = World::new(vec![service]);
        let sent = send(&world, &cut(&udp(family.client(), family.vip(), &[1; 3_000]), 1480, 7));
        let seen = receive(&join(&sent));
        assert_eq!(
            seen.source.ip(),
            at(&SocketAddr::new(pool.parse().unwrap(), 0).to_string()).ip()
        );
        let answer = udp(family.server(0), seen.source, &[2; 3_000]);
        let mut pieces = cut(&answer, 1480, 8);
        pieces.reverse();
        let seen = receive(&join(&send(&world, &pieces)));
        assert_eq!((seen.source, seen.destination), (family.vip(), family.client()));
    }
}

#[test]
fn large_ping_of_a_service_arrives() {
    for (client, vip, server) in [
        ("198.51.100.7", "203.0.113.10:0", "10.0.0.1:0"),
        ("2001:db8:1::7", "[2001:db8:2::10]:0", "[fd00::1]:0"),
    ] {
        let world = World::new(vec![ServiceSpec::new(Protocol::Icmp, vip, &[server])]);
        let ping = echo(client.parse().unwrap(), at(vip).ip(), true, 10);
        let seen = receive(&join(&send(&world, &cut(&ping, 8, 1))));
        assert_eq!(seen.destination.ip(), at(server).ip());
        // One that the director would have to answer itself: with what?
        let world = V4.world(Protocol::Tcp);
        let ping = echo(V4.client().ip(), V4.vip().ip(), true, 10);
        let pieces = cut(&ping, 8, 1);
        world.drop(&pieces[0], DropReason::Fragment);
        world.drop(&pieces[1], DropReason::Fragment);
    }
}

#[test]
fn piece_over_another_one_refuses_the_rest() {
    for family in FAMILIES {
        let world = connected(family);
        let data = [1; 4_000];
        let pieces = cut(&udp(family.client(), family.vip(), &data), 1480, 7);
        let other = cut(&udp(family.client(), family.vip(), &data), 1472, 7);
        world.forward(&pieces[0]);
        world.drop(&other[1], DropReason::FragmentOverlap);
        world.drop(&pieces[1], DropReason::Fragment);
        world.drop(&pieces[2], DropReason::Fragment);
        // Held ones are forgotten with the rest.
        let pieces = cut(&udp(family.client(), family.vip(), &data), 1480, 8);
        let other = cut(&udp(family.client(), family.vip(), &data), 1472, 8);
        assert_eq!(world.process(&pieces[1]).0, Verdict::Hold);
        world.drop(&other[1], DropReason::FragmentOverlap);
        world.drop(&pieces[0], DropReason::Fragment);
        assert_eq!(world.released(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn piece_that_comes_twice_is_sent_once() {
    for family in FAMILIES {
        let world = connected(family);
        let pieces = cut(&udp(family.client(), family.vip(), &[1; 4_000]), 1480, 7);
        world.forward(&pieces[0]);
        world.drop(&pieces[0], DropReason::Fragment);
        world.forward(&pieces[1]);
        world.drop(&pieces[1], DropReason::Fragment);
        world.forward(&pieces[2]);
    }
}

#[test]
fn first_piece_without_a_whole_header_is_refused() {
    let world = V4.world(Protocol::Tcp);
    let segment = Tcp { payload: &[1; 40], ..Tcp::new(V4.client(), V4.vip(), ACK) }.build();
    world.drop(&cut(&segment, 16, 1)[0], DropReason::TcpHeader);
    // The trick of RFC 3128: flags in a second piece, over those of the first.
    for offset in [1, 2] {
        let mut piece = cut(&segment, 24, 2)[1].clone();
        piece[7] = offset;
        world.drop(&piece, DropReason::Fragment);
    }
    let world = V6.world(Protocol::Tcp);
    let segment = Tcp { payload: &[1; 40], ..Tcp::new(V6.client(), V6.vip(), ACK) }.build();
    world.drop(&cut(&segment, 16, 1)[0], DropReason::TcpHeader);
}

#[test]
fn pieces_that_nobody_cuts_are_refused() {
    for family in FAMILIES {
        let world = connected(family);
        let place = if family.vip().is_ipv4() { 6 } else { 42 };
        let pieces = cut(&udp(family.client(), family.vip(), &[1; 100]), 64, 7);
        // More to come behind octets that are no multiple of 8.
        let mut odd = pieces[1].clone();
        odd[place] |= if family.vip().is_ipv4() { 0x20 } else { 0 };
        odd[place + 1] |= u8::from(!family.vip().is_ipv4());
        world.drop(&odd, DropReason::Fragment);
        // Beyond the longest packet.
        let mut far = pieces[1].clone();
        far[place..place + 2].copy_from_slice(if family.vip().is_ipv4() {
            &[0x1f, 0xff]
        } else {
            &[0xff, 0xf8]
        });
        world.drop(&far, DropReason::Fragment);
    }
}

#[test]
fn datagram_for_nobody_is_refused_in_all_its_pieces() {
    for family in FAMILIES {
        let world = family.world(Protocol::Udp);
        let pieces = cut(&udp(family.client(), at_port(family.vip(), 9), &[1; 4_000]), 1480, 7);
        assert_eq!(world.process(&pieces[1]).0, Verdict::Hold);
        world.reply(&pieces[0]);
        assert_eq!(world.released(), Vec::<Vec<u8>>::new());
        world.drop(&pieces[2], DropReason::Fragment);
    }
}

#[test]
fn pieces_that_concern_no_service_pass() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Udp);
        let other = if family.vip().is_ipv4() { "10.7.7.7:53" } else { "[fd00:7::7]:53" };
        let pieces = cut(&udp(at(other), family.client(), &[1; 3_000]), 1480, 7);
        world.moves(&[("passed", 3)], |world| {
            assert_eq!(
                send(world, &[pieces[2].clone(), pieces[0].clone(), pieces[1].clone()]),
                [pieces[2].clone(), pieces[0].clone(), pieces[1].clone()]
            );
        });
        // Another port of a real server's: only the first piece can tell.
        let other = at_port(family.server(0), 9);
        let pieces = cut(&udp(other, family.client(), &[1; 3_000]), 1480, 7);
        world.moves(&[("passed", 2), ("held", 1)], |world| {
            let sent = send(world, &[pieces[2].clone(), pieces[0].clone(), pieces[1].clone()]);
            assert_eq!(sent, [pieces[0].clone(), pieces[2].clone(), pieces[1].clone()]);
        });
    }
}

fn at_port(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

#[test]
fn pieces_wait_so_long_and_no_longer() {
    for family in FAMILIES {
        let mut world = connected(family);
        let pieces = cut(&udp(family.client(), family.vip(), &[1; 3_000]), 1480, 7);
        assert_eq!(world.process(&pieces[1]).0, Verdict::Hold);
        world.wait_and_sweep(LIFETIME - Duration::from_millis(1));
        assert_eq!(world.director.fragments().datagrams, 1);
        world.moves(&[("fragments.expired", 1)], |world| {
            world.wait_and_sweep(Duration::from_millis(1));
        });
        world.forward(&pieces[0]);
        assert_eq!(world.released(), Vec::<Vec<u8>>::new());
        // Known by its first piece: the same time from then.
        world.moves(&[("fragments.expired", 1)], |world| world.wait_and_sweep(LIFETIME));
        assert_eq!(world.director.fragments().datagrams, 0);
    }
}

/// Nobody else notices a flood of pieces: what is whole does not come by here, and pieces that come
/// in company find each other.
#[test]
fn flood_of_pieces_is_held_within_limits() {
    for family in FAMILIES {
        let world = connected(family);
        let data = [1; 3_000];
        let honest = |id: u16| cut(&udp(family.client(), family.vip(), &data), 1480, id);
        let mut reached = (0, 0);
        for flood in 0..60_000_u16 {
            let from = if family.vip().is_ipv4() { "198.51.100.8:9" } else { "[2001:db8:1::8]:9" };
            let from = at(from);
            let pieces = cut(&udp(from, family.vip(), &data), 1480, flood);
            let _ = world.process(&pieces[1 + usize::from(flood % 2)]);
            let totals = world.director.fragments();
            reached = (reached.0.max(totals.datagrams), reached.1.max(totals.held_octets));
            if flood % 1_000 == 0 {
                let mut pieces = honest(flood);
                pieces.reverse();
                assert_eq!(send(&world, &pieces).len(), 3);
            }
        }
        assert!(reached.0 <= WAITING_MAX + 1, "{reached:?}");
        assert!(reached.1 <= HELD_OCTETS_MAX, "{reached:?}");
        assert!(world.director.fragments().evicted > 10_000);
    }
}

#[test]
fn datagrams_known_by_their_first_piece_are_limited() {
    let world = connected(&V4);
    for flood in 0..u16::MAX {
        let pieces = cut(&udp(V4.client(), V4.vip(), &[1; 100]), 64, flood);
        world.forward(&pieces[0]);
    }
    assert_eq!(world.director.fragments().datagrams, KNOWN_MAX);
    assert_eq!(world.director.connections(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// In any order, with others between, a datagram arrives whole.
    #[test]
    fn any_order_arrives(
        order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        octets in 1..8_usize,
    ) {
        for family in FAMILIES {
            let world = connected(family);
            let octets = octets * 8;
            let one = udp(family.client(), family.vip(), &vec![1; octets * 6 - 11]);
            let two = udp(family.client(), family.vip(), &vec![2; octets * 6 - 11]);
            let (one_whole, two_whole) = (world.forward(&one), world.forward(&two));
            let pieces = [cut(&one, octets, 1), cut(&two, octets, 2)].concat();
            prop_assert_eq!(pieces.len(), 12);
            let pieces: Vec<_> = order.iter().map(|n| pieces[*n].clone()).collect();
            let identification = |piece: &[u8]| {
                if piece[0] >> 4 == 4 { piece[5] } else { piece[47] }
            };
            let sent = send(&world, &pieces);
            let (one, two): (Vec<_>, Vec<_>) =
                sent.into_iter().partition(|piece| identification(piece) == 1);
            prop_assert_eq!(receive(&join(&one)), receive(&one_whole));
            prop_assert_eq!(receive(&join(&two)), receive(&two_whole));
        }
    }
}
