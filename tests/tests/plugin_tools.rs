//! `wvs plugin check`, `bench` and `simulate`: words in, words out, exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use wvs_abi::Request;
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_plugin::simulation::{Answer, Comparison, Question, Requests, Servers, Simulation, Step};
use wvs_plugin::{Host, Limits, ServerTable, Source, builtin};
use wvs_tests::program::{self, show};

/// Takes the server that the client's port says.
const BY_PORT: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (local.get $kind) (i32.const 4096)))
  (func (export "wvs_schedule") (param $n i32) (result i32)
    (i32.rem_u (i32.load16_u (i32.const 4104)) (local.get $n))))
"#;

/// Takes the first server 100 times, then fails.
const FAILS_LATE: &str = r#"(module
  (memory (export "memory") 1)
  (global $asked (mut i32) (i32.const 0))
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (local.get $kind) (i32.const 4096)))
  (func (export "wvs_schedule") (param $n i32) (result i32)
    (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
    (if (i32.gt_u (global.get $asked) (i32.const 100)) (then unreachable))
    (i32.const 0)))
"#;

fn wvs() -> Command {
    let mut command = program::command(env!("CARGO_BIN_EXE_wvs-under-test"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("plugin");
    command
}

fn run(arguments: &[&str]) -> String {
    show(wvs().args(arguments), Path::new("/nowhere/at/all"))
}

/// The answer of a command with `--json`, and its exit status.
fn json(arguments: &[&str]) -> (i32, Value) {
    let output = wvs().args(arguments).arg("--json").output().unwrap();
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), answer)
}

/// A folder with files in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Runs a command in a folder, without its name in the output.
fn run_in(folder: &tempfile::TempDir, arguments: &[&str]) -> String {
    show(wvs().args(arguments).current_dir(folder.path()), folder.path())
}

/// The last line, which is the golden file's.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap()
}

#[test]
fn help_shows_examples() {
    insta::assert_snapshot!("help", run(&["--help"]));
    insta::assert_snapshot!("help_of_check", run(&["check", "--help"]));
    insta::assert_snapshot!("help_of_bench", run(&["bench", "--help"]));
    insta::assert_snapshot!("help_of_simulate", run(&["simulate", "--help"]));
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_what_to_write() {
    let folder = folder(&[("plugin.wat", BY_PORT), ("text.txt", "at ease\n")]);
    let mut shown = String::new();
    for arguments in [
        &["check"][..],
        &["check", "nowhere.wasm"],
        &["check", "."],
        &["check", "builtin:nope"],
        &["check", "plugin.wat", "--config", "{half_life: 5s}"],
        &["check", "plugin.wat", "--config", "@nowhere.json"],
        &["check", "plugin.wat", "--servers", "3,-1"],
        &["check", "plugin.wat", "--servers", "18446744073709551616x1"],
        &["bench", "plugin.wat", "--servers", "0"],
        &["bench", "plugin.wat", "--servers", "3,18446744073709551616"],
        &["simulate", "plugin.wat", "--servers", "1@9..3"],
        &["simulate", "plugin.wat", "--requests", "random:1:18446744073709551616"],
        &["simulate", "plugin.wat", "--requests", "text.txt"],
        &["simulate", "plugin.wat", "--update"],
        &["simulate", "plugin.wat", "--golden", "nowhere"],
        &["simulate", "plugin.wat", "--golden", "text.txt"],
        &["simulate", "plugin.wat", "--golden", "text.txt", "--update"],
        &["simulate", "plugin.wat", "--against-config", "{}"],
    ] {
        let text = run_in(&folder, arguments);
        assert!(text.starts_with("exit status: 2\n"), "{arguments:?}: {text}");
        let said = text.lines().nth(2).unwrap();
        shown += &format!("{}\n  {said}\n", arguments.join(" "));
    }
    insta::assert_snapshot!(shown);
    assert_eq!(fs::read_to_string(folder.path().join("text.txt")).unwrap(), "at ease\n");
}

#[test]
fn check_shows_what_a_plugin_is_and_takes() {
    let folder = folder(&[("by-port.wat", BY_PORT)]);
    insta::assert_snapshot!(run_in(&folder, &["check", "by-port.wat"]));
}

#[test]
fn check_as_json_has_everything() {
    let folder = folder(&[("by-port.wat", BY_PORT)]);
    insta::assert_snapshot!(run_in(&folder, &["check", "by-port.wat", "--json"]));
}

#[test]
fn check_is_content_with_built_in_schedulers() {
    for name in ["rr", "wlc", "lrt"] {
        let (code, report) = json(&["check", name]);
        assert_eq!((code, &report["is_good"]), (0, &Value::Bool(true)), "{report}");
        for row in report["fuel"].as_array().unwrap() {
            assert!((1..1_000_000).contains(&row["decision_max"].as_u64().unwrap()), "{row}");
        }
    }
}

#[test]
fn check_reads_modules_as_well_as_text() {
    let folder = folder(&[]);
    let module = folder.path().join("by-port.wasm");
    fs::write(&module, wat::parse_str(BY_PORT).unwrap()).unwrap();
    let text = run_in(&folder, &["check", "by-port.wasm"]);
    assert!(text.starts_with("exit status: 0\n--- stdout\nby-port.wasm: good"), "{text}");
}

#[test]
fn every_refusal_names_what_is_wrong() {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new("tests/plugins/wat"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut shown = String::new();
    for file in files {
        let text = run(&["check", file.to_str().unwrap()]);
        let name = file.file_stem().unwrap().to_str().unwrap();
        match text.strip_prefix("exit status: 1\n--- stderr\nwvs: ") {
            Some(said) => {
                let (path, what) = said.split_once(": ").unwrap();
                assert_eq!(Path::new(path), file);
                shown += &format!("{name}: {what}");
            }
            None => {
                assert!(text.starts_with("exit status: 0\n"), "{name}: {text}");
                shown += &format!("{name}: good\n");
            }
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn check_refuses_what_is_no_module_or_fails_only_with_many_servers() {
    let component = wat::parse_str("(component)").unwrap();
    let many = BY_PORT.replace(
        "(i32.rem_u",
        "(if (i32.gt_u (local.get $n) (i32.const 100)) (then unreachable)) (i32.rem_u",
    );
    let folder = folder(&[
        ("none.wasm", "at ease"),
        ("text.wasm", "(module)"),
        ("typo.wat", "(module\n  (fnuc))"),
        ("many.wat", &many),
    ]);
    fs::write(folder.path().join("component.wasm"), component).unwrap();
    let mut shown = String::new();
    for file in ["none.wasm", "text.wasm", "typo.wat", "component.wasm", "many.wat"] {
        shown += &run_in(&folder, &["check", file]);
    }
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!(run_in(&folder, &["check", "many.wat", "--json"]), @r#"
    exit status: 1
    --- stdout
    {
      "plugin": "many.wat",
      "is_good": false,
      "refusal": "many.wat: with 256 servers: request 0: wvs_schedule stopped: wasm trap: wasm `unreachable` instruction executed"
    }
    "#);
}

#[test]
fn check_says_how_many_servers_a_plugin_has_room_for() {
    // Room for 128 servers, as a static array of a C plugin has.
    let narrow = BY_PORT.replace(
        "(i32.mul (local.get $kind)",
        "(if (i32.gt_u (local.get $size) (i32.const 4096)) (then (return (i32.const 0))))
         (i32.mul (local.get $kind)",
    );
    let folder = folder(&[("narrow.wat", &narrow)]);
    let text = run_in(&folder, &["check", "narrow.wat"]);
    assert!(text.starts_with("exit status: 0\n"), "{text}");
    let refusal = "          1,024   not so many: wvs_region has no 32768 octets for region 2";
    assert!(text.contains(refusal), "{text}");
}

#[test]
fn check_hands_over_the_configuration() {
    let folder = folder(&[("rr.json", "{}")]);
    let refused = "the plugin refused its configuration";
    for config in ["{}", "@rr.json"] {
        let text = run_in(&folder, &["check", "rr", "--config", config]);
        assert!(text.starts_with("exit status: 1\n") && text.contains(refused), "{text}");
    }
}

#[test]
fn bench_has_a_row_for_each_scheduler() {
    let folder = folder(&[("by-port.wat", BY_PORT)]);
    let plugin = folder.path().join("by-port.wat");
    let (code, report) = json(&["bench", plugin.to_str().unwrap(), "--servers", "4"]);
    assert_eq!(code, 0);
    let rows = report["figures"].as_array().unwrap();
    let schedulers: Vec<_> = rows.iter().map(|row| row["scheduler"].as_str().unwrap()).collect();
    assert_eq!(schedulers, [&[plugin.to_str().unwrap()], builtin::NAMES].concat());
    for row in rows {
        assert_eq!(row["servers"], 4);
        for figure in ["ns", "fuel", "ratio"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{row}");
        }
    }
}

#[test]
fn bench_ends_when_a_plugin_fails() {
    let folder = folder(&[("fails.wat", FAILS_LATE)]);
    let text = run_in(&folder, &["bench", "fails.wat", "--servers", "7"]);
    let said = "wvs: fails.wat: with 7 servers: wvs_schedule stopped: wasm trap";
    assert!(text.starts_with("exit status: 1\n") && text.contains(said), "{text}");
}

#[test]
fn simulate_shows_shares_disruption_and_the_first_difference() {
    let folder = folder(&[("by-port.wat", BY_PORT)]);
    let arguments = ["simulate", "by-port.wat", "--servers", "3,1,1@5000..", "--against", "rr"];
    let text = run_in(&folder, &arguments);
    insta::assert_snapshot!(text);
    assert_eq!(run_in(&folder, &arguments), text, "the same again");
}

#[test]
fn simulate_takes_requests_from_a_file() {
    let csv = "# three clients\nat_ms,client,port,duration_ms\n0,192.0.2.1,5,100\n\
               7,2001:db8::1,6,100\n7,192.0.2.2,6,0\n200,192.0.2.1,8,1\n";
    let folder = folder(&[("by-port.wat", BY_PORT), ("log.csv", csv)]);
    let arguments =
        ["simulate", "by-port.wat", "--servers", "10.0.0.1:80,[2001:db8::2]:80=2", "--requests"];
    let mut arguments = Vec::from(arguments);
    arguments.push("log.csv");
    insta::assert_snapshot!(run_in(&folder, &arguments));
}

#[test]
fn simulate_says_which_line_of_a_file_is_wrong() {
    let csv = "at_ms,client,port,duration_ms\n0,192.0.2.1,5,100\n9,192.0.2.1,65536,100\n";
    let folder = folder(&[("log.csv", csv)]);
    let text = run_in(&folder, &["simulate", "rr", "--requests", "log.csv"]);
    assert_eq!(
        text,
        "exit status: 2\n--- stderr\n\
         wvs: log.csv: line 3: port is \"65536\"; write a number from 0 to 65535\n"
    );
}

#[test]
fn simulate_of_the_built_in_schedulers_shows_what_they_are_for() {
    let part = |report: &Value, name: &str| report["disruption"][name].as_f64().unwrap();
    let share =
        |report: &Value, server: usize| report["servers"][server]["share"].as_f64().unwrap();
    let [rr, wlc, sh] = ["rr", "wlc", "sh"].map(|name| {
        let (code, report) = json(&["simulate", name, "--servers", "5,3,1,1"]);
        assert_eq!((code, &report["placed"]), (0, &Value::from(10_000)), "{report}");
        report
    });
    for server in 0..4 {
        assert!((share(&rr, server) - 0.25).abs() < 0.001, "{rr}");
        let due = wlc["servers"][server]["due"].as_f64().unwrap();
        assert!((share(&wlc, server) - due).abs() < 0.03, "{wlc}");
    }
    // By turns, a client gets another one of four servers three times of four.
    assert!((0.7..0.8).contains(&part(&rr, "moved_unchanged")), "{rr}");
    assert!((0.6..0.8).contains(&part(&rr, "moved_on_removal")), "{rr}");
    // By its address, the same one, until the servers change.
    assert_eq!(part(&sh, "moved_unchanged"), 0.0);
    let moved = part(&sh, "moved_on_removal");
    assert!(moved > 0.0 && moved < part(&rr, "moved_on_removal"), "{sh}");
}

#[test]
fn simulate_shows_a_plugin_that_fails_and_who_decides_then() {
    let folder = folder(&[("fails.wat", FAILS_LATE)]);
    let text = run_in(&folder, &["simulate", "fails.wat", "--servers", "1,1"]);
    assert!(text.starts_with("exit status: 1\n"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn simulate_finds_no_difference_between_a_plugin_and_itself() {
    for name in ["rr", "wlc", "mh", "lrt"] {
        let arguments =
            ["simulate", name, "--requests", "random:1:1000", "--servers", "3,1,1@800.."];
        let (code, report) = json(&[&arguments[..], &["--against", name]].concat());
        assert_eq!(code, 0);
        assert_eq!(report["against"]["agreed"], 1_000);
        assert_eq!(report["against"]["first_difference"], Value::Null);
    }
}

#[test]
fn simulate_lets_a_plugin_tick_and_tells_it_of_connections() {
    // Takes the second server after its first tick, and fails at the end of a long connection.
    let follows = BY_PORT.replace(
        "(func (export \"wvs_schedule\")",
        r#"(global $ticks (mut i32) (i32.const 0))
           (func (export "wvs_tick") (result i32)
             (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
             (i32.const 1000))
           (func (export "wvs_event") (param $kind i32) (param $server i32) (param $argument i32)
             (if (i32.ne (local.get $server) (i32.const 1)) (then unreachable))
             (if (i32.gt_u (local.get $argument) (i32.const 300)) (then unreachable)))
           (func (export "wvs_schedule")"#,
    );
    let follows = follows.replace("(i32.load16_u (i32.const 4104))", "(global.get $ticks)");
    let csv = "at_ms,client,port,duration_ms\n0,192.0.2.1,5,100\n50,192.0.2.1,6,300\n\
               250,192.0.2.1,7,200\n200000,192.0.2.1,8,400\n";
    let later = format!("{csv}400000,192.0.2.1,9,1\n");
    let folder = folder(&[("follows.wat", &follows), ("log.csv", csv), ("later.csv", &later)]);
    let file = |name| folder.path().join(name).into_os_string().into_string().unwrap();
    let run = |requests| {
        let (plugin, requests) = (file("follows.wat"), file(requests));
        json(&["simulate", &plugin, "--servers", "1,1,0", "--requests", &requests])
    };
    let (code, report) = run("log.csv");
    let tally = &report["tally"];
    assert_eq!((code, &tally["faults"]), (0, &Value::from(0)), "{report}");
    // Three were opened and are over when the fourth one comes; a tick each second from the start.
    assert_eq!((&tally["events"], &tally["ticks"]), (&Value::from(6), &Value::from(201)));
    let (code, report) = run("later.csv");
    let fault = report["tally"]["first_fault"]["fault"].as_str().unwrap();
    assert_eq!(code, 1);
    assert!(fault.starts_with("wvs_event stopped"), "{fault}");
}

#[test]
fn golden_file_holds_later_runs_to_its_decisions() {
    let folder = folder(&[("by-port.wat", BY_PORT), ("fails.wat", FAILS_LATE)]);
    let simulate = |plugin: &str, requests: &str, more: &[&str]| {
        let mut arguments = vec!["simulate", plugin, "--requests", requests, "--golden", "g.csv"];
        arguments.extend(more);
        run_in(&folder, &arguments)
    };
    let written = simulate("by-port.wat", "random:1:200", &["--update"]);
    assert_eq!(last_line(&written), "golden: g.csv has this run's decisions now");
    let file = fs::read_to_string(folder.path().join("g.csv")).unwrap();
    insta::assert_snapshot!(file.lines().take(4).collect::<Vec<_>>().join("\n"));
    assert_eq!(file.lines().count(), 202);

    let same = simulate("by-port.wat", "random:1:200", &[]);
    assert_eq!(last_line(&same), "golden: every decision is as in g.csv");
    let others = [
        simulate("fails.wat", "random:1:200", &[]),
        simulate("by-port.wat", "random:2:200", &[]),
        simulate("by-port.wat", "random:1:200", &["--servers", "2x1"]),
    ];
    for text in &others {
        assert!(text.starts_with("exit status: 1\n"), "{text}");
    }
    insta::assert_snapshot!(
        others.iter().map(|text| last_line(text)).collect::<Vec<_>>().join("\n")
    );

    // A file that ends too soon or too late.
    let line = file.lines().last().unwrap();
    for (changed, said) in [
        (file.replace(line, ""), "line 202 has nothing more, and now it is "),
        (file.clone() + line, ", and now it is nothing more"),
    ] {
        fs::write(folder.path().join("g.csv"), changed.trim_end()).unwrap();
        let text = simulate("by-port.wat", "random:1:200", &[]);
        assert!(text.starts_with("exit status: 1\n") && text.contains(said), "{text}");
    }
    let again = simulate("by-port.wat", "random:1:200", &["--update"]);
    assert!(again.starts_with("exit status: 0\n"), "{again}");
    assert_eq!(fs::read_to_string(folder.path().join("g.csv")).unwrap(), file);
}

#[test]
fn chart_is_a_picture_with_the_servers_in_it() {
    let folder = folder(&[("<a&b>.wat", BY_PORT)]);
    let draw = |file: &str| {
        let arguments = ["simulate", "<a&b>.wat", "--servers", "2,1@..9000,9x1", "--chart", file];
        let text = run_in(&folder, &arguments);
        assert!(text.starts_with("exit status: 0\n"), "{text}");
        fs::read_to_string(folder.path().join(file)).unwrap()
    };
    let svg = draw("a.svg");
    assert_eq!(draw("b.svg"), svg);
    let document = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    assert!(texts.contains(&"<a&b>.wat: shares of new connections"), "{texts:?}");
    for address in ["10.0.0.1:80  ", "10.0.0.7:80  ", "4 more"] {
        assert!(texts.iter().any(|text| text.starts_with(address)), "{address}: {texts:?}");
    }
    let named = |name: &str| {
        document
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name)))
            .count()
    };
    assert_eq!((named("script"), named("style"), named("image")), (0, 0, 0));
    assert!(named("rect") > 60);
}

#[test]
fn octets_of_any_kind_are_refused_without_a_panic() {
    let folder = folder(&[]);
    let mut random = Random::new(9);
    let mut octets =
        |length: u64| (0..length).map(|_| random.next().to_le_bytes()[0]).collect::<Vec<_>>();
    let beginnings: [(&str, &[u8]); 5] = [
        ("a.wasm", b""),
        ("b.wasm", b"\0asm\x01\0\0\0"),
        ("c.wat", b"(module "),
        ("d.csv", b"at_ms,client,port,duration_ms\n"),
        ("e.golden", b"# decisions of a scheduler"),
    ];
    for round in 0..2 {
        for (name, beginning) in beginnings {
            let text = [beginning, &octets(round * 40)].concat();
            fs::write(folder.path().join(name), text).unwrap();
            let simulate = ["simulate", "rr", "--requests", "random:1:10"];
            for arguments in [
                &["check", name][..],
                &["simulate", "rr", "--requests", name],
                &["simulate", "rr", "--against", name],
                &[&simulate[..], &["--golden", name]].concat(),
                &["check", "rr", "--config", &format!("@{name}")],
            ] {
                let output = wvs().args(arguments).current_dir(folder.path()).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {said}");
                assert!(!said.contains("panicked"), "{arguments:?}: {said}");
            }
        }
    }
}

/// The contents of the code blocks of `docs/PLUGINS.md` that follow a marker.
fn guide_blocks(marker: &str) -> Vec<String> {
    let guide = fs::read_to_string(workspace().join("docs/PLUGINS.md")).unwrap();
    let blocks = guide.split(marker).skip(1).map(|rest| {
        let (_fence, rest) = rest.trim_start().split_once('\n').unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    });
    blocks.collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn guide_shows_what_the_tools_say() {
    assert_eq!(guide_blocks("<!-- tool file: by-port.wat -->"), [BY_PORT]);
    let folder = folder(&[("by-port.wat", BY_PORT)]);
    let blocks = guide_blocks("<!-- tool -->");
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let (command, shown) = block.split_once('\n').unwrap();
        let arguments = command.strip_prefix("$ wvs plugin ").unwrap().split(' ');
        let output = wvs().args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{command}");
        assert_eq!(shown, String::from_utf8(output.stdout).unwrap(), "{command}");
    }
}

#[test]
fn guide_shows_the_test_of_the_crates_documentation() {
    let source = fs::read_to_string(workspace().join("host/plugin/src/lib.rs")).unwrap();
    let text = source.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim_start);
    let shown: Vec<_> = text.filter(|line| !line.starts_with("# ")).collect();
    let shown = shown.join("\n");
    let [test] = &guide_blocks("<!-- tool test -->")[..] else { panic!("one test") };
    assert!(shown.contains(test.trim()), "{shown}");
}

/// A decision as a recording has it.
type Recorded = (Request, Arc<ServerTable>, Vec<(u32, u32)>, Answer);

#[test]
fn decisions_from_elsewhere_can_be_put_to_a_plugin() {
    let host = Host::new().unwrap();
    let wlc = host.load(Source::BuiltIn("wlc"), Limits::default()).unwrap();
    let servers: Servers = "3,1,1@50..150".parse().unwrap();
    let mut recording: Vec<Recorded> = Vec::new();
    Simulation::new(servers.clone(), Requests::random(1, 100))
        .watch(&wlc, None, |step| {
            let Question { request, servers, counts, .. } = step.question;
            recording.push((*request, servers.clone(), counts.to_vec(), step.answer.clone()));
        })
        .unwrap();
    let follow = |recording: &[Recorded]| {
        let mut comparison = Comparison::new(&wlc, None, servers.table()).unwrap();
        for (number, (request, servers, counts, answer)) in (0..).zip(recording) {
            let question = Question { request, servers, counts, events: &[] };
            comparison.follow(&Step { number, question, answer });
        }
        let first =
            comparison.first_difference().map(|first| (first.number, first.expected.clone()));
        (comparison.steps(), comparison.agreed(), first)
    };
    assert_eq!(follow(&recording), (100, 100, None));
    recording[70].3 = Answer::Given(Pick::NoServer);
    assert_eq!(follow(&recording), (100, 99, Some((70, "no server".to_owned()))));
}
