//! Rules of other programs for LVS, as a configuration: what `ipvsadm -S -n` writes, and the virtual
//! servers of a `keepalived.conf`.
//!
//! `ipvsadm` and `keepalived` read a text into plain `rules` in WVS's words, with a note for each
//! thing that has no equivalent; `document` writes these as a person would write them, with the notes
//! as comments, by `yaml`'s rules for what must be quoted and what fits into a line.

mod document;
mod ipvsadm;
mod keepalived;
mod lvs;
mod rules;
mod yaml;

use std::fmt;
use std::path::Path;

use thiserror::Error;

use crate::config::Reading;

/// The longest text that is read, in octets: as much as a configuration may have.
pub const INPUT_OCTETS_MAX: usize = 4 << 20;

/// Characters of the input that one note repeats.
const QUOTE_CHARACTERS_MAX: usize = 60;

/// Whose rules a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What `ipvsadm -S -n` writes, or a script of `ipvsadm -A` and `-a` lines.
    Ipvsadm,
    /// A `keepalived.conf`.
    Keepalived,
}

/// A configuration made of another program's rules.
#[derive(Debug)]
pub struct Import {
    /// The configuration, a YAML file. The notes are in it as comments.
    pub yaml: String,
    /// What has no equivalent, or another one than might be expected, in the order of the input.
    pub notes: Vec<Note>,
    /// How many services came over.
    pub services: usize,
    /// How many real servers came over, all services together.
    pub servers: usize,
    /// What the director would read of the configuration. Unless there are too many services, it is
    /// usable.
    pub reading: Reading,
}

/// Something about one line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line, counted from 1.
    pub line: u32,
    /// What stands there, and what became of it.
    pub what: String,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// The text is longer than any rules are.
    #[error("larger than 4MiB; no rules are")]
    TooLarge,
    /// Nothing in the text is, or could become, a virtual service.
    #[error("no virtual service in it that WVS can have")]
    NoService {
        /// What was there instead.
        notes: Vec<Note>,
    },
}

impl Note {
    /// `written`, which is shown cut short, and what to say about it.
    fn new(line: u32, written: &str, what: &str) -> Self {
        let mut characters = written.chars();
        let mut shown: String = characters.by_ref().take(QUOTE_CHARACTERS_MAX).collect();
        if characters.next().is_some() {
            shown.push('…');
        }
        Self { line, what: format!("{}: {what}", printable(&shown)) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Makes a configuration of another program's rules. `name` is what the text is called in the
/// configuration's first line.
///
/// # Errors
/// [`ImportError`] when there is nothing to begin with, or too much.
pub fn import(source: Source, name: &str, text: &str) -> Result<Import, ImportError> {
    if text.len() > INPUT_OCTETS_MAX {
        return Err(ImportError::TooLarge);
    }
    let mut rules = match source {
        Source::Ipvsadm => ipvsadm::read(text),
        Source::Keepalived => keepalived::read(text),
    };
    rules.settle();
    let notes = rules.notes();
    if rules.services().next().is_none() {
        return Err(ImportError::NoService { notes });
    }
    let yaml = document::write(source, name, &rules);
    Ok(Import {
        notes,
        services: rules.services().count(),
        servers: rules.services().map(|service| service.servers().count()).sum(),
        reading: Reading::of_text(Path::new("imported"), &yaml),
        yaml,
    })
}

/// The text without what could move a terminal's cursor or end a comment's line.
fn printable(text: &str) -> String {
    let ends_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.replace(ends_line, "\u{fffd}")
}

/// The number of a line whose index is given.
fn line_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1)
}
