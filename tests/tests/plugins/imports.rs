//! What a plugin may import: each does what it says and no more, and none outlasts the fuel.

use wvs_abi::Request;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Fault, FaultKind, Instance, Limits, LoadError, Module, Source};

use crate::{HOST, load_of, module_of, servers};

const LOG: &str = r#"(import "wvs" "log" (func $log (param i32 i32 i32)))"#;

fn refused(rest: &str) -> LoadError {
    let octets = module_of(rest, "(i32.const 0)");
    HOST.load(Source::Octets { name: "made", octets: &octets }, Limits::default()).unwrap_err()
}

fn instance(module: &Module) -> Instance {
    let mut instance = Instance::new(module, None).unwrap();
    instance.set_servers(&wvs_plugin::ServerTable::new(&servers(&[1, 1]))).unwrap();
    instance
}

fn ask_at(instance: &mut Instance, now_ms: u64) -> Result<Pick, Fault> {
    instance.schedule(&Request { now_ms, ..Request::default() }, [])
}

#[test]
fn line_reaches_the_log_and_too_many_are_counted() {
    let rest = format!(r#"{LOG} (data (i32.const 64) "picked the first")"#);
    let module =
        load_of(&rest, "(call $log (i32.const 3) (i32.const 64) (i32.const 16)) (i32.const 0)");
    let servers = servers(&[1]);
    let mut scheduler = module.scheduler(None, &servers).unwrap();
    for now_ms in 0..25 {
        let request = Request { now_ms, ..Request::default() };
        assert_eq!(scheduler.schedule(&request, &servers), Pick::Server(0));
    }
    let counters = scheduler.counters();
    assert_eq!((counters.log_lines(), counters.suppressed_lines()), (10, 15));

    let mut instance = instance(&module);
    ask_at(&mut instance, 0).unwrap();
    assert_eq!(instance.log().collect::<Vec<_>>(), ["picked the first"]);
}

#[test]
fn line_beyond_the_memory_is_a_trap() {
    let module =
        load_of(LOG, "(call $log (i32.const 3) (i32.const -8) (i32.const 16)) (i32.const 0)");
    let fault = ask_at(&mut instance(&module), 0).unwrap_err();
    assert_eq!(fault.kind(), FaultKind::OutOfBounds, "{fault}");
}

#[test]
fn flood_of_lines_ends_with_the_fuel() {
    let module = load_of(
        LOG,
        "(loop $more (call $log (i32.const 3) (i32.const 0) (i32.const 1024)) (br $more))
         (i32.const 0)",
    );
    let mut instance = instance(&module);
    let fault = ask_at(&mut instance, 0).unwrap_err();
    assert!(matches!(fault, Fault::OutOfFuel { .. }), "{fault}");
    assert!(instance.log().count() <= 10);
}

#[test]
fn abort_of_assembly_script_is_told_with_its_words_and_place() {
    let utf16 = |text: &str| -> String {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .map(|octet| format!("\\{octet:02x}"))
            .collect()
    };
    let rest = format!(
        r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))
           (data (i32.const 60) "\0c\00\00\00{}")
           (data (i32.const 124) "\08\00\00\00{}")"#,
        utf16("no luck"),
        utf16("x.ts"),
    );
    // "no luck" has 14 octets; the length says 12.
    let module = load_of(
        &rest,
        "(call $abort (i32.const 64) (i32.const 128) (i32.const 7) (i32.const 9)) (i32.const 0)",
    );
    let fault = ask_at(&mut instance(&module), 0).unwrap_err();
    assert_eq!(fault.to_string(), "wvs_schedule stopped: the plugin aborted: no luc (x.ts:7:9)");
    assert_eq!(fault.kind(), FaultKind::Aborted);
}

#[test]
fn abort_with_wild_pointers_is_still_only_an_abort() {
    let rest = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    let module = load_of(
        rest,
        "(call $abort (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 0)) (i32.const 0)",
    );
    let fault = ask_at(&mut instance(&module), 0).unwrap_err();
    assert!(fault.to_string().contains("aborted: ? (?:0:0)"), "{fault}");
}

#[test]
fn clock_of_wasi_is_that_of_the_request() {
    let rest = r#"(import "wasi_snapshot_preview1" "clock_time_get"
        (func $time (param i32 i64 i32) (result i32)))"#;
    // Whether it is odd, as an index.
    let module = load_of(
        rest,
        "(drop (call $time (i32.const 1) (i64.const 0) (i32.const 64)))
         (i32.and (i32.const 1)
             (i32.wrap_i64 (i64.div_u (i64.load (i32.const 64)) (i64.const 1000000))))",
    );
    let mut instance = instance(&module);
    assert_eq!(ask_at(&mut instance, 10), Ok(Pick::Server(0)));
    assert_eq!(ask_at(&mut instance, 11), Ok(Pick::Server(1)));
    // Never 0, which some runtimes take for a broken clock.
    assert_eq!(ask_at(&mut instance, 0), Ok(Pick::Server(1)));
}

#[test]
fn randomness_of_wasi_is_the_same_in_every_instance_and_goes_on() {
    let rest = r#"(import "wasi_snapshot_preview1" "random_get"
        (func $random (param i32 i32) (result i32)))"#;
    let module = load_of(
        rest,
        "(drop (call $random (i32.const 64) (i32.const 3)))
         (i32.rem_u (i32.load (i32.const 64)) (i32.const 2))",
    );
    let stream = || {
        let mut instance = instance(&module);
        (0..64).map(|_| ask_at(&mut instance, 0).unwrap()).collect::<Vec<_>>()
    };
    let first = stream();
    assert_eq!(first, stream());
    assert!(first.contains(&Pick::Server(0)) && first.contains(&Pick::Server(1)));
}

#[test]
fn world_of_wasi_is_empty_and_what_is_not_there_says_so() {
    let rest = r#"
        (import "wasi_snapshot_preview1" "args_sizes_get"
            (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 64) "\ff\ff\ff\ff")
        (data (i32.const 96) "\80\00\00\00\05\00\00\00")
        (data (i32.const 128) "hello")"#;
    // Each wrong outcome is another trap or a wrong index.
    let module = load_of(
        rest,
        "(if (call $args (i32.const 64) (i32.const 68)) (then (return (i32.const -10))))
         (if (i32.load (i32.const 64)) (then (return (i32.const -11))))
         (if (i32.ne (i32.const 52)
                (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 64)))
             (then (return (i32.const -12))))
         (if (i32.ne (i32.const 8)
                (call $write (i32.const 5) (i32.const 96) (i32.const 1) (i32.const 64)))
             (then (return (i32.const -13))))
         (if (call $write (i32.const 1) (i32.const 96) (i32.const 1) (i32.const 64))
             (then (return (i32.const -14))))
         (if (i32.ne (i32.load (i32.const 64)) (i32.const 5)) (then (return (i32.const -15))))
         (if (i32.ne (i32.const 21)
                (call $write (i32.const 1) (i32.const -4) (i32.const 1) (i32.const 64)))
             (then (return (i32.const -16))))
         (i32.const 1)",
    );
    let mut instance = instance(&module);
    assert_eq!(ask_at(&mut instance, 0), Ok(Pick::Server(1)));
    assert_eq!(instance.log().collect::<Vec<_>>(), ["hello"]);
}

#[test]
fn plugin_that_ends_its_process_is_stopped_like_any_other() {
    let rest = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let module = load_of(rest, "(call $exit (i32.const 3)) (i32.const 0)");
    let fault = ask_at(&mut instance(&module), 0).unwrap_err();
    assert!(fault.to_string().contains("ended itself with code 3"), "{fault}");
}

#[test]
fn import_of_another_signature_is_refused_with_both() {
    let error = refused(r#"(import "wvs" "log" (func (param i32)))"#);
    assert_eq!(
        error.to_string(),
        "the module imports wvs.log as a function (i32) -> (), but it is a function (i32, i32, \
         i32) -> ()"
    );
    let error = refused(r#"(import "wasi_snapshot_preview1" "fd_read" (func (param i32)))"#);
    assert!(error.to_string().contains("a function that returns one i32"), "{error}");
    let error = refused(r#"(import "env" "abort" (global i32))"#);
    assert!(matches!(error, LoadError::WrongImport { .. }), "{error}");
}

#[test]
fn nothing_else_can_be_imported() {
    for import in [
        r#"(import "wvs" "exec" (func))"#,
        r#"(import "env" "memory" (memory 1))"#,
        r#"(import "wasi_snapshot_preview1" "proc_raise" (func (param i32) (result i32)))"#,
        r#"(import "wasi_snapshot_preview2" "fd_write" (func))"#,
    ] {
        let error = refused(import);
        assert!(matches!(error, LoadError::Import { .. }), "{import}: {error}");
    }
}
