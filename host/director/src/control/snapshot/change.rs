//! What changes changed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::GenerationSnapshot;
use crate::config::units::Percent;
use crate::seat::Swapped;

/// Answer to `POST /v1/services/NAME/scheduler/..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ChangeSnapshot {
    /// Another plugin has the service.
    Swap {
        /// The service.
        service: String,
        /// Which.
        #[serde(flatten)]
        swap: SwapSnapshot,
    },
    /// The plugin was started anew.
    Reset {
        /// The service.
        service: String,
        /// The plugin.
        plugin: GenerationSnapshot,
    },
    /// A candidate is asked beside the plugin.
    Shadow {
        /// The service.
        service: String,
        /// The candidate.
        candidate: GenerationSnapshot,
    },
    /// The candidate is obeyed for a share of the clients.
    Canary {
        /// The service.
        service: String,
        /// The candidate.
        candidate: GenerationSnapshot,
        /// The percentage of clients.
        share: Percent,
    },
    /// The candidate is not asked any more.
    TrialEnded {
        /// The service.
        service: String,
        /// What was the candidate.
        candidate: GenerationSnapshot,
    },
}

/// That a plugin took another one's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapSnapshot {
    /// Who had the service before.
    pub from: GenerationSnapshot,
    /// Who has it now.
    pub to: GenerationSnapshot,
    /// Whether it goes on where the other one was.
    pub is_state_carried: bool,
    /// Microseconds for which new connections may have waited.
    pub took_us: u64,
}

/// Answer to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSnapshot {
    /// The keys outside of services that say something else now.
    pub settings: Vec<String>,
    /// The services at which something changed.
    pub services: Vec<ServiceReload>,
}

/// Answer to `POST /v1/services/NAME/servers/SERVER/..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStanding {
    /// The service.
    pub service: String,
    /// RIP and port.
    pub server: SocketAddr,
    /// The weight by which connections go to it now.
    pub weight: u32,
    /// Its connections now.
    pub connections: u32,
    /// Milliseconds until the end of its drain, if that has a deadline.
    pub drain_ms: Option<u64>,
}

impl ReloadSnapshot {
    /// With those of `services` that say something.
    #[must_use]
    pub fn of(settings: Vec<String>, services: impl Iterator<Item = ServiceReload>) -> Self {
        Self { settings, services: services.filter(ServiceReload::is_change).collect() }
    }
}

/// What a reload changed at a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReload {
    /// The service.
    pub service: String,
    /// What became of the service itself.
    pub fate: ServiceFate,
    /// The keys of the service that say something else now.
    pub settings: Vec<String>,
    /// What became of its real servers.
    pub servers: Vec<ServerReload>,
    /// Another plugin, or the same with other limits, another file or configuration.
    pub scheduler: Option<SchedulerReload>,
    /// What had been put to work while the director ran, against the file, and went.
    pub undone: Option<GenerationSnapshot>,
    /// What became of the trial.
    pub trial: Option<TrialReload>,
    /// The new probation.
    pub probation: Option<u64>,
    /// The octets that are recorded from now on; 0 for nothing.
    pub record: Option<usize>,
}

/// What a reload does about a service's plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SchedulerReload {
    /// Another one took its place.
    Done(SwapSnapshot),
    /// Another one would take it.
    Planned {
        /// Who has the service.
        from: GenerationSnapshot,
        /// Who would get it, with the number 0.
        to: GenerationSnapshot,
    },
}

/// What a reload made of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceFate {
    /// It goes on, and something about it changed.
    Changed,
    /// It is new.
    Added,
    /// It is gone. Connections go on as its `drain` says.
    Removed,
    /// It changed so much that another one took its place, and connections go on with the old one.
    Replaced,
}

/// What a reload changed about a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReload {
    /// RIP and port.
    pub server: SocketAddr,
    /// What changed.
    #[serde(flatten)]
    pub change: ServerChange,
}

/// See [`ServerReload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ServerChange {
    /// It is new.
    Added {
        /// Its weight.
        weight: u32,
    },
    /// It is gone.
    Removed {
        /// Its connections, which go on as the service's `drain` says.
        connections: u32,
    },
    /// Its weight.
    Weight {
        /// What the file said before.
        from: u32,
        /// What it says now.
        to: u32,
    },
    /// Other keys.
    Settings {
        /// Which.
        keys: Vec<String>,
    },
    /// Somebody had given it another weight while the director ran, which went.
    WeightUndone {
        /// That weight.
        weight: u32,
    },
    /// Somebody had drained it while the director ran, and it is not drained any more.
    DrainUndone,
}

/// What a reload changed about a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialReload {
    /// It began.
    Begun {
        /// The candidate.
        candidate: GenerationSnapshot,
        /// The percentage of clients for which it is obeyed.
        share: Percent,
    },
    /// The candidate is obeyed for another share of the clients.
    Share {
        /// The candidate.
        candidate: GenerationSnapshot,
        /// The percentage before.
        from: Percent,
        /// The percentage now.
        to: Percent,
    },
    /// It ended.
    Ended {
        /// What was the candidate.
        candidate: GenerationSnapshot,
        /// Whether it had been begun while the director ran, and not by the file.
        is_undone: bool,
    },
}

impl ServiceReload {
    /// That this is the service's fate, and nothing else.
    #[must_use]
    pub fn new(service: &str, fate: ServiceFate) -> Self {
        Self {
            service: service.to_owned(),
            fate,
            settings: Vec::new(),
            servers: Vec::new(),
            scheduler: None,
            undone: None,
            trial: None,
            probation: None,
            record: None,
        }
    }

    /// Whether anything changed.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.fate != ServiceFate::Changed
            || !self.settings.is_empty()
            || !self.servers.is_empty()
            || self.scheduler.is_some()
            || self.trial.is_some()
            || self.probation.is_some()
            || self.record.is_some()
    }
}

impl From<Swapped> for SwapSnapshot {
    fn from(swapped: Swapped) -> Self {
        let Swapped { from, from_plugin, to, to_plugin, is_state_carried, took } = swapped;
        Self {
            from: GenerationSnapshot { generation: from, plugin: from_plugin },
            to: GenerationSnapshot { generation: to, plugin: to_plugin },
            is_state_carried,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
