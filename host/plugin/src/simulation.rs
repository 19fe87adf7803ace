//! Schedulers at work without a director: a virtual clock, connections that open and close, real
//! servers that come and go.
//!
//! A run is a function of its inputs: the same ones give the same outcome on every machine. What
//! happens is a stream of [`Step`]s, which whoever [watches](Simulation::watch) sees one by one, and
//! which a [`Comparison`] puts to another plugin. Steps that come from elsewhere, such as a
//! recording, will do for that as well. The [crate's documentation](crate) has an example.

mod candidate;
mod comparison;
mod disruption;
mod requests;
mod servers;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use wvs_abi::Request;
use wvs_core::event::Event;
use wvs_core::random::Random;

pub use candidate::{Answer, Candidate, FirstFault, Tally};
pub use comparison::{Comparison, Difference};
pub use disruption::Disruption;
pub use requests::{Arrival, REQUESTS_MAX, Requests, RequestsError, TIME_MS_MAX};
pub use servers::{SERVERS_MAX, Servers, ServersError, SimulatedServer};

use crate::error::InstanceError;
use crate::module::Module;
use crate::table::ServerTable;
use world::World;

/// How many intervals the outcome's timeline has at most.
pub const INTERVALS_MAX: u64 = 60;

/// TCP.
const PROTOCOL: u8 = 6;

/// What plugins are put to: real servers and requests for them.
#[derive(Clone, Debug)]
pub struct Simulation {
    servers: Servers,
    requests: Requests,
}

/// What a plugin is asked, and what it is told before that.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The first packet of a connection.
    pub request: &'q Request,
    /// The servers, without counts. The same `Arc` until they change.
    pub servers: &'q Arc<ServerTable>,
    /// Active and inactive connections of each of them at that moment.
    pub counts: &'q [(u32, u32)],
    /// What happened to connections since the last question, by time in milliseconds.
    pub events: &'q [(u64, Event)],
}

/// One decision: a question and the answer.
#[derive(Clone, Copy, Debug)]
pub struct Step<'s> {
    /// Its number, from 0.
    pub number: u64,
    /// What was asked.
    pub question: Question<'s>,
    /// The answer.
    pub answer: &'s Answer,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Requests that got a server, from the plugin or from the director in its stead.
    pub placed: u64,
    /// Milliseconds from the start to the last request.
    pub milliseconds: u64,
    /// The servers, in the order of the specification.
    pub servers: Vec<ServerOutcome>,
    /// What the plugin did.
    pub tally: Tally,
    /// Who got how many connections when.
    pub timeline: Timeline,
}

/// What came of a run for one server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerOutcome {
    /// Address and port.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Connections that it got.
    pub placed: u64,
    /// Its part of all placed connections, 0 to 1.
    pub share: f64,
    /// The part that its weight alone would have given it, of those placed while it was there.
    pub due: f64,
    /// Active connections at most.
    pub active_max: u32,
}

/// Connections placed, by time and server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// Milliseconds that each interval takes.
    pub interval_ms: u64,
    /// For each interval the connections that each server got.
    pub placed: Vec<Vec<u32>>,
}

impl Simulation {
    /// These servers and these requests.
    #[must_use]
    pub fn new(servers: Servers, requests: Requests) -> Self {
        Self { servers, requests }
    }

    /// Puts all requests to a plugin with this `config` (JSON text).
    ///
    /// # Errors
    /// When the plugin does not start or refuses `config` or the servers.
    pub fn run(&self, module: &Module, config: Option<&str>) -> Result<Outcome, InstanceError> {
        self.watch(module, config, |_| ())
    }

    /// The same, and shows each decision to `watcher`.
    ///
    /// # Errors
    /// When the plugin does not start or refuses `config` or the servers.
    pub fn watch(
        &self,
        module: &Module,
        config: Option<&str>,
        mut watcher: impl FnMut(&Step<'_>),
    ) -> Result<Outcome, InstanceError> {
        let mut world = World::new(&self.servers);
        let mut candidate = Candidate::new(module, config, Arc::clone(world.table()))?;
        let mut random = Random::new(self.requests.seed());
        let mut timeline = Timeline::new(self.requests.milliseconds(), self.servers.list().len());
        let mut placed = 0;
        for (number, arrival) in (0..).zip(self.requests.list()) {
            world.advance(arrival.at_ms);
            let request = arrival.request(random.next());
            let question = world.question(&request);
            let answer = candidate.ask(&question);
            watcher(&Step { number, question, answer: &answer });
            if let Some(server) = world.place(&answer, arrival.at_ms, arrival.duration_ms) {
                placed += 1;
                timeline.count(arrival.at_ms, server);
            }
        }
        Ok(Outcome {
            requests: self.requests.list().len() as u64,
            placed,
            milliseconds: self.requests.milliseconds(),
            servers: world.into_outcomes(placed),
            tally: candidate.into_tally(),
            timeline,
        })
    }

    /// How many clients lose their server when another one is removed and when it comes back.
    ///
    /// Asks the same clients four times: twice over the servers of the beginning, then without one
    /// of them, then with it again; each time in another order, and each time after their former
    /// connections were closed. `None` when there are less than two servers to pick from.
    ///
    /// # Errors
    /// When the plugin does not start or refuses `config` or the servers.
    pub fn disruption(
        &self,
        module: &Module,
        config: Option<&str>,
    ) -> Result<Option<Disruption>, InstanceError> {
        disruption::measure(&self.servers, &self.requests, module, config)
    }
}

impl Timeline {
    fn new(milliseconds: u64, servers: usize) -> Self {
        let interval_ms = (milliseconds / INTERVALS_MAX).saturating_add(1);
        let intervals = milliseconds / interval_ms + 1;
        Self { interval_ms, placed: (0..intervals).map(|_| vec![0; servers]).collect() }
    }

    fn count(&mut self, at_ms: u64, server: usize) {
        let interval = usize::try_from(at_ms / self.interval_ms).unwrap_or(usize::MAX);
        let count = self.placed.get_mut(interval).and_then(|servers| servers.get_mut(server));
        if let Some(count) = count {
            *count += 1;
        }
    }
}
