//! The schedulers of a running director, and everything that changes them while traffic flows:
//! what somebody asks for, a plugin's file that changed, the configuration read again.
//!
//! All of it waits, for compilation above all: it is for threads that nobody waits for, and never
//! for those of packets.

#[cfg(test)]
mod fixture;
pub mod reload;
mod step;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinError;
use wvs_plugin::{Host, Limits, Source, TrialLimits, builtin};

use crate::config::Config;
use crate::config::units::Percent;
use crate::control::snapshot::{ChangeSnapshot, GenerationSnapshot, SwapSnapshot};
use crate::deployment::{MisfitCause, load_named};
use crate::seat::{Generation, Seat, SeatError, Swapped};

/// Who schedules for each service of a running director.
#[derive(Debug)]
pub struct Schedulers {
    host: Host,
    seats: Vec<Seat>,
    /// Where the configuration came from.
    file: PathBuf,
    /// What it said when it was last put to work.
    config: Mutex<Arc<Config>>,
    /// What the configuration and the files of its plugins put at each seat. Held while they are
    /// put to work: one at a time.
    filed: Mutex<Vec<Filed>>,
}

/// The generations that the configuration put at a seat. Others are there by somebody's wish, or
/// because one of these failed.
#[derive(Clone, Copy, Debug)]
struct Filed {
    at_work: u16,
    candidate: Option<u16>,
}

/// What to do about the scheduler of a service.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give the service to another plugin.
    Swap(Proposal),
    /// Give it back to the plugin that had it before.
    Rollback,
    /// Forget the plugin's faults and start it anew.
    Reset,
    /// Ask a candidate beside the plugin, until it fails as the limits say.
    Shadow(Proposal, TrialLimits),
    /// Obey the candidate for this share of the clients.
    Canary(Percent),
    /// Give the service to the candidate.
    Promote,
    /// Ask the candidate no more.
    EndTrial,
}

/// A plugin for a service, with the configuration that it is to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The plugin.
    pub plugin: ProposedPlugin,
    /// Its configuration as JSON text.
    pub config: Option<String>,
}

/// Where a proposed plugin comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposedPlugin {
    /// A built-in, or a plugin of the configuration, whose file is read again.
    Named(String),
    /// A module. It gets the limits of the configuration's plugin of its name, if there is one.
    Module {
        /// What to call it.
        name: String,
        /// The module.
        octets: Vec<u8>,
    },
}

/// Why a scheduler was not changed. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such service.
    #[error("there is no service {service}; `wvs plugin list` shows those that there are")]
    NoService {
        /// The name asked for.
        service: String,
    },
    /// No such plugin.
    #[error(
        "there is no plugin {plugin}: neither a built-in ({}) nor one of the configuration's; to \
         send a file give its path, ending in .wasm", builtin::NAMES.join(", ")
    )]
    NoPlugin {
        /// The name asked for.
        plugin: String,
    },
    /// The plugin cannot be loaded.
    #[error("{plugin} cannot be loaded: {cause}")]
    Unfit {
        /// Its name.
        plugin: String,
        /// What is wrong with it.
        cause: MisfitCause,
    },
    /// The plugin does not get the service.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// A bug of ours.
    #[error(
        "changing the scheduler panicked: this is a bug in wvs, please report what its log says"
    )]
    Panicked(#[from] JoinError),
}

impl Schedulers {
    /// The schedulers of services that `config`, read from `file`, has just put to work.
    #[must_use]
    pub fn new(host: Host, seats: Vec<Seat>, config: Config, file: &Path) -> Self {
        let filed = seats.iter().map(Filed::of).collect();
        Self {
            host,
            seats,
            file: file.to_owned(),
            config: Mutex::new(Arc::new(config)),
            filed: Mutex::new(filed),
        }
    }

    /// The services and their plugins, in the order of the configuration.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// What the configuration says that is at work.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was recorded at a service, as a file.
    ///
    /// # Errors
    /// No such service, or nothing is recorded there.
    pub fn recording(&self, service: &str) -> Result<Vec<u8>, ChangeError> {
        Ok(self.seat(service)?.recording()?)
    }

    /// Does something about the scheduler of a service. No connection notices.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError> {
        let seat = self.seat(service)?;
        let change = match action {
            Action::Swap(proposal) => {
                let generation = self.load(proposal)?;
                swap_of(service, seat.swap(generation)?)
            }
            Action::Rollback => swap_of(service, seat.rollback()?),
            Action::Promote => swap_of(service, seat.promote()?),
            Action::Reset => {
                seat.reset();
                let plugin = name_at_work(seat);
                tracing::info!(service, plugin = plugin.plugin, "scheduler started anew");
                ChangeSnapshot::Reset { service: service.to_owned(), plugin }
            }
            Action::Shadow(proposal, limits) => {
                let generation = self.load(proposal)?;
                let plugin = generation.module.name().to_owned();
                let number = seat.try_out(generation, 0, limits)?;
                tracing::info!(service, plugin, generation = number, "trial of a candidate begins");
                let candidate = GenerationSnapshot { generation: number, plugin };
                ChangeSnapshot::Shadow { service: service.to_owned(), candidate }
            }
            Action::Canary(share) => {
                seat.set_share(share.hundredths())?;
                let candidate = name_of_candidate(seat)?;
                let plugin = &candidate.plugin;
                tracing::info!(service, plugin, %share, "the candidate decides for some clients");
                ChangeSnapshot::Canary { service: service.to_owned(), candidate, share }
            }
            Action::EndTrial => {
                let candidate = name_of_candidate(seat)?;
                seat.end_trial()?;
                tracing::info!(service, plugin = candidate.plugin, "trial ended");
                ChangeSnapshot::TrialEnded { service: service.to_owned(), candidate }
            }
        };
        Ok(change)
    }

    fn seat(&self, service: &str) -> Result<&Seat, ChangeError> {
        self.seats
            .iter()
            .find(|seat| seat.service().name() == service)
            .ok_or_else(|| ChangeError::NoService { service: service.to_owned() })
    }

    /// Loads a proposed plugin.
    fn load(&self, proposal: Proposal) -> Result<Generation, ChangeError> {
        let known = self.config();
        let (name, loaded) = match proposal.plugin {
            ProposedPlugin::Named(name) => {
                if known.plugin(&name).is_none() && !builtin::NAMES.contains(&name.as_str()) {
                    return Err(ChangeError::NoPlugin { plugin: name });
                }
                let loaded = load_named(&name, &known, &self.host);
                (name, loaded)
            }
            ProposedPlugin::Module { name, octets } => {
                let limits = known.plugin(&name).map_or_else(Limits::default, |known| known.limits);
                let source = Source::Octets { name: &name, octets: &octets };
                let loaded = self.host.load(source, limits).map_err(MisfitCause::from);
                (name, loaded)
            }
        };
        let module = loaded.map_err(|cause| ChangeError::Unfit { plugin: name, cause })?;
        Ok(Generation { module, config: proposal.config.map(Arc::from) })
    }

    fn filed(&self) -> MutexGuard<'_, Vec<Filed>> {
        self.filed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filed {
    /// What is at a seat now.
    fn of(seat: &Seat) -> Self {
        Self { at_work: seat.plugin().generation, candidate: candidate_number(seat) }
    }
}

fn candidate_number(seat: &Seat) -> Option<u16> {
    seat.candidate().map(|(number, _)| number)
}

fn name_at_work(seat: &Seat) -> GenerationSnapshot {
    let plugin = seat.plugin();
    GenerationSnapshot { generation: plugin.generation, plugin: plugin.name.to_string() }
}

fn name_of_candidate(seat: &Seat) -> Result<GenerationSnapshot, SeatError> {
    let (generation, candidate) = seat.candidate().ok_or(SeatError::NoTrial)?;
    Ok(GenerationSnapshot { generation, plugin: candidate.module.name().to_owned() })
}

fn swap_of(service: &str, swapped: Swapped) -> ChangeSnapshot {
    let swap = SwapSnapshot::from(swapped);
    tell_swap(service, &swap);
    ChangeSnapshot::Swap { service: service.to_owned(), swap }
}

/// Says in the log that a plugin took another one's place.
fn tell_swap(service: &str, swap: &SwapSnapshot) {
    let SwapSnapshot { from, to, is_state_carried, took_us } = swap;
    tracing::info!(service, %from, %to, is_state_carried, took_us, "scheduler replaced");
}
