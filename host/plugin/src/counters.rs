//! What a plugin did at one virtual service, for whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;

/// Counts of one [`WasmScheduler`](crate::WasmScheduler). They only grow and outlive its instances.
#[derive(Debug, Default)]
pub struct PluginCounters {
    picks: Count,
    no_server: Count,
    defers: Count,
    unavailable: Count,
    bad_answers: Count,
    traps: Count,
    out_of_fuel: Count,
    faults: Count,
    quarantines: Count,
    rebuilds: Count,
    last_fault: Mutex<Option<Fault>>,
}

/// A count with one writer, the scheduler behind its service's lock: an addition without the price
/// of an atomic one.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    #[inline]
    fn add_one(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

impl PluginCounters {
    /// Decisions for a server.
    #[must_use]
    pub fn picks(&self) -> u64 {
        self.picks.0.load(Relaxed)
    }

    /// Decisions that no server can take the connection.
    #[must_use]
    pub fn no_server(&self) -> u64 {
        self.no_server.0.load(Relaxed)
    }

    /// Decisions that the plugin left to the director.
    #[must_use]
    pub fn defers(&self) -> u64 {
        self.defers.0.load(Relaxed)
    }

    /// Decisions that the director made because there was no plugin to ask: it was quarantined or
    /// its instance was being replaced.
    #[must_use]
    pub fn unavailable(&self) -> u64 {
        self.unavailable.0.load(Relaxed)
    }

    /// Answers that were no valid server.
    #[must_use]
    pub fn bad_answers(&self) -> u64 {
        self.bad_answers.0.load(Relaxed)
    }

    /// Calls in which the plugin stopped itself or did what no program may.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.traps.0.load(Relaxed)
    }

    /// Calls that took more instructions than allowed.
    #[must_use]
    pub fn out_of_fuel(&self) -> u64 {
        self.out_of_fuel.0.load(Relaxed)
    }

    /// Everything that the plugin did wrong: the three before and the rarer ones.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.0.load(Relaxed)
    }

    /// How often the plugin was quarantined.
    #[must_use]
    pub fn quarantines(&self) -> u64 {
        self.quarantines.0.load(Relaxed)
    }

    /// Instances made to replace one that failed.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.0.load(Relaxed)
    }

    /// The latest fault.
    #[must_use]
    pub fn last_fault(&self) -> Option<Fault> {
        self.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    pub(crate) fn count_fault(&self, fault: &Fault) {
        self.faults.add_one();
        match fault {
            Fault::BadAnswer { .. } | Fault::Unavailable { .. } => self.bad_answers.add_one(),
            Fault::Trap { .. } => self.traps.add_one(),
            Fault::OutOfFuel { .. } => self.out_of_fuel.add_one(),
            _ => {}
        }
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
    }

    pub(crate) fn count_quarantine(&self) {
        self.quarantines.add_one();
    }

    pub(crate) fn count_rebuild(&self) {
        self.rebuilds.add_one();
    }
}
