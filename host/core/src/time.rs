//! The core's only notion of time: an argument.

use core::time::Duration;

/// A point on the director's monotonic clock: microseconds since some start that the caller chose.
///
/// Whoever calls the core reads the clock; the core compares what it is given. Milliseconds are
/// what timeouts and plugins count in; microseconds are for how soon a server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

/// Microseconds in a millisecond.
const MILLI: u64 = 1_000;

impl Moment {
    /// The moment `millis` milliseconds after the start of the clock.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(MILLI))
    }

    /// The moment `micros` microseconds after the start of the clock.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Whole milliseconds since the start of the clock.
    #[inline]
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / MILLI
    }

    /// Microseconds since the start of the clock.
    #[inline]
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds from `earlier` to here; 0 when `earlier` is later than this moment.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.micros_since(earlier) / MILLI
    }

    /// Microseconds from `earlier` to here; 0 when `earlier` is later than this moment.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `duration` later, with the sub-microsecond part cut off.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}
