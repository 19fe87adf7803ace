//! What is counted for metrics alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wvs_core::stats::Counter;

use crate::connection_log::ConnectionLog;

/// Sweeps of the connection table.
#[derive(Debug, Default)]
pub struct SweepCounters {
    sweeps: Counter,
    micros: Counter,
    longest_micros: AtomicU64,
}

/// [`SweepCounters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepTotals {
    /// Sweeps.
    pub sweeps: u64,
    /// Microseconds that they took together.
    pub micros: u64,
    /// Microseconds that the longest took.
    pub longest_micros: u64,
}

impl SweepCounters {
    /// Counts one that took so long.
    pub fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sweeps.count();
        self.micros.add(micros);
        self.longest_micros.fetch_max(micros, Relaxed);
    }

    /// The totals now.
    #[must_use]
    pub fn totals(&self) -> SweepTotals {
        SweepTotals {
            sweeps: self.sweeps.get(),
            micros: self.micros.get(),
            longest_micros: self.longest_micros.load(Relaxed),
        }
    }
}

/// Reloads of the configuration.
#[derive(Debug, Default)]
pub struct ReloadCounters {
    done: Counter,
    refused: Counter,
    is_latest_refused: AtomicBool,
    /// Seconds since 1970; 0 before the first.
    latest_seconds: AtomicU64,
}

/// [`ReloadCounters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadTotals {
    /// Those that did what the file says.
    pub done: u64,
    /// Those that changed nothing because something was wrong.
    pub refused: u64,
    /// Whether the latest one was refused.
    pub is_latest_refused: bool,
    /// Seconds since 1970 at which the latest one ended; 0 before the first.
    pub latest_seconds: u64,
}

impl ReloadCounters {
    /// Counts one that ended now.
    pub fn count(&self, is_done: bool) {
        let count = if is_done { &self.done } else { &self.refused };
        count.count();
        self.is_latest_refused.store(!is_done, Relaxed);
        self.latest_seconds.store(seconds_since_1970(SystemTime::now()), Relaxed);
    }

    /// The totals now.
    #[must_use]
    pub fn totals(&self) -> ReloadTotals {
        ReloadTotals {
            done: self.done.get(),
            refused: self.refused.get(),
            is_latest_refused: self.is_latest_refused.load(Relaxed),
            latest_seconds: self.latest_seconds.load(Relaxed),
        }
    }
}

/// What became of the lines of the connection log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTotals {
    /// Written.
    pub written: u64,
    /// Left out because there were more than the rate.
    pub above_rate: u64,
    /// Lost because too many waited to be written.
    pub queue_full: u64,
    /// Lost because the file did not take them.
    pub not_written: u64,
}

impl From<&ConnectionLog> for LineTotals {
    fn from(log: &ConnectionLog) -> Self {
        let counters = log.counters();
        Self {
            written: counters.written.get(),
            above_rate: counters.above_rate.get(),
            queue_full: log.queue_full(),
            not_written: counters.not_written.get(),
        }
    }
}

/// A time of day as metrics have it.
#[must_use]
pub fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
