//! What the director says in its own name.

use std::net::{IpAddr, SocketAddr};

use wvs_core::director::{ClosedPort, DirectorConfig};
use wvs_core::scheduler::Pick;
use wvs_core::service::{OnNoServer, OnStray, Protocol};
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{
    ACK, FIN, RST, SYN, Seen, SeenTransport, Tcp, at, echo, receive, tcp, udp,
};
use wvs_tests::world::{Always, World, settings};

use crate::FAMILIES;

fn rst(seen: &Seen) -> (u8, u32, u32) {
    match seen.transport {
        SeenTransport::Tcp { flags, sequence, acknowledgement } => {
            (flags, sequence, acknowledgement)
        }
        _ => panic!("no TCP: {seen:?}"),
    }
}

fn icmp(seen: &Seen) -> (u8, u8) {
    match seen.transport {
        SeenTransport::Icmp { kind, code, .. } => (kind, code),
        _ => panic!("no ICMP: {seen:?}"),
    }
}

#[test]
fn segment_of_an_unknown_connection_is_reset_with_numbers_that_its_sender_accepts() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        let segment = Tcp::new(family.client(), family.vip(), ACK).payload(b"hello").build();
        let seen = receive(&world.moves(&[("replied", 1)], |world| world.reply(&segment)));
        assert_eq!((seen.source, seen.destination), (family.vip(), family.client()));
        assert_eq!(rst(&seen), (RST, 2000, 0));

        // Without an acknowledgement to repeat, the reset acknowledges what came.
        let segment = Tcp::new(family.client(), family.vip(), FIN).payload(b"hello").build();
        assert_eq!(rst(&receive(&world.reply(&segment))), (RST | ACK, 0, 1000 + 5 + 1));
        assert_eq!(world.director.connections(), 0);
    }
}

#[test]
fn reset_of_an_unknown_connection_is_never_answered() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        world.drop(&tcp(family.client(), family.vip(), RST), DropReason::Stray);
        let closed = at(&family.vip.replace(":80", ":81"));
        world.drop(&tcp(family.client(), closed, RST), DropReason::ClosedPort);
    }
}

#[test]
fn stray_segments_are_dropped_or_picked_up_if_the_service_says_so() {
    let family = FAMILIES[0];
    let mut service = family.service(Protocol::Tcp);
    service.settings.on_stray = OnStray::Drop;
    let world = World::new(vec![service]);
    world.drop(&tcp(family.client(), family.vip(), ACK), DropReason::Stray);
    world.drop(&tcp(family.client(), family.vip(), SYN | ACK), DropReason::Stray);

    let mut service = family.service(Protocol::Tcp);
    service.settings.on_stray = OnStray::Pickup;
    let world = World::new(vec![service]);
    let sent = world.forward(&tcp(family.client(), family.vip(), ACK));
    assert_eq!(receive(&sent).destination, family.server(0));
    assert_eq!(world.servers(0)[0].active(), 1, "established at once");
    world.drop(&tcp(family.client_port(1), family.vip(), RST), DropReason::Stray);
}

#[test]
fn closed_port_of_a_vip_is_refused_at_once() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        let closed = at(&family.vip.replace(":80", ":81"));
        let seen = receive(&world.reply(&tcp(family.client(), closed, SYN)));
        assert_eq!((seen.source, seen.destination), (closed, family.client()));
        assert_eq!(rst(&seen), (RST | ACK, 0, 1001));

        let datagram = udp(family.client(), closed, b"anybody?");
        let seen = receive(&world.reply(&datagram));
        assert_eq!((seen.source.ip(), seen.destination.ip()), (closed.ip(), family.client().ip()));
        assert_eq!(icmp(&seen), if closed.is_ipv4() { (3, 3) } else { (1, 4) });
        assert_eq!(seen.payload, datagram, "the error quotes the packet");
    }
}

#[test]
fn closed_port_is_silent_if_the_settings_say_so() {
    let family = FAMILIES[0];
    let settings = DirectorConfig { closed_port: ClosedPort::Drop, ..settings() };
    let mut world = World::with(settings, vec![family.service(Protocol::Tcp)]);
    world.moves(&[("drop.closed_port", 2)], |world| {
        world.drop(&tcp(family.client(), at("203.0.113.10:81"), SYN), DropReason::ClosedPort);
        world.drop(&udp(family.client(), family.vip(), b""), DropReason::ClosedPort);
    });
}

#[test]
fn errors_quote_no_more_than_their_family_allows() {
    for (family, longest) in FAMILIES.into_iter().zip([576, 1280]) {
        let world = family.world(Protocol::Tcp);
        let datagram = udp(family.client(), family.vip(), &[0x55; 1400]);
        let answer = world.reply(&datagram);
        assert_eq!(answer.len(), longest);
        let seen = receive(&answer);
        assert_eq!(seen.payload, datagram[..seen.payload.len()]);
    }
}

#[test]
fn no_server_resets_tcp_and_tells_udp_unless_the_service_says_otherwise() {
    for family in FAMILIES {
        let unreachable = if family.vip().is_ipv4() { (3, 3) } else { (1, 4) };
        let world = |protocol, action| {
            let mut service = family.service(protocol).scheduler(Always(Pick::NoServer));
            service.settings.on_no_server = action;
            World::new(vec![service])
        };
        let syn = tcp(family.client(), family.vip(), SYN);
        let datagram = udp(family.client(), family.vip(), b"");

        let moved = [("replied", 1), ("service-1.no_server", 1)];
        let mut tcp_world = world(Protocol::Tcp, OnNoServer::Reset);
        let answer = tcp_world.moves(&moved, |world| world.reply(&syn));
        assert_eq!(rst(&receive(&answer)), (RST | ACK, 0, 1001));
        let answer = world(Protocol::Udp, OnNoServer::Reset).reply(&datagram);
        assert_eq!(icmp(&receive(&answer)), unreachable);
        let answer = world(Protocol::Tcp, OnNoServer::Icmp).reply(&syn);
        assert_eq!(icmp(&receive(&answer)), unreachable);
        world(Protocol::Tcp, OnNoServer::Drop).drop(&syn, DropReason::NoServer);
        assert_eq!(tcp_world.director.connections(), 0);
    }
}

#[test]
fn echo_request_to_a_vip_is_answered_with_its_own_data() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        let (client, vip): (IpAddr, IpAddr) = (family.client().ip(), family.vip().ip());
        let seen = receive(&world.reply(&echo(client, vip, true, 77)));
        assert_eq!((seen.source.ip(), seen.destination.ip()), (vip, client));
        assert_eq!(icmp(&seen), if vip.is_ipv4() { (0, 0) } else { (129, 0) });
        assert_eq!(seen.payload, b"are you there?");
        world.drop(&echo(client, vip, false, 77), DropReason::IcmpType);

        let settings = DirectorConfig { answer_echo: false, ..settings() };
        let silent = World::with(settings, vec![family.service(Protocol::Tcp)]);
        silent.drop(&echo(client, vip, true, 77), DropReason::Echo);
    }
}

#[test]
fn echo_request_that_was_damaged_is_not_answered() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        let mut ping = echo(family.client().ip(), family.vip().ip(), true, 77);
        *ping.last_mut().unwrap() ^= 1;
        world.drop(&ping, DropReason::IcmpChecksum);
    }
}

#[test]
fn first_packet_that_may_travel_no_further_opens_nothing() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        let syn = Tcp { hop_limit: 1, ..Tcp::new(family.client(), family.vip(), SYN) }.build();
        let answer = world.moves(&[("replied", 1)], |world| world.reply(&syn));
        assert_eq!(receive(&answer).source.ip(), family.vip().ip());
        assert_eq!(world.director.connections(), 0);
    }
}

#[test]
fn packet_that_may_travel_no_further_is_reported_by_the_vip_as_its_sender_knows_it() {
    for family in FAMILIES {
        let world = family.established();
        let exceeded = if family.vip().is_ipv4() { (11, 0) } else { (3, 0) };
        let request = Tcp { hop_limit: 1, ..Tcp::new(family.client(), family.vip(), ACK) }.build();
        let seen = receive(&world.reply(&request));
        assert_eq!((seen.source.ip(), icmp(&seen)), (family.vip().ip(), exceeded));
        assert_eq!(seen.payload, request);

        let reply =
            Tcp { hop_limit: 1, ..Tcp::new(family.server(0), family.client(), ACK) }.build();
        let seen = receive(&world.reply(&reply));
        assert_eq!((seen.source.ip(), icmp(&seen)), (family.vip().ip(), exceeded));
        assert_eq!(seen.destination.ip(), family.server(0).ip());
    }
}

#[test]
fn answers_are_limited_by_the_second() {
    let family = FAMILIES[0];
    let settings = DirectorConfig { replies_per_second: 3, ..settings() };
    let mut world = World::with(settings, vec![family.service(Protocol::Tcp)]);
    let stray = tcp(family.client(), family.vip(), ACK);
    for _ in 0..2 {
        world.moves(&[("replied", 3), ("drop.reply_limit", 2)], |world| {
            for _ in 0..5 {
                let _ = world.process(&stray);
            }
        });
        world.wait(std::time::Duration::from_secs(1));
    }
}

#[test]
fn packet_of_another_port_of_a_server_passes() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        let other_port = SocketAddr::new(family.server(0).ip(), family.server(0).port() + 1);
        let packets = [
            tcp(other_port, family.client(), ACK),
            // A port of the server's, but of another protocol.
            udp(family.server(0), family.client(), b"!"),
        ];
        for packet in packets {
            world.moves(&[("passed", 1)], |world| {
                assert_eq!(world.process(&packet), (Verdict::Pass, packet.clone()));
            });
        }
    }
}

#[test]
fn late_reply_of_a_server_is_dropped_and_foreign_icmp_passes() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        world.moves(&[("drop.no_connection", 1)], |world| {
            world.drop(&tcp(family.server(0), family.client(), ACK), DropReason::NoConnection);
        });
        // A server that pings somebody: none of the director's business.
        let ping = echo(family.server(0).ip(), family.client().ip(), true, 5);
        world.moves(&[("passed", 1)], |world| {
            let (verdict, sent) = world.process(&ping);
            assert_eq!((verdict, sent), (Verdict::Pass, ping.clone()));
        });
    }
}

#[test]
fn source_that_nobody_can_answer_opens_nothing() {
    let world = FAMILIES[0].world(Protocol::Tcp);
    for source in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", FAMILIES[0].vip]
    {
        world.drop(&tcp(at(source), FAMILIES[0].vip(), SYN), DropReason::SourceAddress);
    }
    let world = FAMILIES[1].world(Protocol::Tcp);
    for source in ["[::]:1", "[::1]:1", "[ff02::1]:1", FAMILIES[1].vip] {
        world.drop(&tcp(at(source), FAMILIES[1].vip(), SYN), DropReason::SourceAddress);
    }
}
