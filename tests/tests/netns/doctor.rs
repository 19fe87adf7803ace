//! What `wvs doctor` finds: each thing is broken by itself, must be found and nothing else, and must
//! be gone when the commands were given that it prints.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use wvs::doctor::{Code, Severity};
use wvs::lab::{self, Host};

use crate::director::{DirectorProcess, WVS};
use crate::host_state::{assert_unchanged, host_state};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, has_other_users, run, run_well, wait_until};

trials! {
    both healthy_host_and_director_get_no_findings_and_stay_as_they_were,
    both forwarding_that_is_off_is_found_and_mended,
    once forwarding_that_is_off_at_one_interface_is_found_and_mended,
    once source_check_in_the_way_is_found_and_mended,
    once strict_source_check_of_another_interface_is_a_warning,
    once settings_that_matter_less_are_warnings,
    once settings_are_looked_at_before_a_start_where_the_director_leaves_them_alone,
    once settings_that_cannot_be_changed_are_found_and_mended,
    once device_that_is_down_is_found_and_mended,
    both missing_routes_and_rules_are_found_and_mended,
    both vip_that_is_routed_past_the_director_by_hand_is_found_and_mended,
    both rule_that_takes_replies_before_the_director_is_found_and_moved,
    both vip_of_the_host_is_found_and_mended_before_a_start_and_while_it_runs,
    both vip_that_is_routed_elsewhere_is_found_and_mended,
    both vip_that_nobody_announces_is_found_and_mended,
    once server_without_a_route_is_found,
    once server_on_the_director_itself_is_found,
    once server_of_another_director_is_found,
    once missing_rights_are_found,
    once missing_driver_is_found_and_mended,
    once device_of_another_is_found_and_mended,
    once socket_that_is_no_director_s_is_found,
    once socket_that_may_not_be_used_is_a_warning,
    both server_whose_replies_never_came_is_found_from_traffic_and_mended,
    both server_without_a_way_back_is_found_by_a_probe_and_mended,
    both server_that_does_not_answer_is_found_by_a_probe,
    once server_that_nobody_has_is_not_taken_for_one_without_a_way_back,
    both server_with_full_nat_needs_no_way_back,
    both client_beside_its_server_is_found_and_mended,
    once device_that_takes_too_long_packets_is_found_and_mended,
    both long_packets_that_vanish_are_found_by_a_probe_and_mended,
    once findings_are_written_for_people_with_their_commands,
    once wrong_usage_and_bad_configurations_are_refused,
}

/// What `wvs doctor --json` found.
#[derive(Debug)]
struct Findings {
    exit_code: Option<i32>,
    answer: Value,
}

impl Findings {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let answer = serde_json::from_slice(&output.stdout);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { exit_code: output.status.code(), answer }
    }

    fn list(&self) -> &[Value] {
        self.answer["findings"].as_array().expect("a list")
    }

    /// Asserts that these were found and no others, and the exit status that follows.
    #[track_caller]
    fn assert_are(&self, expected: &[Code]) {
        let found: Vec<_> =
            self.list().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
        let names: Vec<_> = expected.iter().map(|code| code.name()).collect();
        assert_eq!(found, names, "{:#}", self.answer);
        for (finding, code) in self.list().iter().zip(expected) {
            assert_eq!(finding["why"], code.why());
            assert_eq!(finding["severity"], code.severity().to_string());
        }
        let has_errors = expected.iter().any(|code| code.severity() == Severity::Error);
        assert_eq!(self.exit_code, Some(i32::from(has_errors)), "{:#}", self.answer);
    }

    /// Gives every command, on this host or the server that it is for.
    #[track_caller]
    fn mend(&self, stage: &Stage) {
        for finding in self.list() {
            let host = match finding["on"].as_str() {
                Some(address) => server_with(stage, address.parse().expect("an address")),
                None => &stage.lab.director,
            };
            let commands = finding["commands"].as_array().expect("a list");
            assert!(!commands.is_empty(), "nothing mends it: {finding:#}");
            for command in commands {
                run_well(host, "sh", &["-ec", command.as_str().expect("text")]);
            }
        }
    }
}

fn server_with(stage: &Stage, address: IpAddr) -> &Host {
    let mut servers = (1..).zip(&stage.lab.servers);
    let server =
        servers.find(|(number, _)| lab::server_address(*number, address.is_ipv6()) == address);
    server.expect("a server of the lab").1
}

#[track_caller]
fn examine_with(stage: &Stage, config: &Path, more: &[&str]) -> Findings {
    let config = config.to_string_lossy();
    let arguments = [&["doctor", "--json", "-c", &config], more].concat();
    Findings::of(&run(&stage.lab.director, WVS, &arguments))
}

#[track_caller]
fn examine(stage: &Stage, config: &Path) -> Findings {
    examine_with(stage, config, &[])
}

/// Finds exactly `codes`, gives the commands, and finds nothing any more.
#[track_caller]
fn assert_mends(stage: &Stage, config: &Path, codes: &[Code]) {
    let findings = examine(stage, config);
    findings.assert_are(codes);
    findings.mend(stage);
    examine(stage, config).assert_are(&[]);
}

fn on_director(stage: &Stage, arguments: &[&str]) {
    run_well(&stage.lab.director, arguments[0], &arguments[1..]);
}

/// `ip` for a family, on the director.
fn ip(stage: &Stage, is_ipv6: bool, arguments: &[&str]) {
    ip_on(&stage.lab.director, is_ipv6, arguments);
}

fn ip_on(host: &Host, is_ipv6: bool, arguments: &[&str]) {
    let family = [if is_ipv6 { "-6" } else { "-4" }];
    run_well(host, "ip", &[&family, arguments].concat());
}

/// A running director with one service, and its configuration.
fn running(stage: &Stage, is_ipv6: bool) -> (DirectorProcess, std::path::PathBuf) {
    let config = stage.configure("", &stage.service(is_ipv6, "rr"));
    (DirectorProcess::start(&stage.lab.director, &config), config)
}

fn healthy_host_and_director_get_no_findings_and_stay_as_they_were(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    for head in ["", "routing: print", "routing: off"] {
        let config = stage.configure(head, &stage.service(is_ipv6, "rr"));
        if !head.is_empty() {
            // What is then the administrator's business.
            for setting in ["net.ipv4.ip_early_demux=0", "net.ipv4.conf.all.send_redirects=0"] {
                on_director(&stage, &["sysctl", "-w", setting]);
            }
            for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
                on_director(&stage, &["sysctl", "-w", setting]);
            }
        }
        let before = host_state(&stage.lab.director);
        let stopped = examine_with(&stage, &config, &["--probe"]);
        stopped.assert_are(&[]);
        assert_eq!(stopped.answer["director"], "stopped");
        assert_unchanged(&stage.lab.director, &before);
    }
    let (director, config) = running(&stage, is_ipv6);
    let before = host_state(&stage.lab.director);
    let untried = examine(&stage, &config);
    untried.assert_are(&[]);
    assert_eq!(untried.answer["director"], "running");
    assert_eq!(untried.answer["unexamined"].as_array().unwrap().len(), 1, "{untried:?}");
    for _ in 0..2 {
        stage.who_answers(1, is_ipv6);
    }
    for more in [&[][..], &["--probe"]] {
        let findings = examine_with(&stage, &config, more);
        findings.assert_are(&[]);
        assert_eq!(findings.answer["unexamined"].as_array().unwrap().len(), 0, "{findings:?}");
    }
    assert_unchanged(&stage.lab.director, &before);
    director.stop();
}

fn forwarding_that_is_off_is_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, is_ipv6);
    let off = if is_ipv6 { "net.ipv6.conf.all.forwarding=0" } else { "net.ipv4.ip_forward=0" };
    on_director(&stage, &["sysctl", "-w", off]);
    assert_mends(&stage, &config, &[Code::ForwardingOff]);
    director.stop();
}

fn forwarding_that_is_off_at_one_interface_is_found_and_mended() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    for interface in ["clients", "server1", "wvs0"] {
        let off = format!("net.ipv4.conf.{interface}.forwarding=0");
        on_director(&stage, &["sysctl", "-w", &off]);
        assert_mends(&stage, &config, &[Code::ForwardingOff]);
    }
    director.stop();
}

fn source_check_in_the_way_is_found_and_mended() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let (director, config) = running(&stage, false);
    // The greater value counts, and the loose check also finds fault with the VIP.
    for setting in ["all.rp_filter=1", "all.rp_filter=2", "wvs0.rp_filter=1", "wvs0.rp_filter=2"] {
        on_director(&stage, &["sysctl", "-w", &format!("net.ipv4.conf.{setting}")]);
        assert_mends(&stage, &config, &[Code::RpFilter]);
        assert_eq!(stage.who_answers(1, false), "server1");
    }
    director.stop();
}

fn strict_source_check_of_another_interface_is_a_warning() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    on_director(&stage, &["sysctl", "-w", "net.ipv4.conf.clients.rp_filter=1"]);
    assert_mends(&stage, &config, &[Code::RpFilterStrict]);
    director.stop();
}

fn settings_that_matter_less_are_warnings() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    for (setting, code) in [
        ("ip_early_demux=1", Code::EarlyDemux),
        ("conf.all.send_redirects=1", Code::Redirects),
        ("conf.wvs0.accept_local=0", Code::AcceptLocal),
    ] {
        on_director(&stage, &["sysctl", "-w", &format!("net.ipv4.{setting}")]);
        assert_mends(&stage, &config, &[code]);
    }
    director.stop();
}

fn settings_are_looked_at_before_a_start_where_the_director_leaves_them_alone() {
    let stage = Stage::new(1);
    for routing in ["routing: print", "routing: off"] {
        on_director(
            &stage,
            &["sysctl", "-w", "net.ipv4.ip_forward=0", "net.ipv4.ip_early_demux=1"],
        );
        on_director(&stage, &["sysctl", "-w", "net.ipv4.conf.all.send_redirects=1"]);
        on_director(&stage, &["sysctl", "-w", "net.ipv4.conf.all.rp_filter=1"]);
        let config = stage.configure(routing, &stage.service(false, "rr"));
        let all = [Code::ForwardingOff, Code::RpFilter, Code::EarlyDemux, Code::Redirects];
        assert_mends(&stage, &config, &all);
    }
}

fn settings_that_cannot_be_changed_are_found_and_mended() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    // In one mount namespace: found, mended, looked at again.
    let script = "mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys
        \"$0\" doctor --json -c \"$1\" > \"$2/before\" && exit 9
        eval \"$(sed -n 's/.*\"\\(mount .*\\)\".*/\\1/p' \"$2/before\")\"
        \"$0\" doctor --json -c \"$1\" > \"$2/after\"";
    let folder = stage.folder().to_string_lossy();
    let config = config.to_string_lossy();
    let arguments = ["--mount", "sh", "-ec", script, WVS, &config, &folder];
    run_well(&stage.lab.director, "unshare", &arguments);
    let read = |name| {
        let text = fs::read(stage.folder().join(name)).expect("an answer");
        serde_json::from_slice::<Value>(&text).expect("JSON")
    };
    let (before, after) = (read("before"), read("after"));
    assert_eq!(before["findings"].as_array().unwrap().len(), 1, "{before:#}");
    assert_eq!(before["findings"][0]["code"], Code::SettingsReadOnly.name());
    assert_eq!(after["findings"], Value::Array(Vec::new()), "{after:#}");
}

fn device_that_is_down_is_found_and_mended() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    on_director(&stage, &["ip", "link", "set", "wvs0", "down"]);
    let findings = examine(&stage, &config);
    findings.assert_are(&[Code::DeviceDown]);
    findings.mend(&stage);
    // The director puts its routes back.
    wait_until("nothing is found", || examine(&stage, &config).list().is_empty());
    director.stop();
}

fn missing_routes_and_rules_are_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let config = stage.configure("routing: print", &stage.service(is_ipv6, "rr"));
    let mut director = DirectorProcess::start(&stage.lab.director, &config);
    let commands = director.output();
    // Some of them, then all.
    run_well(&stage.lab.director, "sh", &["-ec", &commands]);
    examine(&stage, &config).assert_are(&[]);
    ip(&stage, is_ipv6, &["rule", "del", "pref", "1991"]);
    let vip = lab::vip(is_ipv6).to_string();
    ip(&stage, is_ipv6, &["route", "del", &vip]);
    let findings = examine(&stage, &config);
    findings.assert_are(&[Code::RoutesMissing]);
    assert_eq!(findings.list()[0]["commands"].as_array().unwrap().len(), 2, "{findings:?}");
    findings.mend(&stage);
    examine(&stage, &config).assert_are(&[]);

    ip(&stage, is_ipv6, &["rule", "flush", "protocol", "119"]);
    ip(&stage, is_ipv6, &["route", "flush", "table", "all", "protocol", "119"]);
    assert_mends(&stage, &config, &[Code::RoutesMissing]);
    assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    director.stop();
}

/// With `routing: off`, where only what the kernel does counts.
fn vip_that_is_routed_past_the_director_by_hand_is_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let service = stage.service(is_ipv6, "rr");
    let printing = stage.configure("routing: print", &service);
    let mut director = DirectorProcess::start(&stage.lab.director, &printing);
    let commands = director.output();
    director.stop();
    let config = stage.configure("routing: off", &service);
    let director = DirectorProcess::start(&stage.lab.director, &config);
    run_well(&stage.lab.director, "sh", &["-ec", &commands]);
    examine(&stage, &config).assert_are(&[]);

    let vip = lab::vip(is_ipv6).to_string();
    ip(
        &stage,
        is_ipv6,
        &["route", "replace", "default", "via", &lab::client_address(9, is_ipv6).to_string()],
    );
    ip(&stage, is_ipv6, &["route", "del", &vip]);
    assert_mends(&stage, &config, &[Code::PacketsAstray]);
    assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    director.stop();
}

fn rule_that_takes_replies_before_the_director_is_found_and_moved(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let (director, config) = running(&stage, is_ipv6);
    let via = lab::client_address(9, is_ipv6).to_string();
    ip(&stage, is_ipv6, &["route", "add", "default", "via", &via, "table", "100"]);
    ip(&stage, is_ipv6, &["rule", "add", "pref", "500", "iif", "server1", "lookup", "100"]);
    let findings = examine(&stage, &config);
    findings.assert_are(&[Code::PacketsAstray]);
    assert!(
        findings.list()[0]["what"].as_str().unwrap().contains("pref 500 iif server1 lookup 100")
    );
    findings.mend(&stage);
    examine(&stage, &config).assert_are(&[]);
    for _ in 0..2 {
        stage.who_answers(1, is_ipv6);
    }
    director.stop();
}

fn vip_of_the_host_is_found_and_mended_before_a_start_and_while_it_runs(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let vip = lab::vip(is_ipv6).to_string();
    let length = if is_ipv6 { "128" } else { "32" };
    let with_length = format!("{vip}/{length}");
    let break_it: [&dyn Fn(); 2] =
        [&|| ip(&stage, is_ipv6, &["address", "add", &with_length, "dev", "clients"]), &|| {
            ip(&stage, is_ipv6, &["route", "add", "local", &vip, "dev", "lo", "table", "local"]);
        }];
    let config = stage.configure("", &stage.service(is_ipv6, "rr"));
    for break_it in break_it {
        break_it();
        assert_mends(&stage, &config, &[Code::VipLocal]);
    }
    let (director, config) = running(&stage, is_ipv6);
    for break_it in break_it {
        break_it();
        assert_mends(&stage, &config, &[Code::VipLocal]);
        assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    }
    director.stop();
}

fn vip_that_is_routed_elsewhere_is_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(is_ipv6, "rr"));
    let vip = lab::vip(is_ipv6).to_string();
    ip(&stage, is_ipv6, &["route", "add", &vip, "dev", "clients"]);
    assert_mends(&stage, &config, &[Code::VipRouted]);
}

fn vip_that_nobody_announces_is_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let vip: IpAddr = if is_ipv6 { "fd00:10::99" } else { "10.10.0.99" }.parse().unwrap();
    let config = stage.configure("", &stage.service_of(vip, PORT, "tcp", "rr", SERVER_PORT));
    assert_mends(&stage, &config, &[Code::VipUnannounced]);
    let director = DirectorProcess::start(&stage.lab.director, &config);
    examine(&stage, &config).assert_are(&[]);
    director.stop();
}

/// A service with one server at this address.
fn service_with(vip: IpAddr, server: &str) -> String {
    format!(
        "  - name: web\n    vip: \"{vip}\"\n    port: {PORT}\n    servers:\n      - {{ address: \
         \"{server}\", port: {SERVER_PORT} }}\n"
    )
}

fn server_without_a_route_is_found() {
    let stage = Stage::new(0);
    let config = stage.configure("", &service_with(lab::VIP, "10.99.0.1"));
    examine(&stage, &config).assert_are(&[Code::ServerUnreachable]);
    on_director(&stage, &["ip", "route", "add", "10.99.0.1", "via", "10.10.0.11"]);
    examine(&stage, &config).assert_are(&[]);
}

fn server_on_the_director_itself_is_found() {
    let stage = Stage::new(0);
    let config = stage.configure("", &service_with(lab::VIP, "10.10.0.1"));
    examine(&stage, &config).assert_are(&[Code::ServerLocal]);
}

fn server_of_another_director_is_found() {
    let stage = Stage::new(1);
    let (director, _) = running(&stage, false);
    let other = service_with("10.30.0.2".parse().unwrap(), "10.20.1.2");
    let config = stage.configure_as("other", "device: { name: other0 }", &other);
    examine(&stage, &config).assert_are(&[Code::ServerTaken]);
    director.stop();
    examine(&stage, &config).assert_are(&[]);
}

fn missing_rights_are_found() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    let without = ["--inh-caps=-all", "--bounding-set=-all", WVS, "doctor", "--json", "-c"];
    let config_text = config.to_string_lossy();
    let arguments = [&without[..], &[&config_text]].concat();
    let findings = Findings::of(&run(&stage.lab.director, "setpriv", &arguments));
    findings.assert_are(&[Code::Rights]);
    let command = format!("sudo wvs run -c {config_text}");
    assert_eq!(findings.list()[0]["commands"][0], command);
    // As root, then.
    examine(&stage, &config).assert_are(&[]);

    // Without --probe nothing needs rights of a reader.
    let (director, config) = running(&stage, false);
    let findings = Findings::of(&run(&stage.lab.director, "setpriv", &arguments));
    findings.assert_are(&[]);
    let probe = run(&stage.lab.director, "setpriv", &[&arguments[..], &["--probe"]].concat());
    assert_eq!(probe.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&probe.stderr).into_owned();
    assert!(complaint.contains("run as root, or without --probe"), "{complaint}");
    drop(config);
    director.stop();
}

fn missing_driver_is_found_and_mended() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    stage.lab.director.run(|| {
        // An empty folder over /dev/net, for this thread and its children.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("a file system");
        let examine = || {
            let mut doctor = Command::new(WVS);
            doctor.args(["doctor", "--json", "-c"]).arg(&config);
            Findings::of(&doctor.output().expect("wvs runs"))
        };
        let findings = examine();
        findings.assert_are(&[Code::TunMissing]);
        let command = findings.list()[0]["commands"][0].as_str().unwrap().to_owned();
        let mended = Command::new("sh").args(["-ec", &command]).status().expect("sh runs");
        // In a user namespace nobody may make device files.
        if mended.success() {
            examine().assert_are(&[]);
        }
    });
}

fn device_of_another_is_found_and_mended() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    on_director(&stage, &["ip", "tuntap", "add", "dev", "wvs0", "mode", "tun"]);
    assert_mends(&stage, &config, &[Code::DeviceInUse]);
}

fn socket_that_is_no_director_s_is_found() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    let listener = UnixListener::bind(stage.socket_of("wvs")).expect("a socket");
    let other = std::thread::spawn(move || drop(listener.accept()));
    examine(&stage, &config).assert_are(&[Code::DirectorSilent]);
    other.join().unwrap();
    examine(&stage, &config).assert_are(&[]);
}

fn socket_that_may_not_be_used_is_a_warning() {
    if !has_other_users() {
        return;
    }
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    let anybody = "/run";
    fs::set_permissions(anybody, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let config = config.to_string_lossy();
    let arguments = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        WVS,
        "doctor",
        "--json",
        "-c",
        &config,
    ];
    let findings = Findings::of(&run(&stage.lab.director, "setpriv", &arguments));
    findings.assert_are(&[Code::SocketForbidden]);
    assert_eq!(findings.answer["director"], "unknown");
    director.stop();
}

/// Has the server send what is for clients to nobody.
fn lose_the_way_back(stage: &Stage, is_ipv6: bool) {
    let nobody = if is_ipv6 { "fd00:20:1::99" } else { "10.20.1.99" };
    ip_on(&stage.lab.servers[0], is_ipv6, &["route", "replace", "default", "via", nobody]);
}

fn server_whose_replies_never_came_is_found_from_traffic_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let (director, config) = running(&stage, is_ipv6);
    lose_the_way_back(&stage, is_ipv6);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| stage.fetch(1, is_ipv6, "/name"));
        wait_until("it is found", || !examine(&stage, &config).list().is_empty());
        let findings = examine(&stage, &config);
        findings.assert_are(&[Code::NoRouteBack]);
        findings.mend(&stage);
        // The client is still at it.
        assert_eq!(client.join().unwrap().expect("an answer"), "server1");
    });
    examine(&stage, &config).assert_are(&[]);
    director.stop();
}

fn server_without_a_way_back_is_found_by_a_probe_and_mended(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    lose_the_way_back(&stage, is_ipv6);
    let config = stage.configure("", &stage.service(is_ipv6, "rr"));
    let probe = || examine_with(&stage, &config, &["--probe"]);
    let findings = probe();
    findings.assert_are(&[Code::NoRouteBack]);
    // With and without a director.
    let director = DirectorProcess::start(&stage.lab.director, &config);
    probe().assert_are(&[Code::NoRouteBack]);
    findings.mend(&stage);
    probe().assert_are(&[]);
    director.stop();
    probe().assert_are(&[]);
}

fn server_that_does_not_answer_is_found_by_a_probe(is_ipv6: bool) {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(is_ipv6, "rr"));
    // It refuses, and so it lives.
    examine_with(&stage, &config, &["--probe"]).assert_are(&[]);
    let address = lab::server_address(1, is_ipv6).to_string();
    let length = if is_ipv6 { "64" } else { "24" };
    let address = format!("{address}/{length}");
    ip_on(&stage.lab.servers[0], is_ipv6, &["address", "del", &address, "dev", "eth0"]);
    examine_with(&stage, &config, &["--probe"]).assert_are(&[Code::ServerSilent]);
}

fn server_that_nobody_has_is_not_taken_for_one_without_a_way_back() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    run_well(&stage.lab.servers[0], "ip", &["address", "del", "10.20.1.2/24", "dev", "eth0"]);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| stage.fetch(1, false, "/name"));
        wait_until("it is found", || !examine(&stage, &config).list().is_empty());
        examine(&stage, &config).assert_are(&[Code::ServerSilent]);
        // The host says that nobody is there.
        assert!(client.join().unwrap().is_err());
    });
    director.stop();
}

fn server_with_full_nat_needs_no_way_back(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    lose_the_way_back(&stage, is_ipv6);
    let pool = if is_ipv6 { "fd00:20:1::50" } else { "10.20.1.50" };
    let service = stage.service(is_ipv6, "rr")
        + &format!("    forward: fullnat\n    pool: {{ addresses: [\"{pool}\"] }}\n");
    let config = stage.configure("", &service);
    let director = DirectorProcess::start(&stage.lab.director, &config);
    // The pool is in the servers' network, where the host has to answer for it.
    assert_mends(&stage, &config, &[Code::VipUnannounced]);
    assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    examine_with(&stage, &config, &["--probe"]).assert_are(&[]);
    director.stop();
}

/// The second server becomes a client in the first one's network.
fn client_beside_its_server_is_found_and_mended(is_ipv6: bool) {
    let stage = Stage::new(2);
    let host = &stage.lab.director;
    let (gateway, client, vip) = if is_ipv6 {
        ("fd00:20:1::1/64", "fd00:20:1::77", "fd00:30::1")
    } else {
        ("10.20.1.1/24", "10.20.1.77", "10.30.0.1")
    };
    let length = if is_ipv6 { "64" } else { "24" };
    run_well(host, "ip", &["link", "add", "lan", "type", "bridge"]);
    for link in ["server1", "server2"] {
        run_well(host, "ip", &["address", "flush", "dev", link]);
        run_well(host, "ip", &["link", "set", link, "master", "lan"]);
    }
    run_well(host, "ip", &["link", "set", "lan", "up"]);
    ip(&stage, is_ipv6, &["address", "add", gateway, "dev", "lan"]);
    let neighbour = &stage.lab.servers[1];
    ip_on(neighbour, is_ipv6, &["address", "flush", "dev", "eth0", "scope", "global"]);
    ip_on(neighbour, is_ipv6, &["address", "add", &format!("{client}/{length}"), "dev", "eth0"]);
    let via = gateway.split('/').next().unwrap();
    ip_on(neighbour, is_ipv6, &["route", "replace", "default", "via", via]);

    let _server = crate::server::Server::start(
        &stage.lab.servers[0],
        (lab::server_address(1, is_ipv6), SERVER_PORT).into(),
        {
            let folder = stage.folder().to_owned();
            move |stream| crate::server::serve_web(stream, "server1", &folder)
        },
    );
    let service = service_with(vip.parse().unwrap(), &lab::server_address(1, is_ipv6).to_string())
        + "    timeouts: { syn_recv: 3s }\n";
    let config = stage.configure("", &service);
    let director = DirectorProcess::start(host, &config);
    // From elsewhere it works.
    assert_eq!(stage.who_answers(1, is_ipv6), "server1");
    examine(&stage, &config).assert_are(&[]);

    let url = stage.url(is_ipv6, "/name");
    let curl = |time: &str| run(neighbour, "curl", &["-sg", "--max-time", time, &url]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| curl("20"));
        wait_until("it is found", || !examine(&stage, &config).list().is_empty());
        let findings = examine(&stage, &config);
        findings.assert_are(&[Code::ClientBesideServer]);
        findings.mend(&stage);
        waiting.join().unwrap();
    });
    let answer = curl("20");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "server1", "{answer:?}");
    wait_until("nothing is found", || examine(&stage, &config).list().is_empty());
    director.stop();
}

fn device_that_takes_too_long_packets_is_found_and_mended() {
    let stage = Stage::new(1);
    let config = stage.configure("device: { mtu: 1450 }", &stage.service(false, "rr"));
    on_director(&stage, &["ip", "link", "set", "server1", "mtu", "1400"]);
    // Before a start the configuration is all that there is to change.
    let stopped = examine(&stage, &config);
    stopped.assert_are(&[Code::MtuDevice]);
    assert!(stopped.list()[0]["advice"].as_str().unwrap().contains("device.mtu: auto"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    assert_mends(&stage, &config, &[Code::MtuDevice]);
    director.stop();
}

fn long_packets_that_vanish_are_found_by_a_probe_and_mended(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let (director, config) = running(&stage, is_ipv6);
    // A cable drops what is too long for its other end, and says nothing.
    run_well(&stage.lab.servers[0], "ip", &["link", "set", "eth0", "mtu", "1400"]);
    examine(&stage, &config).assert_are(&[]);
    let findings = examine_with(&stage, &config, &["--probe"]);
    findings.assert_are(&[Code::MtuHole]);
    let command = findings.list()[0]["commands"][0].as_str().unwrap();
    assert!(command.ends_with("dev server1 mtu 1400"), "{command}");
    findings.mend(&stage);
    wait_until("nothing is found", || {
        examine_with(&stage, &config, &["--probe"]).list().is_empty()
    });
    director.stop();
}

fn findings_are_written_for_people_with_their_commands() {
    let stage = Stage::new(1);
    let (director, config) = running(&stage, false);
    let config = config.to_string_lossy().into_owned();
    on_director(&stage, &["sysctl", "-w", "net.ipv4.ip_forward=0"]);
    let output = run(&stage.lab.director, WVS, &["doctor", "-c", &config]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!(
        "error: net.ipv4.ip_forward is 0 and has to be 1 [forwarding-off]\n  {why}\n    sysctl -w \
         net.ipv4.ip_forward=1\n\n{config}: 1 error, 0 warnings with the running director\nnot \
         examined: whether replies of 1 real server come back by this host: nothing was seen of \
         them yet; `--probe` asks them\n",
        why = Code::ForwardingOff.why(),
    );
    assert_eq!(text, expected);
    assert_eq!(output.status.code(), Some(1));
    director.stop();
}

fn wrong_usage_and_bad_configurations_are_refused() {
    let stage = Stage::new(1);
    let config = stage.configure("nonsense: 1", &stage.service(false, "rr"));
    let config = config.to_string_lossy();
    for arguments in [
        &["doctor", "-c", &config][..],
        &["doctor", "-c", "/nowhere.yaml"],
        &["doctor"],
        &["doctor", "-c", &config, "--client", "10.0.0.1"],
    ] {
        let output = run(&stage.lab.director, WVS, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    let names: BTreeMap<_, _> = Code::ALL.iter().map(|code| (code.name(), code)).collect();
    assert_eq!(names.len(), Code::ALL.len(), "two codes have one name");
}
