//! Services at several addresses and ports, and services that change while packets come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::roster::{Drain, Member, Parting, Standing};
use wvs_core::service::{Ports, Protocol, Reach};
use wvs_core::services::Services;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, RST, SYN, SeenTransport, at, cut, icmp_error, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{FAMILIES, V4};

fn spec(protocol: Protocol, vips: &[&str], ports: Ports, servers: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec::new(protocol, &format!("{}:1", vips[0]), servers);
    let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    spec.settings.reach = Reach { vips, ports };
    spec
}

#[test]
fn server_without_a_port_gets_the_one_that_the_client_connects_to() {
    let ports = Ports::These(vec![21..=21, 4000..=4009]);
    let world = World::new(vec![spec(
        Protocol::Tcp,
        &["203.0.113.10", "203.0.113.11"],
        ports,
        &["10.0.0.1:0"],
    )]);
    let mut client_port = 1;
    for vip in ["203.0.113.10", "203.0.113.11"] {
        for port in [21, 4000, 4009] {
            client_port += 1;
            let (client, vip) = (V4.client_port(client_port), at(&format!("{vip}:{port}")));
            let server = at(&format!("10.0.0.1:{port}"));
            let sent = world.forward(&tcp(client, vip, SYN));
            assert_eq!(receive(&sent).destination, server);
            // Twice: from the connection, and by what the table remembers of it.
            for flags in [SYN | ACK, ACK, ACK] {
                let sent = world.forward(&tcp(server, client, flags));
                assert_eq!(receive(&sent).source, vip);
                let sent = world.forward(&tcp(client, vip, ACK));
                assert_eq!(receive(&sent).destination, server);
            }
        }
        let closed = at(&format!("{vip}:4010"));
        world.reply(&tcp(V4.client(), closed, SYN));
    }
    // Whatever the port, a client must not see the server's own address.
    world.drop(&tcp(at("10.0.0.1:7"), V4.client(), ACK), DropReason::NoConnection);
    world.recount();
}

#[test]
fn port_0_is_every_port_that_no_other_service_has() {
    let world = World::new(vec![
        spec(Protocol::Tcp, &["203.0.113.10"], Ports::Others, &["10.0.0.1:0"]),
        spec(Protocol::Tcp, &["203.0.113.10"], Ports::These(vec![80..=89]), &["10.0.0.2:80"]),
    ]);
    for (port, server) in [
        (1, "10.0.0.1:1"),
        (79, "10.0.0.1:79"),
        (80, "10.0.0.2:80"),
        (89, "10.0.0.2:80"),
        (90, "10.0.0.1:90"),
    ] {
        let sent =
            world.forward(&tcp(V4.client_port(port), at(&format!("203.0.113.10:{port}")), SYN));
        assert_eq!(receive(&sent).destination, at(server));
    }
    // Another protocol is another matter.
    world.reply(&udp(V4.client(), at("203.0.113.10:80"), b"?"));
}

#[test]
fn every_datagram_of_a_one_packet_service_is_scheduled_and_answers_come_from_the_vip() {
    for family in FAMILIES {
        let mut spec = family.service(Protocol::Udp);
        spec.settings.is_one_packet = true;
        let mut world = World::new(vec![spec]);
        let moved = [("forwarded", 4), ("service-1.picked", 4)];
        let servers: Vec<SocketAddr> = world.moves(&moved, |world| {
            let send = || world.forward(&udp(family.client(), family.vip(), b"?"));
            (0..4).map(|_| receive(&send()).destination).collect()
        });
        let [a, b] = [family.server(0), family.server(1)];
        assert_eq!(servers, [a, b, a, b]);
        assert_eq!(world.director.connections(), 0);
        for server in servers {
            let sent = world.forward(&udp(server, family.client(), b"!"));
            assert_eq!(
                (receive(&sent).source, receive(&sent).destination),
                (family.vip(), family.client())
            );
        }
        let traffic = world.servers(0)[0].traffic().totals();
        assert_eq!((traffic.connections, traffic.in_packets, traffic.out_packets), (2, 2, 2));
    }
}

#[test]
fn errors_about_one_packet_datagrams_come_from_the_vip_and_quote_it() {
    for family in FAMILIES {
        let mut spec = family.service(Protocol::Udp);
        spec.settings.is_one_packet = true;
        let world = World::new(vec![spec]);
        let request = udp(family.client(), family.vip(), b"?");
        let sent = world.forward(&request);
        // Nobody listens there.
        let unreachable = if family.vip().is_ipv6() { [1, 4] } else { [3, 3] };
        let client = family.client().ip();
        let error = icmp_error(family.server(0).ip(), client, unreachable, &sent);
        let seen = receive(&world.forward(&error));
        assert_eq!((seen.source.ip(), seen.destination.ip()), (family.vip().ip(), client));
        assert_eq!(seen.payload, request, "quoted as the client sent it");
        // To another than who sent what is quoted; and quoted as if the VIP had sent it.
        let vip = family.vip();
        let forged = udp(vip, family.server(0), b"?");
        world.drop(
            &icmp_error(family.server(0).ip(), vip.ip(), unreachable, &forged),
            DropReason::IcmpQuote,
        );
        let other = icmp_error(family.server(0).ip(), family.vip().ip(), unreachable, &sent);
        world.drop(&other, DropReason::IcmpQuote);
    }
}

#[test]
fn pieces_of_a_one_packet_answer_come_from_the_vip_too() {
    let mut spec = V4.service(Protocol::Udp);
    spec.settings.is_one_packet = true;
    let world = World::new(vec![spec]);
    let answer = udp(V4.server(1), V4.client(), &[7; 2000]);
    for piece in cut(&answer, 1000, 1) {
        let sent = world.forward(&piece);
        assert_eq!(&sent[12..16], &[203, 0, 113, 10], "the source");
    }
}

/// Replaces the servers of the only service by those that `keep` says of, and these.
fn reconfigure(world: &World, keep: &[usize], drain: Drain) {
    let service = world.service(0);
    let all = service.servers();
    let member =
        |index: &usize| Member { server: Arc::clone(&all[*index]), standing: Standing::new(1) };
    let settings = (**service.settings()).clone();
    let members = keep.iter().map(member).collect();
    service.reconfigure(settings, members, None, drain, world.now());
    world.director.set_services(Services::new(vec![service], Vec::new(), &[]));
}

#[test]
fn server_that_is_taken_out_finishes_its_connections() {
    for then in [Parting::Keep, Parting::Reset] {
        let mut world = V4.established();
        let deadline = Some(world.now().after(Duration::from_secs(60)));
        reconfigure(&world, &[1], Drain { deadline, then });
        for port in 1..4 {
            let sent = world.forward(&tcp(V4.client_port(port), V4.vip(), SYN));
            assert_eq!(receive(&sent).destination, V4.server(1));
        }
        world.forward(&tcp(V4.client(), V4.vip(), ACK));
        let sent = world.forward(&tcp(V4.server(0), V4.client(), ACK));
        assert_eq!(receive(&sent).source, V4.vip());
        assert!(!world.service(0).dismiss_empty());

        world.wait(Duration::from_secs(61));
        world.service(0).attend(world.now());
        let (verdict, sent) = world.process(&tcp(V4.client(), V4.vip(), ACK));
        match then {
            Parting::Keep => assert_eq!(verdict, Verdict::Forward),
            Parting::Reset => {
                assert_eq!(verdict, Verdict::Reply);
                assert!(matches!(receive(&sent).transport,
                    SeenTransport::Tcp { flags, .. } if flags & RST != 0));
            }
        }
        world.recount();
        world.outlast(State::Established.default_timeout());
        assert!(world.service(0).dismiss_empty());
        world.recount();
    }
}

#[test]
fn datagrams_leave_a_server_that_is_taken_out_at_once() {
    let world = V4.world(Protocol::Udp);
    world.forward(&udp(V4.client(), V4.vip(), b"?"));
    reconfigure(&world, &[1], Drain::default());
    let sent = world.forward(&udp(V4.client(), V4.vip(), b"?"));
    assert_eq!(receive(&sent).destination, V4.server(1));
    world.recount();
    assert!(world.service(0).dismiss_empty());
}

#[test]
fn service_that_is_taken_away_finishes_its_connections_and_refuses_new_ones() {
    let world = V4.established();
    let service = world.service(0);
    service.retire(Drain::default(), world.now());
    let vip = V4.vip().ip();
    world.director.set_services(Services::new(Vec::new(), vec![service], &[vip]));
    world.forward(&tcp(V4.client(), V4.vip(), ACK));
    world.forward(&tcp(V4.server(0), V4.client(), ACK));
    let told = world.reply(&tcp(V4.client_port(1), V4.vip(), SYN));
    assert_eq!(receive(&told).source, V4.vip());
}
