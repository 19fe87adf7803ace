//! The log: lines on standard error, for people or for programs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Time, level, message and fields in a line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the level comes from when no option gives it.
pub const LEVEL_VARIABLE: &str = "WVS_LOG";

/// The level when nothing gives one.
pub const LEVEL_DEFAULT: &str = "info";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A word that stands alone is no level. It would be taken for a target that nothing logs under.
    #[error("{0:?} is none of off, error, warn, info, debug and trace")]
    Level(String),
    /// Not made like a filter.
    #[error(transparent)]
    Filter(#[from] ParseError),
}

/// Starts the log of this process. `level` is a level such as `debug`, or a filter such as
/// `info,wvs_plugin=error`. A second call changes nothing.
///
/// # Errors
/// `level` is no filter.
pub fn start(format: LogFormat, level: &str) -> Result<(), FilterError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(directives(level)?)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A level alone is meant for what is ours: `debug` without the chatter of the libraries below,
/// whose warnings stay.
fn directives(level: &str) -> Result<String, FilterError> {
    let is_no_level =
        |part: &&str| !part.contains(['=', '[']) && part.trim().parse::<LevelFilter>().is_err();
    if let Some(part) = level.split(',').find(is_no_level) {
        return Err(FilterError::Level(part.to_owned()));
    }
    Ok(match level.parse() {
        Ok(LevelFilter::OFF | LevelFilter::ERROR | LevelFilter::WARN) | Err(_) => level.to_owned(),
        Ok(level) => format!("warn,wvs={level}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_alone_is_meant_for_our_own_crates() {
        let directives = |level| directives(level).unwrap();
        assert_eq!(directives("debug"), "warn,wvs=debug");
        assert_eq!(directives("INFO"), "warn,wvs=info");
        assert_eq!(directives("error"), "error");
        assert_eq!(directives("off"), "off");
        assert_eq!(directives("info,wvs_plugin=trace"), "info,wvs_plugin=trace");
    }

    #[test]
    fn word_that_is_no_level_is_refused() {
        for level in ["bla", "info,bla", "wvs"] {
            assert!(matches!(directives(level), Err(FilterError::Level(_))), "{level:?}");
        }
    }
}
