//! What the director tells of itself, against what passed on the wire.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use wvs::control::{METRICS, fetch};
use wvs::lab;

use crate::capture::Capture;
use crate::director::{DirectorProcess, command};
use crate::server::{udp_echo, web_servers};
use crate::stage::{PORT, SERVER_PORT, Stage, run_well, wait_until};

trials! {
    both metrics_count_every_packet_on_the_wire,
    both every_connection_is_in_the_log,
    once signal_to_reload_opens_the_log_again_and_is_counted,
    once director_whose_log_pipe_is_closed_goes_on,
}

fn try_scrape(socket: &Path) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let octets = runtime.block_on(fetch(socket, METRICS)).ok()?;
    Some(String::from_utf8(octets).expect("text"))
}

/// The samples of a director: name with labels, and value.
fn scrape(socket: &Path) -> BTreeMap<String, u64> {
    let text = try_scrape(socket).expect("an answer");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Packets and octets that the kernel wrote to the device and read from it, as it counts them.
fn device_counts(stage: &Stage) -> [u64; 2] {
    let table = run_well(&stage.lab.director, "cat", &["/proc/thread-self/net/dev"]);
    let line = table.lines().find_map(|line| line.trim().strip_prefix("wvs0:")).expect("wvs0");
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // To the kernel everything that the director reads is sent.
    let (written, read) = (numbers[1], numbers[9]);
    [read, written]
}

/// The kernel's and the director's counts of the same packets: taken while none came, as the kernel
/// sends some of its own at any time.
fn counts(stage: &Stage) -> ([u64; 2], BTreeMap<String, u64>) {
    for _ in 0..200 {
        let device = device_counts(stage);
        // What the director has just read is counted in a moment.
        thread::sleep(Duration::from_millis(10));
        let metrics = scrape(&stage.socket_of("wvs"));
        if device_counts(stage) == device {
            return (device, metrics);
        }
    }
    panic!("packets come all the time");
}

fn metrics_count_every_packet_on_the_wire(is_ipv6: bool) {
    const DATAGRAMS: u64 = 100;
    let stage = Stage::new(2);
    for (number, host) in (1..).zip(&stage.lab.servers) {
        udp_echo(host, lab::server_address(number, is_ipv6), 5353);
    }
    let service = stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353);
    let config = stage.configure("metrics: { servers: true }", &service);
    let director = DirectorProcess::start(&stage.lab.director, &config);
    let capture = Capture::start(&stage.lab.client);
    let (device_before, before) = counts(&stage);

    for client in [1, 2, 3, 4] {
        let socket = stage.udp(client, is_ipv6, 53).unwrap();
        let mut answer = [0; 2_000];
        for turn in 0..DATAGRAMS / 4 {
            socket.send(&vec![b'x'; 1 + usize::try_from(turn).unwrap() * 50]).unwrap();
            socket.recv(&mut answer).expect("an answer");
        }
    }

    let (device_after, after) = counts(&stage);
    let captured = capture.stop(is_ipv6);
    let grown = |name: &str| after[name] - before[name];
    let octets = |is_from_vip: bool| -> u64 {
        let is_of_way = |packet: &&Vec<u8>| {
            captured.packets_from(lab::vip(is_ipv6)).any(|from| from == packet.as_slice())
                == is_from_vip
        };
        captured.packets.iter().filter(is_of_way).map(|packet| packet.len() as u64).sum()
    };
    let from_vip = captured.packets_from(lab::vip(is_ipv6)).count() as u64;
    let to_vip = captured.count as u64 - from_vip;
    assert_eq!((to_vip, from_vip), (DATAGRAMS, DATAGRAMS), "what was sent is on the wire");

    let name = if is_ipv6 { "udp-53-v6" } else { "udp-53-v4" };
    let of_service = |what: &str| grown(&format!("wvs_service_{what}{{service=\"{name}\"}}"));
    assert_eq!(of_service("in_packets_total"), to_vip);
    assert_eq!(of_service("out_packets_total"), from_vip);
    assert_eq!(of_service("in_octets_total"), octets(false));
    assert_eq!(of_service("out_octets_total"), octets(true));
    assert_eq!(of_service("connections_total"), 4);
    assert_eq!(grown("wvs_packets_total{verdict=\"forwarded\"}"), to_vip + from_vip);
    assert_eq!(grown("wvs_connections_opened_total"), 4);

    // The kernel's own count of the device, whatever else went by it.
    let [read, written] = [0, 1].map(|way| device_after[way] - device_before[way]);
    assert_eq!(grown("wvs_device_read_packets_total"), read);
    assert_eq!(grown("wvs_device_written_packets_total"), written);
    let verdicts = ["forwarded", "replied", "passed", "held", "dropped"];
    let decided: u64 = verdicts
        .iter()
        .map(|name| grown(&format!("wvs_packets_total{{verdict=\"{name}\"}}")))
        .sum();
    assert_eq!(decided, read, "each packet has one verdict");

    for number in [1, 2] {
        let address = std::net::SocketAddr::new(lab::server_address(number, is_ipv6), 5353);
        let of_server = |what: &str| {
            grown(&format!("wvs_server_{what}{{service=\"{name}\",server=\"{address}\"}}"))
        };
        assert_eq!(of_server("connections_total"), 2);
        assert_eq!(of_server("in_packets_total"), DATAGRAMS / 2);
        assert_eq!(of_server("out_packets_total"), DATAGRAMS / 2);
    }
    director.stop();
}

/// A director with a log of its connections.
fn start_logged(stage: &Stage, services: &str, format: &str) -> (DirectorProcess, PathBuf) {
    let log = stage.folder().join("connections.log");
    let head = format!("connection_log: {{ file: connections.log, format: {format} }}");
    let config = stage.configure(&head, services);
    (DirectorProcess::start(&stage.lab.director, &config), log)
}

fn every_connection_is_in_the_log(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let services = stage
        .service(is_ipv6, "rr")
        .replace("    servers:", "    timeouts: { time_wait: 1s }\n    servers:");
    let (director, log) = start_logged(&stage, &services, "json");

    let mut clients = Vec::new();
    for client in [1, 2] {
        let mut stream = stage.connect(client, is_ipv6, PORT).unwrap();
        clients.push(stream.local_addr().unwrap());
        crate::stage::ask(&mut stream, "/name").unwrap();
        let mut rest = Vec::new();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut rest);
    }
    let open = stage.connect(3, is_ipv6, PORT).unwrap();
    clients.push(open.local_addr().unwrap());
    let lines = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait_until("two connections end", || {
        lines().iter().filter(|line| line["event"] == "end").count() == 2
    });
    assert!(lines().iter().all(|line| line["event"] == "open" || line["reason"] == "closed"));
    director.stop();

    let lines = lines();
    for client in clients {
        let of_client: Vec<_> =
            lines.iter().filter(|line| line["client"] == client.to_string()).collect();
        let [opened, ended] = of_client[..] else { panic!("{client}: {lines:#?}") };
        assert_eq!((&opened["event"], &ended["event"]), (&"open".into(), &"end".into()));
        let is_open = client == open.local_addr().unwrap();
        assert_eq!(ended["reason"], if is_open { "stopped" } else { "closed" });
        for line in of_client {
            assert_eq!(line["generation"], 1);
            assert_eq!(line["fallback"], false);
            let vip = std::net::SocketAddr::new(lab::vip(is_ipv6), PORT);
            assert_eq!(line["vip"], vip.to_string());
        }
    }
    assert_eq!(lines.len(), 6);
}

fn signal_to_reload_opens_the_log_again_and_is_counted() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let (director, log) = start_logged(&stage, &stage.service(false, "rr"), "text");
    let written = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    stage.fetch(1, false, "/name").unwrap();
    wait_until("a line is written", || written() == 1);

    let moved = stage.folder().join("connections.log.1");
    fs::rename(&log, &moved).unwrap();
    director.signal(Signal::SIGHUP);
    wait_until("the file is there again", || log.exists());
    stage.fetch(2, false, "/name").unwrap();
    wait_until("the next line is written", || written() == 1);
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);

    // A file that is wrong changes nothing, but is told.
    let socket = stage.socket_of("wvs");
    let samples = scrape(&socket);
    assert_eq!(samples["wvs_reloads_total{result=\"done\"}"], 1);
    assert_eq!(samples["wvs_latest_reload_refused"], 0);
    fs::write(stage.folder().join("wvs.yaml"), "services: nonsense").unwrap();
    director.signal(Signal::SIGHUP);
    wait_until("the reload is refused", || scrape(&socket)["wvs_latest_reload_refused"] == 1);
    assert_eq!(scrape(&socket)["wvs_reloads_total{result=\"refused\"}"], 1);
    stage.fetch(3, false, "/name").unwrap();
    wait_until("the log goes on", || written() == 2);
    director.stop();
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Standard error, with both logs, is a pipe whose reader goes away.
fn director_whose_log_pipe_is_closed_goes_on() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let config = stage.configure("connection_log: { file: stderr }", &stage.service(false, "rr"));
    let mut command = command(&config);
    command.arg("--log-level").arg("trace").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let mut child = Killed(stage.lab.director.run(|| command.spawn()).expect("wvs runs"));
    let socket = stage.socket_of("wvs");
    wait_until("the director answers", || socket.exists() && try_scrape(&socket).is_some());
    drop(child.0.stderr.take());

    for client in 1..=4 {
        stage.fetch(client, false, "/name").unwrap();
    }
    let lost = "wvs_connection_log_left_out_total{reason=\"not_written\"}";
    wait_until("lines are given up", || scrape(&socket)[lost] >= 4);
    // Whatever the reload has to say cannot be said either.
    let pid = nix::unistd::Pid::from_raw(child.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
    wait_until("the reload is done", || scrape(&socket)["wvs_reloads_total{result=\"done\"}"] == 1);
    let sweeps = scrape(&socket)["wvs_sweeps_total"];
    wait_until("the table is still swept", || scrape(&socket)["wvs_sweeps_total"] > sweeps);
    assert_eq!(stage.fetch(5, false, "/name").unwrap(), "server1");
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}
