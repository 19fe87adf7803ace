//! Says in the log what goes wrong while the director runs: each thing at most once an interval,
//! however often it happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use wvs_core::pool::Pool;
use wvs_core::verdict::DropReason;
use wvs_plugin::PluginReport;

use super::State;
use crate::metrics::counters::LineTotals;
use crate::seat::{Seat, SeatReport};

/// Between two looks at the counters.
const INTERVAL: Duration = Duration::from_secs(10);

/// Drop reasons that call for somebody: a limit was met.
const LIMITS: [(DropReason, &str); 2] = [
    (DropReason::TableFull, "the connection table is full; raise limits.connections"),
    (DropReason::ReplyLimit, "more answers of the director's own than limits.replies a second"),
];

/// Looks at the counters for ever.
pub(super) async fn watch(state: Arc<State>) {
    let mut last = Sums::of(&state);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Sums::of(&state);
        now.warn_of_growth(&last, &state);
        last = now;
    }
}

/// The counters that tell of trouble.
#[derive(Debug)]
struct Sums {
    limits: [u64; LIMITS.len()],
    half_open_evicted: u64,
    fragments_evicted: u64,
    write_errors: u64,
    queue_full: u64,
    unlogged: LineTotals,
    /// By name.
    services: HashMap<String, ServiceSums>,
}

#[derive(Clone, Copy, Debug)]
struct ServiceSums {
    at_work: PluginSums,
    candidate: PluginSums,
    /// The latest generation that failed on probation.
    rolled_back: Option<u16>,
    is_trial_stopped: bool,
    fallback: u64,
    no_server: u64,
    pool_exhausted: u64,
}

impl Sums {
    fn of(state: &State) -> Self {
        let verdicts = state.director.verdicts();
        let seats = state.operation.seats();
        let name = |seat: &Seat| seat.service().name().to_owned();
        Self {
            limits: LIMITS.map(|(reason, _)| verdicts.dropped(reason)),
            half_open_evicted: state.director.table().evicted.get(),
            fragments_evicted: state.director.fragments().evicted,
            write_errors: state.device_counters.write_errors(),
            queue_full: state.device_counters.queue_full(),
            unlogged: state.operation.connection_log().into(),
            services: seats.iter().map(|seat| (name(seat), ServiceSums::of(seat))).collect(),
        }
    }

    fn warn_of_growth(&self, last: &Self, state: &State) {
        for (index, (reason, message)) in LIMITS.iter().enumerate() {
            let dropped = self.limits[index].saturating_sub(last.limits[index]);
            if dropped > 0 {
                tracing::warn!(%reason, dropped, "{message}");
            }
        }
        let evicted = self.half_open_evicted.saturating_sub(last.half_open_evicted);
        if evicted > 0 {
            tracing::warn!(
                evicted,
                "half-open connections made way for newer ones: a flood of SYNs?"
            );
        }
        let evicted = self.fragments_evicted.saturating_sub(last.fragments_evicted);
        if evicted > 0 {
            tracing::warn!(evicted, "packets in pieces made way for newer ones: a flood of them?");
        }
        let refused = self.write_errors.saturating_sub(last.write_errors);
        if refused > 0 {
            let device = &state.device_name;
            tracing::warn!(device, refused, "the kernel did not take packets");
        }
        let dropped = self.queue_full.saturating_sub(last.queue_full);
        if dropped > 0 {
            let device = &state.device_name;
            tracing::warn!(device, dropped, "packets came faster than they could be read");
        }
        let refused = self.unlogged.not_written.saturating_sub(last.unlogged.not_written);
        if refused > 0 {
            let error = state.operation.connection_log().latest_error();
            tracing::warn!(lines = refused, error, "the connection log cannot be written");
        }
        let lost = self.unlogged.queue_full.saturating_sub(last.unlogged.queue_full);
        if lost > 0 {
            tracing::warn!(lines = lost, "connections came faster than they could be logged");
        }
        for seat in &*state.operation.seats() {
            let sums = |sums: &Self| sums.services.get(seat.service().name()).copied();
            // One that was not there before has told nothing yet.
            if let (Some(now), Some(last)) = (sums(self), sums(last)) {
                now.warn_of_growth(&last, seat);
            }
        }
    }
}

/// The counters of one plugin, which begin anew with each generation.
#[derive(Clone, Copy, Debug, Default)]
struct PluginSums {
    generation: u16,
    faults: u64,
    suppressed_lines: u64,
}

impl PluginSums {
    fn of(plugin: &PluginReport) -> Self {
        Self {
            generation: plugin.generation,
            faults: plugin.counters.faults(),
            suppressed_lines: plugin.counters.suppressed_lines(),
        }
    }

    /// What came since `last`, or since the plugin came.
    fn since(self, last: Self) -> Self {
        if self.generation != last.generation {
            return self;
        }
        Self {
            generation: self.generation,
            faults: self.faults.saturating_sub(last.faults),
            suppressed_lines: self.suppressed_lines.saturating_sub(last.suppressed_lines),
        }
    }
}

impl ServiceSums {
    fn of(seat: &Seat) -> Self {
        let counters = seat.service().counters();
        let SeatReport { plugin, rollback, trial, .. } = seat.report();
        let candidate = trial.as_ref().map(|trial| PluginSums::of(&trial.candidate));
        Self {
            at_work: PluginSums::of(&plugin),
            candidate: candidate.unwrap_or_default(),
            rolled_back: rollback.map(|rollback| rollback.from),
            is_trial_stopped: trial.is_some_and(|trial| trial.stopped.is_some()),
            fallback: counters.fallback.get(),
            no_server: counters.no_server.get(),
            pool_exhausted: seat.service().terms().pool().map_or(0, Pool::exhausted),
        }
    }

    fn warn_of_growth(&self, last: &Self, seat: &Seat) {
        let service = seat.service().name();
        let PluginSums { faults, suppressed_lines, .. } = self.at_work.since(last.at_work);
        let lines = suppressed_lines + self.candidate.since(last.candidate).suppressed_lines;
        let fallback = self.fallback.saturating_sub(last.fallback);
        if faults > 0 {
            let plugin = seat.plugin();
            let latest = plugin.counters.last_fault().map(|fault| fault.to_string());
            tracing::warn!(
                service,
                plugin = &*plugin.name,
                faults,
                fallback,
                latest,
                "the scheduler plugin fails; the director places its connections"
            );
        }
        if lines > 0 {
            tracing::warn!(service, lines, "a plugin wrote more log lines than are let through");
        }
        if self.rolled_back.is_some() && self.rolled_back != last.rolled_back {
            let (from, to) = (self.rolled_back, self.at_work.generation);
            tracing::warn!(
                service,
                from,
                to,
                "a new plugin failed on probation; the one before is at work again"
            );
        }
        let generation = self.candidate.generation;
        let was_stopped = last.is_trial_stopped && last.candidate.generation == generation;
        if self.is_trial_stopped && !was_stopped {
            tracing::warn!(
                service,
                generation,
                "the trial of a candidate stopped by itself; `wvs plugin list` says why"
            );
        }
        let refused = self.no_server.saturating_sub(last.no_server);
        if refused > 0 {
            tracing::warn!(service, refused, "no real server could take connections");
        }
        let refused = self.pool_exhausted.saturating_sub(last.pool_exhausted);
        if refused > 0 {
            tracing::warn!(service, refused, "the pool has no free place; give it more addresses");
        }
    }
}
