//! The program as people call it: words in, words out, exit status.

mod api;
mod paper;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use wvs::capture::CaptureWriter;
use wvs::config::AdminConfig;
use wvs::control::snapshot::{ConnectionFilter, ConnectionList, PluginsSnapshot, Snapshot};
use wvs::control::{Answers, ControlServer, ControlSocket};
use wvs_tests::packet::echo;
use wvs_tests::program::{self, show};

use crate::paper::Paper;

/// A user without any rights, by convention.
const NOBODY: u32 = 65_534;

fn wvs() -> Command {
    let mut command = program::command(env!("CARGO_BIN_EXE_wvs-under-test"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
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
fn help_of_doctor_shows_examples() {
    insta::assert_snapshot!(run(&["doctor", "--help"]));
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

      tip: some similar subcommands exist: 'schema', 'check'

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
      services[0].servers[1].colour: unknown key; use address, port, weight, upper_threshold, lower_threshold, backup or health (line 12, column 31)
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
      services[3].port: missing; add `port:` with 1 to 65535, a range as in `8000-8100`, a list of up to 256 of both, or 0 (line 11, column 5)
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
    // By somebody else: a program that this process had open to write may still be open in a child
    // of another test's, and then cannot be run.
    let copied =
        Command::new("cp").arg(env!("CARGO_BIN_EXE_wvs-under-test")).arg(&program).status();
    assert!(copied.unwrap().success());
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
    let server = ControlServer::start(
        ControlSocket::claim(&socket, &AdminConfig::default()).unwrap(),
        Arc::new(Paper),
    )
    .unwrap();
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
fn list_of_rates_has_the_columns_of_ipvsadm() {
    insta::assert_snapshot!(list(&["dns", "--rate"]));
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
    let filter = ConnectionFilter { service: Some("web".to_owned()), ..Default::default() };
    assert_eq!(Some(list), Paper.connections(&filter));
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
fn changes_of_servers_say_how_they_stand() {
    let mut told = String::new();
    for arguments in [
        &["drain", "web", "10.0.0.11:8080"][..],
        &["drain", "web", "10.0.0.11:8080", "--deadline", "5m", "--then", "keep"],
        &["drain", "web", "10.0.0.11:8080", "--deadline", "90s", "--json"],
        // It is none of the service's, so nothing is left.
        &["drain", "web", "10.0.0.111:8080", "--wait"],
        &["enable", "web", "[fd00::1]:80"],
        &["weight", "web", "10.0.0.11:8080", "5"],
        &["weight", "web", "10.0.0.11:8080", "file"],
        &["weight", "web", "10.0.0.11", "5"],
        // Refused before anything is sent.
        &["drain", "web", "10.0.0.11:8080", "--deadline", "soon"],
        &["drain", "we/b", "10.0.0.11:8080"],
        &["enable", "web", "../reload"],
        &["weight", "web", "10.0.0.11:8080", "70000"],
    ] {
        told += &format!("$ wvs {}\n{}\n", arguments.join(" "), ask(arguments));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn help_of_changes_of_servers_shows_examples() {
    for command in ["drain", "enable", "weight"] {
        let told = run(&[command, "--help"]);
        assert!(told.contains("\nExample"), "{told}");
        assert!(told.contains("--socket <PATH>"), "{told}");
    }
    insta::assert_snapshot!(run(&["drain", "--help"]));
}

#[test]
fn check_with_diff_says_what_a_reload_would_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "wvs.yaml", GOOD);
    let told = ask(&["check", "-c", file.to_str().unwrap(), "--diff"]);
    assert_eq!(told, ask(&["reload"]));
    let told = ask(&["check", "-c", "/nowhere.yaml", "--diff"]);
    assert!(told.contains("exit status: 2") && told.contains("cannot be read"), "{told}");
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

#[test]
fn explanation_of_a_new_connection_tells_who_would_get_it_and_why() {
    insta::assert_snapshot!(ask(&["explain", "198.51.100.7:40000", "203.0.113.10:80"]));
}

#[test]
fn explanation_of_a_known_connection_tells_where_its_packets_go() {
    insta::assert_snapshot!(ask(&["explain", "198.51.100.7:1", "203.0.113.10:80/tcp"]));
}

#[test]
fn what_is_no_packet_is_not_explained() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, reason) in [
        (["198.51.100.7", "203.0.113.10:80"], "`198.51.100.7` is no address and port"),
        (["198.51.100.7:1", "203.0.113.10:80/sctp"], "`sctp` is no protocol"),
    ] {
        let told = show(wvs().arg("explain").args(arguments), folder.path());
        assert!(told.starts_with("exit status: 2"), "{told}");
        assert!(told.contains(reason), "{told}");
    }
}

#[test]
fn capture_that_is_refused_leaves_the_file_alone() {
    let told = ask(&["capture", "-o", "two_choices.wasm"]);
    assert!(told.starts_with("exit status: 1"), "{told}");
    assert!(told.contains("4 captures are under way"), "{told}");
}
