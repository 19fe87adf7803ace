//! What is no plugin, and which words its author gets.

use std::fs;
use std::path::Path;

use wvs_abi::Region;
use wvs_plugin::{Fault, InstanceError, Limits, LoadError, RegionError, Source, builtin};

use crate::{HOST, built_in, load, octets, servers};

/// The words of a refusal before anything of the module runs.
#[track_caller]
fn load_error(name: &str) -> LoadError {
    load(name).expect_err("refused")
}

/// Why no scheduler is made of a module that loads.
#[track_caller]
fn start_error(name: &str, config: Option<&str>) -> InstanceError {
    load(name).unwrap().scheduler(config, &servers(&[1, 1, 1])).expect_err("refused")
}

fn load_octets(octets: &[u8], limits: Limits) -> LoadError {
    HOST.load(Source::Octets { name: "test", octets }, limits).expect_err("refused")
}

#[test]
fn missing_export_is_named_with_its_signature() {
    let error = load_error("missing_export");
    assert!(matches!(error, LoadError::MissingExport { export: "wvs_schedule", .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "the module does not export wvs_schedule, which must be a function (i32) -> (i32)"
    );
}

#[test]
fn wrong_signature_is_shown_beside_the_right_one() {
    let error = load_error("wrong_signature");
    assert!(matches!(error, LoadError::WrongExport { export: "wvs_schedule", .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "the module exports wvs_schedule as a function (i64) -> (i32), but it must be a function \
         (i32) -> (i32)"
    );
}

#[test]
fn optional_export_must_have_its_signature_too() {
    let error = load_error("wrong_optional_signature");
    let LoadError::WrongExport { export: "wvs_servers_changed", found, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(found, "a function (i32) -> ()");
}

#[test]
fn export_of_another_kind_is_refused() {
    let error = load_error("wrong_kind");
    let LoadError::WrongExport { export: "wvs_abi", found, .. } = error else { panic!("{error}") };
    assert_eq!(found, "a global");
}

#[test]
fn memory_must_be_exported() {
    let error = load_error("missing_memory");
    assert!(matches!(error, LoadError::MissingExport { export: "memory", .. }), "{error}");
}

#[test]
fn memory_that_starts_beyond_the_limit_is_refused() {
    let error = load_error("large_memory");
    let expected = 257 << 16;
    assert!(
        matches!(error, LoadError::MemoryTooLarge { octets, limit } if octets == expected && limit == 16 << 20),
        "{error}"
    );
}

#[test]
fn other_memories_than_one_of_32_bits_are_refused() {
    for name in ["memory64", "shared_memory", "two_memories"] {
        let error = load_error(name);
        assert!(matches!(error, LoadError::Invalid(_)), "{name}: {error}");
    }
}

#[test]
fn import_is_refused_by_name() {
    let error = load_error("unknown_import");
    assert!(matches!(error, LoadError::Import { .. }), "{error}");
    assert!(error.to_string().contains("wasi_unstable.fd_read"), "{error}");
    assert!(error.to_string().contains("offered only wvs.log, env.abort"), "{error}");
}

#[test]
fn names_that_a_module_chose_are_shown_without_escapes_and_cut() {
    let long = "x".repeat(10_000);
    let import = format!(r#"(import "\1b[2J" "now\0awvs: all is well {long}" (func))"#);
    let module = wat::parse_str(format!("(module {import})")).unwrap();
    let text = load_octets(&module, Limits::default()).to_string();
    assert!(text.starts_with("the module imports  [2J.now wvs: all is well xxx"), "{text}");
    assert!(!text.contains(char::is_control) && text.len() < 300, "{text}");

    let twice = format!(r#"(export "\1b[31m\0a{long}" (func 0))"#).repeat(2);
    let error = functions_error(&twice);
    assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("[31m") && !text.contains(char::is_control), "{text}");
    assert!(text.len() < 400, "{text}");
}

#[test]
fn command_module_is_refused() {
    assert!(matches!(load_error("command"), LoadError::Command));
}

#[test]
fn component_is_refused_with_a_hint() {
    let component = wat::parse_str("(component)").unwrap();
    let error = load_octets(&component, Limits::default());
    assert!(matches!(error, LoadError::Component), "{error}");
    assert!(error.to_string().contains("core module"), "{error}");
}

#[test]
fn text_form_is_refused_with_a_hint() {
    let error = load_octets(b"\n(module)", Limits::default());
    assert!(matches!(error, LoadError::NotWasm { is_text: true }), "{error}");
    assert!(error.to_string().contains("wat2wasm"), "{error}");
}

#[test]
fn anything_that_is_no_module_is_refused() {
    for octets in [&b""[..], b"\0as", b"\0asm", b"\x7fELF\x02\x01\x01\0"] {
        let error = load_octets(octets, Limits::default());
        assert!(matches!(error, LoadError::NotWasm { is_text: false }), "{error}");
    }
    // Cut at any place it is refused, but where only its functions' names are missing.
    let whole = octets("trap");
    let load = |length: &usize| {
        HOST.load(Source::Octets { name: "cut", octets: &whole[..*length] }, Limits::default())
    };
    assert_eq!((8..whole.len()).filter(|length| load(length).is_ok()).count(), 1);
}

#[test]
fn module_beyond_its_size_is_refused_from_memory_and_file() {
    let module = octets("trap");
    let limits = Limits { module: module.len() - 1, ..Limits::default() };
    let error = load_octets(&module, limits);
    assert!(matches!(error, LoadError::TooLarge { limit } if limit == limits.module), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trap.wasm");
    fs::write(&path, &module).unwrap();
    let error = HOST.load(Source::File(&path), limits).expect_err("refused");
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    assert_eq!(HOST.load(Source::File(&path), Limits::default()).unwrap().name(), "trap");
}

#[test]
fn function_beyond_its_size_is_refused_before_compiling() {
    let body = "(drop (i32.const 1000000))".repeat(20_000);
    let module = wat::parse_str(format!("(module (func) (func {body}))")).unwrap();
    let error = load_octets(&module, Limits::default());
    assert!(
        matches!(error, LoadError::FunctionTooLarge { function: 1, limit: 65_536, .. }),
        "{error}"
    );
}

/// What is said of a module with these functions after an empty one.
#[track_caller]
fn functions_error(functions: &str) -> LoadError {
    let module = wat::parse_str(format!("(module (func) {functions})")).unwrap();
    load_octets(&module, Limits::default())
}

#[test]
fn function_with_thousands_of_locals_is_refused_before_compiling() {
    let function = |locals: usize| format!("(func (param i64) (local {}))", "i32 ".repeat(locals));
    let error = functions_error(&function(4_096));
    assert!(
        matches!(error, LoadError::TooManyLocals { function: 1, locals: 4_097, limit: 4_096 }),
        "{error}"
    );
    // One less is not what it is refused for.
    let error = functions_error(&function(4_095));
    assert!(matches!(error, LoadError::MissingExport { .. }), "{error}");
}

#[test]
fn blocks_nested_by_the_thousand_are_refused_before_compiling() {
    let function = |depth| format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth));
    for depth in [1_025, 8_000] {
        let error = functions_error(&function(depth));
        assert!(
            matches!(error, LoadError::NestedTooDeep { function: 1, depth: 1_025, limit: 1_024 }),
            "{error}"
        );
    }
    let error = functions_error(&function(1_024));
    assert!(matches!(error, LoadError::MissingExport { .. }), "{error}");
    // Many that are not within each other are no matter of depth.
    let error = functions_error(&format!("(func {})", "block end ".repeat(1_500)));
    assert!(matches!(error, LoadError::MissingExport { .. }), "{error}");
}

#[test]
fn blocks_that_pass_thousands_of_values_are_refused_before_compiling() {
    let values = "i32 ".repeat(16);
    let functions = format!(
        "(type $many (func (param {values}) (result {values}))) (func {} {} {})",
        "i32.const 0 ".repeat(16),
        "loop (type $many) end ".repeat(129),
        "drop ".repeat(16)
    );
    let error = functions_error(&functions);
    assert!(
        matches!(error, LoadError::TooManyBlockValues { function: 1, values: 4_128, limit: 4_096 }),
        "{error}"
    );
}

#[test]
fn whatever_a_few_octets_make_much_of_is_refused_before_compiling() {
    let results = |n| format!("(type (func (result {})))", "i32 ".repeat(n));
    let elements = |n: usize| format!("(func $f) (elem func {})", "$f ".repeat(n));
    let globals = |n| "(global i32 (i32.const 0)) ".repeat(n);
    let locals = |n: usize| {
        let function =
            format!("(func (local {}) {})", "i32 ".repeat(1_000), "block end ".repeat(n));
        function.repeat(10)
    };
    let calls = |n: usize| {
        let calls = "(call_indirect (i32.const 0)) ".repeat(4_096);
        let rest = "(call_indirect (i32.const 0)) ".repeat(n - 3 * 4_096);
        format!("(table 1 funcref) (func {calls}) (func {calls}) (func {calls}) (func {rest})")
    };
    for (what, allowed, refused) in [
        ("results of a function", results(16), results(17)),
        ("entries for tables", elements(65_536), elements(65_537)),
        ("variables", globals(1_024), globals(1_025)),
        ("locals times blocks", locals(51), locals(52)),
        ("calls through tables", calls(16_384), calls(16_385)),
    ] {
        let error = functions_error(&allowed);
        assert!(matches!(error, LoadError::MissingExport { .. }), "{what}: {error}");
        let error = functions_error(&refused);
        assert!(matches!(error, LoadError::TooMany { what: it, .. } if it == what), "{error}");
    }
}

#[test]
fn more_functions_than_allowed_are_refused_before_compiling() {
    let error = functions_error(&"(func)".repeat(20_000));
    assert!(
        matches!(error, LoadError::TooManyFunctions { functions: 20_001, limit: 20_000 }),
        "{error}"
    );
}

#[test]
fn missing_file_is_named() {
    let path = Path::new("/nonexistent/latency.wasm");
    let error = HOST.load(Source::File(path), Limits::default()).expect_err("refused");
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
    assert!(error.to_string().starts_with("cannot read /nonexistent/latency.wasm: "), "{error}");
}

#[test]
fn unknown_built_in_is_refused_with_those_there_are() {
    let error = HOST.load(Source::BuiltIn("rrr"), Limits::default()).expect_err("refused");
    let names = builtin::NAMES.join(", ");
    let expected = format!("there is no built-in scheduler \"rrr\"; there are {names}");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn another_major_version_is_refused_with_both_numbers() {
    let error = start_error("abi_major", None);
    assert_eq!(error, InstanceError::AbiMajor { major: 2, minor: 0 });
    assert!(error.to_string().contains("2.0") && error.to_string().contains("1.0"), "{error}");
}

#[test]
fn later_minor_version_is_refused_with_both_numbers() {
    let error = start_error("abi_minor", None);
    assert_eq!(error, InstanceError::AbiMinor { minor: 7 });
    assert!(error.to_string().contains("1.7") && error.to_string().contains("1.0"), "{error}");
}

#[test]
fn unknown_capability_is_refused() {
    assert_eq!(start_error("unknown_caps", None), InstanceError::UnknownCaps(0x80));
}

#[test]
fn start_function_that_traps_is_refused() {
    let error = start_error("start_traps", None);
    assert!(matches!(error, InstanceError::Start(Fault::Trap { .. })), "{error}");
}

#[test]
fn endless_initialize_is_refused() {
    let error = start_error("initialize_loops", None);
    let expected = Fault::OutOfFuel { export: "_initialize", fuel: Limits::default().start_fuel };
    assert_eq!(error, InstanceError::Start(expected));
}

#[test]
fn missing_region_is_refused() {
    let error = start_error("region_refused", None);
    let expected = RegionError::Refused { kind: Region::Servers, size: 3 * 32 };
    assert_eq!(error, InstanceError::Servers(Fault::Region(expected)));
}

#[test]
fn region_beyond_the_memory_is_refused() {
    let error = start_error("region_out_of_bounds", None);
    let (kind, size) = (Region::Request, 64);
    let expected = RegionError::OutOfBounds { kind, size, address: 131_080 - size };
    assert_eq!(error, InstanceError::Region(expected));
}

#[test]
fn misaligned_region_is_refused() {
    let error = start_error("region_misaligned", None);
    let expected = RegionError::Misaligned { kind: Region::Request, address: 4_100 };
    assert_eq!(error, InstanceError::Region(expected));
}

#[test]
fn refused_config_shows_the_plugins_reason_made_printable() {
    let error =
        start_error("config_refused", Some(r#"{"half_life": "soon, or when the moon is full"}"#));
    let reason = "half_life:  [31mnot a duration".to_owned();
    assert_eq!(error, InstanceError::ConfigRefused { reason });
    // Without a configuration it has nothing to refuse.
    load("config_refused").unwrap().scheduler(None, &servers(&[1])).unwrap();
}

#[test]
fn config_for_a_plugin_that_takes_none_is_refused() {
    assert_eq!(start_error("trap", Some("{}")), InstanceError::ConfigNotTaken);
}

#[test]
fn oversize_config_is_refused() {
    let config = " ".repeat(65_537);
    assert_eq!(start_error("config_refused", Some(&config)), InstanceError::ConfigTooLarge(65_537));
}

#[test]
fn plugin_that_does_not_take_its_servers_is_refused() {
    let error = start_error("servers_refused", None);
    assert_eq!(error, InstanceError::Servers(Fault::ServersRefused(-1)));
    load("servers_refused").unwrap().scheduler(None, &servers(&[1, 1])).unwrap();
}

#[test]
fn built_ins_refuse_a_config_in_their_own_words() {
    for name in builtin::NAMES {
        let module = built_in(name);
        let error = module.scheduler(Some(r#"{"no":1}"#), &servers(&[1])).expect_err("refused");
        let InstanceError::ConfigRefused { reason } = error else { panic!("{name}: {error}") };
        assert!(reason.starts_with(&format!("{name} takes ")), "{reason}");
    }
}

#[test]
fn trial_catches_a_plugin_that_never_answers() {
    let error = load("loops").unwrap().probe(None, &servers(&[1])).expect_err("refused");
    let fault = Fault::OutOfFuel { export: "wvs_schedule", fuel: Limits::default().fuel };
    assert_eq!(error, InstanceError::Probe { request: 0, fault });
}

#[test]
fn trial_catches_an_answer_that_is_no_server() {
    let error =
        load("scribbler").unwrap().probe(None, &servers(&[0])).map(|report| report.no_server);
    assert_eq!(error, Ok(64));
    let error = load("trap").unwrap().probe(None, &servers(&[1, 0])).expect_err("refused");
    let fault = Fault::Unavailable { index: 1 };
    assert_eq!(error, InstanceError::Probe { request: 0, fault });
}

#[test]
fn trial_catches_a_plugin_that_only_claims_to_be_pure() {
    let error = load("not_pure").unwrap().probe(None, &servers(&[1, 1])).expect_err("refused");
    assert_eq!(error, InstanceError::NotPure { request: 0 });
}

#[test]
fn trial_without_servers_asks_nothing() {
    let report = load("loops").unwrap().probe(None, &[]).unwrap();
    assert_eq!((report.picks, report.no_server, report.defers), (0, 0, 0));
}

#[test]
fn built_ins_pass_their_trial() {
    for name in builtin::NAMES {
        let module = built_in(name);
        let report = module.probe(None, &servers(&[1, 0, 3])).unwrap();
        assert_eq!(report.picks, 64, "{name}");
        assert!(report.fuel_max < 1_000, "{name}: {}", report.fuel_max);
        // Two pages of 64 KiB: the stack does not take its default of a megabyte.
        assert!(report.memory <= 2 << 16, "{name}: {}", report.memory);
    }
}
