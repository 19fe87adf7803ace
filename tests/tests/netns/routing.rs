//! What a director changes on its host, and that it changes it back.

use std::net::IpAddr;

use wvs::lab;

use crate::director::{DirectorProcess, stats};
use crate::host_state::{assert_same, assert_unchanged, files, host_state, state_files};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, run_well, wait_until};

/// A second port of the real servers.
const OTHER_PORT: u16 = 8081;

trials! {
    once stopped_director_leaves_nothing_behind,
    once settings_that_somebody_changed_meanwhile_stay,
    once printed_commands_route_as_managed_routing_does,
    once vip_in_the_network_of_the_clients_is_announced_as_documented,
    once two_directors_share_a_host,
    once director_that_stops_leaves_its_settings_to_one_with_another_socket_folder,
    once second_director_of_the_same_server_is_refused,
    once deleted_device_ends_the_director_and_its_routes,
    once host_learns_routes_from_advertisements_as_before,
    once strict_source_checks_of_interfaces_are_loose_meanwhile,
    once mtu_follows_the_links_and_routes_in_use,
    once set_mtu_stays,
    once device_set_down_and_up_gets_its_routes_back,
    once removed_routes_and_rules_are_put_back,
}

fn both_families(stage: &Stage) -> String {
    stage.service(false, "rr") + &stage.service(true, "rr")
}

fn stopped_director_leaves_nothing_behind() {
    let stage = Stage::new(2);
    let before = host_state(&stage.lab.director);
    let director = stage.direct(&both_families(&stage));
    assert_ne!(host_state(&stage.lab.director), before);

    director.stop();

    assert_unchanged(&stage.lab.director, &before);
    assert_eq!(files(stage.folder()), ["wvs.yaml"]);
    assert_eq!(state_files(&stage.lab.director), [""; 0]);
}

fn settings_that_somebody_changed_meanwhile_stay() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let setting = "net/ipv4/conf/all/send_redirects";
    let (read, write) = (
        || host.run(|| wvs::sysctl::read(setting).unwrap()),
        |value| host.run(|| wvs::sysctl::write(setting, value).unwrap()),
    );
    write("1");
    let director = stage.direct(&stage.service(false, "rr"));
    assert_eq!(read(), "0");
    write("2");
    director.stop();
    assert_eq!(read(), "2");
}

fn printed_commands_route_as_managed_routing_does() {
    let stage = Stage::new(2);
    let _servers =
        [web_servers(&stage, false, SERVER_PORT), web_servers(&stage, true, SERVER_PORT)];
    let managed = stage.direct(&both_families(&stage));
    let expected = host_state(&stage.lab.director);
    managed.stop();
    let before = host_state(&stage.lab.director);

    let config = stage.configure("routing: print", &both_families(&stage));
    let mut director = DirectorProcess::start(&stage.lab.director, &config);
    let commands = director.output();
    run_well(&stage.lab.director, "sh", &["-ec", &commands]);

    assert_same(
        &without_link_index(&expected),
        &without_link_index(&host_state(&stage.lab.director)),
    );
    for is_ipv6 in [false, true] {
        assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    }

    let (_, take_back) = commands.split_once("# To take it back:\n").expect("both parts");
    run_well(&stage.lab.director, "sh", &["-ec", &take_back.replace("# ", "")]);
    let forwarding = host_state(&stage.lab.director);
    assert!(forwarding.contains("net/ipv4/ip_forward=0"), "{forwarding}");
    director.stop();
    assert_same(&without_settings(&before), &without_settings(&host_state(&stage.lab.director)));
}

/// Settings are the reader's to put back, and with them what forwarding makes the kernel add.
fn without_settings(state: &str) -> String {
    let is_setting = |line: &&str| line.contains('=') || line.starts_with("anycast");
    state.lines().filter(|line| !is_setting(line)).map(line).collect()
}

fn line(line: &str) -> String {
    format!("{line}\n")
}

/// A device made a second time has another number, and link-local routes nothing to tell.
fn without_link_index(state: &str) -> String {
    state
        .lines()
        .filter(|line| !line.contains("fe80") && !line.contains("ff00"))
        .map(line)
        .collect()
}

fn vip_in_the_network_of_the_clients_is_announced_as_documented() {
    let stage = Stage::new(1);
    let _servers = [false, true].map(|is_ipv6| web_servers(&stage, is_ipv6, SERVER_PORT));
    let vips: [IpAddr; 2] = ["10.10.0.100", "fd00:10::100"].map(|vip| vip.parse().unwrap());
    let services = vips.map(|vip| stage.service_of(vip, PORT, "tcp", "rr", SERVER_PORT));
    let director = stage.direct(&services.concat());

    let host = &stage.lab.director;
    run_well(host, "sysctl", &["-w", "net.ipv6.conf.clients.proxy_ndp=1"]);
    for vip in vips {
        run_well(host, "ip", &["neigh", "add", "proxy", &vip.to_string(), "dev", "clients"]);
        let url = format!("http://{}/name", std::net::SocketAddr::new(vip, PORT));
        let answer = run_well(&stage.lab.client, "curl", &["-sS", "--max-time", "20", &url]);
        assert_eq!(answer, "server1");
    }
    director.stop();
}

fn two_directors_share_a_host() {
    let stage = Stage::new(1);
    let _servers =
        [web_servers(&stage, false, SERVER_PORT), web_servers(&stage, false, OTHER_PORT)];
    let before = host_state(&stage.lab.director);
    let first = stage.direct(&stage.service(false, "rr"));
    let other_vip: IpAddr = "10.30.0.2".parse().unwrap();
    let config = stage.configure_as(
        "other",
        "device: { name: other0 }",
        &stage.service_of(other_vip, PORT, "tcp", "rr", OTHER_PORT),
    );
    let second = DirectorProcess::start(&stage.lab.director, &config);
    let ask_other = || {
        let url = format!("http://{other_vip}/name");
        run_well(&stage.lab.client, "curl", &["-sS", "--max-time", "20", &url])
    };
    assert_eq!(stage.who_answers(1, false), "server1");
    assert_eq!(ask_other(), "server1");

    // What the first one changed serves the second one too, and is put back by it.
    first.stop();
    assert_eq!(ask_other(), "server1");
    second.stop();
    assert_unchanged(&stage.lab.director, &before);
}

fn director_that_stops_leaves_its_settings_to_one_with_another_socket_folder() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let forwards = || host.run(|| wvs::sysctl::read("net/ipv4/ip_forward").unwrap());
    host.run(|| wvs::sysctl::write("net/ipv4/ip_forward", "0").unwrap());
    let before = host_state(host);
    let first = stage.direct(&stage.service(false, "rr"));
    std::fs::create_dir(stage.folder().join("elsewhere")).unwrap();
    let config = stage.configure_as(
        "elsewhere/other",
        "device: { name: other0 }",
        &stage.service_of("10.30.0.2".parse().unwrap(), PORT, "tcp", "rr", OTHER_PORT),
    );
    let second = DirectorProcess::start(host, &config);
    assert_ne!(stage.socket_of("wvs").parent(), stage.socket_of("elsewhere/other").parent());

    first.stop();
    assert_eq!(forwards(), "1");
    second.stop();
    assert_eq!(forwards(), "0");
    assert_unchanged(host, &before);
}

fn second_director_of_the_same_server_is_refused() {
    let stage = Stage::new(1);
    let first = stage.direct(&stage.service(false, "rr"));
    let before = host_state(&stage.lab.director);
    let other_vip: IpAddr = "10.30.0.2".parse().unwrap();
    let config = stage.configure_as(
        "other",
        "device: { name: other0 }",
        &stage.service_of(other_vip, PORT, "tcp", "rr", SERVER_PORT),
    );

    let ended = DirectorProcess::try_start(&stage.lab.director, &config);

    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let sentence = "replies of the real server 10.20.1.2:8080 go to another director";
    assert!(ended.log.contains(sentence), "{}", ended.log);
    assert_unchanged(&stage.lab.director, &before);
    first.stop();
}

fn deleted_device_ends_the_director_and_its_routes() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    let director = stage.direct(&both_families(&stage));

    run_well(&stage.lab.director, "ip", &["link", "delete", "wvs0"]);
    let ended = director.wait();

    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("the network device wvs0 is gone"), "{}", ended.log);
    assert_unchanged(&stage.lab.director, &before);
}

fn host_learns_routes_from_advertisements_as_before() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let accept = || host.run(|| wvs::sysctl::read("net/ipv6/conf/clients/accept_ra").unwrap());
    assert_eq!(accept(), "1");
    let director = stage.direct(&stage.service(true, "rr"));
    // 2: although it forwards.
    assert_eq!(accept(), "2");
    director.stop();
    assert_eq!(accept(), "1");
}

fn strict_source_checks_of_interfaces_are_loose_meanwhile() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let setting = "net/ipv4/conf/clients/rp_filter";
    let read = || host.run(|| wvs::sysctl::read(setting).unwrap());
    host.run(|| wvs::sysctl::write(setting, "1").unwrap());
    let director = stage.direct(&stage.service(false, "rr"));
    assert_eq!(read(), "2");
    // The answer comes in by that interface.
    let client = lab::client_address(1, false).to_string();
    let ping = ["-c", "1", "-W", "10", &client];
    assert!(run_well(&stage.lab.servers[0], "ping", &ping).contains("1 received"));
    director.stop();
    assert_eq!(read(), "1");
}

/// What `ip link` says of the device's MTU.
fn device_mtu(stage: &Stage) -> String {
    let link = run_well(&stage.lab.director, "ip", &["link", "show", "wvs0"]);
    let mut words = link.split(' ').skip_while(|word| *word != "mtu");
    words.nth(1).expect("an MTU").to_owned()
}

fn mtu_follows_the_links_and_routes_in_use() {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let director = stage.direct(&stage.service(false, "rr"));
    assert_eq!(device_mtu(&stage), "1500");
    let follows = |arguments: &[&str], mtu: u16| {
        run_well(host, "ip", arguments);
        wait_until(&format!("{mtu} after {arguments:?}"), || {
            device_mtu(&stage) == mtu.to_string()
                && stats(&stage.socket_of("wvs")).device.mtu == mtu
        });
    };
    follows(&["link", "set", "server2", "mtu", "1400"], 1400);
    follows(&["route", "add", "10.20.1.2/32", "dev", "server1", "mtu", "1300"], 1300);
    follows(&["route", "del", "10.20.1.2/32"], 1400);
    // The way to clients that are further away.
    follows(&["route", "add", "default", "via", "10.10.0.11", "mtu", "1350"], 1350);
    follows(&["link", "set", "clients", "mtu", "1280"], 1280);
    follows(&["route", "del", "default"], 1400);
    follows(&["link", "set", "server2", "mtu", "1500"], 1500);
    // Somebody who sets it by hand should set device.mtu instead.
    follows(&["link", "set", "wvs0", "mtu", "1450"], 1500);
    let log = director.stop().log;
    assert_eq!(log.matches("the device follows the smallest MTU on the way").count(), 8, "{log}");
}

fn set_mtu_stays() {
    let stage = Stage::new(1);
    let config = stage.configure("device: { mtu: 1450 }", &stage.service(false, "rr"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    // Put back after it: by then the change of the link was looked at.
    run_well(&stage.lab.director, "ip", &["link", "set", "server1", "mtu", "1400"]);
    run_well(&stage.lab.director, "ip", &["route", "del", "10.30.0.1"]);
    wait_until("the route is back", || director.log().contains("put back"));
    assert_eq!(device_mtu(&stage), "1450");
    director.stop();
}

fn device_set_down_and_up_gets_its_routes_back() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let _servers = [false, true].map(|is_ipv6| web_servers(&stage, is_ipv6, SERVER_PORT));
    let before = host_state(host);
    let director = stage.direct(&both_families(&stage));
    let expected = host_state(host);

    run_well(host, "ip", &["link", "set", "wvs0", "down"]);
    wait_until("a warning", || director.log().contains("the device was set down"));
    assert_ne!(host_state(host), expected);
    run_well(host, "ip", &["link", "set", "wvs0", "up"]);
    wait_until("the same state", || host_state(host) == expected);

    for is_ipv6 in [false, true] {
        assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    }
    let log = director.stop().log;
    assert_eq!(log.matches("put back what somebody removed").count(), 1, "{log}");
    assert_unchanged(host, &before);
}

fn removed_routes_and_rules_are_put_back() {
    let stage = Stage::new(1);
    let host = &stage.lab.director;
    let before = host_state(host);
    let director = stage.direct(&both_families(&stage));
    let expected = host_state(host);
    for family in ["-4", "-6"] {
        run_well(host, "ip", &[family, "rule", "flush", "protocol", "119"]);
        run_well(host, "ip", &[family, "route", "flush", "table", "all", "protocol", "119"]);
    }
    wait_until("the same state", || host_state(host) == expected);
    director.stop();
    assert_unchanged(host, &before);
}
