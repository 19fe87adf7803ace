//! The connection log from packets to lines: what the lines say, and that nothing that happens to
//! their file matters to anybody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tempfile::TempDir;
use wvs::clock::Clock;
use wvs::config::{ConnectionLogConfig, LogTarget};
use wvs::connection_log::ConnectionLog;
use wvs::logging::LogFormat;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{Director, DirectorConfig};
use wvs_core::packet::Packet;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_core::verdict::Verdict;
use wvs_tests::packet::{RST, SYN, at, tcp};
use wvs_tests::world::{Always, ServiceSpec, World, settings};

/// How long anything may take that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

const VIP: &str = "203.0.113.10:80";
const SERVER: &str = "10.0.0.1:8080";
const CLIENT: &str = "198.51.100.7:40000";

/// A director with its connection log.
struct Logged {
    director: Arc<Director>,
    clock: Clock,
    log: ConnectionLog,
    folder: TempDir,
}

impl Logged {
    fn new(services: Vec<ServiceSpec>) -> Self {
        let limits = TableLimits { connections: 200_000, half_open: 200_000 };
        let world = World::with(DirectorConfig { limits, ..settings() }, services);
        let (director, clock) = (Arc::new(world.director), Clock::start());
        let log = ConnectionLog::new(Arc::clone(&director), clock);
        Self { director, clock, log, folder: TempDir::new().unwrap() }
    }

    fn of_one_service() -> Self {
        Self::new(vec![ServiceSpec::new(Protocol::Tcp, VIP, &[SERVER])])
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("connections.log")
    }

    fn config(&self, format: LogFormat, rate: u32) -> ConnectionLogConfig {
        ConnectionLogConfig { target: LogTarget::File(self.path()), format, rate }
    }

    fn start(&self, format: LogFormat, rate: u32) {
        self.log.apply(Some(&self.config(format, rate))).unwrap();
    }

    fn send(&self, packet: &[u8]) {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + Packet::HEADROOM, 0);
        let packet = &mut Packet::new(&mut buffer, packet.len());
        assert_eq!(self.director.process(packet, self.clock.now()), Verdict::Forward);
    }

    /// So many connections, each of another client.
    fn open(&self, connections: u32) {
        let template = tcp(at(CLIENT), at(VIP), SYN);
        for n in 0..connections {
            let mut packet = template.clone();
            packet[12..16].copy_from_slice(&(0x2000_0000 + n).to_be_bytes());
            self.send(&packet);
        }
    }

    /// Ends the log and returns its lines.
    fn lines(&self) -> Vec<String> {
        self.log.stop();
        lines(&self.path())
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "never came to be: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A line without its time, which must be one of today.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    let time = humantime_of(time);
    let age = time.elapsed().unwrap_or_default();
    assert!(age < PATIENCE, "{line}");
    rest
}

fn humantime_of(time: &str) -> std::time::SystemTime {
    humantime::parse_rfc3339(time).unwrap_or_else(|error| panic!("{time}: {error}"))
}

#[test]
fn lines_for_people_say_who_talked_to_whom_and_how_it_ended() {
    let logged = Logged::of_one_service();
    logged.start(LogFormat::Text, 1_000);
    logged.send(&tcp(at(CLIENT), at(VIP), SYN));
    logged.send(&tcp(at(SERVER), at(CLIENT), RST));
    logged.send(&tcp(at(CLIENT), at(VIP), SYN));
    let lines = logged.lines();
    let lines: Vec<_> = lines.iter().map(|line| without_time(line)).collect();
    let whom =
        "service-1 tcp 198.51.100.7:40000 -> 203.0.113.10:80 -> 10.0.0.1:8080 gen=0 fallback";
    assert_eq!(
        lines,
        [
            format!("open {whom}"),
            format!("end {whom} reason=replaced state=CLOSE duration_ms=0"),
            format!("open {whom}"),
            format!("end {whom} reason=stopped state=SYN_RECV duration_ms=0"),
        ]
    );
}

#[test]
fn lines_for_programs_are_objects_with_the_same() {
    let (vip, server) = ("[2001:db8:2::10]:80", "[fd00::1]:8080");
    let service = ServiceSpec::new(Protocol::Tcp, vip, &[server])
        .full_nat(&["fd09::1"], 2_000..=2_000)
        .scheduler(Always(Pick::Defer));
    let logged = Logged::new(vec![service]);
    logged.start(LogFormat::Json, 1_000);
    logged.send(&tcp(at("[2001:db8:1::7]:40000"), at(vip), SYN));
    let lines: Vec<Value> =
        logged.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [open, end] = lines.as_slice() else { panic!("{lines:?}") };
    for (line, event) in [(open, "open"), (end, "end")] {
        assert!(humantime_of(line["time"].as_str().unwrap()).elapsed().is_ok());
        let same = serde_json::json!({
            "event": event, "service": "service-1", "protocol": "tcp",
            "client": "[2001:db8:1::7]:40000", "vip": vip, "server": server,
            "local": "[fd09::1]:2000", "generation": 0, "fallback": true,
        });
        for (key, value) in same.as_object().unwrap() {
            assert_eq!(&line[key], value, "{key}");
        }
    }
    assert_eq!(open.as_object().unwrap().len(), 10);
    assert_eq!(end["reason"], "stopped");
    assert_eq!(end["state"], "SYN_RECV");
    assert!(end["duration_ms"].is_u64());
}

#[test]
fn every_connection_is_written_down_once_at_its_beginning_and_once_at_its_end() {
    let logged = Logged::of_one_service();
    logged.start(LogFormat::Text, 1_000_000);
    logged.open(20_000);
    wait_until("all are opened", || logged.log.counters().written.get() == 20_000);
    let mut lines = logged.lines();
    assert_eq!(lines.len(), 40_000);
    lines.sort_by_cached_key(|line| line.split(' ').nth(4).map(str::to_owned));
    for pair in lines.chunks(2) {
        let events: Vec<_> = pair.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert!(events.contains(&"open") && events.contains(&"end"), "{pair:?}");
    }
    let counters = logged.log.counters();
    assert_eq!((counters.above_rate.get(), counters.not_written.get()), (0, 0));
    assert_eq!(logged.log.queue_full(), 0);
}

#[test]
fn lines_above_the_rate_are_left_out_and_a_line_says_how_many() {
    let logged = Logged::of_one_service();
    logged.start(LogFormat::Json, 100);
    logged.open(5_000);
    let lines: Vec<Value> =
        logged.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (left_out, others): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["event"] == "left_out");
    // However many seconds it took.
    let said: u64 = left_out.iter().map(|line| line["above_rate"].as_u64().unwrap()).sum();
    assert_eq!(said + u64::try_from(others.len()).unwrap(), 10_000);
    assert_eq!(said, logged.log.counters().above_rate.get());
    assert!(others.len() >= 100 && others.len() % 100 == 0, "{}", others.len());
}

#[test]
fn log_goes_on_in_a_new_file_when_the_old_one_was_moved_away() {
    let logged = Logged::of_one_service();
    logged.start(LogFormat::Text, 1_000);
    logged.open(1);
    let counters = logged.log.counters();
    wait_until("the first line is written", || counters.written.get() == 1);
    let moved = logged.folder.path().join("connections.log.1");
    fs::rename(logged.path(), &moved).unwrap();
    // As a reload does that changes nothing about the log.
    logged.start(LogFormat::Text, 1_000);
    wait_until("the file is there again", || logged.path().exists());
    assert_eq!(logged.lines().len(), 1, "the end");
    assert_eq!(lines(&moved).len(), 1, "the beginning");
}

#[test]
fn log_is_switched_on_off_and_elsewhere_while_packets_pass() {
    let logged = Logged::of_one_service();
    logged.open(1);
    logged.start(LogFormat::Text, 1_000);
    let elsewhere = logged.folder.path().join("elsewhere.log");
    let target = LogTarget::File(elsewhere.clone());
    let config = ConnectionLogConfig { target, ..logged.config(LogFormat::Text, 1_000) };
    logged.send(&tcp(at("198.51.100.7:1"), at(VIP), SYN));
    logged.log.apply(Some(&config)).unwrap();
    logged.send(&tcp(at("198.51.100.7:2"), at(VIP), SYN));
    logged.log.apply(None).unwrap();
    logged.send(&tcp(at("198.51.100.7:3"), at(VIP), SYN));
    assert!(!logged.log.is_on());
    logged.log.stop();
    assert!(lines(&logged.path())[0].contains(" 198.51.100.7:1 "));
    assert!(lines(&elsewhere)[0].contains(" 198.51.100.7:2 "));
    assert_eq!((lines(&logged.path()).len(), lines(&elsewhere).len()), (1, 1));
}

#[test]
fn log_that_cannot_be_opened_is_refused_and_the_present_one_stays() {
    let logged = Logged::of_one_service();
    logged.start(LogFormat::Text, 1_000);
    let target = LogTarget::File(logged.folder.path().join("missing/log"));
    let config = ConnectionLogConfig { target, ..logged.config(LogFormat::Text, 1_000) };
    let error = logged.log.apply(Some(&config)).unwrap_err().to_string();
    assert!(error.contains("cannot write to the connection log") && error.contains("missing/log"));
    logged.open(1);
    assert_eq!(logged.lines().len(), 2);
}

#[test]
fn full_disk_stops_no_packet_and_is_counted() {
    let logged = Logged::of_one_service();
    let target = LogTarget::File("/dev/full".into());
    let config = ConnectionLogConfig { target, ..logged.config(LogFormat::Text, 1_000_000) };
    logged.log.apply(Some(&config)).unwrap();
    logged.open(1_000);
    let counters = logged.log.counters();
    wait_until("all are given up", || counters.not_written.get() >= 1_000);
    assert_eq!(logged.director.connections(), 1_000);
    assert_eq!(counters.written.get(), 0);
    assert!(logged.log.latest_error().unwrap().contains("No space left"));
    logged.log.stop();
}

#[test]
fn pipe_that_is_not_read_stops_no_packet_and_does_not_hang_the_end() {
    let logged = Logged::of_one_service();
    mkfifo(&logged.path(), Mode::S_IRWXU).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(logged.path()).unwrap();
    logged.start(LogFormat::Text, 1_000_000);
    logged.open(100_000);
    assert_eq!(logged.director.connections(), 100_000);
    logged.log.stop();
    let counters = logged.log.counters();
    let all = counters.written.get() + counters.not_written.get() + logged.log.queue_full();
    // And at most one line about lines that are not there for each second that it took.
    assert!((200_000..200_060).contains(&all), "{all}");
    assert!(counters.not_written.get() > 0);
    drop(reader);
}
