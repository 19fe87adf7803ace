//! What it costs to be seen: the time of a scrape of `/metrics` with many services, and how much of
//! its throughput a director loses to the connection log.
//!
//! `cargo bench -p wvs-tests --bench seeing`, in about a minute.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wvs::clock::Clock;
use wvs::config::{ConnectionLogConfig, LogTarget, Reading};
use wvs::connection_log::ConnectionLog;
use wvs::control::snapshot::{AdminSnapshot, DeviceSnapshot, ServiceSnapshot, StatsSnapshot};
use wvs::deployment::Deployment;
use wvs::logging::LogFormat;
use wvs::metrics::Scrape;
use wvs::metrics::counters::{LineTotals, ReloadTotals, SweepTotals};
use wvs::metrics::process::Process;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{Director, DirectorConfig};
use wvs_core::packet::Packet;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_plugin::Host;
use wvs_tests::packet::{ACK, FIN, SYN, at, receive, tcp};
use wvs_tests::world::{ServiceSpec, World, settings};

/// Scrapes of each kind.
const ROUNDS: u32 = 20;

fn main() {
    // `cargo bench` says so; otherwise this is a test, and little shows that it works.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    scrapes(if is_bench { 1_000 } else { 3 });
    let (rounds, time) =
        if is_bench { (9, Duration::from_secs(1)) } else { (1, Duration::from_millis(20)) };
    for format in [LogFormat::Text, LogFormat::Json] {
        connection_log(format, rounds, time);
    }
}

/// Scrapes of so many services with 16 servers each.
fn scrapes(services: usize) {
    let mut text = "services:\n".to_owned();
    for service in 0..services {
        let (high, low) = (service / 250, service % 250);
        text += &format!(
            "  - {{ name: service-{service}, vip: 203.0.{high}.{}, port: 80, scheduler: wlc, \
             servers: [",
            low + 1
        );
        for server in 1..=16 {
            text += &format!("{{ address: 10.{high}.{low}.{server}, port: 8080 }}, ");
        }
        text += "] }\n";
    }
    let reading = Reading::of_text(Path::new("/wvs.yaml"), &text);
    assert!(reading.is_usable(), "{:?}", reading.problems());
    let deployment =
        Deployment::new(reading.config(), &Host::new().unwrap(), || 1, Moment::default()).unwrap();
    let Deployment { services, seats, .. } = deployment;
    let director = Director::new(settings(), services);
    for with_servers in [false, true] {
        let mut times = Vec::new();
        let processor_time = || Process::look().unwrap().processor_time;
        let before = processor_time();
        let mut octets = 0;
        let mut lines = 0;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let scrape = Scrape {
                stats: StatsSnapshot {
                    version: "1".to_owned(),
                    uptime_seconds: 7,
                    log_lines_lost: 9,
                    admin: AdminSnapshot { bad_tokens: 40, locked_out: 41 },
                    connections: (&director).into(),
                    packets: (&director).into(),
                    fragments: director.fragments().into(),
                    device: DeviceSnapshot {
                        name: "wvs0".to_owned(),
                        mtu: 1_500,
                        queues: 2,
                        offload: "tcp+udp".to_owned(),
                        read: 0,
                        written: 0,
                        read_errors: 0,
                        write_errors: 0,
                        queue_full: 0,
                    },
                },
                services: seats
                    .iter()
                    .map(|seat| ServiceSnapshot::of(seat, Moment::default()))
                    .collect(),
                plugins: seats.iter().map(|seat| seat.as_ref().into()).collect(),
                sweeps: SweepTotals::default(),
                reloads: ReloadTotals::default(),
                connection_log: LineTotals::default(),
                process: Process::look(),
                start_time_seconds: 0,
                with_servers,
            };
            let text = scrape.render();
            times.push(start.elapsed());
            octets = text.len();
            lines = text.lines().filter(|line| !line.starts_with('#')).count();
        }
        let busy = (processor_time() - before) / ROUNDS;
        times.sort_unstable();
        println!(
            "scrape of {} services x 16, with_servers: {with_servers:5}: {:.1} ms of a processor, \
             {:.1} ms (median) and {:.1} ms (worst) by the clock, {lines} series, {:.1} MB",
            seats.len(),
            busy.as_secs_f64() * 1e3,
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() - 1].as_secs_f64() * 1e3,
            f64::from(u32::try_from(octets).unwrap()) / 1e6,
        );
    }
}

/// Whole connections of six packets each, one after the other as fast as they go, with the log off and
/// on by turns; then 10,000 of them a second, and what the packets of the others have left.
fn connection_log(format: LogFormat, rounds: usize, time: Duration) {
    let folder = TempDir::new().unwrap();
    let target = LogTarget::File(folder.path().join("log"));
    let config = ConnectionLogConfig { target, format, rate: 1_000_000 };
    let (vip, server) = ("203.0.113.10:80", "10.0.0.1:8080");
    let limits = TableLimits { connections: 5_000_000, half_open: 5_000_000 };
    let spec = ServiceSpec::new(Protocol::Tcp, vip, &[server]);
    let world = World::with(DirectorConfig { limits, ..settings() }, vec![spec]);
    let run = Run { director: Arc::new(world.director), clock: Clock::start(), vip: at(vip) };
    let log = ConnectionLog::new(Arc::clone(&run.director), run.clock);
    let mut all = [(); 2].map(|()| Vec::new());
    let mut paced = [(); 2].map(|()| Vec::new());
    for round in 0..2 * rounds {
        let is_on = round % 2;
        log.apply((is_on == 1).then_some(&config)).unwrap();
        all[is_on].push(run.connections(time, None));
        paced[is_on].push(run.connections(time, Some(10_000.0)));
    }
    let [off, on] = all.map(median);
    println!(
        "connections of 6 packets as fast as they go, {format:?}: {off:.0}/s without the log, {on:.0}/s \
         with it: {:+.1} %",
        (on / off - 1.0) * 100.0
    );
    let [off, on] = paced.map(median);
    println!(
        "packets beside 10,000 connections a second, {format:?}: {off:.0}/s without the log, {on:.0}/s \
         with it: {:+.1} %",
        (on / off - 1.0) * 100.0
    );
    log.apply(None).unwrap();
    println!(
        "  {} lines written, {} lost in the queue",
        log.counters().written.get(),
        log.queue_full()
    );
}

struct Run {
    director: Arc<Director>,
    clock: Clock,
    vip: SocketAddr,
}

impl Run {
    /// For so long: connections as fast as they go, or so many a second and packets of an established
    /// connection in the rest of the time. Connections or packets a second.
    fn connections(&self, time: Duration, pace: Option<f64>) -> f64 {
        let client = at("198.51.100.7:1");
        let established = at("192.0.2.200:9999");
        let server = receive(&self.send(&tcp(established, self.vip, SYN))).destination;
        let ack = tcp(established, self.vip, ACK);
        let six = [
            tcp(client, self.vip, SYN),
            tcp(server, client, SYN | ACK),
            tcp(client, self.vip, ACK),
            tcp(client, self.vip, FIN | ACK),
            tcp(server, client, FIN | ACK),
            tcp(client, self.vip, ACK),
        ];
        let mut buffer = [0; 128];
        let (mut connections, mut packets) = (0_u32, 0_u32);
        let start = Instant::now();
        while start.elapsed() < time {
            let is_due = pace
                .is_none_or(|pace| f64::from(connections) < start.elapsed().as_secs_f64() * pace);
            if !is_due {
                for _ in 0..16 {
                    self.process(&mut buffer, &ack, None);
                    packets += 1;
                }
                continue;
            }
            // Clients come again after so many others that their connections are replaced.
            let port = u16::try_from(1_024 + connections % 20_000).unwrap();
            for (place, packet) in six.iter().enumerate() {
                let is_reply = matches!(place, 1 | 4);
                self.process(&mut buffer, packet, Some((is_reply, port)));
            }
            connections += 1;
        }
        let count = if pace.is_some() { packets } else { connections };
        f64::from(count) / start.elapsed().as_secs_f64()
    }

    /// Checksums do not matter here.
    fn process(&self, buffer: &mut [u8; 128], packet: &[u8], port: Option<(bool, u16)>) {
        buffer[..packet.len()].copy_from_slice(packet);
        if let Some((is_reply, port)) = port {
            let at = if is_reply { 22 } else { 20 };
            buffer[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
        let mut packet = Packet::new(buffer, packet.len());
        let _ = self.director.process(&mut packet, self.clock.now());
    }

    fn send(&self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + Packet::HEADROOM, 0);
        let mut packet = Packet::new(&mut buffer, packet.len());
        let _ = self.director.process(&mut packet, self.clock.now());
        packet.octets().to_vec()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
