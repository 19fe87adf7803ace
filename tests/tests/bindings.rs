//! The contract's files for other languages, and its tables in the guide, are what the contract
//! says. They are in the repository for whoever reads or copies them; `WVS_UPDATE_BINDINGS=1`
//! rewrites them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use wvs_tests::bindings::{self, COMMAND};

const GUIDE: &str = "docs/PLUGINS.md";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Compares a file with what it should be, or makes it so.
fn hold(path: &str, expected: &str) {
    let file = in_repository(path);
    if env::var_os("WVS_UPDATE_BINDINGS").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let differing = found.lines().zip(expected.lines()).position(|(found, line)| found != line);
    let line = differing.unwrap_or(found.lines().count().min(expected.lines().count())) + 1;
    assert!(found == expected, "{path}:{line} is not what the contract says; run `{COMMAND}`");
}

#[test]
fn files_for_other_languages_are_what_the_contract_says() {
    for (path, expected) in bindings::files() {
        hold(path, &expected);
    }
}

#[test]
fn tables_of_the_guide_are_what_the_contract_says() {
    let guide = fs::read_to_string(in_repository(GUIDE)).unwrap();
    hold(GUIDE, &bindings::with_tables(&guide));
}
