//! Plugins that fail while connections come in.

use std::fs;

use wvs::control::snapshot::ServiceSnapshot;
use wvs::lab;

use crate::director::{DirectorProcess, services};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, ask};

trials! {
    once plugin_that_traps_mid_traffic_costs_no_connection,
    once plugin_that_loops_for_ever_costs_no_connection,
    once plugin_that_answers_nonsense_costs_no_connection,
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
    let text = format!(
        r#"(module
            (memory (export "memory") 2)
            (global $picks (mut i32) (i32.const 0))
            (func (export "wvs_abi") (result i32) (i32.const 0x10000))
            (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
            (func (export "wvs_schedule") (param $n i32) (result i32) {schedule}))"#
    );
    wat::parse_str(text).expect("a module")
}
