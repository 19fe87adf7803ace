//! The log: lines on standard error, for people, for programs or for the journal. No thread waits for it.

mod journal;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use queue::Queue;

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
pub enum LogError {
    /// A word that stands alone is no level. It would be taken for a target that nothing logs under.
    #[error("{0:?} is none of off, error, warn, info, debug and trace")]
    Level(String),
    /// Not made like a filter.
    #[error(transparent)]
    Filter(#[from] ParseError),
    /// No thread to write it.
    #[error("no thread can be started: {0}")]
    Thread(#[from] io::Error),
}

/// How long the end of the program waits for a log that nobody reads.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The log of this process, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: Queue,
    is_journal: bool,
}

/// Starts the log of this process. `level` is a level such as `debug`, or a filter such as
/// `info,wvs_plugin=error`. Panics are logged, too. A second call changes nothing.
///
/// Lines go to standard error by a thread of their own. Where that is closed, full or not read, lines are
/// lost and counted, see [`lost_lines`]. Where it is the journal, they have priorities and no time.
///
/// # Errors
/// `level` is no filter, or there is no thread left.
pub fn start(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(directives(level)?)?;
    let log = Log { queue: Queue::start(io::stderr())?, is_journal: journal::has_standard_error() };
    let (queue, is_journal) = (log.queue.clone(), log.is_journal);
    if LOG.set(log).is_err() {
        return Ok(());
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue)
        .with_ansi(!is_journal && io::stderr().is_terminal())
        // It would be told on standard error, and a panic where that is closed.
        .log_internal_errors(false);
    let _ = match (format, is_journal) {
        (LogFormat::Text, false) => lines.with_target(false).try_init(),
        (LogFormat::Json, false) => lines.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => lines
            .with_target(false)
            .with_level(false)
            .without_time()
            .map_event_format(journal::Prefixed)
            .try_init(),
        (LogFormat::Json, true) => lines
            .json()
            .flatten_event(true)
            .without_time()
            .map_event_format(journal::Prefixed)
            .try_init(),
    };
    // The usual one waits for standard error.
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!("{panic}\n{backtrace}");
        } else {
            tracing::error!("{panic}");
        }
    }));
    Ok(())
}

/// Says on standard error what is wrong, by way of the log where it is started. Where standard error is
/// closed there is nobody to tell.
pub(crate) fn complain(what: fmt::Arguments<'_>) {
    match LOG.get() {
        Some(Log { queue, is_journal: false }) => queue.put(format!("{what}\n").as_bytes()),
        Some(Log { queue, is_journal: true }) => {
            let text = what.to_string();
            let lines =
                text.lines().map(|line| format!("{}{line}\n", journal::prefix(Level::ERROR)));
            queue.put(lines.collect::<String>().as_bytes());
        }
        None => {
            let _ = writeln!(io::stderr(), "{what}");
        }
    }
}

/// Waits until the log is written, but no longer than a second. What is not written when the program ends
/// is lost.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.queue.flush(FLUSH_PATIENCE);
    }
}

/// Log lines that were lost since the start, because standard error was closed or full, or nobody read it.
#[must_use]
pub fn lost_lines() -> u64 {
    LOG.get().map_or(0, |log| log.queue.lost())
}

/// A level alone is meant for what is ours: `debug` without the chatter of the libraries below,
/// whose warnings stay.
fn directives(level: &str) -> Result<String, LogError> {
    let is_no_level =
        |part: &&str| !part.contains(['=', '[']) && part.trim().parse::<LevelFilter>().is_err();
    if let Some(part) = level.split(',').find(is_no_level) {
        return Err(LogError::Level(part.to_owned()));
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
            assert!(matches!(directives(level), Err(LogError::Level(_))), "{level:?}");
        }
    }
}
