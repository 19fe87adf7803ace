//! The director's clock.

use std::time::Instant;

use wvs_core::time::Moment;

/// A monotonic clock that starts at 0. Copies show the same time, so that every part of a director
/// can hold one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time since the start. Cost: about 25 ns, no system call on common hardware.
    #[must_use]
    pub fn now(self) -> Moment {
        Moment::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}
