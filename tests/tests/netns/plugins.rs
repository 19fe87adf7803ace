//! Plugins that fail, and plugins that are replaced, while connections come in.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use wvs::control::snapshot::{PluginsSnapshot, SeatSnapshot, ServiceSnapshot};
use wvs::lab;

use crate::director::{DirectorProcess, WVS, services};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, ask, wait_until};

trials! {
    once plugin_that_traps_mid_traffic_costs_no_connection,
    once decisions_that_a_director_recorded_replay_without_one,
    once plugin_that_loops_for_ever_costs_no_connection,
    once plugin_that_answers_nonsense_costs_no_connection,
    once schedulers_are_changed_from_the_command_line_and_held_connections_stay,
    once new_plugin_that_fails_on_probation_gives_way_in_the_same_decision,
    once file_that_changes_is_put_to_work_once_it_is_whole,
    once scheduler_ticks_without_any_traffic_for_as_long_as_it_wants,
    once reload_puts_to_work_what_the_file_says_and_undoes_what_it_contradicts,
}

/// Picks the server of this index for as long as it lives.
fn always(index: u8) -> Vec<u8> {
    module(&format!("(i32.const {index})"))
}

/// Runs `wvs` against the stage's director: its status and what it says.
fn wvs(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(WVS);
    command.args(arguments).arg("--socket").arg(stage.socket_of("wvs"));
    let output = command.current_dir(stage.folder()).output().expect("wvs runs");
    let octets = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code(), String::from_utf8(octets).expect("text"))
}

/// The same, which must succeed.
#[track_caller]
fn wvs_well(stage: &Stage, arguments: &[&str]) -> String {
    let (status, told) = wvs(stage, arguments);
    assert_eq!(status, Some(0), "wvs {arguments:?}: {told}");
    told
}

/// Up to what takes time.
fn without_time(told: &str) -> &str {
    told.split(", in ").next().unwrap_or(told)
}

/// What is known of the plugins of the one service.
fn seat(stage: &Stage) -> SeatSnapshot {
    let told = wvs_well(stage, &["plugin", "list", "--json"]);
    let mut snapshot: PluginsSnapshot = serde_json::from_str(&told).expect("JSON");
    snapshot.services.remove(0)
}

fn schedulers_are_changed_from_the_command_line_and_held_connections_stay() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    for (name, index) in [("second.wasm", 1), ("third.wasm", 2)] {
        fs::write(stage.folder().join(name), always(index)).unwrap();
    }
    fs::write(stage.folder().join("broken.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let config = stage.configure("", &stage.service(false, "rr"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    let mut held = stage.connect(2, false, PORT).unwrap();

    let told = wvs_well(&stage, &["plugin", "swap", "tcp-80-v4", "./second.wasm"]);
    let expected = "tcp-80-v4: rr (generation 1) -> second (generation 2), from the start";
    assert_eq!(without_time(&told), expected);
    assert_eq!(stage.who_answers(1, false), "server2");

    let (status, told) = wvs(&stage, &["plugin", "swap", "tcp-80-v4", "broken.wasm"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("broken cannot be loaded: the module does not export"), "{told}");
    let (status, told) = wvs(&stage, &["plugin", "swap", "nothing", "wlc"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("there is no service nothing"), "{told}");
    assert_eq!(stage.who_answers(1, false), "server2");

    wvs_well(&stage, &["plugin", "shadow", "tcp-80-v4", "third.wasm", "--skew", "100%"]);
    assert_eq!(stage.who_answers(1, false), "server2");
    let trial = seat(&stage).trial.expect("a trial");
    assert_eq!((trial.decisions, trial.agreements, trial.obeyed), (1, 0, 0));
    wvs_well(&stage, &["plugin", "canary", "tcp-80-v4", "100%"]);
    assert_eq!(stage.who_answers(1, false), "server3");
    let told = wvs_well(&stage, &["connections", "tcp-80-v4"]);
    let placed = |generation: &str| told.lines().filter(|line| line.ends_with(generation)).count();
    assert_eq!([" 1", " 2", " 3"].map(placed), [1, 3, 1], "{told}");
    let told = wvs_well(&stage, &["plugin", "promote", "tcp-80-v4"]);
    let expected = "tcp-80-v4: second (generation 2) -> third (generation 3), with its state";
    assert_eq!(without_time(&told), expected);
    assert_eq!(stage.who_answers(1, false), "server3");
    assert!(wvs(&stage, &["plugin", "stop", "tcp-80-v4"]).1.contains("no candidate"));

    wvs_well(&stage, &["plugin", "reset", "tcp-80-v4"]);
    let told = wvs_well(&stage, &["plugin", "rollback", "tcp-80-v4"]);
    assert!(told.contains("third (generation 3) -> second (generation 2)"), "{told}");
    assert_eq!(stage.who_answers(1, false), "server2");
    wvs_well(&stage, &["plugin", "rollback", "tcp-80-v4"]);
    assert!(wvs(&stage, &["plugin", "rollback", "tcp-80-v4"]).1.contains("no earlier generation"));

    // The whole time this connection was open.
    assert_eq!(ask(&mut held, "/name").unwrap(), "server1");
    let service = services(&stage.socket_of("wvs")).services.remove(0);
    assert_eq!(service.scheduling.fallback, 0, "{service:#?}");
    let ended = director.stop();
    assert!(ended.log.contains("scheduler replaced"), "{}", ended.log);
}

fn new_plugin_that_fails_on_probation_gives_way_in_the_same_decision() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let late = "(global.set $picks (i32.add (global.get $picks) (i32.const 1)))
         (if (i32.gt_u (global.get $picks) (i32.const 3)) (then (unreachable)))
         (i32.const 2)";
    // As many picks as the plugin's own trial has come before.
    let late = module(&late.replace("(i32.const 3)", "(i32.const 67)"));
    fs::write(stage.folder().join("late.wasm"), late).unwrap();
    let config = stage.configure("", &stage.service(false, "sh"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    let before = stage.who_answers(1, false);

    wvs_well(&stage, &["plugin", "swap", "tcp-80-v4", "late.wasm"]);
    let mut answers: Vec<_> = (0..80).map(|_| stage.who_answers(1, false)).collect();

    let after = answers.split_off(67);
    assert!(answers.iter().all(|server| server == "server3"), "{answers:?}");
    assert!(after.iter().all(|server| *server == before), "{before}: {after:?}");
    let seat = seat(&stage);
    assert_eq!((seat.plugin.name.as_str(), seat.plugin.generation), ("sh", 1));
    assert_eq!(seat.rollback.map(|rollback| rollback.from), Some(2));
    let service = services(&stage.socket_of("wvs")).services.remove(0);
    assert_eq!(service.scheduling.fallback, 0, "{service:#?}");
    director.stop();
}

fn file_that_changes_is_put_to_work_once_it_is_whole() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let file = stage.folder().join("plugin.wasm");
    fs::write(&file, always(0)).unwrap();
    let config = stage.configure(
        "plugins:\n  mine: { file: plugin.wasm, watch: true }",
        &stage.service(false, "mine"),
    );
    let director = DirectorProcess::start(&stage.lab.director, &config);
    assert_eq!(stage.who_answers(1, false), "server1");

    // Half of it, for longer than a look takes: no module, so the old one stays.
    let next = always(1);
    fs::write(&file, &next[..next.len() / 2]).unwrap();
    wait_until("a warning", || director.log().contains("the old one stays"));
    assert_eq!(stage.who_answers(1, false), "server1");
    fs::write(&file, &next).unwrap();
    wait_until("the second plugin", || seat(&stage).plugin.generation == 2);
    assert_eq!(stage.who_answers(1, false), "server2");

    // Renamed over it, as editors and installers do.
    let beside = stage.folder().join("plugin.wasm.new");
    fs::write(&beside, always(2)).unwrap();
    fs::rename(&beside, &file).unwrap();
    wait_until("the third plugin", || seat(&stage).plugin.generation == 3);
    assert_eq!(stage.who_answers(1, false), "server3");

    let ended = director.stop();
    assert_eq!(ended.log.matches("the old one stays").count(), 1, "{}", ended.log);
}

fn scheduler_ticks_without_any_traffic_for_as_long_as_it_wants() {
    let stage = Stage::new(3);
    // It wants to tick a millisecond later, five times.
    let ticking = "(global $ticks (mut i32) (i32.const 0))
        (func (export \"wvs_tick\") (result i32)
            (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
            (if (result i32) (i32.lt_u (global.get $ticks) (i32.const 5))
                (then (i32.const 1)) (else (i32.const 0))))";
    let octets = module_with("(i32.const 0)", ticking);
    fs::write(stage.folder().join("ticking.wasm"), octets).unwrap();
    let config = stage
        .configure("plugins:\n  ticking: { file: ticking.wasm }", &stage.service(false, "ticking"));
    let director = DirectorProcess::start(&stage.lab.director, &config);
    wait_until("the fifth tick", || seat(&stage).plugin.ticks == 5);
    director.stop();
}

fn reload_puts_to_work_what_the_file_says_and_undoes_what_it_contradicts() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    fs::write(stage.folder().join("plugin.wasm"), always(1)).unwrap();
    let configure =
        |head: &str, scheduler: &str| stage.configure(head, &stage.service(false, scheduler));
    let plugins = "plugins:\n  mine: { file: plugin.wasm }";
    let config = configure("", "rr");
    let director = DirectorProcess::start(&stage.lab.director, &config);
    assert_eq!(wvs_well(&stage, &["reload"]), "nothing to change\n");

    configure(plugins, "{ plugin: mine, probation: 5, shadow: wlc }");
    let told = wvs_well(&stage, &["reload"]);
    assert!(told.contains("tcp-80-v4: rr (generation 1) -> mine (generation 2)"), "{told}");
    assert!(told.contains("tcp-80-v4: wlc (generation 3) is tried out"), "{told}");
    assert!(told.contains("tcp-80-v4: a probation of 5 decisions"), "{told}");
    assert_eq!(stage.who_answers(1, false), "server2");

    // What was done at run time goes, and is named.
    wvs_well(&stage, &["plugin", "swap", "tcp-80-v4", "rr"]);
    let told = wvs_well(&stage, &["reload"]);
    assert!(told.contains("rr (generation 4) was put to work at run time, against"), "{told}");
    assert_eq!(seat(&stage).plugin.name, "mine");

    // What only a start can change changes nothing.
    configure(&format!("{plugins}\necho: drop"), "rr");
    let (status, told) = wvs(&stage, &["reload"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("while the director runs: echo; restart the director"), "{told}");
    fs::write(stage.folder().join("plugin.wasm"), "(module)").unwrap();
    configure(plugins, "mine");
    let (status, told) = wvs(&stage, &["reload"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("plugins.mine.file: this is no WebAssembly module"), "{told}");
    assert_eq!(stage.who_answers(1, false), "server2");

    fs::write(stage.folder().join("plugin.wasm"), always(2)).unwrap();
    director.signal(Signal::SIGHUP);
    wait_until("the third server", || stage.who_answers(1, false) == "server3");
    let trial = seat(&stage).trial;
    assert!(trial.is_none(), "{trial:?}");
    let ended = director.stop();
    assert!(ended.log.contains("configuration reloaded"), "{}", ended.log);
}

fn plugin_that_traps_mid_traffic_costs_no_connection() {
    let service = serve_with(
        "(global.set $picks (i32.add (global.get $picks) (i32.const 1)))
         (if (i32.gt_u (global.get $picks) (i32.const 70)) (then (unreachable)))
         (i32.const 0)",
    );
    assert!(service.scheduler.traps > 0, "{service:#?}");
    assert!(service.scheduling.picked > 0, "{service:#?}");
}

fn plugin_that_loops_for_ever_costs_no_connection() {
    let service = serve_with(
        "(global.set $picks (i32.add (global.get $picks) (i32.const 1)))
         (if (i32.gt_u (global.get $picks) (i32.const 70)) (then (loop $again (br $again))))
         (i32.const 0)",
    );
    assert!(service.scheduler.out_of_fuel > 0, "{service:#?}");
}

fn plugin_that_answers_nonsense_costs_no_connection() {
    let service = serve_with(
        "(global.set $picks (i32.add (global.get $picks) (i32.const 1)))
         (if (i32.gt_u (global.get $picks) (i32.const 70)) (then (return (i32.const 99))))
         (i32.const 0)",
    );
    assert!(service.scheduler.bad_answers > 0, "{service:#?}");
}

fn decisions_that_a_director_recorded_replay_without_one() {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let director = stage.direct(&stage.service(false, "{ plugin: rr, record: 1MiB }"));
    let (service, socket) = ("tcp-80-v4", stage.socket_of("wvs"));
    for _ in 0..20 {
        stage.who_answers(1, false);
    }
    let file = stage.folder().join("web.recording");
    let file = file.to_str().unwrap();
    let socket = socket.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(WVS).arg("plugin").args(arguments).output().expect("wvs runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, output)
    };
    let (code, text, output) = run(&["record", service, "-o", file, "--socket", socket]);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(text.contains(service), "{text}");
    director.stop();

    let (code, text, output) = run(&["simulate", "rr", "--replay", file]);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(text.contains("20 decisions") && text.contains("0 answered otherwise"), "{text}");
    assert!(text.contains("generation 1, the same module"), "{text}");
    // wlc would have gone on with the first server, whose connections are closed again each time.
    let (code, text, _) = run(&["simulate", "wlc", "--replay", file]);
    assert_eq!(code, Some(1));
    assert!(text.contains("another module") && text.contains("they first differ"), "{text}");
}

/// The plugins behave for 70 picks, which is more than the director tries them with.
///
/// Lets a plugin with this body of `wvs_schedule` place 80 connections while one made before is
/// held; all must be served.
fn serve_with(schedule: &str) -> ServiceSnapshot {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    fs::write(stage.folder().join("plugin.wasm"), module(schedule)).unwrap();
    let config = stage.configure(
        "plugins:\n  failing: { file: plugin.wasm }",
        &stage.service(false, "{ plugin: failing }"),
    );
    let director = DirectorProcess::start(&stage.lab.director, &config);

    let mut held = stage.connect(2, false, PORT).unwrap();
    for turn in 0..80 {
        let client = turn % lab::CLIENTS + 1;
        stage.fetch(client, false, "/name").unwrap_or_else(|error| panic!("{turn}: {error}"));
    }
    assert_eq!(ask(&mut held, "/name").unwrap(), "server1");

    let snapshot = services(&stage.socket_of("wvs"));
    director.stop();
    let [service] = &snapshot.services[..] else { panic!("{snapshot:#?}") };
    assert_eq!(service.scheduling.picked + service.scheduling.fallback, 81, "{service:#?}");
    assert!(service.scheduling.fallback > 0, "{service:#?}");
    assert!(service.scheduler.faults > 0, "{service:#?}");
    service.clone()
}

fn module(schedule: &str) -> Vec<u8> {
    module_with(schedule, "")
}

/// The same with these other fields.
fn module_with(schedule: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 2)
            (global $picks (mut i32) (i32.const 0))
            (func (export "wvs_abi") (result i32) (i32.const 0x10000))
            (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
            (func (export "wvs_schedule") (param $n i32) (result i32) {schedule})
            {fields})"#
    );
    wat::parse_str(text).expect("a module")
}
