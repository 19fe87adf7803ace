//! Directors that end without warning, and those that come after them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use wvs::lab::{self, Lab};
use wvs::sysctl::STATE_FOLDER;

use crate::host_state::{
    assert_same, assert_unchanged, files, host_state, namespace_of, state_files,
};
use crate::server::{servers, web_servers};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, run_well};

trials! {
    once next_start_cleans_up_after_a_crash,
    once next_director_of_another_device_cleans_up_after_a_crash,
    once next_start_cleans_up_without_the_state_files,
    both reply_does_not_leave_past_a_director_that_crashed,
    once rules_of_somebody_else_survive_the_clean_up,
    once planted_state_files_neither_write_elsewhere_nor_prevent_a_start,
    both packet_of_a_forgotten_connection_is_reset,
}

fn next_start_cleans_up_after_a_crash() {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let before = host_state(&stage.lab.director);
    let services = stage.service(false, "rr") + &stage.service(true, "rr");
    stage.direct(&services).crash();
    assert!(rules(&stage.lab).contains("11900"), "a crash leaves rules");

    // With another configuration, so that a rule kept by mistake would show.
    let director = stage.direct(&stage.service(false, "rr"));
    assert!(director.log().contains("removed what a director"), "{}", director.log());
    assert_eq!(stage.who_answers(1, false), "server1");
    assert!(!run_well(&stage.lab.director, "ip", &["-6", "rule"]).contains("11900"));
    director.stop();

    assert_unchanged(&stage.lab.director, &before);
    assert_eq!(files(stage.folder()), ["wvs.yaml"]);
    assert_eq!(state_files(&stage.lab.director), [""; 0]);
}

fn next_director_of_another_device_cleans_up_after_a_crash() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    stage.direct(&stage.service(true, "rr")).crash();

    let config = stage.configure("device: { name: other0 }", &stage.service(false, "rr"));
    let director = crate::director::DirectorProcess::start(&stage.lab.director, &config);
    assert!(!run_well(&stage.lab.director, "ip", &["-6", "rule"]).contains("wvs0"));
    director.stop();

    assert_unchanged(&stage.lab.director, &before);
}

fn next_start_cleans_up_without_the_state_files() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    stage.direct(&stage.service(false, "rr")).crash();
    let state = state_files(&stage.lab.director);
    assert_eq!(state.len(), 1);
    for name in state {
        fs::remove_file(Path::new(STATE_FOLDER).join(name)).unwrap();
    }

    stage.direct(&stage.service(false, "rr")).stop();

    // Nobody knows any more what the settings were; rules and routes speak for themselves.
    let routes_and_rules = |state: &str| {
        state.lines().filter(|line| !line.contains('=')).collect::<Vec<_>>().join("\n")
    };
    let after = host_state(&stage.lab.director);
    assert_same(&routes_and_rules(&before), &routes_and_rules(&after));
}

fn reply_does_not_leave_past_a_director_that_crashed(is_ipv6: bool) {
    let stage = Stage::new(1);
    let at_server = lab::server_address(1, is_ipv6);
    let [server, other] = [SERVER_PORT, SERVER_PORT + 1].map(|port| {
        let socket = stage.lab.servers[0].run(|| UdpSocket::bind((at_server, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    // Not connected, so that it hears from everybody.
    let at_client = lab::client_address(1, is_ipv6);
    let client = stage.lab.client.run(|| UdpSocket::bind((at_client, 0)).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut octets = [0; 16];
    let vip = SocketAddr::new(lab::vip(is_ipv6), PORT);
    let director = stage.direct(&stage.service_of(vip.ip(), PORT, "udp", "rr", SERVER_PORT));
    client.send_to(b"question", vip).unwrap();
    let (_, from) = server.recv_from(&mut octets).unwrap();
    server.send_to(b"before", from).unwrap();
    assert_eq!(client.recv_from(&mut octets).unwrap(), (6, vip));

    director.crash();
    server.send_to(b"after", from).unwrap();
    // The same way, and no reply: what comes first says whether the reply came.
    other.send_to(b"end", from).unwrap();

    let first = client.recv_from(&mut octets).unwrap();
    assert_eq!(first, (3, SocketAddr::new(at_server, SERVER_PORT + 1)));
}

fn rules_of_somebody_else_survive_the_clean_up() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let theirs = [
        ["pref", "900", "from", "192.0.2.1", "lookup", "254", "protocol", "119"],
        ["pref", "901", "from", "192.0.2.1", "lookup", "11900", "protocol", "119"],
        ["pref", "1000", "from", "192.0.2.1", "lookup", "12000", "protocol", "119"],
    ];
    for rule in theirs {
        run_well(host, "ip", &[&["rule", "add"][..], &rule].concat());
    }
    let before = host_state(host);
    stage.direct(&stage.service(false, "rr")).crash();

    stage.direct(&stage.service(false, "rr")).stop();

    assert_unchanged(host, &before);
}

/// As root's own files, where nobody else can write: the last line of defence.
fn planted_state_files_neither_write_elsewhere_nor_prevent_a_start() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let victim = stage.folder().join("victim");
    fs::write(&victim, "precious").unwrap();
    let before = host_state(host);
    let folder = Path::new(STATE_FOLDER);
    let plant = |device: &str| folder.join(format!("sysctl-{device}-{}.json", namespace_of(host)));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = |device: &str, names: &[&str]| {
        let changes: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({ "name": name, "was": "1", "set": "precious", "along": [] }))
            .collect();
        serde_json::json!({
            "boot": boot.trim_end(), "namespace": namespace_of(host), "device": device, "changes": changes,
        })
        .to_string()
    };
    // Makes the folder.
    stage.direct(&stage.service(false, "rr")).stop();
    let climbing = format!("net/ipv4/conf/../../../../..{}", victim.display());
    let names = [victim.to_str().unwrap(), &climbing, "kernel/core_pattern"];
    fs::write(plant("names"), record("names", &names)).unwrap();
    fs::write(plant("garbage"), "{").unwrap();
    symlink(&victim, plant("link")).unwrap();
    mkfifo(&plant("fifo"), Mode::S_IRWXU).unwrap();

    let director = stage.direct(&stage.service(false, "rr"));
    let log = director.log();
    director.stop();

    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(log.matches("passed over a setting").count(), names.len(), "{log}");
    assert_eq!(log.matches("put aside a state file").count(), 3, "{log}");
    assert_unchanged(host, &before);
    let left = state_files(host);
    assert!(left.iter().all(|name| name.ends_with(".bad")), "{left:?}");
}

fn packet_of_a_forgotten_connection_is_reset(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        |mut stream: std::net::TcpStream| {
            let mut octet = [0];
            while stream.read(&mut octet)? > 0 {
                stream.write_all(&octet)?;
            }
            Ok(())
        }
    });
    let services = stage.service(is_ipv6, "rr");
    let director = stage.direct(&services);
    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();

    director.stop();
    let director = stage.direct(&services);
    stream.write_all(b"b").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    director.stop();
}

fn rules(lab: &Lab) -> String {
    run_well(&lab.director, "ip", &["rule"])
}
