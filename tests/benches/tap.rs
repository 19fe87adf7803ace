//! What the packet recorder costs the packets: while nobody captures, and while somebody does.
//!
//! `cargo bench -p wvs-tests --bench tap`, in some ten seconds.
//!
//! Packets of established connections, as the packet loop handles them but for the device. Ratios
//! are to the director without a tap. What is recorded is taken away by another thread, as fast as it
//! comes; what is missed of it is shown.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wvs::tap::{CaptureRequest, Tap, TapPlace};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{Director, DirectorConfig};
use wvs_core::packet::Packet;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{at, udp};
use wvs_tests::world::{ServiceSpec, World, settings};

const CLIENTS: u16 = 1_000;

/// Packets timed together.
const BATCH: usize = 64;

const VIP: &str = "203.0.113.10:53";

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let batches = if is_bench { 10_000 } else { 20 };
    println!(
        "{:24}{:>8}{:>10}{:>8}{:>12}{:>10}",
        "", "octets", "ns", "ratio", "recorded", "missed"
    );
    for payload in [12, 1_400] {
        let run = Run::new(payload);
        let alone = run.time(batches, None);
        run.print("without a tap", alone, alone, (0, 0));
        let mut idle = TapPlace::new(Arc::default(), Arc::clone(&run.director), 0);
        let off = run.time(batches, Some(&mut idle));
        run.print("nobody captures", off, alone, (0, 0));
        for (name, request) in [
            ("nothing that is wanted", request(|request| request.ports = vec![1])),
            ("--snap 64", request(|request| request.snap = Some(64))),
            ("whole packets", request(|_| {})),
        ] {
            let tap = Arc::<Tap>::default();
            let mut place = TapPlace::new(Arc::clone(&tap), Arc::clone(&run.director), 0);
            let mut recording = tap.capture(&request, &run.director, "bench", 1).unwrap();
            let is_over = AtomicBool::new(false);
            let (on, counted) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        let octets = recording.next_octets().unwrap();
                        if black_box(octets).is_empty() {
                            std::thread::sleep(wvs::tap::TICK);
                        }
                    }
                    recording.statistics()
                });
                let on = run.time(batches, Some(&mut place));
                is_over.store(true, Relaxed);
                (on, reader.join().unwrap())
            });
            run.print(name, on, alone, (counted.matched, counted.missed));
        }
    }
}

fn request(set: impl FnOnce(&mut CaptureRequest)) -> CaptureRequest {
    let mut request = CaptureRequest::default();
    set(&mut request);
    request
}

/// A director with connections, and a packet of each.
struct Run {
    director: Arc<Director>,
    now: Moment,
    packets: Vec<Vec<u8>>,
}

impl Run {
    fn new(payload: usize) -> Self {
        let limits = TableLimits { connections: 10_000, half_open: 10_000 };
        let settings = DirectorConfig { limits, ..settings() };
        let spec = ServiceSpec::new(Protocol::Udp, VIP, &["10.0.0.11:5353"]);
        let world = World::with(settings, vec![spec]);
        let packets: Vec<_> = (1..=CLIENTS)
            .map(|port| {
                udp(SocketAddr::new(at("198.51.100.7:1").ip(), port), at(VIP), &vec![7; payload])
            })
            .collect();
        for packet in &packets {
            world.forward(packet);
        }
        let now = world.now();
        Self { director: Arc::new(world.director), now, packets }
    }

    /// Nanoseconds of a packet: the median of the batches, which other work on the machine does not
    /// move.
    fn time(&self, batches: usize, mut place: Option<&mut TapPlace>) -> f64 {
        let mut packets = self.packets.iter().cycle();
        let mut buffers = vec![vec![0; 2_048]; BATCH];
        let mut times = Vec::with_capacity(batches);
        for _ in 0..batches {
            for (buffer, packet) in buffers.iter_mut().zip(&mut packets) {
                buffer[..packet.len()].copy_from_slice(packet);
            }
            let length = self.packets[0].len();
            let start = Instant::now();
            for buffer in &mut buffers {
                let mut packet = Packet::new(buffer, length);
                let is_shown = place.as_mut().is_some_and(|place| place.look(&packet));
                let verdict = self.director.process(black_box(&mut packet), self.now);
                debug_assert_eq!(verdict, Verdict::Forward);
                if let Some(place) = place.as_mut().filter(|_| is_shown) {
                    place.show(verdict, packet.octets_mut(), true);
                }
            }
            times.push(start.elapsed());
        }
        times.sort_unstable();
        nanos(times[times.len() / 2])
    }

    fn print(&self, name: &str, nanos: f64, alone: f64, (recorded, missed): (u64, u64)) {
        let (octets, ratio) = (self.packets[0].len(), nanos / alone);
        println!("{name:24}{octets:>8}{nanos:>10.0}{ratio:>8.2}{recorded:>12}{missed:>10}");
    }
}

fn nanos(batch: Duration) -> f64 {
    batch.as_secs_f64() * 1e9 / BATCH as f64
}
