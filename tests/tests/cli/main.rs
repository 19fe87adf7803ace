//! The program as people call it: words in, words out, exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use wvs::capture::CaptureWriter;
use wvs::config::units::Percent;
use wvs::control::snapshot::{
    ChangeSnapshot, ConnectionList, ConnectionSnapshot, ConnectionsSnapshot, DeviceSnapshot,
    FragmentsSnapshot, FuelSnapshot, GenerationSnapshot, PacketsSnapshot, PicksSnapshot,
    PluginSnapshot, PluginsSnapshot, PoolSnapshot, ReloadSnapshot, RollbackSnapshot,
    SchedulerSnapshot, SchedulingSnapshot, SeatSnapshot, ServerSnapshot, ServiceReload,
    ServiceSnapshot, ServicesSnapshot, Snapshot, StatsSnapshot, SwapSnapshot, TimeSnapshot,
    TrafficSnapshot, TrialReload, TrialSnapshot,
};
use wvs::control::{Answers, ControlServer, ControlSocket};
use wvs::schedulers::reload::ReloadError;
use wvs::schedulers::{Action, ChangeError, Proposal, ProposedPlugin};
use wvs::seat::SeatError;
use wvs_tests::packet::echo;

/// A user without any rights, by convention.
const NOBODY: u32 = 65_534;

fn wvs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wvs-under-test"));
    command.stdin(Stdio::null()).current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["COLUMNS", "WVS_LOG"] {
        command.env_remove(name);
    }
    command
}

/// Runs it and shows everything that came of it, with `folder` written as `FOLDER`.
fn show(command: &mut Command, folder: &Path) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let code = status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    let [stdout, stderr] = [stdout, stderr].map(|octets| String::from_utf8(octets).unwrap());
    let mut text = format!("exit status: {code}\n");
    for (name, octets) in [("stdout", stdout), ("stderr", stderr)] {
        if !octets.is_empty() {
            text += &format!("--- {name}\n{octets}");
        }
    }
    text.replace(folder.to_str().unwrap(), "FOLDER").replace("wvs-under-test", "wvs")
}

fn run(arguments: &[&str]) -> String {
    show(wvs().args(arguments), Path::new("/nowhere/at/all"))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

const GOOD: &str = "\
device: { name: wvs-cli-test, mtu: 1500 }
routing: off
admin: { socket: wvs.sock }
services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1 }] }]
";

#[test]
fn help_of_the_program_shows_its_commands() {
    insta::assert_snapshot!(run(&["--help"]));
}

#[test]
fn help_of_run_shows_examples() {
    insta::assert_snapshot!(run(&["run", "--help"]));
}

#[test]
fn help_of_check_shows_examples() {
    insta::assert_snapshot!(run(&["check", "--help"]));
}

#[test]
fn help_of_list_shows_examples() {
    insta::assert_snapshot!(run(&["list", "--help"]));
}

#[test]
fn help_of_replay_shows_examples() {
    insta::assert_snapshot!(run(&["replay", "--help"]));
}

#[test]
fn help_of_completions_shows_examples() {
    insta::assert_snapshot!(run(&["completions", "--help"]));
}

#[test]
fn wrong_usage_ends_with_status_2() {
    insta::assert_snapshot!(run(&["chekc"]), @r"
    exit status: 2
    --- stderr
    error: unrecognized subcommand 'chekc'

      tip: a similar subcommand exists: 'check'

    Usage: wvs <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(run(&["check"]), @r"
    exit status: 2
    --- stderr
    error: the following required arguments were not provided:
      --config <FILE>

    Usage: wvs check --config <FILE>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(run(&["list", "--json", "--stats"]), @r"
    exit status: 2
    --- stderr
    error: the argument '--json' cannot be used with '--stats'

    Usage: wvs list --json [SERVICE]

    For more information, try '--help'.
    ");
}

#[test]
fn completions_are_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = run(&["completions", shell]);
        assert!(text.starts_with("exit status: 0\n"), "{text}");
        assert!(text.contains("check"), "{text}");
    }
}

#[test]
fn check_of_a_good_file_says_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "good.yaml", GOOD);
    insta::assert_snapshot!(show(wvs().arg("check").arg("-c").arg(&file), folder.path()), @r"
    exit status: 0
    --- stdout
    FOLDER/good.yaml: good, 1 service, 1 real server
    ");
}

#[test]
fn check_of_a_file_with_only_a_warning_counts_it_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let text = "services: [{ name: web, vip: 192.0.2.1, port: 80, servers: [] }]\n";
    let file = write(folder.path(), "empty.yaml", text);
    insta::assert_snapshot!(show(wvs().arg("check").arg("-c").arg(&file), folder.path()), @r"
    exit status: 0
    --- stdout
    FOLDER/empty.yaml: good, 1 service, 0 real servers
    --- stderr
    wvs: FOLDER/empty.yaml: 1 warning
      warning: services[0].servers: no real servers: every client gets what `on_no_server` says (line 1, column 60)
    ");
}

#[test]
fn check_of_a_broken_file_says_everything_and_ends_with_status_2() {
    let arguments = ["check", "-c", "tests/config/broken/typos.yaml"];
    insta::assert_snapshot!(run(&arguments), @r#"
    exit status: 2
    --- stderr
    wvs: tests/config/broken/typos.yaml: 7 problems
      devise: unknown key; did you mean "device"? (line 2, column 1)
      routing: managd is none of the choices; did you mean "managed"? (line 3, column 10)
      services[0].schedular: unknown key; did you mean "scheduler"? (line 8, column 5)
      services[0].time-outs: unknown key; did you mean "timeouts"? (line 9, column 5)
      services[0].servers[0].adress: unknown key; did you mean "address"? (line 11, column 11)
      services[0].servers[0].wieght: unknown key; did you mean "weight"? (line 11, column 30)
      services[0].servers[1].colour: unknown key; use address, port or weight (line 12, column 31)
    "#);
}

#[test]
fn check_writes_its_problems_as_json() {
    let arguments = ["check", "--json", "-c", "tests/config/broken/vip-is-server.yaml"];
    insta::assert_snapshot!(run(&arguments), @r#"
    exit status: 2
    --- stdout
    {
      "file": "tests/config/broken/vip-is-server.yaml",
      "is_usable": false,
      "problems": [
        {
          "severity": "error",
          "path": "services[0].servers[0].address",
          "message": "192.0.2.2 is the VIP of services[1]; give the real server an address of its own",
          "line": 5,
          "column": 26
        }
      ],
      "on_this_host": []
    }
    "#);
}

#[test]
fn check_of_a_missing_file_says_so() {
    insta::assert_snapshot!(run(&["check", "-c", "/nowhere.yaml"]), @r"
    exit status: 2
    --- stderr
    wvs: /nowhere.yaml: 1 problem
      cannot be read: No such file or directory (os error 2); give the path of the configuration with -c
    ");
}

#[test]
fn check_tries_the_plugins_with_their_services() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "text.wasm", "(module)");
    let rr = wvs_plugin::builtin::find("rr").unwrap();
    fs::write(folder.path().join("rr.wasm"), rr).unwrap();
    let bad_answer = r#"(module (memory (export "memory") 1)
        (func (export "wvs_abi") (result i32) (i32.const 0x10000))
        (func (export "wvs_region") (param i32 i32) (result i32) (i32.const 8))
        (func (export "wvs_schedule") (param i32) (result i32) (i32.const 7)))"#;
    let octets = wat::parse_str(bad_answer).unwrap();
    fs::write(folder.path().join("seven.wasm"), octets).unwrap();
    let text = "\
plugins:
  missing: { file: missing.wasm }
  text: { file: text.wasm }
  pinned: { file: rr.wasm, sha256: 0000000000000000000000000000000000000000000000000000000000000000 }
  plain: { file: rr.wasm }
  seven: { file: seven.wasm }
services:
  - { name: a, vip: 192.0.2.1, port: 1, scheduler: missing, servers: [{ address: 10.0.0.1 }] }
  - { name: b, vip: 192.0.2.1, port: 2, scheduler: text, servers: [{ address: 10.0.0.1 }] }
  - { name: c, vip: 192.0.2.1, port: 3, scheduler: pinned, servers: [{ address: 10.0.0.1 }] }
  - { name: broken, vip: 192.0.2.1, servers: [{ address: 10.0.0.1 }] }
  - name: d
    vip: 192.0.2.1
    port: 4
    scheduler: { plugin: plain, config: { a: 1 } }
    servers: [{ address: 10.0.0.1 }]
  - { name: e, vip: 192.0.2.1, port: 5, scheduler: seven, servers: [{ address: 10.0.0.1 }] }
";
    let file = write(folder.path(), "plugins.yaml", text);
    let told = show(wvs().arg("check").arg("-c").arg(&file), folder.path());
    let hash: String = told
        .split_once("hash is ")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_hexdigit).collect())
        .unwrap();
    assert_eq!(hash.len(), 64);
    insta::assert_snapshot!(told.replace(&hash, "HASH"), @r"
    exit status: 2
    --- stderr
    wvs: FOLDER/plugins.yaml: 6 problems
      plugins.missing.file: cannot read FOLDER/missing.wasm: No such file or directory (os error 2) (line 2, column 20)
      plugins.text.file: this is no WebAssembly module: it is the text form, which wat2wasm or `wasm-tools parse` turns into one (line 3, column 17)
      plugins.pinned.file: the file's SHA-256 hash is HASH; if this is the file you want, put that under `sha256` (line 4, column 19)
      services[3].port: missing; add `port:` with 1 to 65535 (line 11, column 5)
      services[4].scheduler: the plugin refused its configuration: rr takes no configuration (line 15, column 16)
      services[5].scheduler: the plugin failed on synthetic request 0 of its trial: wvs_schedule answered 7, which is no index of 1 servers, -1 or -2 (line 17, column 52)
    ");

    // The hash that was told is the one to pin.
    let pinned = format!(
        "plugins: {{ pinned: {{ file: rr.wasm, sha256: {hash} }} }}\n\
         services: [{{ name: a, vip: 192.0.2.1, port: 1, scheduler: pinned, servers: [] }}]\n"
    );
    let file = write(folder.path(), "pinned.yaml", &pinned);
    let status = wvs().arg("check").arg("-c").arg(&file).output().unwrap().status;
    assert_eq!(status.code(), Some(0));
}

#[test]
fn run_refuses_a_broken_file_before_it_touches_anything() {
    let arguments = ["run", "-c", "tests/config/broken/tab.yaml"];
    insta::assert_snapshot!(run(&arguments), @r"
    exit status: 2
    --- stderr
    wvs: tests/config/broken/tab.yaml: 1 problem
      this is not YAML: tabs disallowed within this context (block indentation) (line 2, column 2)
    ");
}

#[test]
fn run_refuses_a_broken_plugin_before_it_touches_anything() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replace("services:", "plugins: { mine: { file: mine.wasm } }\nservices:");
    let file =
        write(folder.path(), "wvs.yaml", &text.replace("port: 80", "port: 80, scheduler: mine"));
    insta::assert_snapshot!(show(wvs().arg("run").arg("-c").arg(&file), folder.path()), @r"
    exit status: 2
    --- stderr
    wvs: FOLDER/wvs.yaml: 1 problem
      plugins.mine.file: cannot read FOLDER/mine.wasm: No such file or directory (os error 2) (line 4, column 26)
    ");
    assert!(!folder.path().join("wvs.sock").exists());
}

#[test]
fn run_refuses_a_log_level_that_is_none() {
    insta::assert_snapshot!(run(&["run", "-c", "/nowhere.yaml", "--log-level", "wvs=loud"]), @r#"
    exit status: 2
    --- stderr
    wvs: wvs=loud is no log level (error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5); use one such as info
    "#);
}

#[test]
fn run_without_rights_says_so_and_fails() {
    // The build may be where nobody else may look.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("wvs");
    fs::copy(env!("CARGO_BIN_EXE_wvs-under-test"), &program).unwrap();
    let file = write(folder.path(), "wvs.yaml", GOOD);
    let mut command = Command::new(program);
    command.arg("run").arg("-c").arg(file).stdin(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let told = show(&mut command, folder.path());
    let (status, sentence) = told.split_once("\n--- stderr\n").unwrap();
    assert_eq!(status, "exit status: 1");
    assert_eq!(sentence.lines().count(), 1, "{told}");
    let expected = if Path::new("/dev/net/tun").exists() {
        "wvs: no right to make the network device wvs-cli-test: "
    } else {
        "wvs: /dev/net/tun is missing: "
    };
    assert!(sentence.starts_with(expected), "{told}");
}

#[test]
fn list_without_a_director_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wvs.sock");
    insta::assert_snapshot!(show(wvs().arg("list").arg("--socket").arg(socket), folder.path()), @r"
    exit status: 1
    --- stderr
    wvs: no director is running on the control socket FOLDER/wvs.sock: start one with `wvs run -c FILE`, or give its socket with --socket or its configuration with -c
    ");
}

/// A director that does nothing but answer.
struct Paper;

impl Answers for Paper {
    fn services(&self) -> ServicesSnapshot {
        let traffic = |connections, in_octets| TrafficSnapshot {
            connections,
            in_packets: 10 * connections,
            out_packets: 9 * connections,
            in_octets,
            out_octets: 1_000 * in_octets,
        };
        let server = |address: &str, weight, active, inactive, traffic| ServerSnapshot {
            address: address.parse().unwrap(),
            weight,
            active,
            inactive,
            traffic,
        };
        let service = |name: &str, protocol: &str, vip: &str, port, scheduler: &str, servers| {
            ServiceSnapshot {
                name: name.to_owned(),
                protocol: protocol.to_owned(),
                vip: vip.parse().unwrap(),
                port,
                scheduler: SchedulerSnapshot {
                    name: scheduler.to_owned(),
                    generation: 1,
                    picks: 3,
                    no_server: 0,
                    defers: 0,
                    unavailable: 0,
                    bad_answers: 0,
                    traps: 0,
                    out_of_fuel: 0,
                    faults: 0,
                    quarantines: 0,
                    rebuilds: 0,
                    last_fault: None,
                },
                scheduling: SchedulingSnapshot { picked: 3, fallback: 0, no_server: 0 },
                traffic: traffic(4, 123_456),
                pool: None,
                servers,
            }
        };
        let mut services = ServicesSnapshot {
            version: "1.2.3".to_owned(),
            connections_max: 4_096,
            services: vec![
                service(
                    "web",
                    "tcp",
                    "203.0.113.10",
                    80,
                    "wlc",
                    vec![
                        server("10.0.0.11:8080", 1, 2, 10, traffic(3, 123_456)),
                        server("100.100.100.100:65535", 65_535, 4_294_967_295, 0, traffic(1, 0)),
                    ],
                ),
                service(
                    "web6",
                    "tcp",
                    "2001:db8:1:2:3:4:5:6",
                    80,
                    "two-choices",
                    vec![server(
                        "[2001:db8:1111:2222:3333:4444:5555:6666]:80",
                        0,
                        0,
                        0,
                        traffic(0, 0),
                    )],
                ),
                service(
                    "dns",
                    "udp",
                    "203.0.113.53",
                    53,
                    "rr",
                    vec![server("10.0.0.53:53", 1, 0, 7, traffic(90_000_000, 7_654_321_000))],
                ),
                service("ping", "icmp", "203.0.113.53", 0, "sh", vec![]),
            ],
        };
        let failing = &mut services.services[1];
        failing.scheduler.traps = 3;
        failing.scheduler.faults = 3;
        failing.scheduler.quarantines = 1;
        failing.scheduler.last_fault = Some("wvs_schedule stopped: \u{1b}[2J".to_owned());
        failing.scheduling.fallback = 2_675;
        services.services[2].scheduling.fallback = 1;
        services.services[2].pool = Some(PoolSnapshot {
            addresses: vec!["10.0.0.250".parse().unwrap()],
            places: 64_512,
            exhausted: 3,
        });
        services
    }

    fn stats(&self) -> StatsSnapshot {
        let dropped = [("no_connection", 7), ("stray", 0), ("table_full", 12)];
        StatsSnapshot {
            version: "1.2.3".to_owned(),
            uptime_seconds: 60,
            connections: ConnectionsSnapshot {
                now: 19,
                max: 4_096,
                half_open: 2,
                half_open_max: 1_024,
                opened: 16,
                expired: 0,
                replaced: 0,
                evicted: 0,
            },
            packets: PacketsSnapshot {
                forwarded: 304,
                replied: 2,
                passed: 1,
                held: 0,
                dropped: dropped.map(|(reason, packets)| (reason.to_owned(), packets)).into(),
            },
            fragments: FragmentsSnapshot::default(),
            device: DeviceSnapshot {
                name: "wvs0".to_owned(),
                mtu: 1_500,
                queues: 2,
                offload: "tcp".to_owned(),
                read: 326,
                written: 307,
                read_errors: 0,
                write_errors: 0,
                queue_full: 5,
            },
        }
    }

    fn plugins(&self) -> PluginsSnapshot {
        let plugin = |name: &str, generation, picks| PluginSnapshot {
            name: name.to_owned(),
            generation,
            sha256: "0a".repeat(32),
            config: None,
            memory: 131_072,
            quarantined_ms: 0,
            picks,
            no_server: 0,
            defers: 0,
            unavailable: 0,
            faults: 0,
            faults_by_kind: [("out_of_fuel".to_owned(), 0), ("unreachable".to_owned(), 0)].into(),
            last_fault: None,
            quarantines: 0,
            rebuilds: 0,
            events: 0,
            ticks: 0,
            log_lines: 0,
            suppressed_lines: 0,
            fuel: FuelSnapshot { sum: 210 * picks, mean: 210, max: 7_400 },
            time: TimeSnapshot {
                timed: picks / 64,
                mean_ns: 412,
                max_ns: 21_900,
                buckets: vec![0; 16],
            },
        };
        let seat = |service: &str, plugin| SeatSnapshot {
            service: service.to_owned(),
            plugin,
            probation: 1_000,
            record: Some(1 << 20),
            past: Vec::new(),
            swaps: 0,
            rollback: None,
            trial: None,
        };
        let mut web = seat("web", plugin("wlc", 1, 1_234_567));
        web.past = vec![generation("rr", 3), generation("sh", 2)];
        web.swaps = 5;
        web.rollback = Some(RollbackSnapshot { from: 4, fault: Some("it \u{1b}[2J".to_owned()) });
        web.trial = Some(TrialSnapshot {
            candidate: plugin("latency", 6, 0),
            share: Percent::of_hundredths(1_250),
            decisions: 1_000,
            agreements: 333,
            obeyed: 125,
            skew: Percent::of_hundredths(440),
            picks: vec![
                PicksSnapshot {
                    server: Some("10.0.0.11:8080".parse().unwrap()),
                    plugin: 600,
                    candidate: 500,
                },
                PicksSnapshot { server: None, plugin: 400, candidate: 500 },
            ],
            faults_max: 3,
            skew_max: Percent::of_hundredths(3_000),
            stopped: None,
        });
        let mut failing = plugin("two-choices", 2, 17);
        failing.config = Some(serde_json::json!({ "seed": 7 }));
        failing.faults = 4;
        failing.faults_by_kind.insert("unreachable".to_owned(), 4);
        failing.last_fault = Some("wvs_schedule stopped".to_owned());
        (failing.quarantines, failing.quarantined_ms, failing.rebuilds) = (1, 1_500, 3);
        (failing.events, failing.ticks, failing.log_lines) = (12, 1, 1);
        let mut dns = seat("dns", plugin("rr", 1, 0));
        let mut stopped = web.trial.clone().unwrap();
        stopped.stopped = Some("3 faults".to_owned());
        dns.trial = Some(stopped);
        PluginsSnapshot {
            version: "1.2.3".to_owned(),
            services: vec![web, seat("web6", failing), dns],
        }
    }

    fn connections(&self, service: Option<&str>, limit: usize) -> Option<ConnectionList> {
        let connection =
            |protocol: &str, client: &str, vip: &str, server: &str| ConnectionSnapshot {
                protocol: protocol.to_owned(),
                expires_in_ms: 899_999,
                state: "ESTABLISHED".to_owned(),
                client: client.parse().unwrap(),
                vip: vip.parse().unwrap(),
                server: server.parse().unwrap(),
                generation: 2,
            };
        let mut dns = connection("udp", "[2001:db8::7]:4242", "[2001:db8::53]:53", "[fd00::1]:53");
        (dns.state, dns.generation) = ("UDP".to_owned(), 0);
        let mut connections =
            vec![connection("tcp", "198.51.100.7:40000", "203.0.113.10:80", "10.0.0.11:8080"), dns];
        match service {
            Some("web") => connections.truncate(1),
            Some(_) => return None,
            None => {}
        }
        let total = connections.len();
        connections.truncate(limit);
        Some(ConnectionList { total, connections })
    }

    fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError> {
        let service = service.to_owned();
        let swap = |to| SwapSnapshot {
            from: generation("rr", 1),
            to,
            is_state_carried: false,
            took_us: 21,
        };
        let plugin = |Proposal { plugin, config }| match plugin {
            ProposedPlugin::Named(name) => (name, config),
            ProposedPlugin::Module { name, octets } => {
                (format!("{name} of {} octets", octets.len()), config)
            }
        };
        Ok(match action {
            Action::Swap(proposal) => {
                let (plugin, config) = plugin(proposal);
                let plugin = match config {
                    Some(config) => format!("{plugin} with {config}"),
                    None => plugin,
                };
                ChangeSnapshot::Swap { service, swap: swap(generation(&plugin, 2)) }
            }
            Action::Shadow(proposal, limits) => {
                let name = format!("{} until {limits:?}", plugin(proposal).0);
                ChangeSnapshot::Shadow { service, candidate: generation(&name, 2) }
            }
            Action::Reset => ChangeSnapshot::Reset { service, plugin: generation("rr", 1) },
            Action::Canary(share) => {
                ChangeSnapshot::Canary { service, candidate: generation("wlc", 2), share }
            }
            Action::Promote => {
                let swap = SwapSnapshot { is_state_carried: true, ..swap(generation("wlc", 2)) };
                ChangeSnapshot::Swap { service, swap }
            }
            Action::EndTrial => {
                ChangeSnapshot::TrialEnded { service, candidate: generation("wlc", 2) }
            }
            Action::Rollback => return Err(SeatError::NoPast.into()),
        })
    }

    fn recording(&self, _: &str) -> Result<Vec<u8>, ChangeError> {
        Err(SeatError::NotRecorded.into())
    }

    fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let service = |name: &str| ServiceReload {
            service: name.to_owned(),
            scheduler: None,
            undone: None,
            trial: None,
            probation: None,
            record: None,
        };
        let trial = |trial| ServiceReload { trial: Some(trial), ..service("dns") };
        let candidate = || generation("latency", 3);
        let [none, some] = [0, 1_000].map(Percent::of_hundredths);
        Ok(ReloadSnapshot {
            services: vec![
                ServiceReload {
                    scheduler: Some(SwapSnapshot {
                        from: generation("sh", 4),
                        to: generation("wlc", 5),
                        is_state_carried: true,
                        took_us: 9,
                    }),
                    undone: Some(generation("sh", 4)),
                    probation: Some(50),
                    record: Some(65_536),
                    ..service("web")
                },
                trial(TrialReload::Begun { candidate: candidate(), share: none }),
                trial(TrialReload::Share { candidate: candidate(), from: none, to: some }),
                trial(TrialReload::Ended { candidate: candidate(), is_undone: true }),
            ],
        })
    }
}

fn generation(plugin: &str, generation: u16) -> GenerationSnapshot {
    GenerationSnapshot { generation, plugin: plugin.to_owned() }
}

/// Runs `wvs list` against a paper director.
fn list(arguments: &[&str]) -> String {
    ask(&[&["list"], arguments].concat())
}

/// Runs a command against a paper director.
fn ask(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("two_choices.wasm"), "octets").unwrap();
    let socket = folder.path().join("wvs.sock");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _context = runtime.enter();
    let server =
        ControlServer::start(ControlSocket::claim(&socket).unwrap(), Arc::new(Paper)).unwrap();
    let mut command = wvs();
    command.args(arguments).arg("--socket").arg(&socket).current_dir(folder.path());
    let told = show(&mut command, folder.path());
    drop(server);
    told
}

#[test]
fn list_has_the_columns_of_ipvsadm() {
    insta::assert_snapshot!(list(&[]));
}

#[test]
fn list_of_traffic_has_the_columns_of_ipvsadm() {
    insta::assert_snapshot!(list(&["--stats"]));
}

#[test]
fn list_of_exact_traffic_shows_every_digit() {
    insta::assert_snapshot!(list(&["--stats", "--exact", "dns"]));
}

#[test]
fn list_of_one_service_has_no_title() {
    let by_name = list(&["web"]);
    insta::assert_snapshot!(by_name);
    for other_name in ["203.0.113.10:80", "203.0.113.10:80/tcp"] {
        assert_eq!(list(&[other_name]), by_name);
    }
}

#[test]
fn list_says_which_scheduler_failed() {
    for arguments in [&["web6"][..], &["web6", "--stats"]] {
        let told = list(arguments);
        let line = "     scheduler: 3 faults, 1 quarantine, last: wvs_schedule stopped: \u{fffd}[2J; \
                    2675 connections placed by the fallback";
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    let healthy = list(&["web"]);
    assert!(!healthy.contains("scheduler:"), "{healthy}");
}

#[test]
fn list_of_an_unknown_service_fails() {
    insta::assert_snapshot!(list(&["203.0.113.10:80/udp"]), @r"
    exit status: 1
    --- stderr
    wvs: there is no service 203.0.113.10:80/udp; `wvs list` shows all
    ");
}

#[test]
fn list_as_json_has_everything() {
    let told = list(&["--json"]);
    let (_, json) = told.split_once("--- stdout\n").unwrap();
    let snapshot: Snapshot = serde_json::from_str(json).unwrap();
    assert_eq!(snapshot, Snapshot { services: Paper.services(), stats: Paper.stats() });
    insta::assert_snapshot!(list(&["--json", "web"]));
}

#[test]
fn plugins_are_listed_in_a_table_and_one_service_in_full() {
    insta::assert_snapshot!(ask(&["plugin", "list"]));
    insta::assert_snapshot!(ask(&["plugin", "list", "web"]));
    insta::assert_snapshot!(ask(&["plugin", "list", "web6"]));
    let told = ask(&["plugin", "list", "--json"]);
    let (_, json) = told.split_once("--- stdout\n").unwrap();
    assert_eq!(serde_json::from_str::<PluginsSnapshot>(json).unwrap(), Paper.plugins());
    let told = ask(&["plugin", "list", "nothing"]);
    assert!(told.contains("there is no service nothing"), "{told}");
}

#[test]
fn changes_of_plugins_say_what_changed() {
    let mut told = String::new();
    for arguments in [
        &["swap", "web", "wlc"][..],
        &["swap", "web", "two_choices.wasm"],
        &["swap", "web", "./two_choices.wasm", "--config", r#"{"a": 1}"#],
        &["swap", "web", "wlc", "--json"],
        &["shadow", "web", "wlc"],
        &["shadow", "web", "two_choices.wasm", "--faults", "7", "--skew", "12.5%"],
        &["canary", "web", "0.25%"],
        &["promote", "web"],
        &["rollback", "web"],
        &["reset", "web"],
        &["stop", "web"],
        // Refused before anything is sent.
        &["swap", "web", "wlc", "--config", "a: 1"],
        &["swap", "web", "missing.wasm"],
        &["swap", "we/b", "wlc"],
        &["canary", "web", "10"],
        &["shadow", "web", "wlc", "--faults", "0"],
    ] {
        told += &format!("$ wvs plugin {}\n", arguments.join(" "));
        told += &ask(&[&["plugin"], arguments].concat());
    }
    insta::assert_snapshot!(told);
}

#[test]
fn connections_have_the_columns_of_ipvsadm() {
    insta::assert_snapshot!(ask(&["connections"]));
    insta::assert_snapshot!(ask(&["connections", "--limit", "1"]));
    assert_eq!(ask(&["connections", "--count"]), "exit status: 0\n--- stdout\n2\n");
    assert_eq!(ask(&["connections", "web", "--count"]), "exit status: 0\n--- stdout\n1\n");
    let told = ask(&["connections", "nothing"]);
    assert!(told.contains("there is no service nothing"), "{told}");
    let told = ask(&["connections", "web", "--json"]);
    let (_, json) = told.split_once("--- stdout\n").unwrap();
    let list: ConnectionList = serde_json::from_str(json).unwrap();
    assert_eq!(Some(list), Paper.connections(Some("web"), 1_000));
}

#[test]
fn reload_says_what_changed() {
    insta::assert_snapshot!(ask(&["reload"]));
}

#[test]
fn help_of_plugin_and_its_commands_shows_examples() {
    insta::assert_snapshot!(run(&["plugin", "--help"]));
    for command in ["list", "swap", "rollback", "reset", "shadow", "canary", "promote", "stop"] {
        let told = run(&["plugin", command, "--help"]);
        assert!(told.contains("\nExample"), "{told}");
        assert!(told.contains("--socket <PATH>"), "{told}");
    }
    insta::assert_snapshot!(run(&["plugin", "swap", "--help"]));
}

#[test]
fn help_of_connections_and_reload_shows_examples() {
    insta::assert_snapshot!(run(&["connections", "--help"]));
    insta::assert_snapshot!(run(&["reload", "--help"]));
}

#[test]
fn output_whose_reader_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = wvs();
    let mut child = command
        .args(["completions", "zsh"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A capture of a ping to the VIP of [`GOOD`] and of an ARP request, on Ethernet.
fn ping_and_arp() -> Vec<u8> {
    let ping = echo([198, 51, 100, 7].into(), [192, 0, 2, 1].into(), true, 1);
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(&mut file).unwrap();
    for (seconds, ethertype, packet) in [(1, [8, 0], &ping[..]), (3, [8, 6], &[0; 28])] {
        let frame = [&[0; 12], &ethertype[..], packet].concat();
        writer.write(Duration::from_secs(seconds), &frame).unwrap();
    }
    writer.finish().unwrap();
    file[20] = 1;
    file
}

fn replay(folder: &Path, capture: &[u8]) -> Command {
    fs::write(folder.join("in.pcap"), capture).unwrap();
    let config = write(folder, "wvs.yaml", GOOD);
    let mut command = wvs();
    command.arg("replay").arg(folder.join("in.pcap")).arg("-c").arg(config);
    command.arg("-o").arg(folder.join("out.pcap"));
    command
}

#[test]
fn replay_tells_what_became_of_a_captures_packets() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = replay(folder.path(), &ping_and_arp());
    insta::assert_snapshot!(show(&mut command, folder.path()));
    let json = replay(folder.path(), &ping_and_arp()).arg("--json").output().unwrap().stdout;
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(report["capture"]["frames"], 2);
    assert_eq!(report["packets"]["replied"], 1);
    assert_eq!(report["services"][0]["name"], "web");
    assert_eq!(report["error"], serde_json::Value::Null);
}

#[test]
fn replay_of_a_capture_that_is_cut_off_keeps_what_came_before() {
    let folder = tempfile::tempdir().unwrap();
    let capture = ping_and_arp();
    let mut command = replay(folder.path(), &capture[..capture.len() - 1]);
    insta::assert_snapshot!(show(&mut command, folder.path()));
    // The file's header, and a record with the reply.
    assert_eq!(fs::read(folder.path().join("out.pcap")).unwrap().len(), 24 + 16 + 42);
}

#[test]
fn replay_refuses_what_is_no_capture_and_never_overwrites_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = replay(folder.path(), b"services: []\n");
    insta::assert_snapshot!(show(&mut command, folder.path()));
    assert!(!folder.path().join("out.pcap").exists());

    let capture = ping_and_arp();
    replay(folder.path(), &capture);
    fs::hard_link(folder.path().join("in.pcap"), folder.path().join("out.pcap")).unwrap();
    let mut command = replay(folder.path(), &capture);
    insta::assert_snapshot!(show(&mut command, folder.path()));
    assert_eq!(fs::read(folder.path().join("in.pcap")).unwrap(), capture);
}
