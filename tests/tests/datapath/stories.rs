//! Lives of connections, with a clock.

use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::service::Protocol;
use wvs_core::verdict::DropReason;
use wvs_tests::packet::{ACK, FIN, RST, SYN, at, receive, tcp, udp};
use wvs_tests::world::{ServiceSpec, World};

use crate::{Addresses, FAMILIES, V4};

/// The state of the only connection.
fn state(world: &World) -> Option<State> {
    let tables = world.director.tables();
    let v4 = tables.v4().snapshot().first().and_then(|connection| connection.state());
    v4.or_else(|| tables.v6().snapshot().first().and_then(|connection| connection.state()))
}

fn from_client(world: &World, family: &Addresses, flags: u8) {
    world.forward(&tcp(family.client(), family.vip(), flags));
}

fn from_server(world: &World, family: &Addresses, flags: u8) {
    world.forward(&tcp(family.server(0), family.client(), flags));
}

fn counts(world: &World) -> (u32, u32) {
    (world.servers(0)[0].active(), world.servers(0)[0].inactive())
}

#[test]
fn client_closes_first() {
    for family in FAMILIES {
        let world = family.world(Protocol::Tcp);
        from_client(&world, family, SYN);
        assert_eq!((state(&world), counts(&world)), (Some(State::SynRecv), (1, 0)));
        from_server(&world, family, SYN | ACK);
        assert_eq!(state(&world), Some(State::SynRecv));
        from_client(&world, family, ACK);
        assert_eq!((state(&world), counts(&world)), (Some(State::Established), (1, 0)));
        from_client(&world, family, FIN | ACK);
        assert_eq!((state(&world), counts(&world)), (Some(State::CloseWait), (0, 1)));
        from_server(&world, family, FIN | ACK);
        assert_eq!(state(&world), Some(State::TimeWait));
        from_client(&world, family, ACK);
        assert_eq!((state(&world), counts(&world)), (Some(State::TimeWait), (0, 1)));
        world.recount();
    }
}

#[test]
fn server_closes_first() {
    let world = V4.established();
    from_server(&world, &V4, FIN | ACK);
    assert_eq!(state(&world), Some(State::FinWait));
    // Half closed: the client goes on sending, and the connection stays.
    from_client(&world, &V4, ACK);
    assert_eq!(state(&world), Some(State::FinWait));
    from_client(&world, &V4, FIN | ACK);
    assert_eq!(state(&world), Some(State::TimeWait));
}

#[test]
fn refused_by_the_server() {
    let world = V4.world(Protocol::Tcp);
    from_client(&world, &V4, SYN);
    from_server(&world, &V4, RST | ACK);
    assert_eq!((state(&world), counts(&world)), (Some(State::Close), (0, 1)));
}

#[test]
fn reset_by_the_client_while_established() {
    let world = V4.established();
    from_client(&world, &V4, RST);
    assert_eq!((state(&world), counts(&world)), (Some(State::Close), (0, 1)));
}

#[test]
fn retransmitted_syn_finds_its_half_open_connection() {
    let mut world = V4.world(Protocol::Tcp);
    for _ in 0..3 {
        let sent = world.forward(&tcp(V4.client(), V4.vip(), SYN));
        assert_eq!(receive(&sent).destination, V4.server(0));
        world.wait(Duration::from_secs(1));
    }
    assert_eq!(world.director.connections(), 1);
}

#[test]
fn syn_on_a_connection_that_is_over_is_scheduled_anew_without_loss() {
    for family in FAMILIES {
        for ending in [State::TimeWait, State::Close] {
            let mut world = family.established();
            match ending {
                State::TimeWait => {
                    from_client(&world, family, FIN | ACK);
                    from_server(&world, family, FIN | ACK);
                }
                _ => from_server(&world, family, RST),
            }
            assert_eq!(state(&world), Some(ending));
            let moved = [("forwarded", 1), ("opened", 1), ("replaced", 1), ("service-1.picked", 1)];
            let sent = world
                .moves(&moved, |world| world.forward(&tcp(family.client(), family.vip(), SYN)));
            assert_eq!(receive(&sent).destination, family.server(1), "the next in turn");
            assert_eq!(world.director.connections(), 1);
            // The old server's late segments are nobody's now.
            world.drop(&tcp(family.server(0), family.client(), ACK), DropReason::NoConnection);
            world.recount();
        }
    }
}

#[test]
fn syn_of_the_server_follows_the_connection_that_it_answers() {
    let mut world = V4.established();
    from_server(&world, &V4, RST);
    assert_eq!(state(&world), Some(State::Close));
    world.moves(&[("forwarded", 1)], |world| from_server(world, &V4, SYN));
    assert_eq!(state(&world), Some(State::SynSent));
}

#[test]
fn syn_on_a_living_connection_follows_it() {
    let world = V4.established();
    let sent = world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(receive(&sent).destination, V4.server(0));
    assert_eq!(state(&world), Some(State::Established));
}

#[test]
fn each_state_lives_as_long_as_its_timeout_and_a_packet_starts_it_anew() {
    // What brings a connection into the state, and how long it may then be silent.
    type Packets = &'static [(bool, u8)];
    let lives: [(State, u64, Packets); 6] = [
        (State::SynRecv, 60, &[(true, SYN)]),
        (State::Established, 900, &[(true, SYN), (true, ACK)]),
        (State::FinWait, 120, &[(true, SYN), (true, ACK), (false, FIN)]),
        (State::CloseWait, 60, &[(true, SYN), (true, ACK), (true, FIN)]),
        (State::TimeWait, 120, &[(true, SYN), (true, ACK), (true, FIN), (false, FIN)]),
        (State::Close, 10, &[(true, SYN), (false, RST)]),
    ];
    for (expected, seconds, packets) in lives {
        let mut world = V4.world(Protocol::Tcp);
        for (is_client, flags) in packets {
            if *is_client {
                from_client(&world, &V4, *flags);
            } else {
                from_server(&world, &V4, *flags);
            }
        }
        assert_eq!(state(&world), Some(expected));
        assert_eq!(world.wait_and_sweep(Duration::from_secs(seconds / 2)), 0, "{expected}");
        let (is_client, flags) = packets[packets.len() - 1];
        if is_client {
            from_client(&world, &V4, flags);
        } else {
            from_server(&world, &V4, flags);
        }
        assert_eq!(state(&world), Some(expected));
        let almost = Duration::from_millis(seconds * 1000 - 1);
        assert_eq!(world.wait_and_sweep(almost), 0, "{expected}");
        assert_eq!(world.outlast(Duration::from_millis(1)), 1, "{expected}");
        assert_eq!(world.director.connections(), 0);
        world.recount();
    }
}

#[test]
fn timeouts_are_the_services_own() {
    let mut service = ServiceSpec::new(Protocol::Udp, "203.0.113.10:53", &["10.0.0.1:53"]);
    service.settings.timeouts.set(State::Udp, Duration::from_secs(5));
    let mut world = World::new(vec![service]);
    world.forward(&udp(V4.client(), at("203.0.113.10:53"), b"?"));
    assert_eq!(world.wait_and_sweep(Duration::from_secs(4)), 0);
    assert_eq!(world.outlast(Duration::from_secs(1)), 1);
}

#[test]
fn expired_connection_is_forgotten_both_ways() {
    for family in FAMILIES {
        let mut world = family.established();
        let moved = [("expired", 1)];
        world.moves(&moved, |world| world.outlast(Duration::from_secs(900)));
        world.reply(&tcp(family.client(), family.vip(), ACK));
        world.drop(&tcp(family.server(0), family.client(), ACK), DropReason::NoConnection);
    }
}
