//! What a service's plugin would answer, without asking it: asked is a copy of it.

use std::sync::Arc;

use tracing::subscriber::{NoSubscriber, with_default};
use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::Pick;

use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::module::Module;
use crate::recording::Snapshot;
use crate::table::ServerTable;

/// The plugin of a service as it is at one moment, with all that it remembers, and the candidate of a
/// trial if that is obeyed for the client in question.
///
/// Taking one copies the plugin's memory under the service's lock: microseconds for the built-in ones,
/// a millisecond for one of a few MiB. Asking it makes an instance, which takes no lock.
pub struct Rehearsal {
    pub(crate) plugin: Understudy,
    pub(crate) candidate: Option<Understudy>,
}

/// A copy of one plugin.
pub(crate) struct Understudy {
    pub(crate) module: Module,
    pub(crate) config: Option<Arc<str>>,
    pub(crate) generation: u16,
    /// `None` while the plugin has no instance and so cannot be asked.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) table: Arc<ServerTable>,
    pub(crate) quarantined_ms: u64,
}

/// What a plugin would answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// The plugin.
    pub plugin: Arc<str>,
    /// Its generation at the service.
    pub generation: u16,
    /// Whether it is the candidate of a trial.
    pub is_candidate: bool,
    /// What it would answer.
    pub answer: RehearsedAnswer,
    /// Whether its copy remembers all that is in the plugin's memory. Otherwise it answers like one
    /// that was just started.
    pub is_exact: bool,
}

/// What a plugin would answer, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RehearsedAnswer {
    /// This.
    Pick(Pick),
    /// It would fail.
    Fault(Fault),
    /// It is being made anew, or quarantined for so many milliseconds.
    Unavailable(u64),
}

impl Rehearsal {
    /// Puts `request` to the copy, over `servers` as they are now.
    ///
    /// # Errors
    /// No instance of the plugin can be made.
    pub fn ask(
        &self,
        request: &Request,
        servers: &[Arc<RealServer>],
    ) -> Result<Rehearsed, InstanceError> {
        if let Some(candidate) = &self.candidate {
            let rehearsed = candidate.ask(request, servers, true)?;
            // What it has no answer to is decided as if it were not there.
            let pick = &rehearsed.answer;
            if matches!(pick, RehearsedAnswer::Pick(Pick::Server(_) | Pick::NoServer)) {
                return Ok(rehearsed);
            }
        }
        self.plugin.ask(request, servers, false)
    }
}

impl Understudy {
    fn ask(
        &self,
        request: &Request,
        servers: &[Arc<RealServer>],
        is_candidate: bool,
    ) -> Result<Rehearsed, InstanceError> {
        let (answer, is_exact) = match &self.snapshot {
            // What it says to the log is not what the plugin said.
            Some(snapshot) => {
                with_default(NoSubscriber::new(), || self.play(snapshot, request, servers))?
            }
            None => (RehearsedAnswer::Unavailable(self.quarantined_ms), true),
        };
        Ok(Rehearsed {
            plugin: Arc::clone(self.module.shared_name()),
            generation: self.generation,
            is_candidate,
            answer,
            is_exact,
        })
    }

    fn play(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        servers: &[Arc<RealServer>],
    ) -> Result<(RehearsedAnswer, bool), InstanceError> {
        let mut instance = Instance::new(&self.module, self.config.as_deref())?;
        instance.set_servers(&self.table).map_err(InstanceError::Servers)?;
        let is_exact = instance.restore(snapshot, &self.table);
        let table = ServerTable::new(servers);
        if !table.has_same_servers(&self.table) {
            instance.set_servers(&table).map_err(InstanceError::Servers)?;
        }
        if instance.wants_signals() {
            instance.set_signals(servers.iter().map(|server| server.signals()));
        }
        let counts = servers.iter().map(|server| (server.active(), server.inactive()));
        let answer = match instance.schedule(request, counts) {
            Ok(pick) => RehearsedAnswer::Pick(pick),
            Err(fault) => RehearsedAnswer::Fault(fault),
        };
        Ok((answer, is_exact))
    }
}
