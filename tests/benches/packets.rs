//! The packet path without any device: what packets cost beside how many connections, what opening,
//! remembering and forgetting connections costs, and whether a packet ever waits for a sweep.
//!
//! `cargo bench -p wvs-tests --bench packets [-- CLASS...]`, all classes in some two minutes.
//!
//! Each class is measured by a process of its own, whose resident memory is that of its connections.
//! Connections come in random order, so that past some ten thousand of them the caches do not help,
//! and time goes on while they do. What memory itself costs here and now is printed first: a packet
//! needs two or three such accesses.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wvs_core::connection::state::State;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, SYN, at, tcp, udp};
use wvs_tests::world::{Always, ServiceSpec, World, settings};

/// What kind of packets, and how many connections at most.
#[derive(Clone, Copy, Debug)]
struct Class {
    name: &'static str,
    protocol: Protocol,
    is_ipv6: bool,
    is_full_nat: bool,
    checksum: TransportChecksum,
    connections_max: u32,
}

const TCP: Class = Class {
    name: "tcp",
    protocol: Protocol::Tcp,
    is_ipv6: false,
    is_full_nat: false,
    checksum: TransportChecksum::Complete,
    connections_max: 4_000_000,
};

const UDP: Class =
    Class { name: "udp", protocol: Protocol::Udp, connections_max: 1_000_000, ..TCP };

const CLASSES: [Class; 7] = [
    TCP,
    Class { name: "tcp6", is_ipv6: true, connections_max: 1_000_000, ..TCP },
    UDP,
    Class { name: "udp6", is_ipv6: true, ..UDP },
    Class { name: "fullnat", is_full_nat: true, connections_max: 1_000_000, ..TCP },
    Class { name: "fullnat6", is_full_nat: true, is_ipv6: true, ..UDP },
    Class {
        name: "partial",
        checksum: TransportChecksum::Partial,
        connections_max: 1_000_000,
        ..TCP
    },
];

const SIZES: [u32; 5] = [1_000, 10_000, 100_000, 1_000_000, 4_000_000];

/// Packets timed together: few enough to stay in the nearest cache, as if just received.
const BATCH: u32 = 64;

type Buffer = [u8; 128];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; otherwise this is a test, and small tables show that it works.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let connections_max = if is_bench { u32::MAX } else { 1_000 };
    if let [only, name] = arguments.as_slice()
        && only == "--only"
        && let Some(class) = CLASSES.iter().find(|class| class.name == name.as_str())
    {
        return measure(class, class.connections_max);
    }
    for kilobytes in [64, 1_024, 32_768, 262_144] {
        println!("random access within {kilobytes:6} KiB: {:4.0} ns", memory_nanos(kilobytes));
    }
    let names: Vec<&String> = arguments.iter().filter(|name| !name.starts_with("--")).collect();
    println!(
        "\n{:9}{:>12}{:>8}{:>8}{:>8}{:>12}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "class",
        "connections",
        "hit",
        "miss",
        "open",
        "worst open",
        "octets",
        "visit",
        "expire",
        "worst, idle",
        "worst, swept",
    );
    println!(
        "{:9}{:>12}{:>8}{:>8}{:>8}{:>12}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "", "", "ns", "ns", "ns", "us", "each", "ns each", "ns each", "us", "us"
    );
    for class in CLASSES
        .iter()
        .filter(|class| names.is_empty() || names.iter().any(|name| name.as_str() == class.name))
    {
        if is_bench {
            let program = std::env::current_exe().unwrap();
            let status = Command::new(program).args(["--only", class.name]).status().unwrap();
            assert!(status.success(), "{}: {status}", class.name);
        } else {
            measure(class, connections_max);
        }
    }
}

/// Nanoseconds of one dependent access to a random cache line of so much memory.
fn memory_nanos(kilobytes: usize) -> f64 {
    const STEPS: u32 = 500_000;
    let lines = kilobytes * 1024 / 64;
    let mut memory = vec![[0_usize; 8]; lines];
    // A cycle through all lines in random order (Sattolo).
    let mut random = Random::new(1);
    memory.iter_mut().enumerate().for_each(|(line, place)| place[0] = line);
    for line in (1..lines).rev() {
        let other = usize::try_from(random.next()).unwrap() % line;
        let next = memory[line][0];
        memory[line][0] = memory[other][0];
        memory[other][0] = next;
    }
    let mut line = 0;
    let mut walk = |steps| (0..steps).for_each(|_| line = memory[line][0]);
    walk(STEPS);
    let start = Instant::now();
    walk(STEPS);
    let elapsed = start.elapsed();
    black_box(line);
    nanos(elapsed, STEPS)
}

/// One class, table by table, each one grown out of the one before.
fn measure(class: &Class, connections_max: u32) {
    let mut run = Run::new(class);
    for connections in SIZES.into_iter().filter(|size| *size <= connections_max) {
        let (open, worst_open) = run.open(connections);
        // Past all that the process had before; small tables are lost in it.
        let octets = (resident() - run.resident_before) / f64::from(connections);
        let octets = if connections < 100_000 { String::new() } else { format!("{octets:.0}") };
        let hit = run.hit();
        let miss = run.miss();
        let idle = run.worst_packet(|| std::thread::sleep(Duration::from_millis(5)));
        let start = run.now();
        let (mut visits, mut visited) = (Duration::ZERO, 0);
        let swept = run.worst_packet(|| {
            let before = Instant::now();
            run.world.director.sweep(start);
            visits += before.elapsed();
            // As the sweep itself has it, for a table that is not being flooded.
            visited += connections.div_ceil(20).clamp(1_024, 16_384).min(connections);
            std::thread::sleep(Duration::from_millis(2));
        });
        let visit = nanos(visits, visited);
        // The largest table of the class leaves.
        let (expire, worst_expire) =
            if run.is_last(connections, connections_max) { run.expire() } else { (f64::NAN, 0.0) };
        let expire = if expire.is_nan() { String::new() } else { format!("{expire:.0}") };
        println!(
            "{:9}{connections:12}{hit:8.0}{miss:8.0}{open:8.0}{worst_open:12.0}{octets:>10}\
             {visit:10.0}{expire:>10}{idle:12.0}{:12.0}",
            class.name,
            swept.max(worst_expire),
        );
    }
}

/// A director and the packets of one class.
struct Run<'a> {
    class: &'a Class,
    world: World,
    start: Instant,
    /// Octets of memory before the first connection.
    resident_before: f64,
    /// Clients with connections, in the order in which their packets come.
    order: Vec<u32>,
    /// Packets from clients and to them.
    first: (Buffer, usize),
    request: (Buffer, usize),
    reply: (Buffer, usize),
    stranger: (Buffer, usize),
}

impl<'a> Run<'a> {
    fn new(class: &'a Class) -> Self {
        let (vip, server) = (at(class.vip()), at(class.server()));
        let mut service = ServiceSpec::new(class.protocol, class.vip(), &[class.server()])
            .scheduler(Always(Pick::Server(0)));
        if class.is_full_nat {
            service = service.full_nat(&class.pool(), 1_024..=65_535);
        }
        let limits = TableLimits { connections: 5_000_000, half_open: 5_000_000 };
        let settings = DirectorConfig { limits, replies_per_second: 0, ..settings() };
        let world = World::with(settings, vec![service]);
        let packet = |source, destination, flags| {
            let packet = match class.protocol {
                Protocol::Tcp => tcp(source, destination, flags),
                _ => udp(source, destination, b""),
            };
            let mut buffer = [0; 128];
            buffer[..packet.len()].copy_from_slice(&packet);
            (buffer, packet.len())
        };
        let client = class.client(0);
        let order = Vec::with_capacity(usize::try_from(class.connections_max).unwrap());
        Self {
            class,
            world,
            start: Instant::now(),
            resident_before: 0.0,
            order,
            first: packet(client, vip, SYN),
            request: packet(client, vip, ACK),
            reply: packet(server, client, ACK),
            // A late reply of a server's to a client that has no connection.
            stranger: packet(server, class.client(u32::MAX / 64), ACK),
        }
    }

    /// The time that has passed, on the director's clock.
    fn now(&self) -> Moment {
        self.world.now().after(self.start.elapsed())
    }

    fn process(&self, buffer: &mut Buffer, length: usize, now: Moment) -> Verdict {
        let mut packet = Packet::new(buffer, length).with_checksum(self.class.checksum);
        self.world.director.process(black_box(&mut packet), now)
    }

    /// The first packet of the n-th client, or a later one to either side. Checksums do not matter
    /// here. With full NAT the client's: who else has which place is not known.
    fn packet(&self, n: u32, from: &(Buffer, usize)) -> Buffer {
        let mut buffer = from.0;
        let client = self.class.client(n);
        let to_client = usize::from(std::ptr::eq(from, &self.reply));
        let ports = match client.ip() {
            IpAddr::V4(ip) => {
                let at = 12 + 4 * to_client;
                buffer[at..at + 4].copy_from_slice(&ip.octets());
                20
            }
            IpAddr::V6(ip) => {
                let at = 8 + 16 * to_client;
                buffer[at..at + 16].copy_from_slice(&ip.octets());
                40
            }
        };
        let port = ports + 2 * to_client;
        buffer[port..port + 2].copy_from_slice(&client.port().to_be_bytes());
        buffer
    }

    /// Opens connections up to so many; nanoseconds each, and microseconds of the slowest one.
    fn open(&mut self, connections: u32) -> (f64, f64) {
        if self.order.is_empty() {
            self.order.resize(self.order.capacity(), 0);
            self.resident_before = resident();
            self.order.clear();
        }
        let first = u32::try_from(self.order.len()).unwrap();
        let (mut all, mut worst) = (Duration::ZERO, Duration::ZERO);
        for n in first..connections {
            let mut syn = self.packet(n, &self.first);
            let mut ack = self.packet(n, &self.request);
            let now = self.now();
            let before = Instant::now();
            assert_eq!(self.process(&mut syn, self.first.1, now), Verdict::Forward);
            let elapsed = before.elapsed();
            let _ = self.process(&mut ack, self.request.1, now);
            all += elapsed;
            worst = worst.max(elapsed);
            self.order.push(n);
        }
        let mut random = Random::new(u64::from(connections));
        for n in (1..self.order.len()).rev() {
            let other = random.next() % (u64::try_from(n).unwrap() + 1);
            self.order.swap(n, usize::try_from(other).unwrap());
        }
        (nanos(all, connections - first), micros(worst))
    }

    /// Nanoseconds of a packet of an established connection, from either side by turns.
    fn hit(&self) -> f64 {
        let mut order = self.order.iter().cycle();
        let mut buffers = [[0; 128]; BATCH as usize];
        let mut times = Vec::new();
        let packets = u32::try_from(self.order.len()).unwrap().clamp(400_000, 2_000_000);
        for _ in 0..packets / BATCH {
            for (turn, (buffer, n)) in buffers.iter_mut().zip(&mut order).enumerate() {
                let is_reply = turn % 2 == 1 && !self.class.is_full_nat;
                *buffer = self.packet(*n, if is_reply { &self.reply } else { &self.request });
            }
            let now = self.now();
            let before = Instant::now();
            for buffer in &mut buffers {
                let verdict = self.process(buffer, self.request.1, now);
                debug_assert_eq!(verdict, Verdict::Forward);
            }
            times.push(before.elapsed());
        }
        // The median of the batches: the machine may do other things now and then.
        times.sort_unstable();
        nanos(times[times.len() / 2], BATCH)
    }

    /// Nanoseconds of a packet that is dropped because nothing knows it.
    fn miss(&self) -> f64 {
        let mut buffers = [self.stranger.0; BATCH as usize];
        let mut times = Vec::new();
        for round in 0..4_000_u32 {
            for (n, buffer) in (0_u32..).zip(&mut buffers) {
                *buffer = self.stranger.0;
                // Other addresses each time, or the look-up would always go to the same place.
                let other = (round * BATCH + n).to_be_bytes();
                let at = if self.class.is_ipv6 { 36 } else { 16 };
                buffer[at + 1..at + 4].copy_from_slice(&other[1..]);
            }
            let now = self.now();
            let before = Instant::now();
            for buffer in &mut buffers {
                let _ = black_box(self.process(buffer, self.stranger.1, now));
            }
            times.push(before.elapsed());
        }
        times.sort_unstable();
        nanos(times[times.len() / 2], BATCH)
    }

    /// Microseconds of the slowest packet on one thread while another one does `meanwhile`: the
    /// median of some stretches of time, as the machine has slow moments of its own.
    fn worst_packet(&self, mut meanwhile: impl FnMut()) -> f64 {
        let mut worst: Vec<f64> = (0..15)
            .map(|_| {
                let (worst, ()) = self.beside_packets(|| {
                    let before = Instant::now();
                    while before.elapsed() < Duration::from_millis(20) {
                        meanwhile();
                    }
                });
                worst
            })
            .collect();
        worst.sort_by(f64::total_cmp);
        worst[worst.len() / 2]
    }

    /// Microseconds of the slowest packet on one thread while another one does `work`.
    fn beside_packets<R>(&self, work: impl FnOnce() -> R) -> (f64, R) {
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let packets = scope.spawn(|| {
                let mut worst = Duration::ZERO;
                let some = &self.order[..self.order.len().min(10_000)];
                for n in some.iter().cycle() {
                    if is_done.load(Relaxed) {
                        break;
                    }
                    let mut packet = self.packet(*n, &self.request);
                    let now = self.now();
                    let before = Instant::now();
                    let _ = black_box(self.process(&mut packet, self.request.1, now));
                    worst = worst.max(before.elapsed());
                }
                worst
            });
            let result = work();
            is_done.store(true, Relaxed);
            (micros(packets.join().unwrap()), result)
        })
    }

    const fn is_last(&self, connections: u32, connections_max: u32) -> bool {
        connections == self.class.connections_max || connections == connections_max
    }

    /// Lets all connections expire but those that have packets meanwhile. Nanoseconds each, and
    /// microseconds of the slowest packet: the median over the calls of the sweep.
    fn expire(&mut self) -> (f64, f64) {
        self.world.wait(State::Established.default_timeout() + Duration::from_secs(2));
        // Those that will have packets: the clock of all others has run out now.
        let (_, ()) = self.beside_packets(|| std::thread::sleep(Duration::from_millis(100)));
        let (mut all, mut worst, mut removed) = (Duration::ZERO, Vec::new(), 0);
        loop {
            let (slowest, (elapsed, count)) = self.beside_packets(|| {
                let before = Instant::now();
                let count = self.world.director.sweep(self.now());
                (before.elapsed(), count)
            });
            if count == 0 && removed > 0 {
                break;
            }
            all += elapsed;
            removed += u32::try_from(count).unwrap();
            worst.push(slowest);
        }
        worst.sort_by(f64::total_cmp);
        (nanos(all, removed), worst[worst.len() / 2])
    }
}

impl Class {
    const fn vip(&self) -> &'static str {
        if self.is_ipv6 { "[2001:db8:2::10]:80" } else { "203.0.113.10:80" }
    }

    const fn server(&self) -> &'static str {
        if self.is_ipv6 { "[fd00::1]:8080" } else { "10.0.0.1:8080" }
    }

    /// Places for four million connections.
    fn pool(&self) -> Vec<&'static str> {
        const V4: [&str; 16] = [
            "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6", "10.9.0.7",
            "10.9.0.8", "10.9.0.9", "10.9.1.0", "10.9.1.1", "10.9.1.2", "10.9.1.3", "10.9.1.4",
            "10.9.1.5", "10.9.1.6",
        ];
        const V6: [&str; 16] = [
            "fd09::1", "fd09::2", "fd09::3", "fd09::4", "fd09::5", "fd09::6", "fd09::7", "fd09::8",
            "fd09::9", "fd09::a", "fd09::b", "fd09::c", "fd09::d", "fd09::e", "fd09::f",
            "fd09::10",
        ];
        if self.is_ipv6 { V6.to_vec() } else { V4.to_vec() }
    }

    /// The n-th client.
    fn client(&self, n: u32) -> SocketAddr {
        let port = 1024 + u16::try_from(n % 50_000).unwrap();
        let host = n / 50_000;
        let ip = if self.is_ipv6 {
            IpAddr::from(Ipv6Addr::from((0x2001_0db8_u128 << 96) + 1 + u128::from(host)))
        } else {
            IpAddr::from(Ipv4Addr::from(0xC633_6401 + host))
        };
        SocketAddr::new(ip, port)
    }
}

/// Octets of memory that the process has now.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0
}

fn nanos(duration: Duration, count: u32) -> f64 {
    duration.as_secs_f64() * 1e9 / f64::from(count.max(1))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
