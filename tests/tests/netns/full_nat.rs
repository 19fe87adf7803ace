//! Services with full NAT: servers answer the director, wherever the client is.

use std::net::{IpAddr, SocketAddr};

use wvs::lab::{self, Host};

use crate::capture::Capture;
use crate::director::DirectorProcess;
use crate::host_state::{assert_unchanged, host_state};
use crate::server::{udp_echo, web_servers};
use crate::stage::{PORT, SERVER_PORT, Stage, run_well};

trials! {
    both server_without_a_route_back_serves,
    both client_in_the_network_of_a_server_is_served,
    both server_is_a_client_of_the_vip_that_it_serves,
    both program_on_the_director_reaches_the_vip,
    both client_and_server_see_only_the_director_s_addresses,
    both udp_is_answered_by_way_of_the_pool,
    once strict_source_checks_stay,
    once director_without_nat_leaves_nothing_behind,
}

/// In no network of the lab.
fn pool(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { "fd00:40::1" } else { "10.40.0.1" }.parse().unwrap()
}

fn with_pool(service: &str, pool: IpAddr) -> String {
    format!("{service}    forward: fullnat\n    pool: {{ addresses: [\"{pool}\"] }}\n")
}

fn direct(stage: &Stage, is_ipv6: bool) -> DirectorProcess {
    stage.direct(&with_pool(&stage.service(is_ipv6, "rr"), pool(is_ipv6)))
}

/// Asks the service for `path` by `curl` on `host`.
fn curl(stage: &Stage, host: &Host, is_ipv6: bool, path: &str) -> String {
    run_well(host, "curl", &["-sS", "--max-time", "20", &stage.url(is_ipv6, path)])
}

fn server_without_a_route_back_serves(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let (family, pool) = if is_ipv6 { ("-6", "fd00:20:1::100") } else { ("-4", "10.20.1.100") };
    // All that the server knows is its own network, in which the director stands in for the pool.
    let server = &stage.lab.servers[0];
    run_well(server, "ip", &[family, "route", "del", "default"]);
    let host = &stage.lab.director;
    run_well(host, "ip", &["neigh", "add", "proxy", pool, "dev", "server1"]);
    run_well(host, "sysctl", &["-w", "net.ipv6.conf.server1.proxy_ndp=1"]);
    let service = with_pool(&stage.service(is_ipv6, "rr"), pool.parse().unwrap());
    let director = stage.direct(&service);

    assert_eq!(stage.who_answers(1, is_ipv6), "server1");

    director.stop();
}

fn client_in_the_network_of_a_server_is_served(is_ipv6: bool) {
    let stage = Stage::new(2);
    let [server, client] = [&stage.lab.servers[0], &stage.lab.servers[1]];
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    // The second host gets an interface on the first one's wire.
    let wire = format!(
        "ip link add wire link eth0 type macvlan mode bridge; ip link set wire netns {}",
        client.path()
    );
    run_well(server, "sh", &["-ec", &wire]);
    let (family, address, gateway) = if is_ipv6 {
        ("-6", "fd00:20:1::77/64 nodad", "fd00:20:1::1")
    } else {
        ("-4", "10.20.1.77/24", "10.20.1.1")
    };
    let addresses = format!(
        "ip link set eth0 down; ip link set wire up; ip {family} address add dev wire {address};
        ip {family} route add default via {gateway}"
    );
    run_well(client, "sh", &["-ec", &addresses]);
    let service = stage.service(is_ipv6, "rr");
    let other = lab::server_address(2, is_ipv6).to_string();
    let only_first: Vec<_> = service.lines().filter(|line| !line.contains(&other)).collect();
    let director = stage.direct(&with_pool(&format!("{}\n", only_first.join("\n")), pool(is_ipv6)));

    assert_eq!(curl(&stage, client, is_ipv6, "/name"), "server1");

    director.stop();
}

fn server_is_a_client_of_the_vip_that_it_serves(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = direct(&stage, is_ipv6);

    let seen = curl(&stage, &stage.lab.servers[0], is_ipv6, "/peer");

    let seen: SocketAddr = seen.parse().expect("an address");
    assert_eq!(seen.ip(), pool(is_ipv6));
    director.stop();
}

fn program_on_the_director_reaches_the_vip(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = direct(&stage, is_ipv6);

    assert_eq!(curl(&stage, &stage.lab.director, is_ipv6, "/name"), "server1");
    let vip = lab::vip(is_ipv6).to_string();
    let ping = ["-c", "1", "-W", "10", &vip];
    assert!(run_well(&stage.lab.director, "ping", &ping).contains("1 received"));

    director.stop();
}

fn client_and_server_see_only_the_director_s_addresses(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = direct(&stage, is_ipv6);
    let captures = [&stage.lab.client, &stage.lab.servers[0]].map(Capture::start);

    for client in 1..=3 {
        stage.who_answers(client, is_ipv6);
    }

    let [client, server] = captures.map(|capture| capture.stop(is_ipv6).addresses);
    let clients = (1..=3).map(|number| lab::client_address(number, is_ipv6));
    assert_eq!(client, clients.chain([lab::vip(is_ipv6)]).collect());
    assert_eq!(server, [lab::server_address(1, is_ipv6), pool(is_ipv6)].into());
    director.stop();
}

fn udp_is_answered_by_way_of_the_pool(is_ipv6: bool) {
    let stage = Stage::new(1);
    udp_echo(&stage.lab.servers[0], lab::server_address(1, is_ipv6), 5353);
    let service = stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353);
    let director = stage.direct(&with_pool(&service, pool(is_ipv6)));

    let socket = stage.udp(1, is_ipv6, 53).unwrap();
    socket.send(b"hello").unwrap();
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).expect("an answer");

    assert_eq!(&answer[..length], b"server1 hello");
    director.stop();
}

fn strict_source_checks_stay() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let names = ["all", "clients", "server1"].map(|of| format!("net/ipv4/conf/{of}/rp_filter"));
    host.run(|| names.iter().for_each(|name| wvs::sysctl::write(name, "1").unwrap()));
    let director = direct(&stage, false);

    assert_eq!(stage.who_answers(1, false), "server1");

    host.run(|| {
        for name in &names {
            assert_eq!(wvs::sysctl::read(name).unwrap(), "1", "{name}");
        }
    });
    director.stop();
}

fn director_without_nat_leaves_nothing_behind() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let before = host_state(host);
    let services = [false, true].map(|is_ipv6| {
        with_pool(
            &stage.service_of(lab::vip(is_ipv6), PORT, "tcp", "rr", SERVER_PORT),
            pool(is_ipv6),
        )
    });
    // Killed, and then stopped.
    stage.direct(&services.concat()).crash();
    stage.direct(&services.concat()).stop();
    assert_unchanged(host, &before);
}
