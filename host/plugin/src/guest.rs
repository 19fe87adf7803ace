//! What the director keeps beside a plugin's memory: bounds, a clock, and its lines for the log.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wvs_abi::{LOG_OCTETS_MAX, log_level};
use wvs_core::random::Random;

use crate::counters::PluginCounters;
use crate::limits::TABLE_ENTRIES_MAX;
use crate::text::printable;

/// Lines of a log that are written within [`LOG_PERIOD_MS`]; the rest is counted.
pub(crate) const LOG_LINES_MAX: u32 = 10;

/// See [`LOG_LINES_MAX`].
const LOG_PERIOD_MS: u64 = 1_000;

/// Lines that are kept for whoever looks at the instance.
const LINES_KEPT: usize = 16;

/// Of the random numbers that runtimes ask for; the same in every instance, so that it replays.
const RANDOM_SEED: u64 = 0x5756_5347_5545_5354;

/// One instance's other half.
pub(crate) struct Guest {
    name: Arc<str>,
    memory_max: usize,
    /// Whether more memory than its limit was ever asked for.
    pub(crate) was_refused: bool,
    /// The time of the latest request.
    pub(crate) now_ms: u64,
    /// What runtimes take for randomness.
    pub(crate) random: Random,
    /// Where lines are counted, once the instance works for a service.
    pub(crate) counters: Option<Arc<PluginCounters>>,
    log: Log,
}

#[derive(Default)]
struct Log {
    period_began_ms: u64,
    lines_in_period: u32,
    suppressed: u64,
    kept: VecDeque<String>,
}

impl Guest {
    /// Of a plugin called `name` with so many octets of memory at most.
    pub(crate) fn new(name: &Arc<str>, memory_max: usize) -> Self {
        Self {
            name: Arc::clone(name),
            memory_max,
            was_refused: false,
            now_ms: 0,
            random: Random::new(RANDOM_SEED),
            counters: None,
            log: Log::default(),
        }
    }

    /// The latest lines that the plugin wrote, oldest first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.log.kept.iter().map(String::as_str)
    }

    /// Writes a line to the log, unless there were too many.
    pub(crate) fn log(&mut self, level: u32, text: &[u8]) {
        let log = &mut self.log;
        if self.now_ms.saturating_sub(log.period_began_ms) >= LOG_PERIOD_MS {
            log.period_began_ms = self.now_ms;
            log.lines_in_period = 0;
        }
        if log.lines_in_period >= LOG_LINES_MAX {
            log.suppressed += 1;
            if let Some(counters) = &self.counters {
                counters.count_suppressed_line();
            }
            return;
        }
        log.lines_in_period += 1;
        let text = text.get(..LOG_OCTETS_MAX as usize).unwrap_or(text);
        let line = printable(&String::from_utf8_lossy(text), LOG_OCTETS_MAX as usize);
        if line.is_empty() {
            return;
        }
        let (plugin, suppressed) = (&*self.name, std::mem::take(&mut log.suppressed));
        match level {
            log_level::ERROR => tracing::error!(plugin, suppressed, "{line}"),
            log_level::WARN => tracing::warn!(plugin, suppressed, "{line}"),
            log_level::INFO => tracing::info!(plugin, suppressed, "{line}"),
            _ => tracing::debug!(plugin, suppressed, "{line}"),
        }
        if log.kept.len() >= LINES_KEPT {
            log.kept.pop_front();
        }
        log.kept.push_back(line);
        if let Some(counters) = &self.counters {
            counters.count_line();
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.was_refused |= desired > self.memory_max;
        Ok(desired <= self.memory_max)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ENTRIES_MAX)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        // C++ and Go have one, the reference types extension may bring a few more.
        16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_ten_a_second_are_counted_and_not_written() {
        let mut guest = Guest::new(&"talker".into(), 1 << 16);
        let counters = Arc::new(PluginCounters::default());
        guest.counters = Some(Arc::clone(&counters));
        for number in 0..15 {
            guest.log(log_level::INFO, format!("line {number}").as_bytes());
        }
        assert_eq!((counters.log_lines(), counters.suppressed_lines()), (10, 5));
        guest.now_ms = LOG_PERIOD_MS;
        guest.log(log_level::INFO, b"again");
        assert_eq!((counters.log_lines(), counters.suppressed_lines()), (11, 5));
        assert_eq!(guest.lines().last(), Some("again"));
    }

    #[test]
    fn lines_are_cut_and_made_printable() {
        let mut guest = Guest::new(&"talker".into(), 1 << 16);
        guest.log(log_level::WARN, &[b'x'; 5000]);
        guest.log(log_level::WARN, b"a\x1b[2Jb\xff");
        let lines: Vec<_> = guest.lines().map(str::len).collect();
        assert_eq!(lines[0], LOG_OCTETS_MAX as usize);
        assert_eq!(guest.lines().last(), Some("a [2Jb\u{fffd}"));
    }
}
