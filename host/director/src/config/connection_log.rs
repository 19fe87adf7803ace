//! `connection_log`: where a line for each beginning and each end of a connection goes.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::keys;
use super::reader::{Field, Reader};
use super::schema::{number, set};
use crate::logging::LogFormat;

const RATE: RangeInclusive<u64> = 1..=1_000_000;
const DEFAULT_RATE: u32 = 1_000;

/// What stands for standard error in place of a path.
const STDERR: &str = "stderr";

/// The log of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLogConfig {
    /// Where it goes.
    pub target: LogTarget,
    /// How its lines are written.
    pub format: LogFormat,
    /// Lines a second at most, 1 or more.
    pub rate: u32,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To standard error, between the lines of the director's own log.
    Stderr,
    /// To the end of this file, which is made when missing.
    File(PathBuf),
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str(STDERR),
            Self::File(file) => file.display().fmt(f),
        }
    }
}

/// Reads the table; a relative path starts at `folder`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    folder: &Path,
) -> Option<ConnectionLogConfig> {
    let fields = reader.fields(field, &keys::CONNECTION_LOG)?;
    let target = fields.required(reader, "file").and_then(|field| match reader.text(&field)? {
        STDERR => Some(LogTarget::Stderr),
        "" => {
            reader.refuse(&field, "is no path", "give that of a file, or stderr");
            None
        }
        path => Some(LogTarget::File(folder.join(path))),
    });
    let mut format = LogFormat::default();
    if let Some(field) = fields.get("format") {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        set(&mut format, reader.choice(&field, &formats));
    }
    let mut rate = DEFAULT_RATE;
    if let Some(field) = fields.get("rate") {
        set(&mut rate, number(reader, &field, RATE));
    }
    Some(ConnectionLogConfig { target: target?, format, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_rate_is_the_one_used() {
        let documented = keys::CONNECTION_LOG.find("rate").and_then(|key| key.default).unwrap();
        assert_eq!(documented.trim_matches('`').parse(), Ok(DEFAULT_RATE));
    }
}
