//! What a plugin on probation, on trial or in succession may not get away with.

use crate::{built_in, load_of, servers};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wvs_abi::Request;
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Module, TrialLimits, WasmScheduler};

fn new(module: &Module, all: &[Arc<RealServer>], generation: u16) -> WasmScheduler {
    module.scheduler(None, all).unwrap().numbered(generation)
}
fn at(now_ms: u64) -> Request {
    Request { now_ms, ..Request::default() }
}
const BOUND: Event = Event { kind: EventKind::Bound, server_id: 1 };

#[test]
fn fault_in_an_event_on_probation_rolls_back() {
    let all = servers(&[1, 1]);
    let mut scheduler = new(&load_of("", "(i32.const 1)"), &all, 1);
    let bad = load_of(
        r#"(func (export "wvs_event") (param i32 i32 i32) (unreachable))"#,
        "(i32.const 0)",
    );
    scheduler.succeed(new(&bad, &all, 2), &all, 100).unwrap();
    let mut picks = Vec::new();
    for n in 0..200 {
        scheduler.event(&BOUND, &all);
        picks.push(scheduler.schedule(&at(n), &all));
    }
    let deferred = picks.iter().filter(|p| **p == Pick::Defer).count();
    let report = scheduler.report();
    assert_eq!(
        (deferred, report.generation, scheduler.rollback().is_some()),
        (0, 1, true),
        "deferred, generation, rolled back; faults {} quarantines {}",
        report.counters.faults(),
        report.counters.quarantines()
    );
}

/// As many as may be told before a decision have its fuel together.
#[test]
fn event_has_a_sixty_fourth_of_a_decisions_fuel() {
    let all = servers(&[1]);
    for (rounds, faults) in [(1_500, 0), (4_000, 1)] {
        let rest = format!(
            r#"(func (export "wvs_event") (param i32 i32 i32) (local $i i32)
                (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i)
                    (i32.const 1))) (i32.const {rounds})))))"#
        );
        let mut scheduler = new(&load_of(&rest, "(i32.const 0)"), &all, 1);
        scheduler.event(&BOUND, &all);
        assert_eq!(scheduler.counters().out_of_fuel(), faults, "{rounds}");
    }
}

#[test]
fn fault_in_a_tick_on_probation_rolls_back() {
    let all = servers(&[1, 1]);
    let mut scheduler = new(&load_of("", "(i32.const 1)"), &all, 1);
    let bad = load_of(r#"(func (export "wvs_tick") (result i32) (unreachable))"#, "(i32.const 0)");
    scheduler.succeed(new(&bad, &all, 2), &all, 100).unwrap();
    scheduler.tick(&at(0), &all);
    let pick = scheduler.schedule(&at(0), &all);
    assert_eq!((pick, scheduler.report().generation), (Pick::Server(1), 1));
}

#[test]
fn predecessor_that_trapped_while_saving_is_not_asked_with_a_broken_memory() {
    // save marks the memory as half-changed and traps; schedule picks the wrong one from then on.
    let all = servers(&[1, 1]);
    let old = load_of(
        r#"(func (export "wvs_state_save") (param i32) (result i32)
        (i32.store (i32.const 64) (i32.const 1)) (unreachable))"#,
        "(i32.load (i32.const 64))",
    );
    let mut scheduler = new(&old, &all, 1);
    assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(0));
    let traps = load_of("", "(unreachable)");
    scheduler.succeed(new(&traps, &all, 2), &all, 100).unwrap();
    let pick = scheduler.schedule(&at(1), &all);
    assert_ne!(
        pick,
        Pick::Server(1),
        "an instance that trapped in wvs_state_save decided after the roll-back"
    );
}

#[test]
fn stopped_candidate_costs_nothing_any_more() {
    let all = servers(&[1, 1]);
    let mut scheduler = new(&built_in("rr"), &all, 1);
    let bad = load_of(
        r#"(func (export "wvs_event") (param i32 i32 i32))
        (func (export "wvs_tick") (result i32) (i32.const 10))"#,
        "(i32.const 9)",
    );
    drop(scheduler.try_out(new(&bad, &all, 2), 0, TrialLimits { faults: 1, skew: 10_000 }));
    scheduler.schedule(&at(0), &all);
    assert!(scheduler.trial().unwrap().stopped.is_some());
    let counters = scheduler.trial().unwrap().candidate.counters;
    for n in 1..100 {
        scheduler.event(&BOUND, &all);
        scheduler.tick(&at(n * 10), &all);
    }
    assert_eq!((counters.events(), counters.ticks(), scheduler.wants_events()), (0, 0, false));
}

#[test]
fn canary_that_refuses_nine_of_ten_is_stopped() {
    let all = servers(&[1, 1]);
    let mut scheduler = new(&built_in("rr"), &all, 1);
    let refuses = load_of("(global $k (mut i32) (i32.const 0))",
        "(global.set $k (i32.add (global.get $k) (i32.const 1)))
         (if (i32.rem_u (i32.div_u (global.get $k) (i32.const 2)) (i32.const 10)) (then (return (i32.const -1))))
         (i32.and (global.get $k) (i32.const 1))");
    drop(scheduler.try_out(new(&refuses, &all, 2), 10_000, TrialLimits::default()));
    let refused = (0..5000).filter(|n| scheduler.schedule(&at(*n), &all) == Pick::NoServer).count();
    let trial = scheduler.trial().unwrap();
    assert!(trial.stopped.is_some(), "{refused} of 5000 refused; skew {}", trial.skew);
}

#[test]
fn canary_beside_a_plugin_that_is_quarantined_is_not_stopped_for_skew() {
    let all = servers(&[1, 1]);
    let mut scheduler = new(&load_of("", "(i32.const 7)"), &all, 1);
    drop(scheduler.try_out(new(&built_in("rr"), &all, 2), 10_000, TrialLimits::default()));
    for _ in 0..1000 {
        scheduler.schedule(&at(0), &all);
    }
    let trial = scheduler.trial().unwrap();
    assert_eq!(trial.stopped, None);
}

#[test]
fn both_unavailable_is_no_agreement() {
    let all = servers(&[1, 1]);
    let bad = load_of("", "(unreachable)");
    let mut scheduler = new(&bad, &all, 1);
    drop(scheduler.try_out(new(&bad, &all, 2), 0, TrialLimits { faults: 100, skew: 10_000 }));
    for _ in 0..1000 {
        scheduler.schedule(&at(0), &all);
    }
    let trial = scheduler.trial().unwrap();
    assert_eq!(trial.agreements, 0);
}

/// A plugin that ticks once at its start (say, to build a table) must do so in each new instance.
#[test]
fn new_instance_ticks_first_thing() {
    let all = servers(&[1, 1]);
    let once = load_of(
        r#"(func (export "wvs_tick") (result i32) (i32.const 0))"#,
        "(if (i64.eq (i64.load (i32.const 16440)) (i64.const 7)) (then (unreachable)))
         (i32.const 0)",
    );
    let mut scheduler = new(&once, &all, 1);
    let counters = scheduler.counters();
    assert!(scheduler.tick(&at(0), &all).is_some(), "it is looked at again");
    let fatal = Request { random: 7, ..Request::default() };
    assert_eq!(scheduler.schedule(&fatal, &all), Pick::Defer);
    let give_up = Instant::now() + Duration::from_secs(30);
    while counters.rebuilds() == 0 {
        assert!(Instant::now() < give_up, "no new instance");
        std::thread::sleep(Duration::from_millis(1));
        scheduler.schedule(&at(0), &all);
    }
    scheduler.tick(&at(1_000), &all);
    assert_eq!(counters.ticks(), 2);
}

/// The predecessor on probation is told of everything: also of servers, outside of the decision.
#[test]
fn predecessor_is_told_of_servers_while_it_waits() {
    let all = servers(&[1, 1]);
    let old = load_of(
        r#"(func (export "wvs_servers_changed") (param i32) (result i32)
        (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1))) (i32.const 0))
        (func (export "wvs_event") (param i32 i32 i32) (i32.store (i32.const 68) (i32.load (i32.const 64))))"#,
        "(i32.eq (i32.load (i32.const 68)) (i32.const 2))",
    );
    let mut scheduler = new(&old, &all, 1);
    let traps = load_of("", "(unreachable)");
    scheduler.succeed(new(&traps, &all, 2), &all, 100).unwrap();
    all[0].set_weight(7);
    scheduler.servers_changed(&all);
    scheduler.event(&BOUND, &all);
    assert_eq!(
        scheduler.schedule(&at(1), &all),
        Pick::Server(1),
        "it saw the event with the old table"
    );
}

/// Faults of events are noted at the time of the latest request, so that a quarantine is over before it began.
#[test]
fn quarantine_for_faults_of_events_lasts() {
    let all = servers(&[1, 1]);
    let bad = load_of(
        r#"(func (export "wvs_event") (param i32 i32 i32) (unreachable))"#,
        "(i32.const 0)",
    );
    let mut scheduler = new(&bad, &all, 1);
    let counters = scheduler.counters();
    // A request each 4 s, an event 3.9 s after it, as from the sweep.
    let mut now = 0;
    let mut unavailable_by_quarantine = 0;
    for _ in 0..8 {
        now += 4_000;
        for _ in 0..100 {
            scheduler.schedule(&at(now), &all);
            if scheduler.report().quarantined_ms > 0 {
                unavailable_by_quarantine += 1;
            }
            if scheduler.report().memory > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        scheduler.event(&BOUND, &all);
    }
    assert!(
        counters.quarantines() == 0 || unavailable_by_quarantine > 0,
        "{} faults, {} quarantines, none of which any request met",
        counters.faults(),
        counters.quarantines()
    );
}
