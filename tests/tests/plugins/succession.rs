//! One plugin takes another's place: with what it knows, on probation, or not at all.

use std::sync::Arc;

use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Fault, Module, WasmScheduler};

use crate::{built_in, load_of, servers};

/// Counts its decisions, and hands the count on.
const COUNTING: &str = r#"
    (global $count (mut i32) (i32.const -1))
    (func (export "wvs_state_save") (param i32) (result i32)
        (i32.store (i32.const 131072) (global.get $count)) (i32.const 4))
    (func (export "wvs_state_load") (param i32) (result i32)
        (global.set $count (i32.load (i32.const 131072))) (i32.const 0))"#;

const NEXT: &str = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.rem_u (global.get $count) (local.get $n))";

/// Good for some decisions.
fn good_for(decisions: u32) -> Module {
    let rest = format!("(global $left (mut i32) (i32.const {decisions}))");
    load_of(
        &rest,
        "(if (i32.eqz (global.get $left)) (then (unreachable)))
         (global.set $left (i32.sub (global.get $left) (i32.const 1)))
         (i32.const 1)",
    )
}

fn new(module: &Module, all: &[Arc<RealServer>], generation: u16) -> WasmScheduler {
    module.scheduler(None, all).unwrap().numbered(generation)
}

fn ask(scheduler: &mut WasmScheduler, all: &[Arc<RealServer>]) -> (Pick, u16) {
    let pick = scheduler.schedule(&Request::default(), all);
    (pick, scheduler.generation())
}

#[test]
fn successor_goes_on_where_its_predecessor_was() {
    let module = load_of(COUNTING, NEXT);
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&module, &all, 1);
    let mut order = Vec::new();
    for generation in 2..20 {
        for _ in 0..generation % 5 {
            order.push(ask(&mut scheduler, &all).0);
        }
        let succession = scheduler.succeed(new(&module, &all, generation), &all, 0).unwrap();
        assert!(succession.is_state_carried);
    }
    let expected: Vec<_> = (0..order.len()).map(|turn| Pick::Server(turn % 3)).collect();
    assert_eq!(order, expected);
}

#[test]
fn successor_of_another_kind_starts_afresh() {
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&load_of(COUNTING, NEXT), &all, 1);
    ask(&mut scheduler, &all);
    let succession = scheduler.succeed(new(&built_in("wlc"), &all, 2), &all, 0).unwrap();
    assert!(!succession.is_state_carried);
    assert_eq!(ask(&mut scheduler, &all), (Pick::Server(0), 2));
}

#[test]
fn successor_that_fails_on_the_state_leaves_the_old_one_in_place() {
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&load_of(COUNTING, NEXT), &all, 1);
    ask(&mut scheduler, &all);
    let chokes = load_of(
        r#"(func (export "wvs_state_load") (param i32) (result i32) (unreachable))"#,
        "(i32.const 0)",
    );
    let fault = scheduler.succeed(new(&chokes, &all, 2), &all, 100).unwrap_err();
    assert!(matches!(fault, Fault::Trap { export: "wvs_state_load", .. }), "{fault}");
    assert_eq!(ask(&mut scheduler, &all), (Pick::Server(1), 1));
}

#[test]
fn predecessor_that_fails_to_save_is_replaced_all_the_same() {
    for save in ["(unreachable)", "(loop $l (br $l))"] {
        let rest = format!(
            r#"(func (export "wvs_state_save") (param i32) (result i32) {save} (i32.const 0))"#
        );
        let all = servers(&[1, 1]);
        let mut scheduler = new(&load_of(&rest, "(i32.const 0)"), &all, 1);
        let counters = scheduler.counters();
        let succession = scheduler.succeed(new(&built_in("rr"), &all, 2), &all, 0).unwrap();
        assert!(!succession.is_state_carried);
        assert_eq!(counters.faults(), 1);
        assert_eq!(ask(&mut scheduler, &all), (Pick::Server(0), 2));
    }
}

#[test]
fn plugin_that_fails_on_probation_is_replaced_by_its_predecessor_in_the_same_decision() {
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&load_of(COUNTING, NEXT), &all, 1);
    assert_eq!(ask(&mut scheduler, &all), (Pick::Server(0), 1));
    scheduler.succeed(new(&good_for(3), &all, 2), &all, 10).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&mut scheduler, &all), (Pick::Server(1), 2));
    }
    // The fourth decision fails, and is the predecessor's second one.
    assert_eq!(ask(&mut scheduler, &all), (Pick::Server(1), 1));
    assert_eq!(ask(&mut scheduler, &all), (Pick::Server(2), 1));
    let rollback = scheduler.rollback().unwrap();
    assert_eq!(rollback.from, 2);
    assert!(matches!(rollback.fault, Some(Fault::Trap { .. })));
}

#[test]
fn predecessor_learns_of_servers_that_changed_in_the_meantime() {
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&load_of(COUNTING, NEXT), &all, 1);
    scheduler.succeed(new(&good_for(1), &all, 2), &all, 10).unwrap();
    ask(&mut scheduler, &all);
    let fewer = all[..2].to_vec();
    scheduler.servers_changed(&fewer);
    let order: Vec<_> = (0..4).map(|_| ask(&mut scheduler, &fewer).0).collect();
    assert_eq!(order, [0, 1, 0, 1].map(Pick::Server));
}

#[test]
fn plugin_that_proved_itself_is_not_rolled_back() {
    let all = servers(&[1, 1, 1]);
    let mut scheduler = new(&load_of(COUNTING, NEXT), &all, 1);
    scheduler.succeed(new(&good_for(3), &all, 2), &all, 3).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&mut scheduler, &all), (Pick::Server(1), 2));
    }
    assert_eq!(ask(&mut scheduler, &all), (Pick::Defer, 2));
    assert_eq!(scheduler.rollback(), None);
}

#[test]
fn reset_ends_a_quarantine_at_once() {
    let all = servers(&[1]);
    let wrong = load_of("", "(i32.const 7)");
    let mut scheduler = new(&wrong, &all, 1);
    for _ in 0..3 {
        assert_eq!(ask(&mut scheduler, &all).0, Pick::Defer);
    }
    assert!(scheduler.report().quarantined_ms > 0);
    scheduler.reset();
    assert_eq!(scheduler.report().quarantined_ms, 0);
}
