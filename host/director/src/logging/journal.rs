//! The journal at the other end of standard error: it adds the time itself, and takes a line's priority
//! from the line's beginning (sd-daemon(3)).

use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Where the service manager says which file leads to the journal.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether what is written to standard error gets to the journal. The variable alone says nothing:
/// programs that were started with another standard error inherit it too.
pub(super) fn has_standard_error() -> bool {
    let Ok(stream) = env::var(VARIABLE) else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.map(File::from).and_then(|file| file.metadata());
    metadata.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// What a line of this level begins with: its number in syslog(3).
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Puts the priority in front of what `F` writes.
pub(super) struct Prefixed<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(prefix(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}
