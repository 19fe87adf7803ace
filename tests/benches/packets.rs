//! Nanoseconds of the director for one packet, without any device: parse, look-up, state, rewrite.
//!
//! `cargo bench -p wvs-tests --bench packets`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{ACK, SYN, at, tcp, udp};
use wvs_tests::world::{Always, ServiceSpec, World, settings};

fn main() {
    divan::main();
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
}

const KINDS: [Kind; 4] = [Kind::TcpV4, Kind::TcpV6, Kind::UdpV4, Kind::UdpV6];

/// Packets handed to the director in one measured call.
const BATCH: usize = 256;

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
        let settings = DirectorConfig { connections_max: 5_000_000, ..settings() };
        let service = ServiceSpec::new(self.protocol(), self.vip(), &[self.server()])
            .scheduler(Always(Pick::Server(0)));
        let world = World::with(settings, vec![service]);
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
#[divan::bench(args = KINDS, consts = [1_000, 10_000, 100_000], sample_count = 1_000)]
fn established<const CONNECTIONS: u32>(bencher: Bencher<'_, '_>, kind: Kind) {
    let (world, order) = kind.world(CONNECTIONS);
    let (template, length) = to_buffer(&kind.packet(0, ACK));
    let mut next = order.iter().cycle();
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let mut buffers = vec![template; BATCH];
            for (buffer, n) in buffers.iter_mut().zip(next.by_ref()) {
                kind.address(buffer, *n);
            }
            buffers
        })
        .bench_local_refs(|buffers| {
            for buffer in buffers {
                let mut packet = Packet::new(buffer, length);
                let verdict = world.director.process(black_box(&mut packet), world.now());
                debug_assert_eq!(verdict, Verdict::Forward);
                let _ = black_box(verdict);
            }
        });
}

/// A packet that is dropped because nothing knows it.
#[divan::bench(args = KINDS)]
fn late_reply(bencher: Bencher<'_, '_>, kind: Kind) {
    let (world, _) = kind.world(1_000);
    let reply = match kind.protocol() {
        Protocol::Tcp => tcp(at(kind.server()), kind.client(2_000), ACK),
        _ => udp(at(kind.server()), kind.client(2_000), b""),
    };
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| (0..BATCH).map(|_| to_buffer(&reply)).collect::<Vec<_>>())
        .bench_local_refs(|buffers| {
            for (buffer, length) in buffers {
                let mut packet = Packet::new(buffer, *length);
                let _ = black_box(world.director.process(black_box(&mut packet), world.now()));
            }
        });
}

fn to_buffer(packet: &[u8]) -> ([u8; 128], usize) {
    let mut buffer = [0; 128];
    buffer[..packet.len()].copy_from_slice(packet);
    (buffer, packet.len())
}
