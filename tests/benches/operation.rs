//! What it takes to operate a director: the program `wvs` with a thousand services of sixteen real
//! servers each, from its start to what it has in memory; and what clients of a small one notice
//! of operating calls without a pause.
//!
//! `cargo bench -p wvs-tests --bench operation`, in about two minutes, with the rights that the
//! tests in namespaces need.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};
use wvs::control::{self, EXPLAIN, METRICS, Message, RELOAD, SERVICES, STATS};
use wvs::lab::{self, Host, Lab};
use wvs_tests::program;

const WVS: &str = env!("CARGO_BIN_EXE_wvs-under-test");

/// Real servers of each service, and hosts that they are on.
const SERVERS: u8 = 16;

const SERVER_PORT: u16 = 8080;

/// How long a director may take that does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ticks in a second in `/proc/PID/stat`: the same on every Linux, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Clients at once that the small director serves, and their rest between two requests: some load,
/// but processors are left over.
const LOAD_CLIENTS: u8 = 4;
const REST: Duration = Duration::from_millis(2);

/// What a director does after a reload has ended by then.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How much is measured.
struct Scale {
    services: u16,
    /// Calls of each kind.
    calls: u32,
    idle: Duration,
    /// Turns of each kind of operating under load, and how long each takes.
    turns: u32,
    turn: Duration,
}

fn main() {
    // `cargo bench` says so; otherwise this is a test, and little shows that it works.
    let scale = if std::env::args().any(|argument| argument == "--bench") {
        let (idle, turn) = (Duration::from_secs(10), Duration::from_secs(2));
        Scale { services: 1_000, calls: 15, idle, turns: 6, turn }
    } else {
        let (idle, turn) = (Duration::from_millis(100), Duration::from_millis(100));
        Scale { services: 3, calls: 2, idle, turns: 1, turn }
    };
    lab::isolate().expect("namespaces");
    let lab = Lab::build(SERVERS).expect("a network");
    let folder = tempfile::tempdir_in("/run").expect("a folder");
    many_services(&lab, folder.path(), &scale);
    under_load(&lab, folder.path(), &scale);
}

/// A director with its configuration. Killed when dropped.
struct Director<'a> {
    host: &'a Host,
    child: Child,
    config: PathBuf,
    socket: PathBuf,
}

impl<'a> Director<'a> {
    /// Starts a director and waits until it is ready, which took so long.
    fn start(host: &'a Host, folder: &Path, configuration: &str) -> (Self, Duration) {
        let (config, socket) = (folder.join("wvs.yaml"), folder.join("wvs.sock"));
        fs::write(&config, configuration).expect("a configuration");
        let mut command = program::command(WVS);
        command.arg("run").arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = host.run(|| command.spawn()).expect("wvs runs");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut seen = String::new();
        while !seen.contains(" ready ") {
            let Some(Ok(line)) = log.next() else { panic!("the director does not start: {seen}") };
            seen += &line;
            seen.push('\n');
        }
        let took = begin.elapsed();
        thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        (Self { host, child, config, socket }, took)
    }

    fn configure(&self, configuration: &str) {
        fs::write(&self.config, configuration).expect("a configuration");
    }

    /// Runs `wvs` with these arguments to its end, which must be a good one, and returns what it
    /// prints.
    fn wvs(&self, arguments: &[&str]) -> String {
        let mut command = program::command(WVS);
        command.args(arguments).arg("--socket").arg(&self.socket);
        let output = self.host.run(|| command.output()).expect("wvs runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What its control socket answers.
    fn fetch(&self, path: &str) -> Vec<u8> {
        block_on(control::fetch(&self.socket, path)).expect("an answer")
    }

    /// Has it change something over its control socket.
    fn tell(&self, path: &str, message: Message) {
        let told: Result<serde_json::Value, _> =
            block_on(control::tell(&self.socket, path, message));
        told.expect("an answer");
    }

    /// Seconds of processor time so far, of all its threads.
    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc");
        // The name in brackets may contain anything; behind it: state, parent, ...
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = |field: &str| field.parse::<f64>().expect("a number");
        fields.split_whitespace().skip(11).take(2).map(ticks).sum::<f64>() / TICKS_PER_SECOND
    }

    /// The same to the nanosecond, without threads that have ended.
    fn cpu_seconds_of_threads(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("/proc");
        let seconds = threads.flatten().filter_map(|thread| {
            let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some(schedule.split(' ').next()?.parse::<f64>().ok()? / 1e9)
        });
        seconds.sum()
    }

    /// Megabytes of memory that it has.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kilobytes = line.split_whitespace().next().and_then(|size| size.parse::<f64>().ok());
        kilobytes.expect("a size") * 1024.0 / 1e6
    }

    /// Ends it as an operator does, which takes so long.
    fn stop(mut self) -> Duration {
        let begin = Instant::now();
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        while self.child.try_wait().expect("a child").is_none() {
            assert!(begin.elapsed() < PATIENCE, "the director does not end");
            thread::sleep(Duration::from_millis(2));
        }
        begin.elapsed()
    }
}

impl Drop for Director<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// So many services of [`SERVERS`] real servers, no two of which are the same; the first server of
/// the first service has this weight.
fn configuration(folder: &Path, head: &str, services: u16, weight: u32) -> String {
    let socket = folder.join("wvs.sock");
    let mut text = format!("admin: {{ socket: \"{}\" }}\n{head}\nservices:\n", socket.display());
    for number in 0..services {
        let vip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 30, 0, 1).to_bits() + u32::from(number));
        let scheduler = match number % 10 {
            7 => "rr",
            8 => "sh",
            9 => "lc",
            _ => "wlc",
        };
        text += &format!(
            "  - name: service-{number}\n    vip: {vip}\n    port: 80\n    scheduler: {scheduler}\n    \
             servers:\n"
        );
        for host in 1..=SERVERS {
            let weight = if (number, host) == (0, 1) { weight } else { 1 };
            text += &format!(
                "      - {{ address: {}, port: {}, weight: {weight} }}\n",
                lab::server_address(host, false),
                SERVER_PORT + number,
            );
        }
    }
    text
}

fn many_services(lab: &Lab, folder: &Path, scale: &Scale) {
    let &Scale { services, calls, idle, .. } = scale;
    let of = |services, weight| configuration(folder, "", services, weight);
    let mut starts = Vec::new();
    let mut stops = Vec::new();
    for _ in 0..2 {
        let (director, took) = Director::start(&lab.director, folder, &of(services, 1));
        starts.push(took);
        stops.push(director.stop());
    }
    let (director, took) = Director::start(&lab.director, folder, &of(services, 1));
    starts.push(took);
    println!("{services} services of {SERVERS} real servers each");
    println!("{:44} {:>10} {:>10} {:>12}", "", "median", "least", "director CPU");
    row("start until ready", starts, Some(director.cpu_seconds()));
    let resident = director.resident();
    let before = director.cpu_seconds_of_threads();
    thread::sleep(idle);
    let idle = (director.cpu_seconds_of_threads() - before) / idle.as_secs_f64();

    let listed: serde_json::Value = serde_json::from_slice(&director.fetch(SERVICES)).unwrap();
    let listed = listed["services"].as_array().expect("services");
    assert_eq!(listed.len(), usize::from(services));
    assert_eq!(listed[0]["servers"].as_array().expect("servers").len(), usize::from(SERVERS));

    let measure = |what: &str, calls: u32, prepare: &dyn Fn(u32), call: &dyn Fn()| {
        let (mut times, mut busy) = (Vec::new(), 0.0);
        for turn in 1..=calls {
            prepare(turn);
            let (begin, before) = (Instant::now(), director.cpu_seconds());
            call();
            times.push(begin.elapsed());
            busy += director.cpu_seconds() - before;
        }
        row(what, times, Some(busy / f64::from(calls)));
    };
    let nothing = |_| ();
    measure("wvs reload, nothing changed", calls, &nothing, &|| {
        director.wvs(&["reload"]);
    });
    measure(
        "wvs reload, one weight changed",
        calls,
        &|turn| director.configure(&of(services, 1 + turn % 2)),
        &|| assert!(director.wvs(&["reload"]).contains("weight")),
    );
    measure(
        "wvs reload, one service added",
        calls,
        &|_| {
            director.configure(&of(services, 1));
            director.wvs(&["reload"]);
            // It looks at the routes that are left a moment later.
            thread::sleep(AFTERMATH);
            director.configure(&of(services + 1, 1));
        },
        &|| assert!(director.wvs(&["reload"]).contains("added")),
    );
    measure("wvs list", calls, &nothing, &|| {
        director.wvs(&["list"]);
    });
    measure("wvs list --json", calls, &nothing, &|| {
        director.wvs(&["list", "--json"]);
    });
    measure("GET /v1/services", calls, &nothing, &|| {
        director.fetch(SERVICES);
    });
    measure("wvs explain", calls, &nothing, &|| {
        assert!(director.wvs(&["explain", "10.10.0.11:4000", "10.30.0.1:80"]).contains("picks"));
    });
    let explain = format!("{EXPLAIN}?from=10.10.0.11:4000&to=10.30.0.1:80&protocol=tcp");
    measure("GET /v1/explain", 20 * calls, &nothing, &|| {
        director.fetch(&explain);
    });
    let scrape = || {
        let text = director.fetch(METRICS);
        assert!(text.len() > 1_000 * usize::from(services), "{} octets", text.len());
    };
    measure("GET /metrics", calls, &nothing, &scrape);
    let head = "metrics: { servers: true }";
    director.configure(&configuration(folder, head, services + 1, 1));
    director.wvs(&["reload"]);
    measure("GET /metrics, metrics.servers", calls, &nothing, &scrape);
    row("wvs --version, for comparison", times_of(calls, || version(&director)), None);
    let at_last = director.resident();
    stops.push(director.stop());
    row("stop", stops, None);
    println!("without traffic: {:.2} % of a processor", idle * 100.0);
    println!("resident: {resident:.0} MB after the start, {at_last:.0} MB after all of this");
}

fn times_of(calls: u32, call: impl Fn()) -> Vec<Duration> {
    let time = |_| {
        let begin = Instant::now();
        call();
        begin.elapsed()
    };
    (0..calls).map(time).collect()
}

/// What it takes to run the program at all.
fn version(director: &Director<'_>) {
    let mut command = Command::new(WVS);
    command.arg("--version");
    director.host.run(|| command.output()).expect("wvs runs");
}

fn row(what: &str, mut times: Vec<Duration>, cpu_seconds: Option<f64>) {
    times.sort_unstable();
    let cpu = cpu_seconds.map_or_else(|| "-".to_owned(), |cpu| format!("{:.1} ms", cpu * 1e3));
    let [median, least] =
        [times[times.len() / 2], times[0]].map(|time| format!("{:.1} ms", milliseconds(time)));
    println!("{what:44} {median:>10} {least:>10} {cpu:>12}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What an operator does while clients are served.
#[derive(Clone, Copy, Debug)]
enum Operating {
    Not,
    /// Over the control socket, one call after another.
    Calls,
    /// By the program `wvs`, one run of it after another, which takes processor time of its own.
    Programs,
    /// Not at all, but as many programs run, which do not speak to the director: what they alone
    /// take from clients and servers.
    OtherPrograms,
}

const ALL: [Operating; 4] =
    [Operating::Not, Operating::Calls, Operating::Programs, Operating::OtherPrograms];

/// Times of requests over the VIP to a service of three servers, with and without operating calls
/// by turns.
fn under_load(lab: &Lab, folder: &Path, scale: &Scale) {
    let servers = &lab.servers[..3];
    for (number, host) in (1..).zip(servers) {
        serve(host, SocketAddr::new(lab::server_address(number, false), SERVER_PORT));
    }
    let socket = folder.join("wvs.sock");
    let configuration = |weight: u32| {
        let mut text = format!(
            "admin: {{ socket: \"{}\" }}\nservices:\n  - name: web\n    vip: {}\n    port: 80\n    \
             scheduler: wlc\n    servers:\n",
            socket.display(),
            lab::VIP,
        );
        for (number, _) in (1..).zip(servers) {
            let address = lab::server_address(number, false);
            let weight = if number == 1 { weight } else { 1 };
            text += &format!(
                "      - {{ address: {address}, port: {SERVER_PORT}, weight: {weight} }}\n"
            );
        }
        text
    };
    let (director, _) = Director::start(&lab.director, folder, &configuration(1));
    let now = AtomicU8::new(u8::MAX);
    let times = [(); ALL.len()].map(|()| Mutex::new(Vec::new()));
    let failures = AtomicU64::new(0);
    let mut operated = [0_u32; ALL.len()];
    thread::scope(|scope| {
        for client in 1..=LOAD_CLIENTS {
            let (now, times, failures) = (&now, &times, &failures);
            let client = move || {
                let from = lab::client_address(client, false);
                while now.load(Relaxed) != OVER {
                    let kind = now.load(Relaxed);
                    let begin = Instant::now();
                    if request(from).is_err() {
                        failures.fetch_add(1, Relaxed);
                    } else if let Some(times) = times.get(usize::from(kind)) {
                        times.lock().unwrap().push(begin.elapsed());
                    }
                    thread::sleep(REST);
                }
            };
            scope.spawn(move || lab.client.run(client));
        }
        thread::sleep(scale.turn / 2);
        for _ in 0..scale.turns {
            for (place, (operating, operated)) in (0..).zip(ALL.into_iter().zip(&mut operated)) {
                now.store(place, Relaxed);
                let end = Instant::now() + scale.turn;
                while Instant::now() < end {
                    *operated += 1;
                    let configure =
                        |number: u32| director.configure(&configuration(1 + number % 2));
                    match operating {
                        Operating::Not => thread::sleep(scale.turn / 20),
                        Operating::Calls => {
                            configure(*operated);
                            call(&director);
                        }
                        Operating::Programs => {
                            configure(*operated);
                            run_programs(&director);
                        }
                        Operating::OtherPrograms => (0..PROGRAMS).for_each(|_| version(&director)),
                    }
                }
            }
        }
        now.store(OVER, Relaxed);
    });
    println!(
        "\n1 service of 3 real servers, {LOAD_CLIENTS} clients with {REST:?} between requests"
    );
    let columns = ["requests", "p50", "p99", "p99 to quiet", "operated"];
    println!(
        "{:13} {:>9} {:>9} {:>9} {:>13} {:>9}",
        "", columns[0], columns[1], columns[2], columns[3], columns[4]
    );
    let mut quiet = None;
    for ((operating, times), operated) in ALL.into_iter().zip(times).zip(operated) {
        let mut times = times.into_inner().unwrap();
        times.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| milliseconds(times[times.len() * percent / 100]));
        let ratio = p99 / *quiet.get_or_insert(p99);
        let operated = if matches!(operating, Operating::Not) { 0 } else { operated };
        println!(
            "{:13} {:>9} {p50:>6.2} ms {p99:>6.2} ms {ratio:>13.2} {operated:>9}",
            format!("{operating:?}"),
            times.len(),
        );
    }
    println!("failed requests: {}", failures.into_inner());
    director.stop();
}

/// What the clients are told at the end, instead of the place of a kind of operating.
const OVER: u8 = u8::MAX - 1;

/// Everything once, over the control socket.
fn call(director: &Director<'_>) {
    let server = SocketAddr::new(lab::server_address(2, false), SERVER_PORT).to_string();
    director.tell(RELOAD, Message::Empty);
    director.fetch(SERVICES);
    director.fetch(STATS);
    director.fetch(METRICS);
    director.fetch(&format!("{EXPLAIN}?from=10.10.0.20:4000&to={}:80&protocol=tcp", lab::VIP));
    let drain = Message::Json("{}".to_owned());
    director.tell(&control::server_path("web", &server, "drain"), drain);
    director.tell(&control::server_path("web", &server, "enable"), Message::Empty);
}

/// Programs that [`run_programs`] runs.
const PROGRAMS: u32 = 5;

/// The same by the program.
fn run_programs(director: &Director<'_>) {
    let server = SocketAddr::new(lab::server_address(2, false), SERVER_PORT).to_string();
    director.wvs(&["reload"]);
    director.wvs(&["list"]);
    director.fetch(METRICS);
    director.wvs(&["explain", "10.10.0.20:4000", &format!("{}:80", lab::VIP)]);
    director.wvs(&["drain", "web", &server]);
    director.wvs(&["enable", "web", &server]);
}

/// A real server that answers each request and closes first, so that clients do not run out of
/// ports. It ends with the process.
fn serve(host: &Host, address: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(address)).expect("a listener");
    host.spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away is no failure of the server.
            let _ = answer(stream);
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut octets = [0; 64];
    stream.read_exact(&mut octets[..16])?;
    stream.write_all(&octets)
}

/// A request over a connection of its own: connect, 16 octets, 64 octets of reply, the end.
fn request(from: IpAddr) -> io::Result<()> {
    let to = SocketAddr::new(lab::VIP, 80);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[7; 16])?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    if reply.len() == 64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
