//! A log that nobody reads, or that cannot be written: traffic goes on, and so does everything else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::director::{command, stats};
use crate::server::web_servers;
use crate::service_manager::Listener;
use crate::stage::{SERVER_PORT, Stage, wait_until};

trials! {
    once closed_log_stops_nothing,
    once log_that_nobody_reads_stops_nothing,
    once full_disk_stops_nothing,
    once log_in_the_journal_has_priorities_and_no_time,
}

/// Ends when dropped.
struct Director(Child);

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Director {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().expect("a pid")), signal).expect("it runs");
    }

    /// Its exit status after SIGTERM.
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        wait_until("its end", || self.0.try_wait().expect("a child").is_some());
        self.0.wait().expect("a child").code()
    }
}

/// A director that logs all it can to `stderr` serves clients, reads its configuration again, and ends well.
/// Returns how many lines it counts as lost.
fn live_with(stderr: impl Into<Stdio>) -> u64 {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let listener = Listener::new(&stage);
    let config = stage.configure("", &stage.service(false, "rr"));
    let mut command = command(&config);
    command.args(["--log-level", "trace"]).stdin(Stdio::null()).stdout(Stdio::null());
    listener.tell(&mut command).stderr(stderr);
    let director = Director(stage.lab.director.run(|| command.spawn()).expect("wvs runs"));
    // What it holds of the log is its own.
    drop(command);
    assert!(listener.hear().starts_with("READY=1\n"));

    for client in 1..=8 {
        assert_eq!(stage.who_answers(client, false), "server1");
    }
    std::fs::write(&config, "services: nonsense").unwrap();
    director.signal(Signal::SIGHUP);
    assert!(listener.hear().starts_with("RELOADING=1\n"));
    assert!(listener.hear().contains("the last reload was refused"));
    assert_eq!(stage.who_answers(1, false), "server1");
    let lost = stats(&stage.socket_of("wvs")).log_lines_lost;

    assert_eq!(director.stop(), Some(0));
    lost
}

fn closed_log_stops_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert!(live_with(writer) > 0);
}

fn log_that_nobody_reads_stops_nothing() {
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    // What waits for a reader is not lost yet.
    live_with(writer);
    drop(reader);
}

fn full_disk_stops_nothing() {
    assert!(live_with(File::options().write(true).open("/dev/full").unwrap()) > 0);
}

fn log_in_the_journal_has_priorities_and_no_time() {
    let stage = Stage::new(1);
    let listener = Listener::new(&stage);
    let (mut reader, writer) = io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let metadata = writer.metadata().unwrap();
    let empty = "  - { name: empty, vip: 192.0.2.1, port: 80, servers: [] }\n";
    let config = stage.configure("", &(stage.service(false, "rr") + empty));
    let mut command = command(&config);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()));
    listener.tell(&mut command).stderr(writer);
    let director = Director(stage.lab.director.run(|| command.spawn()).expect("wvs runs"));
    drop(command);
    assert!(listener.hear().starts_with("READY=1\n"));
    assert_eq!(director.stop(), Some(0));

    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert!(log.lines().any(|line| line.starts_with("<6>ready version=")), "{log}");
    assert!(
        log.lines().any(|line| line.starts_with("<4>") && line.contains("no real servers")),
        "{log}"
    );
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
}
