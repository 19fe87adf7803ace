//! Nanoseconds of the director for one packet, without any device: parse, look-up, state, rewrite.
//!
//! `cargo bench -p wvs-tests --bench packets`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use divan::{Bencher, black_box};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_plugin::{Host, Limits, Source};
use wvs_tests::packet::{ACK, SYN, at, tcp, udp};
use wvs_tests::world::{Always, ServiceSpec, World, settings};

fn main() {
    // What memory itself costs here and now: the figure beside which those below are to be read.
    for kilobytes in [64, 1_024, 32_768] {
        println!("random access within {kilobytes} KiB: {:.0} ns", memory_nanos(kilobytes));
    }
    divan::main();
}

/// Nanoseconds of one dependent access to a random cache line of so much memory.
fn memory_nanos(kilobytes: usize) -> f64 {
    const STEPS: u32 = 1_000_000;
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
    elapsed.as_secs_f64() * 1e9 / f64::from(STEPS)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
}

const KINDS: [Kind; 4] = [Kind::TcpV4, Kind::TcpV6, Kind::UdpV4, Kind::UdpV6];

/// Packets timed together; the clock is too coarse for one.
const SAMPLE: u32 = 256;

impl Kind {
    const fn protocol(self) -> Protocol {
        match self {
            Self::TcpV4 | Self::TcpV6 => Protocol::Tcp,
            Self::UdpV4 | Self::UdpV6 => Protocol::Udp,
        }
    }

    fn vip(self) -> &'static str {
        match self {
            Self::TcpV4 | Self::UdpV4 => "203.0.113.10:80",
            Self::TcpV6 | Self::UdpV6 => "[2001:db8:2::10]:80",
        }
    }

    fn server(self) -> &'static str {
        match self {
            Self::TcpV4 | Self::UdpV4 => "10.0.0.1:8080",
            Self::TcpV6 | Self::UdpV6 => "[fd00::1]:8080",
        }
    }

    /// The n-th client.
    fn client(self, n: u32) -> SocketAddr {
        let port = 1024 + u16::try_from(n % 50_000).unwrap();
        let host = n / 50_000;
        let ip = match self {
            Self::TcpV4 | Self::UdpV4 => IpAddr::from(Ipv4Addr::from(0xC633_6401 + host)),
            Self::TcpV6 | Self::UdpV6 => {
                IpAddr::from(Ipv6Addr::from((0x2001_0db8_u128 << 96) + 1 + u128::from(host)))
            }
        };
        SocketAddr::new(ip, port)
    }

    fn packet(self, n: u32, flags: u8) -> Vec<u8> {
        match self.protocol() {
            Protocol::Tcp => tcp(self.client(n), at(self.vip()), flags),
            _ => udp(self.client(n), at(self.vip()), b""),
        }
    }

    /// A director with so many connections, and their clients in the order in which packets come.
    fn world(self, connections: u32) -> (World, Vec<u32>) {
        let service = ServiceSpec::new(self.protocol(), self.vip(), &[self.server()])
            .scheduler(Always(Pick::Server(0)));
        let world = World::with(large(), vec![service]);
        let mut order: Vec<u32> = (0..connections).collect();
        for n in &order {
            world.forward(&self.packet(*n, SYN));
        }
        let mut random = Random::new(1);
        for n in (1..order.len()).rev() {
            let other = random.next() % (u64::try_from(n).unwrap() + 1);
            order.swap(n, usize::try_from(other).unwrap());
        }
        (world, order)
    }

    /// The n-th client's packet, made from another client's: checksums do not matter here.
    fn address(self, buffer: &mut [u8; 128], n: u32) {
        let client = self.client(n);
        let ports = match client.ip() {
            IpAddr::V4(ip) => {
                buffer[12..16].copy_from_slice(&ip.octets());
                20
            }
            IpAddr::V6(ip) => {
                buffer[8..24].copy_from_slice(&ip.octets());
                40
            }
        };
        buffer[ports..ports + 2].copy_from_slice(&client.port().to_be_bytes());
    }
}

/// A packet of an established connection, connections in random order.
#[divan::bench(args = KINDS, consts = [1_000, 10_000, 100_000], sample_count = 1_000, sample_size = SAMPLE)]
fn established<const CONNECTIONS: u32>(bencher: Bencher<'_, '_>, kind: Kind) {
    let (world, order) = kind.world(CONNECTIONS);
    let (template, length) = to_buffer(&kind.packet(0, ACK));
    let mut order = order.into_iter().cycle();
    bencher
        .with_inputs(|| {
            let mut buffer = template;
            kind.address(&mut buffer, order.next().unwrap_or_default());
            buffer
        })
        .bench_local_refs(|buffer| process(&world, buffer, length));
}

/// A packet that is dropped because nothing knows it.
#[divan::bench(args = KINDS, sample_size = SAMPLE)]
fn late_reply(bencher: Bencher<'_, '_>, kind: Kind) {
    let (world, _) = kind.world(1_000);
    let (template, length) = to_buffer(&match kind.protocol() {
        Protocol::Tcp => tcp(at(kind.server()), kind.client(2_000), ACK),
        _ => udp(at(kind.server()), kind.client(2_000), b""),
    });
    bencher.with_inputs(|| template).bench_local_refs(|buffer| process(&world, buffer, length));
}

/// Who places a new connection.
#[derive(Clone, Copy, Debug)]
enum By {
    Fallback,
    Rr,
    Sh,
    Wlc,
}

/// The first packet of a connection: match, schedule, open, index; the table's growth included.
#[divan::bench(args = [By::Fallback, By::Rr, By::Sh, By::Wlc], consts = [3, 16, 256], sample_size = SAMPLE)]
fn new_connection<const SERVERS: u16>(bencher: Bencher<'_, '_>, by: By) {
    let servers: Vec<String> =
        (1..=SERVERS).map(|n| format!("10.0.{}.{}:80", n / 200, 1 + n % 200)).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let kind = Kind::TcpV4;
    let service =
        ServiceSpec::new(Protocol::Tcp, kind.vip(), &servers).scheduler(Always(Pick::Defer));
    let world = World::with(large(), vec![service]);
    let plugin = match by {
        By::Fallback => None,
        By::Rr => Some("rr"),
        By::Sh => Some("sh"),
        By::Wlc => Some("wlc"),
    };
    if let Some(name) = plugin {
        let module = Host::new().unwrap().load(Source::BuiltIn(name), Limits::default()).unwrap();
        let service = &world.director.services().list()[0];
        let scheduler = module.scheduler(None, service.servers()).unwrap();
        drop(service.replace_scheduler(Box::new(scheduler)));
    }
    let (template, length) = to_buffer(&kind.packet(0, SYN));
    let mut clients = 0..;
    bencher
        .with_inputs(|| {
            let mut buffer = template;
            kind.address(&mut buffer, clients.next().unwrap_or_default());
            buffer
        })
        .bench_local_refs(|buffer| process(&world, buffer, length));
}

fn process(world: &World, buffer: &mut [u8], length: usize) -> Verdict {
    let mut packet = Packet::new(buffer, length);
    world.director.process(black_box(&mut packet), world.now())
}

fn large() -> DirectorConfig {
    DirectorConfig {
        limits: TableLimits { connections: 5_000_000, half_open: 5_000_000 },
        ..settings()
    }
}

fn to_buffer(packet: &[u8]) -> ([u8; 128], usize) {
    let mut buffer = [0; 128];
    buffer[..packet.len()].copy_from_slice(packet);
    (buffer, packet.len())
}
