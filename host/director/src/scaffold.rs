//! Projects for schedulers: what `wvs plugin new` makes of the SDK's own files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use wvs_plugin::builtin;

/// The name in the SDK's files, in whose place the project's own name comes.
const PLACEHOLDER: &str = "my-scheduler";

/// The longest name of a project.
const NAME_MAX: usize = 63;

/// A language that a project can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK's sources.
    Rust,
    /// C, also for C++.
    C,
    /// Zig.
    Zig,
    /// Go.
    Go,
    /// AssemblyScript.
    #[value(name = "assemblyscript")]
    AssemblyScript,
    /// WebAssembly's own text format.
    Wat,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name does not fit everything that it is put in.
    #[error(
        "\"{0}\" is no name for a scheduler: use 1 to {NAME_MAX} lower-case letters, digits and \
         `-`, the first a letter"
    )]
    Name(String),
    /// The name is one of the director's own.
    #[error("\"{0}\" is one of the director's own names: use another one")]
    Taken(String),
    /// There is something in the project's place.
    #[error("{} exists and is not an empty folder: nothing was written; name another one with --path", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A file of a project: where it is in the project, and the SDK's file.
type File = (&'static str, &'static str);

/// Embeds files of the SDK: their places in the project and in the SDK.
macro_rules! files {
    ($($place:literal from $source:literal),* $(,)?) => {
        &[$(($place, include_str!(concat!("../../../sdk/", $source)))),*]
    };
}

/// What every project has.
const COMMON: &[File] = files![
    ".gitignore" from "project/gitignore",
    "README.md" from "project/README.md",
];

/// What tries the module of every project whose language has no tests of its own.
const TEST: &[File] = files!["test.sh" from "project/test.sh"];

const RUST: &[File] = files![
    "Cargo.toml" from "rust/project/Cargo.toml",
    "build.sh" from "rust/project/build.sh",
    "test.sh" from "rust/project/test.sh",
    "src/lib.rs" from "rust/project/src/lib.rs",
    "sdk/Cargo.toml" from "rust/project/sdk/Cargo.toml",
    "sdk/abi/Cargo.toml" from "abi/Cargo.toml",
    "sdk/abi/src/description.rs" from "abi/src/description.rs",
    "sdk/abi/src/lib.rs" from "abi/src/lib.rs",
    "sdk/abi/src/record.rs" from "abi/src/record.rs",
    "sdk/rust/Cargo.toml" from "rust/Cargo.toml",
    "sdk/rust/src/affinity.rs" from "rust/src/affinity.rs",
    "sdk/rust/src/config.rs" from "rust/src/config.rs",
    "sdk/rust/src/hash.rs" from "rust/src/hash.rs",
    "sdk/rust/src/heap.rs" from "rust/src/heap.rs",
    "sdk/rust/src/lib.rs" from "rust/src/lib.rs",
    "sdk/rust/src/load.rs" from "rust/src/load.rs",
    "sdk/rust/src/plugin.rs" from "rust/src/plugin.rs",
    "sdk/rust/src/roster.rs" from "rust/src/roster.rs",
    "sdk/rust/src/state.rs" from "rust/src/state.rs",
    "sdk/rust/src/turn.rs" from "rust/src/turn.rs",
    "sdk/rust/src/wasm.rs" from "rust/src/wasm.rs",
];

const C: &[File] = files![
    "build.sh" from "c/build.sh",
    "plugin.h" from "c/plugin.h",
    "scheduler.c" from "c/scheduler.c",
    "wvs.h" from "c/wvs.h",
];

const ZIG: &[File] = files![
    "build.sh" from "zig/build.sh",
    "plugin.zig" from "zig/plugin.zig",
    "scheduler.zig" from "zig/scheduler.zig",
    "wvs.zig" from "zig/wvs.zig",
];

const GO: &[File] = files![
    "build.sh" from "go/build.sh",
    "go.mod" from "go/go.mod",
    "scheduler.go" from "go/scheduler.go",
    "wvs/plugin.go" from "go/wvs/plugin.go",
    "wvs/wvs.go" from "go/wvs/wvs.go",
];

const ASSEMBLYSCRIPT: &[File] = files![
    "build.sh" from "assemblyscript/build.sh",
    "plugin.ts" from "assemblyscript/plugin.ts",
    "scheduler.ts" from "assemblyscript/scheduler.ts",
    "wvs.ts" from "assemblyscript/wvs.ts",
];

const WAT: &[File] = files![
    "build.sh" from "wat/build.sh",
    "scheduler.wat" from "wat/scheduler.wat",
];

impl Language {
    /// The files of a project.
    fn files(self) -> impl Iterator<Item = &'static File> {
        let own = match self {
            Self::Rust => [RUST, &[]],
            Self::C => [C, TEST],
            Self::Zig => [ZIG, TEST],
            Self::Go => [GO, TEST],
            Self::AssemblyScript => [ASSEMBLYSCRIPT, TEST],
            Self::Wat => [WAT, TEST],
        };
        COMMON.iter().chain(own.into_iter().flatten())
    }
}

/// Makes the project `name` in `folder`, which must not exist or be empty. Nothing that exists is
/// overwritten.
///
/// # Errors
/// Why there is no project, or only a part of it.
pub fn create(name: &str, language: Language, folder: &Path) -> Result<(), ScaffoldError> {
    check_name(name)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ScaffoldError::Write { path, source }
    };
    let is_free = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(ScaffoldError::Exists(folder.to_owned()));
    }
    for (place, text) in language.files() {
        let path = folder.join(place);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let text = text.replace(PLACEHOLDER, name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed(&path))?;
    }
    Ok(())
}

/// A name becomes that of a file, of a package and of a plugin in a configuration.
fn check_name(name: &str) -> Result<(), ScaffoldError> {
    let is_one = name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    if !is_one {
        Err(ScaffoldError::Name(name.to_owned()))
    } else if builtin::NAMES.contains(&name) || name == "wvs" || name.starts_with("wvs-") {
        Err(ScaffoldError::Taken(name.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_nowhere_are_refused() {
        let too_long = "a".repeat(NAME_MAX + 1);
        for name in ["", "-x", "1x", "a b", "../x", "a/b", "Big", "a_b", "ä", "a\n", &too_long] {
            assert!(matches!(check_name(name), Err(ScaffoldError::Name(_))), "{name:?}");
        }
        for name in ["wlc", "wvs", "wvs-sdk"] {
            assert!(matches!(check_name(name), Err(ScaffoldError::Taken(_))), "{name:?}");
        }
        for name in ["a", "two-choices", "lb2", &"a".repeat(NAME_MAX)] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn name_is_in_the_place_of_the_sdks_in_every_file() {
        for language in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            create("mine", *language, folder.path()).unwrap();
            for (place, sdk) in language.files() {
                let text = fs::read_to_string(folder.path().join(place)).unwrap();
                assert!(!text.contains(PLACEHOLDER), "{language:?}: {place}");
                assert_eq!(text.contains("mine.wasm"), sdk.contains("my-scheduler.wasm"));
            }
            for (place, needed) in
                [("build.sh", "mine.wasm"), ("test.sh", "plugin check mine.wasm")]
            {
                let text = fs::read_to_string(folder.path().join(place)).unwrap();
                assert!(text.contains(needed), "{language:?}: {place}");
            }
        }
    }

    #[test]
    fn project_in_rust_has_every_file_of_the_sdk() {
        for folder in ["sdk/abi", "sdk/rust"] {
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
            for file in fs::read_dir(sources.join("src")).unwrap() {
                let place = format!("{folder}/src/{}", file.unwrap().file_name().display());
                assert!(RUST.iter().any(|(known, _)| *known == place), "{place}");
            }
        }
    }

    #[test]
    fn nothing_that_exists_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("README.md");
        fs::write(&file, "mine").unwrap();
        for place in [folder.path(), &file, &file.join("below")] {
            let refused = create("mine", Language::C, place).unwrap_err();
            assert!(matches!(refused, ScaffoldError::Exists(_)), "{refused}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
