//! The packet recorder at a real director: what is in its file is what went over the wire.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wvs::control::snapshot::StatsSnapshot;
use wvs::lab::{self, Lab};
use wvs_tests::recorded::{Recorded, RecordedPacket, whole_blocks};

use crate::capture::{Capture, compute_checksums};
use crate::director::{DirectorProcess, WVS, stats};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, wait_until};

trials! {
    both what_is_recorded_is_what_went_over_the_wire_and_what_was_counted,
    once large_pieces_are_recorded_as_they_are_and_replay_to_what_was_sent,
    once recorder_that_nobody_reads_is_in_nobody_s_way,
}

/// A `wvs capture` that has begun.
struct Recorder {
    child: Child,
    file: PathBuf,
}

impl Recorder {
    fn start(stage: &Stage, arguments: &[&str]) -> Self {
        let file = stage.folder().join("recorded.pcapng");
        let _ = fs::remove_file(&file);
        let child = Command::new(WVS)
            .arg("capture")
            .args(arguments)
            .arg("--socket")
            .arg(stage.socket_of("wvs"))
            .arg("-o")
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("wvs runs");
        wait_until("the recorder begins", || fs::metadata(&file).is_ok_and(|file| file.len() > 0));
        Self { child, file }
    }

    /// Waits until so many packets that came are in the file as `packets` says at the time, then
    /// interrupts: the file and what is said of it.
    #[track_caller]
    fn end(mut self, packets: impl Fn() -> u64) -> (Recorded, String) {
        wait_until("all packets are in the file", || {
            let file = fs::read(&self.file).expect("a file");
            let whole = whole_blocks(&file);
            !whole.is_empty() && inbound(&Recorded::read(whole)) == packets()
        });
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let status = self.child.wait().expect("a child");
        let mut told = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
        assert_eq!(status.code(), Some(0), "{told}");
        (Recorded::read(&fs::read(&self.file).expect("a file")), told)
    }
}

/// Packets that came.
fn inbound(recorded: &Recorded) -> u64 {
    recorded.packets.iter().filter(|packet| !packet.is_outbound()).count() as u64
}

/// Without what a router changes.
fn at_any_hop(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] = 0;
        packet[10..12].fill(0);
    } else {
        packet[7] = 0;
    }
    packet
}

fn what_is_recorded_is_what_went_over_the_wire_and_what_was_counted(is_ipv6: bool) {
    let stage = Stage::new(2);
    let Lab { client, servers, .. } = &stage.lab;
    compute_checksums(servers.iter().chain([client]));
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let config = stage.configure("closed_port: drop", &stage.service(is_ipv6, "rr"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    let socket = stage.socket_of("wvs");
    let dropped = |stats: &StatsSnapshot| stats.packets.dropped["closed_port"];
    let before = stats(&socket);
    // The kernel looks for routers by the device, too, at a time of its own.
    let vip = lab::vip(is_ipv6);
    let recorder = Recorder::start(&stage, &["--host", &vip.to_string()]);
    let wire = Capture::start(&stage.lab.client);

    for client in 1..=4 {
        stage.who_answers(client, is_ipv6);
        let socket = stage.udp(client, is_ipv6, 9).unwrap();
        socket.send(b"anybody?").unwrap();
    }

    wait_until("all is over", || dropped(&stats(&socket)) - dropped(&before) == 4);
    // First: the recorder has to have all that it has.
    let wire = wire.stop(is_ipv6);
    let (recorded, told) = recorder.end(|| {
        let now = stats(&socket);
        now.packets.forwarded - before.packets.forwarded + dropped(&now) - dropped(&before)
    });
    let after = stats(&socket);
    let read = inbound(&recorded);
    assert!(told.contains(&format!("{read} packets, ")), "{told}");
    assert_eq!(recorded.missed(), 0);
    let begin = |start: &str| {
        let begins = |packet: &&RecordedPacket| packet.comment.starts_with(start);
        recorded.packets.iter().filter(begins).count() as u64
    };
    let forwarded = after.packets.forwarded - before.packets.forwarded;
    assert_eq!((begin("in: forward to "), begin("out: forwarded to ")), (forwarded, forwarded));
    assert_eq!(begin("dropped: closed_port: To a port of a virtual address that no "), 4);

    // What the client got is what was written, and what was read is what it sent.
    let mut translated = 0;
    for packet in wire.packets_from(vip) {
        let sent = recorded.packets.iter().find(|recorded| {
            recorded.is_outbound() && at_any_hop(&recorded.octets) == at_any_hop(packet)
        });
        let sent = sent.unwrap_or_else(|| panic!("not recorded: {packet:02x?}"));
        let service = if is_ipv6 { "(tcp-80-v6)" } else { "(tcp-80-v4)" };
        assert!(sent.comment.ends_with(service), "{}", sent.comment);
        translated += 1;
    }
    assert!(translated > 4 * 4, "{translated}");
    for client in 1..=4 {
        for packet in wire.packets_from(lab::client_address(client, is_ipv6)) {
            let came = recorded.packets.iter().any(|recorded| {
                !recorded.is_outbound() && at_any_hop(&recorded.octets) == at_any_hop(packet)
            });
            assert!(came, "not recorded: {packet:02x?}");
        }
    }
    director.stop();
}

fn large_pieces_are_recorded_as_they_are_and_replay_to_what_was_sent() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    fs::write(stage.folder().join("large"), vec![7; 4 << 20]).unwrap();
    let config = stage.configure("", &stage.service(false, "rr"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    let socket = stage.socket_of("wvs");
    let forwarded = || stats(&socket).packets.forwarded;
    let before = forwarded();
    let recorder = Recorder::start(&stage, &["tcp-80-v4"]);
    let answer = stage.fetch(1, false, "/large").unwrap();
    assert_eq!(answer.len(), 4 << 20);
    let (recorded, told) = recorder.end(|| forwarded() - before);
    assert!(!told.contains("missed"), "{told}");

    let unfinished = "; its checksum is left to the device to finish";
    let large = recorded.packets.iter().filter(|packet| packet.octets.len() > 9_000);
    let comments: Vec<_> = large.map(|packet| &packet.comment).collect();
    assert!(!comments.is_empty());
    assert!(comments.iter().all(|comment| comment.ends_with(unfinished)), "{comments:?}");

    let replayed = replay(&stage, &config, &stage.folder().join("recorded.pcapng"));
    let outbound = |recorded: &Recorded| -> Vec<_> {
        let packets = recorded.packets.iter().filter(|packet| packet.is_outbound());
        packets.map(|packet| (packet.octets.clone(), packet.comment.clone())).collect()
    };
    let (sent, replayed) = (outbound(&recorded), outbound(&replayed));
    assert_eq!(sent.len(), replayed.len());
    assert!(sent == replayed, "other packets");
    director.stop();
}

/// What `wvs replay` makes of a capture.
fn replay(stage: &Stage, config: &Path, input: &Path) -> Recorded {
    let output = stage.folder().join("replayed.pcapng");
    let wvs = Command::new(WVS)
        .arg("replay")
        .arg(input)
        .arg("-c")
        .arg(config)
        .arg("-o")
        .arg(&output)
        .output()
        .expect("wvs runs");
    assert!(wvs.status.success(), "{wvs:?}");
    Recorded::read(&fs::read(output).expect("a file"))
}

fn recorder_that_nobody_reads_is_in_nobody_s_way() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    fs::write(stage.folder().join("large"), vec![7; 16 << 20]).unwrap();
    let director = stage.direct(&stage.service(false, "rr"));
    let mut unread: Vec<_> = (0..4)
        .map(|_| {
            let mut capture = Command::new(WVS);
            capture.args(["capture", "-o", "-", "--socket"]).arg(stage.socket_of("wvs"));
            let mut capture = capture.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            // It has begun when the file has.
            capture.stdout.as_mut().unwrap().read_exact(&mut [0; 48]).unwrap();
            capture
        })
        .collect();

    // Several times what the rings and pipes hold.
    for _ in 0..2 {
        assert_eq!(stage.fetch(1, false, "/large").unwrap().len(), 16 << 20);
    }

    // One too many is refused, until another one hangs up.
    let refused = Command::new(WVS)
        .args(["capture", "--count", "1", "-o", "-", "--socket"])
        .arg(stage.socket_of("wvs"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("4 captures are under way"), "{told}");
    for capture in &mut unread {
        capture.kill().unwrap();
        capture.wait().unwrap();
    }
    let socket = stage.socket_of("wvs");
    let before = stats(&socket).packets.forwarded;
    let recorder = Recorder::start(&stage, &["--port", &PORT.to_string()]);
    stage.who_answers(1, false);
    let (recorded, _) = recorder.end(|| stats(&socket).packets.forwarded - before);
    assert_eq!(recorded.missed(), 0);
    director.stop();
}
