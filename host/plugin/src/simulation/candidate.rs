//! A plugin that is asked as a director asks it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use wvs_abi::Request;
use wvs_core::event::Event;
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;

use super::Question;
use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::module::Module;
use crate::plugin::event_numbers;
use crate::quarantine::{Conduct, Consequence};
use crate::table::ServerTable;

/// The most ticks between two questions, so that a plugin that ticks often does not make a simulation
/// endless that has days without a request.
const TICKS_MAX: usize = 1_000;

/// A plugin at work for one virtual service, and what it did so far.
///
/// It is treated as by [`WasmScheduler`](crate::WasmScheduler), quarantine included, but for one
/// thing: a failed instance is replaced before the next request, not beside it, so that the same
/// questions always get the same answers. It ticks and is told of events when it is next asked, in
/// the order of their times; of a long time without a question it misses most ticks. Signals of the
/// servers are 0.
pub struct Candidate {
    module: Module,
    config: Option<Arc<str>>,
    instance: Option<Instance>,
    servers: Arc<ServerTable>,
    conduct: Conduct,
    /// When it is to tick next; `None` for never.
    tick_due_ms: Option<u64>,
    tally: Tally,
    fuel: u64,
    asked: u64,
}

/// A plugin's answer to one request, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The plugin answered.
    Given(Pick),
    /// The plugin failed at this request.
    Failed(Fault),
    /// The plugin was not asked, because it had failed too often, or as soon as it was made.
    Quarantined,
}

/// What a plugin did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Requests that it found a server for.
    pub picks: u64,
    /// Requests that no server could take, it says.
    pub no_server: u64,
    /// Requests that it left to the director.
    pub defers: u64,
    /// Everything that it did wrong.
    pub faults: u64,
    /// The first of these.
    pub first_fault: Option<FirstFault>,
    /// How often it was quarantined.
    pub quarantines: u64,
    /// Requests that it was not asked about in quarantine.
    pub unavailable: u64,
    /// Events that it was told of.
    pub events: u64,
    /// Ticks.
    pub ticks: u64,
    /// Fuel of a decision on average.
    pub fuel_mean: f64,
    /// Fuel of a decision at most.
    pub fuel_max: u64,
}

/// When a plugin failed for the first time, and at what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstFault {
    /// The request's number, from 0.
    pub request: u64,
    /// What went wrong.
    pub fault: String,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("module", &self.module).finish_non_exhaustive()
    }
}

impl Candidate {
    /// The plugin with this `config` (JSON text) and these `servers`.
    ///
    /// # Errors
    /// When it does not start or refuses `config` or `servers`.
    pub fn new(
        module: &Module,
        config: Option<&str>,
        servers: Arc<ServerTable>,
    ) -> Result<Self, InstanceError> {
        let mut this = Self {
            module: module.clone(),
            config: config.map(Arc::from),
            instance: None,
            servers,
            conduct: Conduct::default(),
            tick_due_ms: None,
            tally: Tally::default(),
            fuel: 0,
            asked: 0,
        };
        this.seat(0)?;
        Ok(this)
    }

    /// Puts a question to it. It is told of the servers first if they are others than the last time,
    /// and of what happened since then.
    pub fn ask(&mut self, question: &Question<'_>) -> Answer {
        let now_ms = question.request.now_ms;
        self.learn(question);
        let answer = self.answer(question);
        match &answer {
            Answer::Given(Pick::Server(_)) => self.tally.picks += 1,
            Answer::Given(Pick::NoServer) => self.tally.no_server += 1,
            Answer::Given(Pick::Defer) => self.tally.defers += 1,
            Answer::Failed(fault) => self.fail(fault, now_ms),
            Answer::Quarantined => self.tally.unavailable += 1,
        }
        self.asked += 1;
        answer
    }

    /// What it did.
    #[must_use]
    pub fn into_tally(self) -> Tally {
        let decisions = self.tally.picks + self.tally.no_server + self.tally.defers;
        let fuel_mean = if decisions == 0 { 0.0 } else { self.fuel as f64 / decisions as f64 };
        Tally { fuel_mean, ..self.tally }
    }

    /// Tells it of new servers and of events, and lets it tick, until the moment of the question.
    fn learn(&mut self, question: &Question<'_>) {
        let Question { request, servers, events, .. } = question;
        let has_same_servers =
            Arc::ptr_eq(&self.servers, servers) || self.servers.has_same_servers(servers);
        self.servers = Arc::clone(servers);
        if !has_same_servers
            && let Some(instance) = &mut self.instance
            && let Err(fault) = instance.set_servers(servers)
        {
            self.fail(&fault, request.now_ms);
        }
        for (at_ms, event) in *events {
            self.tick(*at_ms);
            self.tell(*at_ms, event);
        }
        self.tick(request.now_ms);
    }

    fn tell(&mut self, at_ms: u64, event: &Event) {
        let Some(instance) = self.instance.as_mut().filter(|instance| instance.has_event()) else {
            return;
        };
        let Some(index) = self.servers.index_of(event.server_id) else { return };
        let (kind, argument) = event_numbers(event.kind);
        self.tally.events += 1;
        if let Err(fault) = instance.event(kind, index, argument) {
            self.fail(&fault, at_ms);
        }
    }

    /// Lets it tick as often as was due until then.
    fn tick(&mut self, until_ms: u64) {
        for _ in 0..TICKS_MAX {
            let Some(due_ms) = self.tick_due_ms.filter(|due_ms| *due_ms <= until_ms) else {
                return;
            };
            let Some(instance) = &mut self.instance else { return };
            let random = Random::new(due_ms).next();
            self.tally.ticks += 1;
            match instance.tick(&Request { now_ms: due_ms, random, ..Request::default() }) {
                Ok(pause) => self.tick_due_ms = pause.map(|pause| due_ms + u64::from(pause)),
                Err(fault) => self.fail(&fault, due_ms),
            }
        }
        self.tick_due_ms = self.tick_due_ms.map(|due_ms| due_ms.max(until_ms));
    }

    fn answer(&mut self, question: &Question<'_>) -> Answer {
        let Question { request, counts, .. } = question;
        if self.conduct.is_quarantined(request.now_ms) {
            return Answer::Quarantined;
        }
        if self.instance.is_none() {
            if let Err(error) = self.seat(request.now_ms) {
                return Answer::Failed(Fault::Rebuild(Box::new(error)));
            }
            self.tick(request.now_ms);
        }
        // It may have failed at its first tick.
        let Some(instance) = &mut self.instance else { return Answer::Quarantined };
        match instance.schedule(request, counts.iter().copied()) {
            Ok(pick) => {
                let fuel = instance.fuel_used();
                self.fuel = self.fuel.saturating_add(fuel);
                self.tally.fuel_max = self.tally.fuel_max.max(fuel);
                Answer::Given(pick)
            }
            Err(fault) => Answer::Failed(fault),
        }
    }

    /// Makes an instance, which ticks first thing if it does at all.
    fn seat(&mut self, now_ms: u64) -> Result<(), InstanceError> {
        let mut instance = Instance::new(&self.module, self.config.as_deref())?;
        instance.set_servers(&self.servers).map_err(InstanceError::Servers)?;
        self.tick_due_ms = instance.has_tick().then_some(now_ms);
        self.instance = Some(instance);
        Ok(())
    }

    fn fail(&mut self, fault: &Fault, now_ms: u64) {
        self.tally.faults += 1;
        let first = || FirstFault { request: self.asked, fault: fault.to_string() };
        self.tally.first_fault.get_or_insert_with(first);
        let is_quarantined = if let Fault::Rebuild(_) = fault {
            self.conduct.quarantine(now_ms);
            true
        } else {
            matches!(self.conduct.note_fault(now_ms), Consequence::Quarantined { .. })
        };
        self.tally.quarantines += u64::from(is_quarantined);
        if is_quarantined || !fault.is_bad_answer() {
            self.instance = None;
        }
    }
}

impl Answer {
    /// The answer for people, with the server's address.
    #[must_use]
    pub fn describe(&self, servers: &ServerTable) -> String {
        match self {
            Self::Given(Pick::Server(index)) => servers
                .address(*index)
                .map_or_else(|| format!("server {index}"), |address| address.to_string()),
            Self::Given(Pick::NoServer) => "no server".to_owned(),
            Self::Given(Pick::Defer) => "left to the director".to_owned(),
            Self::Failed(fault) => format!("failed: {fault}"),
            Self::Quarantined => "not asked: quarantined".to_owned(),
        }
    }
}
