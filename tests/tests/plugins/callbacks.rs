//! The optional exports: when they are called and with what, and that a fault in any of them costs
//! no decision but the plugin's own.

use std::sync::Arc;

use wvs_abi::{Request, Signals, connect_failed, event};
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Fault, Instance, InstanceError, Limits, Module, ServerTable, Source};

use crate::{HOST, load_of, servers};

fn instance(module: &Module, weights: &[u32]) -> Instance {
    let mut instance = Instance::new(module, None).unwrap();
    instance.set_servers(&ServerTable::new(&servers(weights))).unwrap();
    instance
}

fn at(now_ms: u64) -> Request {
    Request { now_ms, ..Request::default() }
}

/// Picks the server of the latest event, and traps unless kind and argument are as they should be.
const FOLLOWER: &str = r#"
    (global $index (mut i32) (i32.const -1))
    (global $sum (export "sum") (mut i32) (i32.const 0))
    (func (export "wvs_event") (param $kind i32) (param $index i32) (param $argument i32)
        (global.set $sum (i32.add (i32.mul (global.get $sum) (i32.const 10)) (local.get $kind)))
        (global.set $index (local.get $index)))"#;

#[test]
fn event_is_told_with_the_index_that_its_server_has_now() {
    let module = load_of(FOLLOWER, "(global.get $index)");
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    assert!(scheduler.wants_events());
    let bound = |server_id| Event { kind: EventKind::Bound, server_id };
    scheduler.event(&bound(3), &all);
    assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(2));
    // Without the first server the others moved up.
    let fewer: Vec<Arc<RealServer>> = all[1..].to_vec();
    scheduler.servers_changed(&fewer);
    scheduler.event(&bound(3), &fewer);
    assert_eq!(scheduler.schedule(&at(0), &fewer), Pick::Server(1));
    // One that is gone is passed over.
    scheduler.event(&bound(1), &fewer);
    assert_eq!(scheduler.schedule(&at(0), &fewer), Pick::Server(1));
    assert_eq!(scheduler.counters().events(), 2);
}

#[test]
fn every_kind_of_event_has_its_number() {
    // The index of server 1 is 0, and -1 defers: each argument and kind must be the expected one.
    let module = load_of(
        r#"(global $answer (mut i32) (i32.const -2))
           (func (export "wvs_event") (param $kind i32) (param $index i32) (param $argument i32)
               (global.set $answer (i32.add (i32.mul (local.get $kind) (i32.const 10))
                   (local.get $argument))))"#,
        "(global.get $answer)",
    );
    let all = servers(&[1; 40]);
    for (kind, expected) in [
        (EventKind::Bound, event::BOUND * 10),
        (EventKind::Unbound { lifetime_ms: 7 }, event::UNBOUND * 10 + 7),
        (EventKind::Refused, event::CONNECT_FAILED * 10 + connect_failed::REFUSED),
        (EventKind::Unanswered, event::CONNECT_FAILED * 10 + connect_failed::UNANSWERED),
    ] {
        let mut scheduler = module.scheduler(None, &all).unwrap();
        scheduler.event(&Event { kind, server_id: 1 }, &all);
        let expected = usize::try_from(expected).unwrap();
        assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(expected), "{kind:?}");
    }
}

#[test]
fn plugin_ticks_first_thing_and_then_as_it_wishes() {
    // Wishes 0, 3, 50 and 0 milliseconds, beginning with 3.
    let module = load_of(
        r#"(global $turn (mut i32) (i32.const 0))
           (func (export "wvs_tick") (result i32)
               (global.set $turn (i32.add (global.get $turn) (i32.const 1)))
               (if (result i32) (i32.eq (global.get $turn) (i32.const 1)) (then (i32.const 3))
                   (else (if (result i32) (i32.eq (global.get $turn) (i32.const 2))
                       (then (i32.const 50)) (else (i32.const 0))))))"#,
        "(global.get $turn)",
    );
    let all = servers(&[1; 4]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    assert_eq!(scheduler.tick(&at(1000), &all), Some(10), "10 at least");
    assert_eq!(scheduler.tick(&at(1005), &all), Some(5), "not yet");
    assert_eq!(scheduler.schedule(&at(1005), &all), Pick::Server(1));
    assert_eq!(scheduler.tick(&at(1010), &all), Some(50));
    assert_eq!(scheduler.tick(&at(1060), &all), Some(1_000), "never again, but one made anew");
    assert_eq!(scheduler.tick(&at(9999), &all), Some(1_000));
    assert_eq!(scheduler.schedule(&at(9999), &all), Pick::Server(3));
    assert_eq!(scheduler.counters().ticks(), 3);
}

#[test]
fn tick_sees_its_time_and_its_random_number() {
    // Region 1 is at 16384: now_ms at 48, random at 56.
    let module = load_of(
        r#"(global $seen (mut i32) (i32.const -2))
           (func (export "wvs_tick") (result i32)
               (global.set $seen (i32.wrap_i64 (i64.add
                   (i64.load (i32.const 16432)) (i64.load (i32.const 16440)))))
               (i32.const 0))"#,
        "(global.get $seen)",
    );
    let all = servers(&[1; 8]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    let _ = scheduler.tick(&Request { now_ms: 3, random: 4, ..Request::default() }, &all);
    assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(7));
}

#[test]
fn signals_are_shown_to_a_plugin_that_wants_them() {
    // Region 5 is at 49152; the second record's resets are at 32 + 8.
    let wants = r#"(func (export "wvs_caps") (result i32) (i32.const 8))"#;
    let module = load_of(wants, "(i32.load (i32.const 49192))");
    let mut plugin = instance(&module, &[1, 1, 1]);
    assert!(plugin.wants_signals());
    assert_eq!(plugin.schedule(&at(0), []), Ok(Pick::Server(0)));
    let resets = |resets| Signals { resets, ..Signals::default() };
    plugin.set_signals([resets(0), resets(2), resets(1)]);
    assert_eq!(plugin.schedule(&at(0), []), Ok(Pick::Server(2)));
    // A new table begins anew.
    plugin.set_servers(&ServerTable::new(&servers(&[1, 1]))).unwrap();
    assert_eq!(plugin.schedule(&at(0), []), Ok(Pick::Server(0)));
}

const SAVES: &str = r#"
    (func (export "wvs_state_save") (param $capacity i32) (result i32)
        (i32.store (i32.const 131072) (i32.const 0x21544948)) (i32.const 4))
    (global $loaded (mut i32) (i32.const 0))
    (func (export "wvs_state_load") (param $len i32) (result i32)
        (if (i32.ne (i32.load (i32.const 131072)) (i32.const 0x21544948))
            (then (return (i32.const -1))))
        (global.set $loaded (i32.const 1)) (i32.const 0))"#;

#[test]
fn state_is_saved_and_loaded_octet_for_octet() {
    let module = load_of(SAVES, "(global.get $loaded)");
    let mut plugin = instance(&module, &[1, 1]);
    let state = plugin.save_state().unwrap().unwrap();
    assert_eq!(state, b"HIT!");
    let mut successor = instance(&module, &[1, 1]);
    assert_eq!(successor.load_state(b"MISS"), Ok(false));
    assert_eq!(successor.schedule(&at(0), []), Ok(Pick::Server(0)));
    assert_eq!(successor.load_state(&state), Ok(true));
    assert_eq!(successor.schedule(&at(0), []), Ok(Pick::Server(1)));
}

#[test]
fn plugin_without_state_has_none_and_takes_none() {
    let module = load_of("", "(i32.const 0)");
    let mut plugin = instance(&module, &[1]);
    assert_eq!(plugin.save_state(), Ok(None));
    assert_eq!(plugin.load_state(b"HIT!"), Ok(false));
}

#[test]
fn state_of_a_plugin_with_little_room_is_asked_for_again_in_less() {
    let text = r#"(module
        (memory (export "memory") 2)
        (func (export "wvs_abi") (result i32) (i32.const 0x10000))
        (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
            (if (i32.gt_u (local.get $size) (i32.const 600)) (then (return (i32.const 0))))
            (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
        (func (export "wvs_state_save") (param $capacity i32) (result i32) (local.get $capacity))
        (func (export "wvs_schedule") (param $n i32) (result i32) (i32.const 0)))"#;
    let octets = wat::parse_str(text).unwrap();
    let source = Source::Octets { name: "small", octets: &octets };
    let module = HOST.load(source, Limits::default()).unwrap();
    assert_eq!(instance(&module, &[1]).save_state().unwrap().unwrap().len(), 512);
}

#[test]
fn state_that_needs_more_room_gets_it_once() {
    // Wants 10,000 octets, and writes them only where they fit.
    let module = load_of(
        r#"(func (export "wvs_state_save") (param $capacity i32) (result i32)
               (if (i32.ge_u (local.get $capacity) (i32.const 10000))
                   (then (memory.fill (i32.const 131072) (i32.const 7) (i32.const 10000))))
               (i32.const 10000))"#,
        "(i32.const 0)",
    );
    assert_eq!(instance(&module, &[1]).save_state(), Ok(Some(vec![7; 10_000])));
    let greedy = load_of(
        r#"(func (export "wvs_state_save") (param i32) (result i32) (i32.const 65537))"#,
        "(i32.const 0)",
    );
    let fault = instance(&greedy, &[1]).save_state().unwrap_err();
    assert_eq!(fault, Fault::StateTooLong { length: 65_537, capacity: 4_096 });
}

#[test]
fn plugin_that_lies_about_the_length_of_its_state_is_found_out() {
    let module = load_of(
        r#"(func (export "wvs_state_save") (param $capacity i32) (result i32)
               (i32.add (local.get $capacity) (i32.const 1)))"#,
        "(i32.const 0)",
    );
    let fault = instance(&module, &[1]).save_state().unwrap_err();
    assert_eq!(fault, Fault::StateTooLong { length: 4_098, capacity: 4_097 });
}

#[test]
fn nothing_below_0_is_a_state() {
    let module = load_of(
        r#"(func (export "wvs_state_save") (param $capacity i32) (result i32) (i32.const -7))"#,
        "(i32.const 0)",
    );
    assert_eq!(instance(&module, &[1]).save_state(), Ok(None));
}

/// A fault in a callback costs the instance; the service's next decision is the director's.
#[test]
fn trap_in_a_callback_is_a_fault_of_its_own() {
    for (rest, provoke) in [
        (
            r#"(func (export "wvs_event") (param i32 i32 i32) (unreachable))"#,
            (|scheduler, all| {
                scheduler.event(&Event { kind: EventKind::Bound, server_id: 1 }, all);
            }) as fn(&mut wvs_plugin::WasmScheduler, &[Arc<RealServer>]),
        ),
        (
            r#"(func (export "wvs_tick") (result i32) (loop $l (br $l)) (i32.const 0))"#,
            |scheduler, all| {
                let _ = scheduler.tick(&at(0), all);
            },
        ),
        (
            r#"(global $calls (mut i32) (i32.const 0))
               (func (export "wvs_servers_changed") (param i32) (result i32)
                   (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                   (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (unreachable)))
                   (i32.const 0))"#,
            |scheduler, all| {
                all[0].set_weight(9);
                scheduler.servers_changed(all);
            },
        ),
    ] {
        let module = load_of(rest, "(i32.const 0)");
        let all = servers(&[1, 1]);
        let mut scheduler = module.scheduler(None, &all).unwrap();
        assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(0));
        provoke(&mut scheduler, &all);
        assert_eq!(scheduler.counters().faults(), 1, "{rest}");
        // The director decides until there is a new instance, which may be at once.
        let pick = scheduler.schedule(&at(0), &all);
        assert!(matches!(pick, Pick::Defer | Pick::Server(0)), "{rest}: {pick:?}");
    }
}

#[test]
fn trap_before_the_first_decision_refuses_the_plugin() {
    for (name, rest) in [
        ("caps", r#"(func (export "wvs_caps") (result i32) (unreachable))"#),
        ("init", r#"(func (export "wvs_init") (param i32) (result i32) (unreachable))"#),
        ("initialize", r#"(func (export "_initialize") (unreachable))"#),
    ] {
        let module = load_of(rest, "(i32.const 0)");
        let error = Instance::new(&module, None).unwrap_err();
        let is_typed = matches!(
            error,
            InstanceError::Introduction(Fault::Trap { .. })
                | InstanceError::Init(Fault::Trap { .. })
                | InstanceError::Start(Fault::Trap { .. })
        );
        assert!(is_typed, "{name}: {error}");
    }
}
