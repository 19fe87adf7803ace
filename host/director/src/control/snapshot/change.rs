//! What a change of schedulers changed.

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
    /// The services at which something changed.
    pub services: Vec<ServiceReload>,
}

/// What a reload changed at a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReload {
    /// The service.
    pub service: String,
    /// Another plugin, or the same with other limits, another file or configuration.
    pub scheduler: Option<SwapSnapshot>,
    /// What had been put to work while the director ran, against the file, and went.
    pub undone: Option<GenerationSnapshot>,
    /// What became of the trial.
    pub trial: Option<TrialReload>,
    /// The new probation.
    pub probation: Option<u64>,
    /// The octets that are recorded from now on; 0 for nothing.
    pub record: Option<usize>,
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
    /// Whether anything changed.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.scheduler.is_some()
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
