//! The scheduler of one virtual service: a plugin, for a while its predecessor behind it, and
//! perhaps a candidate beside it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use wvs_abi::{Request, export};
use wvs_core::event::Event;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};

use crate::counters::PluginCounters;
use crate::error::InstanceError;
use crate::fault::Fault;
use crate::module::Module;
use crate::plugin::{Answer, Plugin};
use crate::recorder::Recorder;
use crate::rehearsal::Rehearsal;
use crate::table::ServerTable;
use crate::trial::{Trial, TrialLimits, TrialReport};

/// Milliseconds between two looks at whether a plugin that did not want to tick any more was made anew.
const TICK_LOOK_MS: u64 = 1_000;

/// A plugin that schedules for one virtual service.
///
/// Its answers are those of the plugin, or [`Pick::Defer`] when the plugin failed at this request,
/// is being replaced after having failed, or is quarantined for having failed too often.
///
/// Its clock is the requests' `now_ms`: the same requests over the same servers give the same
/// picks, up to how soon a failed instance is replaced.
pub struct WasmScheduler {
    plugin: Plugin,
    probation: Option<Box<Probation>>,
    trial: Option<Box<Trial>>,
    /// Who gave the last answer.
    answered: u16,
    rollback: Option<Rollback>,
    recorder: Option<Arc<Recorder>>,
}

/// The time in which a plugin's predecessor is kept at hand.
struct Probation {
    predecessor: Plugin,
    /// Faults that the plugin had before, as a candidate.
    faults_before: u64,
    /// Decisions without a fault until the plugin has proven itself.
    decisions_left: u64,
}

/// That a plugin failed while it was on probation and its predecessor took its place again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The generation that failed.
    pub from: u16,
    /// What it did.
    pub fault: Option<Fault>,
}

/// A plugin as it stands at a virtual service.
#[derive(Clone, Debug)]
pub struct PluginReport {
    /// The name that it was loaded under.
    pub name: Arc<str>,
    /// The number of this plugin with this configuration at this service.
    pub generation: u16,
    /// The SHA-256 hash of the module.
    pub sha256: [u8; 32],
    /// What it did.
    pub counters: Arc<PluginCounters>,
    /// Milliseconds for which it is not asked; 0 when it is.
    pub quarantined_ms: u64,
    /// Octets of memory of its instance; 0 while it has none.
    pub memory: usize,
}

/// What came of putting a scheduler in the place of another. To be dropped where nobody waits:
/// what is not needed any more goes with it.
#[derive(Debug)]
pub struct Succession {
    /// Whether the new one goes on where the old one was.
    pub is_state_carried: bool,
    _left_over: LeftOver,
}

/// Plugins that are not needed any more. Dropping them unmaps memory, which takes its time.
#[derive(Debug, Default)]
pub struct LeftOver(Vec<Plugin>);

impl fmt::Debug for WasmScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmScheduler").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

impl WasmScheduler {
    pub(crate) fn new(
        module: &Module,
        config: Option<&str>,
        table: ServerTable,
    ) -> Result<Self, InstanceError> {
        let plugin = Plugin::new(module, config, table)?;
        let answered = plugin.generation();
        Ok(Self { plugin, probation: None, trial: None, answered, rollback: None, recorder: None })
    }

    /// The same under a number of its own at the service, 1 or more, which connections remember.
    #[must_use]
    pub fn numbered(mut self, generation: u16) -> Self {
        self.plugin.set_generation(generation);
        self.answered = generation;
        self
    }

    /// The plugin scheduler that a virtual service has, `None` if it has one of another kind.
    pub fn of(scheduler: &dyn Scheduler) -> Option<&Self> {
        (scheduler as &dyn Any).downcast_ref()
    }

    /// The same, to change it.
    pub fn of_mut(scheduler: &mut dyn Scheduler) -> Option<&mut Self> {
        (scheduler as &mut dyn Any).downcast_mut()
    }

    /// What the plugin did so far, also for later: the counters live on with whoever has them.
    #[must_use]
    pub fn counters(&self) -> Arc<PluginCounters> {
        Arc::clone(self.plugin.counters())
    }

    /// The plugin at work.
    #[must_use]
    pub fn report(&self) -> PluginReport {
        PluginReport::of(&self.plugin)
    }

    /// The module of the plugin at work.
    #[must_use]
    pub fn module(&self) -> &Module {
        self.plugin.module()
    }

    /// The configuration of the plugin at work.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<str>> {
        self.plugin.config()
    }

    /// A copy of who would decide on this request, to be asked in its place.
    #[must_use]
    pub fn rehearsal(&self, request: &Request) -> Rehearsal {
        Rehearsal {
            plugin: self.plugin.understudy(),
            candidate: self.trial.as_ref().and_then(|trial| trial.understudy(request)),
        }
    }

    /// The latest time that a plugin failed on probation.
    #[must_use]
    pub fn rollback(&self) -> Option<&Rollback> {
        self.rollback.as_ref()
    }

    /// Lets `next` take this one's place, with what it knows. For its first `probation` decisions
    /// the old plugin stays at hand: at a fault it takes its place again, in the same decision. A
    /// trial ends.
    ///
    /// # Errors
    /// `next` failed on the old one's state. Nothing has changed then.
    pub fn succeed(
        &mut self,
        mut next: Self,
        servers: &[Arc<RealServer>],
        probation: u64,
    ) -> Result<Succession, Fault> {
        next.plugin.servers_changed(servers);
        let state = self.plugin.save_state();
        next.plugin.record(self.recorder.clone());
        let is_state_carried = match &state {
            Some(state) => match next.plugin.load_state(state) {
                Ok(is_taken) => is_taken,
                Err(fault) => {
                    next.plugin.dispose();
                    self.plugin.record(self.recorder.clone());
                    return Err(fault);
                }
            },
            None => false,
        };
        let mut old = std::mem::replace(&mut self.plugin, next.plugin);
        old.record(None);
        self.answered = self.plugin.generation();
        let mut left_over = self.end_trial().unwrap_or_default();
        self.begin_probation(old, probation, &mut left_over);
        Ok(Succession { is_state_carried, _left_over: left_over })
    }

    /// Has everything that the plugin at work is told and answers recorded, whichever plugin that
    /// will be; or nothing any more.
    pub fn record(&mut self, recorder: Option<Arc<Recorder>>) {
        self.recorder = recorder;
        self.plugin.record(self.recorder.clone());
    }

    /// Where it is recorded.
    #[must_use]
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// Forgets the plugin's faults and starts it anew.
    pub fn reset(&mut self) {
        self.plugin.reset();
    }

    /// Asks `candidate` beside the plugin from now on, and does what it says for `share` of the
    /// clients, in hundredths of a percent. A trial that was on ends.
    #[must_use = "what is left over is to be dropped where nobody waits"]
    pub fn try_out(&mut self, candidate: Self, share: u16, limits: TrialLimits) -> LeftOver {
        let left_over = self.end_trial().unwrap_or_default();
        self.trial = Some(Box::new(Trial::new(candidate.plugin, share, limits)));
        left_over
    }

    /// Changes the share of the clients of the trial; whether there is one that goes on.
    pub fn set_trial_share(&mut self, share: u16) -> bool {
        let trial = self.trial.as_mut().filter(|trial| !trial.is_stopped());
        trial.map(|trial| trial.set_share(share)).is_some()
    }

    /// How the trial goes.
    #[must_use]
    pub fn trial(&self) -> Option<TrialReport> {
        self.trial.as_ref().map(|trial| trial.report())
    }

    /// Ends the trial, `None` when there was none.
    pub fn end_trial(&mut self) -> Option<LeftOver> {
        self.trial.take().map(|trial| LeftOver(vec![trial.into_candidate()]))
    }

    /// Ends the trial and lets the candidate take the plugin's place, which stays at hand for the
    /// first `probation` decisions. `None` when there was no trial, or one that stopped itself.
    pub fn promote(&mut self, probation: u64) -> Option<LeftOver> {
        let trial = self.trial.take_if(|trial| !trial.is_stopped())?;
        let mut old = std::mem::replace(&mut self.plugin, trial.into_candidate());
        old.record(None);
        self.plugin.record(self.recorder.clone());
        let mut left_over = LeftOver::default();
        self.begin_probation(old, probation, &mut left_over);
        Some(left_over)
    }

    /// The candidate of a trial that goes on.
    fn candidate(&mut self) -> Option<&mut Plugin> {
        self.trial.as_mut()?.candidate()
    }

    /// Keeps `predecessor` at hand for so many decisions, in place of whoever was.
    fn begin_probation(&mut self, predecessor: Plugin, decisions: u64, left_over: &mut LeftOver) {
        left_over.0.extend(self.probation.take().map(|probation| probation.predecessor));
        if decisions > 0 {
            let faults_before = self.plugin.counters().faults();
            let probation = Probation { predecessor, faults_before, decisions_left: decisions };
            self.probation = Some(Box::new(probation));
        } else {
            left_over.0.push(predecessor);
        }
    }

    /// Follows a plugin on probation: at a fault its predecessor takes its place and decides.
    #[cold]
    fn supervise(
        &mut self,
        answer: Answer,
        request: &Request,
        servers: &[Arc<RealServer>],
    ) -> Answer {
        let Some(mut probation) = self.probation.take() else { return answer };
        // Also one that failed at an event or a tick, and one that cannot be asked.
        let has_failed = self.plugin.counters().faults() > probation.faults_before;
        if has_failed || !matches!(answer, Answer::Pick(_)) {
            let failed = std::mem::replace(&mut self.plugin, probation.predecessor);
            self.plugin.record(self.recorder.clone());
            let fault = failed.counters().last_fault();
            let (from, to) = (failed.generation(), self.plugin.generation());
            let plugin = failed.module().name();
            let reason = fault.as_ref().map(Fault::to_string);
            tracing::warn!(
                plugin,
                from,
                to,
                fault = reason,
                "a new plugin failed within its first decisions: back to the one before"
            );
            self.rollback = Some(Rollback { from, fault });
            failed.dispose();
            return self.plugin.schedule(request, servers);
        }
        probation.decisions_left = probation.decisions_left.saturating_sub(1);
        if probation.decisions_left == 0 {
            probation.predecessor.dispose();
        } else {
            self.probation = Some(probation);
        }
        answer
    }
}

impl PluginReport {
    pub(crate) fn of(plugin: &Plugin) -> Self {
        Self {
            name: Arc::clone(plugin.module().shared_name()),
            generation: plugin.generation(),
            sha256: *plugin.module().sha256(),
            counters: Arc::clone(plugin.counters()),
            quarantined_ms: plugin.quarantined_ms(),
            memory: plugin.memory().unwrap_or(0),
        }
    }
}

impl Scheduler for WasmScheduler {
    #[inline]
    fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Pick {
        let mut answer = self.plugin.schedule(request, servers);
        if self.probation.is_some() {
            answer = self.supervise(answer, request, servers);
        }
        self.answered = self.plugin.generation();
        if let Some(trial) = &mut self.trial {
            let (pick, generation) = trial.compare(answer, request, servers);
            self.answered = generation.unwrap_or(self.answered);
            return pick;
        }
        answer.pick()
    }

    fn servers_changed(&mut self, servers: &[Arc<RealServer>]) {
        self.plugin.servers_changed(servers);
        if let Some(probation) = &mut self.probation {
            probation.predecessor.servers_changed(servers);
        }
        if let Some(candidate) = self.candidate() {
            candidate.servers_changed(servers);
        }
    }

    #[inline]
    fn generation(&self) -> u16 {
        self.answered
    }

    fn wants_events(&self) -> bool {
        self.plugin.wants_events()
            || self.probation.as_ref().is_some_and(|old| old.predecessor.wants_events())
            || self.trial.as_ref().is_some_and(|trial| trial.wants_events())
    }

    fn event(&mut self, event: &Event, _: &[Arc<RealServer>]) {
        self.plugin.event(event);
        if let Some(probation) = &mut self.probation {
            probation.predecessor.event(event);
        }
        if let Some(candidate) = self.candidate() {
            candidate.event(event);
        }
    }

    fn tick(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Option<u64> {
        let mut dues = [self.plugin.tick(request, servers), None, None];
        if let Some(probation) = &mut self.probation {
            dues[1] = probation.predecessor.tick(request, servers);
        }
        if let Some(candidate) = self.candidate() {
            dues[2] = candidate.tick(request, servers);
        }
        let due_ms = dues.into_iter().flatten().min();
        match due_ms.map(|due_ms| due_ms.saturating_sub(request.now_ms)) {
            // An instance made anew ticks first thing, whatever the one before it wished.
            None if self.plugin.module().has_export(export::TICK) => Some(TICK_LOOK_MS),
            wish => wish,
        }
    }
}
