//! The plugins of each service: those at work, those before them and those on trial.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wvs_plugin::{FaultKind, PluginCounters, PluginReport, ServerPicks, Stop, TrialReport};

use crate::config::units::Percent;
use crate::deployment::hex;
use crate::seat::{Seat, SeatReport};

/// Answer to `GET /v1/plugins`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginsSnapshot {
    /// The director's version.
    pub version: String,
    /// The virtual services in the order of the configuration.
    pub services: Vec<SeatSnapshot>,
}

/// The plugins of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatSnapshot {
    /// The service's name.
    pub service: String,
    /// The plugin at work.
    pub plugin: PluginSnapshot,
    /// For how many decisions a new plugin's predecessor is kept at hand.
    pub probation: u64,
    /// Octets of what the plugins are told and answer that are kept, if any.
    pub record: Option<usize>,
    /// The generations that can be rolled back to, the latest first.
    pub past: Vec<GenerationSnapshot>,
    /// How often a plugin was replaced, roll-backs included.
    pub swaps: u64,
    /// The latest time that a plugin failed on probation, and its predecessor took over by itself.
    pub rollback: Option<RollbackSnapshot>,
    /// The candidate.
    pub trial: Option<TrialSnapshot>,
}

/// A plugin with its configuration that has or had a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationSnapshot {
    /// Its number at the service.
    pub generation: u16,
    /// The plugin's name.
    pub plugin: String,
}

impl fmt::Display for GenerationSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (generation {})", self.plugin, self.generation)
    }
}

/// A plugin at a service and what it did there. Counts begin when it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSnapshot {
    /// Its name.
    pub name: String,
    /// Its number, with its configuration, at the service.
    pub generation: u16,
    /// The SHA-256 hash of the module in hexadecimal digits.
    pub sha256: String,
    /// Its configuration.
    pub config: Option<serde_json::Value>,
    /// Octets of memory that its instance has.
    pub memory: usize,
    /// Milliseconds for which it is not asked; 0 when it is.
    pub quarantined_ms: u64,
    /// Decisions for a server.
    pub picks: u64,
    /// Decisions that no server can take the connection.
    pub no_server: u64,
    /// Decisions that it left to the director.
    pub defers: u64,
    /// Decisions that the director made while the plugin was quarantined or being made anew.
    pub unavailable: u64,
    /// Everything that it did wrong.
    pub faults: u64,
    /// The same by kind.
    pub faults_by_kind: BTreeMap<String, u64>,
    /// The latest fault, in a sentence.
    pub last_fault: Option<String>,
    /// How often it was quarantined.
    pub quarantines: u64,
    /// Instances made to replace one that failed.
    pub rebuilds: u64,
    /// Events that it was told of.
    pub events: u64,
    /// Ticks.
    pub ticks: u64,
    /// Lines that it wrote to the log.
    pub log_lines: u64,
    /// Lines that came too fast and were not written.
    pub suppressed_lines: u64,
    /// Fuel that its decisions took.
    pub fuel: FuelSnapshot,
    /// Time that some of its decisions took.
    pub time: TimeSnapshot,
}

/// What decisions cost in fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FuelSnapshot {
    /// All together.
    pub sum: u64,
    /// One on average.
    pub mean: u64,
    /// The dearest.
    pub max: u64,
}

/// What decisions cost in time. One in 64 is timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSnapshot {
    /// Decisions timed.
    pub timed: u64,
    /// Nanoseconds of all of them.
    pub sum_ns: u64,
    /// Nanoseconds of one on average.
    pub mean_ns: u64,
    /// Nanoseconds of the longest.
    pub max_ns: u64,
    /// How many took less than 64, 128, 256 .. nanoseconds, but not less than the one before; the
    /// last has the rest.
    pub buckets: Vec<u64>,
}

/// That a plugin failed on probation and its predecessor took its place again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackSnapshot {
    /// The generation that failed.
    pub from: u16,
    /// What it did, in a sentence.
    pub fault: Option<String>,
}

/// A candidate that is asked beside the plugin at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSnapshot {
    /// The candidate.
    pub candidate: PluginSnapshot,
    /// The percentage of clients for which it is obeyed.
    pub share: Percent,
    /// Decisions at which both were asked.
    pub decisions: u64,
    /// Decisions at which both said the same.
    pub agreements: u64,
    /// Decisions that were the candidate's.
    pub obeyed: u64,
    /// The percentage of all connections that would go to other servers.
    pub skew: Percent,
    /// Who picked which server how often.
    pub picks: Vec<PicksSnapshot>,
    /// After so many faults it stops by itself.
    pub faults_max: u64,
    /// Above this percentage a canary stops by itself.
    pub skew_max: Percent,
    /// Why it stopped by itself.
    pub stopped: Option<String>,
}

/// How often a real server was picked in a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicksSnapshot {
    /// The real server; none when it is no longer there.
    pub server: Option<SocketAddr>,
    /// By the plugin at work.
    pub plugin: u64,
    /// By the candidate.
    pub candidate: u64,
}

impl From<&Seat> for SeatSnapshot {
    fn from(seat: &Seat) -> Self {
        let SeatReport { plugin, config, past, swaps, rollback, trial } = seat.report();
        let past = past.into_iter();
        Self {
            service: seat.service().name().to_owned(),
            plugin: PluginSnapshot::of(&plugin, config.as_deref()),
            probation: seat.probation(),
            record: seat.record(),
            past: past
                .map(|(generation, plugin)| GenerationSnapshot { generation, plugin })
                .collect(),
            swaps,
            rollback: rollback.map(|rollback| RollbackSnapshot {
                from: rollback.from,
                fault: rollback.fault.map(|fault| fault.to_string()),
            }),
            trial: trial.map(|trial| TrialSnapshot::of(&trial, seat)),
        }
    }
}

impl PluginSnapshot {
    fn of(report: &PluginReport, config: Option<&str>) -> Self {
        let PluginReport { name, generation, sha256, counters, quarantined_ms, memory } = report;
        let faults_of = |kind: FaultKind| (kind.name().to_owned(), counters.faults_of(kind));
        Self {
            name: name.to_string(),
            generation: *generation,
            sha256: hex(sha256),
            // It was JSON when it came in.
            config: config.and_then(|config| serde_json::from_str(config).ok()),
            memory: *memory,
            quarantined_ms: *quarantined_ms,
            picks: counters.picks(),
            no_server: counters.no_server(),
            defers: counters.defers(),
            unavailable: counters.unavailable(),
            faults: counters.faults(),
            faults_by_kind: FaultKind::ALL.into_iter().map(faults_of).collect(),
            last_fault: counters.last_fault().map(|fault| fault.to_string()),
            quarantines: counters.quarantines(),
            rebuilds: counters.rebuilds(),
            events: counters.events(),
            ticks: counters.ticks(),
            log_lines: counters.log_lines(),
            suppressed_lines: counters.suppressed_lines(),
            fuel: counters.as_ref().into(),
            time: counters.as_ref().into(),
        }
    }
}

impl From<&PluginCounters> for FuelSnapshot {
    fn from(counters: &PluginCounters) -> Self {
        let answers = counters.picks() + counters.no_server() + counters.defers();
        let mean = counters.fuel() / (answers + counters.faults()).max(1);
        Self { sum: counters.fuel(), mean, max: counters.fuel_max() }
    }
}

impl From<&PluginCounters> for TimeSnapshot {
    fn from(counters: &PluginCounters) -> Self {
        Self {
            timed: counters.timed(),
            sum_ns: counters.time_ns(),
            mean_ns: counters.time_ns() / counters.timed().max(1),
            max_ns: counters.time_ns_max(),
            buckets: counters.times().to_vec(),
        }
    }
}

impl TrialSnapshot {
    fn of(report: &TrialReport, seat: &Seat) -> Self {
        let candidate = seat.candidate();
        let config = candidate.as_ref().and_then(|(_, candidate)| candidate.config.as_deref());
        let servers = seat.service().servers();
        // In the order of the configuration; servers that are no longer there come last.
        let place = |picks: &ServerPicks| {
            let place = servers.iter().position(|server| server.id() == picks.server_id);
            place.unwrap_or(servers.len())
        };
        let mut picks = report.picks.clone();
        picks.sort_by_key(place);
        let picks = picks.iter().map(|picks| PicksSnapshot {
            server: servers.get(place(picks)).map(|server| server.address()),
            plugin: picks.plugin,
            candidate: picks.candidate,
        });
        let stopped = |stop| match stop {
            Stop::Faults(1) => "1 fault".to_owned(),
            Stop::Faults(faults) => format!("{faults} faults"),
            Stop::Skew(skew) => format!("a skew of {}", Percent::of_hundredths(skew)),
        };
        Self {
            candidate: PluginSnapshot::of(&report.candidate, config),
            share: Percent::of_hundredths(report.share),
            decisions: report.decisions,
            agreements: report.agreements,
            obeyed: report.obeyed,
            skew: Percent::of_hundredths(report.skew),
            picks: picks.collect(),
            faults_max: report.limits.faults,
            skew_max: Percent::of_hundredths(report.limits.skew),
            stopped: report.stopped.map(stopped),
        }
    }
}
