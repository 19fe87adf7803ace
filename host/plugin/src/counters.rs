//! What a plugin did at one virtual service, for whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::fault::{Fault, FaultKind};

/// One decision in so many is timed: reading the clock takes about as long as a decision does.
pub(crate) const TIMED_ONE_IN: u64 = 64;

/// Buckets of the distribution of times: below 64 ns, 128 ns, and so on; the last has the rest.
pub const TIME_BUCKETS: usize = 16;

/// The upper end of the first bucket, as a power of two.
const FIRST_BUCKET_LOG2: u32 = 6;

/// The upper ends of the buckets in nanoseconds, but for the last one, which has none.
pub const TIME_LIMITS_NS: [u64; TIME_BUCKETS - 1] = {
    let mut limits = [1 << FIRST_BUCKET_LOG2; TIME_BUCKETS - 1];
    let mut bucket = 1;
    while bucket < limits.len() {
        limits[bucket] = limits[bucket - 1] * 2;
        bucket += 1;
    }
    limits
};

/// Counts of one plugin at one virtual service. They only grow, but for those of a maximum, and
/// outlive the plugin's instances.
#[derive(Debug, Default)]
pub struct PluginCounters {
    picks: Count,
    no_server: Count,
    defers: Count,
    unavailable: Count,
    faults: [Count; FaultKind::ALL.len()],
    quarantines: Count,
    rebuilds: Count,
    events: Count,
    ticks: Count,
    log_lines: Count,
    suppressed_lines: Count,
    fuel: Count,
    fuel_max: Count,
    timed: Count,
    time_ns: Count,
    time_ns_max: Count,
    times: [Count; TIME_BUCKETS],
    last_fault: Mutex<Option<Fault>>,
}

/// A count with one writer, the scheduler behind its service's lock: an addition without the price
/// of an atomic one.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    #[inline]
    fn add_one(&self) {
        self.add(1);
    }

    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    #[inline]
    fn raise_to(&self, n: u64) {
        if n > self.get() {
            self.0.store(n, Relaxed);
        }
    }

    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl PluginCounters {
    /// Decisions for a server.
    #[must_use]
    pub fn picks(&self) -> u64 {
        self.picks.get()
    }

    /// Decisions that no server can take the connection.
    #[must_use]
    pub fn no_server(&self) -> u64 {
        self.no_server.get()
    }

    /// Decisions that the plugin left to the director.
    #[must_use]
    pub fn defers(&self) -> u64 {
        self.defers.get()
    }

    /// Decisions that the director made because there was no plugin to ask: it was quarantined or
    /// its instance was being replaced.
    #[must_use]
    pub fn unavailable(&self) -> u64 {
        self.unavailable.get()
    }

    /// Answers that were no valid server.
    #[must_use]
    pub fn bad_answers(&self) -> u64 {
        self.faults_of(FaultKind::BadAnswer)
    }

    /// Calls in which the plugin stopped itself or did what no program may.
    #[must_use]
    pub fn traps(&self) -> u64 {
        let traps = FaultKind::ALL.iter().filter(|kind| kind.is_trap());
        traps.map(|kind| self.faults_of(*kind)).sum()
    }

    /// Calls that took more instructions than allowed.
    #[must_use]
    pub fn out_of_fuel(&self) -> u64 {
        self.faults_of(FaultKind::OutOfFuel)
    }

    /// Everything that the plugin did wrong of one kind.
    #[must_use]
    pub fn faults_of(&self, kind: FaultKind) -> u64 {
        self.faults[kind as usize].get()
    }

    /// Everything that the plugin did wrong.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.iter().map(Count::get).sum()
    }

    /// How often the plugin was quarantined.
    #[must_use]
    pub fn quarantines(&self) -> u64 {
        self.quarantines.get()
    }

    /// Instances made to replace one that failed.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.get()
    }

    /// Events that the plugin was told of.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.get()
    }

    /// Ticks.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// Lines that the plugin wrote to the log.
    #[must_use]
    pub fn log_lines(&self) -> u64 {
        self.log_lines.get()
    }

    /// Lines that came too fast and were not written.
    #[must_use]
    pub fn suppressed_lines(&self) -> u64 {
        self.suppressed_lines.get()
    }

    /// Fuel that all decisions took together.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.fuel.get()
    }

    /// The most fuel that a decision took.
    #[must_use]
    pub fn fuel_max(&self) -> u64 {
        self.fuel_max.get()
    }

    /// Decisions that were timed, one in 64.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.timed.get()
    }

    /// Nanoseconds that the timed decisions took together.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns.get()
    }

    /// Nanoseconds that the longest timed decision took.
    #[must_use]
    pub fn time_ns_max(&self) -> u64 {
        self.time_ns_max.get()
    }

    /// How many of the timed decisions took less than 64, 128, 256 .. nanoseconds, but not less than
    /// the one before; the last bucket has the rest.
    #[must_use]
    pub fn times(&self) -> [u64; TIME_BUCKETS] {
        std::array::from_fn(|bucket| self.times[bucket].get())
    }

    /// The latest fault.
    #[must_use]
    pub fn last_fault(&self) -> Option<Fault> {
        self.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the decision that is to come is one that is timed.
    #[inline]
    pub(crate) fn is_to_be_timed(&self) -> bool {
        self.picks.get().is_multiple_of(TIMED_ONE_IN)
    }

    #[inline]
    pub(crate) fn count_pick(&self) {
        self.picks.add_one();
    }

    pub(crate) fn count_no_server(&self) {
        self.no_server.add_one();
    }

    pub(crate) fn count_defer(&self) {
        self.defers.add_one();
    }

    pub(crate) fn count_unavailable(&self) {
        self.unavailable.add_one();
    }

    #[inline]
    pub(crate) fn count_fuel(&self, fuel: u64) {
        self.fuel.add(fuel);
        self.fuel_max.raise_to(fuel);
    }

    #[cold]
    pub(crate) fn count_time(&self, ns: u64) {
        self.timed.add_one();
        self.time_ns.add(ns);
        self.time_ns_max.raise_to(ns);
        self.times[bucket(ns)].add_one();
    }

    pub(crate) fn count_event(&self) {
        self.events.add_one();
    }

    pub(crate) fn count_tick(&self) {
        self.ticks.add_one();
    }

    pub(crate) fn count_line(&self) {
        self.log_lines.add_one();
    }

    pub(crate) fn count_suppressed_line(&self) {
        self.suppressed_lines.add_one();
    }

    pub(crate) fn count_fault(&self, fault: &Fault) {
        self.faults[fault.kind() as usize].add_one();
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
    }

    pub(crate) fn count_quarantine(&self) {
        self.quarantines.add_one();
    }

    pub(crate) fn count_rebuild(&self) {
        self.rebuilds.add_one();
    }
}

/// The bucket of a time: 0 below 64 ns, 1 below 128 ns.
fn bucket(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    (bits.saturating_sub(FIRST_BUCKET_LOG2) as usize).min(TIME_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_has_its_own_place() {
        for (place, kind) in FaultKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
        }
    }

    #[test]
    fn times_fall_into_buckets_of_powers_of_two() {
        for (ns, expected) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (u64::MAX, 15)] {
            assert_eq!(bucket(ns), expected, "{ns}");
        }
        for (place, limit) in TIME_LIMITS_NS.into_iter().enumerate() {
            assert_eq!((bucket(limit - 1), bucket(limit)), (place, place + 1));
        }
    }
}
