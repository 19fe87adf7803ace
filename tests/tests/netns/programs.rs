//! Programs that people use, at both ends of a service, with every packet's checksums looked at.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wvs::lab::{self, Host};

use crate::capture::{Capture, Captured, compute_checksums};
use crate::director::DirectorProcess;
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, run, run_well, wait_until};

trials! {
    both iperf3_runs_both_ways_over_tcp_and_udp,
    both redis_is_served,
    both nginx_keeps_a_connection_for_many_requests,
    both nmap_sees_the_ports_that_are_configured,
    once odd_segments_of_hping3_arrive_as_they_were,
}

/// Ends a program when dropped.
struct Program(Child);

impl Program {
    /// Starts a server of `program` on `host`, and waits until something listens at `port`.
    fn serve(host: &Host, port: u16, program: &str, arguments: &[&str]) -> Self {
        let child = host.run(|| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        let program = Self(child.unwrap_or_else(|error| panic!("{program}: {error}")));
        let filter = format!("sport = :{port}");
        wait_until("a listener", || !run_well(host, "ss", &["-Hltn", &filter]).is_empty());
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().try_into().expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..200 {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stage with one server, whose checksums are those on a real wire, and a director.
fn stage_with(services: impl FnOnce(&Stage) -> String) -> (Stage, DirectorProcess) {
    let stage = Stage::new(1);
    compute_checksums([&stage.lab.client, &stage.lab.servers[0]]);
    let director = stage.direct(&services(&stage));
    (stage, director)
}

/// Captures at both ends while `work` is done: the client must see the VIP only, and all checksums
/// must be right.
fn watch(stage: &Stage, is_ipv6: bool, work: impl FnOnce()) -> [Captured; 2] {
    let captures = [&stage.lab.client, &stage.lab.servers[0]].map(Capture::start);
    work();
    let [client, server] = captures.map(|capture| capture.stop(is_ipv6));
    for captured in [&client, &server] {
        captured.assert_intact();
    }
    let foreign: Vec<_> = client
        .addresses
        .iter()
        .filter(|address| **address != lab::vip(is_ipv6))
        .filter(|address| !(1..=16).any(|number| lab::client_address(number, is_ipv6) == **address))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    [client, server]
}

/// What the kernel of a host counted.
fn count_of(host: &Host, what: &str) -> u64 {
    let table = run_well(host, "nstat", &["-asz", what]);
    let line = table.lines().find(|line| line.starts_with(what)).expect("the counter");
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a count")
}

fn iperf3_runs_both_ways_over_tcp_and_udp(is_ipv6: bool) {
    const PORT: u16 = 5201;
    let (stage, director) = stage_with(|stage| {
        let service = |protocol| stage.service_of(lab::vip(is_ipv6), PORT, protocol, "rr", PORT);
        service("tcp") + &service("udp")
    });
    let _iperf = Program::serve(&stage.lab.servers[0], PORT, "iperf3", &["-s"]);
    let vip = lab::vip(is_ipv6).to_string();
    // Small amounts, which captures and buffers can hold.
    for arguments in [
        &["-n", "5M"][..],
        &["-n", "5M", "-R"],
        &["-u", "-b", "20M", "-n", "100K", "-l", "1200"],
        // Fragments. What a receiver's buffer holds even if it does not get to read any of it.
        &["-u", "-b", "20M", "-n", "60K", "-l", "4000", "-w", "400K"],
        &["-R", "-u", "-b", "20M", "-n", "60K", "-l", "4000"],
    ] {
        watch(&stage, is_ipv6, || {
            let all = [&["-c", &vip, "--json"], arguments].concat();
            let report = run_well(&stage.lab.client, "iperf3", &all);
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            assert!(report.get("error").is_none(), "{report}");
            if arguments[0] == "-u" {
                let lost = report["end"]["sum"]["lost_packets"].as_u64();
                assert_eq!(lost, Some(0), "{arguments:?}: {}", report["end"]["sum"]);
            } else if arguments[0] == "-R" {
                // It counts those as lost that come when it has had enough: the kernels know better.
                let family = if is_ipv6 { "Ip6" } else { "Ip" };
                let of_host = |host, what| count_of(host, &format!("{family}{what}"));
                wait_until("each datagram in one piece again", || {
                    let cut = of_host(&stage.lab.servers[0], "FragOKs");
                    cut >= 15 && of_host(&stage.lab.client, "ReasmOKs") == cut
                });
            } else {
                // It does not wait for the last of them to arrive.
                let octets = report["end"]["sum_sent"]["bytes"].as_u64();
                assert!(octets >= Some(5 << 20), "{arguments:?}: {octets:?}");
            }
        });
    }
    director.stop();
}

fn redis_is_served(is_ipv6: bool) {
    const PORT: u16 = 6379;
    let (stage, director) =
        stage_with(|stage| stage.service_of(lab::vip(is_ipv6), PORT, "tcp", "rr", PORT));
    let server = lab::server_address(1, is_ipv6).to_string();
    let folder = stage.folder().to_string_lossy().into_owned();
    let arguments = ["--bind", &server, "--protected-mode", "no", "--save", "", "--dir", &folder];
    let _redis = Program::serve(&stage.lab.servers[0], PORT, "redis-server", &arguments);
    let vip = lab::vip(is_ipv6).to_string();
    watch(&stage, is_ipv6, || {
        let ask = |arguments: &[&str]| {
            run_well(&stage.lab.client, "redis-cli", &[&["-h", &vip], arguments].concat())
        };
        assert_eq!(ask(&["set", "key", "value"]), "OK\n");
        assert_eq!(ask(&["get", "key"]), "value\n");
        // Many connections, each with several requests under way.
        let benchmark = ["-h", &vip, "-n", "2000", "-c", "20", "-P", "4", "-t", "set,get", "--csv"];
        let report = run_well(&stage.lab.client, "redis-benchmark", &benchmark);
        assert!(report.contains("\"GET\""), "{report}");
    });
    director.stop();
}

fn nginx_keeps_a_connection_for_many_requests(is_ipv6: bool) {
    let (stage, director) = stage_with(|stage| stage.service(is_ipv6, "rr"));
    let folder = stage.folder().to_string_lossy().into_owned();
    let config = stage.folder().join("nginx.conf");
    let address = std::net::SocketAddr::new(lab::server_address(1, is_ipv6), SERVER_PORT);
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null;
        events {{ }}
        http {{
            access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
            fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
            server {{ listen {address}; location / {{ return 200 \"$connection_requests\\n\"; }} }}
        }}"
    );
    std::fs::write(&config, text).unwrap();
    let _nginx = Program::serve(
        &stage.lab.servers[0],
        SERVER_PORT,
        "nginx",
        &["-p", &folder, "-c", &config.to_string_lossy()],
    );
    watch(&stage, is_ipv6, || {
        let url = stage.url(is_ipv6, "/[1-20]");
        let answers = run_well(&stage.lab.client, "curl", &["-sSf", "--max-time", "20", &url]);
        let expected: String = (1..=20).map(|number| format!("{number}\n")).collect();
        assert_eq!(answers.replace("\r", ""), expected, "one connection");
    });
    director.stop();
}

fn nmap_sees_the_ports_that_are_configured(is_ipv6: bool) {
    let (stage, director) = stage_with(|stage| stage.service(is_ipv6, "rr"));
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let vip = lab::vip(is_ipv6).to_string();
    watch(&stage, is_ipv6, || {
        for how in ["-sT", "-sS"] {
            let family: &[&str] = if is_ipv6 { &["-6"] } else { &[] };
            let scan = ["-n", "-Pn", how, "-p", "78-82", "--host-timeout", "20s", "-oG", "-", &vip];
            let report = run_well(&stage.lab.client, "nmap", &[family, &scan].concat());
            assert!(report.contains(&format!("{PORT}/open/tcp")), "{report}");
            for closed in [78, 79, 81, 82] {
                assert!(report.contains(&format!("{closed}/closed/tcp")), "{report}");
            }
        }
    });
    director.stop();
}

/// Type of service, flags, window, urgent pointer and options reach the server, and the time to live
/// only falls.
fn odd_segments_of_hping3_arrive_as_they_were() {
    const TTL: u8 = 33;
    let (stage, director) = stage_with(|stage| stage.service(false, "rr"));
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let (client, vip) = (lab::client_address(1, false), lab::VIP.to_string());
    let source_port = |number: u16| (5_000 + number).to_string();
    // Flags that begin a connection, beside others: hping3's X and Y are ECE and CWR.
    let kinds: [&[&str]; 4] = [&["-S"], &["-S", "-X", "-Y"], &["-S", "-P"], &["-S", "-U"]];
    let [sent, received] = watch(&stage, false, || {
        for (number, flags) in (1..).zip(kinds) {
            let port = source_port(number);
            let from = client.to_string();
            let segment = [
                "-q", "-c", "1", "-a", &from, "-s", &port, "-k", "-p", "80", "--ttl", "33",
                "--tos", "b8", "-w", "777", &vip,
            ];
            let _ = run(&stage.lab.client, "hping3", &[flags, &segment[..]].concat());
        }
    });
    let of = |captured: &Captured, port: u16| {
        let mut segments = captured
            .packets_from(client)
            .filter(|packet| packet[9] == 6 && packet[20..22] == port.to_be_bytes());
        segments.next().map(<[u8]>::to_vec)
    };
    for (number, flags) in (1..).zip(kinds) {
        let [sent, received] = [&sent, &received]
            .map(|captured| of(captured, 5_000 + number).unwrap_or_else(|| panic!("no {flags:?}")));
        assert_eq!(sent[1], 0xb8);
        assert_eq!(sent[1], received[1], "type of service, {flags:?}");
        assert_eq!(sent[4..8], received[4..8], "identification and fragmentation, {flags:?}");
        assert_eq!(sent[8], TTL);
        assert_eq!(received[8], TTL - 2, "forwarded to the device and from it, {flags:?}");
        // All but the destination port and the checksum.
        assert_eq!(sent[24..36], received[24..36], "{flags:?}");
        assert_eq!(sent[38..], received[38..], "{flags:?}");
    }
    director.stop();
}
