//! A virtual service and the plugins that schedule for it: the one at work, those before it, and
//! the one that is tried out.
//!
//! Each plugin with its configuration that ever had the service is a *generation* with a number of
//! its own, which the connections that it placed remember. Number 0 is the director itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wvs_core::real_server::RealServer;
use wvs_core::service::Service;
use wvs_plugin::{
    Fault, InstanceError, Module, PluginReport, Recorder, Rollback, TrialLimits, TrialReport,
    WasmScheduler,
};

/// Generations that can be rolled back to.
const PAST_MAX: usize = 8;

/// A plugin for a service, with the configuration that it gets there.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The plugin.
    pub module: Module,
    /// Its configuration as JSON text.
    pub config: Option<Arc<str>>,
}

/// A service and its plugins.
#[derive(Debug)]
pub struct Seat {
    service: Arc<Service>,
    /// For how many decisions a new plugin's predecessor is kept at hand.
    probation: AtomicU64,
    /// Held while a plugin is put in place: one at a time.
    change: Mutex<()>,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// The generations that were at work one after the other, the latest last.
    at_work: Vec<(u16, Generation)>,
    candidate: Option<(u16, Generation)>,
    latest: u16,
    swaps: u64,
}

/// Why a plugin did not get the service. The one at work stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// The plugin does not work for the service.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The plugin failed on what its predecessor handed over.
    #[error("the plugin failed on its predecessor's state: {0}")]
    State(#[source] Fault),
    /// There is no earlier generation.
    #[error("there is no earlier generation to go back to: the first one is at work")]
    NoPast,
    /// Nothing is recorded.
    #[error(
        "nothing is recorded at this service; give its `scheduler` a `record`, such as 16MiB, and \
         reload"
    )]
    NotRecorded,
    /// No candidate is tried out.
    #[error(
        "no candidate is tried out at this service, or its trial stopped by itself; begin with \
         `wvs plugin shadow`"
    )]
    NoTrial,
}

/// That another plugin has the service now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// The generation that had it before.
    pub from: u16,
    /// Its plugin's name.
    pub from_plugin: String,
    /// The generation that has it now.
    pub to: u16,
    /// Its plugin's name.
    pub to_plugin: String,
    /// Whether it goes on where the other one was.
    pub is_state_carried: bool,
    /// How long it took to change them between two decisions, waiting for the one at hand included.
    pub took: Duration,
}

/// How the plugins of a service stand.
#[derive(Clone, Debug)]
pub struct SeatReport {
    /// The plugin at work.
    pub plugin: PluginReport,
    /// Its configuration as JSON text.
    pub config: Option<Arc<str>>,
    /// The generations that can be rolled back to, the latest first, with their plugins' names.
    pub past: Vec<(u16, String)>,
    /// How often a plugin was replaced, roll-backs included.
    pub swaps: u64,
    /// The latest time that a plugin failed on probation, and its predecessor took over by itself.
    pub rollback: Option<Rollback>,
    /// The candidate.
    pub trial: Option<TrialReport>,
}

impl Seat {
    /// A service whose scheduler is `first`, generation 1.
    #[must_use]
    pub fn new(service: Arc<Service>, first: Generation, probation: u64) -> Self {
        let past = Past { at_work: vec![(1, first)], latest: 1, ..Past::default() };
        let probation = AtomicU64::new(probation);
        Self { service, probation, change: Mutex::default(), past: Mutex::new(past) }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// How many octets of what its plugins are told and answer are kept, if any.
    #[must_use]
    pub fn record(&self) -> Option<usize> {
        self.recorder().map(|recorder| recorder.octets_max())
    }

    /// Has so many octets of what its plugins are told and answer kept from now on, or nothing. What
    /// was kept so far is gone, unless nothing changes.
    pub fn set_record(&self, octets: Option<usize>) {
        if octets == self.record() {
            return;
        }
        let recorder = octets.map(|octets| Arc::new(Recorder::new(octets)));
        self.act(|scheduler| scheduler.record(recorder));
    }

    /// What was kept, as a file.
    ///
    /// # Errors
    /// Nothing is recorded.
    pub fn recording(&self) -> Result<Vec<u8>, SeatError> {
        self.recorder().map(|recorder| recorder.dump()).ok_or(SeatError::NotRecorded)
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        self.service
            .look_at_scheduler(|scheduler| WasmScheduler::of(scheduler)?.recorder().cloned())
    }

    /// The plugin at work. Waits for the decision at hand.
    #[must_use]
    pub fn plugin(&self) -> PluginReport {
        self.report().plugin
    }

    /// How the plugins stand. Waits for the decision at hand.
    #[must_use]
    pub fn report(&self) -> SeatReport {
        let (plugin, config, rollback, trial) = self.service.look_at_scheduler(|scheduler| {
            // A seat is made with a plugin, and only plugins replace it.
            let scheduler = WasmScheduler::of(scheduler).expect("a plugin");
            (
                scheduler.report(),
                scheduler.config().cloned(),
                scheduler.rollback().cloned(),
                scheduler.trial(),
            )
        });
        let past = self.past();
        let earlier = past.before(plugin.generation).iter().rev();
        SeatReport {
            past: earlier.map(|(number, old)| (*number, old.module.name().to_owned())).collect(),
            swaps: past.swaps,
            plugin,
            config,
            rollback,
            trial,
        }
    }

    /// The plugin at work with its configuration, and the number of both. Waits for the decision at
    /// hand.
    #[must_use]
    pub fn at_work(&self) -> (u16, Generation) {
        self.service.look_at_scheduler(|scheduler| {
            let scheduler = WasmScheduler::of(scheduler).expect("a plugin");
            let module = scheduler.module().clone();
            let config = scheduler.config().cloned();
            (scheduler.report().generation, Generation { module, config })
        })
    }

    /// The candidate with its configuration, and the number of both.
    #[must_use]
    pub fn candidate(&self) -> Option<(u16, Generation)> {
        self.past().candidate.clone()
    }

    /// For how many decisions a new plugin's predecessor is kept at hand.
    #[must_use]
    pub fn probation(&self) -> u64 {
        self.probation.load(Relaxed)
    }

    /// Changes that for plugins to come.
    pub fn set_probation(&self, decisions: u64) {
        self.probation.store(decisions, Relaxed);
    }

    /// Begins a change. Waits for another one to end.
    #[must_use]
    pub fn change(&self) -> Change<'_> {
        let turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        Change { seat: self, _turn: turn }
    }

    /// Gives the service to another plugin, between two decisions; no connection notices. Takes as
    /// long as [`Module::probe`], which comes first.
    ///
    /// # Errors
    /// See [`SeatError`]; the one at work stays.
    pub fn swap(&self, generation: Generation) -> Result<Swapped, SeatError> {
        let change = self.change();
        change.seat(change.prepare(generation)?)
    }

    /// Gives the service back to the plugin that had it before, as a new instance of the same
    /// generation.
    ///
    /// # Errors
    /// See [`SeatError`]; the one at work stays.
    pub fn rollback(&self) -> Result<Swapped, SeatError> {
        self.change().rollback()
    }

    /// Forgets the faults of the plugin at work, ends its quarantine and starts it anew.
    pub fn reset(&self) {
        let _change = self.change();
        self.act(WasmScheduler::reset);
    }

    /// Asks a candidate beside the plugin from now on; its word counts for `share` of the clients, in
    /// hundredths of a percent. Returns the candidate's generation.
    ///
    /// # Errors
    /// The candidate does not work for the service; nothing has changed.
    pub fn try_out(
        &self,
        candidate: Generation,
        share: u16,
        limits: TrialLimits,
    ) -> Result<u16, SeatError> {
        let change = self.change();
        Ok(change.try_out(change.prepare(candidate)?, share, limits))
    }

    /// Changes for how many of the clients the candidate's word counts, in hundredths of a percent.
    ///
    /// # Errors
    /// There is no candidate.
    pub fn set_share(&self, share: u16) -> Result<(), SeatError> {
        let is_set = self.act(|scheduler| scheduler.set_trial_share(share));
        if is_set { Ok(()) } else { Err(SeatError::NoTrial) }
    }

    /// Gives the service to the candidate, as it is.
    ///
    /// # Errors
    /// There is no candidate.
    pub fn promote(&self) -> Result<Swapped, SeatError> {
        let _change = self.change();
        let (to, candidate) = self.past().candidate.take().ok_or(SeatError::NoTrial)?;
        let to_plugin = candidate.module.name().to_owned();
        let start = Instant::now();
        let promoted = self.act(|scheduler| {
            let before = scheduler.report();
            Some((before, scheduler.promote(self.probation())?))
        });
        let took = start.elapsed();
        let (before, _left_over) = promoted.ok_or(SeatError::NoTrial)?;
        let (from, from_plugin) = (before.generation, before.name.to_string());
        self.past().note_at_work(from, (to, candidate));
        Ok(Swapped { from, from_plugin, to, to_plugin, is_state_carried: true, took })
    }

    /// Ends the trial of the candidate.
    ///
    /// # Errors
    /// There is none.
    pub fn end_trial(&self) -> Result<(), SeatError> {
        self.change().end_trial()
    }

    /// Does something to the scheduler between two decisions.
    fn act<R>(&self, act: impl FnOnce(&mut WasmScheduler) -> R) -> R {
        self.act_with_servers(|scheduler, _| act(scheduler))
    }

    /// The same, with the service's servers.
    fn act_with_servers<R>(
        &self,
        act: impl FnOnce(&mut WasmScheduler, &[Arc<RealServer>]) -> R,
    ) -> R {
        self.service.change_scheduler(|scheduler, servers| {
            act(WasmScheduler::of_mut(scheduler).expect("a plugin"), servers)
        })
    }

    fn number_at_work(&self) -> u16 {
        self.plugin().generation
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one who changes a service's plugins: nobody else does meanwhile.
#[derive(Debug)]
pub struct Change<'s> {
    seat: &'s Seat,
    _turn: MutexGuard<'s, ()>,
}

/// A plugin that was tried with a service and waits to be put to work there.
#[derive(Debug)]
pub struct Prepared {
    number: u16,
    generation: Generation,
    scheduler: WasmScheduler,
}

impl Change<'_> {
    /// The seat that is changed.
    #[must_use]
    pub fn of(&self) -> &Seat {
        self.seat
    }

    /// Probes a plugin with the service and makes an instance of it, which nothing uses yet.
    ///
    /// # Errors
    /// The plugin does not work for the service.
    pub fn prepare(&self, generation: Generation) -> Result<Prepared, SeatError> {
        self.prepare_for(generation, &self.seat.service.servers())
    }

    /// The same for servers that the service is about to get.
    ///
    /// # Errors
    /// The plugin does not work for the service with them.
    pub fn prepare_for(
        &self,
        generation: Generation,
        servers: &[Arc<RealServer>],
    ) -> Result<Prepared, SeatError> {
        let number = self.seat.past().next_number();
        let scheduler = make(&generation, number, servers)?;
        Ok(Prepared { number, generation, scheduler })
    }

    /// Gives the service to a plugin. A trial ends.
    ///
    /// # Errors
    /// The plugin failed on its predecessor's state; the one at work stays.
    pub fn seat(&self, next: Prepared) -> Result<Swapped, SeatError> {
        let Prepared { number, generation, scheduler } = next;
        let swapped = self.succeed(scheduler, number, self.seat.probation())?;
        self.seat.past().note_at_work(swapped.from, (number, generation));
        Ok(swapped)
    }

    /// As [`Seat::rollback`].
    ///
    /// # Errors
    /// See [`SeatError`]; the one at work stays.
    pub fn rollback(&self) -> Result<Swapped, SeatError> {
        let at_work = self.seat.number_at_work();
        let (number, generation) =
            self.seat.past().before(at_work).last().cloned().ok_or(SeatError::NoPast)?;
        let scheduler = make(&generation, number, &self.seat.service.servers())?;
        let swapped = self.succeed(scheduler, number, 0)?;
        let mut past = self.seat.past();
        past.swaps += 1;
        let left = past.before(at_work).len();
        past.at_work.truncate(left);
        Ok(swapped)
    }

    /// As [`Seat::try_out`].
    pub fn try_out(&self, candidate: Prepared, share: u16, limits: TrialLimits) -> u16 {
        let Prepared { number, generation, scheduler } = candidate;
        drop(self.seat.act(|present| present.try_out(scheduler, share, limits)));
        self.seat.past().candidate = Some((number, generation));
        number
    }

    /// As [`Seat::end_trial`].
    ///
    /// # Errors
    /// There is none.
    pub fn end_trial(&self) -> Result<(), SeatError> {
        self.seat.past().candidate = None;
        self.seat.act(WasmScheduler::end_trial).map(drop).ok_or(SeatError::NoTrial)
    }

    fn succeed(&self, next: WasmScheduler, to: u16, probation: u64) -> Result<Swapped, SeatError> {
        let seat = self.seat;
        let to_plugin = next.module().name().to_owned();
        let start = Instant::now();
        let (before, succession) = seat.act_with_servers(|present, servers| {
            let before = present.report();
            (before, present.succeed(next, servers, probation))
        });
        let took = start.elapsed();
        let is_state_carried = succession.map_err(SeatError::State)?.is_state_carried;
        seat.past().candidate = None;
        let (from, from_plugin) = (before.generation, before.name.to_string());
        Ok(Swapped { from, from_plugin, to, to_plugin, is_state_carried, took })
    }
}

/// Probes a plugin and makes an instance of it.
fn make(
    generation: &Generation,
    number: u16,
    servers: &[Arc<RealServer>],
) -> Result<WasmScheduler, SeatError> {
    let Generation { module, config } = generation;
    module.probe(config.as_deref(), servers)?;
    Ok(module.scheduler(config.as_deref(), servers)?.numbered(number))
}

impl Past {
    /// The number of the next generation. After 65,535 they begin anew; 0 is the director's own.
    fn next_number(&mut self) -> u16 {
        loop {
            self.latest = self.latest.checked_add(1).unwrap_or(1);
            let is_used = |known: &&(u16, Generation)| known.0 == self.latest;
            if self.at_work.iter().chain(&self.candidate).find(is_used).is_none() {
                return self.latest;
            }
        }
    }

    /// What was at work before this generation was.
    fn before(&self, number: u16) -> &[(u16, Generation)] {
        let place = self.at_work.iter().rposition(|(other, _)| *other == number);
        &self.at_work[..place.unwrap_or(0)]
    }

    /// Notes that `next` took the place of generation `from`. Whatever came after that one failed
    /// on probation.
    fn note_at_work(&mut self, from: u16, next: (u16, Generation)) {
        let place = self.at_work.iter().rposition(|(number, _)| *number == from);
        self.at_work.truncate(place.map_or(0, |place| place + 1));
        self.at_work.push(next);
        let surplus = self.at_work.len().saturating_sub(PAST_MAX + 1);
        self.at_work.drain(..surplus);
        self.swaps += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wvs_core::time::Moment;
    use wvs_plugin::{Host, Limits, Source};

    use super::*;
    use crate::config::Reading;
    use crate::deployment::Deployment;

    const TEXT: &str = "
services:
  - { name: a, vip: 192.0.2.1, port: 1, scheduler: rr, servers: [{ address: 10.0.0.1 }, { address: 10.0.0.2 }] }
";

    fn seat(host: &Host) -> Arc<Seat> {
        let (config, _) = Reading::of_text(Path::new("x.yaml"), TEXT).into_config().unwrap();
        Deployment::new(&config, host, || 0, Moment::default()).unwrap().seats.remove(0)
    }

    fn built_in(host: &Host, name: &str) -> Generation {
        let module = host.load(Source::BuiltIn(name), Limits::default()).unwrap();
        Generation { module, config: None }
    }

    fn past(seat: &Seat) -> Vec<u16> {
        seat.report().past.iter().map(|(number, _)| *number).collect()
    }

    fn at_work(seat: &Seat) -> (String, u16) {
        let plugin = seat.plugin();
        (plugin.name.to_string(), plugin.generation)
    }

    #[test]
    fn seat_goes_to_another_plugin_and_stays_with_it_when_a_third_does_not_fit() {
        let host = Host::new().unwrap();
        let seat = seat(&host);
        assert_eq!(at_work(&seat), ("rr".to_owned(), 1));
        let swapped = seat.swap(built_in(&host, "wlc")).unwrap();
        assert_eq!((swapped.from, swapped.to), (1, 2));
        assert_eq!(at_work(&seat), ("wlc".to_owned(), 2));

        let unfit = Generation { config: Some("{}".into()), ..built_in(&host, "rr") };
        let refusal = seat.swap(unfit).unwrap_err();
        assert!(matches!(refusal, SeatError::Instance(_)), "{refusal}");
        assert_eq!(at_work(&seat), ("wlc".to_owned(), 2));
        assert_eq!((past(&seat), seat.report().swaps), (vec![1], 1));
    }

    #[test]
    fn rollback_goes_back_one_generation_at_a_time_and_new_ones_get_new_numbers() {
        let host = Host::new().unwrap();
        let seat = seat(&host);
        assert_eq!(seat.rollback().unwrap_err(), SeatError::NoPast);
        for name in ["wlc", "sh"] {
            seat.swap(built_in(&host, name)).unwrap();
        }
        assert_eq!((at_work(&seat).1, past(&seat)), (3, vec![2, 1]));
        assert_eq!(seat.rollback().unwrap().to, 2);
        assert_eq!((at_work(&seat), past(&seat)), (("wlc".to_owned(), 2), vec![1]));
        assert_eq!(seat.swap(built_in(&host, "rr")).unwrap().to, 4);
        assert_eq!(past(&seat), [2, 1]);
        seat.rollback().unwrap();
        assert_eq!(seat.rollback().unwrap().to, 1);
        assert_eq!(seat.rollback().unwrap_err(), SeatError::NoPast);
    }

    #[test]
    fn so_many_generations_and_no_more_are_kept() {
        let host = Host::new().unwrap();
        let seat = seat(&host);
        for _ in 0..PAST_MAX + 5 {
            seat.swap(built_in(&host, "rr")).unwrap();
        }
        assert_eq!(past(&seat).len(), PAST_MAX);
    }

    #[test]
    fn candidate_is_tried_out_and_promoted_as_it_is() {
        let host = Host::new().unwrap();
        let seat = seat(&host);
        assert_eq!(seat.promote().unwrap_err(), SeatError::NoTrial);
        assert_eq!(seat.set_share(1).unwrap_err(), SeatError::NoTrial);
        let number = seat.try_out(built_in(&host, "wlc"), 1_000, TrialLimits::default()).unwrap();
        assert_eq!(number, 2);
        seat.set_share(5_000).unwrap();
        assert_eq!(seat.report().trial.unwrap().share, 5_000);
        let swapped = seat.promote().unwrap();
        assert_eq!((swapped.from, swapped.to), (1, 2));
        assert_eq!((at_work(&seat), past(&seat)), (("wlc".to_owned(), 2), vec![1]));
        assert!(seat.report().trial.is_none());
        seat.try_out(built_in(&host, "sh"), 0, TrialLimits::default()).unwrap();
        seat.end_trial().unwrap();
        assert_eq!(seat.end_trial().unwrap_err(), SeatError::NoTrial);
    }
}
