//! The guide for authors, `docs/PLUGINS.md`, held against what it describes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use wvs_abi::{Request, export};
use wvs_core::random::Random;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{
    CALM_MS, FAULTS_MAX, Limits, QUARANTINE_MAX_MS, QUARANTINE_MIN_MS, Source, builtin,
};

use crate::{HOST, servers};

const EXAMPLE: &str = "examples/schedulers/two-choices";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn guide() -> String {
    fs::read_to_string(workspace().join("docs/PLUGINS.md")).unwrap()
}

/// The code block that follows `marker`.
fn block<'a>(guide: &'a str, marker: &str) -> &'a str {
    let (_, rest) = guide.split_once(marker).unwrap_or_else(|| panic!("no {marker}"));
    let (_fence, rest) = rest.trim_start().split_once('\n').unwrap();
    rest.split_once("```").unwrap().0
}

/// Runs cargo in the example with a target directory of its own, as an author would.
fn cargo(arguments: &[&str], target_dir: &Path) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace().join(EXAMPLE)).args(arguments).arg("--target-dir");
    command.arg(target_dir);
    // Flags for the tests themselves are none of an author's.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn guide_shows_the_files_of_the_examples() {
    let guide = guide();
    for path in [
        format!("{EXAMPLE}/Cargo.toml"),
        format!("{EXAMPLE}/src/lib.rs"),
        "examples/schedulers/fill/scheduler.c".to_owned(),
    ] {
        let shown = block(&guide, &format!("<!-- file: {path} -->"));
        let there = fs::read_to_string(workspace().join(&path)).unwrap();
        assert_eq!(shown, there, "{path}");
    }
}

#[test]
fn guide_names_every_export() {
    let guide = guide();
    for export in [
        export::MEMORY,
        export::ABI,
        export::REGION,
        export::SCHEDULE,
        export::INITIALIZE,
        export::START,
        export::CAPS,
        export::INIT,
        export::SERVERS_CHANGED,
    ] {
        assert!(guide.contains(&format!("`{export}`")), "{export}");
    }
}

#[test]
fn guide_has_a_page_for_every_built_in() {
    let guide = guide();
    let (_, pages) = guide.split_once("\n## The built-in schedulers\n").unwrap();
    let headings = pages.lines().filter_map(|line| line.strip_prefix("### "));
    let mut headings: Vec<_> = headings.collect();
    headings.sort_unstable();
    assert_eq!(headings, builtin::NAMES);
    for name in builtin::NAMES {
        assert!(pages.contains(&format!("[{name}](#{name})")), "{name}");
    }
}

#[test]
fn guide_states_the_limits() {
    let limits = Limits::default();
    let mebibytes = |octets: usize| format!("{} MiB", octets >> 20);
    let kibibytes = |octets: usize| format!("{} KiB", octets >> 10);
    let guide = guide();
    for limit in [
        format!("| `memory` | {} |", mebibytes(limits.memory)),
        format!("| `fuel` | {} |", thousands(limits.fuel)),
        format!("| {} | instructions of `wvs_init`", thousands(limits.setup_fuel)),
        format!("| {} | instructions of `_initialize`", thousands(limits.start_fuel)),
        format!("| {} | octets of a module", mebibytes(limits.module)),
        format!("| {} | octets of one function", kibibytes(limits.function_body)),
    ] {
        assert!(guide.contains(&limit), "{limit}");
    }
    assert_eq!((FAULTS_MAX, CALM_MS), (3, 10_000), "Three faults within 10 seconds");
    assert_eq!((QUARANTINE_MIN_MS, QUARANTINE_MAX_MS), (1_000, 300_000), "up to 5 minutes");
}

/// 1000000 as 1,000,000.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn example_passes_its_own_tests() {
    cargo(&["test", "--lib"], &Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-native"));
}

#[test]
fn example_built_as_the_guide_says_schedules() {
    let command = block(&guide(), "<!-- command -->").trim().to_owned();
    let arguments: Vec<_> = command.strip_prefix("$ cargo ").unwrap().split(' ').collect();
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-wasm");
    cargo(&arguments, &target_dir);
    let file = target_dir.join("wasm32-unknown-unknown/release/two_choices.wasm");

    // The guide's configuration beside the module is one that `wvs check` has nothing to say about.
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("wvs.yaml");
    fs::copy(&file, folder.path().join("two_choices.wasm")).unwrap();
    fs::write(&yaml, block(&guide(), "<!-- yaml -->")).unwrap();
    let reading = wvs::deployment::check(&yaml).unwrap();
    assert!(reading.problems().is_empty(), "{:?}", reading.problems());

    let servers = servers(&[1, 0, 3]);
    let module = HOST.load(Source::File(&file), Limits::default()).unwrap();
    assert_eq!(module.probe(None, &servers).unwrap().picks, 64);

    // Without connections the first of the two drawn is taken, so the shares follow the weights.
    let mut scheduler = module.scheduler(None, &servers).unwrap();
    let mut random = Random::new(1);
    let mut picks = [0; 3];
    for _ in 0..4_000 {
        let request = Request { random: random.next(), ..Request::default() };
        match scheduler.schedule(&request, &servers) {
            Pick::Server(index) => picks[index] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(picks[1], 0);
    assert!((900..1_100).contains(&picks[0]), "{picks:?}");
}
