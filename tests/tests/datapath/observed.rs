//! What the director notes in passing: how servers answer, what schedulers are told of
//! connections, and who placed them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wvs_abi::Request;
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_tests::packet::{ACK, FIN, RST, SYN, tcp};
use wvs_tests::world::World;

use crate::{FAMILIES, V4};

const MINUTE: Duration = Duration::from_secs(60);

/// Always the first server; writes down what it is told, in order.
struct Listener {
    told: Arc<Mutex<Vec<Told>>>,
    wants_events: bool,
    /// Milliseconds between two ticks; 0 for none.
    period_ms: u64,
    answer: Pick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Asked,
    Event(Event),
    Tick(u64),
}

impl Scheduler for Listener {
    fn schedule(&mut self, _: &Request, _: &[Arc<RealServer>]) -> Pick {
        self.told.lock().unwrap().push(Told::Asked);
        self.answer
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}

    fn generation(&self) -> u16 {
        7
    }

    fn wants_events(&self) -> bool {
        self.wants_events
    }

    fn event(&mut self, event: &Event, _: &[Arc<RealServer>]) {
        self.told.lock().unwrap().push(Told::Event(*event));
    }

    fn tick(&mut self, request: &Request, _: &[Arc<RealServer>]) -> Option<u64> {
        self.told.lock().unwrap().push(Told::Tick(request.now_ms));
        (self.period_ms > 0).then_some(self.period_ms)
    }
}

fn listener() -> (Listener, Arc<Mutex<Vec<Told>>>) {
    let told = Arc::default();
    let listener = Listener {
        told: Arc::clone(&told),
        wants_events: true,
        period_ms: 0,
        answer: Pick::Server(0),
    };
    (listener, told)
}

fn world_of(listener: Listener) -> World {
    World::new(vec![V4.service(Protocol::Tcp).scheduler(listener)])
}

fn events(told: &Mutex<Vec<Told>>) -> Vec<EventKind> {
    let kind = |told: &Told| match told {
        Told::Event(event) => Some(event.kind),
        Told::Asked | Told::Tick(_) => None,
    };
    told.lock().unwrap().iter().filter_map(kind).collect()
}

/// Tells the scheduler of everything that waits.
fn attend(world: &World) -> Option<Moment> {
    world.director.services().list()[0].attend(world.now())
}

#[test]
fn time_to_the_servers_answer_is_measured_in_microseconds() {
    for family in FAMILIES {
        let mut world = family.world(Protocol::Tcp);
        world.forward(&tcp(family.client(), family.vip(), SYN));
        world.wait(Duration::from_micros(730));
        world.forward(&tcp(family.server(0), family.client(), SYN | ACK));
        let signals = world.servers(0)[0].signals();
        assert_eq!((signals.connect_us, signals.connects), (730, 1));
        // A SYN-ACK that comes twice is one answer.
        world.wait(Duration::from_millis(5));
        world.forward(&tcp(family.server(0), family.client(), SYN | ACK));
        assert_eq!(world.servers(0)[0].signals().connects, 1);
        assert_eq!(world.servers(0)[1].signals().connects, 0);
    }
}

#[test]
fn time_counts_from_the_first_syn_however_often_it_comes() {
    let mut world = V4.world(Protocol::Tcp);
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    world.wait(Duration::from_secs(1));
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    world.wait(Duration::from_micros(500));
    world.forward(&tcp(V4.server(0), V4.client(), SYN | ACK));
    assert_eq!(world.servers(0)[0].signals().connect_us, 1_000_500);
}

#[test]
fn octets_of_both_directions_are_among_the_signals() {
    let world = V4.established();
    let (syn, reply) = (tcp(V4.client(), V4.vip(), SYN), tcp(V4.server(0), V4.client(), ACK));
    let signals = world.servers(0)[0].signals();
    assert_eq!(signals.in_octets, 2 * u64::try_from(syn.len()).unwrap());
    assert_eq!(signals.out_octets, u64::try_from(reply.len()).unwrap());
}

#[test]
fn server_that_refuses_is_told_apart_from_one_that_resets_later() {
    let (listener, told) = listener();
    let world = world_of(listener);
    world.forward(&tcp(V4.client_port(1), V4.vip(), SYN));
    world.forward(&tcp(V4.server(0), V4.client_port(1), RST | ACK));
    attend(&world);
    assert_eq!(events(&told), [EventKind::Bound, EventKind::Refused]);
    let signals = world.servers(0)[0].signals();
    assert_eq!((signals.resets, signals.connects), (1, 0));

    world.forward(&tcp(V4.client_port(2), V4.vip(), SYN));
    world.forward(&tcp(V4.server(0), V4.client_port(2), SYN | ACK));
    world.forward(&tcp(V4.client_port(2), V4.vip(), ACK));
    world.forward(&tcp(V4.server(0), V4.client_port(2), RST));
    attend(&world);
    assert_eq!(events(&told)[2..], [EventKind::Bound]);
    let signals = world.servers(0)[0].signals();
    assert_eq!((signals.resets, signals.connects), (2, 1));
}

#[test]
fn reset_of_the_client_says_nothing_of_the_server() {
    let world = V4.established();
    world.forward(&tcp(V4.client(), V4.vip(), RST));
    assert_eq!(world.servers(0)[0].signals().resets, 0);
}

#[test]
fn server_that_never_answers_is_noted_when_the_connection_expires() {
    let (listener, told) = listener();
    let mut world = world_of(listener);
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(world.outlast(MINUTE), 1);
    attend(&world);
    let unbound = EventKind::Unbound { lifetime_ms: 0 };
    assert_eq!(events(&told), [EventKind::Bound, unbound, EventKind::Unanswered]);
    assert_eq!(world.servers(0)[0].signals().timeouts, 1);
}

#[test]
fn answered_connection_that_expires_is_no_timeout_of_the_servers() {
    let mut world = V4.established();
    world.outlast(15 * MINUTE);
    assert_eq!(world.director.connections(), 0);
    assert_eq!(world.servers(0)[0].signals().timeouts, 0);
}

#[test]
fn end_of_a_connection_tells_how_long_it_was_used() {
    let (listener, told) = listener();
    let mut world = world_of(listener);
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    world.forward(&tcp(V4.server(0), V4.client(), SYN | ACK));
    world.forward(&tcp(V4.client(), V4.vip(), ACK));
    world.wait(Duration::from_secs(30));
    world.forward(&tcp(V4.client(), V4.vip(), FIN | ACK));
    world.outlast(2 * MINUTE);
    attend(&world);
    let told = events(&told);
    let [EventKind::Bound, EventKind::Unbound { lifetime_ms }] = told[..] else {
        panic!("{told:?}")
    };
    // To the last packet, not to when it was forgotten.
    assert!((29_000..=30_000).contains(&lifetime_ms), "{lifetime_ms}");
}

#[test]
fn events_are_told_in_order_before_the_next_decision() {
    let (listener, told) = listener();
    let mut world = world_of(listener);
    for port in 1..=2 {
        world.forward(&tcp(V4.client_port(port), V4.vip(), SYN));
    }
    world.wait(Duration::from_secs(1));
    world.forward(&tcp(V4.client_port(3), V4.vip(), SYN));
    let bound = Told::Event(Event { kind: EventKind::Bound, server_id: world.servers(0)[0].id() });
    let expected = [Told::Asked, bound, Told::Asked, bound, Told::Asked];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn nobody_is_told_who_does_not_want_to_know() {
    let (listener, told) = listener();
    let world = world_of(Listener { wants_events: false, ..listener });
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    let service = world.service(0);
    let terms = service.terms();
    assert!(!terms.events.has_any());
    attend(&world);
    assert_eq!(events(&told), []);
    assert_eq!(terms.events.lost(), 0);
}

#[test]
fn scheduler_ticks_when_it_wants_and_not_before() {
    let (listener, told) = listener();
    let mut world = world_of(Listener { period_ms: 250, ..listener });
    let start = world.now().as_millis();
    assert_eq!(attend(&world), Some(Moment::from_millis(start + 250)));
    for _ in 0..10 {
        world.wait(Duration::from_millis(100));
        attend(&world);
    }
    let expected: Vec<_> = [0, 300, 600, 900].map(|after| Told::Tick(start + after)).into();
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn scheduler_that_wants_no_ticks_is_asked_only_once() {
    let (listener, told) = listener();
    let mut world = world_of(listener);
    assert_eq!(attend(&world), None);
    world.wait(MINUTE);
    assert_eq!(attend(&world), None);
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[test]
fn connection_remembers_which_generation_placed_it() {
    let (listener, _) = listener();
    let world = world_of(listener);
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    let generation = |world: &World| world.director.tables().v4().snapshot()[0].generation();
    assert_eq!(generation(&world), 7);
}

#[test]
fn connection_that_the_director_placed_by_itself_is_of_no_generation() {
    let (quiet, _) = listener();
    let world = world_of(Listener { answer: Pick::Defer, ..quiet });
    world.forward(&tcp(V4.client(), V4.vip(), SYN));
    assert_eq!(world.director.tables().v4().snapshot()[0].generation(), 0);
    let service = world.service(0);
    let counters = service.counters();
    assert_eq!((counters.fallback.get(), counters.picked.get()), (1, 0));
}
