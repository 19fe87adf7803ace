//! Most packets of a connection tell it nothing: states and expiry are as if each of them did.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use wvs_core::connection::state::State;
use wvs_core::connection::tcp_state;
use wvs_core::connection::tuple::{Direction, Tuple};
use wvs_core::director::Director;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, FIN, RST, SYN, receive, tcp, udp};
use wvs_tests::world::{LATENESS, World};

use crate::V4;

/// The one connection of these tests and what the documented state machine says of it.
struct Model {
    world: World,
    /// What the server takes for the client.
    peer: std::net::SocketAddr,
    state: State,
    last_packet: Moment,
}

impl Model {
    /// Opened with a SYN, with one server.
    fn open(is_full_nat: bool, set: impl FnOnce(&mut wvs_tests::world::ServiceSpec)) -> Self {
        let mut spec = V4.service(Protocol::Tcp);
        spec.servers.truncate(1);
        if is_full_nat {
            spec = spec.full_nat(&["192.0.2.50"], 20_000..=60_000);
        }
        set(&mut spec);
        let world = World::new(vec![spec]);
        let last_packet = world.now();
        let mut model = Self { world, peer: V4.client(), state: State::None, last_packet };
        model.send(Direction::Original, SYN);
        model
    }

    /// Sends a segment. Returns the state that the connection should be in.
    fn send(&mut self, direction: Direction, flags: u8) -> State {
        let is_opening = flags & (SYN | ACK | FIN | RST) == SYN;
        let present = if is_opening && direction == Direction::Original && self.state.is_reusable()
        {
            State::None
        } else {
            self.state
        };
        let sent = match direction {
            Direction::Original => self.world.forward(&tcp(V4.client(), V4.vip(), flags)),
            Direction::Reply => self.world.forward(&tcp(V4.server(0), self.peer, flags)),
        };
        if direction == Direction::Original {
            self.peer = receive(&sent).source;
        }
        self.state = tcp_state::next(present, direction, flags);
        self.last_packet = self.world.now();
        self.state
    }

    /// The state that it is in, `None` when it is gone.
    fn seen(&self) -> Option<State> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (V4.client().ip(), V4.vip().ip())
        else {
            unreachable!("IPv4 addresses")
        };
        let tuple: Tuple<Ipv4Addr> = Tuple {
            source,
            destination,
            source_port: V4.client().port(),
            destination_port: V4.vip().port(),
            protocol: Protocol::Tcp,
        };
        self.world.director.tables().v4().find(&tuple)?.state()
    }
}

/// Every kind of segment.
const FLAGS: [u8; 6] = [SYN, SYN | ACK, ACK, FIN | ACK, RST, 0];

const DIRECTIONS: [Direction; 2] = [Direction::Original, Direction::Reply];

/// Every sequence of three segments at the same moment, be those before noted or not.
#[test]
fn states_follow_every_segment_of_any_short_sequence() {
    let kinds = || DIRECTIONS.into_iter().flat_map(|way| FLAGS.map(|flags| (way, flags)));
    let mut paths: Vec<Vec<(Direction, u8)>> = vec![Vec::new()];
    for _ in 0..3 {
        paths = paths
            .into_iter()
            .flat_map(|path| kinds().map(move |kind| [path.as_slice(), &[kind]].concat()))
            .collect();
    }
    let mut model = Model::open(false, |_| {});
    for acknowledged in 0..=2 {
        for path in &paths {
            // Back to a handshake of which neither, one or both sides' packets are noted.
            model.send(Direction::Original, RST);
            model.send(Direction::Reply, RST);
            model.send(Direction::Original, SYN);
            for way in &DIRECTIONS[..acknowledged] {
                model.send(*way, ACK);
                model.send(*way, ACK);
            }
            for (way, flags) in path {
                let expected = model.send(*way, *flags);
                assert_eq!(model.seen(), Some(expected), "{path:?} at {way:?} {flags:#x}");
            }
        }
    }
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(ACK), 4 => prop::sample::select(FLAGS.to_vec()), 1 => any::<u8>()]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop::sample::select(DIRECTIONS.to_vec())
}

proptest! {
    /// Of any segments at any times, within a tick of the director's and across.
    #[test]
    fn states_follow_every_segment(
        is_full_nat in any::<bool>(),
        steps in prop::collection::vec(
            (direction(), flags(), prop_oneof![3 => Just(0_u64), 1 => 0..1_500_u64]),
            1..200,
        ),
    ) {
        let mut model = Model::open(is_full_nat, |_| {});
        for (direction, flags, wait) in steps {
            model.world.wait(Duration::from_millis(wait));
            let expected = model.send(direction, flags);
            prop_assert_eq!(model.seen(), Some(expected));
            model.world.recount();
        }
    }

    /// It leaves when it was silent for its state's timeout: never earlier, and later by no more
    /// than the coarseness of its memory and a round of the sweep.
    #[test]
    fn silence_is_counted_from_the_last_packet_of_any_kind(
        is_full_nat in any::<bool>(),
        timeouts in prop::collection::vec(0..8_000_u64, State::ALL.len()),
        steps in prop::collection::vec((direction(), flags(), 0..5_000_u64), 1..60),
    ) {
        let timeout = |state: State| {
            timeouts[State::ALL.iter().position(|other| *other == state).unwrap()]
        };
        let mut model = Model::open(is_full_nat, |spec| {
            for state in State::ALL {
                spec.settings.timeouts.set(state, Duration::from_millis(timeout(state)));
            }
        });
        // The last wait is longer than any timeout.
        let steps = steps.into_iter().chain([(Direction::Reply, ACK, 20_000)]);
        for (direction, flags, wait) in steps {
            model.send(direction, flags);
            prop_assert_eq!(model.seen(), Some(model.state));
            let mut waited = 0;
            while waited < wait && model.seen().is_some() {
                let interval = Director::SWEEP_INTERVAL_MILLIS.min(wait - waited);
                waited += interval;
                model.world.wait_and_sweep(Duration::from_millis(interval));
                let silence = model.world.now().millis_since(model.last_packet);
                let timeout = timeout(model.state);
                if model.seen().is_some() {
                    let latest = timeout
                        + u64::try_from(LATENESS.as_millis()).unwrap()
                        + Director::SWEEP_INTERVAL_MILLIS;
                    prop_assert!(silence <= latest, "there after {silence} of {timeout} ms");
                } else {
                    prop_assert!(silence >= timeout, "gone after {silence} of {timeout} ms");
                }
            }
            if model.seen().is_none() {
                break;
            }
        }
        prop_assert_eq!(model.seen(), None);
        model.world.recount();
    }

    /// Datagrams tell a connection nothing but that it is alive.
    #[test]
    fn datagrams_at_any_times_keep_a_connection_alive(
        gaps in prop::collection::vec(0..4_999_u64, 1..200),
    ) {
        let mut spec = V4.service(Protocol::Udp);
        spec.settings.timeouts.set(State::Udp, Duration::from_secs(5));
        let mut world = World::new(vec![spec]);
        let server = receive(&world.forward(&udp(V4.client(), V4.vip(), b""))).destination;
        for (n, gap) in gaps.into_iter().enumerate() {
            prop_assert_eq!(world.wait_and_sweep(Duration::from_millis(gap)), 0);
            if n % 3 == 0 {
                world.forward(&udp(server, V4.client(), b""));
            } else {
                world.forward(&udp(V4.client(), V4.vip(), b""));
            }
        }
        prop_assert_eq!(world.director.table().opened.get(), 1);
        prop_assert_eq!(world.outlast(Duration::from_secs(5)), 1);
    }
}

/// Packets hours apart, as applications send them to keep a connection alive: however far apart,
/// no two of them are taken for packets of the same moment.
#[test]
fn packets_that_are_hours_apart_count() {
    let mut spec = V4.service(Protocol::Udp);
    spec.settings.timeouts.set(State::Udp, Duration::from_secs(48 * 3600));
    let mut world = World::new(vec![spec]);
    world.forward(&udp(V4.client(), V4.vip(), b""));
    let mut ticks = 1_u64;
    for _ in 0..26 {
        // Neighbours of each power of two: where a count of ticks would run over.
        for apart in [ticks - 1, ticks, ticks + 1] {
            let gap = LATENESS.as_millis() * u128::from(apart);
            let gap = Duration::from_millis(u64::try_from(gap).unwrap());
            if gap >= Duration::from_secs(48 * 3600) {
                return;
            }
            world.forward(&udp(V4.client(), V4.vip(), b""));
            assert_eq!(world.wait_and_sweep(gap), 0);
            assert_eq!(world.process(&udp(V4.client(), V4.vip(), b"")).0, Verdict::Forward);
            let left = Duration::from_secs(48 * 3600 - 1);
            assert_eq!(world.wait_and_sweep(left), 0, "the packet after {apart} ticks counted");
        }
        ticks *= 2;
    }
}
