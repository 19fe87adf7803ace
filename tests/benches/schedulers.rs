//! Nanoseconds of one scheduler decision: as a plugin in wasm and as the same source built
//! natively, behind the same lock and with the same refreshing of counters and signals.
//!
//! `cargo bench -p wvs-tests --bench schedulers -- [NAME ..]`
//!
//! The contestants take turns in short rounds, so that what the machine does besides hits all of
//! them alike; the table shows the medians. Only the ratios mean much on another machine.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use wvs_abi::{Request, Server, ServerInfo, Signals, caps, encode_address};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::random::Random;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler, weighted_least_connections};
use wvs_core::service::Protocol;
use wvs_plugin::{Host, Limits, Source, builtin};
use wvs_tests::packet::{SYN, at, tcp};
use wvs_tests::world::{ServiceSpec, World, settings};

const SERVERS: [usize; 4] = [3, 16, 256, 1024];
const PICKS_PER_ROUND: usize = 1024;

/// A scheduler as a virtual service has it.
type Seat = Mutex<Box<dyn Scheduler>>;

/// A scheduler built natively, shown its servers as the plugin host shows them.
struct Native<S> {
    scheduler: S,
    table: Vec<Server>,
    signals: Vec<Signals>,
}

impl<S: wvs_sdk::Scheduler + Send + 'static> Native<S> {
    fn seat(servers: &[Arc<RealServer>]) -> Seat {
        let scheduler = S::new("").unwrap();
        let mut native = Self { scheduler, table: Vec::new(), signals: Vec::new() };
        native.servers_changed(servers);
        Mutex::new(Box::new(native))
    }
}

impl<S: wvs_sdk::Scheduler + Send + 'static> Scheduler for Native<S> {
    fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Pick {
        if S::CAPS & caps::COUNTERS != 0 {
            for (record, server) in self.table.iter_mut().zip(servers) {
                (record.active, record.inactive) = (server.active(), server.inactive());
            }
        }
        if S::CAPS & caps::SIGNALS != 0 {
            self.signals.clear();
            self.signals.extend(servers.iter().map(|server| server.signals()));
            self.scheduler.signals_refreshed(&self.signals);
        }
        match self.scheduler.schedule(request, &self.table) {
            wvs_sdk::Pick::Server(index) => Pick::Server(index),
            wvs_sdk::Pick::NoServer => Pick::NoServer,
            wvs_sdk::Pick::Defer => Pick::Defer,
        }
    }

    fn servers_changed(&mut self, servers: &[Arc<RealServer>]) {
        let info: Vec<ServerInfo> = servers.iter().map(|server| server.info()).collect();
        self.scheduler.server_info_changed(&info);
        self.table = servers.iter().map(|server| server.record()).collect();
        self.scheduler.servers_changed(&self.table);
    }
}

/// What the director does when a plugin fails.
struct Fallback;

impl Scheduler for Fallback {
    fn schedule(&mut self, _: &Request, servers: &[Arc<RealServer>]) -> Pick {
        weighted_least_connections(servers, |_| true).map_or(Pick::NoServer, Pick::Server)
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}

/// Fills servers unevenly.
struct Uneven;

impl Scheduler for Uneven {
    fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Pick {
        Pick::Server(usize::try_from(request.random).unwrap() % servers.len())
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}

/// Makes the native contestant of each built-in scheduler.
fn native(name: &str, servers: &[Arc<RealServer>]) -> Seat {
    match name {
        "dh" => Native::<wvs_dh::DestinationHashing>::seat(servers),
        "fo" => Native::<wvs_fo::WeightedFailover>::seat(servers),
        "hrw" => Native::<wvs_hrw::RendezvousHashing>::seat(servers),
        "lblc" => Native::<wvs_lblc::LocalityBased>::seat(servers),
        "lblcr" => Native::<wvs_lblcr::LocalityBasedReplicated>::seat(servers),
        "lc" => Native::<wvs_lc::LeastConnections>::seat(servers),
        "lrt" => Native::<wvs_lrt::LeastResponseTime>::seat(servers),
        "mh" => Native::<wvs_mh::MaglevHashing>::seat(servers),
        "nq" => Native::<wvs_nq::NeverQueue>::seat(servers),
        "ovf" => Native::<wvs_ovf::WeightedOverflow>::seat(servers),
        "rr" => Native::<wvs_rr::RoundRobin>::seat(servers),
        "sed" => Native::<wvs_sed::ShortestExpectedDelay>::seat(servers),
        "sh" => Native::<wvs_sh::SourceHashing>::seat(servers),
        "swrr" => Native::<wvs_swrr::SmoothWeightedRoundRobin>::seat(servers),
        "twos" => Native::<wvs_twos::TwoChoices>::seat(servers),
        "wlc" => Native::<wvs_wlc::WeightedLeastConnections>::seat(servers),
        "wrr" => Native::<wvs_wrr::WeightedRoundRobin>::seat(servers),
        other => panic!("no native build of {other}: add it here"),
    }
}

/// A world whose one service has so many servers with some twenty connections each, of weights 1 to
/// 10.
fn world(servers: usize) -> World {
    let addresses: Vec<_> =
        (0..servers).map(|n| format!("10.0.{}.{}:80", n / 200, n % 200 + 1)).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let service = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:80", &addresses).scheduler(Uneven);
    let connections = servers * 20;
    let settings = DirectorConfig {
        limits: TableLimits { connections, half_open: connections },
        ..settings()
    };
    let world = World::with(settings, vec![service]);
    for (_, client) in (0..connections).zip(clients()) {
        world.forward(&tcp(client, at("203.0.113.10:80"), SYN));
    }
    for (server, weight) in world.servers(0).iter().zip((1..=10).cycle()) {
        server.set_weight(weight);
    }
    world
}

/// Different clients.
fn clients() -> impl Iterator<Item = SocketAddr> {
    (1..=u16::MAX).map(|n| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(192, 0, high, low), 40_000))
    })
}

fn requests() -> Vec<Request> {
    let mut random = Random::new(1);
    let request = |client: SocketAddr| Request {
        family: 4,
        protocol: 6,
        client_port: client.port(),
        virtual_port: 80,
        service_id: 1,
        client_address: encode_address(client.ip()),
        virtual_address: encode_address(Ipv4Addr::new(203, 0, 113, 10).into()),
        now_ms: 1_000_000,
        random: random.next(),
        ..Request::default()
    };
    clients().take(PICKS_PER_ROUND).map(request).collect()
}

/// Nanoseconds a pick over one round.
fn round(seat: &Seat, requests: &[Request], servers: &[Arc<RealServer>]) -> f64 {
    let start = Instant::now();
    for request in requests {
        let pick = seat.lock().unwrap().schedule(black_box(request), servers);
        assert_ne!(black_box(pick), Pick::Defer);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(requests.len()).unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo bench` says so; otherwise this is a test, and one round shows that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 301 } else { 1 };
    let host = Host::new().unwrap();
    let requests = requests();
    let worlds = SERVERS.map(world);
    println!("scheduler  servers   wasm ns  native ns  ratio  fallback ns");
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &&&str| wanted.is_empty() || wanted.iter().any(|other| other == **name);
    for name in builtin::NAMES.iter().filter(is_wanted) {
        let module = host.load(Source::BuiltIn(name), Limits::default()).unwrap();
        for world in &worlds {
            let servers = &*world.servers(0);
            let wasm = module.scheduler(None, servers).unwrap();
            let native = native(name, servers);
            let seats: [Seat; 3] =
                [Mutex::new(Box::new(wasm)), native, Mutex::new(Box::new(Fallback))];
            let mut results = [const { Vec::new() }; 3];
            for _ in 0..rounds {
                for (seat, results) in seats.iter().zip(&mut results) {
                    results.push(round(seat, &requests, servers));
                }
            }
            let [wasm, native, fallback] = results.map(median);
            let (n, ratio) = (servers.len(), wasm / native);
            println!("{name:9} {n:8} {wasm:9.1} {native:10.1} {ratio:6.2} {fallback:12.1}");
        }
    }
}
