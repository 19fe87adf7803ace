//! Clients that come back to the server they had.

use std::net::SocketAddr;
use std::time::Duration;

use wvs_core::persistence::{Persistence, Quiesced};
use wvs_core::roster::Drain;
use wvs_core::service::Protocol;
use wvs_tests::packet::{ACK, RST, SYN, receive, tcp, udp};
use wvs_tests::world::World;

use crate::{FAMILIES, V4};

const TIMEOUT: Duration = Duration::from_secs(300);

fn persistence(prefix: u8, quiesced: Quiesced) -> Persistence {
    Persistence { timeout: TIMEOUT, prefix, quiesced, templates_max: 100 }
}

fn world(protocol: Protocol, persistence: Persistence) -> World {
    let mut spec = V4.service(protocol);
    spec.settings.persistence = Some(persistence);
    World::new(vec![spec])
}

fn open(world: &World, client: SocketAddr) -> SocketAddr {
    receive(&world.forward(&tcp(client, V4.vip(), SYN))).destination
}

/// A client of the same /24 as [`V4`]'s.
fn neighbour(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], port))
}

#[test]
fn client_comes_back_to_its_server_without_the_scheduler() {
    for family in FAMILIES {
        let mut spec = family.service(Protocol::Tcp);
        spec.settings.persistence = Some(persistence(128, Quiesced::Honour));
        let mut world = World::new(vec![spec]);
        let first = [("forwarded", 1), ("opened", 1), ("service-1.picked", 1)];
        world.moves(&first, |world| world.forward(&tcp(family.client(), family.vip(), SYN)));
        let again = [("forwarded", 3), ("opened", 3), ("service-1.persistent", 3)];
        world.moves(&again, |world| {
            for port in 1..4 {
                let sent = world.forward(&tcp(family.client_port(port), family.vip(), SYN));
                assert_eq!(receive(&sent).destination, family.server(0));
            }
        });
        world.recount();
    }
}

#[test]
fn template_ends_after_the_timeout_when_no_connection_lives() {
    let mut world = world(Protocol::Tcp, persistence(32, Quiesced::Honour));
    assert_eq!(open(&world, V4.client_port(1)), V4.server(0));
    world.forward(&tcp(V4.server(0), V4.client_port(1), RST | ACK));
    world.outlast(Duration::from_secs(10));
    world.wait(TIMEOUT - Duration::from_secs(20));
    assert_eq!(open(&world, V4.client_port(2)), V4.server(0));
    // This one goes on for longer than the timeout, and the client stays with its server.
    world.forward(&tcp(V4.server(0), V4.client_port(2), SYN | ACK));
    for _ in 0..4 {
        world.forward(&tcp(V4.client_port(2), V4.vip(), ACK));
        world.wait_and_sweep(Duration::from_secs(200));
    }
    world.service(0).attend(world.now());
    assert_eq!(open(&world, V4.client_port(3)), V4.server(0));
    world.outlast(Duration::from_secs(900));
    world.service(0).attend(world.now());
    assert_eq!(world.service(0).terms().templates.count(), 0);
    // In its turn.
    assert_eq!(open(&world, V4.client_port(4)), V4.server(1));
}

#[test]
fn network_of_clients_has_one_server() {
    let world = world(Protocol::Tcp, persistence(24, Quiesced::Honour));
    let servers: Vec<_> = (1..9).map(|last| open(&world, neighbour(last, 7))).collect();
    assert_eq!(servers, [V4.server(0); 8]);
    assert_eq!(open(&world, SocketAddr::from(([198, 51, 101, 1], 7))), V4.server(1));
}

#[test]
fn quiesced_server_keeps_its_clients_or_not_as_asked_for_and_one_that_is_down_never() {
    for (quiesced, is_kept) in [(Quiesced::Honour, true), (Quiesced::Break, false)] {
        for drained in [true, false] {
            let world = world(Protocol::Tcp, persistence(32, quiesced));
            assert_eq!(open(&world, V4.client_port(1)), V4.server(0));
            let service = world.service(0);
            let stand = |is_down| {
                let _ = service.change_server(V4.server(0), world.now(), |standing| {
                    standing.is_down = is_down;
                    standing.drain = drained.then(Drain::default);
                    standing.set = (!drained).then_some(0);
                });
            };
            stand(false);
            assert_eq!(open(&world, V4.client_port(2)) == V4.server(0), is_kept);
            stand(true);
            assert_eq!(open(&world, V4.client_port(3)), V4.server(1));
            // And stays there when the other one is back.
            stand(false);
            assert_eq!(open(&world, V4.client_port(4)), V4.server(1));
        }
    }
}

#[test]
fn template_goes_before_the_threshold_as_in_lvs() {
    let mut spec = V4.service(Protocol::Tcp);
    spec.settings.persistence = Some(persistence(32, Quiesced::Honour));
    spec.standings[0].upper_threshold = 1;
    let world = World::new(vec![spec]);
    assert_eq!(open(&world, V4.client_port(1)), V4.server(0));
    assert_eq!(open(&world, V4.client_port(2)), V4.server(0));
    assert_eq!(open(&world, neighbour(9, 9)), V4.server(1));
}

#[test]
fn datagrams_of_a_client_have_one_server_too() {
    let world = world(Protocol::Udp, persistence(32, Quiesced::Honour));
    for port in 1..5 {
        let sent = world.forward(&udp(V4.client_port(port), V4.vip(), b"?"));
        assert_eq!(receive(&sent).destination, V4.server(0));
    }
}

#[test]
fn datagrams_that_open_no_connection_keep_a_client_s_server_as_long_as_they_come() {
    let mut spec = V4.service(Protocol::Udp);
    spec.settings.persistence = Some(persistence(32, Quiesced::Honour));
    spec.settings.is_one_packet = true;
    let mut world = World::new(vec![spec]);
    for port in 1..5 {
        let sent = world.forward(&udp(V4.client_port(port), V4.vip(), b"?"));
        assert_eq!(receive(&sent).destination, V4.server(0));
        world.wait(TIMEOUT - Duration::from_secs(10));
        world.service(0).attend(world.now());
    }
    world.wait(TIMEOUT);
    let sent = world.forward(&udp(V4.client_port(5), V4.vip(), b"?"));
    assert_eq!(receive(&sent).destination, V4.server(1));
}

#[test]
fn clients_beyond_the_limit_are_scheduled_one_by_one() {
    let limited = Persistence { templates_max: 1, ..persistence(32, Quiesced::Honour) };
    let world = world(Protocol::Tcp, limited);
    assert_eq!(open(&world, neighbour(1, 1)), V4.server(0));
    assert_eq!(open(&world, neighbour(2, 1)), V4.server(1));
    assert_eq!(open(&world, neighbour(2, 2)), V4.server(0));
    assert_eq!(open(&world, neighbour(1, 2)), V4.server(0));
    assert_eq!(world.service(0).terms().templates.refused(), 2);
}
