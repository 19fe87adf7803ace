//! A director whose services and real servers change while clients use them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use wvs::lab::{self, CLIENTS};

use crate::director::{WVS, services};
use crate::server::{Server, serve_web, servers, udp_echo, web_servers};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, ask, run_well, wait_until};

trials! {
    once hundred_reloads_under_load_cost_no_request,
    once added_services_are_reached_and_removed_ones_finish_what_they_have,
    once drained_server_is_emptied_and_what_is_left_is_reset,
    once server_that_fails_its_health_check_is_taken_out_and_comes_back,
    once server_that_ignores_connections_is_taken_out_by_them,
    once client_has_one_server_for_several_ports,
    once datagrams_of_a_one_packet_service_go_to_every_server,
    once connections_are_found_by_client_server_and_state,
    once file_that_changes_is_read_again_where_that_is_asked_for,
}

const RELOADS: usize = 100;

/// A service of real servers with these numbers, and the keys of each.
fn described(keys: &str, servers: &[(u8, &str)]) -> String {
    let mut text = format!("  - {{ name: web, vip: {}, {keys}, servers: [\n", lab::VIP);
    for (number, keys) in servers {
        let address = lab::server_address(*number, false);
        text += &format!("      {{ address: {address}, {keys} }},\n");
    }
    text + "    ] }\n"
}

/// `wvs` with these arguments, at the stage's director.
fn wvs(stage: &Stage, arguments: &[&str]) -> Output {
    let mut command = Command::new(WVS);
    command.args(arguments).arg("--socket").arg(stage.socket_of("wvs"));
    command.output().expect("wvs runs")
}

/// The same, which must succeed, and what it prints.
#[track_caller]
fn wvs_well(stage: &Stage, arguments: &[&str]) -> String {
    let output = wvs(stage, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn hundred_reloads_under_load_cost_no_request() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let port = format!("port: {SERVER_PORT}");
    let (plain, heavy) = (port.as_str(), format!("{port}, weight: 5"));
    let other = |port: u16| {
        format!(
            "  - {{ name: other, vip: {}, port: {port}, servers: [{{ address: {}, port: {SERVER_PORT} }}] }}\n",
            lab::VIP,
            lab::server_address(1, false),
        )
    };
    let all = [(1, plain), (2, plain), (3, plain)];
    let variants = [
        described("port: 80, scheduler: rr", &all),
        described("port: 80, scheduler: rr", &all[..2]),
        described("port: 80, scheduler: wlc, quorum: 2", &[(3, plain), (1, &heavy)]),
        described("port: [80, 81], scheduler: wlc", &all) + &other(8000),
        described("port: 80, scheduler: sh, timeouts: { fin_wait: 9s }", &all) + &other(8001),
    ];
    let director = stage.direct(&variants[0]);
    let (is_over, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 1..=CLIENTS {
            let (stage, is_over, requests, failures) = (&stage, &is_over, &requests, &failures);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    match stage.fetch(client, false, "/name") {
                        Ok(name) if name.starts_with("server") => {
                            requests.fetch_add(1, Relaxed);
                        }
                        other => failures.lock().unwrap().push(format!("{client}: {other:?}")),
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        for turn in 1..=RELOADS {
            stage.configure("", &variants[turn % variants.len()]);
            let output = wvs(&stage, &["reload"]);
            if !output.status.success() {
                failures.lock().unwrap().push(format!("reload {turn}: {output:?}"));
            }
        }
        is_over.store(true, Relaxed);
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed: {failures:#?}\n{}", failures.len(), director.log());
    let requests = requests.load(Relaxed);
    assert!(requests > 500, "{requests} requests");
    println!("{requests} requests over {RELOADS} reloads");
    director.stop();
}

/// Keeps a connection until it is told to answer: a server that says back what it is told.
fn mirrors(stage: &Stage) -> Vec<Server> {
    servers(&stage.lab, false, SERVER_PORT, |name| {
        let folder = stage.folder().to_owned();
        move |mut stream: TcpStream| {
            let mut start = [0; 4];
            if stream.peek(&mut start)? == 4 && start == *b"GET " {
                return serve_web(stream, &name, &folder);
            }
            let mut octets = [0; 1024];
            loop {
                match stream.read(&mut octets)? {
                    0 => return Ok(()),
                    length => stream.write_all(&octets[..length])?,
                }
            }
        }
    })
}

/// Whether what is said comes back.
fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"still there?")?;
    let mut octets = [0; 12];
    stream.read_exact(&mut octets)
}

fn added_services_are_reached_and_removed_ones_finish_what_they_have() {
    let stage = Stage::new(2);
    let _servers = mirrors(&stage);
    let port = format!("port: {SERVER_PORT}");
    let vip: IpAddr = "10.30.0.2".parse().unwrap();
    let added = format!(
        "  - {{ name: added, vip: {vip}, port: 80, timeouts: {{ time_wait: 1s }}, \
         servers: [{{ address: {}, {port} }}] }}\n",
        lab::server_address(2, false)
    );
    let first = described("port: 80", &[(1, &port)]);
    let director = stage.direct(&first);
    stage.configure("", &(first.clone() + &added));
    let told = wvs_well(&stage, &["reload"]);
    assert_eq!(told, "added: added\n");
    let to = SocketAddr::new(vip, 80);
    let name = ask(&mut stage.connect_to(1, to).unwrap(), "/name").unwrap();
    assert_eq!(name, "server2");

    let mut held = stage.connect_to(2, to).unwrap();
    echoes(&mut held).unwrap();
    stage.configure("", &first);
    let told = wvs_well(&stage, &["reload"]);
    assert_eq!(told, "added: removed; its connections go on\n");
    echoes(&mut held).expect("an answer to who was there before");
    let refused = stage.connect_to(1, to).expect_err("nobody new");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(stage.who_answers(1, false), "server1");
    let is_routed = || {
        let shown = run_well(&stage.lab.director, "ip", &["route", "show", "table", "all"]);
        shown.contains(&vip.to_string())
    };
    assert!(is_routed());
    // Once its last connection is gone nothing needs the address any more.
    drop(held);
    wait_until("no way to the address", || !is_routed());
    assert_eq!(stage.who_answers(1, false), "server1");
    director.stop();
}

fn drained_server_is_emptied_and_what_is_left_is_reset() {
    let stage = Stage::new(2);
    let _servers = mirrors(&stage);
    let port = format!("port: {SERVER_PORT}");
    let director = stage.direct(&described(
        "port: 80, scheduler: rr, timeouts: { close: 1s }",
        &[(1, &port), (2, &port)],
    ));
    // One on each, in their turn.
    let mut held: Vec<_> =
        (1..=2).map(|client| stage.connect(client, false, PORT).unwrap()).collect();
    held.iter_mut().for_each(|stream| echoes(stream).unwrap());
    let server = lab::server_address(1, false).to_string();
    let told = wvs_well(&stage, &["drain", "web", &server, "--deadline", "10s"]);
    assert!(told.contains("is drained; weight 0, 1 connection, which may go on for 10s"), "{told}");
    for client in 1..=4 {
        assert_eq!(stage.who_answers(client, false), "server2");
    }
    echoes(&mut held[0]).expect("it goes on");
    assert!(wvs_well(&stage, &["list"]).contains("drained, "), "{}", director.log());
    wait_until("a reset", || {
        let ends = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        echoes(&mut held[0]).is_err_and(|error| ends.contains(&error.kind()))
    });
    echoes(&mut held[1]).expect("the other one goes on");
    wait_until("an empty server", || {
        let all = services(&stage.socket_of("wvs")).services;
        let server = &all[0].servers[0];
        server.active + server.inactive == 0
    });
    let told = wvs_well(&stage, &["drain", "web", &server, "--wait"]);
    assert!(told.ends_with("0 connections left\n"), "{told}");
    wvs_well(&stage, &["enable", "web", &server]);
    let names: Vec<_> = (1..=4).map(|client| stage.who_answers(client, false)).collect();
    assert!(names.contains(&"server1".to_owned()), "{names:?}");
    // A weight that holds until the file is read again.
    wvs_well(&stage, &["weight", "web", &server, "0"]);
    let names: Vec<_> = (1..=4).map(|client| stage.who_answers(client, false)).collect();
    assert_eq!(names, ["server2"; 4]);
    let told = wvs_well(&stage, &["reload"]);
    assert!(told.contains("had been given weight 0 at run time, against the file"), "{told}");
    director.stop();
}

fn server_that_fails_its_health_check_is_taken_out_and_comes_back() {
    let stage = Stage::new(2);
    let mut all = web_servers(&stage, false, SERVER_PORT);
    let port = format!("port: {SERVER_PORT}");
    let health =
        "health: { http: { path: /name }, interval: 100ms, timeout: 20s, rise: 2, fall: 2 }";
    let director = stage.direct(&described(
        &format!("port: 80, scheduler: rr, {health}"),
        &[(1, &port), (2, &port)],
    ));
    let is_up = |number: usize| {
        let all = services(&stage.socket_of("wvs")).services;
        let server = &all[0].servers[number - 1];
        server.health.as_ref().is_some_and(|health| health.checks > 0 && health.up)
            && server.weight > 0
    };
    wait_until("both up", || is_up(1) && is_up(2));
    drop(all.remove(0));
    wait_until("one down", || !is_up(1));
    for client in 1..=6 {
        assert_eq!(stage.who_answers(client, false), "server2");
    }
    let told = wvs_well(&stage, &["list"]);
    assert!(told.contains(" down for ") && told.contains("refused"), "{told}");
    assert!(director.log().contains("real server is down"), "{}", director.log());
    // A reload with the same check does not forget what it found.
    assert_eq!(wvs_well(&stage, &["reload"]), "nothing to change\n");
    assert!(!is_up(1));
    all.extend(web_servers_on_first(&stage));
    wait_until("both up again", || is_up(1));
    let names: Vec<_> = (1..=4).map(|client| stage.who_answers(client, false)).collect();
    assert!(names.contains(&"server1".to_owned()), "{names:?}");
    director.stop();
}

fn web_servers_on_first(stage: &Stage) -> Vec<Server> {
    let folder = stage.folder().to_owned();
    let address = SocketAddr::new(lab::server_address(1, false), SERVER_PORT);
    vec![Server::start(&stage.lab.servers[0], address, move |stream| {
        serve_web(stream, "server1", &folder)
    })]
}

fn server_that_ignores_connections_is_taken_out_by_them() {
    let stage = Stage::new(2);
    let mut all = web_servers(&stage, false, SERVER_PORT);
    let port = format!("port: {SERVER_PORT}");
    let health = "health: { passive: { failures: 3, for: 1h } }";
    let director = stage.direct(&described(
        &format!("port: 80, scheduler: rr, {health}"),
        &[(1, &port), (2, &port)],
    ));
    // From here on it refuses.
    drop(all.remove(0));
    let give_up = Instant::now() + PATIENCE;
    while !director.log().contains("refuses connections") {
        let _ = stage.fetch(1, false, "/name");
        assert!(Instant::now() < give_up, "{}", director.log());
    }
    wait_until("one out", || services(&stage.socket_of("wvs")).services[0].servers[0].weight == 0);
    for client in 1..=6 {
        assert_eq!(stage.who_answers(client, false), "server2");
    }
    director.stop();
}

fn client_has_one_server_for_several_ports() {
    let stage = Stage::new(3);
    let _web = web_servers(&stage, false, 80);
    let _other = web_servers(&stage, false, 8081);
    let director = stage.direct(&described(
        "port: [80, 8000-8100], scheduler: rr, persistence: 5m",
        &[(1, ""), (2, ""), (3, "")],
    ));
    for client in 1..=6 {
        let server = stage.who_answers(client, false);
        for port in [8081, 80, 8081] {
            let to = SocketAddr::new(lab::VIP, port);
            let again = ask(&mut stage.connect_to(client, to).unwrap(), "/name").unwrap();
            assert_eq!(again, server, "client {client} at port {port}");
        }
    }
    let web = &services(&stage.socket_of("wvs")).services[0];
    assert_eq!(web.persistence.as_ref().unwrap().templates, 6);
    assert_eq!((web.scheduling.picked, web.scheduling.persistent), (6, 18));
    director.stop();
}

fn datagrams_of_a_one_packet_service_go_to_every_server() {
    let stage = Stage::new(3);
    for (number, host) in (1..).zip(&stage.lab.servers) {
        udp_echo(host, lab::server_address(number, false), SERVER_PORT);
    }
    let port = format!("port: {SERVER_PORT}");
    let director = stage.direct(&described(
        "port: 53, protocol: udp, scheduler: rr, one_packet: true",
        &[(1, &port), (2, &port), (3, &port)],
    ));
    // Connected: an answer from anywhere but the VIP would not be received.
    let socket = stage.udp(1, false, 53).unwrap();
    let mut answers = Vec::new();
    for _ in 0..6 {
        socket.send(b"who?").unwrap();
        let mut octets = [0; 100];
        let length = socket.recv(&mut octets).expect("an answer from the VIP");
        answers.push(String::from_utf8_lossy(&octets[..length]).into_owned());
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 3, "{answers:?}");
    let told = wvs_well(&stage, &["connections", "--count"]);
    assert_eq!(told, "0\n");
    director.stop();
}

fn connections_are_found_by_client_server_and_state() {
    let stage = Stage::new(2);
    let _servers = mirrors(&stage);
    let port = format!("port: {SERVER_PORT}");
    let director = stage.direct(&described("port: 80, scheduler: rr", &[(1, &port), (2, &port)]));
    let mut held: Vec<_> =
        (1..=4).map(|client| stage.connect(client, false, PORT).unwrap()).collect();
    held.iter_mut().for_each(|stream| echoes(stream).unwrap());
    let count = |filter: &[&str]| wvs_well(&stage, &[&["connections", "--count"], filter].concat());
    let client = lab::client_address(3, false).to_string();
    let server = lab::server_address(1, false).to_string();
    assert_eq!(count(&["--client", &client]), "1\n");
    assert_eq!(count(&["--client", &format!("{client}/1")]), "4\n");
    assert_eq!(count(&["--server", &server]), "2\n");
    assert_eq!(count(&["web", "--server", &server, "--state", "established"]), "2\n");
    assert_eq!(count(&["--state", "TIME_WAIT"]), "0\n");
    let listed = wvs_well(&stage, &["connections", "--client", &client]);
    assert!(listed.contains(&client) && listed.lines().count() == 3, "{listed}");
    assert_eq!(wvs(&stage, &["connections", "--client", "nobody"]).status.code(), Some(2));
    director.stop();
}

fn file_that_changes_is_read_again_where_that_is_asked_for() {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let port = format!("port: {SERVER_PORT}");
    let [first, second] = [1, 2].map(|number| described("port: 80", &[(number, &port)]));
    let file = stage.configure("watch: true", &first);
    let director = crate::director::DirectorProcess::start(&stage.lab.director, &file);
    assert_eq!(stage.who_answers(1, false), "server1");
    stage.configure("watch: true", &second);
    wait_until("the other server", || stage.who_answers(1, false) == "server2");
    // What is wrong changes nothing, and is told.
    stage.configure("watch: perhaps", &first);
    wait_until("a warning", || director.log().contains("nothing was changed"));
    assert_eq!(stage.who_answers(1, false), "server2");
    stage.configure("watch: false", &second);
    wait_until("another reload", || director.log().matches("configuration reloaded").count() >= 2);
    stage.configure("", &first);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.who_answers(1, false), "server2");
    director.stop();
}
