//! What the plugin platform costs: loading, memory, swaps, and what packets notice of them.
//!
//! `cargo bench -p wvs-tests --bench platform -- [MODULE.wasm ..]`
//!
//! Modules that are named are loaded beside the built-in ones. What is compared takes turns in short
//! rounds; only the ratios mean much on another machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, thread};

use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;
use wvs_plugin::{Host, Instance, Limits, Module, ServerTable, Source, WasmScheduler, builtin};
use wvs_tests::packet::{ACK, SYN, at, tcp};
use wvs_tests::world::{ServiceSpec, World, settings};

const VIP: &str = "203.0.113.10:80";
const INSTANCES: usize = 1_000;
const ROUNDS: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let files: Vec<PathBuf> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).map(PathBuf::from).collect();
    // `cargo test` only sees whether it works.
    let (rounds, instances) = if is_bench { (ROUNDS, INSTANCES) } else { (1, 4) };
    let host = Host::new().expect("an engine");
    loading(&host, &files, rounds);
    memory(&host, &files, instances);
    swaps(&host, rounds);
    packets(&host, &files, rounds);
}

/// Every built-in and every file by its name, with its octets.
fn modules(files: &[PathBuf]) -> Vec<(String, Vec<u8>)> {
    let built_ins = builtin::NAMES
        .iter()
        .map(|name| ((*name).to_owned(), builtin::find(name).unwrap().to_vec()));
    let files = files.iter().map(|file| {
        let octets = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), octets)
    });
    built_ins.chain(files).collect()
}

fn load(host: &Host, name: &str, octets: &[u8]) -> Module {
    host.load(Source::Octets { name, octets }, Limits::default()).expect("a plugin")
}

/// Milliseconds from octets to an instance that knows 16 servers.
fn loading(host: &Host, files: &[PathBuf], rounds: usize) {
    println!("module            octets  compile ms  instance ms   start fuel  memory KiB");
    let world = world(16);
    let servers = &*world.servers(0);
    for (name, octets) in modules(files) {
        let (mut compile, mut make) = (Vec::new(), Vec::new());
        let rounds = if octets.len() > 1 << 20 { rounds.min(5) } else { rounds };
        let mut last = None;
        for _ in 0..rounds {
            let start = Instant::now();
            let module = load(host, &name, &octets);
            compile.push(millis(start));
            let start = Instant::now();
            let mut instance = Instance::new(&module, None).expect("an instance");
            instance.set_servers(&ServerTable::new(servers)).expect("servers taken");
            make.push(millis(start));
            last = Some(instance);
        }
        let instance = last.expect("a round");
        println!(
            "{name:15} {:8} {:11.2} {:12.3} {:12} {:11}",
            octets.len(),
            median(&mut compile),
            median(&mut make),
            instance.start_fuel_used(),
            instance.memory() >> 10,
        );
    }
}

/// Octets of memory that one more instance takes, once it has decided.
fn memory(host: &Host, files: &[PathBuf], instances: usize) {
    println!("\nmodule          KiB resident an instance ({instances} instances, 4 servers)");
    let world = world(4);
    let servers = &*world.servers(0);
    for (name, octets) in modules(files) {
        // Runtimes of megabytes are no plugins to have a thousand of.
        let instances = if octets.len() > 1 << 20 { instances.min(20) } else { instances };
        let module = load(host, &name, &octets);
        let before = resident();
        let mut kept: Vec<WasmScheduler> = Vec::with_capacity(instances);
        for _ in 0..instances {
            let mut scheduler = module.scheduler(None, servers).expect("a scheduler");
            wvs_core::scheduler::Scheduler::schedule(&mut scheduler, &request(), servers);
            kept.push(scheduler);
        }
        let each = resident().saturating_sub(before) / instances;
        println!("{name:15} {:.1}", each as f64 / 1024.0);
    }
}

/// Microseconds under the service's lock of putting one plugin in the place of another.
fn swaps(host: &Host, rounds: usize) {
    println!("\nswap                 servers   median us    max us");
    let times = rounds * 25;
    for n in [16, 256, 1024] {
        for [from, to] in
            [["rr", "rr"], ["rr", "wlc"], ["wlc", "sh"], ["sh", "mh"], ["lblc", "lblc"]]
        {
            let world = world(n);
            let service = &world.service(0);
            let servers = &*service.servers();
            let pair =
                [from, to].map(|name| load(host, name, builtin::find(name).expect("a built-in")));
            let first = pair[0].scheduler(None, servers).expect("a scheduler");
            drop(service.replace_scheduler(Box::new(first)));
            let mut micros = Vec::new();
            for turn in 0..times {
                let next = pair[(turn + 1) % 2].scheduler(None, servers).expect("a scheduler");
                world.forward(&tcp(client(turn), at(VIP), SYN));
                let start = Instant::now();
                service
                    .change_scheduler(|present, servers| {
                        let present = WasmScheduler::of_mut(present).expect("a plugin");
                        present.succeed(next, servers, 100)
                    })
                    .expect("a swap");
                micros.push(start.elapsed().as_secs_f64() * 1e6);
            }
            let name = format!("{from} and {to}");
            let longest = micros.iter().copied().fold(0.0, f64::max);
            println!("{name:20} {n:7} {:11.1} {longest:9.1}", median(&mut micros));
        }
    }
}

/// Nanoseconds that packets take while nothing happens, while the scheduler is swapped all the
/// time, and while modules are loaded.
fn packets(host: &Host, files: &[PathBuf], rounds: usize) {
    let world = world(16);
    let service = &world.service(0);
    let servers = &*service.servers();
    let names = ["rr", "wlc", "sh"];
    let swapped = names.map(|name| load(host, name, builtin::find(name).expect("a built-in")));
    let first = swapped[0].scheduler(None, servers).expect("a scheduler");
    drop(service.replace_scheduler(Box::new(first)));
    let largest = modules(files).into_iter().max_by_key(|(_, octets)| octets.len()).expect("one");

    let is_over = AtomicBool::new(false);
    let activity = std::sync::atomic::AtomicUsize::new(0);
    let mut samples = [const { (Vec::new(), Vec::new()) }; 3];
    let mut swaps = 0_u64;
    let mut loads = 0_u64;
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut count = 0_u64;
            while !is_over.load(Relaxed) {
                if activity.load(Relaxed) != 1 {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let module = &swapped[usize::try_from(count).unwrap_or(0) % swapped.len()];
                let next = module.scheduler(None, servers).expect("a scheduler");
                service
                    .change_scheduler(|present, servers| {
                        WasmScheduler::of_mut(present)
                            .expect("a plugin")
                            .succeed(next, servers, 100)
                    })
                    .expect("a swap");
                count += 1;
                // Fifteen times as often as the test with three hundred swaps.
                thread::sleep(Duration::from_millis(4));
            }
            count
        });
        let loader = scope.spawn(|| {
            let mut count = 0_u64;
            while !is_over.load(Relaxed) {
                if activity.load(Relaxed) != 2 {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                drop(load(host, &largest.0, &largest.1));
                count += 1;
            }
            count
        });
        let mut number = 0;
        for _ in 0..rounds {
            for (what, (new, established)) in samples.iter_mut().enumerate() {
                activity.store(what, Relaxed);
                let end = Instant::now() + Duration::from_millis(300);
                while Instant::now() < end {
                    number += 1;
                    let client = client(number);
                    new.push(process(&world, &tcp(client, at(VIP), SYN)));
                    for _ in 0..4 {
                        established.push(process(&world, &tcp(client, at(VIP), ACK)));
                    }
                }
            }
        }
        is_over.store(true, Relaxed);
        swaps = swapper.join().expect("swaps");
        loads = loader.join().expect("loads");
    });
    println!(
        "\npackets while      first: median    p99  p99.9   established: median   p99  p99.9  (ns)"
    );
    let what = [
        "nothing happens".to_owned(),
        format!("{swaps} swaps"),
        format!("{loads} loads of {}", largest.0),
    ];
    for ((new, established), what) in samples.iter_mut().zip(what) {
        let of = |samples: &mut Vec<f64>| [0.5, 0.99, 0.999].map(|part| quantile(samples, part));
        let ([a, b, c], [d, e, f]) = (of(new), of(established));
        println!("{what:18} {a:14.0} {b:6.0} {c:6.0} {d:21.0} {e:5.0} {f:6.0}");
    }
}

fn process(world: &World, packet: &[u8]) -> f64 {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + wvs_core::packet::Packet::HEADROOM, 0);
    let mut packet = wvs_core::packet::Packet::new(&mut buffer, packet.len());
    let start = Instant::now();
    let _ = world.director.process(&mut packet, Moment::from_millis(1_000_000));
    start.elapsed().as_secs_f64() * 1e9
}

fn world(servers: usize) -> World {
    let addresses: Vec<_> =
        (0..servers).map(|n| format!("10.0.{}.{}:80", n / 200, n % 200 + 1)).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let limits = TableLimits { connections: 4_000_000, half_open: 4_000_000 };
    let settings = DirectorConfig { limits, ..settings() };
    World::with(settings, vec![ServiceSpec::new(Protocol::Tcp, VIP, &addresses)])
}

fn client(number: usize) -> SocketAddr {
    let number = u32::try_from(number).unwrap_or(0);
    let address = Ipv4Addr::from_bits(0x6440_0000 + (number >> 4));
    SocketAddr::from((address, 40_000 + u16::try_from(number & 15).unwrap_or(0)))
}

fn request() -> wvs_abi::Request {
    wvs_abi::Request { family: 4, protocol: 6, now_ms: 1, random: 2, ..Default::default() }
}

/// Octets of memory that the process has.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the list")]
    let place = (last as f64 * part) as usize;
    values.get(place).copied().unwrap_or(0.0)
}
