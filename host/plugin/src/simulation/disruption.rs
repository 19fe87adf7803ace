//! How many clients lose their server when another one goes or comes.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use wvs_core::random::Random;

use super::servers::{Servers, SimulatedServer};
use super::world::World;
use super::{Arrival, Candidate, Requests};
use crate::error::InstanceError;
use crate::module::Module;

/// How many clients are asked for, at most.
const CLIENTS_MAX: usize = 1_000;

/// How many of the servers are removed, one at a time, at most.
const REMOVALS_MAX: usize = 8;

/// Milliseconds from one round to the next. Within a round a request comes each millisecond.
const ROUND_MS: u64 = 1_000_000;

/// What it costs clients that a server goes and comes back: parts of 1, on average over the servers
/// that were removed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Disruption {
    /// Clients that were asked for.
    pub clients: usize,
    /// Servers that were removed, one at a time.
    pub removals: usize,
    /// Of all clients, those that got another server when nothing had changed.
    pub moved_unchanged: f64,
    /// Of the clients whose server stayed, those that got another one.
    pub moved_on_removal: f64,
    /// Of the clients that did not go to the server that came back, those that got another one.
    pub moved_on_return: f64,
}

/// The server that each client got, by index.
type Round = Vec<Option<usize>>;

/// Moved clients and all that were looked at.
#[derive(Default)]
struct Part {
    moved: u64,
    all: u64,
}

pub(super) fn measure(
    servers: &Servers,
    requests: &Requests,
    module: &Module,
    config: Option<&str>,
) -> Result<Option<Disruption>, InstanceError> {
    let start: Vec<_> = servers.list().iter().filter(|server| server.is_there(0)).collect();
    let usable = start.iter().enumerate().filter(|(_, server)| server.weight > 0);
    let usable: Vec<_> = usable.map(|(index, _)| index).collect();
    let clients = clients(requests);
    if usable.len() < 2 || clients.is_empty() {
        return Ok(None);
    }
    // Spread over the list: to some plugins it matters which one goes.
    let removals = usable.len().min(REMOVALS_MAX);
    let all_removed = (0..removals).filter_map(|n| usable.get(n * usable.len() / removals));
    let (mut unchanged, mut removal, mut back) = <(Part, Part, Part)>::default();
    for &removed in all_removed {
        let mut world = World::new(&without_for_a_while(&start, removed));
        let candidate = Candidate::new(module, config, Arc::clone(world.table()))?;
        let [first, again, without, returned] =
            ask(&mut world, candidate, &clients, removed, requests.seed());
        for client in 0..clients.len() {
            let is_moved = |from: &Round, to: &Round| from.get(client) != to.get(client);
            let is_at_removed = |round: &Round| round.get(client) == Some(&Some(removed));
            unchanged.count(is_moved(&first, &again));
            if !is_at_removed(&again) {
                removal.count(is_moved(&again, &without));
            }
            if !is_at_removed(&returned) {
                back.count(is_moved(&without, &returned));
            }
        }
    }
    Ok(Some(Disruption {
        clients: clients.len(),
        removals,
        moved_unchanged: unchanged.value(),
        moved_on_removal: removal.value(),
        moved_on_return: back.value(),
    }))
}

/// Different clients in the order in which they come.
fn clients(requests: &Requests) -> Vec<Arrival> {
    let mut known = HashSet::new();
    let first = requests.list().iter().filter(|arrival| known.insert(arrival.client));
    first.take(CLIENTS_MAX).copied().collect()
}

/// The servers, of which one is not there in the third of four rounds. That it comes back as another
/// one is how a simulation has it; all later ones are one place further down the list.
fn without_for_a_while(start: &[&SimulatedServer], removed: usize) -> Servers {
    let mut list = Vec::with_capacity(start.len() + 1);
    for (index, server) in start.iter().enumerate() {
        let server = SimulatedServer { from_ms: 0, to_ms: None, ..**server };
        if index == removed {
            list.push(SimulatedServer { to_ms: Some(2 * ROUND_MS), ..server });
            list.push(SimulatedServer { from_ms: 3 * ROUND_MS, ..server });
        } else {
            list.push(server);
        }
    }
    Servers::from(list)
}

/// Four rounds of requests, each in another order.
fn ask(
    world: &mut World,
    mut candidate: Candidate,
    clients: &[Arrival],
    removed: usize,
    seed: u64,
) -> [Round; 4] {
    let mut random = Random::new(seed);
    let mut order: Vec<_> = clients.iter().enumerate().collect();
    let mut start_ms = 0;
    [(); 4].map(|()| {
        shuffle(&mut order, &mut random);
        let mut round = vec![None; clients.len()];
        for (at_ms, (client, arrival)) in (start_ms..).zip(&order) {
            world.advance(at_ms);
            let request = Arrival { at_ms, ..**arrival }.request(random.next());
            let answer = candidate.ask(&world.question(&request));
            // Open until all were asked, and forgotten when they are asked again.
            let server = world.place(&answer, at_ms, ROUND_MS / 2);
            if let Some(got) = round.get_mut(*client) {
                *got = server.map(|index| if index > removed { index - 1 } else { index });
            }
        }
        start_ms += ROUND_MS;
        round
    })
}

/// Fisher and Yates's.
fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for last in (1..list.len()).rev() {
        let other = usize::try_from(random.next() % (last as u64 + 1)).unwrap_or(last);
        list.swap(last, other);
    }
}

impl Part {
    fn count(&mut self, is_moved: bool) {
        self.all += 1;
        self.moved += u64::from(is_moved);
    }

    fn value(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.moved as f64 / self.all as f64 }
    }
}
