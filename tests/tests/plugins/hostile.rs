//! Modules made to do harm: each is refused or contained with a typed error, its own service goes
//! on by the director's rule, and another service does not notice.

use std::sync::Arc;

use wvs_abi::Request;
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{
    Fault, FaultKind, Instance, InstanceError, Limits, LoadError, Module, ServerTable, Source,
};

use crate::{HOST, built_in, load_of, module_of, servers};

fn at(now_ms: u64) -> Request {
    Request { now_ms, ..Request::default() }
}

/// What the plugin's first decision ends in, with another service beside it that must not notice.
#[track_caller]
fn fault_of(module: &Module) -> Fault {
    let all = servers(&[1, 1]);
    let mut hostile = module.scheduler(None, &all).unwrap();
    let mut other = built_in("rr").scheduler(None, &all).unwrap();
    for turn in 0..4 {
        let pick = hostile.schedule(&at(turn), &all);
        assert_eq!(pick, Pick::Defer, "the director decides");
        let expected = usize::try_from(turn % 2).unwrap();
        assert_eq!(other.schedule(&at(turn), &all), Pick::Server(expected));
    }
    assert_eq!(other.counters().faults(), 0);
    hostile.counters().last_fault().unwrap()
}

fn refusal(octets: &[u8]) -> LoadError {
    HOST.load(Source::Octets { name: "hostile", octets }, Limits::default()).unwrap_err()
}

#[test]
fn table_that_starts_with_millions_of_entries_gets_no_instance() {
    let module = load_of("(table 50000000 funcref)", "(i32.const 0)");
    let error = Instance::new(&module, None).unwrap_err();
    assert!(matches!(error, InstanceError::Instantiation(_)), "{error}");
}

#[test]
fn table_that_grows_for_ever_ends_with_the_fuel_or_the_limit() {
    let module = load_of(
        "(table $t 1 funcref)",
        "(loop $more
            (drop (table.grow $t (ref.null func) (i32.const 1000)))
            (br $more))
         (i32.const 0)",
    );
    assert_eq!(fault_of(&module).kind(), FaultKind::OutOfFuel);
}

#[test]
fn memory_that_is_asked_for_again_and_again_ends_with_the_fuel() {
    let module =
        load_of("", "(loop $more (drop (memory.grow (i32.const 1))) (br $more)) (i32.const 0)");
    assert_eq!(fault_of(&module).kind(), FaultKind::OutOfFuel);
}

#[test]
fn recursion_through_a_table_ends_at_the_stack_limit() {
    let module = load_of(
        "(type $f (func)) (table 1 funcref) (elem (i32.const 0) $again)
         (func $again (call_indirect (type $f) (i32.const 0)) (call_indirect (type $f) (i32.const 0)))",
        "(call $again) (i32.const 0)",
    );
    assert_eq!(fault_of(&module).kind(), FaultKind::StackOverflow);
}

#[test]
fn function_pointer_to_nothing_is_a_trap_of_its_kind() {
    let module = load_of(
        "(type $f (func)) (table 2 funcref)",
        "(call_indirect (type $f) (i32.const 1)) (i32.const 0)",
    );
    assert_eq!(fault_of(&module).kind(), FaultKind::IndirectCall);
}

#[test]
fn division_by_0_is_a_trap_of_its_kind() {
    let module = load_of("", "(i32.div_u (i32.const 1) (i32.sub (local.get $n) (local.get $n)))");
    assert_eq!(fault_of(&module).kind(), FaultKind::Arithmetic);
}

#[test]
fn copies_and_fills_of_the_whole_memory_pay_for_each_octet() {
    for work in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 262144))",
        "(memory.copy (i32.const 0) (i32.const 1) (i32.const 262143))",
    ] {
        let module = load_of("", &format!("(loop $more {work} (br $more)) (i32.const 0)"));
        assert_eq!(fault_of(&module).kind(), FaultKind::OutOfFuel, "{work}");
    }
}

#[test]
fn data_beyond_the_memory_gets_no_instance() {
    let module = load_of(r#"(data (i32.const 262143) "beyond")"#, "(i32.const 0)");
    let error = Instance::new(&module, None).unwrap_err();
    assert!(matches!(error, InstanceError::Start(_) | InstanceError::Instantiation(_)), "{error}");
}

#[test]
fn start_function_that_never_ends_gets_no_instance() {
    let module = load_of("(func $start (loop $l (br $l))) (start $start)", "(i32.const 0)");
    let error = Instance::new(&module, None).unwrap_err();
    assert!(matches!(error, InstanceError::Start(Fault::OutOfFuel { .. })), "{error}");
}

#[test]
fn jump_table_of_a_whole_function_body_is_refused_for_its_size() {
    let targets = "0 ".repeat(70_000);
    let octets =
        module_of(&format!("(func (block (br_table {targets} (i32.const 0))))"), "(i32.const 0)");
    let error = refusal(&octets);
    assert!(matches!(error, LoadError::FunctionTooLarge { .. }), "{error}");
}

/// All regions at one place: what the plugin reads is nonsense, and no more than that.
#[test]
fn regions_on_top_of_each_other_harm_only_the_plugin() {
    let text = r#"(module
        (memory (export "memory") 2)
        (func (export "wvs_abi") (result i32) (i32.const 0x10000))
        (func (export "wvs_caps") (result i32) (i32.const 13))
        (func (export "wvs_region") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "wvs_schedule") (param $n i32) (result i32)
            (i32.rem_u (i32.load (i32.const 1032)) (local.get $n))))"#;
    let octets = wat::parse_str(text).unwrap();
    let source = Source::Octets { name: "hostile", octets: &octets };
    let module = HOST.load(source, Limits::default()).unwrap();
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    for now_ms in 0..100 {
        assert!(matches!(scheduler.schedule(&at(now_ms), &all), Pick::Server(0..=2)));
    }
}

/// The table is as long as the memory allows, and then it is longer.
#[test]
fn region_that_cannot_hold_more_servers_is_refused_and_the_director_decides() {
    let module = load_of("", "(i32.const 0)");
    let few = servers(&[1, 1]);
    let mut scheduler = module.scheduler(None, &few).unwrap();
    assert_eq!(scheduler.schedule(&at(0), &few), Pick::Server(0));
    // The region begins at 24 KiB of 256: this table ends beyond.
    let many: Vec<Arc<RealServer>> = few.iter().cycle().take(8_000).map(Arc::clone).collect();
    scheduler.servers_changed(&many);
    assert_eq!(scheduler.schedule(&at(0), &many), Pick::Defer);
    assert_eq!(scheduler.counters().faults_of(FaultKind::Contract), 1);
}

#[test]
fn odd_wishes_for_ticks_are_brought_to_reason() {
    for (wish, expected) in [
        ("-2147483648", None),
        ("-1", None),
        ("0", None),
        ("1", Some(10)),
        ("2147483647", Some(2_147_483_647)),
    ] {
        let rest = format!(r#"(func (export "wvs_tick") (result i32) (i32.const {wish}))"#);
        let all = servers(&[1]);
        let mut instance = Instance::new(&load_of(&rest, "(i32.const 0)"), None).unwrap();
        instance.set_servers(&ServerTable::new(&all)).unwrap();
        assert_eq!(instance.tick(&at(5)), Ok(expected), "{wish}");
    }
}

#[test]
fn flood_of_events_at_a_plugin_that_fails_on_each_costs_one_instance_at_a_time() {
    let module = load_of(
        r#"(func (export "wvs_event") (param i32 i32 i32) (unreachable))"#,
        "(i32.const 0)",
    );
    let all = servers(&[1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    for _ in 0..1_000 {
        scheduler.event(&Event { kind: EventKind::Bound, server_id: 1 }, &all);
    }
    // Without an instance there is nobody to tell.
    assert_eq!(scheduler.counters().faults(), 1);
}

#[test]
fn plugin_that_traps_while_it_is_replaced_does_not_hold_its_successor_up() {
    let dying = load_of(
        r#"(func (export "wvs_state_save") (param i32) (result i32) (i32.const 2147483647))"#,
        "(i32.const 0)",
    );
    let all = servers(&[1, 1]);
    let mut scheduler = dying.scheduler(None, &all).unwrap();
    let counters = scheduler.counters();
    let next = built_in("rr").scheduler(None, &all).unwrap().numbered(2);
    assert!(!scheduler.succeed(next, &all, 0).unwrap().is_state_carried);
    assert_eq!(counters.faults_of(FaultKind::Contract), 1);
    assert_eq!(scheduler.schedule(&at(0), &all), Pick::Server(0));
}
