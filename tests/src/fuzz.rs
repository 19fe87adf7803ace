//! The fuzz targets as plain functions: any octets in, a panic when something is wrong.
//!
//! `cargo test -p wvs-tests --test corpus` runs each over its committed corpus; `fuzz/` runs them
//! under a coverage-guided fuzzer.

mod answers;
mod capture;
mod config;
mod octets;
mod packet;
mod sequence;

/// A target: its name, which is also its corpus's, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("answers", answers::answers),
    ("capture", capture::capture),
    ("config", config::config),
    ("module", answers::module),
    ("packet", packet::packet),
    ("sequence", sequence::sequence),
];

/// The function of a target.
///
/// # Panics
/// There is no such target.
#[must_use]
pub fn target(name: &str) -> fn(&[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no fuzz target {name}")).1
}
