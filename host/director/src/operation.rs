//! The services of a running director, and everything that changes them while traffic flows: what
//! somebody asks for, a plugin's file that changed, a health check's word, the configuration read
//! again.
//!
//! Most of it waits, for compilation above all: it is for threads that nobody waits for, and never
//! for those of packets.

#[cfg(test)]
mod fixture;
mod plan;
pub mod reload;
pub mod servers;
mod step;
pub mod watch;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinError;
use wvs_core::director::Director;
use wvs_core::service::Service;
use wvs_core::services::Services;
use wvs_plugin::{Host, Limits, Source, TrialLimits, builtin};

use crate::clock::Clock;
use crate::config::Config;
use crate::config::units::Percent;
use crate::connection_log::ConnectionLog;
use crate::control::snapshot::{ChangeSnapshot, GenerationSnapshot, SwapSnapshot};
use crate::deployment::{MisfitCause, Numbers, load_named};
use crate::route::{RouteError, RouteNeeds};
use crate::seat::{Generation, Seat, SeatError, Swapped};

/// The services of a running director.
pub struct Operation {
    host: Host,
    director: Arc<Director>,
    clock: Clock,
    ways: Box<dyn Ways>,
    connection_log: ConnectionLog,
    /// Where the configuration came from.
    file: PathBuf,
    /// What it said when it was last put to work.
    config: ArcSwap<Config>,
    seats: ArcSwap<Vec<Arc<Seat>>>,
    /// Held while something is put to work: one at a time.
    works: Mutex<Works>,
    /// Tells that the configuration was read again, and whether it was put to work.
    reloads: Sender<bool>,
}

/// What leads packets to the director.
pub trait Ways: Send + Sync {
    /// Leads there what `needs` says, and nothing else of what it led before. May wait.
    ///
    /// # Errors
    /// See [`RouteError`]; nothing has changed.
    fn lead(&self, needs: RouteNeeds) -> Result<(), RouteError>;
}

/// What is remembered between two changes.
struct Works {
    numbers: Numbers,
    /// By service: what the configuration and the files of its plugins put at its seat.
    filed: HashMap<String, Filed>,
    /// Services that are no longer in the configuration and whose connections go on.
    retired: Vec<Arc<Service>>,
    /// Virtual addresses that are no longer in the configuration and that connections still have.
    old_vips: Vec<IpAddr>,
    /// Packets find, or are led to, what nothing needs any more.
    is_untidy: bool,
    /// What packets found until a moment ago. Kept a while, so that none that is still under way is
    /// the one to free it all.
    before: Option<Arc<Services>>,
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

/// Why nothing was changed about a service.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such service.
    #[error("there is no service {service}; `wvs list` shows those that there are")]
    NoService {
        /// The name asked for.
        service: String,
    },
    /// No such real server.
    #[error(
        "service {service} has no real server {server}; `wvs list {service}` shows those that it has"
    )]
    NoServer {
        /// The service.
        service: String,
        /// The address asked for.
        server: String,
    },
    /// Several real servers are meant.
    #[error("service {service} has several real servers at {server}; name one with its port")]
    SeveralServers {
        /// The service.
        service: String,
        /// The address asked for.
        server: String,
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
    #[error("the change panicked: this is a bug in wvs, please report what its log says")]
    Panicked(#[from] JoinError),
}

/// What an operation works with.
pub struct Parts {
    /// What loads plugins.
    pub host: Host,
    /// The director.
    pub director: Arc<Director>,
    /// Its clock.
    pub clock: Clock,
    /// What leads packets to it.
    pub ways: Box<dyn Ways>,
    /// The log of its connections, as the configuration wants it.
    pub connection_log: ConnectionLog,
    /// Who schedules for its services, in the order of the configuration.
    pub seats: Vec<Arc<Seat>>,
    /// The numbers that are still free.
    pub numbers: Numbers,
    /// The configuration that it was started with.
    pub config: Config,
    /// Where that came from.
    pub file: PathBuf,
}

impl Operation {
    /// The services that a configuration has just put to work.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { host, director, clock, ways, connection_log, seats, numbers, config, file } =
            parts;
        let filed = seats.iter().map(|seat| (name(seat), Filed::of(seat))).collect();
        let works = Works {
            numbers,
            filed,
            retired: Vec::new(),
            old_vips: Vec::new(),
            is_untidy: false,
            before: None,
        };
        Self {
            host,
            director,
            clock,
            ways,
            connection_log,
            file,
            config: ArcSwap::from_pointee(config),
            seats: ArcSwap::from_pointee(seats),
            works: Mutex::new(works),
            reloads: Sender::new(true),
        }
    }

    /// The services and their plugins, in the order of the configuration.
    #[must_use]
    pub fn seats(&self) -> Arc<Vec<Arc<Seat>>> {
        self.seats.load_full()
    }

    /// What the configuration says that is at work.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Tells each time that the configuration was read again, from now on, and whether it was put to
    /// work.
    #[must_use]
    pub fn reloads(&self) -> Receiver<bool> {
        self.reloads.subscribe()
    }

    /// The log of the connections.
    #[must_use]
    pub fn connection_log(&self) -> &ConnectionLog {
        &self.connection_log
    }

    /// The file of the configuration.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
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
        let seat = &*self.seat(service)?;
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

    fn seat(&self, service: &str) -> Result<Arc<Seat>, ChangeError> {
        let seats = self.seats.load();
        let mut seats = seats.iter();
        let found = seats.find(|seat| seat.service().name() == service).cloned();
        found.ok_or_else(|| ChangeError::NoService { service: service.to_owned() })
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

    fn works(&self) -> MutexGuard<'_, Works> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has packets find what is at work now.
    fn publish(&self, works: &mut Works) {
        let seats = self.seats.load();
        let list = seats.iter().map(|seat| Arc::clone(seat.service())).collect();
        let services = Services::new(list, works.retired.clone(), &works.old_vips);
        works.before = Some(self.director.set_services(services));
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Filed {
    /// What is at a seat now.
    fn of(seat: &Seat) -> Self {
        Self { at_work: seat.plugin().generation, candidate: candidate_number(seat) }
    }
}

fn name(seat: &Seat) -> String {
    seat.service().name().to_owned()
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
