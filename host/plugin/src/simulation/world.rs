//! What is around a plugin in a simulation: the clock, the servers, the connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;

use wvs_abi::{Request, Server, ServerInfo, encode_address, server_flags, server_key};
use wvs_core::event::{Event, EventKind};
use wvs_core::scheduler::Pick;

use super::servers::{Servers, SimulatedServer};
use super::{Answer, PROTOCOL, Question, ServerOutcome};
use crate::table::ServerTable;

/// How long a closed connection is remembered as inactive: LVS's TIME_WAIT.
const TIME_WAIT_MS: u64 = 120_000;

/// Servers and connections at a moment that only goes forward.
#[derive(Debug)]
pub(super) struct World {
    servers: Vec<ServerState>,
    /// The servers that are there, by index into `servers`, in the order of the specification.
    present: Vec<usize>,
    /// What plugins are shown of them.
    table: Arc<ServerTable>,
    /// Active and inactive connections of those present.
    counts: Vec<(u32, u32)>,
    /// Moments at which servers come or go, the latest first.
    changes: Vec<u64>,
    /// What becomes of connections: when, which one of the servers, and what.
    endings: BinaryHeap<Reverse<(u64, usize, Ending)>>,
    /// What happened to connections since the last one was opened.
    events: Vec<(u64, Event)>,
    /// Connections placed since the servers last changed.
    placed: u64,
}

#[derive(Debug)]
struct ServerState {
    server: SimulatedServer,
    /// Its index among those present.
    seat: Option<usize>,
    placed: u64,
    due: f64,
    active_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Closed { life_ms: u64 },
    Forgotten { life_ms: u64 },
}

impl World {
    /// The servers of the beginning.
    pub(super) fn new(servers: &Servers) -> Self {
        let list = servers.list().iter();
        let state = |server: &SimulatedServer| ServerState {
            server: *server,
            seat: None,
            placed: 0,
            due: 0.0,
            active_max: 0,
        };
        let mut changes: Vec<_> = list
            .clone()
            .flat_map(|server| [Some(server.from_ms), server.to_ms])
            .flatten()
            .collect();
        changes.sort_unstable_by_key(|at_ms| Reverse(*at_ms));
        changes.dedup();
        let mut this = Self {
            servers: list.map(state).collect(),
            present: Vec::new(),
            table: Arc::default(),
            counts: Vec::new(),
            changes,
            endings: BinaryHeap::new(),
            events: Vec::new(),
            placed: 0,
        };
        this.advance(0);
        this
    }

    /// Goes on to a moment: what ends until then ends, who comes or goes does.
    pub(super) fn advance(&mut self, at_ms: u64) {
        while let Some(change_ms) = self.changes.pop_if(|change_ms| *change_ms <= at_ms) {
            self.end_connections(change_ms);
            self.change_servers(change_ms);
        }
        self.end_connections(at_ms);
    }

    /// What plugins are shown of the servers that are there.
    pub(super) fn table(&self) -> &Arc<ServerTable> {
        &self.table
    }

    /// What a plugin is asked about a request at this moment.
    pub(super) fn question<'q>(&'q self, request: &'q Request) -> Question<'q> {
        let Self { table: servers, counts, events, .. } = self;
        Question { request, servers, counts, events }
    }

    /// Opens the connection that a plugin was asked about, and says at which server, by index into
    /// the specification: where the plugin says, or where the director does when it does not.
    pub(super) fn place(&mut self, answer: &Answer, at_ms: u64, life_ms: u64) -> Option<usize> {
        self.events.clear();
        let seat = self.seat(answer)?;
        let server = *self.present.get(seat)?;
        let (active, _) = self.counts.get_mut(seat)?;
        *active += 1;
        let state = self.servers.get_mut(server)?;
        state.active_max = state.active_max.max(*active);
        state.placed += 1;
        self.placed += 1;
        let closed = Ending::Closed { life_ms };
        self.endings.push(Reverse((at_ms.saturating_add(life_ms), server, closed)));
        self.events.push((at_ms, Event { kind: EventKind::Bound, server_id: id(server) }));
        Some(server)
    }

    /// Which of the servers present gets the connection.
    fn seat(&self, answer: &Answer) -> Option<usize> {
        match answer {
            Answer::Given(Pick::Server(index)) => Some(*index),
            Answer::Given(Pick::NoServer) => None,
            Answer::Given(Pick::Defer) | Answer::Failed(_) | Answer::Quarantined => {
                weighted_least_connections(&self.table.servers, &self.counts)
            }
        }
    }

    /// What became of each server, of so many placed connections.
    pub(super) fn into_outcomes(mut self, placed: u64) -> Vec<ServerOutcome> {
        self.settle();
        let part = |of: f64| if placed == 0 { 0.0 } else { of / placed as f64 };
        let outcome = |state: ServerState| ServerOutcome {
            address: state.server.address,
            weight: state.server.weight,
            placed: state.placed,
            share: part(state.placed as f64),
            due: part(state.due),
            active_max: state.active_max,
        };
        self.servers.into_iter().map(outcome).collect()
    }

    fn end_connections(&mut self, at_ms: u64) {
        while self.endings.peek().is_some_and(|Reverse((end_ms, ..))| *end_ms <= at_ms) {
            let Some(Reverse((end_ms, server, ending))) = self.endings.pop() else { return };
            let seat = self.servers.get(server).and_then(|state| state.seat);
            // The connections of a server that went are gone with it.
            let Some(counts) = seat.and_then(|seat| self.counts.get_mut(seat)) else { continue };
            match ending {
                Ending::Closed { life_ms } => {
                    counts.0 -= 1;
                    counts.1 += 1;
                    let end_ms = end_ms.saturating_add(TIME_WAIT_MS);
                    let forgotten = Ending::Forgotten { life_ms };
                    self.endings.push(Reverse((end_ms, server, forgotten)));
                }
                Ending::Forgotten { life_ms } => {
                    counts.1 -= 1;
                    let lifetime_ms = u32::try_from(life_ms).unwrap_or(u32::MAX);
                    let kind = EventKind::Unbound { lifetime_ms };
                    self.events.push((end_ms, Event { kind, server_id: id(server) }));
                }
            }
        }
    }

    fn change_servers(&mut self, at_ms: u64) {
        self.settle();
        let counts = std::mem::take(&mut self.counts);
        self.present.clear();
        let mut table = ServerTable::default();
        for (server, state) in self.servers.iter_mut().enumerate() {
            let former = state.seat.and_then(|seat| counts.get(seat)).copied();
            state.seat = state.server.is_there(at_ms).then_some(self.present.len());
            if state.seat.is_some() {
                self.present.push(server);
                self.counts.push(former.unwrap_or_default());
                let (record, info) = records(server, &state.server);
                table.servers.push(record);
                table.info.push(info);
            }
        }
        self.table = Arc::new(table);
    }

    /// Adds to what each server's weight would have given it, before the servers change.
    fn settle(&mut self) {
        let placed = std::mem::take(&mut self.placed);
        let weights = self.present.iter().filter_map(|server| self.servers.get(*server));
        let total: u64 = weights.map(|state| u64::from(state.server.weight)).sum();
        if total == 0 {
            return;
        }
        for server in &self.present {
            if let Some(state) = self.servers.get_mut(*server) {
                state.due += placed as f64 * f64::from(state.server.weight) / total as f64;
            }
        }
    }
}

/// The number of a server is its place in the specification, so one that comes back is another one at
/// the same address.
fn id(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1)
}

/// What a plugin is shown of a server.
fn records(place: usize, server: &SimulatedServer) -> (Server, ServerInfo) {
    let SimulatedServer { address, weight, .. } = *server;
    let record = Server {
        id: id(place),
        weight,
        flags: server_flags::UP,
        configured_weight: weight,
        key: server_key(address.ip(), address.port(), PROTOCOL),
        ..Server::default()
    };
    let info = ServerInfo {
        address: encode_address(address.ip()),
        port: address.port(),
        family: family(address),
        ..ServerInfo::default()
    };
    (record, info)
}

fn family(address: SocketAddr) -> u16 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// The director's own rule, over records: [`wvs_core::scheduler::weighted_least_connections`].
fn weighted_least_connections(servers: &[Server], counts: &[(u32, u32)]) -> Option<usize> {
    let mut least: Option<(usize, u64, u64)> = None;
    for (index, (server, (active, inactive))) in servers.iter().zip(counts).enumerate() {
        let weight = u64::from(server.weight);
        let load = u64::from(*active) * 256 + u64::from(*inactive);
        let is_less = least
            .is_none_or(|(_, least_load, least_weight)| load * least_weight < least_load * weight);
        if weight > 0 && is_less {
            least = Some((index, load, weight));
        }
    }
    least.map(|(index, ..)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(servers: &str) -> World {
        World::new(&servers.parse().unwrap())
    }

    fn to(index: usize) -> Answer {
        Answer::Given(Pick::Server(index))
    }

    #[test]
    fn connection_is_active_then_inactive_then_forgotten() {
        let mut world = world("1,1");
        world.advance(10);
        assert_eq!(world.place(&to(1), 10, 5), Some(1));
        assert_eq!(world.counts, [(0, 0), (1, 0)]);
        world.advance(14);
        assert_eq!(world.counts, [(0, 0), (1, 0)]);
        world.advance(15);
        assert_eq!(world.counts, [(0, 0), (0, 1)]);
        assert_eq!(world.events, [(10, Event { kind: EventKind::Bound, server_id: 2 })]);
        world.place(&Answer::Given(Pick::NoServer), 15, 0);
        world.advance(15 + TIME_WAIT_MS);
        assert_eq!(world.counts, [(0, 0), (0, 0)]);
        let kind = EventKind::Unbound { lifetime_ms: 5 };
        assert_eq!(world.events, [(15 + TIME_WAIT_MS, Event { kind, server_id: 2 })]);
    }

    #[test]
    fn server_that_goes_takes_its_connections_along() {
        let mut world = world("192.0.2.1:80@..20,192.0.2.2:80,192.0.2.1:80@30..");
        let before = Arc::clone(world.table());
        world.place(&to(0), 0, 100);
        world.place(&to(1), 0, 100);
        world.advance(20);
        assert_eq!(world.counts, [(1, 0)]);
        assert_eq!(world.place(&to(0), 20, 100), Some(1));
        world.advance(30);
        assert_eq!(world.counts, [(2, 0), (0, 0)]);
        let (old, new) = (before.servers[0], world.table().servers[1]);
        assert_eq!(old.key, new.key);
        assert_ne!(old.id, new.id);
        world.advance(u64::MAX);
        assert_eq!(world.counts, [(0, 0), (0, 0)]);
    }

    #[test]
    fn director_places_what_the_plugin_does_not() {
        let mut world = world("0,1,3");
        for expected in [1, 2, 2, 2, 1] {
            assert_eq!(world.place(&Answer::Quarantined, 0, 100), Some(expected));
        }
        assert_eq!(world.place(&Answer::Given(Pick::NoServer), 0, 100), None);
        assert_eq!(self::world("0").place(&Answer::Quarantined, 0, 1), None);
        assert_eq!(self::world("1@5..").place(&Answer::Quarantined, 0, 1), None);
    }

    #[test]
    fn due_is_counted_while_a_server_is_there() {
        let mut world = world("1,1@..10");
        for _ in 0..4 {
            world.place(&to(0), 0, 1);
        }
        world.advance(10);
        for _ in 0..4 {
            world.place(&to(0), 10, 1);
        }
        let due: Vec<_> = world.into_outcomes(8).iter().map(|server| server.due).collect();
        assert_eq!(due, [0.75, 0.25]);
    }
}
