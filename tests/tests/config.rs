//! The configuration as its files: what is read from good ones, what is said of broken ones, and
//! whether the documentation and the examples keep up.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use wvs::config::keys::{TABLES, Table};
use wvs::config::{Problem, Reading, ServerConfig};
use wvs::deployment;
use wvs_health::Check;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn read(text: &str) -> Reading {
    Reading::of_text(Path::new("/etc/wvs/wvs.yaml"), text)
}

fn problems(text: &str) -> Vec<String> {
    read(text).problems().iter().map(Problem::to_string).collect()
}

#[test]
fn every_problem_of_a_broken_file_is_told_in_one_run() {
    let mut told = String::new();
    for file in yaml_files(&fixtures().join("broken")) {
        let reading = Reading::of_file(&file);
        assert!(!reading.is_usable(), "{}", file.display());
        writeln!(told, "{}", file.file_name().unwrap().display()).unwrap();
        for problem in reading.problems() {
            writeln!(told, "  {problem}").unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn every_key_is_read() {
    let text = fs::read_to_string(fixtures().join("every-key.yaml")).unwrap();
    let (config, warnings) = read(&text).into_config().unwrap();
    assert_eq!(warnings, []);
    insta::assert_debug_snapshot!(config);
    for table in TABLES {
        for key in table.keys {
            let is_there = text.contains(&format!("{}:", key.name));
            assert!(is_there, "{}.{} is in no fixture", table.path, key.name);
        }
    }
}

#[test]
fn file_of_nothing_but_services_gets_the_documented_defaults() {
    let text =
        "services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1 }] }]";
    let (config, warnings) = read(text).into_config().unwrap();
    assert_eq!(warnings, []);
    insta::assert_debug_snapshot!(config);
}

#[test]
fn last_value_of_each_range_is_taken_and_the_next_refused() {
    let file = |before: &str, service: &str, server: &str| {
        format!(
            "{before}\nservices: [{{ name: web, vip: 192.0.2.1, port: 80, {service} \
             servers: [{{ address: 10.0.0.1, {server} }}] }}]"
        )
    };
    for (good, bad) in [
        (("device: { mtu: 576 }", "", ""), ("device: { mtu: 575 }", "", "")),
        (("device: { mtu: 65535 }", "", ""), ("device: { mtu: 65536 }", "", "")),
        (("device: { queues: 1 }", "", ""), ("device: { queues: 0 }", "", "")),
        (("device: { queues: 64 }", "", ""), ("device: { queues: 65 }", "", "")),
        (
            ("device: { name: fifteen-octets. }", "", ""),
            ("device: { name: sixteen-octets-x }", "", ""),
        ),
        (("limits: { connections: 1 }", "", ""), ("limits: { connections: 0 }", "", "")),
        (
            ("limits: { connections: 16777216 }", "", ""),
            ("limits: { connections: 16777217 }", "", ""),
        ),
        (("limits: { replies: 1000000 }", "", ""), ("limits: { replies: 1000001 }", "", "")),
        (("", "timeouts: { close: 100ms },", ""), ("", "timeouts: { close: 99ms },", "")),
        (("", "timeouts: { close: 31d },", ""), ("", "timeouts: { close: 2678401s },", "")),
        (("limits: { templates: 1 }", "", ""), ("limits: { templates: 0 }", "", "")),
        (("", "persistence: 1s,", ""), ("", "persistence: 999ms,", "")),
        (("", "persistence: { prefix: 32 },", ""), ("", "persistence: { prefix: 33 },", "")),
        (("", "quorum: 1,", ""), ("", "quorum: 0,", "")),
        (
            ("", "quorum: 3, hysteresis: 2,", "weight: 3"),
            ("", "quorum: 3, hysteresis: 3,", "weight: 3"),
        ),
        (("", "quorum: 3,", "weight: 3"), ("", "quorum: 3,", "weight: 2")),
        (("", "slow_start: 1h,", ""), ("", "slow_start: 3601s,", "")),
        (("", "drain: { deadline: 0s },", ""), ("", "drain: { deadline: 32d },", "")),
        (
            ("", "", "upper_threshold: 8, lower_threshold: 8"),
            ("", "", "upper_threshold: 8, lower_threshold: 9"),
        ),
        (("", "", "upper_threshold: 1"), ("", "", "upper_threshold: 0")),
        (
            ("", "health: { tcp: {}, interval: 100ms },", ""),
            ("", "health: { tcp: {}, interval: 99ms },", ""),
        ),
        (
            ("", "health: { tcp: {}, timeout: 5m },", ""),
            ("", "health: { tcp: {}, timeout: 301s },", ""),
        ),
        (("", "health: { tcp: {}, rise: 100 },", ""), ("", "health: { tcp: {}, rise: 101 },", "")),
        (
            ("", "health: { passive: { failures: 1, for: 1d } },", ""),
            ("", "health: { passive: { failures: 1, for: 86401s } },", ""),
        ),
        (
            ("", "", "health: { http: { expect: [100, 599] } }"),
            ("", "", "health: { http: { expect: [100, 600] } }"),
        ),
        (("limits: { checks: 65536 }", "", ""), ("limits: { checks: 0 }", "", "")),
        (("", "", "weight: 65535"), ("", "", "weight: 65536")),
        (("", "", "weight: 0"), ("", "", "weight: -1")),
        (("", "", "port: 65535"), ("", "", "port: 65536")),
        (("", "", "port: 1"), ("", "", "port: 0")),
    ] {
        let [good, bad] =
            [good, bad].map(|(before, service, server)| file(before, service, server));
        assert_eq!(problems(&good), Vec::<String>::new(), "{good}");
        assert_eq!(problems(&bad).len(), 1, "{bad}: {:?}", problems(&bad));
    }
}

/// One service at these addresses and ports, and what is wrong with it.
fn reach(vip: &str, port: &str, rest: &str) -> Vec<String> {
    problems(&format!(
        "services: [{{ name: web, vip: {vip}, port: {port}, {rest} servers: [{{ address: 10.0.0.1 }}] }}]"
    ))
}

#[test]
fn addresses_and_ports_are_one_or_several() {
    for (vip, port) in [
        ("192.0.2.1", "8000-8100"),
        ("192.0.2.1", "[80, 443, 8000-8100]"),
        ("192.0.2.1", "0"),
        ("[192.0.2.1, 192.0.2.2]", "80"),
    ] {
        assert_eq!(reach(vip, port, ""), Vec::<String>::new(), "{vip} {port}");
    }
    for (vip, port, wrong) in [
        ("[]", "80", "services[0].vip: 0 addresses; use 1 to 64"),
        ("[192.0.2.1, 192.0.2.1]", "80", "services[0].vip[1]: 192.0.2.1 is there already"),
        ("[192.0.2.1, '2001:db8::1']", "80", "is of another family than the VIP before it"),
        ("192.0.2.1", "[]", "services[0].port: 0 entries; use 1 to 256"),
        ("192.0.2.1", "[80, 0]", "services[0].port[1]: 0 stands for all other ports"),
        ("192.0.2.1", "[80, 79-81]", "services[0].port[1]: 79-81 has ports that are there"),
        ("192.0.2.1", "9-7", "services[0].port: 9-7 is no port"),
        ("192.0.2.1", "70000", "70000"),
    ] {
        let told = reach(vip, port, "");
        let [told] = &told[..] else { panic!("{vip} {port}: {told:?}") };
        assert!(told.contains(wrong), "{told}");
    }
}

#[test]
fn no_port_of_a_vip_is_two_services() {
    let two = |first: &str, second: &str| {
        problems(&format!(
            "services:\n\
             - {{ name: a, vip: 192.0.2.1, port: {first}, servers: [{{ address: 10.0.0.1 }}] }}\n\
             - {{ name: b, vip: [192.0.2.2, 192.0.2.1], port: {second}, servers: [{{ address: 10.0.0.1 }}] }}"
        ))
    };
    for (first, second) in [("80", "81"), ("80-90", "[79, 91-99]"), ("0", "80")] {
        assert_eq!(two(first, second), Vec::<String>::new(), "{first} {second}");
    }
    for (first, second, port) in [
        ("80", "80", "192.0.2.1:80/tcp"),
        ("80-90", "85", ":85/"),
        ("85", "80-90", ":85/"),
        ("0", "0", "port 0 of"),
    ] {
        let told = two(first, second);
        let [told] = &told[..] else { panic!("{first} {second}: {told:?}") };
        assert!(told.contains(port) && told.contains("services[0]"), "{told}");
    }
}

#[test]
fn one_packet_needs_one_way_back() {
    let udp = "protocol: udp, one_packet: true,";
    assert_eq!(reach("192.0.2.1", "53", udp), Vec::<String>::new());
    assert_eq!(reach("192.0.2.1", "5000-5010", udp), Vec::<String>::new());
    for (vip, rest, wrong) in [
        ("192.0.2.1", "one_packet: true,", "only udp services have it"),
        ("[192.0.2.1, 192.0.2.2]", udp, "not with several addresses"),
        ("192.0.2.1", "protocol: udp, one_packet: true, forward: fullnat,", "fullnat"),
    ] {
        let told = reach(vip, "53", rest);
        assert!(told.len() == 1 && told[0].contains(wrong), "{told:?}");
    }
    let told = problems(
        "services:\n\
         - { name: a, vip: 192.0.2.1, port: 53, protocol: udp, one_packet: true, servers: [{ address: 10.0.0.1 }] }\n\
         - { name: b, vip: 192.0.2.2, port: 53, protocol: udp, one_packet: true, servers: [{ address: 10.0.0.1 }] }",
    );
    assert!(
        told.len() == 1 && told[0].contains("services[0] has one of the real servers"),
        "{told:?}"
    );
}

#[test]
fn names_that_the_kernel_uses_are_refused_for_the_device() {
    for name in ["lo", "all", "default"] {
        let text = format!(
            "device: {{ name: {name} }}\n\
             services: [{{ name: web, vip: 192.0.2.1, port: 80, servers: [{{ address: 10.0.0.1 }}] }}]"
        );
        let told = problems(&text);
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.contains("the kernel uses for something else; choose another"), "{told}");
    }
}

#[test]
fn plugin_that_no_service_uses_is_a_warning() {
    let text = "plugins: { mine: { file: mine.wasm } }\n\
                services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [] }]";
    let reading = read(text);
    assert!(reading.is_usable());
    insta::assert_snapshot!(problems(text).join("\n"), @r"
    warning: plugins.mine: no service uses this plugin (line 1, column 12)
    warning: services[0].servers: no real servers: every client gets what `on_no_server` says (line 2, column 60)
    ");
}

#[test]
fn server_says_what_is_different_about_its_health_and_the_service_the_rest() {
    let text = "\
services:
  - name: web
    vip: 192.0.2.1
    port: 80
    health: { http: { path: /up }, port: 81, interval: 9s, rise: 7, passive: { failures: 3 } }
    servers:
      - { address: 10.0.0.1 }
      - { address: 10.0.0.2, health: { port: 82, rise: 8 } }
      - { address: 10.0.0.3, health: { tcp: {} } }
      - { address: 10.0.0.4, health: none }
      - { address: 10.0.0.5, health: { passive: none } }
      - { address: 10.0.0.6, health: tcp }
";
    let (config, warnings) = read(text).into_config().unwrap();
    assert_eq!(warnings, []);
    let told = |server: &ServerConfig| {
        let Some(health) = &server.health else { return "none".to_owned() };
        let check = health.check(server.address).unwrap();
        let passive = health.passive.map(|passive| passive.failures);
        let Check { kind, target, interval, rise, .. } = check;
        format!("{} {target} {interval:?} {rise} {passive:?}", kind.name())
    };
    let told: Vec<_> = config.services[0].servers.iter().map(told).collect();
    let expected = [
        "http 10.0.0.1:81 9s 7 Some(3)",
        "http 10.0.0.2:82 9s 8 Some(3)",
        "tcp 10.0.0.3:81 9s 7 Some(3)",
        "none",
        "http 10.0.0.5:81 9s 7 None",
        "tcp 10.0.0.6:81 9s 7 Some(3)",
    ];
    assert_eq!(told, expected);
}

#[test]
fn health_check_whose_files_are_missing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wvs.yaml");
    let text = "\
services:
  - name: web
    vip: 192.0.2.1
    port: 80
    health: { command: { run: [checks/web] } }
    servers:
      - { address: 10.0.0.1 }
      - { address: 10.0.0.2 }
      - { address: 10.0.0.3, health: { https: { ca: ca.pem } } }
";
    fs::write(&file, text).unwrap();
    let problems = || -> Vec<_> {
        let reading = deployment::check(&file).unwrap();
        reading.problems().iter().map(Problem::to_string).collect()
    };
    let told = problems();
    let [command, ca] = &told[..] else { panic!("{told:?}") };
    assert!(command.starts_with("services[0].health: "), "{command}");
    assert!(command.contains("checks/web: No such file or directory"), "{command}");
    assert!(ca.contains("ca.pem: No such file or directory"), "{ca}");

    fs::write(folder.path().join("ca.pem"), "no certificate").unwrap();
    fs::create_dir(folder.path().join("checks")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("checks/web")).unwrap();
    let told = problems();
    let [ca] = &told[..] else { panic!("{told:?}") };
    assert!(ca.contains("no certificate in it; give a PEM file"), "{ca}");
}

#[test]
fn access_for_more_than_is_good_is_a_warning() {
    let text = "admin: { mode: '0666', listen: 192.0.2.9:9180, token_file: token }\n\
                services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1 }] }]";
    assert!(read(text).is_usable());
    insta::assert_snapshot!(problems(text).join("\n"), @r"
    warning: admin.mode: everybody on this host may change what the director does; better 0660 and a `group` (line 1, column 16)
    warning: admin.listen: the token and the answers pass the network unencrypted; better a loopback address, and something that speaks TLS in front of it (line 1, column 32)
    ");
}

#[test]
fn token_file_is_looked_at_before_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wvs.yaml");
    let text = "admin: { listen: 127.0.0.1:9180, token_file: token }\n\
                services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1 }] }]";
    fs::write(&file, text).unwrap();
    let told = || -> Vec<_> {
        let reading = deployment::check(&file).unwrap();
        reading.problems().iter().map(Problem::to_string).collect()
    };
    let token = folder.path().join("token");
    let mode = |mode| fs::set_permissions(&token, PermissionsExt::from_mode(mode)).unwrap();
    let [missing] = &told()[..] else { panic!("{:?}", told()) };
    assert!(missing.starts_with("admin.token_file: "), "{missing}");
    assert!(missing.contains("openssl rand -hex 32"), "{missing}");
    assert!(missing.ends_with("(line 1, column 46)"), "{missing}");
    fs::write(&token, "0123456789abcdef").unwrap();
    mode(0o644);
    assert!(told()[0].contains("open to everybody on this host: `chmod o= "), "{:?}", told());
    mode(0o640);
    assert_eq!(told(), Vec::<String>::new());
}

#[test]
fn aliases_and_merged_mappings_are_followed() {
    let text = "\
services:
  - &web { name: web, vip: 192.0.2.1, port: 80, servers: &servers [{ address: 10.0.0.1 }] }
  - { <<: *web, name: web-tls, port: 443 }
  - { name: other, vip: 192.0.2.2, port: 80, servers: *servers }
";
    let (config, _) = read(text).into_config().unwrap();
    let names: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "web-tls", "other"]);
    assert!(config.services.iter().all(|service| service.servers.len() == 1));
}

#[test]
fn file_beyond_the_limit_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    fs::write(&path, "#".repeat((4 << 20) + 1)).unwrap();
    let reading = Reading::of_file(&path);
    assert_eq!(
        reading.problems().iter().map(Problem::to_string).collect::<Vec<_>>(),
        ["larger than 4MiB; no configuration is"]
    );
}

#[test]
fn file_with_more_problems_than_anyone_reads_is_cut_short() {
    let text = (0..5_000).map(|number| format!("key{number}: 1\n")).collect::<String>();
    let told = problems(&text);
    assert_eq!(told.len(), 1_001);
    assert!(told.iter().any(|problem| problem == "more than 1000 problems; mend these first"));
}

#[test]
fn no_text_makes_reading_panic() {
    use proptest::prelude::*;

    let text = fs::read_to_string(fixtures().join("every-key.yaml")).unwrap();
    let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
    proptest!(ProptestConfig::with_cases(300), |(
        cut in 0..words.len(),
        length in 0..8_usize,
        other in prop_oneof![".*", "[-:{}\\[\\]&*!|>'\"%@`,? \n\t]{0,6}", "[0-9a-z:.]{0,12}"],
    )| {
        let end = (cut + length).min(words.len());
        let mutilated = words[..cut].concat() + &other + &words[end..].concat();
        let _ = read(&mutilated);
        let _ = read(&other);
    });
}

#[test]
fn documentation_shows_every_key_with_its_values_default_and_meaning() {
    let path = workspace().join("docs/CONFIG.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut corrected = text.clone();
    for table in TABLES {
        let (start, end) = (marker(table), "<!-- end of keys -->");
        let from = text.find(&start).unwrap_or_else(|| panic!("CONFIG.md has no {start}"));
        let from = from + start.len();
        let length = text[from..].find(end).unwrap_or_else(|| panic!("no {end} after {start}"));
        let shown = &text[from..from + length];
        let wanted = format!("\n{table}");
        corrected = corrected.replacen(&format!("{start}{shown}"), &format!("{start}{wanted}"), 1);
    }
    let tables: BTreeSet<_> = TABLES.iter().map(|table| marker(table)).collect();
    for line in text.lines().filter(|line| line.starts_with("<!-- keys of ")) {
        assert!(tables.contains(line), "{line} is of no mapping");
    }
    if std::env::var_os("WVS_UPDATE_DOCS").is_some() {
        fs::write(&path, &corrected).unwrap();
    } else {
        assert!(text == corrected, "docs/CONFIG.md is behind: run this with WVS_UPDATE_DOCS=1");
    }
}

#[test]
fn documentation_names_every_built_in_scheduler() {
    let service = TABLES.iter().find(|table| table.path == "services[]").unwrap();
    let text = service.to_string();
    let missing = |name: &&&str| !text.contains(&format!("`{name}`,"));
    let missing: Vec<_> = wvs_plugin::builtin::NAMES.iter().filter(missing).collect();
    assert!(missing.is_empty(), "the key `scheduler` does not name {missing:?}");
}

fn marker(table: &Table) -> String {
    let path = if table.path.is_empty() { "the file" } else { table.path };
    format!("<!-- keys of {path} -->")
}

#[test]
fn examples_in_the_documentation_are_good() {
    for page in ["docs/CONFIG.md", "docs/OPERATIONS.md"] {
        let text = fs::read_to_string(workspace().join(page)).unwrap();
        let mut rest = text.as_str();
        let mut count = 0;
        while let Some((_, after)) = rest.split_once("```yaml\n") {
            let (example, after) = after.split_once("```").unwrap();
            assert_eq!(problems(example), Vec::<String>::new(), "{page}: {example}");
            (rest, count) = (after, count + 1);
        }
        assert!(count > 0);
    }
}

#[test]
fn examples_can_be_run() {
    for file in yaml_files(&workspace().join("examples")) {
        let text = fs::read_to_string(&file).unwrap();
        // Where an example names a plugin to be built, a built-in stands in for it.
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join(file.file_name().unwrap());
        fs::write(&copy, &text).unwrap();
        for plugin in &Reading::of_file(&copy).config().plugins {
            fs::create_dir_all(plugin.file.parent().unwrap()).unwrap();
            fs::write(&plugin.file, wvs_plugin::builtin::find("rr").unwrap()).unwrap();
        }
        let reading = deployment::check(&copy).unwrap();
        assert_eq!(reading.problems(), [], "{}", file.display());
    }
}
