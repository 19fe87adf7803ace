//! Every fuzz target over its corpus: what a fuzzer once found interesting stays tried.

use std::fs;
use std::path::{Path, PathBuf};

use wvs_tests::fuzz::{TARGETS, target};

/// Octets of all corpora together.
const CORPUS_OCTETS_MAX: u64 = 200 << 10;

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn replay(name: &str) {
    let run = target(name);
    run(&[]);
    for file in corpus(name) {
        // Shown when the test fails: the file to look at.
        println!("{}", file.display());
        run(&fs::read(&file).unwrap());
    }
}

#[test]
fn plugin_answers_of_the_corpus_do_no_harm() {
    replay("answers");
}

#[test]
fn captures_of_the_corpus_are_read_or_refused() {
    replay("capture");
}

#[test]
fn configurations_of_the_corpus_are_read_or_refused() {
    replay("config");
}

#[test]
fn modules_of_the_corpus_are_loaded_or_refused() {
    replay("module");
}

#[test]
fn packets_of_the_corpus_show_nobody_what_is_not_theirs() {
    replay("packet");
}

#[test]
fn sequences_of_the_corpus_leave_every_count_right() {
    replay("sequence");
}

#[test]
fn corpora_are_small_and_each_has_its_target() {
    let mut octets = 0;
    for (name, _) in TARGETS {
        octets += corpus(name).iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    }
    assert!(octets <= CORPUS_OCTETS_MAX, "{octets} octets");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    assert_eq!(fs::read_dir(folder).unwrap().count(), TARGETS.len());
}
