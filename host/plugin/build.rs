//! Builds the built-in schedulers from source to the wasm modules that the crate embeds.
//!
//! A second cargo does it, with a target directory of its own: the outer one holds the lock of the
//! first. The modules come out the same octets whichever profile the host is built with and
//! whichever directory the sources are in.
//!
//! Every folder of `plugins/` is a scheduler: its name, and its package is `wvs-<name>`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-unknown-unknown";

/// Flags for the modules. Without the limit each would take 1 MiB for its stack.
const RUSTFLAGS: &str = "-Clink-arg=-zstack-size=16384";

/// What the outer cargo, or clippy through it, sets for its own build and not for ours.
const FOREIGN_VARIABLES: [&str; 8] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(variable("OUT_DIR"));
    for source in ["Cargo.toml", "rust-toolchain.toml", "sdk/abi", "sdk/config", "sdk/rust"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let plugins = workspace.join("plugins");
    println!("cargo::rerun-if-changed={}", plugins.display());
    let names = folders(&plugins);

    require_target();
    let target_dir = out.join("target");
    for name in &names {
        build(name, &workspace, &target_dir);
    }

    let built = target_dir.join(TARGET).join("plugin");
    for name in &names {
        let module = built.join(format!("wvs_{name}.wasm"));
        fs::copy(&module, out.join(format!("{name}.wasm")))
            .unwrap_or_else(|error| panic!("no module {}: {error}", module.display()));
    }
    let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    let list = format!("built_ins!({});\n", names.join(", "));
    fs::write(out.join("built_ins.rs"), list)
        .unwrap_or_else(|error| panic!("cannot write the list of schedulers: {error}"));
}

/// Builds one scheduler. One by one, because only `cargo rustc` builds the module alone: beside a
/// library of the same crate it would not be optimised as a whole, and several times as large.
fn build(name: &str, workspace: &Path, target_dir: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["rustc", "--package", &format!("wvs-{name}"), "--lib", "--crate-type=cdylib"]);
    cargo.args(["--profile=plugin", "--target", TARGET, "--target-dir"]).arg(target_dir);
    cargo.current_dir(workspace);
    for (name, _) in env::vars_os() {
        let is_foreign = name.to_str().is_some_and(|name| {
            FOREIGN_VARIABLES.contains(&name) || name.starts_with("CARGO_PROFILE_")
        });
        if is_foreign {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", RUSTFLAGS);
    let status = cargo.status().unwrap_or_else(|error| panic!("cannot start cargo: {error}"));
    assert!(status.success(), "building the scheduler {name} failed, see cargo's words above");
}

/// The names of the folders in `parent`, sorted.
fn folders(parent: &Path) -> Vec<String> {
    let entries = fs::read_dir(parent).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    let folders = entries.iter().filter(|entry| entry.path().is_dir());
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Stops with the cure if the compiler has no standard library for wasm.
fn require_target() {
    let rustc = Command::new(variable("RUSTC"))
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .unwrap_or_else(|error| panic!("cannot start rustc: {error}"));
    let directory = String::from_utf8_lossy(&rustc.stdout);
    assert!(
        Path::new(directory.trim()).is_dir(),
        "the schedulers are WebAssembly modules and the compiler's target for them is missing: \
         run `rustup target add {TARGET}`"
    );
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
