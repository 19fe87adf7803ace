//! Plugins and their configurations as the command line names them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::IgnoredAny;
use wvs_plugin::{Host, Limits, LoadError, Module, Source, builtin};

use crate::cli::{FAILED, REFUSED, complain};
use crate::config::read_at_most;

/// Octets of a plugin's configuration, as a director has it.
const CONFIG_OCTETS_MAX: usize = wvs_abi::CONFIG_OCTETS_MAX as usize;

/// Octets of a module in its text form: some times those of the binary one.
const TEXT_OCTETS_MAX: usize = 16 << 20;

/// What stands before a built-in scheduler's name to tell it from a file.
const BUILT_IN: &str = "builtin:";

/// A plugin: a file, or one that comes with the director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PluginSource {
    BuiltIn(&'static str),
    File(PathBuf),
}

/// Why a command came to nothing, and its exit status.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) code: u8,
    pub(super) what: String,
}

impl Trouble {
    /// Tried and failed.
    pub(super) fn failed(what: impl fmt::Display) -> Self {
        Self { code: FAILED, what: what.to_string() }
    }

    /// Wrong usage, or a file that cannot be used at all.
    pub(super) fn refused(what: impl fmt::Display) -> Self {
        Self { code: REFUSED, what: what.to_string() }
    }

    /// Says so.
    pub(super) fn tell(&self) -> u8 {
        complain(&self.what);
        self.code
    }
}

impl FromStr for PluginSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let find = |name| builtin::NAMES.iter().find(|known| **known == name);
        match text.strip_prefix(BUILT_IN) {
            Some(name) => find(name).map(|name| Self::BuiltIn(name)).ok_or_else(|| {
                format!(
                    "no scheduler of this name comes with wvs; use {}",
                    builtin::NAMES.join(", ")
                )
            }),
            None => {
                Ok(find(text).map_or_else(|| Self::File(text.into()), |name| Self::BuiltIn(name)))
            }
        }
    }
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl PluginSource {
    /// Reads, checks and compiles it.
    pub(super) fn load(&self, host: &Host) -> Result<Module, Trouble> {
        self.load_within(host, Limits::default())
    }

    /// The same with limits of its own.
    pub(super) fn load_within(&self, host: &Host, limits: Limits) -> Result<Module, Trouble> {
        let loaded = match self {
            Self::BuiltIn(name) => host.load(Source::BuiltIn(name), limits),
            Self::File(path) if path.extension().is_some_and(|extension| extension == "wat") => {
                let octets = read_text_form(path)?;
                let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin");
                host.load(Source::Octets { name, octets: &octets }, limits)
            }
            Self::File(path) => host.load(Source::File(path), limits),
        };
        loaded.map_err(|error| match error {
            LoadError::Read { path, source } => unreadable(&path, &source),
            error => Trouble::failed(format_args!("{self}: {error}")),
        })
    }
}

/// What `--config` says: JSON, or `@` and the name of a file with it.
pub(super) fn read_config(argument: Option<&str>) -> Result<Option<String>, Trouble> {
    let Some(argument) = argument else { return Ok(None) };
    let json = match argument.strip_prefix('@') {
        Some(path) => {
            let path = Path::new(path);
            let octets =
                read_at_most(path, CONFIG_OCTETS_MAX).map_err(|cause| unreadable(path, &cause))?;
            String::from_utf8(octets).map_err(|_| {
                Trouble::refused(format_args!("{}: not UTF-8; save it as UTF-8", path.display()))
            })?
        }
        None => argument.to_owned(),
    };
    if json.len() > CONFIG_OCTETS_MAX {
        return Err(Trouble::refused("the configuration is longer than 64 KiB"));
    }
    match serde_json::from_str::<IgnoredAny>(&json) {
        Ok(_) => Ok(Some(json)),
        Err(error) => Err(Trouble::refused(format_args!(
            "the configuration is no JSON: {error}; write --config '{{\"key\": \"value\"}}' or --config @FILE"
        ))),
    }
}

/// A file that cannot be read.
pub(super) fn unreadable(path: &Path, cause: &io::Error) -> Trouble {
    Trouble::refused(format_args!("{} cannot be read: {cause}", path.display()))
}

/// A text file of so many octets at most.
pub(super) fn read_text(path: &Path, octets_max: usize) -> Result<String, Trouble> {
    let octets = read_at_most(path, octets_max).map_err(|cause| unreadable(path, &cause))?;
    let path = path.display();
    if octets.len() > octets_max {
        return Err(Trouble::refused(format_args!(
            "{path} has more than {} MiB",
            octets_max >> 20
        )));
    }
    String::from_utf8(octets)
        .map_err(|_| Trouble::refused(format_args!("{path} is no text: it is not UTF-8")))
}

/// The module of a file in WebAssembly's text form.
fn read_text_form(path: &Path) -> Result<Vec<u8>, Trouble> {
    let text = read_text(path, TEXT_OCTETS_MAX)?;
    wat::parse_str(&text).map_err(|mut error| {
        error.set_path(path);
        // It shows the line, whatever is in it.
        let is_hidden = |char: char| char.is_control() && char != '\n';
        Trouble::failed(error.to_string().replace(is_hidden, "\u{fffd}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_built_ins_are_no_files() {
        let source = |text: &str| text.parse::<PluginSource>();
        assert_eq!(source("wlc"), Ok(PluginSource::BuiltIn("wlc")));
        assert_eq!(source("builtin:sh"), Ok(PluginSource::BuiltIn("sh")));
        assert_eq!(source("./wlc"), Ok(PluginSource::File("./wlc".into())));
        assert_eq!(source("wlc.wasm"), Ok(PluginSource::File("wlc.wasm".into())));
        assert!(source("builtin:nope").unwrap_err().contains("rr"));
    }

    #[test]
    fn configuration_is_json() {
        let read = |text| read_config(Some(text)).map_err(|trouble| (trouble.code, trouble.what));
        assert_eq!(read_config(None).unwrap(), None);
        assert_eq!(read(r#"{"a":1}"#), Ok(Some(r#"{"a":1}"#.to_owned())));
        for (text, part) in [
            ("{a: 1}", "no JSON"),
            ("", "no JSON"),
            (&"[".repeat(1_000), "no JSON"),
            (&" ".repeat(65_537), "longer than 64 KiB"),
            ("@/nowhere/at/all", "cannot be read"),
        ] {
            let (code, what) = read(text).unwrap_err();
            assert_eq!(code, REFUSED);
            assert!(what.contains(part), "{what}");
        }
    }
}
