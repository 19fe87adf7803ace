//! Allocations per packet are counted, not hoped for: none for what belongs to a connection and none
//! for what is dropped or refused, and a bounded number for a new connection.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use wvs::tap::{CaptureRequest, Tap, TapPlace};
use wvs_abi::Request;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_plugin::{Host, Limits, Source, builtin};
use wvs_tests::packet::{ACK, FIN, SYN, at, echo, icmp_error, tcp, udp};
use wvs_tests::world::{ServiceSpec, World, settings, terms};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Allocated less freed; below 0 when other threads' memory is freed here.
    static OCTETS: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches a constant
// thread-local cell, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        grow(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        grow(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        grow(layout.size(), size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn grow(from: usize, to: usize) {
    OCTETS.set(OCTETS.get().wrapping_add_unsigned(to).wrapping_sub_unsigned(from));
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The verdict on a packet and how many allocations it took.
fn process(world: &World, octets: &[u8]) -> (Verdict, usize) {
    let mut buffer = octets.to_vec();
    buffer.resize(octets.len() + Packet::HEADROOM, 0);
    let mut packet = Packet::new(&mut buffer, octets.len());
    let before = ALLOCATIONS.get();
    let verdict = world.director.process(&mut packet, world.now());
    (verdict, ALLOCATIONS.get() - before)
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn packets_of_established_connections_allocate_nothing() {
    for (client, vip, server) in [
        ("198.51.100.7:40000", "203.0.113.10:80", "10.0.0.1:8080"),
        ("[2001:db8:1::7]:40000", "[2001:db8:2::10]:80", "[fd00::1]:8080"),
    ] {
        let world = World::new(vec![
            ServiceSpec::new(Protocol::Tcp, vip, &[server]),
            ServiceSpec::new(Protocol::Udp, vip, &[server]),
        ]);
        let (client, vip, server) = (at(client), at(vip), at(server));
        world.forward(&tcp(client, vip, SYN));
        world.forward(&udp(client, vip, b"first"));
        let translated = world.forward(&udp(client, vip, b"translated"));
        let unreachable = if vip.is_ipv4() { [3, 3] } else { [1, 4] };
        for (what, packet) in [
            ("SYN-ACK", tcp(server, client, SYN | ACK)),
            ("ACK from the client", tcp(client, vip, ACK)),
            ("ACK from the server", tcp(server, client, ACK)),
            ("UDP from the client", udp(client, vip, b"data")),
            ("UDP from the server", udp(server, client, b"data")),
            ("ICMP error", icmp_error(server.ip(), client.ip(), unreachable, &translated)),
            ("FIN", tcp(client, vip, FIN | ACK)),
        ] {
            assert_eq!(process(&world, &packet), (Verdict::Forward, 0), "{what}, {vip}");
        }
    }
}

#[test]
fn the_tap_allocates_nothing_per_packet_whether_somebody_captures_or_not() {
    let spec = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"]);
    let world = World::new(vec![spec]);
    let (client, vip, now) = (at("198.51.100.7:40000"), at("203.0.113.10:80"), world.now());
    world.forward(&tcp(client, vip, SYN));
    let director = Arc::new(world.director);
    let tap = Arc::<Tap>::default();
    let mut place = TapPlace::new(Arc::clone(&tap), Arc::clone(&director), 0);
    let mut process = |octets: &[u8]| {
        let mut buffer = octets.to_vec();
        buffer.resize(octets.len() + Packet::HEADROOM, 0);
        let before = ALLOCATIONS.get();
        let mut packet = Packet::new(&mut buffer, octets.len());
        let is_shown = place.look(&packet);
        let verdict = director.process(&mut packet, now);
        if is_shown {
            place.show(verdict, packet.octets_mut(), true);
        }
        (is_shown, ALLOCATIONS.get() - before)
    };
    let (ack, stray) = (tcp(client, vip, ACK), tcp(at("198.51.100.8:1"), vip, ACK));
    assert_eq!(process(&ack), (false, 0));
    let request = CaptureRequest {
        service: Some("service-1".to_owned()),
        hosts: vec!["198.51.100.0/24".parse().unwrap()],
        ports: vec![80],
        ..CaptureRequest::default()
    };
    let recording = tap.capture(&request, &director, "wvs0", 1).unwrap();
    // Also the packet at which the thread learns of it.
    for packet in [&ack, &stray, &ack] {
        assert_eq!(process(packet), (true, 0));
    }
    assert_eq!(recording.statistics().matched, 3);
    drop(recording);
    assert!(!process(&ack).0);
    assert_eq!(process(&ack), (false, 0));
}

#[test]
fn drops_and_answers_allocate_nothing() {
    let world =
        World::new(vec![ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"])]);
    let (client, vip) = (at("198.51.100.7:40000"), at("203.0.113.10:80"));
    let cut = &tcp(client, vip, SYN)[..30];
    assert_eq!(process(&world, cut), (Verdict::Drop(DropReason::Ipv4Length), 0));
    let late = tcp(at("10.0.0.1:80"), client, ACK);
    assert_eq!(process(&world, &late), (Verdict::Drop(DropReason::NoConnection), 0));
    for packet in
        [tcp(client, vip, ACK), udp(client, vip, b"closed"), echo(client.ip(), vip.ip(), true, 1)]
    {
        assert_eq!(process(&world, &packet), (Verdict::Reply, 0));
    }
}

#[test]
fn a_new_connection_allocates_itself_and_at_times_room_in_the_table() {
    let world =
        World::new(vec![ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"])]);
    let allocations: Vec<usize> = (1..=500)
        .map(|port| {
            let client = std::net::SocketAddr::from(([198, 51, 100, 7], port));
            let (verdict, allocations) = process(&world, &tcp(client, at("203.0.113.10:80"), SYN));
            assert_eq!(verdict, Verdict::Forward);
            allocations
        })
        .collect();
    // One for the connection; a shard of the index for either tuple, a segment of the roll and the
    // queue of half-open ones grow now and then.
    assert!(allocations.iter().all(|count| (1..=5).contains(count)), "{allocations:?}");
    assert!(allocations.contains(&1));
}

#[test]
fn decisions_of_plugins_allocate_nothing() {
    let host = Host::new().unwrap();
    let servers: Vec<_> = (1..=16)
        .map(|id| {
            let address = at(&format!("10.0.0.{id}:80"));
            Arc::new(RealServer::new(id, address, 1, terms()))
        })
        .collect();
    for name in builtin::NAMES {
        let module = host.load(Source::BuiltIn(name), Limits::default()).unwrap();
        let mut scheduler = module.scheduler(None, &servers).unwrap();
        let before = ALLOCATIONS.get();
        for client_port in 1..100 {
            let request = Request { family: 4, client_port, ..Request::default() };
            assert!(matches!(scheduler.schedule(&request, &servers), Pick::Server(_)));
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{name}");
    }
}

/// A hundred times as many SYNs as there may be half-open connections, and no sweep comes by.
#[test]
fn flood_of_syns_takes_memory_for_its_limit_and_no_more() {
    const LIMIT: u16 = 1_000;
    let limits = TableLimits { connections: 10_000, half_open: LIMIT.into() };
    let world = World::with(
        DirectorConfig { limits, ..settings() },
        vec![ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &["10.0.0.1:80"])],
    );
    let vip = at("203.0.113.10:80");
    let flood = |hosts: std::ops::Range<u8>| {
        let before = OCTETS.get();
        for (host, port) in hosts.flat_map(|host| (1..=LIMIT).map(move |port| (host, port))) {
            let client = std::net::SocketAddr::from(([198, 51, 100, host], port));
            assert_eq!(process(&world, &tcp(client, vip, SYN)).0, Verdict::Forward);
        }
        OCTETS.get() - before
    };
    let first = flood(0..2);
    assert!(first < 512 * 2 * isize::try_from(LIMIT).unwrap(), "{first} octets at first");
    let later = flood(2..100);
    // Shards of the index are filled by chance, and grow with the fullest that they ever were.
    assert!(later < first, "{later} octets after {first}");
    assert_eq!(world.director.table().evicted.get(), 99 * u64::from(LIMIT));
}
