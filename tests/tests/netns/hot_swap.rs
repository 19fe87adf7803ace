//! Schedulers replaced again and again under real connections: nobody notices.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wvs::config::Reading;
use wvs::lab::CLIENTS;
use wvs::run::Running;
use wvs::seat::{Generation, SeatReport};
use wvs_plugin::{Host, Limits, Module, Source};

use crate::server::{Server, serve_web, servers, web_servers};
use crate::stage::{PORT, SERVER_PORT, Stage, ask};

trials! {
    once three_hundred_swaps_under_load_cost_no_connection,
    once order_of_rr_is_unbroken_across_swaps_of_rr,
}

const SWAPS: usize = 300;

/// Between two swaps: the whole takes some 20 s.
const SWAP_PAUSE: Duration = Duration::from_millis(60);

/// New connections a second, all clients together.
const CONNECTIONS_PER_SECOND: u32 = 200;

const DOWNLOADS: u64 = 50;

/// A download is sent in so many pieces, with a pause after each, so that it outlasts the swaps.
const PIECES: u64 = 220;
const PIECE_OCTETS: usize = 16 << 10;
const PIECE_PAUSE: Duration = Duration::from_millis(100);

/// Answers well ten times, then traps.
const TRAPS: &str = r#"(module
    (memory (export "memory") 2)
    (global $picks (mut i32) (i32.const 0))
    (func (export "wvs_abi") (result i32) (i32.const 0x10000))
    (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
        (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
    (func (export "wvs_schedule") (param $n i32) (result i32)
        (global.set $picks (i32.add (global.get $picks) (i32.const 1)))
        (if (i32.gt_u (global.get $picks) (i32.const 70)) (then (unreachable)))
        (i32.rem_u (global.get $picks) (local.get $n))))"#;

fn three_hundred_swaps_under_load_cost_no_connection() {
    let stage = Stage::new(3);
    let _servers = download_servers(&stage);
    let host = Host::new().expect("an engine");
    let traps = wat::parse_str(TRAPS).expect("a module");
    let modules = [
        built_in(&host, "rr"),
        built_in(&host, "wlc"),
        built_in(&host, "sh"),
        load(&host, Source::Octets { name: "traps", octets: &traps }),
    ];

    let load = Load::default();
    let report = thread::scope(|scope| {
        let director = scope.spawn(|| {
            // Also when something fails: nobody shall wait for a director that is gone.
            let _over = SetWhenDropped(&load.is_over);
            direct(&stage, "rr", |running| {
                load.is_ready.store(true, Relaxed);
                let seat = &running.seats()[0];
                // The downloads are under way first.
                wait_for(&load.downloads, DOWNLOADS);
                for turn in 0..SWAPS {
                    let module = modules[(turn + 1) % modules.len()].clone();
                    seat.swap(Generation { module, config: None }).expect("a swap");
                    thread::sleep(SWAP_PAUSE);
                }
                load.is_over.store(true, Relaxed);
                // The director stays until the last client has its answer.
                wait_for(&load.ended, u64::from(CLIENTS) + DOWNLOADS);
                seat.report()
            })
        });
        while !load.is_ready.load(Relaxed) && !director.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        for number in 0..DOWNLOADS {
            let (stage, load) = (&stage, &load);
            scope.spawn(move || load.note(download(stage, number, load)));
        }
        for client in 1..=CLIENTS {
            let (stage, load) = (&stage, &load);
            scope.spawn(move || load.note(fetch_again_and_again(stage, client, load)));
        }
        director.join().expect("a director")
    });

    let failures = load.failures.lock().expect("a list");
    assert!(failures.is_empty(), "{} failed: {failures:#?}", failures.len());
    assert_eq!(load.whole.load(Relaxed), DOWNLOADS, "downloads that came whole");
    let requests = load.requests.load(Relaxed);
    assert!(requests > 1_000, "{requests} requests");
    assert!(report.swaps >= u64::try_from(SWAPS).unwrap(), "{report:?}");
    println!("{requests} requests and {DOWNLOADS} downloads over {SWAPS} swaps");
}

fn order_of_rr_is_unbroken_across_swaps_of_rr() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let host = Host::new().expect("an engine");
    let rr = built_in(&host, "rr");
    let is_ready = AtomicBool::new(false);
    let is_over = AtomicBool::new(false);
    let (order, report) = thread::scope(|scope| {
        let director = scope.spawn(|| {
            direct(&stage, "rr", |running| {
                is_ready.store(true, Relaxed);
                let seat = &running.seats()[0];
                while !is_over.load(Relaxed) {
                    let generation = Generation { module: rr.clone(), config: None };
                    let swapped = seat.swap(generation).expect("a swap");
                    assert!(swapped.is_state_carried);
                }
                seat.report()
            })
        });
        while !is_ready.load(Relaxed) && !director.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let ask = |_| (!director.is_finished()).then(|| stage.fetch(1, false, "/name"));
        let order: Vec<_> = (0..300).map_while(ask).collect();
        is_over.store(true, Relaxed);
        (order, director.join().expect("a director"))
    });
    let order: Vec<_> = order.into_iter().map(|name| name.expect("an answer")).collect();
    let expected: Vec<_> = (0..300).map(|turn| format!("server{}", turn % 3 + 1)).collect();
    assert_eq!(order, expected, "over {} swaps", report.swaps);
    assert!(report.swaps > 20, "{} swaps", report.swaps);
}

/// What the clients did, and when they are to stop.
#[derive(Default)]
struct Load {
    is_ready: AtomicBool,
    is_over: AtomicBool,
    requests: AtomicU64,
    /// Downloads that have begun.
    downloads: AtomicU64,
    /// Downloads that came to their end with every octet right.
    whole: AtomicU64,
    /// Clients that are done.
    ended: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

/// Says so when it goes out of scope.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Load {
    fn note(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failures.lock().expect("a list").push(error.to_string());
        }
        self.ended.fetch_add(1, Relaxed);
    }
}

/// A new connection with a request each, at this client's part of the rate.
fn fetch_again_and_again(stage: &Stage, client: u8, load: &Load) -> io::Result<()> {
    let pause = Duration::from_secs(1) * u32::from(CLIENTS) / CONNECTIONS_PER_SECOND;
    let mut next = Instant::now();
    while !load.is_over.load(Relaxed) {
        let answer = ask(&mut stage.connect(client, false, PORT)?, "/name")?;
        if !answer.starts_with("server") {
            return Err(io::Error::other(format!("client {client} got {answer:?}")));
        }
        load.requests.fetch_add(1, Relaxed);
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// A download that outlasts the swaps, and whether it is what was sent.
fn download(stage: &Stage, number: u64, load: &Load) -> io::Result<()> {
    let client = u8::try_from(number % u64::from(CLIENTS)).unwrap_or(0) + 1;
    let mut stream = stage.connect(client, false, PORT)?;
    write!(stream, "GET /slow/{number} HTTP/1.1\r\n\r\n")?;
    load.downloads.fetch_add(1, Relaxed);
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    let mut sent = Sha256::new();
    for piece in 0..PIECES {
        sent.update(content(number, piece));
    }
    if Sha256::digest(&got) != sent.finalize() {
        return Err(io::Error::other(format!("download {number} came with other octets")));
    }
    load.whole.fetch_add(1, Relaxed);
    Ok(())
}

fn content(number: u64, piece: u64) -> Vec<u8> {
    let seed = (number * PIECES + piece).to_le_bytes();
    seed.iter().copied().cycle().take(PIECE_OCTETS).collect()
}

/// Web servers that answer `/slow/NUMBER` with a download.
fn download_servers(stage: &Stage) -> Vec<Server> {
    servers(&stage.lab, false, SERVER_PORT, |name| {
        let folder = stage.folder().to_owned();
        move |stream| serve(stream, &name, &folder)
    })
}

fn serve(mut stream: TcpStream, name: &str, folder: &Path) -> io::Result<()> {
    let mut start = [0; 10];
    let length = stream.peek(&mut start)?;
    if start[..length] != *b"GET /slow/" {
        return serve_web(stream, name, folder);
    }
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        request.push(octet[0].into());
    }
    let number = request["GET /slow/".len()..].split(' ').next().unwrap_or_default();
    let number = number.parse().map_err(io::Error::other)?;
    for piece in 0..PIECES {
        stream.write_all(&content(number, piece))?;
        thread::sleep(PIECE_PAUSE);
    }
    Ok(())
}

/// Runs a director of this process's in the stage's network while `act` acts on it.
fn direct(
    stage: &Stage,
    scheduler: &str,
    act: impl FnOnce(&Running) -> SeatReport + Send,
) -> SeatReport {
    let file = stage.configure("", &stage.service(false, scheduler));
    let (config, _) = Reading::of_file(&file).into_config().expect("a configuration");
    stage.lab.director.run(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let running = runtime.block_on(Running::start(&config, &file)).expect("a director");
        let report = act(&running);
        runtime.block_on(running.stop()).expect("everything taken back");
        report
    })
}

fn wait_for(count: &AtomicU64, expected: u64) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while count.load(Relaxed) < expected {
        assert!(Instant::now() < give_up, "{} of {expected}", count.load(Relaxed));
        thread::sleep(Duration::from_millis(10));
    }
}

fn built_in(host: &Host, name: &str) -> Module {
    load(host, Source::BuiltIn(name))
}

fn load(host: &Host, source: Source<'_>) -> Module {
    host.load(source, Limits::default()).expect("a plugin")
}
